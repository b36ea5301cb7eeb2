"""The two gradients of depthwise_conv2d: values over all geometries, bits, memory, NaN, arguments, out=.

The reference is the transpose of the operation as dense matrices (oracle.input_grad, oracle.kernel_grad), exact on small
integers; so is the adjoint identity <conv(x), g> = <x, input_grad(g)> = <k, kernel_grad(x, g)>, which ties both gradients to
the convolution itself.  Geometries, layouts and guards are those of the forward's tests.  Options that the functions share with
depthwise_conv2d go through the same code; of those tables a selection is here, of what only the gradients check everything.
"""

import functools
import itertools
import warnings

import hypothesis
import ml_dtypes
import numpy as np
import oracle
import pytest
from hypothesis import strategies as st
from test_kernels import (
    DTYPES,
    GEOMETRIES,
    KERNEL_SIZES,
    LAYOUTS,
    PADDINGS,
    PATHS,
    SENTINEL,
    assert_equal,
    calls,
    guarded,
    layout,
    paths,
    reals,
    same_bits,
    to_last,
    untouched,
    views,
)

import dwconv
from dwconv import _runtime
from dwconv import depthwise_conv2d_input_grad as input_grad
from dwconv import depthwise_conv2d_kernel_grad as kernel_grad

FLOATS = [np.dtype(t) for t in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)]
geometries = pytest.mark.parametrize(("size", "options"), GEOMETRIES, ids=str)


@functools.lru_cache(maxsize=512)
def problem(shape, kernel_shape, options, most=9):
    """x, kernel, grad and the gradients for x and the kernel: NHWC, exact integers; kept for the next kernels module."""
    kh, kw, m = kernel_shape
    x, kernel = oracle.integers(shape, 1, most), oracle.integers((kh, kw, shape[3], m), 2, most)
    options = dict(options)
    rows, cols = oracle._matrices(shape, (kh, kw), *[options.get(name, default) for name, default in (
        ("strides", 1), ("padding", "valid"), ("dilation_rate", 1))])
    grad = oracle.integers((shape[0], rows.shape[1], cols.shape[1], shape[3] * m), 3, most)
    return x, kernel, grad, oracle.input_grad(grad, kernel, shape, **options), oracle.kernel_grad(x, grad, (kh, kw), **options)


def check(shape, kernel_shape, most=9, **options):
    """Exact equality of both gradients in both layouts and dtypes, nothing read or written outside the arrays."""
    x, kernel, grad, for_x, for_kernel = problem(shape, kernel_shape, tuple(options.items()), most)
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        message = f"x {shape} kernel {kernel_shape} {options} {data_format} {dtype.__name__}"
        (x_, _), (grad_, _) = (guarded(a.shape, dtype, np.nan, a) for a in (layout(x, data_format), layout(grad, data_format)))
        kernel_, _ = guarded(kernel.shape, dtype, np.nan, kernel)
        out, whole = guarded(x_.shape, dtype, SENTINEL)
        result = input_grad(grad_, kernel_, x_.shape, data_format=data_format, out=out, **options)
        assert_equal(to_last(result, data_format), for_x, f"input gradient, {message}")
        assert untouched(out, whole), f"wrote outside out: {message}"
        out, whole = guarded(kernel.shape, dtype, SENTINEL)
        result = kernel_grad(x_, grad_, kernel_shape[:2], data_format=data_format, out=out, **options)
        assert_equal(result, for_kernel, f"kernel gradient, {message}")
        assert untouched(out, whole), f"wrote outside out: {message}"


# ---- exact values ----

@paths
def test_paths(kernels, path):
    c, kernel_shape, options = path
    check((2, 13, 75, c), kernel_shape, **options)


@pytest.mark.parametrize("size", KERNEL_SIZES, ids=str)
def test_kernel_sizes(kernels, size):
    """Also far larger than the image, where most taps lie in the padding and their gradient is 0."""
    for strides, (c, m) in itertools.product([1, 2, (3, 1)], [(3, 1), (17, 1), (5, 2)]):
        check((1, 12, 19, c), (*size, m), padding="same", strides=strides)
    for shape in ((1, 1, 1, 3), (1, 2, 5, 18)):
        check(shape, (*size, 1), padding="same", strides=2)
    if size[0] <= 12 and size[1] <= 19:
        check((1, 12, 19, 17), (*size, 1))


@geometries
def test_channels(kernels, size, options):
    for c in range(1, 41):
        check((1, 5, 9, c), (*size, 1), **options)


@geometries
def test_widths(kernels, size, options):
    for w, c in itertools.product(range(1 if options.get("padding") == "same" else size[1], 41), (1, 18)):
        check((1, 5, w, c), (*size, 1), **options)


@pytest.mark.parametrize("size", [(3, 3), (5, 2), (1, 1)], ids=str)
def test_planes(kernels, size):
    """channels_first with planes that fit a scratch and planes that do not."""
    for (h, w), strides in itertools.product([(14, 14), (31, 31), (40, 130)], [1, 2]):
        check((1, h, w, 17), (*size, 1), padding="same", strides=strides)


@geometries
def test_heights(kernels, size, options):
    for h, c in itertools.product(range(5, 18), (2, 16)):
        check((1, h, 10, c), (*size, 1), **options)


