"""Memory: calls leave nothing behind, errors neither; little beside the result is taken; none to be had is MemoryError; and
elements however far apart are found.

What is counted is exact, not a guess from the resident size: Python's blocks (sys.getallocatedblocks) and glibc's bytes in use
(mallinfo2), in a process of its own where every block of a page and more is a mapping by itself, so that the peak of a call can
be read off (malloc_stats) and a limit of the address space meets the kernels' scratch.  A long run, which watches the resident
size too:

    python tests/test_memory.py growth --calls 100000

Refused here: memory that the threads of OpenMP keep, and sizes that need gigabytes in fact.
"""

import argparse
import ctypes
import gc
import itertools
import math
import mmap
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import dwconv
from dwconv import _cpu, _runtime

LAYOUTS, DTYPES = ("channels_last", "channels_first"), (np.float32, np.float64)
TUNABLES = "glibc.malloc.mmap_threshold=4096:glibc.malloc.top_pad=0:glibc.malloc.trim_threshold=0"
KIB, WORKER = 1024, 64 * 1024  # bytes; of scratch that a worker may have
WINDOWS = 4  # in each of which growth must be seen to be growth


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def libc():
    library = ctypes.CDLL(None, use_errno=True)
    library.mallinfo2.restype = Mallinfo
    library.malloc.restype, library.malloc.argtypes, library.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    return library


def in_use(library):
    """Bytes that malloc has given out."""
    info = library.mallinfo2()
    return info.uordblks + info.hblkhd


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def measures(library):
    """What is in use, without the names that Python's cache of attributes holds."""
    gc.collect()
    (getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache)()  # the latter's name until Python 3.12
    return sys.getallocatedblocks(), in_use(library)


def runnable():
    return [name for name in _runtime.built() if name in _cpu.instruction_sets()]


def each_module(only):
    for name in only or runnable():
        _runtime.kernels = _runtime.load(name)
        yield name


# ---- growth ----

def refused(call, *errors):
    """The call as one that ends in an error."""
    def attempt():
        try:
            call()
        except errors:
            return
        raise AssertionError("no error")
    return attempt


