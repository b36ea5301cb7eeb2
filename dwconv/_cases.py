"""Random cases for the self-test: shapes, options, dtypes, memory layouts, workers, all from a seed and a number.

The odds below are such that some thousand cases take every way through the kernels (tiles of their own for 3x3, 5x5 and 7x7
kernels, planes as channels, flat rows, long rows, phases of strides and dilations, aligned blocks of channels, pixels and
planes 2 KB apart), and that most cases take about a millisecond.  Refused here: arrays and values; a case says where they lie,
_selftest.py makes them.
"""

import contextlib
import math
import random
import typing

import numpy as np

from ._oracle import axes

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None

LARGE = 4_600_000   # inputs and outputs, in float32 more than STREAM_BYTES of _kernels.pyx
MOST_BYTES = 2**26  # of an array's buffer, three times what the largest needs


class Array(typing.NamedTuple):
    """Where an array lies: strides and offset in bytes, from the start of a buffer of `nbytes`."""

    shape: tuple
    dtype: np.dtype
    strides: tuple
    offset: int
    nbytes: int
    writeable: bool


class Case(typing.NamedTuple):
    """Everything that a call depends on."""

    seed: int
    number: int
    function: str       # conv, input_grad or kernel_grad
    data_format: str
    image: tuple        # N, H, W, C, whatever the layout
    kernel: tuple       # kh, kw, C, M
    geometry: dict      # as the oracle takes it
    options: dict       # as the call takes it
    arrays: dict        # name: Array, in the order of the arguments
    result: np.dtype
    out: Array | None
    shared: str | None  # the array in whose buffer `out` lies
    most: int           # magnitude of the values
    holes: bool         # whether some of them are NaN


