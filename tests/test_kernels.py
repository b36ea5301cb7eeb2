"""Every kernels module against the oracle: exact on small integers, within the bound on real numbers, the same bits always.

`check` runs one geometry in both layouts and both dtypes, with NaN right before and after x in memory and a sentinel around
the output, so that a tile which reads or writes past an end is caught wherever it happens.  Nothing is compared with a tuned
tolerance: integers are exact whatever the order of the sums, and the error bound is that of design.md section 3.
Arguments and dtypes other than float32 and float64 are in test_functional.py.
"""

import functools
import itertools
import sys

import hypothesis
import numpy as np
import oracle
import pytest
from hypothesis import strategies as st

import dwconv

LAYOUTS = ("channels_last", "channels_first")
DTYPES = (np.float32, np.float64)
GUARD = 64            # elements around an array, several vectors of any width
SENTINEL = -12345.0

# Code path (see _kernels.pyx, _tiles.h): C, kernel shape (kh, kw, M), options.  Each runs in both layouts: many channels mean
# channel tiles in one and planes taken as channels in the other, few channels flat rows or row tiles.
PATHS = {
    "3x3": (40, (3, 3, 1), {"padding": "same"}),
    "3x3 stride 2": (35, (3, 3, 1), {"padding": "same", "strides": 2}),
    "5x5": (16, (5, 5, 1), {"padding": "same"}),
    "5x5 stride 2": (33, (5, 5, 1), {"padding": 3, "strides": 2}),
    "7x7": (17, (7, 7, 1), {"padding": "same"}),
    "2x2": (17, (2, 2, 1), {"padding": "same"}),
    "2x2, padding before": (18, (2, 2, 1), {"padding": ((1, 0), (1, 0))}),
    "2x2 stride 2": (33, (2, 2, 1), {"padding": ((1, 1), (1, 1)), "strides": 2}),
    "4x4": (17, (4, 4, 1), {"padding": "same"}),
    "4x4, more padding before": (18, (4, 4, 1), {"padding": ((2, 1), (2, 1))}),
    "4x4 stride 2": (33, (4, 4, 1), {"padding": ((1, 2), (1, 2)), "strides": 2}),
    "2x2, few channels": (3, (2, 2, 1), {"padding": ((0, 1), (1, 0))}),
    "4x4, few channels, stride 2": (3, (4, 4, 1), {"padding": ((2, 1), (2, 2)), "strides": 2}),
    "any kernel": (21, (4, 2, 1), {"padding": "same"}),
    "any kernel, stride 2": (35, (6, 7, 1), {"padding": "same", "strides": 2}),
    "any kernel, stride 3": (35, (6, 8, 1), {"padding": "same", "strides": 3}),
    "any stride": (19, (3, 3, 1), {"padding": ((0, 2), (3, 1)), "strides": (1, 2)}),
    "large stride": (18, (3, 5, 1), {"padding": 1, "strides": (2, 3)}),
    "one row of taps": (33, (1, 6, 1), {"padding": 4}),
    "one column of taps": (33, (11, 1, 1), {"padding": "same"}),
    "one column of taps, strides": (17, (5, 1, 1), {"padding": ((3, 0), (0, 2)), "strides": (2, 3)}),
    "many channels": (144, (3, 3, 1), {"padding": "same"}),
    "repeat": (11, (3, 3, 3), {"padding": "same"}),
    "repeat stride 2": (20, (3, 3, 2), {"padding": "same", "strides": 2}),
    "repeat, any kernel": (13, (4, 6, 2), {"padding": "same"}),
    "repeat, one column of taps": (13, (4, 1, 2), {"padding": "same", "strides": (1, 2)}),
    "partial": (12, (3, 3, 1), {"padding": "same", "strides": 2}),
    "partial, stride 3": (6, (4, 5, 1), {"padding": 2, "strides": 3}),
    "partial repeat": (5, (3, 3, 3), {"padding": "same", "strides": (1, 3)}),
    "flat": (3, (3, 3, 1), {"padding": "same"}),
    "flat, stride 2": (3, (3, 3, 1), {"padding": "same", "strides": 2}),
    "flat, stride 3": (2, (4, 5, 1), {"padding": 2, "strides": 3}),
    "flat, inputs far apart": (2, (3, 3, 1), {"padding": "same", "strides": (1, 4)}),
    "one channel": (1, (5, 5, 1), {"padding": ((4, 1), (0, 2))}),
    "one channel, stride 3": (1, (5, 4, 1), {"padding": ((4, 1), (0, 2)), "strides": 3}),
    "one channel, stride 6": (1, (2, 9, 1), {"padding": 5, "strides": (1, 6)}),
    "flat repeated": (2, (3, 3, 3), {"padding": "same"}),
    "flat repeated, stride 2": (3, (3, 2, 2), {"padding": "same", "strides": 2}),
    "flat repeated, one channel, stride 2": (1, (3, 2, 2), {"padding": "same", "strides": 2}),
    "flat repeated, one channel": (1, (2, 3, 5), {"padding": "same"}),
    "flat repeated, two filters": (1, (3, 3, 2), {"padding": ((1, 1), (2, 0))}),
    "flat dilated": (3, (3, 3, 1), {"padding": "same", "dilation_rate": (2, 3)}),
    "flat dilated, stride 2": (3, (3, 3, 1), {"padding": "same", "dilation_rate": 3, "strides": 2}),
    "5x5, few channels": (2, (5, 5, 1), {"padding": "same"}),
    "7x7, few channels": (3, (7, 7, 1), {"padding": "same"}),
    "any kernel, few channels": (1, (4, 9, 1), {"padding": 4, "strides": (2, 1)}),
    "large stride, few channels": (2, (3, 5, 1), {"padding": 1, "strides": (2, 5)}),
    "phases": (17, (3, 3, 1), {"padding": "same", "dilation_rate": 2}),
    "phases, stride 2": (17, (3, 3, 1), {"padding": 3, "dilation_rate": 3, "strides": 2}),
    "phases, common factor": (5, (3, 2, 2), {"padding": 6, "dilation_rate": (4, 6), "strides": (6, 4)}),
}
paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def layout(x, data_format):
    """NHWC (or HWC) to the given layout, contiguous."""
    return np.ascontiguousarray(np.moveaxis(x, -1, -3) if data_format == "channels_first" else x)


def to_last(y, data_format):
    """The given layout to NHWC, a view."""
    return np.moveaxis(y, -3, -1) if data_format == "channels_first" else y


def guarded(shape, dtype, fill, array=None):
    """A contiguous array of that shape, of `array`'s values, inside a longer one full of `fill`: both are returned."""
    size = int(np.prod(shape))
    whole = np.full(size + 2 * GUARD, fill, dtype)
    inner = whole[GUARD : GUARD + size].reshape(shape)
    if array is not None:
        inner[...] = array
    return inner, whole


def untouched(inner, whole, fill=SENTINEL):
    """Whether only `inner` was written of `whole`."""
    inner = inner.copy(), inner
    inner[1][...] = fill
    clean = np.array_equal(whole, np.full_like(whole, fill))
    inner[1][...] = inner[0]
    return clean


def assert_equal(result, expected, message):
    if not np.array_equal(result, expected):  # many times as fast as what says where they differ
        np.testing.assert_array_equal(result, expected, err_msg=message)


