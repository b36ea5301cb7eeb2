"""The arguments of dwconv.depthwise_conv2d: what is refused and in which words, odd but good values, dtypes, memory, out=.

Tables: a row is a call that differs from one good call, `BASE`.  Whatever is refused is refused before `out` is written, and no
call ever changes its inputs: `convolve` checks both.  What the numbers are over all geometries is in test_kernels.py; the
rows follow the list of bad inputs in the project's robustness notes.
"""

import gc
import itertools
import reprlib
import sys
import time
import types
import warnings

import ml_dtypes
import numpy as np
import oracle
import pytest
import scipy.sparse

import dwconv
from dwconv import _runtime, activations

SENTINEL = -77.0
X, KERNEL, BIAS = oracle.integers((2, 5, 6, 3), 1, 3), oracle.integers((3, 3, 3, 2), 2, 3), oracle.integers((6,), 3, 3)
BF16, FLOAT8 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)


def convolve(*arrays, **options):
    """depthwise_conv2d, which must leave its inputs as they are."""
    watched = [a for a in (*arrays, options.get("bias")) if type(a) is np.ndarray and a.size < 1e6 and a.dtype != object]
    before = [a.tobytes() for a in watched]
    try:
        return dwconv.depthwise_conv2d(*arrays, **options)
    finally:
        if not any(isinstance(options.get("out"), np.ndarray) and np.may_share_memory(options["out"], a) for a in watched):
            assert before == [a.tobytes() for a in watched], "an input was changed"


