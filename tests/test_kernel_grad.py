"""The kernels' gradient of the kernel against a loop over taps in float64: exact on small integers, bounded on real numbers,
the same bits for any number of workers and any strides of the arrays.

The entry point is called as functional.py calls it.  Arguments are not checked down there, so every call here is a valid one.
"""

import itertools

import numpy as np
import oracle
import pytest

from dwconv import _runtime
from dwconv._geometry import axis

LAYOUTS = ("channels_last", "channels_first")
DTYPES = (np.float32, np.float64)
SENTINEL = -12345.0

# Code path (see _kernel_grad.pxi): x (N, H, W, C), kernel (kh, kw, M), strides, dilation, padding.  Each runs in both layouts.
PATHS = {
    "3x3": ((2, 13, 19, 40), (3, 3, 1), 1, 1, "same"),
    "3x3, aligned blocks": ((1, 9, 10, 160), (3, 3, 1), 1, 1, "same"),
    "3x3, many channels": ((1, 7, 7, 512), (3, 3, 1), 1, 1, "same"),
    "rows of seven": ((3, 9, 7, 70), (3, 3, 1), 1, 1, ((3, 2), (1, 1))),
    "rows of seven, not padded": ((1, 5, 7, 33), (3, 3, 1), 1, 1, ((0, 0), (1, 1))),
    "rows of seven, of several pieces": ((1, 80, 7, 16), (3, 3, 1), 1, 1, "same"),
    "rows of seven, of padding": ((1, 2, 7, 16), (3, 3, 1), 1, 1, ((4, 0), (1, 1))),
    "one row of seven": ((2, 1, 7, 16), (3, 3, 1), 1, 1, "same"),
    "rows of seven, dilated": ((1, 14, 14, 48), (3, 3, 1), 1, 2, "same"),
    "strips of seven": ((2, 30, 24, 40), (3, 3, 1), 1, 1, "same"),
    "strips of seven, not padded": ((1, 9, 30, 35), (3, 3, 1), 1, 1, "valid"),
    "strips of seven, padded by more": ((1, 5, 19, 35), (3, 3, 1), 1, 1, ((2, 0), (2, 3))),
    "3x3, many channels, no padding": ((1, 12, 12, 512), (3, 3, 1), 1, 1, "valid"),
    "3x3 stride 2": ((2, 14, 15, 35), (3, 3, 1), 2, 1, "same"),
    "3x3 stride 2, outputs of padding alone": ((1, 9, 12, 35), (3, 3, 1), 2, 1, ((3, 4), (5, 4))),
    "pixels 2 KB apart, one long row": ((1, 1, 500, 512), (1, 3, 1), 1, 1, "valid"),
    "pixels 2 KB apart, long rows that share none": ((1, 6, 200, 512), (3, 3, 1), 3, 1, "valid"),
    "pixels 2 KB apart, patches": ((1, 16, 64, 512), (8, 8, 1), 8, 1, "valid"),
    "5x5": ((1, 14, 14, 17), (5, 5, 1), 1, 1, "same"),
    "5x5 stride 2": ((1, 15, 28, 33), (5, 5, 1), 2, 1, 3),
    "5x5 stride 2, outputs of padding alone": ((1, 9, 11, 80), (5, 5, 1), 2, 1, ((5, 6), (7, 8))),
    "7x7": ((1, 8, 30, 18), (7, 7, 1), 1, 1, "same"),
    "31x31": ((1, 12, 14, 5), (31, 31, 1), 1, 1, "same"),
    "1x1": ((3, 4, 5, 16), (1, 1, 1), 1, 1, "valid"),
    "row": ((1, 6, 50, 17), (1, 11, 1), 1, 1, "same"),
    "column": ((1, 50, 6, 3), (13, 1, 2), 1, 1, "same"),
    "51x5": ((1, 30, 9, 16), (51, 5, 1), 1, 1, "same"),
    "even": ((1, 9, 12, 21), (4, 6, 1), 1, 1, ((0, 2), (3, 1))),
    "unequal strides": ((2, 17, 23, 19), (3, 5, 1), (1, 3), 1, 2),
    "stride beyond the kernel": ((1, 17, 23, 18), (2, 2, 1), (4, 3), 1, 0),
    "dilated, aligned blocks": ((1, 20, 21, 512), (3, 3, 1), 1, 2, "same"),
    "dilated": ((1, 20, 21, 17), (3, 3, 1), 1, 2, "same"),
    "dilated and strided": ((1, 25, 22, 16), (3, 3, 1), (2, 3), (3, 2), 4),
    "common factor": ((2, 20, 18, 6), (3, 2, 2), (6, 4), (4, 6), 6),
    "multiplier": ((1, 10, 11, 20), (3, 3, 3), 1, 1, "same"),
    "multiplier, 5x5": ((1, 10, 11, 20), (5, 5, 2), 1, 1, "same"),
    "flat": ((2, 9, 61, 3), (3, 3, 1), 1, 1, "same"),
    "flat, wide": ((1, 5, 700, 3), (5, 5, 1), 1, 1, "same"),
    "flat, one channel": ((1, 40, 37, 1), (7, 7, 1), 1, 1, ((4, 1), (0, 2))),
    "flat, multiplier": ((1, 9, 40, 2), (3, 3, 3), 1, 1, "same"),
    "flat, dilated": ((1, 12, 70, 5), (3, 3, 1), 1, (2, 5), "same"),
    "few channels, strided": ((1, 21, 40, 3), (5, 5, 1), 2, 1, "same"),
    "few channels, stride 2": ((2, 33, 150, 3), (3, 3, 1), 2, 1, "same"),
    "few channels, stride 2, 7x7": ((1, 30, 71, 4), (7, 7, 1), 2, 1, ((3, 1), (0, 5))),
    "few channels, strides": ((1, 31, 139, 2), (4, 3, 1), (3, 2), (2, 1), 1),
    "few channels, columns strided and dilated": ((2, 19, 90, 3), (2, 5, 1), (1, 2), 2, "same"),
    "few channels, mostly padding": ((1, 20, 100, 3), (3, 3, 1), 2, 1, ((1, 1), (150, 200))),
    "one channel, stride 2": ((2, 41, 150, 1), (3, 3, 1), 2, 1, "same"),
    "one channel, stride 2, 5x5": ((1, 130, 40, 1), (5, 5, 1), 2, 1, ((1, 2), (0, 3))),
    "one channel, stride 3": ((1, 30, 77, 1), (3, 3, 1), 3, 1, "same"),
    "few planes, stride 3": ((1, 20, 61, 5), (3, 3, 1), 3, 1, "same"),
    "planes along the rows": ((1, 20, 46, 21), (3, 3, 1), 1, 1, "same"),
    "pairs of planes": ((5, 7, 7, 19), (3, 3, 1), 1, 1, "same"),
    "pairs of planes, stride 2": ((1, 15, 8, 35), (3, 3, 1), 2, 1, "same"),
    "planes along the rows, stride 2": ((1, 21, 70, 19), (3, 3, 1), 2, 1, "same"),
    "planes along the rows, dilated": ((1, 19, 63, 9), (3, 3, 2), 1, 2, "same"),
    "whole rows": ((2, 40, 66, 3), (3, 3, 2), 1, 1, ((1, 1), (0, 1))),
    "whole rows, stride 2": ((1, 31, 131, 9), (3, 3, 1), 2, 1, "same"),
    "whole rows, of several pieces": ((1, 3, 8300, 2), (3, 3, 1), 1, 1, "same"),
    "wide planes": ((1, 70, 530, 2), (3, 5, 1), 1, 1, "same"),
    "wide planes, rows 4 KB apart": ((1, 70, 1024, 2), (3, 5, 1), 1, 1, "same"),
    "wide planes, strided": ((1, 9, 300, 2), (3, 3, 1), (1, 3), 1, "same"),
    "windows of planes": ((2, 13, 230, 17), (5, 5, 1), 3, 1, "same"),
    "windows of planes, multiplier": ((1, 20, 240, 9), (7, 6, 2), 4, 1, "valid"),
    "windows of planes, dilated": ((1, 20, 250, 16), (3, 3, 1), 2, 2, "same"),
    "windows of planes, of padding alone": ((1, 12, 240, 16), (5, 5, 1), 3, 1, ((2, 1), (200, 190))),
    "windows of planes, taps far apart": ((1, 1, 1806, 16), (1, 3, 1), (1, 190), (1, 95), "valid"),
    "windows of planes, taps farther apart": ((1, 1, 7300, 4), (1, 3, 1), (1, 766), (1, 383), "valid"),
    "few of the rows of planes": ((1, 40, 280, 16), (3, 1, 1), (2, 4), 1, "same"),
    "7x7 stride 2, pixels 1 KB apart": ((1, 15, 15, 256), (7, 7, 1), 2, 1, "same"),
    "9x9, pixels 1 KB apart": ((2, 10, 11, 256), (9, 9, 1), 1, 1, "same"),
    "stride 4, pixels 512 bytes apart": ((1, 20, 21, 128), (5, 6, 1), 4, 1, 2),
    "windows of planes, long rows": ((1, 9, 1300, 4), (5, 3, 1), (2, 3), 1, ((0, 1), (3, 2))),
    "phases of long rows": ((1, 9, 250, 16), (3, 3, 1), 2, 3, "same"),
    "outputs of padding alone": ((1, 3, 4, 17), (3, 3, 1), 1, 1, 9),
    "taps that reach nothing": ((1, 2, 2, 16), (9, 9, 1), 1, 1, 4),
    "one pixel": ((2, 1, 1, 33), (3, 3, 1), 1, 1, "same"),
}
paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def reference(x, grad, kernel_shape, rows, cols):
    """w_grad (kh, kw, C*M) in float64 of NHWC arrays, and the sum of |x||grad|: one clipped slice of the image per tap."""
    (height, oh, kh, sh, dh, top), (width, ow, kw, sw, dw, left) = rows, cols
    c, m = x.shape[3], kernel_shape[2]
    x, grad = x.astype(np.float64), grad.astype(np.float64).reshape(*grad.shape[:3], c, m)
    total, size = np.zeros((2, kh, kw, c, m))
    for i, j in itertools.product(range(kh), range(kw)):
        r = [o for o in range(oh) if 0 <= o * sh + i * dh - top < height]
        s = [o for o in range(ow) if 0 <= o * sw + j * dw - left < width]
        if r and s:
            seen = x[:, r[0] * sh + i * dh - top :: sh, s[0] * sw + j * dw - left :: sw][:, : len(r), : len(s), :, None]
            part = grad[:, r[0] : r[-1] + 1, s[0] : s[-1] + 1]
            with np.errstate(invalid="ignore"):
                total[i, j], size[i, j] = (seen * part).sum((0, 1, 2)), abs(seen * part).sum((0, 1, 2))
    return total.reshape(kh, kw, c * m), size.reshape(kh, kw, c * m)


