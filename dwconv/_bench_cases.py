"""Shapes, their cost and the machine's limit, for `python -m dwconv bench` and asv_bench.

The limit of a pass is the larger of two times, both measured here and with as many workers: its multiply-adds (those on padding
left out) at the rate of multiply-adds in registers, and a copy that moves as many bytes as the pass must read and write, each
once.  A copy of that size finds its data at the same level, L2, L3 or memory, so no cache sizes need to be known.

Everything is timed in turns, round by round, and the best round counts: whatever else runs on the machine only adds.
Nothing is printed here, and a limit that was not measured is not guessed at.
"""

import itertools
import math
import re
import sys
import time
import typing

import numpy as np

from . import _cpu, _plan, _runtime, functional

ROUNDS = 7
PASSES = ("forward", "input_grad", "kernel_grad")
LAYOUTS = ("channels_last", "channels_first")
LEVELS = ((2**18, "256 KiB"), (2**22, "4 MiB"), (2**27, "128 MiB"))  # for people to read: L2, L3 and memory of common CPUs
SHAPES = {
    "mobilenet_v1_112x112x32_k3": "1x112x112x32 k3",
    "mobilenet_v1_56x56x128_k3s2": "1x56x56x128 k3 s2",
    "mobilenet_v1_14x14x512_k3": "1x14x14x512 k3",
    "mobilenet_v1_7x7x1024_k3": "1x7x7x1024 k3",
    "mobilenet_v3_28x28x120_k5": "1x28x28x120 k5",
    "efficientnet_b0_56x56x144_k5s2": "1x56x56x144 k5 s2",
    "efficientnet_b0_14x14x672_k5": "1x14x14x672 k5",
    "convnext_t_56x56x96_k7": "1x56x56x96 k7",
    "convnext_t_14x14x384_k7": "1x14x14x384 k7",
    "replknet_28x28x64_k31": "1x28x28x64 k31",
    "deeplab_28x28x256_k3d2": "1x28x28x256 k3 s1 d2",
    "multiplier_64x64x32_k3m4": "1x64x64x32 k3 s1 d1 m4",
    "rgb_512x512x3_k5": "1x512x512x3 k5",
    "rgb_512x512x3_k9": "1x512x512x3 k9",
    "hyperspectral_145x145x200_k3": "1x145x145x200 k3",
    "batch8_28x28x256_k3": "8x28x28x256 k3",
    "tiny_4x4x8_k3": "1x4x4x8 k3",
}
_SHAPE = re.compile(r"{0}x{0}x{0}x{0} k{0}(?:x{0})?(?: s{0})?(?: d{0})?(?: m{0})?".format(r"(\d{1,5})"), re.ASCII)