class Index:
    """An integer-like object; `answer` may be an exception."""

    def __init__(self, answer):
        self.answer = answer

    def __index__(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Array:
    """An array-like object; `answer` may be an exception."""

    def __init__(self, answer):
        self.answer = answer

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Dask(Array):
    def __dask_graph__(self):
        return {}


class Subclass(np.ndarray):
    pass


def ones(*shape):
    return np.ones(shape)


def matrix(a):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(a)


# ---- what is refused ----

INTEGERS = [  # for strides and dilation_rate alike: value, exception, words
    (0, ValueError, ["at least 1", "got 0"]),
    (-1, ValueError, ["at least 1", "got -1"]),
    ((1, 0), ValueError, ["at least 1", "got 0"]),
    (2**63, ValueError, ["64 bits"]),
    (10**30, ValueError, ["64 bits"]),
    (10**4000, ValueError, ["64 bits"]),
    (2.0, TypeError, ["2.0"]),
    (2.5, TypeError, ["2.5"]),
    (np.float32(2), TypeError, ["2.0"]),
    ("2", TypeError, ["'2'"]),
    ("11", TypeError, ["'11'"]),
    (b"2", TypeError, ["b'2'"]),
    (None, TypeError, ["None"]),
    (float("nan"), TypeError, ["nan"]),
    (True, TypeError, ["True"]),
    (np.True_, TypeError, ["True"]),
    ((True, 1), TypeError, ["True"]),
    ((1, 2.0), TypeError, ["2.0"]),
    ((1,), ValueError, ["pair", "1 of them"]),
    ((1, 1, 1), ValueError, ["pair", "3 of them"]),
    ((1, 2, 2, 1), ValueError, ["pair", "4 of them"]),
    ([], ValueError, ["pair", "0 of them"]),
    (((1, 1), (1, 1)), TypeError, ["(1, 1)"]),
    ({1, 2}, TypeError, ["{1, 2}"]),
    ({1: 2}, TypeError, ["{1: 2}"]),
    ((n for n in (1, 1)), TypeError, ["generator"]),
    (np.array([1, 1, 1]), ValueError, ["pair"]),
    (np.array([1.0, 1.0]), TypeError, ["1.0"]),
    (np.array(2.0), TypeError, ["2.0"]),
    ("x" * 10**6, TypeError, []),
    (Index(ZeroDivisionError("mine")), ZeroDivisionError, ["mine"]),
    (Index("1"), TypeError, []),
]

REFUSED = [  # changes to BASE, exception, words of the message
    # shapes
    ({"x": ones()}, ValueError, ["x must have 4 dimensions", "3 for one image", "()"]),
    ({"x": ones(6)}, ValueError, ["4 dimensions", "(6,)"]),
    ({"x": ones(5, 6)}, ValueError, ["4 dimensions", "(5, 6)"]),
    ({"x": ones(1, 2, 5, 6, 3)}, ValueError, ["4 dimensions", "(1, 2, 5, 6, 3)", "(N, H, W, C)"]),
    ({"x": ones(1, 2, 3, 5, 6), "data_format": "channels_first"}, ValueError, ["(N, C, H, W)"]),
    ({"kernel": ones()}, ValueError, ["kernel must have shape", "()"]),
    ({"kernel": ones(3)}, ValueError, ["kernel must have shape", "(3,)"]),
    ({"kernel": ones(3, 3, 3, 2, 1)}, ValueError, ["kernel must have shape", "(3, 3, 3, 2, 1)"]),
    ({"kernel": ones(3, 3, 4, 2)}, ValueError, ["3 channels", "4", "(2, 5, 6, 3)", "(3, 3, 4, 2)"]),
    ({"kernel": ones(3, 3, 1, 2)}, ValueError, ["3 channels", "1"]),      # nothing is broadcast
    ({"kernel": ones(3, 3, 1)}, ValueError, ["3 channels", "1"]),
    ({"x": ones(2, 5, 6, 1)}, ValueError, ["1 channels", "3"]),
    ({"data_format": "channels_first"}, ValueError, ["5 channels", "3", "channels_first"]),
    ({"x": ones(1, 5, 6, 0), "kernel": ones(3, 3, 0, 2)}, ValueError, ["at least 1", "(1, 5, 6, 0)"]),
    ({"x": ones(1, 5, 6, 0), "kernel": ones(3, 3)}, ValueError, ["at least 1", "(1, 5, 6, 0)"]),
    ({"kernel": ones(3, 3, 3, 0)}, ValueError, ["at least 1", "(3, 3, 3, 0)"]),
    ({"kernel": ones(0, 3, 3, 2)}, ValueError, ["at least 1", "(0, 3, 3, 2)"]),
    ({"kernel": ones(3, 0)}, ValueError, ["at least 1", "(3, 0)"]),
    ({"kernel": ones(6, 3, 3, 2)}, ValueError, ["output size would be zero or negative", "height 5", "6"]),
    ({"kernel": ones(3, 3, 3, 2), "dilation_rate": (1, 3)}, ValueError, ["output size", "width 6", "7", "dilation_rate 3"]),
    ({"kernel": ones(9, 3, 3, 2), "padding": 1}, ValueError, ["output size", "height 5", "(1, 1)", "9"]),
    ({"x": ones(1, 0, 6, 3)}, ValueError, ["output size", "height 0"]),
    ({"x": ones(1, 5, 0, 3)}, ValueError, ["output size", "width 0"]),
    *[({"bias": ones(*s)}, ValueError, ["bias must have shape (6,)", str(s)]) for s in [(), (1,), (2,), (3,), (6, 1), (1, 6)]],
    # integers
    *[({name: value}, error, words) for name in ("strides", "dilation_rate") for value, error, words in INTEGERS],
    ({"dilation_rate": 2**31}, ValueError, ["limit", "height"]),
    ({"dilation_rate": (1, 2**62)}, ValueError, ["limit", "width"]),
    ({"dilation_rate": 2**30, "padding": "same"}, ValueError, ["limit"]),
    # padding
    *[({"padding": value}, ValueError, ["valid", "same", repr(value)]) for value in ("full", "causal", "", "same ")],
    *[({"padding": value}, TypeError, []) for value in (b"same", None, True, 1.0, (1, 1.0), (1, (2, 3)), ("same", "same"))],
    *[({"padding": value}, TypeError, []) for value in ({1, 2}, ((1, 1.0), (0, 0)), ((True, 0), (0, 0)), np.array([1.0, 2.0]))],
    ({"padding": -1}, ValueError, ["at least 0", "-1"]),
    ({"padding": (0, -2)}, ValueError, ["at least 0", "-2"]),
    ({"padding": ((1, -3), (0, 0))}, ValueError, ["at least 0", "-3"]),
    ({"padding": (1, 2, 3)}, ValueError, ["3 of them"]),
    ({"padding": ((1, 2, 3), (1, 1))}, ValueError, ["3 of them"]),
    ({"padding": ((0, 0), (1, 1), (1, 1), (0, 0))}, ValueError, ["4 of them"]),
    ({"padding": 2**31}, ValueError, ["limit"]),
    ({"padding": 2**62}, ValueError, ["limit"]),
    ({"padding": 10**30}, ValueError, ["64 bits"]),
    # strings
    *[({"data_format": value}, ValueError, ["channels_last", "channels_first", repr(value)]) for value in ("NHWC", "x", "")],
    *[({"data_format": value}, TypeError, ["data_format"]) for value in (None, 1, b"channels_last", ["channels_last"])],
    *[({"activation": name}, ValueError, [repr(name)]) for name in ("nothing", "__import__", "os.system", "np.tanh", "get")],
    *[({"activation": value}, (TypeError, ValueError), []) for value in (3, b"relu", ("relu",), ["relu"], object())],
    ({"data_format": "x" * 10**6}, ValueError, []),
    ({"padding": "x" * 10**6}, ValueError, []),
    ({"activation": "x" * 10**6}, ValueError, []),
    # workers
    ({"workers": 0}, ValueError, ["workers", "0"]),
    ({"workers": -1000}, ValueError, ["workers", "-1000"]),
    *[({"workers": value}, TypeError, ["workers", repr(value)]) for value in (1.5, True, "2")],
    # types of arrays
    *[({name: array}, TypeError, words) for name in ("x", "kernel", "bias") for array, words in [
        (np.array([{}], object), ["object"]),
        (np.array(["1"]), ["str"]),
        (np.array([b"1"]), ["bytes"]),
        (np.array(["2020-01-01"], "M8[D]"), ["datetime64"]),
        (np.zeros(1, [("a", "f4")]), ["void"]),
        (np.ones(1, np.complex64), ["complex"]),
        (np.ones(1, complex), ["complex"]),
        (np.ma.masked_array(np.ones(1)), ["MaskedArray", "mask"]),
        (matrix([[1.0]]), ["matrix"]),
        (scipy.sparse.csr_array(np.eye(3)), ["sparse", "toarray"]),
        (scipy.sparse.coo_matrix(np.eye(3)), ["sparse", "toarray"]),
        (Dask(np.ones(1)), ["dask array", "dwconv.dask.depthwise_conv2d", "compute"]),
        ("text", []),
        ({}, ["object"]),
    ]],
    ({"x": None}, TypeError, []),
    ({"kernel": None}, TypeError, []),
    ({"x": X.astype(np.int64), "kernel": KERNEL.astype(np.int64), "bias": None}, TypeError, ["float32", "float64", "int64"]),
    ({"x": X > 0, "kernel": KERNEL.astype(np.int8), "bias": None}, TypeError, ["bool", "int8"]),
    ({"x": X.astype(FLOAT8), "kernel": KERNEL.astype(FLOAT8), "bias": None}, TypeError, ["float8"]),
    ({"x": [[[1.0], [2.0, 3.0]]]}, ValueError, ["inhomogeneous"]),
    ({"x": Array(ZeroDivisionError("mine"))}, ZeroDivisionError, ["mine"]),
    ({"x": Array("nothing")}, (TypeError, ValueError), []),
    # names
    ({"stride": 2}, TypeError, ["unexpected keyword", "stride"]),
    ({"dilation": 2}, TypeError, ["unexpected keyword", "dilation"]),
]


def name_of(row):
    values = {name: f"{v.dtype}{v.shape}" if isinstance(v, np.ndarray) else reprlib.repr(v) for name, v in row[0].items()}
    return ", ".join(f"{name}={text}" for name, text in values.items())[:80]


@pytest.mark.parametrize(("changes", "error", "words"), REFUSED, ids=map(name_of, REFUSED))
def test_refused(changes, error, words):
    """One sentence with the words that help, never a long one, and before anything is written."""
    out = np.full((2, 3, 4, 6), SENTINEL)
    arguments = {"x": X, "kernel": KERNEL, "bias": BIAS, "out": out, **changes}
    with pytest.raises(error) as caught:
        convolve(arguments.pop("x"), arguments.pop("kernel"), **arguments)
    text = str(caught.value)
    missing = [word for word in words if word not in text]
    assert not missing, text
    assert len(text) < 500
    assert "\n" not in text
    assert (out == SENTINEL).all()


def test_long_double_is_refused():
    """No silent loss of precision; where a long double is a double it is one."""
    if np.finfo(np.longdouble).eps == np.finfo(float).eps:
        pytest.skip("long double is double here")
    for arrays in ((X.astype(np.longdouble), KERNEL), (X, KERNEL.astype(np.longdouble)), (X, KERNEL, BIAS.astype(np.longdouble))):
        with pytest.raises(TypeError, match=r"longdouble|float128|float96"):
            convolve(*arrays)


def test_options_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        convolve(X, KERNEL, BIAS, 2)


# ---- odd, but good ----

@pytest.mark.parametrize(("odd", "plain"), [
    ({"strides": np.int64(2)}, {"strides": 2}),
    ({"strides": np.uint8(2)}, {"strides": 2}),
    ({"strides": np.array(2)}, {"strides": 2}),
    ({"strides": [2, 1]}, {"strides": (2, 1)}),
    ({"strides": np.array([2, 1], np.int16)}, {"strides": (2, 1)}),
    ({"strides": Index(2)}, {"strides": 2}),
    ({"strides": (Index(2), np.uint64(1))}, {"strides": (2, 1)}),
    ({"dilation_rate": [1, np.int8(2)]}, {"dilation_rate": (1, 2)}),
    ({"dilation_rate": np.array([2, 2])}, {"dilation_rate": 2}),
    ({"padding": "SAME"}, {"padding": "same"}),
    ({"padding": "Valid"}, {"padding": "valid"}),
    ({"padding": np.str_("same")}, {"padding": "same"}),
    ({"padding": Index(1)}, {"padding": 1}),
    ({"padding": [1, 2]}, {"padding": (1, 2)}),
    ({"padding": np.array([1, 2])}, {"padding": (1, 2)}),
    ({"padding": [[1, 0], [2, 3]]}, {"padding": ((1, 0), (2, 3))}),
    ({"padding": np.array([[1, 0], [2, 3]])}, {"padding": ((1, 0), (2, 3))}),
    ({"padding": ((1, 0), [np.int32(2), 3])}, {"padding": ((1, 0), (2, 3))}),
    ({"activation": "ReLU"}, {"activation": "relu"}),
    ({"activation": None}, {"activation": "linear"}),
    ({"workers": np.int64(2)}, {}),
    ({"workers": 10**6}, {}),
    ({"workers": 2**40}, {}),
    ({"workers": -1}, {}),
], ids=str)
def test_odd_but_good(odd, plain):
    expected = oracle.conv(X, KERNEL, BIAS, **plain)
    np.testing.assert_array_equal(convolve(X, KERNEL, BIAS, **odd), expected)
    np.testing.assert_array_equal(convolve(X, KERNEL, BIAS, **plain), expected)


def test_kept_plans_do_not_mix_types():
    """1, True and 1.0 are equal as keys of a dictionary: a good call must not make the next, bad one pass."""
    convolve(X, KERNEL, strides=1, padding=1, dilation_rate=(1, 1))
    for bad in ({"strides": True}, {"padding": True}, {"dilation_rate": (1, True)}, {"strides": 1.0}, {"padding": (1.0, 1)}):
        with pytest.raises(TypeError):
            convolve(X, KERNEL, **bad)


@pytest.mark.parametrize("stride", [7, 65536, 2**31, 2**32 + 1, 2**63 - 1])
def test_stride_beyond_the_image(kernels, stride):
    for data_format in ("channels_last", "channels_first"):
        x = X if data_format == "channels_last" else X.transpose(0, 3, 1, 2)
        y = convolve(x, KERNEL, BIAS, strides=stride, data_format=data_format)
        np.testing.assert_array_equal(y, oracle.conv(x, KERNEL, BIAS, strides=7, data_format=data_format))


def test_dilation_of_a_single_tap(kernels):
    """Nothing to spread: any dilation is right."""
    kernel = KERNEL[:1]
    np.testing.assert_array_equal(convolve(X, kernel, dilation_rate=(2**62, 1)), oracle.conv(X, kernel))


def test_padding_at_its_limit(kernels):
    """2**31 - 1 rows of padding, and a stride that lands in it, on the first row and on the last."""
    wide = 2**31 - 1
    for data_format in ("channels_last", "channels_first"):
        x = X if data_format == "channels_last" else X.transpose(0, 3, 1, 2)
        y = convolve(x, KERNEL, BIAS, strides=(wide, 1), padding=((wide, wide), (0, 0)), data_format=data_format)
        y = y if data_format == "channels_last" else y.transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(y[:, 0], np.broadcast_to(BIAS, y[:, 0].shape))
        np.testing.assert_array_equal(y[:, 1:2], oracle.conv(X, KERNEL, BIAS)[:, :1])
        np.testing.assert_array_equal(y[:, 2], np.broadcast_to(BIAS, y[:, 2].shape))
    row, taps = np.arange(1.0, 9), np.array([2.0, 30])  # and columns: the ninth output begins at the second number
    for dtype in FLOATS:
        x, kernel = row.astype(dtype).reshape(1, 1, 1, 8), taps.astype(dtype).reshape(1, 2, 1, 1)
        y = convolve(x, kernel, strides=(1, 2**28), padding=((0, 0), (wide, wide)), data_format="channels_first")
        np.testing.assert_array_equal(y.ravel(), [0] * 8 + [row[1:3] @ taps] + [0] * 8)


@pytest.mark.parametrize("shape", [(0, 5, 6, 3), (2, 0, 6, 3), (2, 5, 0, 3), (0, 0, 0, 3)], ids=str)
def test_empty(kernels, shape):
    """No images, or images without rows or columns; with padding those have outputs, of the bias alone."""
    afters = {None: lambda y: y, "relu": lambda y: np.maximum(y, 0), np.negative: np.negative}
    for data_format, padding, activation in itertools.product(("channels_last", "channels_first"), ("same", 2), afters):
        options = {"data_format": data_format, "padding": padding, "activation": activation}
        x = np.ones(shape) if data_format == "channels_last" else np.ones((shape[0], 3, *shape[1:3]))
        expected = afters[activation](oracle.conv(x, KERNEL, BIAS, padding=padding, data_format=data_format))
        np.testing.assert_array_equal(convolve(x, KERNEL, BIAS, **options), expected, strict=True)
        out = np.full(expected.shape, SENTINEL)
        for view in (out, out[::-1], np.asfortranarray(out), np.full((*out.shape, 2), SENTINEL)[..., 0]):
            assert convolve(x, KERNEL, BIAS, **options, out=view) is view
            np.testing.assert_array_equal(view, expected)


def test_shapes_of_image_and_kernel(kernels):
    """One image in, one out; (kh, kw, C) is one filter a channel, (kh, kw) one for all."""
    single, shared = KERNEL[..., 0], KERNEL[:, :, 0, 0]
    for data_format, kernel in itertools.product(("channels_last", "channels_first"), (KERNEL, single, shared)):
        x = X if data_format == "channels_last" else X.transpose(0, 3, 1, 2)
        expected = oracle.conv(x, kernel, data_format=data_format, padding="same")
        np.testing.assert_array_equal(convolve(x, kernel, data_format=data_format, padding="same"), expected)
        y = convolve(x[1], kernel, data_format=data_format, padding="same")
        np.testing.assert_array_equal(y, expected[1], strict=True)
        out = np.empty_like(y)
        assert convolve(x[1], kernel, data_format=data_format, padding="same", out=out) is out
        np.testing.assert_array_equal(out, y)


# ---- activations ----

class Unhashable:
    __hash__ = None

    def __call__(self, y):
        return y + 1


def in_place(y):
    y *= 2
    return y


@pytest.mark.parametrize(("activation", "formula"), [
    (np.tanh, np.tanh),
    (lambda y: y[...], lambda y: y),
    (lambda y: y[::-1], lambda y: y[::-1]),
    (lambda y: (y > 0).astype(np.int8), lambda y: y > 0),
    (in_place, lambda y: 2 * y),
    (Unhashable(), lambda y: y + 1),
    ("tanh", np.tanh),
    ("swish", lambda y: y / (1 + np.exp(-y))),
    ({"class_name": "ReLU", "config": {"max_value": 4.0}}, lambda y: np.clip(y, 0, 4)),
    (activations.LeakyReLU(0.5), lambda y: np.where(y < 0, y / 2, y)),
    (activations.relu, lambda y: np.maximum(y, 0)),
    (activations.softmax, lambda y: np.exp(y) / np.exp(y).sum(-1, keepdims=True)),
], ids=str)
def test_activations(kernels, activation, formula):
    expected = formula(oracle.conv(X, KERNEL, BIAS))
    np.testing.assert_allclose(convolve(X, KERNEL, BIAS, activation=activation), expected, rtol=1e-14)
    out = np.full((2, 3, 8, 6), SENTINEL)
    view = out[:, :, ::2]
    assert convolve(X, KERNEL, BIAS, activation=activation, out=view) is view
    np.testing.assert_allclose(view, expected, rtol=1e-14)
    assert (out[:, :, 1::2] == SENTINEL).all()


@pytest.mark.parametrize(("result", "error", "words"), [
    (ones(2, 3, 4, 5), ValueError, r"shape \(2, 3, 4, 5\).*\(2, 3, 4, 6\)"),
    (ones(), ValueError, "shape"),
    (None, ValueError, "shape"),
    (np.ones((2, 3, 4, 6), complex), TypeError, "cast"),
    (ZeroDivisionError("mine"), ZeroDivisionError, "mine"),
], ids=str)
def test_activations_that_fail(result, error, words):
    """Their exception passes, what cannot be a result is refused, and out stays as it was."""

    def activation(y):
        if isinstance(result, Exception):
            raise result
        return result

    out = np.full((2, 3, 4, 6), SENTINEL)
    with pytest.raises(error, match=words):
        convolve(X, KERNEL, activation=activation, out=out)
    assert (out == SENTINEL).all()


# ---- dtypes ----

FLOATS = [np.dtype(t) for t in (np.float16, np.float32, np.float64)] + [BF16]
INTS = [np.dtype(t) for t in "?bBhHiIlLqQ"]


@pytest.mark.parametrize("kernel_dtype", FLOATS, ids=str)
@pytest.mark.parametrize("x_dtype", FLOATS + INTS, ids=str)
def test_promotion(kernels, x_dtype, kernel_dtype):
    """NumPy's rule, with exact values: all are small integers.  Also with the types exchanged, and from a bias."""
    x, kernel = abs(X).astype(x_dtype), KERNEL.astype(kernel_dtype)
    try:
        dtype = np.result_type(x_dtype, kernel_dtype)
    except TypeError:  # NumPy has none for bfloat16 and some
        with pytest.raises(TypeError, match=rf"common dtype.*{x_dtype.name} \(x\), {kernel_dtype.name} \(kernel\)"):
            convolve(x, kernel)
        return
    y = convolve(x, kernel)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, oracle.conv(x, kernel).astype(dtype), strict=True)
    x, kernel = X.astype(kernel_dtype), abs(KERNEL).astype(x_dtype)
    np.testing.assert_array_equal(convolve(x, kernel), oracle.conv(x, kernel).astype(dtype), strict=True)
    bias = BIAS.astype(np.float64)
    np.testing.assert_array_equal(convolve(x, kernel, bias), oracle.conv(x, kernel, bias), strict=True)