# Most kernels and strides are those that have tiles of their own.
_SQUARES, _SQUARE_ODDS = (3, 5, 7, 1, 2, 4, 6, 9, 11), (12, 8, 6, 2, 2, 2, 1, 1, 1)
_STEPS, _STEP_ODDS = ((1, 1), (2, 2), (1, 2), (2, 1), (3, 3), (2, 3), (3, 1), (1, 4), (6, 4)), (40, 25, 4, 4, 5, 3, 3, 2, 1)
_RATES, _RATE_ODDS = ((1, 1), (2, 2), (3, 3), (1, 2), (3, 1), (2, 3), (4, 6)), (60, 10, 5, 5, 5, 4, 3)
_FLOATS, _FLOAT_ODDS = [np.dtype(t) for t in ("f4", "f8", "f2", ml_dtypes.bfloat16 if ml_dtypes else "f2")], (50, 30, 12, 8)
_OTHERS = [np.dtype(t) for t in ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")]


def _one(rng, values, odds):
    return rng.choices(values, odds)[0]


def _kernel_size(rng):
    kind = rng.random()
    if kind < 0.7:
        return (_one(rng, _SQUARES, _SQUARE_ODDS),) * 2
    if kind < 0.96:
        return rng.randint(1, 7), rng.randint(1, 7)
    long, short = rng.randint(8, 36), rng.choice((1, 1, 2, 31))
    return (long, short) if rng.random() < 0.5 else (short, long)


def _extent(rng):
    low, high = _one(rng, ((1, 8), (7, 16), (14, 70), (190, 300), (1000, 2300)), (30, 45, 21, 2.5, 1.5))
    return rng.randint(low, high)


def _channels(rng):
    low, high, step = _one(rng, ((1, 4, 1), (1, 40, 1), (16, 192, 16), (256, 512, 256)), (40, 35, 20, 5))
    return rng.randrange(low, high + 1, step)


def _padding(rng, spans):
    """"valid", "same", or a pair of numbers for each axis; now and then more than the kernel reaches."""
    kind = rng.random()
    if kind < 0.65:
        return "same" if kind < 0.4 else "valid"
    most = [max(span // 2, 1) if kind < 0.9 else span + 1 for span in spans]
    return tuple([(rng.randint(0, m), rng.randint(0, m)) for m in most])


def _problem(rng):
    """(image, kernel, geometry) of a convolution that has outputs, and not too many of them."""
    limit = _one(rng, (10_000, 100_000, 3_000_000), (70, 28, 2))
    while True:
        (kh, kw), strides, dilation = _kernel_size(rng), _one(rng, _STEPS, _STEP_ODDS), _one(rng, _RATES, _RATE_ODDS)
        n, h, w, c, m = _one(rng, (1, 2, 3, 0), (60, 25, 14, 1)), _extent(rng), _extent(rng), _channels(rng), 1
        if rng.random() < 0.3:
            m = rng.choice((2, 2, 3, 4, 5, 8, 17))
        padding = _padding(rng, ((kh - 1) * dilation[0] + 1, (kw - 1) * dilation[1] + 1))
        geometry = {"strides": strides, "dilation_rate": dilation, "padding": padding}
        (oh, _), (ow, _) = axes((h, w), (kh, kw), **geometry)
        if min(oh, ow) > 0 and max(n, 1) * c * max(h * w, oh * ow * m * kh * kw // 4) <= limit:
            return (n, h, w, c), (kh, kw, c, m), geometry


def _large_problem(rng):
    """The same, of more than the caches hold: 3x3 kernels have tiles for that."""
    h, w, c, s = rng.randint(8, 20), rng.randint(8, 20), rng.randint(16, 64), rng.choice((1, 2))
    n = LARGE // (h * w * c + -(-h // s) * -(-w // s) * c) + 1
    return (n, h, w, c), (3, 3, c, 1), {"strides": (s, s), "dilation_rate": (1, 1), "padding": "same"}


def _shorter(pair):
    return pair[0] if pair[0] == pair[1] else pair


def _spelled(rng, name, value):
    """Equal numbers as one number, now and then."""
    if isinstance(value, str) or rng.random() < 0.5:
        return value
    if name != "padding":
        return _shorter(value)
    return _shorter(tuple([p for p, _ in value])) if all(p == q for p, q in value) else value


def _dtypes(rng, count):
    """Dtypes that have one of the four for a result; mostly all the same."""
    if rng.random() < 0.8:
        return [_one(rng, _FLOATS, _FLOAT_ODDS)] * count
    while True:
        found = [rng.choice(_FLOATS if rng.random() < 0.5 else _OTHERS) for _ in range(count)]
        with contextlib.suppress(TypeError):
            if np.result_type(*found) in _FLOATS:
                return found


def _placed(rng, shape, dtype, is_input=True):
    """An Array of that shape: contiguous, a window of a larger array, or in any order with gaps; aligned or not."""
    item, kind, order = dtype.itemsize, rng.random(), list(range(len(shape)))
    wild, strides, step = kind < 0.25, [0] * len(shape), item
    if wild:
        rng.shuffle(order)
    for k in reversed(order):
        step *= rng.choice((1, 1, 2, 3)) if wild else 1
        strides[k] = step
        step *= max(shape[k], 1)
        if kind < 0.6 and rng.random() < 0.3:
            step += item * rng.choice((1, 2, 3, 16, 64)) + (wild and rng.random() < 0.1)  # by a byte: as in records
    if kind < 0.6:
        for k in order if wild else order[:-1]:
            strides[k] *= _one(rng, (1, -1), (80, 20))
        if is_input and rng.random() < 0.2:  # broadcast, or windows that overlap by whole elements
            overlaps = rng.random() < 0.3 and not any(stride % item for stride in strides)
            strides[rng.randrange(len(shape))] = rng.choice(strides) if overlaps else 0
        for k, size in enumerate(shape):     # of an axis of one element they mean nothing
            strides[k] = item * rng.randrange(-999, 999) if size == 1 and rng.random() < 0.2 else strides[k]
    reach = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True) if size]
    offset = item * rng.choice((16, 17, rng.randint(8, 24))) - sum(r for r in reach if r < 0)
    offset += rng.randrange(item) if rng.random() < 0.1 else 0
    nbytes = offset + sum(r for r in reach if r > 0) + item * 24
    if nbytes > MOST_BYTES:  # gaps and strides multiply: another layout, at last one without gaps
        return _placed(rng, shape, dtype, is_input)
    if is_input and dtype.kind in "iuf" and rng.random() < 0.05:
        dtype = dtype.newbyteorder()
    return Array(shape, dtype, tuple(strides), offset, nbytes, not (is_input and rng.random() < 0.1))


def draw(seed, number):
    """The case of that number."""
    rng = random.Random(f"{seed}/{number}")
    function = rng.choice(("conv", "conv", "input_grad", "kernel_grad"))
    large = function == "conv" and rng.random() < 0.002
    image, kernel, geometry = _large_problem(rng) if large else _problem(rng)
    (n, h, w, c), (kh, kw, _, m) = image, kernel
    (oh, _), (ow, _) = axes((h, w), (kh, kw), **geometry)
    data_format = rng.choice(("channels_last", "channels_first"))
    shapes = {"x": image, "grad": (n, oh, ow, c * m)}
    if data_format == "channels_first":
        shapes = {name: (a, d, b, c) for name, (a, b, c, d) in shapes.items()}
    shapes |= {"kernel": kernel, "bias": (c * m,)}
    names = {"conv": ["x", "kernel"], "input_grad": ["grad", "kernel"], "kernel_grad": ["x", "grad"]}[function]
    options = {name: _spelled(rng, name, value) for name, value in geometry.items()}
    options["workers"] = _one(rng, (1, None, 2, 3, 4, 7, 16, 61), (70, 3, 5, 10, 5, 4, 2, 1))
    if function == "conv":
        names += ["bias"] * (rng.random() < 0.5)
        options["activation"] = rng.choice((None, None, "linear", "relu", "relu6"))
        if m == 1 and rng.random() < 0.2:
            shapes["kernel"] = kernel[: rng.choice((2, 3))]
        if n == 1 and rng.random() < 0.3:
            shapes["x"], shapes["grad"] = shapes["x"][1:], shapes["grad"][1:]
    dtypes = _dtypes(rng, len(names))
    result = np.result_type(*dtypes)
    inputs = {**shapes, "x": (1, *shapes["x"][1:])} if large else shapes
    arrays = {name: _placed(rng, inputs[name], dtype) for name, dtype in zip(names, dtypes, strict=True)}
    out = shared = None
    if large:  # the same image again and again
        arrays["x"] = arrays["x"]._replace(shape=shapes["x"], strides=(0, *arrays["x"].strides[1:]))
    elif rng.random() < 0.4:
        shape = {"conv": shapes["grad"], "input_grad": shapes["x"], "kernel_grad": kernel}[function]
        out, shared = _placed(rng, shape, result, is_input=False), rng.choice((*names, *[None] * 8))
    terms = {"conv": kh * kw, "input_grad": kh * kw * m, "kernel_grad": max(n * oh * ow, 1)}[function]
    exact = 2**53 if result.itemsize == 8 else 2**24  # what the computing dtype holds
    most = min(_one(rng, (1, 9, 10**6), (10, 60, 30)), math.isqrt(exact // (terms + 1)))
    holes = not large and rng.random() < 0.1
    return Case(seed, number, function, data_format, image, kernel, geometry, options, arrays, result, out, shared, most, holes)