@functools.lru_cache(maxsize=512)
def problem(shape, kernel_shape, options, most=9):
    """x, kernel, bias and the results without and with the bias: NHWC, exact integers; kept for the next kernels module."""
    kh, kw, m = kernel_shape
    x, kernel = oracle.integers(shape, 1, most), oracle.integers((kh, kw, shape[3], m), 2, most)
    bias, options = oracle.integers((shape[3] * m,), 3, most), dict(options)
    activation = options.pop("activation", None)
    y = oracle.conv(x, kernel, **options)
    return x, kernel, bias, [oracle.activated(result, activation) for result in (y, y + bias)]


def check(shape, kernel_shape, most=9, **options):
    """Exact equality in both layouts and dtypes; bias in two of the four calls."""
    x, kernel, bias, results = problem(shape, kernel_shape, tuple(options.items()), most)
    for k, (data_format, dtype) in enumerate(itertools.product(LAYOUTS, DTYPES)):
        with_bias = k in (0, 3)
        expected = layout(results[with_bias], data_format)
        arranged = layout(x, data_format)
        arranged, _ = guarded(arranged.shape, dtype, np.nan, arranged)
        out, whole = guarded(expected.shape, dtype, SENTINEL)
        arrays = arranged, kernel.astype(dtype), bias.astype(dtype) if with_bias else None
        y = dwconv.depthwise_conv2d(*arrays, data_format=data_format, out=out, **options)
        message = f"x {shape} kernel {kernel_shape} {options} {data_format} {dtype.__name__} {with_bias=}"
        assert_equal(y, expected, message)
        assert untouched(out, whole), f"wrote outside out: {message}"


def reals(path, size=(2, 21, 75), dtype=np.float64):
    """Normal random x, kernel and bias for a path."""
    c, (kh, kw, m), options = path
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(s).astype(dtype) for s in ((*size, c), (kh, kw, c, m), (c * m,))]
    return *arrays, options


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# ---- exact values ----

@paths
def test_paths(kernels, path):
    c, kernel_shape, options = path
    check((2, 13, 75, c), kernel_shape, **options)


KERNEL_SIZES = [(k, k) for k in (*range(1, 10), 31)] + [(1, 7), (7, 1), (51, 5), (2, 3), (4, 2), (1, 33), (125, 1)]


@pytest.mark.parametrize("size", KERNEL_SIZES, ids=str)
def test_kernel_sizes(kernels, size):
    """Also far larger than the image, where most taps lie in the padding."""
    for strides, (c, m) in itertools.product([1, 2, 3, (1, 2), (3, 1)], [(3, 1), (17, 1), (5, 2)]):
        check((1, 12, 19, c), (*size, m), padding="same", strides=strides)
    for shape in ((1, 1, 1, 3), (1, 2, 5, 18)):
        check(shape, (*size, 1), padding="same", strides=2)
    if size[0] <= 12 and size[1] <= 19:
        check((1, 12, 19, 17), (*size, 1))


@pytest.mark.parametrize("size", [(45, 45), (131, 33), (7, 301)], ids=str)
@pytest.mark.parametrize("c", [1, 2, 3])
def test_large_kernels_of_few_channels(kernels, size, c):
    """Their repeated weights exceed the scratch of a call, see PATTERN_BYTES."""
    check((1, 5, 70, c), (*size, 1), most=2, padding="same")


GEOMETRIES = [
    ((3, 3), {"padding": "same"}),
    ((3, 3), {"padding": "same", "strides": 2}),
    ((2, 3), {"strides": (1, 3)}),
    ((5, 3), {"padding": "same", "dilation_rate": (1, 2)}),
]
geometries = pytest.mark.parametrize(("size", "options"), GEOMETRIES, ids=str)


@geometries
def test_channels(kernels, size, options):
    for c in range(1, 71):
        check((1, 5, 9, c), (*size, 1), **options)


@geometries
def test_widths(kernels, size, options):
    for w, c in itertools.product(range(1 if options.get("padding") == "same" else size[1], 71), (1, 3, 18)):
        check((1, 5, w, c), (*size, 1), **options)


@pytest.mark.parametrize("k", [(7, 7), (9, 9), (4, 6), (2, 11), (3, 5), (1, 9), (12, 35)], ids=str)
def test_widths_of_one_plane(kernels, k):
    """Rows of one tile and more, whose tap columns partly need masks on both sides; strips of one to four rows."""
    for w, h in itertools.product((*range(8, 78, 3), 100, 194), (1, 4, 7, 14)):
        check((1, h, w, 1), (*k, 1), most=5, padding="same")
    check((2, 15, 90, 1), (*k, 1), most=5, padding=((30, 2), (45, 50)), dilation_rate=(1, 2))


@pytest.mark.parametrize("size", [5, 7])
@pytest.mark.parametrize("strides", [1, 2])
def test_widths_of_large_kernels(kernels, size, strides):
    """Tiles of seven and of eight columns, which go tap row by tap row where there are 16 registers."""
    for w in range(1, 26):
        check((1, 9, w, 18), (size, size, 1), padding="same", strides=strides)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("k", [3, 5, 7])
def test_borders_of_narrow_maps(kernels, k, strides):
    """Tiles as wide as the map, or half as wide, know the borders where padding is half a kernel."""
    for out, left, right in itertools.product((7, 8, 14, 16), (0, 1, 2, 3), (0, 1, 2, 3)):
        w = (out - 1) * strides + k - left - right
        for c in (18, 40):
            check((1, 6, w, c), (k, k, 1), padding=((1, 1), (left, right)), strides=strides)
    for w in (13, 14, 15, 27, 28, 29) if strides == 1 else ():  # phases of seven columns and of fourteen
        check((1, 9, w, 24), (k, k, 1), padding="same", dilation_rate=2)


