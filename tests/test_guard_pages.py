"""Reads and writes past an end of an array die: every argument lies flush against a page that may not be touched.

XNNPACK's kernels read past an end where they may (its issue 10199 is a crash at the end of a page); dwconv's promise not to,
and a value alone does not show it.  Each kernels module gets a process of its own, which names each case in a file before it
runs it, so that a death names its case.  What surrounds an array within its pages is NaN, and around `out` a sentinel that
must stay.

A long run, of random cases on every kernels module in turn; a case that died or failed, again:

    python tests/test_guard_pages.py --seconds 600 --seed 1
    DWCONV_KERNELS=avx2 python tests/test_guard_pages.py --case "{'c': 17, ...}"

Refused here: sanitizers, which see the stack and the scratch too (.ci/sanitize); threads that race.
"""

import argparse
import ast
import ctypes
import faulthandler
import itertools
import mmap
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import typing

import numpy as np
import oracle
import pytest

import dwconv
from dwconv import _cpu, _runtime

SENTINEL, MARGIN = -12345.0, 64  # around `out`; elements, several vectors of any width
LAYOUTS, PASSES = ("channels_last", "channels_first"), ("forward", "input_grad", "kernel_grad")
PAGE, ROOM = mmap.PAGESIZE, 2**28  # bytes of an arena, of which a case touches what it needs


class Case(typing.NamedTuple):
    """One geometry, layout and placement, for all three passes."""

    n: int = 1
    h: int = 5
    w: int = 9
    c: int = 1
    m: int = 1
    size: tuple = (3, 3)
    strides: tuple = (1, 1)
    dilation: tuple = (1, 1)
    padding: object = "same"
    data_format: str = "channels_last"
    dtype: str = "float32"
    at_end: bool = True   # flush against the page after the last byte, or before the first
    shift: int = 0        # elements away from there
    gap: int = 0          # elements between pixels (channels_last) or rows of x and grad
    out_gap: int = 0      # ... of out
    reverse: bool = False  # columns of x and grad in falling order
    broadcast: bool = False  # one image in memory, n times
    workers: int = 1
    activation: object = None