def test_large_integers_do_not_wrap(kernels):
    x = np.array([[[2**63 + 2**62]], [[2**63]]], np.uint64)
    np.testing.assert_array_equal(convolve(x, np.ones((2, 1), np.float32)).ravel(), [2.0**64 + 2.0**62], strict=True)
    bytes_ = np.full((9, 9, 1), 255, np.uint8)
    np.testing.assert_array_equal(convolve(bytes_, np.ones((9, 9), np.float32)).ravel(), np.float32([81 * 255]), strict=True)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BF16], ids=str)
@pytest.mark.parametrize("activation", [None, "relu6", "tanh"])
def test_half_types_round_once(kernels, dtype, activation):
    """The bits of the float32 result rounded; sums that float16 could not hold on the way are no problem."""
    rng = np.random.default_rng(1)
    x, kernel, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 9, 11, 5), (3, 3, 5, 2), (10,)))
    wide = [a.astype(np.float32) for a in (x, kernel, bias)]
    y = convolve(x, kernel, bias, activation=activation)
    assert y.dtype == dtype
    assert y.tobytes() == convolve(*wide, activation=activation).astype(dtype).tobytes()
    out = np.zeros((2, 7, 18, 10), dtype)[:, :, ::2]
    assert convolve(x, kernel, bias, activation=activation, out=out) is out
    assert out.tobytes() == y.tobytes()
    x = np.array([60000, 60000, -60000, -60000], np.float16).reshape(1, 4, 1)
    assert convolve(x, np.ones((1, 4), np.float16)).ravel().tolist() == [0]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_overflow_is_quiet(kernels, dtype):
    """Infinity as in IEEE arithmetic, and no warning."""
    large = ml_dtypes.finfo(dtype).max
    x = np.array([large, large, -large], dtype).reshape(1, 3, 1)
    y = convolve(x, np.array([[2, 2]], dtype)).ravel().astype(float)
    assert y[0] == np.inf
    np.testing.assert_array_equal(convolve(x, np.full((1, 1), 2, dtype)).ravel().astype(float), [np.inf, np.inf, -np.inf])
    out = np.zeros((1, 2, 1), dtype)
    convolve(x, np.array([[2, 2]], dtype), out=out)
    assert np.isinf(out[0, 0, 0])