def _useful(axis):
    """Pairs of an output and a tap that meets the image, of an axis as in _geometry.py."""
    size, out, taps, stride, dilation, pad = axis
    starts = [t * dilation - pad for t in range(taps)]  # of each tap: its input at output 0
    return sum(max(min(out, (size - 1 - start) // stride + 1) - max(-(start // stride), 0), 0) for start in starts)


class Shape(typing.NamedTuple):
    name: str
    x: tuple           # (N, H, W, C)
    kernel_size: tuple
    stride: int
    dilation: int
    multiplier: int

    def plan(self, layout):
        """That of the forward pass; ValueError where nothing is to be computed.

        Padding is (k - 1) * dilation // 2 on every side, as PyTorch's networks have it and as every library here can do; with
        an odd kernel at stride 1 that is "same".
        """
        n, h, w, c = self.x
        plan = _plan.forward(self.x if layout == "channels_last" else (n, c, h, w), (*self.kernel_size, c, self.multiplier),
                             self.stride, tuple((p, p) for p in self.pads()), self.dilation, layout)
        if not all(plan.out_shape) or not _useful(plan.rows) or not _useful(plan.cols):
            raise ValueError(f"{self.name}: there is nothing to compute")
        return plan

    def pads(self):
        return tuple((k - 1) * self.dilation // 2 for k in self.kernel_size)


def shape(name, text):
    """A Shape from text such as "1x56x56x128 k3 s2 d1 m1" or "1x1x4096x256 k1x31"; ValueError for any other."""
    match = _SHAPE.fullmatch(text)
    if not match:
        raise ValueError(f'a shape is written like "1x56x56x128 k3 s2 d1 m1": N x H x W x C, kernel, stride, dilation, '
                         f"multiplier, of at most 5 digits each; got {text!r:.80}")
    n, h, w, c, kh, kw, stride, dilation, multiplier = (None if number is None else int(number) for number in match.groups())
    kw, stride, dilation, multiplier = (b if a is None else a for a, b in ((kw, kh), (stride, 1), (dilation, 1), (multiplier, 1)))
    return Shape(name, (n, h, w, c), (kh, kw), stride, dilation, multiplier)


def chosen(names, texts):
    """The shapes of the table whose name contains one of `names`, and those written out; all of the table for neither."""
    for part in names:
        if not any(part in name for name in SHAPES):
            raise ValueError(f"no shape is called {part!r:.80}; there are {', '.join(SHAPES)}")
    found = [shape(name, text) for name, text in SHAPES.items()
             if any(part in name for part in names) or not (names or texts)]
    return found + [shape(text, text) for text in texts]


class Case:
    """One pass of one shape in one layout: arrays, options, work."""

    def __init__(self, shape, direction, layout, dtype, workers):
        self.shape, self.direction, self.layout, self.dtype, self.workers = shape, direction, layout, dtype, workers
        (n, h, w, c), self.last, self.pads, plan = shape.x, layout == "channels_last", shape.pads(), shape.plan(layout)
        kernel_shape, x_shape = (*shape.kernel_size, c, shape.multiplier), shape.x if self.last else (n, c, h, w)
        self.multiply_adds = n * c * shape.multiplier * _useful(plan.rows) * _useful(plan.cols)
        rng = np.random.default_rng(0)
        bias_shape = (c * shape.multiplier,)
        self.x, self.kernel, self.bias, self.grad = (
            rng.standard_normal(size, dtype) for size in (x_shape, kernel_shape, bias_shape, plan.out_shape))
        self.out = np.empty_like({"forward": self.grad, "input_grad": self.x, "kernel_grad": self.kernel}[direction])
        self.bytes = self.x.nbytes + self.grad.nbytes + self.kernel.nbytes + (self.bias.nbytes if direction == "forward" else 0)

    def compute(self, dtype, out=None):
        """What dwconv makes of the arrays."""
        x, kernel, bias, grad = (a.astype(dtype, copy=False) for a in (self.x, self.kernel, self.bias, self.grad))
        options = {"strides": self.shape.stride, "padding": self.pads, "dilation_rate": self.shape.dilation,
                   "data_format": self.layout, "workers": self.workers, "out": out}
        if self.direction == "forward":
            return functional.depthwise_conv2d(x, kernel, bias, **options)
        if self.direction == "input_grad":
            return functional.depthwise_conv2d_input_grad(grad, kernel, x.shape, **options)
        return functional.depthwise_conv2d_kernel_grad(x, grad, self.shape.kernel_size, **options)

    def dwconv(self):
        return self.compute(self.dtype, self.out)


def repeated(call):
    """A function that calls n times."""
    def run(n):
        for _ in itertools.repeat(None, n):
            call()
    return run


def measure(runs, seconds):
    """Seconds a call of each of `runs`, which are functions of a number of calls: the best of rounds taken in turns."""
    loops = {}
    for name, run in runs.items():
        run(2)
        start = time.perf_counter()
        run(1)
        loops[name] = max(1, int(seconds / ROUNDS / max(time.perf_counter() - start, 1e-7)))
    best = dict.fromkeys(runs, math.inf)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run(loops[name])
            best[name] = min(best[name], (time.perf_counter() - start) / loops[name])
    return best


# ---- the machine's limit ----

def _aligned(size):
    """uint8 (size,), on a boundary of 64 bytes and written to once, so that its pages are there."""
    memory = np.ones(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


class Machine:
    """What the CPU can do with so many workers: measured by the best kernels module that it runs, whichever is in use."""

    def __init__(self, dtype, workers, seconds):
        self.kernels = _runtime.load(next(name for name in _runtime.built() if name in _cpu.instruction_sets()))
        self.workers, self.seconds = _runtime.resolve_workers(workers, sys.maxsize), seconds
        arguments = dtype == "float64", 100_000, self.workers
        taken = measure({"peak": repeated(lambda: self.kernels.multiply_adds(*arguments))}, seconds)["peak"]
        self.peak = self.kernels.multiply_adds(*arguments) / taken  # multiply-adds a second

    def copy(self, size):
        """A function that moves `size` bytes n times: half as many read as are written."""
        source, target = _aligned(max(size // 2, 1)), _aligned(max(size // 2, 1))
        return lambda n: self.kernels.copies(source, target, n, self.workers)

    def limit(self, case, copy):
        """Seconds that a case takes at least, and what for; `copy`: seconds of the copy of its bytes."""
        return max((copy, "memory"), (case.multiply_adds / self.peak, "arithmetic"))

    def copy_rates(self):
        """Bytes a second, read and written, of copies that move the sizes of LEVELS."""
        return {text: size / measure({"copy": self.copy(size)}, self.seconds)["copy"] for size, text in LEVELS}