@pytest.mark.parametrize("strides", [2, 3])
@pytest.mark.parametrize("taps", [*range(1, 10), 15])
def test_strided_rows_of_taps(kernels, taps, strides):
    """Runs of taps of every length, in tiles of seven columns within the image, at its ends and past it; any channels."""
    for c, w in itertools.product((2, 3, 5, 12, 18), (3, 20, 50)):
        check((1, 7, w, c), (3 if taps > 1 else 1, taps, 1), padding=((1, 1), (taps // 2, taps // 3)), strides=strides)


@pytest.mark.parametrize("size", [(9, 9), (33, 33), (2, 51)], ids=str)
def test_large_kernels_of_many_channels(kernels, size):
    """Weights that exceed half of the nearest cache, so that channels are taken one block at a time."""
    check((1, 5, 9, 70), (*size, 1), most=2, padding="same")


@pytest.mark.parametrize("size", [(3, 3), (5, 2), (1, 1)], ids=str)
def test_planes(kernels, size):
    """channels_first with a vector of planes at a time: what of them fits the scratch, whole planes or bands of a few rows."""
    for (h, w), strides in itertools.product([(14, 14), (31, 31), (70, 60), (40, 130), (9, 300), (5, 1000)], [1, 2, (3, 1)]):
        check((1, h, w, 17), (*size, 1), padding="same", strides=strides)


@pytest.mark.parametrize("size", [(1, 2), (1, 7), (1, 32), (1, 33), (2, 2), (2, 5), (3, 2), (2, 1), (8, 1), (65, 1)], ids=str)
def test_small_kernels_over_planes(kernels, size):
    """Down the columns of a plane, seven rows of one vector: rows of whole vectors and less, inputs missing at either side."""
    for w, c in itertools.product((7, 16, 19, 26, 60), (1, 17)):
        check((1, 16, w, c), (*size, 1), padding="same")
        for sides in ((0, 0), (3, 0), (0, 5)) if size[1] == 1 else ((60, 3),):
            check((1, 9, w, c), (*size, 1), padding=((size[0], 1), sides), strides=(2, 1), dilation_rate=(1, 2))
    check((1, 11, 50, 2), (*size, 2), padding="same", dilation_rate=(3, 1), strides=(2, 1))
    check((1, 8, 1024, 1), (*size, 1), padding="same")  # rows that share a set of the nearest cache


@pytest.mark.parametrize("size", [(9, 9), (13, 6), (4, 11)], ids=str)
def test_planes_in_windows(kernels, size):
    """channels_first with strides: planes so wide, or kernels so high, that the scratch holds some columns of a band only."""
    for w, strides in itertools.product((101, 113, 240, 515), (2, 3, (1, 2), (4, 3))):
        check((1, 15, w, 17), (*size, 1), most=5, padding="same", strides=strides)
    check((2, 15, 240, 18), (*size, 1), most=5, padding=((12, 9), (1, 30)), strides=(1, 3), dilation_rate=(2, 3))
    check((1, 15, 600, 17), (*size, 1), most=5, padding=((0, 0), (250, 200)), strides=(2, 3))  # windows without inputs


@pytest.mark.parametrize("size", [(31, 31), (51, 5), (15, 15)], ids=str)
def test_planes_in_chunks(kernels, size):
    """channels_first with kernels so high that the scratch holds some rows of a band's inputs: sums wait there for the others."""
    for h, w in ((40, 40), (61, 37), (80, 100)):
        check((1, h, w, 17), (*size, 1), most=2, padding="same")
    check((1, 47, 55, 18), (*size, 2), most=2, padding=((40, 2), (3, 50)), strides=(2, 1), activation="relu6")
    check((1, 70, 55, 17), (*size, 1), most=2, padding="same", dilation_rate=(2, 1))
    check((2, 75, 110, 17), (*size, 1), most=2, padding="same", strides=(1, 2))


PARTED = {  # image, kernel, options: rows that are copied as parted rows, by what does not fit the scratch or a tile
    "as they come": ((15, 40), (4, 4), {"strides": 2}),      # with AVX-512 there is a tile
    "as they come, 4x5": ((15, 40), (4, 5), {"strides": 2}),
    "every stride": ((20, 61), (4, 5), {"strides": 3, "activation": "relu6"}),
    "stride 4": ((19, 77), (6, 9), {"strides": 4}),
    "larger strides": ((19, 77), (2, 3), {"strides": (9, 7)}),
    "windows of columns": ((17, 2500), (4, 6), {"strides": 2}),
    "many columns of taps": ((9, 150), (3, 65), {"strides": (1, 3), "activation": "relu6"}),  # in the end fewer than the stride
    "and one more": ((9, 150), (2, 33), {"strides": (2, 4)}),
    "many rows of taps": ((420, 35), (400, 2), {"strides": 2, "activation": "relu6"}),
    "wide dilation": ((5, 9000), (2, 9), {"strides": (1, 2), "dilation_rate": (1, 999)}),
    "parts of a dilation": ((18, 90), (3, 5), {"strides": (4, 6), "dilation_rate": (2, 4)}),
    "a narrow row": ((23, 5), (4, 4), {"strides": 2}),
    "a narrow row, 6x6": ((23, 5), (6, 6), {"strides": 2}),
    "no shared rows": ((70, 300), (16, 16), {"strides": 16}),
}


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("case", PARTED.values(), ids=PARTED)
def test_parted_rows(kernels, case, multiplier):
    """Strided rows of few channels, and those with a multiplier, however they are cut: exact, and the bits of many channels."""
    image, size, options = case
    for c, padding in itertools.product((1, 3), ("same", ((size[0] // 2, 0), (1, size[1])))):
        check((1, *image, c), (*size, multiplier), most=2, padding=padding, **options)
    rng = np.random.default_rng(3)
    for dtype, data_format, workers in itertools.product(DTYPES, LAYOUTS, (1, 3)):
        x, kernel = rng.standard_normal((1, *image, 17)).astype(dtype), rng.standard_normal((*size, 17, multiplier)).astype(dtype)
        expected = dwconv.depthwise_conv2d(x, kernel, padding="same", **options)[..., : 3 * multiplier]
        few = layout(x[..., :3], data_format), np.ascontiguousarray(kernel[:, :, :3])
        y = dwconv.depthwise_conv2d(*few, padding="same", data_format=data_format, workers=workers, **options)
        assert same_bits(to_last(y, data_format), np.ascontiguousarray(expected)), f"{data_format} {workers} {dtype.__name__}"


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7])
@pytest.mark.parametrize(("image", "c"), [
    ((43, 130), 3), ((11, 1300), 4), ((17, 2100), 2), ((17, 600), 2), ((4, 7), 3), ((6, 836), 3), ((5, 838), 3)], ids=str)
def test_few_channels_as_planes(kernels, image, c, k):
    """At stride 2, in tiles of some rows and columns: exact, and the bits of many channels, from pixels with gaps too."""
    check((2, *image, c), (k, k, 1), most=2, padding=((k // 2, 1), (k - 1, 2)), strides=2, activation="relu6")
    rng = np.random.default_rng(3)
    for dtype, workers in itertools.product(DTYPES, (1, 3)):
        x, kernel = rng.standard_normal((1, *image, 17)).astype(dtype), rng.standard_normal((k, k, 17, 1)).astype(dtype)
        expected = np.ascontiguousarray(dwconv.depthwise_conv2d(x, kernel, padding="same", strides=2)[..., :c])
        for few in (np.ascontiguousarray(x[..., :c]), x[..., :c]):
            y = dwconv.depthwise_conv2d(few, kernel[:, :, :c], padding="same", strides=2, workers=workers)
            assert same_bits(y, expected), f"{workers} {dtype.__name__}"


@pytest.mark.parametrize("size", [(31, 31), (51, 5), (7, 1), (1, 7), (2, 2), (4, 4)], ids=str)
def test_bits_of_planes(kernels, size):
    """The order of sums is that of channels_last, however planes are cut."""
    rng = np.random.default_rng(1)
    for shape, dtype in itertools.product(((2, 40, 40, 17), (1, 30, 56, 34)), DTYPES):
        x, kernel = rng.standard_normal(shape).astype(dtype), rng.standard_normal((*size, shape[-1], 1)).astype(dtype)
        expected = dwconv.depthwise_conv2d(x, kernel, padding="same", workers=1)
        for workers in (1, 2, 3):
            options = {"padding": "same", "data_format": "channels_first", "workers": workers}
            y = dwconv.depthwise_conv2d(layout(x, "channels_first"), kernel, **options)
            assert same_bits(to_last(y, "channels_first"), expected), f"{shape} {workers} {dtype.__name__}"


@pytest.mark.parametrize("case", [((20, 114), (3, 5), 2), ((30, 300), (1, 1), (1, 200)), ((40, 320), (4, 4), (1, 100))], ids=str)
def test_planes_of_which_no_output_sees_all(kernels, case):
    """Rows are turned whole, with columns that no output needs: what is turned must fit the scratch (see .ci/sanitize)."""
    (h, w), size, strides = case
    check((1, h, w, 17), (*size, 1), strides=strides)


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (7, 7), (2, 3)], ids=str)
@pytest.mark.parametrize("rate", [2, (3, 1), (2, 5)], ids=str)
def test_dilated_planes(kernels, size, rate):
    """Planes as channels, each phase of rows and columns by itself; bands are whole turns of the row phases."""
    for (h, w), strides in itertools.product([(13, 17), (40, 33), (9, 90)], [1, 2, (4, 3)]):
        check((1, h, w, 17), (*size, 1), padding="same", dilation_rate=rate, strides=strides)


@pytest.mark.parametrize("shape", [(2, 8, 64), (1, 32, 32), (1, 64, 50), (1, 30, 113)], ids=str)
def test_planes_apart(kernels, shape):
    """Planes of 2 and 4 KB share sets of the cache, and are turned line by line; others beside them."""
    for size, strides in itertools.product([3, 7], [1, 2]):
        check((*shape, 19), (size, size, 1), padding="same", strides=strides)


APART = [{}, {"strides": 2}, {"dilation_rate": (2, 3)}, {"strides": (2, 1), "dilation_rate": 2}]


@pytest.mark.parametrize("options", APART, ids=str)
def test_pixels_apart(kernels, options):
    """channels_last, pixels of 512 bytes to 12 KB: some channels at a time through the scratch, in bands that fit it."""
    shapes = [(2, 5, 7, 512), (1, 30, 33, 512), (1, 1, 6, 512), (3, 6, 1, 512), (1, 3, 200, 512)]
    for shape, size in itertools.product(shapes, [(3, 3), (5, 2)]):
        check(shape, (*size, 1), padding="same", **options)
    check((1, 12, 70, 512), (5, 5, 1), padding="same", **options)     # half as many channels at a time
    pitches = [((1, 12, 33, 128), 5), ((1, 12, 30, 256), 3), ((1, 16, 16, 192), 7), ((1, 17, 16, 1024), 3), ((1, 7, 9, 1536), 7)]
    pitches += [((1, 24, 10, 1024), 3), ((1, 5, 4, 512), 11)]     # bands of 512 bytes; weights that find no room
    for shape, size in pitches:
        check(shape, (size, size, 1), padding="same", **options)
    check((1, 7, 40, 512), (3, 3, 1), padding="same", strides=3)


@pytest.mark.parametrize(("shape", "size", "options"), [
    ((2, 3, 20, 1024), (3, 3), {"padding": ((9, 2), (5, 12)), "dilation_rate": (4, 3)}),       # row phases without inputs
    ((1, 3, 3, 512), (5, 2), {"padding": ((9, 9), (4, 3)), "dilation_rate": (4, 2)}),          # column phases of one or two
    ((1, 20, 17, 512), (5, 3), {"padding": 5, "strides": (2, 3), "dilation_rate": (4, 2)}),    # a factor in common
    ((1, 29, 65, 512), (3, 3), {"padding": "same", "dilation_rate": 2}),                       # several bands of each
    ((1, 15, 240, 256), (5, 5), {"padding": "same", "strides": 3, "dilation_rate": 2}),        # ... one without outputs
    ((1, 31, 34, 256), (5, 5), {"padding": "same", "dilation_rate": (3, 8)}),
    ((1, 23, 41, 512), (7, 7), {"padding": 6, "strides": 2, "dilation_rate": 3}),
    ((1, 18, 70, 512), (9, 9), {"padding": "same"}),                                           # bands that share most rows
    ((1, 9, 20, 256), (9, 9), {"padding": "same", "strides": 2}),
], ids=str)
def test_bands_of_pixels_apart(kernels, threaded, shape, size, options):
    """Each phase of a dilation by itself, whether it has inputs or not; large kernels in bands that share most of their rows."""
    for workers in (1, 3):
        with dwconv.set_workers(workers):
            check(shape, (*size, 1), **options)


def placed(array, address):
    """A copy of the array that starts as far into a page as the address does."""
    raw = np.empty(array.nbytes + 4096, np.uint8)
    start = (address - raw.ctypes.data) % 4096
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strides", [1, 2])
def test_weights_at_the_sets_of_pixels(kernels, threaded, strides, dtype):
    """Taps as far apart as pixels, a multiple of 512 bytes, that start near them or the outputs, before x or after it."""
    size = np.dtype(dtype).itemsize
    for pitch, start, beside, ahead in itertools.product((512, 1024, 2048, 4096, 6144), (0, 20), (0, 1), (256, -320)):
        shape = 1, 12, 14 if pitch == 512 else 9, pitch // size
        x, kernel, bias, results = problem(shape, (3, 3, 1), (("padding", "same"), ("strides", strides)))
        x = placed(x.astype(dtype), start * size)
        out = placed(np.full(results[1].shape, np.nan, dtype), start * size + 4096 + ahead)
        for apart in (-200, -64, 0, 48, 128, 360):
            weights = placed(kernel.astype(dtype), (out if beside else x).ctypes.data + apart)
            options = {"strides": strides, "padding": "same", "workers": 1 + 6 * beside}
            dwconv.depthwise_conv2d(x, weights, bias.astype(dtype), out=out, **options)
            np.testing.assert_array_equal(out, results[1], err_msg=f"{pitch=} {start=} {beside=} {apart=}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "strides"), [(3, 1), (3, 2), (2, 1), (4, 1)])
def test_more_weights_than_are_packed_at_a_time(kernels, threaded, k, strides, dtype):
    """By the call, by a worker, or by a tile; with dilation the taps of each phase are the same."""
    for c, workers, dilation in itertools.product((135, 1700, 1712), (1, 3), (1, 2) if strides == 1 else (1,)):
        options = (("padding", "same"), ("strides", strides), ("dilation_rate", dilation))
        x, kernel, bias, results = problem((2, 5, 6, c), (k, k, 1), options)
        arrays = [a.astype(dtype) for a in (x, kernel, bias)]
        for with_bias, y in zip((None, arrays[2]), results, strict=True):
            result = dwconv.depthwise_conv2d(*arrays[:2], with_bias, workers=workers, **dict(options))
            assert_equal(result, y, f"{c=} {workers=} {dilation=}")
        grad = arrays[0] if strides == 1 else dwconv.depthwise_conv2d(*arrays[:2], **dict(options))
        turned = dwconv.depthwise_conv2d_input_grad(grad, arrays[1], x.shape, workers=workers, **dict(options))
        for first in range(0, c - 9, 60):
            part = slice(first, first + 9)
            again = dwconv.depthwise_conv2d_input_grad(grad[..., part], arrays[1][:, :, part], (2, 5, 6, 9), **dict(options))
            assert_equal(turned[..., part], again, f"input_grad {c=} {workers=} {dilation=}")


@pytest.mark.parametrize("k", [5, 7])
@pytest.mark.parametrize("strides", [1, 2])
def test_workers_share_channels(kernels, threaded, k, strides):
    """Of one image of few rows; pixels of 2 KB also go through the scratch, some channels at a time."""
    for size, c in itertools.product((4, 7, 15), (200, 256, 515, 1024)):
        x, kernel, bias, results = problem((1, size, size, c), (k, k, 1), (("padding", "same"), ("strides", strides)))
        for dtype, workers in itertools.product(DTYPES, (2, 3, 5)):
            arrays = (a.astype(dtype) for a in (x, kernel, bias))
            y = dwconv.depthwise_conv2d(*arrays, padding="same", strides=strides, workers=workers)
            assert_equal(y, results[1], f"{size=} {c=} {dtype.__name__} {workers=}")


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("c", [1, 3, 8, 17, 40, 150])
def test_channels_of_wide_pixels(kernels, c, strides):
    """Of pixels of 2 KB only some channels: fewer than are taken at a time, or than a vector has."""
    for dtype, size in itertools.product(DTYPES, (3, 2)):
        x = np.full((2, 9, 11, 2048 // np.dtype(dtype).itemsize), np.nan, dtype)
        x[..., 5 : 5 + c] = oracle.integers((2, 9, 11, c), 1, 9)
        kernel = oracle.integers((size, size, c), 2, 9)
        y = dwconv.depthwise_conv2d(x[..., 5 : 5 + c], kernel.astype(dtype), strides=strides, padding="same")
        np.testing.assert_array_equal(y, oracle.conv(x[..., 5 : 5 + c], kernel[..., None], strides=strides, padding="same"))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("k", [2, 3, 4, 5, 7])
def test_widths_of_planes(kernels, k, strides):
    """Rows of one vector to several blocks of them, with padding on either side, on both, none, and more than half a kernel."""
    for out in (*range(1, 19), 24, 25, 30, 32, 33, 35, 47, 48, 50, 63, 65, 66, 98, 130):
        for padding in ("same", "valid", ((1, 2), (0, k // 2)), ((0, 3), (k // 2, 0)), ((2, 0), (k - 1, 1))):
            w = out * strides if padding == "same" else max(out * strides, k)
            for c in (3, 17) if out in (17, 18, 33) else (17,):  # of more planes such rows are turned into channels
                check((1, 7, w, c), (k, k, 1), padding=padding, strides=strides)


@pytest.mark.parametrize("rate", [2, 3, 4, 8, 9])
def test_widths_of_dilated_planes(kernels, rate):
    """As above, 3x3 in phases of the rows: the last outputs of a row that miss inputs may lie in two vectors."""
    for out in (*range(3, 19), 24, 25, 29, 32, 33, 35, 48, 50, 63, 65, 130):
        for padding in ("same", "valid", ((1, 2), (0, rate)), ((0, 3), (rate + 1, 1))):
            w = out if padding == "same" else out + 2 * rate
            check((1, 8, w, 11 if out > 8 else 3), (3, 3, 1), most=4, padding=padding, dilation_rate=(1 + rate % 3, rate))


@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("k", [2, 3, 4, 5, 7, 9, 21])
def test_infinite_weights_over_padding(kernels, k, strides):
    """All but those of the middle column: no vector multiplies a number that is not there."""
    for w, c in itertools.product((3, 4, 5, 7, 16, 20, 30, 32, 47, 48, 64, 66, 96, 120, 128), (1, 3, 17)):
        x, kernel, _, _ = problem((1, 6, w * strides, c), (k, k, 1), (("padding", "same"),))
        kernel = np.where(np.arange(k)[:, None, None] == (k - 1) // 2, kernel, np.inf)
        expected = oracle.conv(x, kernel, padding="same", strides=strides)
        for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
            arrays = layout(x, data_format).astype(dtype), kernel.astype(dtype)
            y = dwconv.depthwise_conv2d(*arrays, padding="same", strides=strides, data_format=data_format)
            np.testing.assert_array_equal(to_last(y, data_format), expected, err_msg=f"{w} {c} {data_format} {dtype.__name__}")


@pytest.mark.parametrize("rate", [2, 4, 8])
def test_sign_of_zero_over_padding_of_dilated_planes(kernels, rate):
    for w, padding, dtype in itertools.product((9, 16, 20, 40, 56), ((0, rate), (rate, 0), (rate, rate)), DTYPES):
        if w + sum(padding) > 2 * rate:
            x, kernel, bias = np.zeros((1, 3, 5, w), dtype), np.full((3, 3, 3, 1), -1, dtype), np.full(3, -0.0, dtype)
            options = {"padding": ((1, 1), padding), "dilation_rate": (1, rate), "data_format": "channels_first"}
            y = dwconv.depthwise_conv2d(x, kernel, bias, **options)
            assert np.signbit(y).all(), f"{w} {padding} {dtype.__name__}"


@pytest.mark.parametrize("rate", [2, 5, 8])
def test_infinite_weights_over_padding_of_dilated_planes(kernels, rate):
    for w, c, dtype in itertools.product((4, 6, 8, 16, 20, 33, 36, 50, 63), (3, 17), DTYPES):
        x, kernel, _, _ = problem((1, 6, w, c), (3, 3, 1), (("padding", "same"),))
        kernel = np.where(np.arange(3)[:, None, None] == 1, kernel, np.inf)
        expected = oracle.conv(x, kernel, padding="same", dilation_rate=rate)
        arrays = layout(x, "channels_first").astype(dtype), kernel.astype(dtype)
        y = dwconv.depthwise_conv2d(*arrays, padding="same", dilation_rate=rate, data_format="channels_first")
        np.testing.assert_array_equal(to_last(y, "channels_first"), expected, err_msg=f"{w} {c} {dtype.__name__}")


@pytest.mark.parametrize("taps", [2, 3, 7, 20])
def test_padding_of_one_row_of_taps(kernels, taps):
    """It adds nothing, be the weight over it infinite or its product the zero of the other sign."""
    options = {"padding": "same", "data_format": "channels_first"}
    for w, c, dtype, end in itertools.product((16, 19, 33, 60), (1, 17), DTYPES, (0, taps - 1)):
        x, kernel, _, _ = problem((1, 9, w, c), (1, taps, 1), (("padding", "same"),))
        kernel = np.where(np.arange(taps)[:, None, None] == end, np.inf, kernel)
        y = dwconv.depthwise_conv2d(layout(x, "channels_first").astype(dtype), kernel.astype(dtype), **options)
        assert_equal(to_last(y, "channels_first"), oracle.conv(x, kernel, padding="same"), f"{w} {c} {dtype.__name__} {end}")
    for w, c, dtype in itertools.product((16, 19, 33, 60), (1, 17), DTYPES):
        minus = np.full((1, c, 9, w), -0.0, dtype), np.ones((1, taps, c, 1), dtype), np.full(c, -0.0, dtype)
        assert np.signbit(dwconv.depthwise_conv2d(*minus, **options)).all(), f"{w} {c} {dtype.__name__}"


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_planes_in_one_vector(kernels, dtype, strides):
    """Rows of half a vector and less are taken from two planes at once, however these lie; nothing of one reaches the other."""
    paddings = "same", "valid", ((1, 0), (0, 1)), ((0, 1), (1, 0))
    for w, c, padding in itertools.product((3, 4, 5, 7, 8, 9, 10, 15, 16, 17), (2, 3, 5), paddings):
        options = {"padding": padding, "strides": strides}
        x, kernel, _, _ = problem((1, 6, w, c), (3, 3, 1), tuple(options.items()))
        planes, kernel = layout(x, "channels_first").astype(dtype), kernel.astype(dtype)
        expected = layout(oracle.conv(x, kernel, **options), "channels_first")
        convolve = functools.partial(dwconv.depthwise_conv2d, data_format="channels_first", **options)
        for name, view in (*views(planes), ("every plane backwards", planes[:, ::-1].copy()[:, ::-1])):
            np.testing.assert_array_equal(convolve(view, kernel), expected, err_msg=f"{w} {c} {padding} {name}")
        one = np.broadcast_to(planes[:, :1], planes.shape)
        np.testing.assert_array_equal(convolve(one, kernel), convolve(one.copy(), kernel), err_msg=f"{w} {c} {padding} broadcast")
        planes[:, 0] = np.nan
        result = convolve(planes, kernel)
        np.testing.assert_array_equal(result[:, 1:], expected[:, 1:], err_msg=f"{w} {c} {padding} NaN in the first plane")
        assert np.isnan(result[:, 0]).all()


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("k", [2, 3, 4, 5, 7])
def test_sign_of_zero_over_padding(kernels, k, strides):
    """Padding adds nothing, not even a zero with a sign: -0 of bias and of every product stays -0."""
    for w, c, gap, dtype in itertools.product((4, 7, 20, 30, 40, 66), (1, 3, 17), (0, 5), DTYPES):
        x, kernel, bias = np.zeros((1, 9, w + gap, c), dtype), np.full((k, k, c, 1), -1, dtype), np.full(c, -0.0, dtype)
        for data_format in LAYOUTS:
            wide = layout(x, data_format)
            narrow = wide[:, :, :w] if data_format == "channels_last" else wide[..., :w]
            y = dwconv.depthwise_conv2d(narrow, kernel, bias, strides=strides, padding="same", data_format=data_format)
            assert np.signbit(y).all(), f"{w} {c} {gap} {data_format} {dtype.__name__}"


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (7, 7), (1, 6), (6, 1), (2, 2), (4, 5)], ids=str)
def test_long_rows(kernels, size):
    """Planes run along their rows, in strips of four rows: with all lengths of the last strip and of the last vectors."""
    for h, w, c in ((9, 192, 17), (10, 230, 1), (11, 201, 3), (5, 333, 2), (6, 195, 1)):
        check((1, h, w, c), (*size, 1), padding="same", strides=1 + h % 2)
        check((1, h, w, c), (*size, 1), padding=((3, 12), (size[1], 1)), dilation_rate=(1 + h % 2, 1 + w % 3))


AFAR = [(420, 18, 3, 1), (520, 18, 3, 2), (149, 72, 3, 1), (190, 72, 3, 2), (57, 512, 3, 1), (600, 3, 5, 1), (56, 512, 3, 2)]


@pytest.mark.parametrize(("size", "channels", "taps", "strides"), AFAR)
def test_larger_than_caches(kernels, size, channels, taps, strides):
    """More than STREAM_BYTES, where tiles go along the rows in both layouts, or one or two FAR_BYTES."""
    check((1, size, size, channels), (taps, taps, 1), padding="same", strides=strides)


@pytest.mark.parametrize(("h", "w", "padding", "dilation_rate", "strides"), [
    (1, 1, 1, 1, 1), (6, 3, 0, 1, 1), (3, 4, ((2, 0), (0, 3)), 1, 1), (5, 5, 2, (1, 2), 1), (4, 9, 0, 1, 1),
    (2, 2, 1, 1, 2), (7, 6, "same", 1, 2)])
def test_small_images_larger_than_caches(kernels, h, w, padding, dilation_rate, strides):
    """More than STREAM_BYTES: narrow rows, strips of one to four of them, phases; the images are one and the same."""
    options = {"padding": padding, "dilation_rate": dilation_rate, "strides": strides}
    c, (x, kernel, bias, results) = 131, problem((1, h, w, 131), (3, 3, 1), tuple(options.items()))
    for dtype in DTYPES:
        touched = (h * w * c + results[1].size) * np.dtype(dtype).itemsize
        many = np.broadcast_to(x.astype(dtype), (18_000_000 // touched + 1, h, w, c))
        y = dwconv.depthwise_conv2d(many, kernel.astype(dtype), bias.astype(dtype), **options)
        assert_equal(y, np.broadcast_to(results[1].astype(dtype), y.shape), f"{h} x {w} {options} {dtype.__name__}")


@geometries
def test_heights(kernels, size, options):
    """Rows are cut into strips of up to four."""
    for h, c in itertools.product(range(5, 18), (2, 16)):
        check((1, h, 10, c), (*size, 1), **options)


@geometries
def test_multipliers(kernels, size, options):
    for c, m in [*itertools.product((*range(1, 12), 16, 33), range(1, 6)), (1, 32), (1, 64), (2, 17), (150, 3)]:
        check((1, 5, 9, c), (*size, m), **options)


@pytest.mark.parametrize("strides", [1, 2, 3])
def test_multipliers_of_wide_rows(kernels, strides):
    """Rows that do not fit the scratch as vectors of outputs, of one channel and more; read forwards and back."""
    for (c, m), taps in itertools.product(((1, 9), (1, 16), (2, 17), (3, 6), (5, 2)), (3, 4)):
        check((1, 6, 700, c), (taps, taps, m), padding="same", strides=strides)
    x = np.arange(6 * 700, dtype=np.float32).reshape(6, 700, 1) % 7
    kernel = np.arange(9 * 9, dtype=np.float32).reshape(3, 3, 1, 9) % 5
    for view in (x[::-1], x[:, ::-1], np.broadcast_to(x[:1, :1], x.shape)):
        assert_equal(dwconv.depthwise_conv2d(view, kernel, strides=strides),
                     dwconv.depthwise_conv2d(view.copy(), kernel, strides=strides), "another layout")


@pytest.mark.parametrize("shape", [(65, 64, 33, 4), (129, 66, 35, 3), (70, 130, 17, 2)], ids=str)
def test_multipliers_in_bands(kernels, shape):
    """More than 1 MB of input and output: each block of channels goes over bands of rows."""
    h, w, c, m = shape
    check((1, h, w, c), (3, 3, m), padding="same")
    check((1, h, w, c), (3, 3, m), padding="same", strides=2)
    check((1, h, w, c), (3, 3, m), padding="same", dilation_rate=(3, 2))


@pytest.mark.parametrize("strides", [1, 2, 3, (1, 2), (2, 1), (4, 3), (9, 40)], ids=str)
@pytest.mark.parametrize("dilation_rate", [1, 2, 3, (1, 4), (4, 2), (3, 6)], ids=str)
def test_strides_with_dilation(kernels, strides, dilation_rate):
    for (c, m), padding in itertools.product([(1, 1), (3, 2), (17, 1)], ["same", "valid", ((0, 7), (2, 1))]):
        check((1, 11, 33, c), (3, 2, m), strides=strides, dilation_rate=dilation_rate, padding=padding)


PADDINGS = [0, 1, 5, (0, 2), (3, 0), ((0, 1), (0, 0)), ((1, 0), (0, 3)), ((0, 0), (70, 0)), ((9, 4), (6, 40))]


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("strides", [1, 2, (3, 5)], ids=str)
def test_explicit_padding(kernels, padding, strides):
    """Asymmetric too, and so wide that whole outputs see nothing: those are the bias."""
    for (c, m), size in itertools.product([(1, 1), (3, 1), (2, 3), (18, 1), (9, 2)], [(3, 3), (1, 1), (2, 4)]):
        check((1, 4, 20, c), (*size, m), padding=padding, strides=strides)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_batches(kernels, n):
    for c, m in ((3, 1), (16, 1), (5, 2)):
        check((n, 6, 7, c), (3, 3, m), padding="same")


@paths
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
def test_bias_and_activation(kernels, path, activation):
    """All four combinations of dtype and bias, small numbers so that the clamps have something to keep."""
    c, (kh, kw, m), options = path
    x, kernel, bias, results = problem((1, 6, 35, c), (kh, kw, m), (*options.items(), ("activation", activation)), 1)
    for data_format, dtype, with_bias in itertools.product(LAYOUTS, DTYPES, (False, True)):
        arrays = layout(x, data_format).astype(dtype), kernel.astype(dtype), bias.astype(dtype) if with_bias else None
        y = dwconv.depthwise_conv2d(*arrays, data_format=data_format, activation=activation, **options)
        np.testing.assert_array_equal(to_last(y, data_format), results[with_bias])


# ---- real numbers: the error bound ----

@functools.lru_cache(maxsize=128)
def real_problem(name, dtype, offset):
    """A path's arrays with the exact result and the bound; `offset` makes large numbers cancel."""
    x, kernel, bias, options = reals(PATHS[name], (1, 9, 40))
    if offset:
        x += offset
        kernel -= kernel.mean(axis=(0, 1))
    arrays = x.astype(dtype), kernel.astype(dtype), bias.astype(dtype)
    reference = np.finfo(np.longdouble).eps  # which is float64's own on some platforms
    eps = np.finfo(dtype).eps + (reference if reference == np.finfo(float).eps else 0)
    return arrays, options, oracle.conv(*arrays, dtype=np.longdouble, **options), oracle.bound(*arrays, eps=eps, **options)


@pytest.mark.parametrize("offset", [0, 1e8], ids=["normal", "cancelling"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PATHS)
def test_error_bound(kernels, name, dtype, offset):
    (x, kernel, bias), options, exact, bound = real_problem(name, dtype, offset)
    for data_format in LAYOUTS:
        y = dwconv.depthwise_conv2d(layout(x, data_format), kernel, bias, data_format=data_format, **options)
        error = abs(to_last(y, data_format) - exact)
        assert (error <= bound).all(), f"{float((error / bound).max())} of the bound, {data_format}"
        assert error.any(), "exact, so nothing was tested"


# ---- the same bits ----

@paths
@pytest.mark.parametrize("size", [(2, 21, 75), (1, 7, 40), (2, 5, 7)], ids=str)
def test_bits_workers_batches_layouts(kernels, threaded, path, size):
    """Each output is one chain of multiply-adds, so no cut of the work shows in the bits: workers, batches, layouts."""
    for dtype in DTYPES:
        x, kernel, bias, options = reals(path, size, dtype)
        expected = dwconv.depthwise_conv2d(x, kernel, bias, workers=1, **options)
        for data_format in LAYOUTS:
            arranged = layout(x, data_format)
            for workers in (1, 2, 3, 7):
                y = dwconv.depthwise_conv2d(arranged, kernel, bias, data_format=data_format, workers=workers, **options)
                assert same_bits(to_last(y, data_format), expected), f"{data_format}, {workers=}, {dtype.__name__}"
            for k in range(size[0]):
                y = dwconv.depthwise_conv2d(arranged[k], kernel, bias, data_format=data_format, **options)
                assert same_bits(to_last(y, data_format), expected[k]), f"{data_format}, image {k} alone, {dtype.__name__}"


def views(a, fill=np.nan):
    """Name and view: `a` in every layout of memory, with `fill` in the gaps."""
    yield "Fortran order", np.asfortranarray(a)
    yield "reversed", a[(slice(None, None, -1),) * a.ndim].copy()[(slice(None, None, -1),) * a.ndim]
    framed = np.full([n + 5 for n in a.shape], fill, a.dtype)
    framed[(slice(2, -3),) * a.ndim] = a
    yield "framed", framed[(slice(2, -3),) * a.ndim]
    for axis in range(a.ndim):
        step, back = [slice(None)] * a.ndim, [slice(None)] * a.ndim
        step[axis], back[axis] = slice(1, None, 3), slice(None, None, -1)
        gaps = np.full([n * 3 if k == axis else n for k, n in enumerate(a.shape)], fill, a.dtype)
        gaps[tuple(step)] = a
        yield f"gaps along axis {axis}", gaps[tuple(step)]
        yield f"axis {axis} reversed", a[tuple(back)].copy()[tuple(back)]
        yield f"axis {axis} first", np.moveaxis(np.moveaxis(a, axis, 0).copy(), 0, axis)


@paths
def test_bits_memory_layout(kernels, path):
    x, kernel, bias, options = reals(path, (2, 7, 20), np.float32)
    for data_format in LAYOUTS:
        arranged = layout(x, data_format)
        convolve = functools.partial(dwconv.depthwise_conv2d, data_format=data_format, **options)
        expected = convolve(arranged, kernel, bias)
        for name, view in views(arranged):
            assert same_bits(convolve(view, kernel, bias), expected), f"x {name}, {data_format}"
        for name, view in views(kernel):
            assert same_bits(convolve(arranged, view, bias), expected), f"kernel {name}, {data_format}"
        for name, view in views(bias):
            assert same_bits(convolve(arranged, kernel, view), expected), f"bias {name}, {data_format}"
        for axis in range(4):
            view = np.broadcast_to(arranged.take([0], axis), arranged.shape)
            assert same_bits(convolve(view, kernel, bias), convolve(view.copy(), kernel, bias)), f"x broadcast along axis {axis}"


SHIFTED = [(144, (3, 3, 1), {"padding": "same"}), (32, (3, 3, 1), {"strides": 2}), (64, (3, 3, 1), {"dilation_rate": 2}),
           (160, (4, 2, 1), {"strides": 2}), (70, (3, 3, 2), {}), (512, (3, 3, 1), {}), (512, (9, 3, 1), {"strides": 2})]


@pytest.mark.parametrize("path", SHIFTED)
def test_bits_alignment(kernels, threaded, path):
    """Wherever x and out start: of many channels the vectors begin at the first aligned one, and one may hold a pixel's ends.

    Of pixels of 2 KB the first chunk is cut then, and its weights are fewer than there is room for."""
    for dtype, data_format in itertools.product(DTYPES, LAYOUTS):
        x, kernel, bias, options = reals(path, (1, 9, 8), dtype)
        x = layout(x, data_format)
        expected = dwconv.depthwise_conv2d(x, kernel, bias, data_format=data_format, **options)
        buffer, target = np.full(x.size + 16, np.nan, dtype), np.empty(expected.size + 16, dtype)
        for offset, workers in itertools.product(range(16), (1, 3)):
            shifted = buffer[offset : offset + x.size].reshape(x.shape)
            shifted[...] = x
            y = target[offset : offset + expected.size].reshape(expected.shape)
            y[...] = np.nan
            dwconv.depthwise_conv2d(shifted, kernel, bias, data_format=data_format, workers=workers, out=y, **options)
            assert same_bits(y, expected), f"{offset=} {workers=} {data_format} {dtype.__name__}"


# ---- memory around the arrays ----

@paths
@pytest.mark.parametrize("margins", [(0, 0, 19, 0), (0, 3, 0, 0), (0, 0, 0, 19), (1, 2, 3, 5)], ids=str)
def test_margins_of_out(kernels, path, margins):
    """out is a view into a larger array, here between rows only, so that flat rows stay flat, there in every direction."""
    c, (kh, kw, m), options = path
    x, kernel, bias, results = problem((2, 7, 35, c), (kh, kw, m), tuple(options.items()))
    inside = tuple(slice(n, -n or None) for n in margins)
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        expected = layout(results[1], data_format)
        whole = np.full([n + 2 * k for n, k in zip(expected.shape, margins, strict=True)], SENTINEL, dtype)
        out = whole[inside]
        dwconv.depthwise_conv2d(layout(x, data_format).astype(dtype), kernel.astype(dtype), bias.astype(dtype),
                                data_format=data_format, out=out, **options)
        np.testing.assert_array_equal(out, expected)
        assert untouched(out, whole), f"wrote outside out: {data_format}, {dtype.__name__}"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a sparse file of 13 GB")
@pytest.mark.parametrize("data_format", LAYOUTS)
def test_elements_beyond_32_bits(kernels, data_format, tmp_path):
    """Offsets above 2**31 elements: rows 0 to 2 of a sparse file, of which only a few pages ever exist."""
    width = 2**30
    shape = (1, 3, width, 1) if data_format == "channels_last" else (1, 1, 3, width)
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(3 * width * 4)
    x = np.memmap(path, np.float32, "r+", shape=shape)
    plane = x.reshape(3, width)
    plane[:, width - 2] = [1, 2, 3]
    plane[:, 0] = [4, 5, 6]
    kernel = np.array([[1, 0], [10, 0], [100, 0]], np.float32)
    y = dwconv.depthwise_conv2d(x, kernel, strides=(1, width - 2), data_format=data_format)
    assert y.ravel().tolist() == [654, 321]
    assert path.stat().st_blocks * 512 < 2**24


# ---- NaN and infinities ----

@paths
def test_nan_reaches_what_covers_it(kernels, path):
    """Just the outputs that cover it, in its channel and image, through zero weights too; relu does not hide it."""
    c, (kh, kw, m), options = path
    x, kernel, _, _ = problem((2, 9, 40, c), (kh, kw, m), tuple(options.items()))
    kernel = kernel * (np.arange(kernel.size) % 3 > 0).reshape(kernel.shape)
    nan = np.zeros(x.shape, bool)
    nan[[0, 0, 1, 1], [0, 8, 4, 5], [0, 39, 17, 33], [0, c - 1, c // 2, c - 1]] = True
    covered = oracle.conv(nan, np.ones(kernel.shape), **options) > 0
    assert covered.any()
    for activation in (None, "relu", "relu6"):
        expected = np.where(covered, np.nan, oracle.conv(x, kernel, activation=activation, **options))
        for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
            arrays = layout(np.where(nan, np.nan, x), data_format).astype(dtype), kernel.astype(dtype)
            y = dwconv.depthwise_conv2d(*arrays, data_format=data_format, activation=activation, **options)
            message = f"{data_format} {dtype.__name__} {activation}"
            np.testing.assert_array_equal(to_last(y, data_format), expected, err_msg=message)


@paths
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_weights_not_finite(kernels, path, value):
    """At the corners, where they often lie over padding: there they add nothing.  Inside, 0 * inf is NaN."""
    c, (kh, kw, m), options = path
    x, kernel, bias, _ = problem((1, 9, 40, c), (kh, kw, m), tuple(options.items()))
    x, kernel, bias = np.where(x == 3, 0, x), kernel.copy(), bias.copy()
    kernel[0, 0, ::2], kernel[-1, -1, -1], bias[-1] = value, value, value
    expected = oracle.conv(x, kernel, bias, **options)
    assert np.isnan(expected).any()
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        y = dwconv.depthwise_conv2d(layout(x, data_format).astype(dtype), kernel.astype(dtype), bias.astype(dtype),
                                    data_format=data_format, **options)
        np.testing.assert_array_equal(to_last(y, data_format), expected, err_msg=f"{data_format} {dtype.__name__}")


@paths
def test_subnormals(kernels, path):
    """Not flushed to zero: sums of multiples of the smallest number are exact."""
    c, (kh, kw, m), options = path
    x, kernel, _, results = problem((1, 6, 35, c), (kh, kw, m), tuple(options.items()))
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        tiny = np.finfo(dtype).smallest_subnormal
        arrays = layout(x, data_format).astype(dtype) * tiny, kernel.astype(dtype)
        y = dwconv.depthwise_conv2d(*arrays, data_format=data_format, **options)
        np.testing.assert_array_equal(to_last(y, data_format), results[0].astype(dtype) * tiny)


# ---- anything ----

@st.composite
def calls(draw):
    """x (NHWC), kernel, bias or None, options: any geometry with an output."""
    few, pairs = st.integers(1, 4), lambda s: st.tuples(s, s)
    n, h, w, c = draw(st.tuples(st.integers(0, 2), st.integers(1, 24), st.integers(1, 70), st.integers(1, 40)))
    kh, kw = draw(pairs(st.integers(1, 9)))
    m = draw(st.integers(1, 5 if c < 12 else 2))
    strides, dilation = draw(few | pairs(few)), draw(few | pairs(few))
    some = st.integers(0, 11)
    padding = draw(st.sampled_from(["same", "valid"]) | some | pairs(some) | pairs(pairs(some)))
    for axis, (size, taps) in enumerate([(h, kh), (w, kw)]):
        if size + sum(oracle.pads(size, taps, 1, 1, padding, axis)) <= (taps - 1) * oracle.both(dilation)[axis]:
            padding = "same"
    seed = draw(st.integers(0, 2**16))
    x, kernel = oracle.integers((n, h, w, c), seed), oracle.integers((kh, kw, c, m), seed + 1)
    bias = oracle.integers((c * m,), seed + 2) if draw(st.booleans()) else None
    activation = draw(st.sampled_from([None, "relu", "relu6"]))
    return x, kernel, bias, {"strides": strides, "padding": padding, "dilation_rate": dilation, "activation": activation}


@hypothesis.given(call=calls(), data_format=st.sampled_from(LAYOUTS), dtype=st.sampled_from(DTYPES), workers=st.integers(1, 4),
                  view=st.integers(-1, 14), out_view=st.integers(-1, 14))
def test_any_call(kernels, threaded, call, data_format, dtype, workers, view, out_view):
    """Every option at once, x and out in any layout of memory."""
    x, kernel, bias, options = call
    expected = layout(oracle.conv(x, kernel, bias, **options), data_format)
    x = layout(x, data_format).astype(dtype)
    x = x if view < 0 else list(views(x))[view][1]
    out = np.full(expected.shape, SENTINEL, dtype)
    out = out if out_view < 0 else list(views(out, SENTINEL))[out_view][1]
    whole = out if out.base is None else out.base
    before = x.tobytes()
    y = dwconv.depthwise_conv2d(x, kernel.astype(dtype), None if bias is None else bias.astype(dtype), data_format=data_format,
                                out=out, workers=workers, **options)
    assert y is out
    np.testing.assert_array_equal(y, expected)
    assert untouched(out, whole)
    assert x.tobytes() == before
