"""The kernels' gradient of the input against a scatter of every product in NumPy: exact on small integers, the same bits always.

Calls the entry point of each kernels module, below the functions and their checks: what the arguments may be is in
test_functional.py.  x_grad lies in a larger array full of a sentinel and starts as NaN, so an element that is not written and
one written outside are both seen.
"""

import functools
import itertools

import hypothesis
import numpy as np
import oracle
import pytest
from hypothesis import strategies as st

from dwconv import _geometry, _runtime

LAYOUTS = ("channels_last", "channels_first")
DTYPES = (np.float32, np.float64)
SENTINEL = -12345.0

# Code path (see _input_grad.pxi): x (H, W, C), kernel (kh, kw, M), strides, dilation, padding.  Each runs in both layouts.
PATHS = {
    "stride 1": ((9, 20, 21), (3, 3, 1), 1, 1, 1),
    "stride 1, few channels": ((9, 40, 3), (5, 5, 1), 1, 1, 2),
    "stride 1, padding beyond the kernel": ((6, 9, 17), (3, 2, 1), 1, 1, ((5, 3), (2, 7))),
    "stride 1, dilated": ((9, 20, 17), (3, 3, 1), 1, (2, 3), 2),
    "pairs": ((12, 40, 20), (3, 3, 1), 2, 1, 1),
    "pairs, even padding": ((11, 41, 20), (3, 3, 1), 2, 1, ((0, 1), (0, 1))),
    "pairs, unequal parities": ((11, 75, 5), (3, 3, 1), 2, 1, ((1, 0), (2, 1))),
    "pairs, odd rows": ((11, 40, 37), (3, 3, 1), 2, 1, ((1, 0), (2, 1))),
    "pairs, odd columns": ((10, 17, 37), (3, 3, 1), 2, 1, ((2, 1), (1, 1))),
    "pairs, padding beyond the kernel": ((10, 23, 18), (3, 3, 1), 2, 1, ((5, 4), (4, 7))),
    "pairs, one row": ((1, 9, 18), (3, 3, 1), 2, 1, 1),
    "pairs, pixels 1 KB apart": ((7, 19, 254), (3, 3, 1), 2, 1, ((1, 1), (0, 1))),
    "pairs, pixels 2 KB apart": ((9, 11, 510), (3, 3, 1), 2, 1, ((1, 1), (0, 1))),
    "pairs, pixels 1 KB apart, unequal parities": ((7, 19, 254), (3, 3, 1), 2, 1, ((2, 1), (1, 1))),
    "pairs 5x5, pixels 2 KB apart, bands": ((34, 30, 510), (5, 5, 1), 2, 1, 2),
    "phases, pixels 2 KB apart": ((13, 17, 510), (4, 3, 1), (3, 2), (1, 2), 2),
    "large kernel, pixels 2 KB apart": ((25, 23, 510), (9, 9, 1), 2, 1, 4),
    "large kernel, few of the pixels 2 KB apart": ((25, 39, 510), (9, 9, 1), 2, 1, 4),
    "dilated, pixels 2 KB apart": ((19, 21, 510), (3, 3, 1), 3, 2, 2),
    "pairs, few columns": ((14, 13, 18), (3, 3, 1), 2, 1, 1),
    "pairs, few columns, even padding": ((13, 7, 3), (3, 3, 1), 2, 1, ((0, 1), (2, 1))),
    "pairs 5x5, few columns": ((15, 6, 5), (5, 5, 1), 2, 1, 2),
    "pairs 5x5": ((12, 40, 33), (5, 5, 1), 2, 1, 2),
    "pairs 5x5, odd padding": ((13, 75, 3), (5, 5, 1), 2, 1, ((1, 2), (1, 2))),
    "pairs 5x5, unequal parities": ((13, 75, 2), (5, 5, 1), 2, 1, ((3, 2), (2, 1))),
    "pairs 4x4": ((13, 75, 21), (4, 4, 1), 2, 1, ((1, 2), (1, 2))),
    "pairs 4x4, even padding, bands": ((47, 41, 5), (4, 4, 1), 2, 1, ((2, 0), (0, 3))),
    "pairs 4x4, unequal parities": ((13, 75, 18), (4, 4, 1), 2, 1, ((1, 2), (2, 1))),
    "pairs 4x4, few columns": ((15, 6, 35), (4, 4, 1), 2, 1, 1),
    "pairs 2x2": ((13, 73, 21), (2, 2, 1), 2, 1, "valid"),
    "pairs 2x2, few columns, bands": ((47, 13, 17), (2, 2, 1), 2, 1, "same"),
    "pairs 2x2, odd padding": ((13, 40, 18), (2, 2, 1), 2, 1, 1),
    "pairs 2x2, padding beyond the kernel": ((9, 20, 18), (2, 2, 1), 2, 1, ((4, 3), (6, 5))),
    "pairs of columns": ((12, 40, 20), (4, 3, 1), (3, 2), (2, 1), 1),
    "pairs of columns 5": ((12, 40, 20), (1, 5, 1), (1, 2), 1, (0, 3)),
    "pairs, very wide": ((5, 300, 17), (3, 3, 1), 2, 1, 1),
    "phases": ((13, 31, 18), (4, 6, 1), (2, 3), 1, 2),
    "phases, dilated": ((13, 31, 18), (3, 4, 1), (2, 3), (3, 2), 4),
    "phases, common factor": ((20, 25, 17), (3, 2, 1), (6, 4), (4, 6), 6),
    "phases, few channels": ((13, 31, 3), (4, 6, 1), (2, 3), (1, 2), 2),
    "phases, few channels, bands": ((90, 70, 2), (4, 6, 1), (2, 3), 1, 2),
    "planes, dilated, multiplier": ((9, 40, 3), (3, 3, 2), 1, 2, 2),
    "planes, dilated phases": ((20, 90, 3), (6, 6, 1), 2, 3, 6),
    "planes, dilated, very wide": ((9, 1060, 2), (3, 3, 2), 1, 2, 2),
    "planes, 7x7, very wide, multiplier": ((9, 1060, 2), (7, 7, 2), 1, 1, 3),
    "phases, large kernel": ((40, 40, 17), (31, 31, 1), 2, 2, 30),
    "phases, very wide": ((5, 2500, 17), (2, 3, 1), (2, 3), 1, 1),
    "phases, very wide, stride 4": ((5, 2500, 17), (2, 5, 1), (2, 4), 1, 1),
    "phases, very wide, stride 4, few channels": ((5, 4500, 1), (2, 5, 1), (2, 4), 1, 1),
    "phases, very wide, multiplier": ((5, 1100, 2), (4, 4, 2), 2, 1, 1),
    "few channels": ((43, 130, 3), (3, 3, 1), 2, 1, ((1, 1), (0, 1))),
    "few channels, tiles of columns": ((9, 1500, 4), (3, 3, 1), 2, 1, 1),
    "few channels, tiles of columns, 5x5": ((13, 2900, 2), (5, 5, 1), 2, 1, ((1, 2), (3, 0))),
    "few channels, phases": ((40, 150, 3), (7, 7, 1), 2, 1, 3),
    "few channels, phases, tiles of columns": ((7, 1100, 2), (4, 2, 1), (3, 2), (2, 1), ((3, 1), (1, 0))),
    "few channels, pairs 4x4": ((15, 37, 4), (4, 4, 1), 2, 1, 1),
    "few channels, phases, four": ((15, 37, 4), (4, 4, 1), 2, 1, ((1, 2), (2, 1))),
    "few channels, 4x4, tiles": ((61, 1500, 3), (4, 4, 1), 2, 1, 1),
    "few channels, 2x2, tiles": ((131, 301, 3), (2, 2, 1), 2, 1, ((0, 1), (0, 1))),
    "few channels, mostly padding": ((9, 150, 3), (3, 3, 1), 2, 1, ((1, 1), (90, 200))),
    "few channels, kernel of which tiles share most": ((60, 90, 3), (9, 9, 1), 2, 12, 48),
    "few channels, dilated": ((25, 70, 3), (3, 3, 1), 2, 3, 3),
    "row very wide": ((3, 5000, 2), (2, 3, 1), (2, 3), 1, 1),
    "many channels": ((5, 9, 150), (3, 2, 1), 2, 1, 1),
    "stride beyond the kernel": ((13, 31, 18), (2, 2, 1), (5, 4), 1, 0),
    "stride beyond the kernel, few channels": ((13, 31, 3), (2, 1, 1), (5, 4), 1, 0),
    "multiplier": ((9, 12, 18), (3, 3, 2), 1, 1, 1),
    "multiplier, strided": ((9, 12, 35), (3, 3, 3), 2, 1, 1),
    "multiplier, summed at once": ((9, 12, 37), (3, 3, 4), 1, 1, 1),
    "multiplier, summed at once, strided": ((11, 13, 16), (5, 3, 4), (2, 3), (1, 2), 2),
    "multiplier, summed at once, tiles": ((40, 90, 17), (3, 3, 4), 1, 1, 1),
    "multiplier, pairs of columns": ((12, 40, 20), (3, 3, 4), 2, 1, 1),
    "multiplier, 5x5": ((12, 20, 20), (5, 5, 4), 1, 1, 2),
    "multiplier, any kernel": ((12, 20, 40), (4, 5, 4), 1, 1, 2),
    "multiplier, one column of taps": ((9, 20, 20), (5, 1, 4), 1, 1, 1),
    "multiplier, wide planes": ((9, 1024, 2), (3, 3, 2), 1, 1, 1),
    "multiplier, wide planes, a row left over": ((11, 700, 2), (3, 3, 2), 1, 1, 1),
    "multiplier, few channels": ((9, 12, 3), (3, 3, 2), 2, 1, 1),
    "multiplier, fewer channels than lanes": ((9, 12, 5), (3, 3, 7), (1, 2), (2, 1), 1),
    "multiplier beyond the lanes": ((7, 9, 2), (3, 2, 37), (2, 1), 1, 1),
    "multiplier, tiles": ((40, 90, 17), (3, 3, 2), 2, 1, 1),
}
paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def axes(size, taps, strides, dilation, padding):
    """The forward's axes of rows and columns; None where there is no output."""
    pads = _geometry.padding_pairs(padding)
    pads = (pads, pads) if isinstance(pads, str) else pads
    every = zip(size, taps, oracle.both(strides), oracle.both(dilation), pads, strict=True)
    try:
        return [_geometry.axis("axis", *one) for one in every]
    except ValueError:
        return None