def geometry(x_shape, kernel_shape, strides, dilation, padding):
    """The forward's axes and the gradient's shape (NHWC)."""
    pairs = [padding if isinstance(padding, str) else oracle.pads(0, 0, 0, 0, padding, a) for a in (0, 1)]
    rows, cols = (axis(("height", "width")[a], x_shape[1 + a], kernel_shape[a], oracle.both(strides)[a], oracle.both(dilation)[a],
                       pairs[a]) for a in (0, 1))
    return rows, cols, (x_shape[0], rows[1], cols[1], x_shape[3] * kernel_shape[2])


def arranged(a, data_format, dtype=None):
    return np.ascontiguousarray(np.moveaxis(a, -1, 1) if data_format == "channels_first" else a, dtype)


def call(data_format, x, grad, w_grad, rows, cols, workers=1):
    assert _runtime.kernels.kernel_grad(data_format, x, grad, w_grad, rows, cols, workers) is True
    return w_grad


def views(a, fill):
    """The same values in other layouts of memory: reversed, inside a larger array, with gaps, at odd addresses."""
    yield np.ascontiguousarray(a[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    for margins, steps in (((1, 2, 3, 0), (1, 1, 1, 1)), ((0, 0, 0, 5), (2, 3, 2, 1)), ((0, 1, 0, 1), (1, 1, 1, 1))):
        whole = np.full([n * s + 2 * b for n, s, b in zip(a.shape, steps, margins, strict=True)], fill, a.dtype)
        cut = [slice(b, b + n * s, s) for n, s, b in zip(a.shape, steps, margins, strict=True)]
        whole[tuple(cut)] = a
        yield whole[tuple(cut)]


@paths
def test_exact(kernels, path):
    """Every element is written; workers, and gaps and NaN around the arrays, change nothing."""
    x_shape, kernel_shape, *options = path
    rows, cols, grad_shape = geometry(x_shape, kernel_shape, *options)
    x, grad = oracle.integers(x_shape, 1, 4), oracle.integers(grad_shape, 2, 4)
    expected, _ = reference(x, grad, kernel_shape, rows, cols)
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        a, b = arranged(x, data_format, dtype), arranged(grad, data_format, dtype)
        for workers, (u, v) in enumerate([(a, b), *zip(views(a, np.nan), views(b, np.nan), strict=True)], 1):
            whole = np.full((2 * expected.shape[0], expected.shape[1] + 2, expected.shape[2]), SENTINEL, dtype)
            w_grad = call(data_format, u, v, whole[::-2, 1:-1], rows, cols, workers)
            np.testing.assert_array_equal(w_grad, expected, err_msg=f"{data_format} {dtype.__name__} {workers=}")
            w_grad[...] = SENTINEL
            assert (whole == SENTINEL).all()


@pytest.mark.parametrize(("c", "gap"), [(32, 0), (80, 16), (35, 13), (192, 320)])
@pytest.mark.parametrize(("k", "strides"), [(3, 1), (3, 2), (5, 2)])
def test_alignment(kernels, k, strides, c, gap):
    """Wherever x, grad and w_grad start: vectors begin at x's first aligned channel, and one holds a pixel's ends.

    With gaps between the pixels, of NaN, also where the channels are no multiple of a vector."""
    rows, cols, grad_shape = geometry((1, 6, 7, c), (k, k, 1), strides, 1, "same")
    x, grad = oracle.integers((1, 6, 7, c), 1, 4), oracle.integers(grad_shape, 2, 4)
    expected, _ = reference(x, grad, (k, k, 1), rows, cols)

    def at(offset, a, dtype):
        shape = (*a.shape[:-1], a.shape[-1] + gap)
        size = np.prod(shape)
        view = np.full(size + 32, np.nan, dtype)[offset : offset + size].reshape(shape)[..., : a.shape[-1]]
        view[...] = a
        return view

    for dtype, offset, workers in itertools.product(DTYPES, range(16), (1, 3)):
        whole = np.full(expected.size + 32, SENTINEL, dtype)
        w_grad = whole[offset : offset + expected.size].reshape(expected.shape)
        call("channels_last", at(offset, x, dtype), at(3 * offset % 16, grad, dtype), w_grad, rows, cols, workers)
        np.testing.assert_array_equal(w_grad, expected)
        w_grad[...] = SENTINEL
        assert (whole == SENTINEL).all()


def test_rows_far_apart(kernels):
    """Several narrow planes whose rows lie 2 KB and more apart, of which each is copied; with AVX-512 those 4 KB apart."""
    rows, cols, grad_shape = geometry((1, 12, 46, 20), (3, 3, 1), 1, 1, "same")
    x, grad = oracle.integers((1, 12, 46, 20), 1, 4), oracle.integers(grad_shape, 2, 4)
    expected, _ = reference(x, grad, (3, 3, 1), rows, cols)
    for dtype, row in itertools.product(DTYPES, (600, 1024)):
        whole = np.full((1, 20, 12, row), np.nan, dtype)
        whole[..., :46] = arranged(x, "channels_first")
        g = arranged(grad, "channels_first", dtype)
        w_grad = call("channels_first", whole[..., :46], g, np.zeros((3, 3, 20), dtype), rows, cols)
        np.testing.assert_array_equal(w_grad, expected)


@pytest.mark.parametrize(("k", "strides", "dilation", "size"), [
    (3, 1, 1, (26, 90)), (3, 2, 1, (26, 90)), (5, 1, 1, (26, 90)), (5, 2, 1, (26, 90)), (7, 1, 1, (26, 90)),
    (9, (1, 2), 1, (26, 90)), (3, 2, 3, (61, 61)), (3, 2, 2, (61, 40)), (3, 1, 1, (61, 28)),
    (3, 1, 1, (61, 14)), (3, 1, 2, (61, 56)), (3, 2, 2, (61, 31)),
    (5, 2, 1, (26, 40))])                             # several blocks of channels in bands of few rows
def test_pixels_far_apart(kernels, k, strides, dilation, size):
    """channels_last, pixels 512 bytes to 4 KB apart: those of some blocks of channels are copied, in bands of rows where need be.

    With the bits of pixels that are not copied, since the order of the sums is the same."""
    rows, cols, grad_shape = geometry((1, *size, 20), (k, k, 1), strides, dilation, "same")
    x, grad = oracle.integers((1, *size, 20), 1, 4), oracle.integers(grad_shape, 2, 4)
    x[0, 11, 7, 3] = grad[0, -1, -1, -1] = np.nan
    expected, _ = reference(x, grad, (k, k, 1), rows, cols)
    rng = np.random.default_rng(3)
    for dtype, pixel, workers in itertools.product(DTYPES, (128, 512), (1, 3)):
        whole = np.full((1, *size, pixel), np.nan, dtype)
        far, near, g = whole[..., :20], np.empty(x.shape, dtype), grad.astype(dtype)
        far[...] = x
        w_grad = call("channels_last", far, g, np.full(expected.shape, SENTINEL, dtype), rows, cols, workers)
        np.testing.assert_array_equal(w_grad, expected)
        far[...] = near[...] = rng.standard_normal(x.shape)
        g[...] = rng.standard_normal(grad_shape)
        a, b = (call("channels_last", each, g, np.zeros(expected.shape, dtype), rows, cols, workers) for each in (far, near))
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("k", "size", "c", "dtype"), [
    (3, (61, 28), 72, np.float32), (3, (61, 28), 37, np.float64), (3, (9, 130), 56, np.float32),
    ((5, 3), (26, 40), 40, np.float32)])
def test_pixels_from_memory(kernels, k, size, c, dtype):
    """One image again and again, more than caches hold: slides fetch what the next ones take, workers share each pixel."""
    kernel_shape = (*(k if isinstance(k, tuple) else (k, k)), 1)
    x, grad = oracle.integers((1, *size, c), 1, 2), oracle.integers((1, *size, c), 2, 2)
    expected, _ = reference(x, grad, kernel_shape, *geometry(x.shape, kernel_shape, 1, 1, "same")[:2])
    n = 18_000_000 // (2 * x.size * np.dtype(dtype).itemsize) + 1
    rows, cols, _ = geometry((n, *size, c), kernel_shape, 1, 1, "same")
    x, grad = (np.broadcast_to(a.astype(dtype), (n, *size, c)) for a in (x, grad))
    for workers in (1, 2, 3):
        w_grad = call("channels_last", x, grad, np.full(expected.shape, SENTINEL, dtype), rows, cols, workers)
        np.testing.assert_array_equal(w_grad, n * expected)


@paths
def test_same_bits(kernels, path):
    """For any number of workers and any strides; within the bound of the sums."""
    x_shape, kernel_shape, *options = path
    rows, cols, grad_shape = geometry(x_shape, kernel_shape, *options)
    rng = np.random.default_rng(3)
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        x, grad = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, grad_shape))
        expected, size = reference(x, grad, kernel_shape, rows, cols)
        a, b = arranged(x, data_format), arranged(grad, data_format)
        first = call(data_format, a, b, np.full(expected.shape, SENTINEL, dtype), rows, cols)
        if dtype == np.float32:
            assert (abs(first - expected) <= 540 * np.finfo(dtype).eps * size + 1e-30).all()
        for workers, (u, v) in zip((2, 3, 5, 7), zip(views(a, 0), views(b, 0), strict=True), strict=True):
            w_grad = call(data_format, u, v, np.full(expected.shape, SENTINEL, dtype), rows, cols, workers)
            assert w_grad.tobytes() == first.tobytes(), f"{data_format} {dtype.__name__} {workers=}"