# ---- memory ----

def misaligned(a):
    return np.frombuffer(b"." + a.tobytes(), a.dtype, offset=1).reshape(a.shape)


def field(a):
    record = np.zeros(a.shape, [("tag", "u1"), ("value", a.dtype)])
    record["value"] = a
    return record["value"]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def lonely(a):
    """A view whose base has no other name."""
    view = np.pad(a, 1)[(slice(1, -1),) * a.ndim]
    gc.collect(0)
    return view


def odd_strides(a):
    """Axes of one element with strides that mean nothing (oneDNN #5942)."""
    strides = [12345 if n == 1 else s for s, n in zip(a.strides, a.shape, strict=True)]
    return np.lib.stride_tricks.as_strided(a, a.shape, strides)


FORMS = {
    "misaligned": misaligned,
    "misaligned, strided": lambda a: misaligned(np.repeat(a, 2, -1))[..., ::2],
    "field": field,
    "read-only": read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "little-endian": lambda a: a.astype(a.dtype.newbyteorder("<")),
    "list": lambda a: a.tolist(),
    "subclass": lambda a: a.view(Subclass),
    "recarray": lambda a: a.view(np.recarray),
    "__array__": Array,
    "base freed": lonely,
    "odd strides": odd_strides,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_memory(kernels, form, dtype, data_format):
    """Any of the arguments in any form: the right values in a native plain array of the right dtype."""
    x = X[:1] if data_format == "channels_last" else X[:1].transpose(0, 3, 1, 2)
    arrays = x, KERNEL[..., :1], BIAS[:3]
    expected = oracle.conv(*arrays, padding="same", data_format=data_format)
    for which in ((0,), (1,), (2,), (0, 1, 2)):
        changed = [form(np.array(a, dtype)) if k in which else np.array(a, dtype) for k, a in enumerate(arrays)]
        y = convolve(*changed, padding="same", data_format=data_format)
        assert type(y) is np.ndarray
        assert y.dtype == (float if form is FORMS["list"] else dtype)
        assert y.dtype.isnative
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_what_kernels_get(kernels, monkeypatch, form, data_format):
    """Native, aligned, rows without gaps: unaligned loads work on x86, but are undefined in C and trap elsewhere."""
    got, forward = [], _runtime.kernels.forward

    def record(*arguments):
        got.extend(a for a in arguments if isinstance(a, np.ndarray))
        return forward(*arguments)

    monkeypatch.setattr(_runtime, "kernels", types.SimpleNamespace(forward=record, max_threads=lambda: 1))
    x = X[:1] if data_format == "channels_last" else X[:1].transpose(0, 3, 1, 2)
    convolve(form(x.copy()), form(KERNEL), form(BIAS), data_format=data_format)
    assert len(got) == 4
    for a in got:
        assert a.flags.aligned
        assert a.dtype.isnative
        assert a.strides[-1] == a.itemsize
        assert not any(stride % a.itemsize for stride, size in zip(a.strides, a.shape, strict=True) if size > 1)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_memmap(kernels, mode, tmp_path):
    X.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", X.dtype, mode, shape=X.shape)
    y = convolve(x, KERNEL)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, oracle.conv(X, KERNEL))
    assert (tmp_path / "x").read_bytes() == X.tobytes()