def scatter(grad, kernel, rows, cols):
    """NHWC: every product of a gradient with a weight goes to the input that the weight met."""
    n, oh, ow, _ = grad.shape
    kh, kw, c, m = kernel.shape
    x_grad = np.zeros((n, rows[0], cols[0], c))
    products = grad.reshape(n, oh, ow, c, m).astype(float)
    with np.errstate(invalid="ignore"):
        for i, j in itertools.product(range(kh), range(kw)):
            reached = []
            for (size, out, _, stride, dilation, pad), tap in ((rows, i), (cols, j)):
                inputs = [(o, o * stride + tap * dilation - pad) for o in range(out)]
                reached.append([(o, x) for o, x in inputs if 0 <= x < size])
            if all(reached):
                (o, r), (q, k) = (np.array(pairs).T for pairs in reached)
                x_grad[np.ix_(range(n), r, k)] += np.sum(products[np.ix_(range(n), o, q)] * kernel[i, j], axis=-1)
    return x_grad


def layout(x, data_format):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1) if data_format == "channels_first" else x)


def call(data_format, dtype, grad, kernel, rows, cols, workers=1, arrange=np.asarray, between=0):
    """x_grad as NHWC; grad is NHWC too, `arrange` may lay it out anew; between: numbers between pixels, or rows, of x_grad."""
    grad = arrange(layout(grad, data_format).astype(dtype))
    shape = (grad.shape[0], rows[0], cols[0], kernel.shape[2])
    whole = np.full(np.add(layout(np.empty(shape), data_format).shape, (0, 2, 3, between)), SENTINEL, dtype)
    start = min(between, 1)
    x_grad = whole[:, 1:-1, 1:-2, start : start + whole.shape[3] - between]
    x_grad[...] = np.nan
    w = kernel.reshape(*kernel.shape[:2], -1).astype(dtype)
    assert _runtime.kernels.input_grad(data_format, grad, w, x_grad, tuple(rows), tuple(cols), workers)
    result = x_grad.copy()
    x_grad[...] = SENTINEL
    assert (whole == SENTINEL).all(), "wrote outside x_grad"
    return np.moveaxis(result, 1, -1) if data_format == "channels_first" else result