class Arena:
    """Memory between two pages that may not be touched."""

    def __init__(self, libc):
        self.memory = mmap.mmap(-1, ROOM + 2 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for start in (address, address + PAGE + ROOM):
            if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(PAGE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes = np.frombuffer(self.memory, np.uint8, ROOM, PAGE)

    def place(self, case, shape, values, fill, gap=0):
        """An array of that shape with these values, flush, and all around it that is `fill`."""
        numbers = self.bytes.view(case.dtype)
        reach, strides = 1, [numbers.itemsize] * len(shape)
        for k in range(len(shape) - 2, -1, -1):
            strides[k] = strides[k + 1] * shape[k + 1] + (gap * numbers.itemsize if k == len(shape) - 2 else 0)
        reach += sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) // numbers.itemsize
        start = numbers.size - reach - case.shift if case.at_end else case.shift
        around = numbers[max(start - MARGIN, 0) : start + reach + MARGIN]
        around[:] = fill
        array = np.ndarray(shape, numbers.dtype, self.bytes, start * numbers.itemsize, strides)
        array[...] = values
        return array, around


class Bench:
    """The arenas of one process, and the values that lie in them."""

    def __init__(self, status=None):
        faulthandler.enable()
        _runtime.GRAIN = 1  # small calls are worth two workers too
        libc = ctypes.CDLL(None, use_errno=True)
        self.arenas = {role: Arena(libc) for role in ("x", "kernel", "bias", "grad", "out")}
        self.numbers = oracle.integers((2**16,), 1, 3)
        self.status = os.open(status, os.O_RDWR | os.O_CREAT) if status else None

    def values(self, *shape):
        return np.resize(self.numbers, shape)

    def name(self, text):
        """Says, outside this process, what is about to run."""
        if self.status is not None:
            os.pwrite(self.status, f"{text:<600}".encode(), 0)

    def run(self, case, compare):
        """All passes of a case, compared with the oracle if asked; how many calls that were."""
        last = case.data_format == "channels_last"
        shape, kernel_shape = (case.n, case.h, case.w, case.c), (*case.size, case.c, case.m)
        options = {"strides": case.strides, "padding": case.padding, "dilation_rate": case.dilation}
        try:
            rows, cols = dwconv._plan.forward(shape, kernel_shape, *options.values(), "channels_last")[:2]
        except ValueError:
            return 0  # a kernel larger than the image

        def arranged(s):
            return s if last else (s[0], s[3], s[1], s[2])

        def images(role, s):
            """The array of a role as the functions get it, and as the oracle does."""
            one = arranged((1, *s[1:]) if case.broadcast else s)
            a, _ = self.arenas[role].place(case, one, self.values(*one), np.nan, case.gap)
            a = np.broadcast_to(a, arranged(s)) if case.broadcast else a
            a = (a[:, :, ::-1] if last else a[..., ::-1]) if case.reverse else a
            return a, a if last else a.transpose(0, 2, 3, 1)

        out_shape = (case.n, rows[1], cols[1], case.c * case.m)
        x, grad = images("x", shape), images("grad", out_shape)
        kernel, _ = self.arenas["kernel"].place(case, kernel_shape, self.values(*kernel_shape), np.nan)
        bias, _ = self.arenas["bias"].place(case, out_shape[3:], self.values(out_shape[3]), np.nan)
        for number, name in enumerate(PASSES[:1] if case.broadcast else PASSES):
            self.name(f"{name} {shortened(case)}")
            result = (out_shape, shape, kernel_shape)[number]
            out, around = self.arenas["out"].place(case, arranged(result) if number < 2 else result, SENTINEL, SENTINEL,
                                                   case.out_gap if number < 2 else 0)
            given = {"out": out, "workers": case.workers, "data_format": case.data_format, **options}
            if number == 0:
                dwconv.depthwise_conv2d(x[0], kernel, bias, activation=case.activation, **given)
            elif number == 1:
                dwconv.depthwise_conv2d_input_grad(grad[0], kernel, arranged(shape), **given)
            else:
                dwconv.depthwise_conv2d_kernel_grad(x[0], grad[0], case.size, **given)
            if compare:
                expected = (oracle.conv(x[1], kernel, bias, activation=case.activation, **options) if number == 0 else
                            oracle.input_grad(grad[1].astype(float), kernel.astype(float), shape, **options) if number == 1 else
                            oracle.kernel_grad(x[1].astype(float), grad[1].astype(float), case.size, **options))
                got = out if last or number == 2 else out.transpose(0, 2, 3, 1)
                assert np.array_equal(got, expected), f"{name}: wrong values: {shortened(case)}"
            assert np.isfinite(out.sum()), f"{name}: NaN from outside: {shortened(case)}"
            out[...] = SENTINEL
            assert (around == SENTINEL).all(), f"{name}: wrote outside out: {shortened(case)}"
        return 1 if case.broadcast else len(PASSES)


def shortened(case):
    """The case as --case takes it."""
    return {key: value for key, value in case._asdict().items() if value != Case._field_defaults[key]}


# Kernel, strides, dilation, multiplier: what has tiles of its own, and what has none.
KINDS = [
    ((3, 3), 1, 1, 1), ((3, 3), 2, 1, 1), ((5, 5), 1, 1, 1), ((5, 5), 2, 1, 1), ((7, 7), 1, 1, 1), ((1, 1), 1, 1, 1),
    ((1, 1), 2, 1, 1), ((4, 4), 1, 1, 1), ((1, 7), 1, 1, 1), ((2, 3), 3, 1, 1), ((3, 3), 1, 2, 1), ((3, 3), 1, 1, 2),
    ((3, 2), 2, 1, 3), ((3, 3), 1, 1, 4), ((4, 4), 2, 1, 1), ((2, 2), 2, 1, 1),
]


def grid(vector_bytes):
    """Every vector tail: of channels; of rows of few channels, of a vector of planes and a few, and of long rows."""
    ends = itertools.product(LAYOUTS, ("float32", "float64"), (True, False))
    for number, (data_format, dtype, at_end) in enumerate(ends):
        size = np.dtype(dtype).itemsize
        lanes = max(vector_bytes // size, 1)
        # what is read before an array depends on the padding, not on the tail
        tails = range(1, 2 * lanes + 2) if at_end else sorted({1, 2, lanes - 1, lanes, lanes + 1, 2 * lanes + 1} - {0})
        common = {"data_format": data_format, "dtype": dtype, "at_end": at_end}
        for k, (kernel, stride, dilation, m) in enumerate(KINDS):
            kind = Case(**common, size=kernel, strides=(stride,) * 2, dilation=(dilation,) * 2, m=m)
            kind = kind._replace(workers=1 + ((k + number) % 4 == 0))
            for tail in tails:
                yield kind._replace(c=tail)
                yield kind._replace(c=3, w=tail)
                yield kind._replace(c=lanes + 1, w=tail, h=4)
        for tail, kernel, stride in itertools.product(tails, (3, 5, 7), (1, 2)):  # as strips: LONG_ROW
            yield Case(**common, h=3, w=192 + tail, size=(kernel,) * 2, strides=(stride,) * 2, workers=1 + (tail % 4 == 0))
        for tail, kernel, c in itertools.product(tails, (3, 5, 7), (2, 3, 4)):  # few channels as planes, in tiles
            yield Case(**common, c=c, h=9, w=(4 if c == 2 else 20) * lanes + tail, size=(kernel,) * 2, strides=(2, 2))
        for tail in tails:  # planes as channels, in windows of columns
            yield Case(**common, c=lanes + 1, h=9, w=600 + tail, size=(9, 5), strides=(2, 3))
        for c, stride in itertools.product((1, 2, 3), (1, 2)):  # a multiplier over rows that do not fit the scratch
            yield Case(**common, h=5, w=700, c=c, m=lanes + 1, size=(3, 3), strides=(stride,) * 2)
        for tail, stride, gap in itertools.product(tails, (1, 2), (0, 5)):  # read past the ends of rows, but not of planes
            yield Case(**common, n=2, h=3, w=8 * lanes * stride + tail, c=2, strides=(stride,) * 2, gap=gap)
        outs = sorted({max(lanes // 4, 1), max(lanes // 2, 1), *(n * lanes + k for n in (1, 2, 3) for k in (0, 1, 3)), 4 * lanes})
        shapes = [(3, d) for d in sorted({1, 2, max(lanes // 2, 1)})] + [(2, 1), (4, 1), (5, 1), (7, 1)]
        for out, (k, d), (left, right) in itertools.product(outs, shapes, itertools.product((0, 1), repeat=2)):
            w, half = out + (k - 1 - (left + right) * (k // 2)) * d, k // 2  # in 1 to 4 vectors, and in half of one
            if w > 0:
                yield Case(**common, c=3, h=5, w=w, size=(k, k), dilation=(1, d),
                           padding=((half, half), (left * half * d, right * half * d)))
        for k, out, left, right in itertools.product((4, 5, 7) if data_format == LAYOUTS[1] else (),
                                                     (lanes + 1, lanes + lanes // 2), (0, 1), (0, 1)):  # half a vector at the end
            w = (out - 1) * 2 + k - (left + right) * (k // 2)
            yield Case(**common, c=3, w=w, size=(k, k), strides=(2, 2), padding=((1, 1), (left * (k // 2), right * (k // 2))))
        for workers in (1, 2):  # a row of x that no output of its phase reaches, beside those that lie in the padding alone
            yield Case(**common, h=3, w=33, strides=(2, 2), dilation=(3, 1), padding=((9, 0), (1, 1)), workers=workers)
            yield Case(**common, h=100, w=1023, strides=(2, 2), padding=((101, 0), (1, 1)), workers=workers)
        for kernel, stride, extra, shift, gap in itertools.product((3, 5), (1, 2), (0, 3), (0, 3), (0, 2 * lanes - 3)):
            # blocks aligned in memory: the distance of pixels is a multiple of lanes, and the first block begins before channel 0
            yield Case(**common, h=4, w=5, c=8 * lanes + extra, size=(kernel,) * 2, strides=(stride,) * 2, shift=shift, gap=gap,
                       out_gap=gap)
        for kernel, c in itertools.product(((31, 31), (51, 5), (1, 33), (9, 8)), (3, lanes + 1)):  # beyond the tables of masks
            yield Case(**common, h=12, w=21, c=c, size=kernel)
        for kernel, c, gap in itertools.product(((1, 7), (2, 2), (7, 1)), (1, lanes + 1), (0, 5)):  # vectors down a plane
            yield Case(**common, h=9, w=3 * lanes - 3, c=c, size=kernel, gap=gap, out_gap=gap)
        for c, stride in itertools.product((1, lanes + 1), (1, 2)):  # vectors of outputs that lie in the padding
            yield Case(**common, h=3, w=9, c=c, strides=(stride,) * 2, padding=((0, 0), (4 * lanes + 3, 2 * lanes)))
        for c, w in ((1, 2100), (2, 1027)):  # GRAD_COLS
            yield Case(**common, h=2, c=c, w=w, size=(2, 3), strides=(2, 2))
        for kernel, stride, c in ((3, 1, lanes + 1), (3, 2, lanes + 1), (5, 1, 1)) if at_end else ():  # STREAM_BYTES
            yield Case(**common, n=18_000_000 // (26 * 31 * c * size) + 1, h=26, w=31, c=c, size=(kernel,) * 2,
                       strides=(stride,) * 2, broadcast=True)


def random_case(r):
    """Any case, of sizes near those that change the way through the kernels."""
    dtype = r.choice(["float32", "float64"])
    lanes = 64 // np.dtype(dtype).itemsize
    size = (r.choice([1, 2, 3, 3, 5, 5, 7, 4]),) * 2 if r.random() < 0.7 else (r.randint(1, 9), r.randint(1, 9))
    size = size if r.random() < 0.95 else (r.choice([1, 2, 11, 20, 34, 45]), r.choice([1, 2, 5, 11, 34, 45]))
    strides = (r.choice([1, 1, 2, 2, 3]),) * 2 if r.random() < 0.8 else (r.randint(1, 5), r.randint(1, 5))
    dilation = (1, 1) if r.random() < 0.65 else r.choice([(2, 2), (1, 2), (2, 1), (3, 1), (1, 3), (4, 4), (6, 4), (1, 17)])
    w = r.choice([r.randint(1, 20), r.randint(1, 80), r.randint(1, 80), r.randint(150, 420), r.choice([1, 600, 1024, 2200])])
    h = r.randint(1, 24) if w <= 500 else r.randint(1, 6)
    c = r.choice([r.randint(1, 4), r.randint(1, 2 * lanes + 3), r.randint(1, 2 * lanes + 3), lanes * r.choice([1, 2, 3])])
    m = r.choice([1, 1, 1, 1, 2, 3, 4, 5, 8, 9, 17])
    if r.random() < 0.1:
        c, m, w, h = r.choice([6 * lanes, 8 * lanes, 8 * lanes + 3, 10 * lanes]), r.choice([1, 1, 1, 2]), min(w, 20), min(h, 12)
    while c * m * h * w * size[0] * size[1] > 500_000:
        if h > 4:
            h //= 2
        elif m > 1:
            m = 1
        elif c > 8:
            c //= 2
        else:
            w //= 2
    sides = [(r.randint(0, 4), r.randint(0, 4)) if r.random() < 0.8 else (r.randint(0, 25), r.randint(0, 25)) for _ in "hw"]
    return Case(
        n=r.choice([1, 1, 2, 3]), h=h, w=w, c=c, m=m, size=size, strides=strides, dilation=dilation,
        padding=r.choice(["same", "valid", tuple(sides), tuple(sides)]), data_format=r.choice(LAYOUTS), dtype=dtype,
        at_end=r.random() < 0.6, shift=r.choice([0, 0, 0, r.randrange(16)]), gap=r.choice([0, 0, 0, 1, 3, 16, r.randrange(20)]),
        out_gap=r.choice([0, 0, 0, 1, 3, 16]), reverse=r.random() < 0.1, workers=r.choice([1, 1, 2, 3]),
        activation=r.choice([None, None, "relu", "relu6"]))


def too_far(bench, reverse, write):
    """Tells a kernel that the rows of x, or of out, have one element more than they do: it must not come back."""
    width, kernels = 9, _runtime.kernels
    case = Case(at_end=not reverse, reverse=reverse)
    arrays = [bench.arenas[role].place(case, (1, 1, 1, width), 1.0, fill)[0] for role, fill in (("x", 0), ("out", SENTINEL))]
    arrays = [a[..., ::-1].transpose(0, 2, 3, 1) if reverse else a.transpose(0, 2, 3, 1) for a in arrays]
    kernel = np.ones((1, 1, 1), np.float32)
    near, far = (1, 1, 1, 1, 1, 0), (width + 1, width + 1, 1, 1, 1, 0)
    room = np.zeros((1, 1, width + 1, 1), np.float32)
    bench.name("too far")
    x, out = (room, arrays[1]) if write else (arrays[0], room)
    kernels.forward("channels_last", x, kernel, None, out, near, far, (), 1)


# ---- as a test ----

def child(arguments, kernels, timeout, **streams):
    """This file as a command; threads that spin while they wait would take the cores of the tests beside it."""
    environment = {**os.environ, "DWCONV_KERNELS": kernels, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, env=environment, timeout=timeout, text=True, **streams)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect through ctypes is tried on Linux only")


def test_guard_pages(kernels, tmp_path):
    """Every tail, and some random cases; one in sixteen and one in four compared with the oracle."""
    status = tmp_path / "case"
    done = child(["--grid", "--status", status], kernels, 150, capture_output=True)
    assert done.returncode == 0, f"{done.returncode} in {status.read_text().strip()}: {done.stderr[-2000:]}"
    assert int(done.stdout.split()[-2]) > 2000, done.stdout


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("reverse", [False, True], ids=["after", "before"])
def test_one_element_too_far_is_death(tmp_path, reverse, write):
    """What the other test relies on."""
    status = tmp_path / "case"
    done = child(["--too-far", int(reverse), int(write), "--status", status], _runtime.kernels_name, 60, capture_output=True)
    assert done.returncode == -signal.SIGSEGV, f"{done.returncode} {done.stderr[-2000:]}"
    assert status.read_text().strip() == "too far"
    assert "Segmentation fault" in done.stderr


# ---- as a command ----

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of random cases, shared by the kernels modules")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=ast.literal_eval, help="run this case only")
    parser.add_argument("--grid", action="store_true", help="the suite's cases")
    parser.add_argument("--status", type=pathlib.Path, help="file that names the case that runs")
    parser.add_argument("--too-far", nargs=2, type=int, metavar=("BEFORE", "WRITE"), help="the death that must happen")
    options = parser.parse_args()
    if not os.environ.get("DWCONV_KERNELS"):
        names = [name for name in _runtime.built() if name in _cpu.instruction_sets()]
        arguments = ["--seconds", options.seconds / len(names), "--seed", options.seed]
        arguments += ["--case", repr(options.case)] if options.case is not None else ["--grid"] if options.grid else []
        codes = [child(arguments, name, None).returncode for name in names]
        sys.exit(any(codes))
    bench = Bench(options.status)
    if options.too_far:
        too_far(bench, *options.too_far)
        return
    start, said, calls = time.monotonic(), 0.0, 0
    if options.case is not None:
        calls = bench.run(Case(**options.case), True)
    elif options.grid:
        for number, case in enumerate(grid(_runtime.kernels.build_info()["vector_bytes"])):
            calls += bench.run(case, number % 16 == 0 and not case.broadcast)
        for seed in range(options.seed, options.seed + 60):
            calls += bench.run(random_case(random.Random(seed)), seed % 4 == 0)
    else:
        for seed in itertools.count(options.seed):
            past = time.monotonic() - start
            if past > options.seconds:
                break
            if past > said + 5:
                said = past
                print(f"\r{_runtime.kernels_name}: seed {seed}, {calls} calls, {past:.0f} s", end="", flush=True)
            case = random_case(random.Random(seed))
            calls += bench.run(case, seed % 4 == 0)
        print()
    print(f"{_runtime.kernels_name}: {calls} calls")


if __name__ == "__main__":
    main()