@geometries
def test_multipliers(kernels, size, options):
    for c, m in [*itertools.product((1, 2, 3, 5, 8, 11, 16, 33), range(2, 6)), (1, 32), (1, 64), (2, 17), (150, 3)]:
        check((1, 5, 9, c), (*size, m), **options)


@pytest.mark.parametrize("strides", [1, 2, 3, (1, 2), (2, 1), (4, 3), (9, 40)], ids=str)
@pytest.mark.parametrize("dilation_rate", [1, 2, 3, (1, 4), (4, 2), (3, 6)], ids=str)
def test_strides_with_dilation(kernels, strides, dilation_rate):
    for (c, m), padding in itertools.product([(1, 1), (3, 2), (17, 1)], ["same", "valid", ((0, 7), (2, 1))]):
        check((1, 11, 33, c), (3, 2, m), strides=strides, dilation_rate=dilation_rate, padding=padding)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("strides", [1, 2, (3, 5)], ids=str)
def test_explicit_padding(kernels, padding, strides):
    """Asymmetric too, and so wide that whole outputs see nothing: their gradients reach nothing."""
    for (c, m), size in itertools.product([(1, 1), (3, 1), (2, 3), (18, 1), (9, 2)], [(3, 3), (1, 1), (2, 4)]):
        check((1, 4, 20, c), (*size, m), padding=padding, strides=strides)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (2, 2), (20, 1), (1, 20)], ids=str)
def test_small_images(kernels, shape):
    """Of one row, one column or one pixel, whose strides mean nothing."""
    for (c, m), size, padding in itertools.product([(1, 1), (3, 1), (2, 2), (17, 1)], [(1, 1), (2, 3)], [1, 2, (3, 2)]):
        check((2, *shape, c), (*size, m), padding=padding)


@pytest.mark.parametrize("n", [0, 1, 5, 40])
def test_batches(kernels, n):
    for c, m in ((3, 1), (16, 1), (5, 2)):
        check((n, 6, 7, c), (3, 3, m), padding="same")