@functools.lru_cache(maxsize=256)
def problem(size, kernel_shape, strides, dilation, padding, n=2):
    """Gradient, kernel, axes and the exact result, for any kernels module."""
    (h, w, c), (kh, kw, m) = size, kernel_shape
    found = axes((h, w), (kh, kw), strides, dilation, padding)
    if found is None:
        return None
    grad = oracle.integers((n, found[0][1], found[1][1], c * m), 1)
    kernel = oracle.integers((kh, kw, c, m), 2)
    return grad, kernel, *found, scatter(grad, kernel, *found)


def check(*geometry, workers=1, far=False):
    """far: the pixels of x_grad lie 2 or 4 KB apart, in channels_last."""
    found = problem(*geometry)
    if found is not None:
        *arrays, expected = found
        gaps = (512 - expected.shape[3],) if far else (0, 2)
        for data_format, dtype, between in itertools.product(LAYOUTS[:1] if far else LAYOUTS, DTYPES, gaps):
            x_grad = call(data_format, dtype, *arrays, workers, between=between)
            np.testing.assert_array_equal(x_grad, expected, f"{geometry} {data_format} {dtype}")


# ---- exact values ----

@paths
@pytest.mark.parametrize("workers", [1, 3])
def test_paths(kernels, path, workers):
    check(*path, workers=workers)