def test_sliding_windows(kernels):
    """x may overlap itself."""
    x = np.lib.stride_tricks.as_strided(X, (20, 5, 6, 3), (24, *X.strides[1:]))
    np.testing.assert_array_equal(convolve(x, KERNEL), oracle.conv(x.copy(), KERNEL))


# ---- sizes that no memory holds ----

def huge(*shape):
    """Ones, of which only those along the last axis are in memory."""
    return np.broadcast_to(np.ones(shape[-1:], np.float32), shape)


@pytest.mark.parametrize(("shape", "kernel", "options", "expected"), [
    ((1, 50000, 50000, 1), (3, 3), {"strides": 40000}, np.full((1, 2, 2, 1), 9)),
    ((1, 50000, 50000, 5), (3, 3), {"strides": 40000, "padding": "same"}, np.full((1, 2, 2, 5), 9)),
    ((1, 2, 2**40, 3), (2, 3), {"strides": (1, 2**39), "dilation_rate": (1, 2**29)}, np.full((1, 1, 2, 3), 6)),
    ((1, 2**32, 1, 1), (3, 1), {"strides": (2**31, 1), "padding": (1, 0)}, np.array([2, 3]).reshape(1, 2, 1, 1)),
], ids=str)
def test_huge_views(kernels, shape, kernel, options, expected):
    """More than 2**31 elements, few of them in memory: indices are 64-bit (OpenCV #28385), and nothing is copied."""
    np.testing.assert_array_equal(convolve(huge(*shape), np.ones(kernel, np.float32), **options), expected)