def test_any_geometry(kernels):
    """A random sweep: exact, both layouts, one of the dtypes, some number of workers."""
    rng = np.random.default_rng(7)
    done = 0
    while done < 100:
        n, h, w = (int(k) for k in rng.integers(1, (4, 30, 45)))
        c, m = int(rng.choice([1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 70])), int(rng.choice([1, 1, 1, 2, 3, 5]))
        kh, kw = (int(k) for k in rng.integers(1, 12, 2))
        strides, dilation = (tuple(int(k) for k in rng.integers(1, 5, 2)) for _ in range(2))
        strides, dilation = (1 if rng.random() < 0.5 else strides), (1 if rng.random() < 0.5 else dilation)
        padding = "same" if rng.random() < 0.5 else tuple(tuple(int(k) for k in rng.integers(0, 12, 2)) for _ in range(2))
        try:
            rows, cols, grad_shape = geometry((n, h, w, c), (kh, kw, m), strides, dilation, padding)
        except ValueError:  # no output
            continue
        done += 1
        x, grad = oracle.integers((n, h, w, c), done, 4), oracle.integers(grad_shape, done + 1, 4)
        expected, _ = reference(x, grad, (kh, kw, m), rows, cols)
        dtype, workers = DTYPES[done % 2], done % 4 + 1
        for data_format in LAYOUTS:
            a, b = arranged(x, data_format, dtype), arranged(grad, data_format, dtype)
            w_grad = call(data_format, a, b, np.full(expected.shape, SENTINEL, dtype), rows, cols, workers)
            np.testing.assert_array_equal(w_grad, expected, err_msg=f"{data_format} {x.shape} {kh, kw, m} {rows} {cols} {dtype}")


