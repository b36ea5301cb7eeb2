"""`python -m dwconv selftest`: random calls of the three functions, on every kernels module that runs, against plain NumPy.

A case follows from its seed and its number alone (see _cases.py), so that one line repeats it.  Values are small integers whose
sums the computing dtype holds exactly, hence there is no tolerance: a result is right or wrong.  Arrays lie somewhere in buffers
full of NaN, of which a call may change `out` alone.
Refused here: real numbers (error bound and equal bits are the test suite's), arguments that are errors, the layer.
"""

import argparse
import contextlib
import math
import random
import sys
import time

import numpy as np

from . import _cpu, _oracle, _runtime
from ._cases import draw
from .functional import depthwise_conv2d, depthwise_conv2d_input_grad, depthwise_conv2d_kernel_grad

FUNCTIONS = {"conv": depthwise_conv2d, "input_grad": depthwise_conv2d_input_grad, "kernel_grad": depthwise_conv2d_kernel_grad}
MOST_FAILURES = 10  # after which a run ends: a broken module fails everywhere
POISON = 255        # in each byte of a buffer: NaN in every floating-point dtype


# ---- one case ----

def _buffer(nbytes, content=POISON):
    """Bytes at the start of a cache line, so that a case finds its arrays aligned as it did the last time."""
    whole = np.empty(nbytes + 64, np.uint8)
    buffer = whole[-whole.ctypes.data % 64 :][:nbytes]
    buffer[...] = content
    return buffer


def _view(array, buffer):
    view = np.ndarray(array.shape, array.dtype, buffer, array.offset, array.strides)
    view.flags.writeable = array.writeable
    return view


def _fill(view, most, holes, rng):
    """Integers of magnitude 1 to `most`, so that no term is lost in a zero; NaN in some places, where there is one."""
    dtype = view.dtype
    if dtype.kind in "iu":
        most = min(most, np.iinfo(dtype).max)
    elif dtype.itemsize == 2:
        most = min(most, 2048 if dtype.kind == "f" else 256)  # integers that it holds exactly
    values = rng.integers(-most, most, view.shape)
    values[values >= 0] += 1
    if dtype.kind in "bu":
        values = abs(values) if dtype.kind == "u" else values > 0
    view[...] = values
    if holes and view.size and dtype.kind not in "biu":
        for _ in range(rng.integers(0, 3)):
            view[tuple(rng.integers(0, view.shape))] = np.nan


def _expected(case, values):
    """The result for those values, in float64 and in the shape of the call's; NaN just where one is met."""
    n, (c, m) = case.image[0], case.kernel[2:]
    arrays = {}
    for name, value in values.items():
        if name == "kernel":  # without C or M: the same for all, or 1
            value = np.broadcast_to(value.reshape(*value.shape, *[1] * (4 - value.ndim)), case.kernel)
        elif name != "bias":
            value = value if value.ndim == 4 else value[None]
            value = np.moveaxis(value, 1, 3) if case.data_format == "channels_first" else value
        arrays[name] = value.reshape(*value.shape[:3], c, m) if name == "grad" else value
    bias = arrays.pop("bias", None)
    if case.function == "conv" and n > 1 and case.arrays["x"].strides[0] == 0:
        arrays["x"] = arrays["x"][:1]  # all images are the same
    more = {"conv": (), "input_grad": (case.image,), "kernel_grad": (case.kernel[:2],)}[case.function]

    def compute(a, b):
        return getattr(_oracle, case.function)(a, b, *more, **case.geometry)

    a, b = arrays.values()
    y = compute(np.nan_to_num(a), np.nan_to_num(b))
    if case.holes:  # where a sum has at least one term with NaN
        y[compute(np.isnan(a), np.ones_like(b)) + compute(np.ones_like(a), np.isnan(b)) > 0] = np.nan
    if case.function == "kernel_grad":
        return y
    if case.function == "conv":
        y = np.broadcast_to(y, (n, *y.shape[1:])).reshape(n, *y.shape[1:3], c * m) + (0 if bias is None else bias)
        activation = case.options["activation"]
        y = np.maximum(y, 0) if activation == "relu" else np.clip(y, 0, 6) if activation == "relu6" else y
    y = np.moveaxis(y, 3, 1) if case.data_format == "channels_first" else y
    return y[0] if case.function == "conv" and len(case.arrays["x"].shape) == 3 else y


def _difference(y, expected):
    """What is wrong with a result, or None."""
    if y.shape != expected.shape or y.dtype != expected.dtype:
        return f"{y.shape} {y.dtype} instead of {expected.shape} {expected.dtype}"
    wrong = (y != expected) & ~(np.isnan(y) & np.isnan(expected))
    if not wrong.any():
        return None
    at = tuple(int(k) for k in np.argwhere(wrong)[0])
    return f"{wrong.sum()} of {y.size} elements are wrong, the first at {at}: {y[at]} instead of {expected[at]}"