@pytest.mark.parametrize(("data_format", "channels"), [("channels_last", 1), ("channels_last", 40), ("channels_first", 1)])
def test_time_of_large_strides(kernels, data_format, channels):
    """It goes by the outputs, not by what the strides leap over."""
    x, far = huge(1, 2**30, 1, channels), 2**29
    x = x if data_format == "channels_last" else x.transpose(0, 3, 1, 2)
    start = time.perf_counter()
    y = convolve(x, np.ones((3, 1), np.float32), strides=(far, 1), data_format=data_format)
    assert time.perf_counter() - start < 0.3
    assert (y == 3).all()


@pytest.mark.parametrize(("shape", "kernel", "options"), [
    ((1, 2**30, 2**30, 1), (3, 3), {"padding": "same"}),
    ((1, 2**30, 2**30, 1), (3, 3, 1, 2**20), {"padding": "same"}),
    ((1, 2**30, 2**14, 2**16), (1, 1, 2**16, 2), {}),
    ((1, 5, 5, 3), (3, 3), {"padding": 2**31 - 1}),
    ((2**40, 5, 5, 3), (3, 3), {"padding": 2**31 - 1}),
    ((2**50, 5, 5, 3), (3, 3), {}),
], ids=str)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_results_too_large(shape, kernel, options, data_format):
    """NumPy's own error before anything is computed, whatever overflows; no array here is below 2**48 bytes."""
    x = huge(*shape) if data_format == "channels_last" else np.moveaxis(huge(*shape), -1, 1)
    with pytest.raises((ValueError, MemoryError, OverflowError)):
        convolve(x, huge(*kernel), data_format=data_format, **options)