@pytest.mark.parametrize("c", [1, 16])
def test_long_sums(kernels, c):
    """float32 sums of up to a million positive terms: a running sum would be off by hundreds of eps, pairwise pieces by a few."""
    rng = np.random.default_rng(5)
    shape = (1, 1000, 1000, c) if c == 1 else (2, 350, 350, c)
    x, grad = rng.random(shape, np.float32) + np.float32(0.5), rng.random(shape, np.float32) + np.float32(0.5)
    rows, cols, _ = geometry(shape, (1, 3, 1), 1, 1, "same")
    expected, _ = reference(x, grad, (1, 3, 1), rows, cols)
    for data_format in LAYOUTS:
        a, b = arranged(x, data_format), arranged(grad, data_format)
        w_grad = call(data_format, a, b, np.empty(expected.shape, np.float32), rows, cols, 2)
        assert (abs(w_grad - expected) <= 16 * np.finfo(np.float32).eps * expected).all(), data_format


@paths
def test_nan_reaches_what_meets_it(kernels, path):
    """A NaN in x or grad: just the taps that multiply it, in its channel."""
    x_shape, kernel_shape, *options = path
    rows, cols, grad_shape = geometry(x_shape, kernel_shape, *options)
    x, grad = oracle.integers(x_shape, 1, 4), oracle.integers(grad_shape, 2, 4)
    for array, place in itertools.product((x, grad), ((0, 0, 0, 0), (-1, -1, -1, -1), (0, 0, -1, 0), (0, -1, 0, -1))):
        before = array[place]
        array[place] = np.nan
        expected, _ = reference(x, grad, kernel_shape, rows, cols)
        for data_format in LAYOUTS:
            a, b = arranged(x, data_format, np.float32), arranged(grad, data_format, np.float32)
            w_grad = call(data_format, a, b, np.full(expected.shape, SENTINEL, np.float32), rows, cols)
            np.testing.assert_array_equal(w_grad, expected, err_msg=f"{data_format} {place}")
        array[place] = before


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
def test_widths_of_planes(kernels, k, strides):
    """Rows of one vector to more than a piece, with NaN at the ends of rows: of one plane, of some in one image and in more."""
    for out in (*range(3, 19), 24, 30, 31, 32, 33, 47, 48, 50, 63, 64, 65, 66, 98, 112, 130, 150):
        for padding in ("same", "valid", ((1, 2), (0, k // 2)), ((2, 0), (k - 1, 1))):
            shape = (1 + out % 2, 7, max(out * strides, k), 1 if out == 63 else 18)
            rows, cols, grad_shape = geometry(shape, (k, k, 1), strides, 1, padding)
            x, grad = oracle.integers(shape, 1, 4), oracle.integers(grad_shape, 2, 4)
            x[0, 3, -1, 0] = grad[0, 1, 0, -1] = grad[0, -1, -1, shape[3] // 2] = np.nan
            expected, _ = reference(x, grad, (k, k, 1), rows, cols)
            for dtype in DTYPES:
                a, b = arranged(x, "channels_first", dtype), arranged(grad, "channels_first", dtype)
                w_grad = call("channels_first", a, b, np.full(expected.shape, SENTINEL, dtype), rows, cols, 2)
                np.testing.assert_array_equal(w_grad, expected, err_msg=f"{out} {padding} {dtype.__name__}")


@pytest.mark.parametrize("dilation", [2, (1, 3), (3, 1), (5, 9), 40])
def test_dilated_planes(kernels, dilation):
    """3x3 over rows of some vectors, with NaN at their ends: taps that miss a whole vector, rows of one remainder or none, and
    rows far apart, with the same bits."""
    rng = np.random.default_rng(6)
    for out in (4, 7, 12, 13, 16, 17, 31, 40, 63, 80, 130):
        for padding in ("same", ((1, 2), (40, 3)), ((0, 9), (0, 90))):
            shape = (1 + out % 2, 1 + out % 13, out, 1 if out == 63 else 9)
            try:
                rows, cols, grad_shape = geometry(shape, (3, 3, 1), 1, dilation, padding)
            except ValueError:  # no output
                continue
            x, grad = oracle.integers(shape, 1, 4), oracle.integers(grad_shape, 2, 4)
            x[0, shape[1] // 2, -1, 0] = grad[0, 0, 0, -1] = grad[0, -1, -1, shape[3] // 2] = np.nan
            expected, _ = reference(x, grad, (3, 3, 1), rows, cols)
            for dtype in DTYPES:
                wide = np.full((shape[0], shape[3], shape[1], 1024), np.nan, dtype)
                far, near = wide[..., :out], arranged(x, "channels_first", dtype)
                far[...] = near
                b = arranged(grad, "channels_first", dtype)
                for a, workers in ((near, 1), (far, 2)):
                    w_grad = call("channels_first", a, b, np.full(expected.shape, SENTINEL, dtype), rows, cols, workers)
                    np.testing.assert_array_equal(w_grad, expected, err_msg=f"{out} {padding} {dtype.__name__}")
                far[...] = near[...] = rng.standard_normal(near.shape)
                u, v = (call("channels_first", a, b, np.zeros(expected.shape, dtype), rows, cols, 3) for a in (near, far))
                assert u.tobytes() == v.tobytes()


@pytest.mark.parametrize(("size", "c"), [((20, 40), 20), ((61, 64), 3), ((40, 150), 2)])
def test_dilated_planes_from_afar(kernels, size, c):
    """One image again and again, more than caches hold: the next plane is fetched; rows too long go other ways."""
    x, grad = oracle.integers((1, *size, c), 1, 2), oracle.integers((1, *size, c), 2, 2)
    expected, _ = reference(x, grad, (3, 3, 1), *geometry(x.shape, (3, 3, 1), 1, 2, "same")[:2])
    for dtype, megabytes in itertools.product(DTYPES, (7, 18)):
        n = megabytes * 1_000_000 // (2 * x.size * np.dtype(dtype).itemsize) + 1
        rows, cols, _ = geometry((n, *size, c), (3, 3, 1), 1, 2, "same")
        a, b = (np.broadcast_to(arranged(v, "channels_first", dtype), (n, c, *size)) for v in (x, grad))
        w_grad = call("channels_first", a, b, np.full(expected.shape, SENTINEL, dtype), rows, cols, 2)
        np.testing.assert_array_equal(w_grad, n * expected)


@pytest.mark.parametrize("strides", [1, 2])
def test_pairs_of_planes(kernels, strides):
    """Rows of at most half a vector, in many images: any number of planes, groups and parts for any workers, rows far apart."""
    rng = np.random.default_rng(4)
    for c, out, n, w in ((1, 8, 5, 700), (2, 7, 4, 9), (7, 4, 6, 700), (7, 4, 6, 1024), (35, 7, 4, 15), (7, 4, 140, 8),
                        (17, 8, 140, 16)):
        for dtype, m in itertools.product(DTYPES, (1, 2)):
            wide = oracle.integers((n, c, 7, w), 1, 4).astype(dtype)
            x = wide[..., : min(out * strides, w)]     # of 700 and more numbers rows lie more than 2 KB apart, of 1024 4 or 8
            last = x.transpose(0, 2, 3, 1)
            rows, cols, grad_shape = geometry(last.shape, (3, 3, m), strides, 1, "same")
            grad = oracle.integers(grad_shape, 2, 4)
            expected, _ = reference(last, grad, (3, 3, m), rows, cols)
            b, real = arranged(grad, "channels_first", dtype), rng.standard_normal(x.shape).astype(dtype)
            for workers in (1, 2, 3, 7):
                w_grad = call("channels_first", x, b, np.full(expected.shape, SENTINEL, dtype), rows, cols, workers)
                np.testing.assert_array_equal(w_grad, expected, err_msg=f"{c} {out} {n} {dtype.__name__} {m} {workers}")
            near = call("channels_first", real, b, np.empty(expected.shape, dtype), rows, cols)
            x[...] = real
            assert near.tobytes() == call("channels_first", x, b, np.empty(expected.shape, dtype), rows, cols, 2).tobytes()


def test_shared_memory(kernels):
    """Refused, and nothing written, if w_grad may overlap an input."""
    rows, cols, grad_shape = geometry((1, 6, 6, 16), (3, 3, 1), 1, 1, "same")
    memory = np.ones(4096, np.float32)
    x, grad = memory[: 6 * 6 * 16].reshape(1, 6, 6, 16), memory[1000 : 1000 + 6 * 6 * 16].reshape(grad_shape)
    for at in (500, 900, 1400):
        assert not _runtime.kernels.kernel_grad("channels_last", x, grad, memory[at : at + 144].reshape(3, 3, 16), rows, cols, 1)
    assert (memory == 1).all()
    assert call("channels_last", x, grad, memory[2000 : 2000 + 144].reshape(3, 3, 16), rows, cols)[1, 1, 0] == 36