def run(case, modules):
    """["module: what went wrong", ...] of the kernels modules {name: module}."""
    rng = np.random.default_rng([case.seed, case.number])
    own = case.shared or "out"  # the buffer that out lies in
    sizes = {name: array.nbytes for name, array in case.arrays.items()}
    if case.out:
        sizes[own] = max(sizes.get(own, 0), case.out.nbytes)
    buffers = {name: _buffer(size) for name, size in sizes.items()}
    values = {}
    for name, array in case.arrays.items():
        view = _view(array._replace(writeable=True), buffers[name])
        core = view[tuple([slice(None if stride else 1) for stride in array.strides])]
        _fill(core, case.most, case.holes, rng)
        values[name] = np.broadcast_to(core.astype(np.float64), array.shape)  # read back, since elements may overlap
    with np.errstate(over="ignore"):  # beyond float16 is Inf
        expected = _expected(case, values).astype(case.result)
    more = {"conv": (), "input_grad": (expected.shape,), "kernel_grad": (case.kernel[:2],)}[case.function]
    failures = []
    for module, _runtime.kernels in modules.items():
        copies = {name: _buffer(buffer.size, buffer) for name, buffer in buffers.items()}
        arguments = [_view(array, copies[name]) for name, array in case.arrays.items()]
        out = _view(case.out, copies[own]) if case.out else None
        try:
            y = FUNCTIONS[case.function](*arguments, *more, data_format=case.data_format, out=out, **case.options)
            wrong = "out was not returned" if out is not None and y is not out else _difference(y, expected)
        except Exception as error:  # a failure like any other: the next case may have another
            wrong = f"{type(error).__name__}: {error}"
        if out is not None:
            out[...] = _view(case.out, buffers[own])  # then all must be as before, whatever out shares with an input
        changed = [name for name in buffers if not np.array_equal(copies[name], buffers[name])]
        if changed:
            wrong = f"{wrong or 'the result is right'}; memory changed that is not out's, around {' and '.join(changed)}"
        if wrong:
            failures.append(f"{module}: {wrong}")
    return failures


# ---- the command ----

@contextlib.contextmanager
def _threads_for_small_calls():
    before = _runtime.GRAIN, _runtime.kernels
    _runtime.GRAIN = 1
    try:
        yield
    finally:
        _runtime.GRAIN, _runtime.kernels = before


def _modules():
    """{name: kernels module}: all that run here, or the one that DWCONV_KERNELS names."""
    if _runtime.kernels_reason == "DWCONV_KERNELS":
        return {_runtime.kernels_name: _runtime.kernels}
    return {name: _runtime.load(name) for name in _runtime.built() if name in _cpu.instruction_sets()}


def _show(line):
    """A line on a terminal, in place of the last one shown so."""
    if sys.stderr.isatty():
        print(f"\r{line:79}\r", end="", file=sys.stderr, flush=True)


def _number(kind, least):
    def convert(text):
        with contextlib.suppress(ValueError):
            if least <= kind(text) < math.inf:
                return kind(text)
        name = "a number" if kind is float else "an integer"
        raise argparse.ArgumentTypeError(f"must be {name} of at least {least}, not {text!r:.80}")

    return convert


def add_arguments(parser):
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--seconds", type=_number(float, 0), metavar="N", help="how long; default: 10")
    until.add_argument("--cases", type=_number(int, 1), metavar="N", help="how many cases, instead of how long")
    until.add_argument("--case", type=_number(int, 0), metavar="K", help="case K of a seed alone")
    parser.add_argument("--seed", type=_number(int, 0), metavar="S", help="which cases; default: others each time")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each case before it runs, to see which one crashes")


def main(options):
    """Runs cases, prints what fails and a line at the end; 0, or 1 if something failed, or 2 for wrong options."""
    seconds, cases, seed, first = options.seconds, options.cases, options.seed, options.case or 0
    if seed is None:
        if options.case is not None:
            print("python -m dwconv selftest: --case needs the --seed that it belongs to", file=sys.stderr)
            return 2
        seed = random.SystemRandom().randrange(10**6)
    cases = 1 if options.case is not None else cases or math.inf
    seconds = 10 if seconds is None and cases == math.inf else math.inf if seconds is None else seconds
    modules, failures, done, start, shown = _modules(), 0, 0, time.perf_counter(), 0.0
    with _threads_for_small_calls():
        while done < cases and failures < MOST_FAILURES:
            elapsed = time.perf_counter() - start
            if done and elapsed >= seconds:
                break
            if elapsed >= shown:
                shown = elapsed + 0.1
                share = max(elapsed / seconds if seconds else 1, done / cases)
                _show(f"[{'#' * int(30 * share):30}] {done} cases, {failures} failures")
            case = draw(seed, first + done)
            if options.verbose:
                print(case, flush=True)
            for failure in run(case, modules):
                failures += 1
                _show("")
                print(f"{failure}\n  {case}\n  again: python -m dwconv selftest --seed {seed} --case {case.number}", flush=True)
            done += 1
    _show("")
    print(f"seed {seed}: {done} cases on {', '.join(modules)} in {time.perf_counter() - start:.1f} s, {failures} failures")
    return 1 if failures else 0