# ---- out ----

OUT_SHAPE = (2, 3, 4, 6)


@pytest.mark.parametrize(("out", "error", "words"), [
    (np.zeros((2, 3, 4, 5)), ValueError, ["(2, 3, 4, 5)", "(2, 3, 4, 6)"]),
    (np.zeros((2, 3, 4, 7)), ValueError, ["(2, 3, 4, 7)", "(2, 3, 4, 6)"]),
    (np.zeros((1, 3, 4, 6)), ValueError, ["(1, 3, 4, 6)", "(2, 3, 4, 6)"]),
    (np.zeros((3, 4, 6)), ValueError, ["(3, 4, 6)", "(2, 3, 4, 6)"]),
    (np.zeros(144), ValueError, ["(144,)", "(2, 3, 4, 6)"]),
    (np.zeros(()), ValueError, ["()", "(2, 3, 4, 6)"]),
    (np.zeros(OUT_SHAPE, np.float32), TypeError, ["float32", "float64"]),
    (np.zeros(OUT_SHAPE, int), TypeError, ["int", "float64"]),
    (np.zeros(OUT_SHAPE, complex), TypeError, ["complex128", "float64"]),
    (np.zeros(OUT_SHAPE, np.dtype(float).newbyteorder()), TypeError, ["float64"]),
    (np.zeros(OUT_SHAPE).tolist(), TypeError, ["NumPy array", "list"]),
    ((np.zeros(OUT_SHAPE),), TypeError, ["NumPy array", "tuple"]),
    (read_only(np.zeros(OUT_SHAPE)), ValueError, ["out is read-only"]),
    (np.lib.stride_tricks.as_strided(np.zeros(OUT_SHAPE), OUT_SHAPE, (0, 192, 48, 8)), ValueError, ["share memory"]),
], ids=lambda value: f"{type(value).__name__}{getattr(value, 'dtype', '')}{getattr(value, 'shape', '')}")
def test_out_refused(out, error, words):
    with pytest.raises(error) as caught:
        convolve(X, KERNEL, out=out)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, str(caught.value)
    assert not np.any(out)