def test_reference_is_the_transpose():
    """<conv(x), g> = <x, input_grad(g)>, exactly: the reference here against the forward's."""
    for size, (kh, kw, m), strides, dilation, padding in PATHS.values():
        grad, kernel, rows, cols, expected = problem(size, (kh, kw, m), strides, dilation, padding)
        x = oracle.integers((2, *size), 3)
        y = oracle.conv(x, kernel, strides=(rows[3], cols[3]), dilation_rate=(rows[4], cols[4]), padding=padding)
        assert (y * grad).sum() == (x * expected).sum()


@pytest.mark.parametrize("strides", [1, 2, (1, 2), (3, 1), (4, 3)], ids=str)
def test_kernel_sizes(kernels, strides):
    """Also larger than the image."""
    for kh, kw in [*((k, k) for k in range(1, 8)), (11, 11), (1, 7), (9, 1), (2, 5), (5, 3)]:
        for size in ((7, 18, 17), (3, 4, 2)):
            check(size, (kh, kw, 1), strides, 1, "same")
            check(size, (kh, kw, 1), strides, (1, 2), ((kh, 1), (0, 2 * kw)))


@pytest.mark.parametrize("kernel_shape", [(3, 3, 1), (2, 2, 3)], ids=str)
def test_channels(kernels, kernel_shape):
    for c, strides in itertools.product((*range(1, 20), 31, 32, 33, 48, 64, 70), (1, 2)):
        check((4, 7, c), kernel_shape, strides, 1, "same", 1)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_pairs_of_columns(kernels, k):
    """Every width, both parities of the padding."""
    for w, pad, c in itertools.product((*range(1, 20), 28, 33, 62, 64, 65, 129, 131), (0, 1, 2), (1, 16)):
        check((4, w, c), (k, k, 1), 2, 1, ((pad, 2), (pad, pad + k)), 1)


@pytest.mark.parametrize(("w", "k", "pad"), [(17, 3, (0, 1)), (33, 3, (1, 0)), (30, 5, (1, 1)), (7, 3, (1, 1)),
                                                (31, 4, (1, 1)), (30, 4, (0, 2)), (19, 2, (0, 0))])