def small_calls():
    """Calls by name: each way that takes scratch or copies, and each kind of error."""
    rng = np.random.default_rng(0)
    calls = {}
    for number, (data_format, c, m, strides) in enumerate(itertools.product(LAYOUTS, (2, 17), (1, 2), (1, 2))):
        dtype = DTYPES[number % 2]
        shape = (1, 8, 9, c) if data_format == "channels_last" else (1, c, 8, 9)
        x, kernel = rng.standard_normal(shape).astype(dtype), rng.standard_normal((3, 3, c, m)).astype(dtype)
        options = {"strides": strides, "data_format": data_format, "workers": 1 + (number % 8 == 0)}
        grad = dwconv.depthwise_conv2d(x, kernel, **options)
        name = f"{data_format} {dtype.__name__} {c} {m} {strides}"
        calls[f"forward {name}"] = lambda x=x, k=kernel, o=options: dwconv.depthwise_conv2d(x, k, **o)
        calls[f"input_grad {name}"] = lambda a=(grad, kernel, shape), o=options: dwconv.depthwise_conv2d_input_grad(*a, **o)
        calls[f"kernel_grad {name}"] = lambda x=x, g=grad, o=options: dwconv.depthwise_conv2d_kernel_grad(x, g, 3, **o)
    x, kernel, bias = np.ones((1, 9, 9, 5), np.float32), np.ones((3, 3, 5, 2), np.float32), np.ones(10, np.float32)
    layer = dwconv.DepthwiseConv2D(3, depth_multiplier=2, activation="swish", depthwise_regularizer="l2",
                                   activity_regularizer="l1")
    convolve = dwconv.depthwise_conv2d

    def trained():
        outputs, pullback = layer.vjp(x)
        pullback(outputs, losses_grad=1.0)

    def failing(_):
        raise KeyError("activation")

    same, wide = np.ones((9, 9, 5), np.float32), np.ones((1, 1, 5), np.float32)
    calls.update({
        "float16": lambda: convolve(x.astype(np.float16), kernel.astype(np.float16), activation="tanh"),
        "misaligned": lambda: convolve(np.ones(81 * 5 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(9, 9, 5), kernel, bias),
        "gaps": lambda: convolve(x[:, ::2, :, ::-2], kernel[:, :, :3], out=np.empty((1, 3, 7, 6), np.float32)[:, ::-1]),
        "out over x": lambda: convolve(same, wide, out=same),
        "layer": lambda: layer(x),
        "vjp": trained,
        "config": lambda: dwconv.DepthwiseConv2D.from_config(layer.get_config()),
        "wrong channels": refused(lambda: convolve(x, kernel[:, :, :4]), ValueError),
        "wrong dtype": refused(lambda: convolve(x.astype(complex), kernel), TypeError),
        "wrong strides": refused(lambda: convolve(x, kernel, strides=0), ValueError),
        "wrong bias": refused(lambda: convolve(x, kernel, bias[1:]), ValueError),
        "wrong out": refused(lambda: convolve(x, kernel, out=bias), ValueError),
        "wrong workers": refused(lambda: convolve(x, kernel, workers=0), ValueError),
        "wrong name": refused(lambda: convolve(x, kernel, activation="nothing"), ValueError),
        "activation that fails": refused(lambda: convolve(x, kernel, activation=failing), KeyError),
        "activation of another shape": refused(lambda: convolve(x, kernel, activation=lambda y: y[0]), ValueError),
        "gradient of another shape": refused(lambda: dwconv.depthwise_conv2d_kernel_grad(x, x, 3), ValueError),
        "input of another shape": refused(lambda: dwconv.depthwise_conv2d_input_grad(x, kernel, (1, 2)), ValueError),
        "layer of other channels": refused(lambda: layer(x[..., 1:]), ValueError),
        "layer of causal padding": refused(lambda: dwconv.DepthwiseConv2D(3, padding="causal"), ValueError),
        "weights of another shape": refused(lambda: layer.set_weights([bias, bias]), ValueError),
    })
    return calls


def growth(count, only, leak):
    """About `count` calls in all; says which of them leave something behind."""
    _runtime.GRAIN = 1
    library, kept, modules, start = libc(), [], list(each_module(only)), resident()
    calls = small_calls()
    if leak:
        calls = {"a leak": lambda: kept.append(bytearray(1000)), "a leak of C": lambda: library.malloc(1000)}
    rounds, guilty = max(count // (len(calls) * len(modules) * WINDOWS), 10), []
    for call in () if leak else calls.values():
        for _ in range(10):  # what is kept on purpose, such as plans
            call()
    gc.collect()
    gc.freeze()  # so that collections look at what the calls make only
    for module in each_module(modules):
        for name, call in calls.items():
            grown = []
            for _ in range(WINDOWS):
                before = measures(library)
                for _ in range(rounds):
                    call()
                grown.append([b - a for a, b in zip(before, measures(library), strict=True)])
            blocks, size = (min(window) for window in zip(*grown, strict=True))  # what is kept once is no growth
            if blocks >= rounds or size >= 16 * rounds:
                guilty.append(f"{module}, {name}: {blocks} blocks, {size} bytes in {rounds} calls")
    print(f"{len(modules) * len(calls) * WINDOWS * rounds} calls, {resident() - start} bytes more resident", *guilty, sep="\n")
    return bool(guilty)


# ---- the peak of a call ----

def peak(library, file):
    """The most bytes that malloc has had in mappings so far: what glibc says on stderr."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    file.seek(0)
    file.truncate()
    library.malloc_stats()
    os.dup2(kept, 2)
    os.close(kept)
    file.seek(0)
    return int(re.search(rb"max mmap bytes\s*=\s*(\d+)", file.read())[1])


def extra(library, file, call):
    """Bytes that a call takes and gives back."""
    call()
    while library.mallinfo2().hblkhd < peak(library, file):  # so that the next maximum is the call's
        library.malloc(max(peak(library, file) - library.mallinfo2().hblkhd, 2**20))
    before = library.mallinfo2().hblkhd
    call()
    return peak(library, file) - before


def accounts(data_format, dtype, c, kind, workers):
    """What each function may take beside its result, in bytes, and the call."""
    size, strides, dilation, m = kind
    shape = (2, 28, 30, c) if data_format == "channels_last" else (2, c, 28, 30)
    options = {"strides": strides, "dilation_rate": dilation, "data_format": data_format, "workers": workers}
    x, kernel = np.ones(shape, dtype), np.ones((*size, c, m), dtype)
    y, x_grad, kernel_grad = dwconv.depthwise_conv2d(x, kernel, **options), np.empty_like(x), np.empty_like(kernel)
    sums = max(16 * KIB, math.prod(size) * 64)  # of a group of channel blocks, see _kernel_grad.pxi
    yield "forward", WORKER * workers, lambda: dwconv.depthwise_conv2d(x, kernel, out=y, **options)
    yield "with its result", y.nbytes + mmap.PAGESIZE + WORKER * workers, lambda: dwconv.depthwise_conv2d(x, kernel, **options)
    yield "input_grad", WORKER * workers, lambda: dwconv.depthwise_conv2d_input_grad(y, kernel, shape, out=x_grad, **options)
    yield ("kernel_grad", (WORKER + 6 * sums) * workers + 8 * workers * (kernel.nbytes + sums),
           lambda: dwconv.depthwise_conv2d_kernel_grad(x, y, size, out=kernel_grad, **options))


def peaks(only):
    """Each call's share beyond 64 KiB a worker: none; kernel_grad has its sums besides."""
    library, file = libc(), tempfile.TemporaryFile()  # noqa: SIM115
    _runtime.GRAIN, most, wrong = 1, 0, []
    kinds = [((3, 3), 1, 1, 1), ((3, 3), 2, 1, 1), ((5, 5), 2, 1, 2), ((7, 7), 1, 2, 1), ((2, 3), 3, 1, 1)]
    for module in each_module(only):
        for case in itertools.product(LAYOUTS, DTYPES, (3, 96), kinds, (1, 2)):
            for name, limit, call in accounts(*case):
                taken = extra(library, file, call)
                most = max(most, taken if name == "forward" else 0)
                if taken > limit:
                    wrong.append(f"{module} {name} {case}: {taken} above {limit}")
    print(f"most {most}", *wrong, sep="\n")
    return bool(wrong)


# ---- none to be had ----

def virtual():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * mmap.PAGESIZE


def where(trace):
    """The function that an exception comes from."""
    while trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name.rpartition(".")[2]


def allocations():
    """Calls by the function in which each must fail: the kernels' scratch, results, copies."""
    x, kernel = np.ones((1, 40, 20, 20), np.float32), np.ones((7, 7, 40, 2), np.float32)
    options = {"data_format": "channels_first", "workers": 2, "padding": "same"}
    y, x_grad, kernel_grad = dwconv.depthwise_conv2d(x, kernel, **options), np.empty_like(x), np.empty_like(kernel)
    flat, wide = np.ones((1, 20, 30, 3), np.float32), np.ones((20, 20, 3, 1), np.float32)
    flat_out = np.empty((1, 1, 11, 3), np.float32)
    large = np.broadcast_to(np.float32(1), (1, 2**13, 2**13, 8))
    layer = dwconv.DepthwiseConv2D(3)
    layer.build(large.shape)
    yield "_forward", lambda: dwconv.depthwise_conv2d(x, kernel, out=y, **options)
    yield "_forward", lambda: dwconv.depthwise_conv2d(flat, wide, out=flat_out)
    yield "_input_grad", lambda: dwconv.depthwise_conv2d_input_grad(y, kernel, x.shape, out=x_grad, **options)
    yield "_kernel_grad", lambda: dwconv.depthwise_conv2d_kernel_grad(x, y, 7, out=kernel_grad, **options)
    yield "depthwise_conv2d", lambda: dwconv.depthwise_conv2d(large, np.ones((3, 3)))
    yield "depthwise_conv2d", lambda: layer(large)
    yield "_gradient", lambda: dwconv.depthwise_conv2d_input_grad(large, np.ones((1, 1, 8, 1)), large.shape)
    yield "readable", lambda: dwconv.depthwise_conv2d(x[:, :, :, ::-1], kernel, out=y, **options)
    yield "packed", lambda: dwconv.depthwise_conv2d(x, kernel[::-1], out=y, **options)


def failures(only):
    """Each allocation that can fail made to fail: MemoryError out of the right place, nothing kept, the next call right."""
    import resource  # not on Windows

    _runtime.GRAIN = 1
    library, wrong, count, calls = libc(), [], 0, list(allocations())
    calls[0][1]()  # threads
    for module in each_module(only):
        for name, call in calls:
            expected = np.array(call()) if name.startswith("_") and name != "_gradient" else None
            for _ in range(2):  # the first may fill caches
                gc.collect()
                before, error, taken = in_use(library), None, []
                resource.setrlimit(resource.RLIMIT_AS, (virtual(), resource.RLIM_INFINITY))
                try:
                    for size in (64 * KIB, 4 * KIB):  # what the heap has left
                        while block := library.malloc(size):
                            taken.append(block)
                    call()
                except MemoryError as caught:
                    error = where(caught.__traceback__)
                finally:
                    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
                    while taken:
                        library.free(taken.pop())
                gc.collect()
                count += 1
                left = in_use(library) - before
            if error != name or left > KIB:
                wrong.append(f"{module}, {name}: MemoryError in {error}, {left} bytes left")
            if expected is not None and not np.array_equal(call(), expected):
                wrong.append(f"{module}, {name}: another result afterwards")
    print(f"{count} failures", *wrong, sep="\n")
    return bool(wrong)


# ---- as tests ----

def child(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLIBC_TUNABLES": TUNABLES,
                   "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True)


exact = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2") or "san" in os.environ.get("LD_PRELOAD", ""),
    reason="counts what glibc's malloc says")


@exact
def test_no_growth():
    """The long command has 20 times as many calls."""
    done = child("growth", "--calls", 3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


@exact
def test_growth_is_seen():
    done = child("growth", "--calls", 200, "--leak")
    assert done.returncode == 1
    assert "a leak: " in done.stdout
    assert "a leak of C: " in done.stdout


@exact
def test_peak():
    """Beside the result 64 KiB a worker, which some calls do take."""
    done = child("peak")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert WORKER < int(done.stdout.split()[1]) <= 2 * WORKER


@exact
def test_none_to_be_had():
    done = child("failures")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


# ---- elements far apart ----

DISTANCE, MAPPED = 2**32 + 48, 2**40  # elements from one to the next; bytes, of which some pages ever exist


@pytest.fixture(scope="module")
def emptiness():
    no_reserve = 0x4000  # which mmap names from Python 3.13 on
    try:
        memory = mmap.mmap(-1, MAPPED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    except (AttributeError, OSError, OverflowError) as error:
        pytest.skip(f"no mapping of 2**40 bytes: {error}")
    return memory


def far(emptiness, array, axis, falling):
    """The array, its elements along one axis 2**32 and some apart."""
    strides = list(array.strides)
    strides[axis] = DISTANCE * array.itemsize * (-1 if falling else 1)
    start = -strides[axis] * (array.shape[axis] - 1) if falling else 0
    view = np.ndarray(array.shape, array.dtype, emptiness, start, strides)
    view[...] = array
    return view


@pytest.mark.skipif(sys.platform != "linux", reason="needs a mapping that takes no memory")
@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("kind", [(17, 3, 1, 1, 1), (3, 5, 1, 1, 1), (18, 3, 2, 1, 1), (4, 2, 3, 2, 2)], ids=str)
def test_far_apart(kernels, threaded, emptiness, data_format, kind):
    """Distances beyond 2**32 elements and bytes, of images, channels, rows and columns, in each argument and result."""
    c, size, strides, dilation, m = kind
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        shape = (2, 4, 5, c) if data_format == "channels_last" else (2, c, 4, 5)
        options = {"strides": strides, "dilation_rate": dilation, "padding": 2, "data_format": data_format}
        x, kernel = rng.standard_normal(shape).astype(dtype), rng.standard_normal((size, size, c, m)).astype(dtype)
        y = dwconv.depthwise_conv2d(x, kernel, **options)
        x_grad = dwconv.depthwise_conv2d_input_grad(y, kernel, shape, **options)
        kernel_grad = dwconv.depthwise_conv2d_kernel_grad(x, y, (size, size), **options)
        for axis, falling in itertools.product(range(3), (False, True)):
            options["workers"] = 2 if falling and axis == 1 else 1  # threads that wait spin, and cost more than the calls
            there = far(emptiness, x, axis, falling)
            assert dwconv.depthwise_conv2d(there, kernel, **options).tobytes() == y.tobytes()
            assert dwconv.depthwise_conv2d_kernel_grad(there, y, size, **options).tobytes() == kernel_grad.tobytes()
            assert dwconv.depthwise_conv2d_input_grad(y, kernel, shape, out=there, **options).tobytes() == x_grad.tobytes()
            there = far(emptiness, y, axis, falling)
            assert dwconv.depthwise_conv2d_input_grad(there, kernel, shape, **options).tobytes() == x_grad.tobytes()
            assert dwconv.depthwise_conv2d_kernel_grad(x, there, size, **options).tobytes() == kernel_grad.tobytes()
            there[...] = 0
            assert dwconv.depthwise_conv2d(x, kernel, out=there, **options).tobytes() == y.tobytes()


# ---- elements without end ----

ONE = np.float32(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8])
@pytest.mark.parametrize("data_format", LAYOUTS)
def test_huge_views_of_gradients(kernels, data_format, dtype):
    """2.5e9 elements, one of them in memory; nothing but that one and a row of it is copied."""
    one = dtype(1)
    shape = (1, 50000, 50000, 1) if data_format == "channels_last" else (1, 1, 50000, 50000)
    x, grad = np.broadcast_to(one, shape), np.full((1, 2, 2, 1) if data_format == "channels_last" else (1, 1, 2, 2), ONE)
    options = {"strides": 40000, "data_format": data_format}
    assert dwconv.depthwise_conv2d(x, np.ones((3, 3), np.float32), **options).tolist() == (grad * 9).tolist()
    assert dwconv.depthwise_conv2d_kernel_grad(x, grad, 3, **options).ravel().tolist() == [4] * 9
    # a gradient of 2**32 - 1 rows, all but two of padding
    shape = (1, 2, 1, 3) if data_format == "channels_last" else (1, 3, 2, 1)
    grad = np.broadcast_to(one, (1, 2**32, 1, 3) if data_format == "channels_last" else (1, 3, 2**32, 1))
    options = {"padding": ((2**31 - 1, 2**31 - 1), (0, 0)), "data_format": data_format}
    x_grad = dwconv.depthwise_conv2d_input_grad(grad, np.full((1, 1, 3, 1), ONE), shape, **options)
    assert (x_grad == 1).all()


# ---- as a command ----

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["growth", "peak", "failures"])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--leak", action="store_true", help="growth that must be seen")
    options = parser.parse_args()
    if os.environ.get("GLIBC_TUNABLES") != TUNABLES:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "GLIBC_TUNABLES": TUNABLES})
    forced = os.environ.get("DWCONV_KERNELS")
    only = [forced] if forced else None
    wrong = {"growth": lambda: growth(options.calls, only, options.leak), "peak": lambda: peaks(only),
             "failures": lambda: failures(only)}[options.what]()
    sys.exit(wrong)


if __name__ == "__main__":
    main()