OVERLAPS = {  # a place in a buffer for out, from the place of an input of the same shape
    "the same": lambda buffer, size: buffer[:size],
    "shifted by one": lambda buffer, size: buffer[1 : size + 1],
    "shifted by many": lambda buffer, size: buffer[size // 2 : size // 2 + size],
    "reversed": lambda buffer, size: buffer[:size][::-1],
    "every second": lambda buffer, size: buffer[: 2 * size : 2],
}


@pytest.mark.parametrize("place", OVERLAPS.values(), ids=OVERLAPS)
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_out_overlaps_an_input(kernels, place, activation, dtype):
    """x, kernel and bias in turn, all of 9 channels or elements and more: the result is as if they were apart."""
    kernel, x, bias = (oracle.integers(shape, 4, 3).astype(dtype) for shape in ((3, 3, 9), (3, 3, 9), (9,)))
    options = {"padding": "same", "activation": activation}
    image, centre = np.ascontiguousarray(x), np.zeros((9, 9), dtype)
    centre[4, 4] = 1
    for target, (x_, kernel_, bias_) in {"x": (image, kernel, bias), "kernel": (x, kernel, bias)}.items():
        expected = convolve(x_, kernel_, bias_, **options)
        buffer = np.zeros(x.size * 2 + 1, dtype)
        buffer[: x.size] = {"x": x_, "kernel": kernel_}[target].ravel()
        shared, out = buffer[: x.size].reshape(x.shape), place(buffer, x.size).reshape(x.shape)
        y = convolve(*(shared, kernel_, bias_) if target == "x" else (x_, shared, bias_), **options, out=out)
        assert y is out
        assert out.tobytes() == expected.tobytes(), f"out over {target}"
    pixel, buffer = x[:1, :1], np.zeros(19, dtype)
    buffer[:9] = bias
    expected, out = convolve(pixel, centre[4:5, 4:5], bias, **options), place(buffer, 9).reshape(1, 1, 9)
    convolve(pixel, centre[4:5, 4:5], buffer[:9], **options, out=out)
    assert out.tobytes() == expected.tobytes(), "out over bias"


def test_out_that_overlaps_itself(kernels):
    """As if the result were assigned to it, and nothing is written outside."""
    written, expected = np.full(200, SENTINEL), np.full(200, SENTINEL)
    views = [np.lib.stride_tricks.as_strided(whole[20:], OUT_SHAPE, (80, 40, 48, 8)) for whole in (written, expected)]
    convolve(X, KERNEL, out=views[0])
    np.copyto(views[1], oracle.conv(X, KERNEL))
    np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_out_misaligned(kernels, dtype):
    """And of an odd distance between the elements."""
    size = int(np.prod(OUT_SHAPE))
    memory = np.zeros(size * dtype.itemsize + 1, np.uint8)
    record = np.zeros(OUT_SHAPE, [("tag", "u1"), ("value", dtype)])
    for out in (memory[1:].view(dtype).reshape(OUT_SHAPE), record["value"]):
        assert convolve(X.astype(dtype), KERNEL.astype(dtype), out=out) is out
        np.testing.assert_array_equal(out, oracle.conv(X, KERNEL).astype(dtype))
    assert not record["tag"].any()


def test_result_belongs_to_the_caller(kernels):
    """A new array at every call, which shares nothing with inputs or earlier results."""
    x, kernel = np.ones((4, 4, 1), np.float32), np.ones((1, 1), np.float32)
    first, second = convolve(x, kernel), convolve(x, kernel)
    assert first.flags.owndata or first.base.base is None
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations((x, kernel, first, second), 2))
    assert first.flags.writeable


def test_nothing_is_kept(kernels):
    """Neither a call nor an error keeps a reference to its arrays."""
    x, kernel, out = X.copy(), KERNEL.copy(), np.empty(OUT_SHAPE)
    before = [sys.getrefcount(a) for a in (x, kernel, out)]
    for options in ({"out": out}, {"activation": np.tanh}):
        dwconv.depthwise_conv2d(x, kernel, **options)
    for options in ({"strides": 0}, {"out": x}, {"activation": lambda y: y[0]}):
        with pytest.raises(ValueError, match=r"strides|shape"):
            dwconv.depthwise_conv2d(x, kernel, **options)
    assert [sys.getrefcount(a) for a in (x, kernel, out)] == before


def test_rounding_is_quiet():
    """Whatever NumPy's error state: results too small and too large for float16."""
    x = np.array([1e-4, 6e4], np.float16).reshape(1, 1, 2, 1)
    with np.errstate(all="raise"):
        for out in (None, np.empty(x.shape, np.float16)):
            y = dwconv.depthwise_conv2d(x, np.full((1, 1), 2**-12, np.float16), out=out)
            z = dwconv.depthwise_conv2d(x, np.full((1, 1), 4, np.float16), out=out)
    assert y.dtype == z.dtype == np.float16
    assert z[0, 0, 1, 0] == np.inf


@pytest.mark.parametrize("value", [np.ones((8, 32, 32, 8)), np.ones((8, 32, 32, 8)).tolist(), np.ones(10**5)],
                         ids=["4-D", "list", "1-D"])
def test_arrays_in_the_place_of_options(value):
    """An easy mistake, x for its shape: the answer is short, whatever was given."""
    x, kernel = np.ones((1, 5, 5, 1)), np.ones((3, 3, 1, 1))
    calls = [lambda: dwconv.depthwise_conv2d_input_grad(x, kernel, value),
             lambda: dwconv.depthwise_conv2d_kernel_grad(x, x, value)]
    calls += [lambda option=option: dwconv.depthwise_conv2d(x, kernel, **{option: value})
              for option in ("strides", "padding", "dilation_rate", "data_format", "workers")]
    calls += [lambda: dwconv.DepthwiseConv2D(value), lambda: dwconv.DepthwiseConv2D(3).build(value)]
    for call in calls:
        with pytest.raises((TypeError, ValueError)) as error:
            call()
        assert len(str(error.value)) < 300