def test_pairs_from_afar(kernels, w, k, pad):
    """Two FAR_BYTES, where each tile fetches what the next one needs; the images are one and the same."""
    grad, kernel, rows, cols, expected = problem((5, w, 66), (k, k, 1), 2, 1, ((pad[0], 2), (pad[1], k)), 1)
    for dtype in DTYPES:
        n = 13_000_000 // (5 * w * 66 + grad.size) // np.dtype(dtype).itemsize + 1
        many = np.broadcast_to(grad.astype(dtype), (n, *grad.shape[1:]))
        x_grad = np.full((n, 5, w, 66), np.nan, dtype)
        assert _runtime.kernels.input_grad("channels_last", many, kernel.astype(dtype), x_grad, rows, cols, 1)
        np.testing.assert_array_equal(x_grad, np.broadcast_to(expected.astype(dtype), x_grad.shape))


@st.composite
def geometries(draw):
    few, pairs = st.integers(1, 4), lambda s: st.tuples(s, s)
    h, w, c, n = draw(st.tuples(st.integers(1, 24), st.integers(1, 40), st.integers(1, 40), st.integers(1, 2)))
    kh, kw = draw(pairs(st.integers(1, 11)))
    m = draw(st.integers(1, 5 if c < 12 else 2))
    some = st.integers(0, 13)
    padding = draw(st.sampled_from(["same", "valid"]) | pairs(pairs(some)))
    return (h, w, c), (kh, kw, m), draw(pairs(few)), draw(pairs(few)), padding, n


@hypothesis.settings(max_examples=150)
@hypothesis.given(geometry=geometries(), workers=st.integers(1, 3), far=st.booleans())
def test_any_geometry(kernels, geometry, workers, far):
    check(*geometry, workers=workers, far=far)


# ---- the same bits; memory ----

@paths
def test_bits(kernels, path):
    """One chain of multiply-adds per element: not a bit depends on workers, batch or layout."""
    size, (kh, kw, m), *_ = path
    _, _, rows, cols, _ = problem(*path)
    rng = np.random.default_rng(3)
    grad = rng.standard_normal((2, rows[1], cols[1], size[2] * m))
    kernel = rng.standard_normal((kh, kw, size[2], m))
    for dtype in DTYPES:
        expected = call("channels_last", dtype, grad, kernel, rows, cols).tobytes()
        for data_format, workers in itertools.product(LAYOUTS, (1, 2, 3)):
            assert call(data_format, dtype, grad, kernel, rows, cols, workers).tobytes() == expected, f"{data_format} {workers}"
        alone = [call("channels_first", dtype, grad[k : k + 1], kernel, rows, cols) for k in range(2)]
        assert np.concatenate(alone).tobytes() == expected