@hypothesis.settings(max_examples=hypothesis.settings().max_examples // 3)  # two functions and two transposes each
@hypothesis.given(call=calls(), data_format=st.sampled_from(LAYOUTS), dtype=st.sampled_from(DTYPES), workers=st.integers(1, 4),
                  places=st.tuples(*[st.integers(-1, 14)] * 3))
def test_any_call_and_the_adjoint_identity(kernels, threaded, call, data_format, dtype, workers, places):
    """<conv(x), g> = <x, input_grad(g)> = <k, kernel_grad(x, g)>, and both are the transposes; any option, any memory."""
    x, kernel, _, options = call
    del options["activation"]
    y = dwconv.depthwise_conv2d(x, kernel, **options)
    grad = oracle.integers(y.shape, 5)
    expected = oracle.input_grad(grad, kernel, x.shape, **options), oracle.kernel_grad(x, grad, kernel.shape[:2], **options)
    outs = np.full(layout(x, data_format).shape, SENTINEL, dtype), np.full(kernel.shape, SENTINEL, dtype)
    x_, grad_, *outs = (
        a if place < 0 else list(views(a, SENTINEL))[place % (2 + 3 * a.ndim)][1]
        for a, place in zip((layout(x, data_format).astype(dtype), layout(grad, data_format).astype(dtype), *outs),
                            (places[0], places[1], places[2], places[2]), strict=True))
    wholes, before = [out if out.base is None else out.base for out in outs], (x_.tobytes(), grad_.tobytes())
    options |= {"data_format": data_format, "workers": workers}
    for_x = input_grad(grad_, kernel.astype(dtype), x_.shape, out=outs[0], **options)
    for_kernel = kernel_grad(x_, grad_, kernel.shape[:2], out=outs[1], **options)
    assert for_x is outs[0]
    assert for_kernel is outs[1]
    np.testing.assert_array_equal(to_last(for_x, data_format), expected[0])
    np.testing.assert_array_equal(for_kernel, expected[1])
    inner = (y * grad).sum()
    assert (x * to_last(for_x, data_format)).sum() == inner
    assert (kernel * for_kernel).sum() == inner
    assert all(map(untouched, outs, wholes))
    assert (x_.tobytes(), grad_.tobytes()) == before


def test_long_sums(kernels):
    """10**6 terms in float32: within a few hundred eps of the exact sum, where one running sum may be off by thousands."""
    rng = np.random.default_rng(0)
    x = (rng.random((1, 1000, 1002, 2)) + 0.5).astype(np.float32)
    grad = (rng.random((1, 1000, 1000, 2)) + 0.5).astype(np.float32)
    exact = np.stack([np.einsum("nhwc,nhwc->c", x[:, :, k : k + 1000], grad, dtype=np.float64) for k in range(3)])
    for data_format in LAYOUTS:
        result = kernel_grad(layout(x, data_format), layout(grad, data_format), (1, 3), data_format=data_format)
        # 512 terms a running sum, then pairs: (512 + 16 + 11) eps, see _kernel_grad.pxi
        assert np.all(abs(result[0, :, :, 0] - exact) <= 539 * np.finfo(np.float32).eps * exact)


@functools.lru_cache(maxsize=128)
def real_problem(name, dtype):
    """A path's kernel and gradient, the exact input gradient and the bound (kh*kw*M + M) * eps * sum|kernel||grad|."""
    x, kernel, _, options = reals(PATHS[name], (1, 9, 40))
    y = oracle.conv(x, kernel, **options)
    grad = np.random.default_rng(6).standard_normal(y.shape).astype(dtype)
    kernel, wide, shape = kernel.astype(dtype), np.longdouble, x.shape
    eps = np.finfo(dtype).eps + (np.finfo(wide).eps if np.finfo(wide).eps == np.finfo(float).eps else 0)
    terms = kernel.shape[0] * kernel.shape[1] * kernel.shape[3] + kernel.shape[3] + 2
    exact = oracle.input_grad(grad.astype(wide), kernel.astype(wide), shape, **options)
    return grad, kernel, shape, options, exact, terms * eps * oracle.input_grad(abs(grad), abs(kernel), shape, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PATHS)
def test_error_bound_of_the_input_gradient(kernels, name, dtype):
    grad, kernel, shape, options, exact, bound = real_problem(name, dtype)
    for data_format in LAYOUTS:
        result = input_grad(layout(grad, data_format), kernel, layout(np.empty(shape), data_format).shape,
                            data_format=data_format, **options)
        error = abs(to_last(result, data_format) - exact)
        assert (error <= bound).all()
        assert error.any(), "exact, so nothing was tested"


# ---- the same bits ----

@paths
def test_bits_of_workers_and_memory(kernels, threaded, path):
    x, kernel, _, given = reals(path, (2, 15, 20), np.float32)
    grad = reals((path[0] * path[1][2], (1, 1, 1), {}), dwconv.depthwise_conv2d(x, kernel, **given).shape[:3], np.float32)[0]
    for data_format in LAYOUTS:
        x_, grad_, options = layout(x, data_format), layout(grad, data_format), {**given, "data_format": data_format}
        first = (input_grad(grad_, kernel, x_.shape, workers=1, **options),
                 kernel_grad(x_, grad_, kernel.shape[:2], workers=1, **options))
        for workers in (2, 3, 7):
            assert same_bits(input_grad(grad_, kernel, x_.shape, workers=workers, **options), first[0]), f"{workers=}"
            assert same_bits(kernel_grad(x_, grad_, kernel.shape[:2], workers=workers, **options), first[1]), f"{workers=}"
        for name, view in views(grad_):
            assert same_bits(input_grad(view, kernel, x_.shape, **options), first[0]), f"grad {name}, {data_format}"
            assert same_bits(kernel_grad(x_, view, kernel.shape[:2], **options), first[1]), f"grad {name}, {data_format}"
        for name, view in views(x_):
            assert same_bits(kernel_grad(view, grad_, kernel.shape[:2], **options), first[1]), f"x {name}, {data_format}"
        for name, view in views(kernel):
            assert same_bits(input_grad(grad_, view, x_.shape, **options), first[0]), f"kernel {name}, {data_format}"
        for axis in (0, 3):
            view = np.broadcast_to(grad_.take([0], axis), grad_.shape)
            results = [[input_grad(a, kernel, x_.shape, **options), kernel_grad(x_, a, kernel.shape[:2], **options)]
                       for a in (view, view.copy())]
            assert all(map(same_bits, *results)), f"grad broadcast along axis {axis}, {data_format}"


# ---- NaN ----

@paths
def test_nan_reaches_what_it_belongs_to(kernels, path):
    """A NaN in the gradient: the inputs and taps of that output; in x: the taps that meet it; zeros hide nothing."""
    c, (kh, kw, m), options = path
    x, kernel, grad, for_x, for_kernel = problem((2, 9, 40, c), (kh, kw, m), tuple(options.items()))
    in_grad, in_x = np.zeros(grad.shape, bool), np.zeros(x.shape, bool)
    in_grad[[0, 0, 1], [0, -1, grad.shape[1] // 2], [0, -1, grad.shape[2] // 2], [0, -1, c * m // 2]] = True
    in_x[[0, 0, 1], [0, 8, 4], [0, 39, 17], [0, c - 1, c // 2]] = True
    ones = np.ones(kernel.shape)
    nan_x = oracle.input_grad(in_grad.astype(float), ones, x.shape, **options) > 0
    nan_kernels = [oracle.kernel_grad(a.astype(float), b.astype(float), (kh, kw), **options) > 0
                   for a, b in ((np.ones(x.shape), in_grad), (in_x, np.ones(grad.shape)))]
    assert nan_x.any()
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        place = functools.partial(layout, data_format=data_format)
        x_, bad_x, grad_, bad_grad = (place(a).astype(dtype) for a in (
            x, np.where(in_x, np.nan, x), grad, np.where(in_grad, np.nan, grad)))
        message, options_ = f"{data_format} {dtype.__name__}", {**options, "data_format": data_format}
        result = input_grad(bad_grad, kernel.astype(dtype), x_.shape, **options_)
        np.testing.assert_array_equal(to_last(result, data_format), np.where(nan_x, np.nan, for_x), err_msg=message)
        for nan, *arrays in ((nan_kernels[0], x_, bad_grad), (nan_kernels[1], bad_x, grad_)):
            result = kernel_grad(*arrays, (kh, kw), **options_)
            np.testing.assert_array_equal(result, np.where(nan, np.nan, for_kernel), err_msg=message)


@paths
def test_weights_not_finite(kernels, path):
    """A weight at a corner reaches the inputs it is applied to, and none through the padding."""
    c, (kh, kw, m), options = path
    x, kernel, grad, for_x, _ = problem((1, 9, 40, c), (kh, kw, m), tuple(options.items()))
    bad = np.zeros(kernel.shape, bool)
    bad[0, 0, ::2], bad[-1, -1, -1] = True, True
    reached = oracle.input_grad(np.ones(grad.shape), bad.astype(float), x.shape, **options) > 0
    for data_format, dtype in itertools.product(LAYOUTS, DTYPES):
        result = input_grad(layout(grad, data_format).astype(dtype), np.where(bad, np.nan, kernel).astype(dtype),
                            layout(x, data_format).shape, data_format=data_format, **options)
        np.testing.assert_array_equal(to_last(result, data_format), np.where(reached, np.nan, for_x))


# ---- arguments ----

X, KERNEL, GRAD = oracle.integers((2, 5, 6, 3), 1, 3), oracle.integers((3, 3, 3, 2), 2, 3), oracle.integers((2, 3, 4, 6), 3, 3)
NHWC, NCHW = (2, 5, 6, 3), (2, 3, 5, 6)


class Index:
    def __index__(self):
        return 3


def ones(*shape):
    return np.ones(shape)


def huge(*shape):
    """Ones, of which one is in memory."""
    return np.broadcast_to(np.ones((), np.float32), shape)


SHARED = [  # changes to a good call of either function, exception, words
    ({"grad": ones(2, 3, 4, 5)}, ValueError, ["grad", "5"]),
    ({"grad": ones(2, 3, 5, 6)}, ValueError, ["grad has shape (2, 3, 5, 6)", "(2, 3, 4, 6)", "(2, 5, 6, 3)", "(3, 3, 3, 2)"]),
    ({"grad": ones(2, 4, 3, 6)}, ValueError, ["grad has shape (2, 4, 3, 6)", "(2, 3, 4, 6)"]),
    ({"grad": ones(1, 3, 4, 6)}, ValueError, ["grad has shape (1, 3, 4, 6)", "(2, 3, 4, 6)"]),
    ({"grad": ones(2, 1, 1, 6)}, ValueError, ["grad has shape (2, 1, 1, 6)", "(2, 3, 4, 6)"]),     # nothing is broadcast
    ({"grad": ones(2, 0, 4, 6)}, ValueError, ["grad has shape (2, 0, 4, 6)", "(2, 3, 4, 6)"]),
    ({"grad": ones(0, 3, 4, 6)}, ValueError, ["grad has shape (0, 3, 4, 6)", "(2, 3, 4, 6)"]),
    ({"grad": ones(3, 4, 6)}, ValueError, ["grad must have 4 dimensions", "(N, H, W, C)", "(3, 4, 6)"]),
    ({"grad": ones()}, ValueError, ["grad must have 4 dimensions", "()"]),
    ({"grad": ones(1, 2, 3, 4, 6)}, ValueError, ["grad must have 4 dimensions", "(1, 2, 3, 4, 6)"]),
    ({"padding": "same"}, ValueError, ["grad has shape (2, 3, 4, 6)", "(2, 5, 6, 6)"]),
    ({"strides": 2}, ValueError, ["grad has shape (2, 3, 4, 6)", "(2, 2, 2, 6)"]),
    ({"dilation_rate": (1, 2)}, ValueError, ["grad has shape (2, 3, 4, 6)", "(2, 3, 2, 6)"]),
    ({"dilation_rate": 3}, ValueError, ["output size would be zero or negative", "height 5", "7"]),
    ({"strides": 0}, ValueError, ["strides", "at least 1", "got 0"]),
    ({"strides": 1.0}, TypeError, ["strides", "1.0"]),
    ({"strides": True}, TypeError, ["strides", "True"]),
    ({"strides": (1, 1, 1)}, ValueError, ["strides", "3 of them"]),
    ({"dilation_rate": 2**31}, ValueError, ["limit"]),
    ({"padding": "causal"}, ValueError, ["padding", "causal"]),
    ({"padding": -1}, ValueError, ["at least 0", "-1"]),
    ({"padding": 2**31}, ValueError, ["limit"]),
    ({"data_format": "NHWC"}, ValueError, ["channels_last", "channels_first", "'NHWC'"]),
    ({"data_format": None}, TypeError, ["data_format", "None"]),
    ({"data_format": ["channels_last"]}, TypeError, ["data_format"]),
    ({"workers": 0}, ValueError, ["workers", "0"]),
    ({"workers": 1.5}, TypeError, ["workers", "1.5"]),
    ({"grad": np.ones((2, 3, 4, 6), complex)}, TypeError, ["complex"]),
    ({"grad": np.ones((2, 3, 4, 6), object)}, TypeError, ["object"]),
    ({"grad": np.ma.ones((2, 3, 4, 6))}, TypeError, ["grad", "MaskedArray"]),
    ({"grad": "text"}, (TypeError, ValueError), []),
    ({"grad": None}, (TypeError, ValueError), []),
    ({"grad": [[1.0], [2.0, 3.0]]}, ValueError, ["inhomogeneous"]),
    ({"stride": 2}, TypeError, ["unexpected keyword", "stride"]),
    ({"activation": "relu"}, TypeError, ["unexpected keyword", "activation"]),
]

INPUT_GRAD = [
    ({"kernel": ones(3, 3, 3)}, ValueError, ["kernel must have shape (kh, kw, C, M)", "(3, 3, 3)"]),
    ({"kernel": ones(3, 3)}, ValueError, ["kernel must have shape (kh, kw, C, M)", "(3, 3)"]),
    ({"kernel": ones()}, ValueError, ["kernel must have shape", "()"]),
    ({"kernel": ones(3, 3, 3, 2, 1)}, ValueError, ["kernel must have shape", "(3, 3, 3, 2, 1)"]),
    ({"kernel": ones(3, 3, 3, 1)}, ValueError, ["grad has shape (2, 3, 4, 6)", "(2, 3, 4, 3)"]),
    ({"kernel": ones(3, 3, 2, 3)}, ValueError, ["input_shape has 3 channels", "kernel has 2"]),
    ({"kernel": ones(2, 3, 3, 2)}, ValueError, ["grad has shape", "(2, 4, 4, 6)"]),
    ({"kernel": ones(3, 3, 3, 0)}, ValueError, ["at least 1", "(3, 3, 3, 0)"]),
    ({"kernel": ones(0, 3, 3, 2)}, ValueError, ["at least 1", "(0, 3, 3, 2)"]),
    ({"kernel": ones(6, 3, 3, 2)}, ValueError, ["output size", "height 5", "6"]),
    ({"kernel": KERNEL.astype(int), "grad": GRAD.astype(int)}, TypeError, ["common dtype", "int64"]),
    ({"input_shape": (5, 6, 3)}, ValueError, ["input_shape must have 4 dimensions", "(5, 6, 3)"]),
    ({"input_shape": ()}, ValueError, ["input_shape must have 4 dimensions"]),
    ({"input_shape": (1,) * 10**5}, ValueError, ["input_shape must have 4 dimensions", "100000"]),
    ({"input_shape": (2, 5, 6, 4)}, ValueError, ["input_shape has 4 channels", "kernel has 3"]),
    ({"input_shape": (2, 6, 6, 3)}, ValueError, ["grad has shape (2, 3, 4, 6)", "(2, 4, 4, 6)"]),
    ({"input_shape": (3, 5, 6, 3)}, ValueError, ["grad has shape (2, 3, 4, 6)", "(3, 3, 4, 6)"]),
    ({"input_shape": (2, 5, 6, 0)}, ValueError, ["input_shape has 0 channels"]),
    ({"input_shape": (2, 0, 6, 3)}, ValueError, ["output size", "height 0"]),
    ({"input_shape": (2, -5, 6, 3)}, ValueError, ["input_shape", "at least 0", "-5"]),
    ({"input_shape": (2, 5, 6, 2**63)}, ValueError, ["input_shape", "64 bits"]),
    ({"input_shape": (10**30, 5, 6, 3)}, ValueError, ["input_shape", "64 bits"]),
    ({"input_shape": (2**62, 2**62, 2**62, 3)}, ValueError, ["input_shape", "memory"]),
    ({"input_shape": (2, 5.0, 6, 3)}, TypeError, ["input_shape", "5.0"]),
    ({"input_shape": (2, True, 6, 3)}, TypeError, ["input_shape", "True"]),
    ({"input_shape": (2, None, 6, 3)}, TypeError, ["input_shape", "None"]),
    ({"input_shape": np.array([2.0, 5, 6, 3])}, TypeError, ["input_shape", "2.0"]),
    ({"input_shape": "2563"}, TypeError, ["input_shape", "'2563'"]),
    ({"input_shape": 5}, TypeError, ["input_shape", "5"]),
    ({"input_shape": None}, TypeError, ["input_shape", "None"]),
    ({"input_shape": {2, 5, 6, 3}}, TypeError, ["input_shape"]),
    ({"data_format": "channels_first"}, ValueError, ["input_shape has 5 channels", "kernel has 3", "channels_first"]),
]

KERNEL_GRAD = [
    ({"x": ones(5, 6, 3)}, ValueError, ["x must have 4 dimensions", "(5, 6, 3)"]),
    ({"x": ones()}, ValueError, ["x must have 4 dimensions", "()"]),
    ({"x": ones(2, 5, 6, 4)}, ValueError, ["grad has 6 channels", "no multiple of the 4 of x"]),
    ({"x": ones(2, 5, 6, 0)}, ValueError, ["grad has 6 channels", "the 0 of x"]),
    ({"x": ones(2, 5, 6, 12)}, ValueError, ["grad has 6 channels", "the 12 of x"]),
    ({"grad": ones(2, 3, 4, 7)}, ValueError, ["grad has 7 channels", "the 3 of x", "(2, 3, 4, 7)", "(2, 5, 6, 3)"]),
    ({"grad": ones(2, 3, 4, 0)}, ValueError, ["grad has 0 channels", "the 3 of x"]),
    ({"x": ones(3, 5, 6, 3)}, ValueError, ["grad has shape (2, 3, 4, 6)", "(3, 3, 4, 6)"]),
    ({"x": ones(2, 5, 7, 3)}, ValueError, ["grad has shape (2, 3, 4, 6)", "(2, 3, 5, 6)"]),
    ({"x": X.astype(int), "grad": GRAD.astype(int)}, TypeError, ["common dtype", "int64"]),
    ({"data_format": "channels_first"}, ValueError, ["grad has 3 channels", "the 5 of x", "channels_first"]),
    ({"kernel_size": (2, 3)}, ValueError, ["grad has shape (2, 3, 4, 6)", "(2, 4, 4, 6)"]),
    ({"kernel_size": (3, 2)}, ValueError, ["grad has shape (2, 3, 4, 6)", "(2, 3, 5, 6)"]),
    ({"kernel_size": (3, 3, 3, 2)}, ValueError, ["kernel_size", "4 of them"]),
    ({"kernel_size": (3,)}, ValueError, ["kernel_size", "1 of them"]),
    ({"kernel_size": 0}, ValueError, ["kernel_size", "at least 1", "0"]),
    ({"kernel_size": (3, -3)}, ValueError, ["kernel_size", "at least 1", "-3"]),
    ({"kernel_size": 2**31 + 1}, ValueError, ["kernel_size", "memory"]),
    ({"kernel_size": (2**31 + 1, 1)}, ValueError, ["limit"]),
    ({"kernel_size": 2**64}, ValueError, ["kernel_size", "64 bits"]),
    ({"kernel_size": (6, 3)}, ValueError, ["output size", "height 5", "6"]),
    ({"kernel_size": 3.0}, TypeError, ["kernel_size", "3.0"]),
    ({"kernel_size": True}, TypeError, ["kernel_size", "True"]),
    ({"kernel_size": "3"}, TypeError, ["kernel_size", "'3'"]),
    ({"kernel_size": None}, TypeError, ["kernel_size", "None"]),
    ({"kernel_size": KERNEL}, TypeError, ["kernel_size"]),
]


def call(function, arguments):
    """A call by position, so that the table's names are those of the parameters; its arrays must stay as they are."""
    names = {input_grad: ("grad", "kernel", "input_shape"), kernel_grad: ("x", "grad", "kernel_size")}[function]
    arguments = {"x": X, "kernel": KERNEL, "grad": GRAD, "input_shape": NHWC, "kernel_size": (3, 3), **arguments}
    positional = [arguments[name] for name in names]
    keywords = {name: arguments[name] for name in arguments.keys() - {"x", "kernel", "grad", "input_shape", "kernel_size"}}
    watched = [a for a in positional if type(a) is np.ndarray and a.dtype != object]
    before = [a.tobytes() for a in watched]
    try:
        return function(*positional, **keywords)
    finally:
        assert before == [a.tobytes() for a in watched], "an input was changed"


@pytest.mark.parametrize(("function", "changes", "error", "words"), [
    *[(function, *row) for function in (input_grad, kernel_grad) for row in SHARED],
    *[(input_grad, *row) for row in INPUT_GRAD],
    *[(kernel_grad, *row) for row in KERNEL_GRAD],
], ids=lambda value: getattr(value, "__name__", None) or str(value)[:60])
def test_refused(function, changes, error, words):
    """One short sentence with the words that help, before anything is written, and the same the second time."""
    out = np.full(NHWC if function is input_grad else KERNEL.shape, SENTINEL)
    for _ in range(2):
        with pytest.raises(error) as caught:
            call(function, {"out": out, **changes})
        text = str(caught.value)
        missing = [word for word in words if word not in text]
        assert not missing, text
        assert len(text) < 500
        assert "\n" not in text
    assert (out == SENTINEL).all()


def test_options_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        input_grad(GRAD, KERNEL, NHWC, 1)
    with pytest.raises(TypeError, match="positional"):
        kernel_grad(X, GRAD, (3, 3), 1)


@pytest.mark.parametrize("shape", [list(NHWC), np.array(NHWC), (np.int64(2), 5, np.uint8(6), 3), (2, 5, 6, Index())], ids=str)
def test_spellings_of_the_input_shape(shape):
    np.testing.assert_array_equal(input_grad(GRAD, KERNEL, shape), oracle.input_grad(GRAD, KERNEL, NHWC))


@pytest.mark.parametrize("size", [3, [3, 3], np.array([3, 3]), (np.int64(3), 3), np.uint8(3), Index(), (Index(), 3)], ids=str)
def test_spellings_of_the_kernel_size(size):
    np.testing.assert_array_equal(kernel_grad(X, GRAD, size), oracle.kernel_grad(X, GRAD, (3, 3)))


def test_kept_plans_do_not_mix():
    """Neither types that are equal as keys nor the two functions."""
    input_grad(GRAD, KERNEL, NHWC, strides=1)
    kernel_grad(X, GRAD, (3, 3), strides=1)
    for bad in ({"strides": True}, {"dilation_rate": 1.0}, {"padding": False}):
        with pytest.raises(TypeError):
            input_grad(GRAD, KERNEL, NHWC, **bad)
        with pytest.raises(TypeError):
            kernel_grad(X, GRAD, (3, 3), **bad)
    with pytest.raises(ValueError, match="input_shape has 4 channels"):
        input_grad(GRAD, KERNEL, (2, 5, 6, 4))


@pytest.mark.parametrize("stride", [7, 65536, 2**31, 2**63 - 1])
def test_stride_beyond_the_image(kernels, stride):
    grad = GRAD[:, :1, :1]
    np.testing.assert_array_equal(input_grad(grad, KERNEL, NHWC, strides=stride), oracle.input_grad(grad, KERNEL, NHWC, 7))
    np.testing.assert_array_equal(kernel_grad(X, grad, 3, strides=stride), oracle.kernel_grad(X, grad, (3, 3), 7))


def test_padding_at_its_limit(kernels):
    """2**31 - 1 rows of padding: of three output rows only the middle one sees the image."""
    wide = 2**31 - 1
    options = {"strides": (wide, 1), "padding": ((wide, wide), (0, 0))}
    np.testing.assert_array_equal(input_grad(GRAD, KERNEL, NHWC, **options),
                                  oracle.input_grad(GRAD[:, 1:2], KERNEL, NHWC, strides=(7, 1)))
    np.testing.assert_array_equal(kernel_grad(X, GRAD, 3, **options),
                                  oracle.kernel_grad(X, GRAD[:, 1:2], (3, 3), strides=(7, 1)))


# ---- empty arrays ----

@pytest.mark.parametrize("shape", [(0, 5, 6, 3), (2, 0, 6, 3), (2, 5, 0, 3), (0, 0, 0, 3)], ids=str)
@pytest.mark.parametrize("padding", ["same", 2])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_empty(kernels, shape, padding, dtype):
    """No pixels: an empty gradient for them, and zeros for the kernel, into `out` too."""
    grad = dwconv.depthwise_conv2d(np.ones(shape, dtype), KERNEL.astype(dtype), padding=padding)
    result = input_grad(grad, KERNEL.astype(dtype), shape, padding=padding)
    assert (result.shape, result.dtype) == (shape, dtype)
    out = np.ones(shape, dtype)
    assert input_grad(grad, KERNEL.astype(dtype), shape, padding=padding, out=out) is out
    result = kernel_grad(np.ones(shape, dtype), grad, 3, padding=padding)
    np.testing.assert_array_equal(result, np.zeros((3, 3, 3, 2), dtype), strict=True)
    for out in (np.ones((3, 3, 3, 2), dtype), np.ones((3, 3, 3, 4), dtype)[..., ::2], np.ones((2, 3, 3, 3), dtype).T):
        assert kernel_grad(np.ones(shape, dtype), grad, 3, padding=padding, out=out) is out
        assert not out.any()


# ---- dtypes ----

@pytest.mark.parametrize("second", FLOATS, ids=str)
@pytest.mark.parametrize("first", FLOATS + [np.dtype(t) for t in "?bBhHiIlLqQ"], ids=str)
def test_promotion(kernels, first, second):
    """NumPy's rule with exact values, for the two arrays in either order."""
    for a, b in ((first, second), (second, first)):
        x, grad, kernel = abs(X).astype(a), abs(GRAD).astype(b), abs(KERNEL).astype(a)
        try:
            dtype = np.result_type(a, b)
        except TypeError:  # NumPy has none for bfloat16 and some
            for refused in (lambda grad=grad, kernel=kernel: input_grad(grad, kernel, NHWC),
                            lambda x=x, grad=grad: kernel_grad(x, grad, 3)):
                with pytest.raises(TypeError, match="common dtype"):
                    refused()
            continue
        expected = oracle.input_grad(grad.astype(float), kernel.astype(float), NHWC).astype(dtype)
        np.testing.assert_array_equal(input_grad(grad, kernel, NHWC), expected, strict=True)
        expected = oracle.kernel_grad(x.astype(float), grad.astype(float), (3, 3)).astype(dtype)
        np.testing.assert_array_equal(kernel_grad(x, grad, 3), expected, strict=True)


@pytest.mark.parametrize("dtype", [FLOATS[0], FLOATS[3]], ids=str)
def test_half_types_round_once(kernels, dtype):
    """The bits of the float32 result rounded, into `out` too; sums that float16 cannot hold are quietly infinite."""
    rng = np.random.default_rng(1)
    x, kernel, grad = (rng.standard_normal(s).astype(dtype) for s in ((2, 9, 11, 5), (3, 3, 5, 2), (2, 7, 9, 10)))
    wide = [a.astype(np.float32) for a in (x, kernel, grad)]
    for function, arrays, exact in ((input_grad, (grad, kernel, x.shape), input_grad(wide[2], wide[1], x.shape)),
                                    (kernel_grad, (x, grad, 3), kernel_grad(wide[0], wide[2], 3))):
        result = function(*arrays)
        assert result.dtype == dtype
        assert result.tobytes() == exact.astype(dtype).tobytes()
        out = np.zeros((*exact.shape[:-1], 2 * exact.shape[-1]), dtype)[..., ::2]
        assert function(*arrays, out=out) is out
        assert out.tobytes() == result.tobytes()
    large = np.full((1, 300, 300, 1), ml_dtypes.finfo(dtype).max, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isinf(kernel_grad(large, np.ones((1, 300, 300, 1), dtype), 1).astype(float)).all()


def test_other_arrays(kernels):
    """Lists, other byte orders, read-only and misaligned memory."""
    for turn in (np.ndarray.tolist, lambda a: a.astype(">f8"),
                 lambda a: np.frombuffer(b"." + a.tobytes(), offset=1).reshape(a.shape)):
        np.testing.assert_array_equal(input_grad(turn(GRAD), turn(KERNEL), NHWC), oracle.input_grad(GRAD, KERNEL, NHWC))
        np.testing.assert_array_equal(kernel_grad(turn(X), turn(GRAD), 3), oracle.kernel_grad(X, GRAD, (3, 3)))


# ---- sizes that no memory holds ----

@pytest.mark.parametrize("shape", [(1, 2**30, 2**30, 1), (2**40, 2**20, 3, 1), (1, 2**61, 3, 1)], ids=str)
def test_results_too_large(shape):
    """NumPy's own error before anything is computed, or ours where the size of `grad` gives it away."""
    grad = huge(shape[0], (shape[1] - 3) // 2**20 + 1, (shape[2] - 3) // 2**20 + 1, 1)
    with pytest.raises((ValueError, MemoryError, OverflowError)):
        input_grad(grad, np.ones((3, 3, 1, 1), np.float32), shape, strides=2**20)


def test_huge_views(kernels):
    """More than 2**31 elements of x, few of them in memory."""
    x = np.broadcast_to(np.ones(1, np.float32), (1, 50000, 50000, 1))
    result = kernel_grad(x, np.ones((1, 2, 2, 1), np.float32), 3, strides=40000)
    np.testing.assert_array_equal(result, np.full((3, 3, 1, 1), 4, np.float32))


# ---- out ----

def bad_outs(shape):
    """An array or another object as `out`, exception, words."""
    zeros, locked = np.zeros(shape), np.zeros(shape)
    locked.flags.writeable = False
    return [
        (np.zeros(shape[1:]), ValueError, ["out has shape", str(shape)]),
        (np.zeros((*shape[:3], 9)), ValueError, ["out has shape", str(shape)]),
        (np.zeros((9, *shape[1:])), ValueError, ["out has shape", str(shape)]),
        (zeros.astype(np.float32), TypeError, ["float32", "float64"]),
        (zeros.astype(int), TypeError, ["int", "float64"]),
        (zeros.astype(">f8"), TypeError, ["float64"]),
        (zeros.tolist(), TypeError, ["NumPy array", "list"]),
        (np.ma.zeros(shape), TypeError, ["MaskedArray"]),
        (locked, ValueError, ["read-only"]),
        (np.lib.stride_tricks.as_strided(zeros, shape, (0, *zeros.strides[1:])), ValueError, ["share memory"]),
    ]


@pytest.mark.parametrize("number", range(len(bad_outs((1, 1, 1, 1)))))
@pytest.mark.parametrize("function", [input_grad, kernel_grad])
def test_out_refused(function, number):
    out, error, words = bad_outs(NHWC if function is input_grad else (3, 3, 3, 2))[number]
    with pytest.raises(error) as caught:
        call(function, {"out": out})
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, str(caught.value)
    assert not np.any(out)


PLACES = {  # of out in a buffer, from the place of an input of at least that size
    "the same": lambda buffer, size: buffer[:size],
    "shifted by one": lambda buffer, size: buffer[1 : size + 1],
    "reversed": lambda buffer, size: buffer[:size][::-1],
    "every second": lambda buffer, size: buffer[: 2 * size : 2],
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("data_format", LAYOUTS)
def test_out_overlaps_an_input(kernels, place, dtype, data_format):
    """Each input in turn: the result is as if they were apart."""
    arrays = {"x": layout(X, data_format), "kernel": KERNEL, "grad": layout(GRAD, data_format)}
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    shape = NHWC if data_format == "channels_last" else NCHW
    for function, names, result_shape in ((input_grad, ("grad", "kernel"), shape), (kernel_grad, ("x", "grad"), KERNEL.shape)):
        last = shape if function is input_grad else 3
        expected = function(*(arrays[name] for name in names), last, data_format=data_format)
        for name in names:
            array, size = arrays[name], int(np.prod(result_shape))
            buffer = np.zeros(2 * max(array.size, size) + 1, dtype)
            buffer[: array.size] = array.ravel()
            shared = arrays | {name: buffer[: array.size].reshape(array.shape)}
            out = place(buffer, size).reshape(result_shape)
            assert function(*(shared[n] for n in names), last, data_format=data_format, out=out) is out
            assert out.tobytes() == expected.tobytes(), f"{function.__name__}: out over {name}"


def test_out_that_overlaps_itself(kernels):
    """As if the result were assigned to it."""
    for function, shape, result in ((input_grad, NHWC, oracle.input_grad(GRAD, KERNEL, NHWC)),
                                    (kernel_grad, KERNEL.shape, oracle.kernel_grad(X, GRAD, (3, 3)))):
        wholes = np.full((2, 400), SENTINEL)
        written, expected = (np.lib.stride_tricks.as_strided(whole[20:], shape, (80, 40, 24, 8)) for whole in wholes)
        call(function, {"out": written})
        np.copyto(expected, result)
        np.testing.assert_array_equal(*wholes)


def test_result_belongs_to_the_caller(kernels):
    results = [input_grad(GRAD, KERNEL, NHWC), input_grad(GRAD, KERNEL, NHWC), kernel_grad(X, GRAD, 3), kernel_grad(X, GRAD, 3)]
    for a, b in itertools.combinations((X, KERNEL, GRAD, *results), 2):
        assert not np.shares_memory(a, b)
    assert all(result.flags.writeable and result.flags.c_contiguous for result in results)


# ---- workers ----

def test_workers_go_by_the_work(monkeypatch):
    """The gate of the forward, by the same count of multiply-adds and numbers."""
    asked = []
    monkeypatch.setattr(_runtime, "resolve_workers", lambda workers, work: asked.append((workers, work)) or 1)
    dwconv.depthwise_conv2d(X, KERNEL, workers=3)
    input_grad(GRAD, KERNEL, NHWC, workers=3)
    kernel_grad(X, GRAD, 3, workers=3)
    assert asked == [(3, 2 * 3 * 4 * 6 * 9 + 5 * (2 * 3 * 4 * 6 + X.size))] * 3