def backwards(a):
    """The same values, every axis but the last stored in reverse."""
    return np.ascontiguousarray(a[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]


def gapped(a):
    """A view of every second element along all axes but the last, NaN between."""
    whole = np.full([2 * n for n in a.shape[:3]] + [a.shape[3] + 3], np.nan, a.dtype)
    whole[::2, ::2, ::2, 1:-2] = a
    return whole[::2, ::2, ::2, 1:-2]


@paths
@pytest.mark.parametrize("arrange", [backwards, gapped])
def test_views(kernels, path, arrange):
    *arrays, expected = problem(*path)
    for data_format in LAYOUTS:
        np.testing.assert_array_equal(call(data_format, np.float32, *arrays, arrange=arrange), expected)


@pytest.mark.parametrize("path", [path for path in PATHS.values() if path[1][2] > 1], ids=str)
def test_sign_of_zero(kernels, path):
    """Products that vanish are -0; sums over a multiplier start from 0."""
    _, _, rows, cols, _ = problem(*path)
    size, (kh, kw, m), *_ = path
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        tiny = np.finfo(dtype).tiny
        grad, kernel = np.full((2, rows[1], cols[1], size[2] * m), tiny), np.full((kh, kw, size[2], m), -tiny)
        result = call(data_format, dtype, grad, kernel, rows, cols)
        assert not np.signbit(result).any(), f"{data_format} {dtype.__name__}"
        assert not result.any()


def test_dense_result(kernels):
    """x_grad without gaps, where planes are written in one run, and written back to front."""
    for path, dtype in itertools.product(PATHS.values(), DTYPES):
        grad, kernel, rows, cols, expected = problem(*path)
        w = kernel.reshape(*kernel.shape[:2], -1).astype(dtype)
        for data_format, reverse in itertools.product(LAYOUTS, (False, True)):
            x_grad = np.full(layout(expected, data_format).shape, np.nan, dtype)
            view = x_grad[::-1, ::-1, ::-1] if reverse else x_grad
            arranged, workers = layout(grad, data_format).astype(dtype), 3 if dtype == np.float32 else 1
            assert _runtime.kernels.input_grad(data_format, arranged, w, view, rows, cols, workers)
            np.testing.assert_array_equal(view, layout(expected, data_format))


@pytest.mark.parametrize(("c", "kernel_shape", "strides"),
                         [(144, (3, 3, 1), 2), (112, (4, 2, 1), 2), (96, (5, 5, 1), 2), (98, (3, 3, 2), 1),
                          (64, (3, 3, 1), 1), (128, (3, 3, 1), 2), (256, (5, 5, 1), 2), (512, (2, 2, 1), (1, 2))])
def test_alignment(kernels, c, kernel_shape, strides):
    """Wherever grad and x_grad start: of many channels the vectors begin at the first aligned one of either."""
    grad, kernel, rows, cols, expected = problem((5, 6, c), kernel_shape, strides, 1, 1)
    w = kernel.reshape(*kernel.shape[:2], -1)
    for dtype, offset, workers in itertools.product(DTYPES, range(16), (1, 3)):
        whole = np.full(expected.size + 32, SENTINEL, dtype)
        x_grad = whole[offset : offset + expected.size].reshape(expected.shape)
        x_grad[...] = np.nan
        buffer = np.full(grad.size + 16, np.nan, dtype)
        at = (offset if workers == 1 else 3 * offset) % 16
        shifted = buffer[at : at + grad.size].reshape(grad.shape)
        shifted[...] = grad
        _runtime.kernels.input_grad("channels_last", shifted, w.astype(dtype), x_grad, rows, cols, workers)
        np.testing.assert_array_equal(x_grad, expected)
        x_grad[...] = SENTINEL
        assert (whole == SENTINEL).all()


@pytest.mark.parametrize("strides", [1, 2])
def test_shared_memory(kernels, strides):
    """False, and nothing done, where x_grad may overlap an input."""
    rows, cols = axes((6, 6), (3, 3), strides, 1, 1)
    memory = np.arange(2000, dtype=np.float32)
    grad, w = memory[: rows[1] * cols[1] * 4].reshape(1, rows[1], cols[1], 4), memory[200:236].reshape(3, 3, 4)
    for at, free in ((rows[1] * cols[1] * 4 - 1, False), (235, False), (236, True)):
        before = memory.copy()
        done = _runtime.kernels.input_grad("channels_last", grad, w, memory[at : at + 144].reshape(1, 6, 6, 4), rows, cols, 1)
        assert done == free
        assert (memory == before).all() != free


# ---- NaN and infinities ----

@paths
def test_not_finite(kernels, path):
    """A NaN in grad reaches just what its taps cover, through zero weights too; an infinite weight over padding adds nothing."""
    grad, kernel, rows, cols, _ = problem(*path)
    grad, kernel = grad.copy(), kernel.copy()
    grad[0, 0, 0, 0] = grad[-1, -1, -1, -1] = grad[0, -1, 0, -1] = np.nan
    grad[grad == 3] = 0
    kernel[kernel == 2] = 0
    kernel[0, 0, ::2], kernel[-1, -1, -1] = np.inf, -np.inf
    expected = scatter(grad, kernel, rows, cols)
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        np.testing.assert_array_equal(call(data_format, dtype, grad, kernel, rows, cols), expected, f"{data_format} {dtype}")
