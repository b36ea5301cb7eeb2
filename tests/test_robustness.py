"""Bad and edge inputs of the three functions, by the rows of the project's robustness notes, which test_robustness_rows.py lists.

Here is what no other file has: the gradients and channels_first beside the forward, arguments so large that a message could fail
on them, arrays of other libraries, sizes that no memory holds, code of the caller's that runs between a check and a call.
Whatever is refused is refused before `out` is written, an input is changed or a result is allocated, in one short sentence that
names the argument.  The layer is in test_robustness_layer.py; nothing is tested here that another file tests already.
"""

import ctypes
import ctypes.util
import faulthandler
import gc
import itertools
import pathlib
import platform
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import oracle
import pytest
import scipy.sparse
from test_functional import FORMS, INTEGERS, Array, Dask, Index, matrix
from test_kernels import LAYOUTS, layout

import dwconv

# ---- calls ----

CANARY = -77.0
FORWARD, INPUT_GRAD, KERNEL_GRAD = (
    dwconv.depthwise_conv2d, dwconv.depthwise_conv2d_input_grad, dwconv.depthwise_conv2d_kernel_grad)
ARGUMENTS = {  # of a function, by position
    FORWARD: ("x", "kernel", "bias"), INPUT_GRAD: ("grad", "kernel", "input_shape"), KERNEL_GRAD: ("x", "grad", "kernel_size")}
GRADIENTS = (INPUT_GRAD, KERNEL_GRAD)
GOOD = {
    "x": oracle.integers((2, 5, 6, 3), 1, 3), "kernel": oracle.integers((3, 3, 3, 2), 2, 3), "bias": oracle.integers((6,), 3, 3),
    "grad": oracle.integers((2, 3, 4, 6), 4, 3), "input_shape": (2, 5, 6, 3), "kernel_size": (3, 3)}
both_layouts = pytest.mark.parametrize("data_format", LAYOUTS)


def arranged(name, value, data_format):
    """An argument in a layout; GOOD and the tables are channels_last."""
    if data_format == "channels_first" and name == "input_shape" and len(value) == 4:
        return tuple(value[axis] for axis in (0, 3, 1, 2))
    if data_format == "channels_first" and name in ("x", "grad") and type(value) is np.ndarray and value.ndim == 4:
        return layout(value, data_format)
    return value


def result_shape(function, data_format):
    return arranged("x", GOOD[{FORWARD: "grad", INPUT_GRAD: "x", KERNEL_GRAD: "kernel"}[function]],
                    data_format if function is not KERNEL_GRAD else "channels_last").shape


def call(function, changes, data_format="channels_last", base=GOOD, **options):
    """A call of GOOD arguments but for the changes, of which those that are no positional arguments are options."""
    positional = [arranged(name, {**base, **changes}[name], data_format) for name in ARGUMENTS[function]]
    return function(*positional, **{"data_format": data_format, **options, **{k: v for k, v in changes.items() if k not in GOOD}})


def refused(function, changes, error, pattern, data_format="channels_last"):
    """The call raises that error, with a short text of one line, and neither `out` nor an input is written."""
    out = np.full(result_shape(function, data_format), CANARY)
    watched = [a for a in (*GOOD.values(), *changes.values()) if type(a) is np.ndarray and a.dtype.kind != "O"]
    before = [a.tobytes() for a in watched]
    for _ in range(2):  # nothing that is kept lets it pass the second time
        with pytest.raises(error, match=pattern or None) as caught:
            call(function, {"out": out, **changes}, data_format)
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)
    assert (out == CANARY).all()
    assert [a.tobytes() for a in watched] == before


# ---- options ----

LONG, WIDE, DEEP = 10**5000, [1] * 10**5, "x" * 10**5  # an integer that str() refuses; a list and a string
OPTIONS = [  # row, option, values, error, pattern; for all functions but where test_functional has the table
    *[(28, name, [LONG, -LONG, (LONG, 1), [1, -LONG]], ValueError, f"{name} must be at least 1 and fit 64 bits")
      for name in ("strides", "dilation_rate")],
    *[(32, name, [WIDE, range(10**5), DEEP, DEEP.encode()], (TypeError, ValueError), name)
      for name in ("strides", "dilation_rate")],
    (24, "dilation_rate", [2**31, 2**62, (1, 2**62), 2**63 - 1], ValueError, r"dilation_rate \d+\).*the limit of 2\*\*31"),
    (24, "dilation_rate", [2**63, 10**30], ValueError, "dilation_rate .*64 bits"),
    (39, "padding", ["full", "causal", "", "same ", DEEP], ValueError, 'padding must be "valid", "same"'),
    (39, "padding", [b"same", None, 1.0, True, ("same", "same"), {1, 2}], TypeError, "padding (takes|must be) .*an integer"),
    (40, "padding", [-1, (0, -2), ((1, -3), (0, 0)), -LONG], ValueError, "padding must be at least 0"),
    (40, "padding", [(1, 2, 3), ((1, 2, 3), (1, 1))], ValueError, "padding must be .*an integer.*, got 3 of them"),
    (40, "padding", [(1, 1.0), ((1, 1.0), (0, 0)), np.ones((2, 2)), (1, (2, 3))], TypeError, "padding"),
    (40, "padding", [2**31, 2**62, ((0, 2**31), (0, 0))], ValueError, r"with padding .*beyond the limit of 2\*\*31"),
    (40, "padding", [2**63, 10**30, LONG], ValueError, "padding must be at least 0 and fit 64 bits"),
    (41, "data_format", ["NHWC", "NCHW", "Channels_Last", "x", "", DEEP], ValueError, 'data_format must be "channels_last" or'),
    (41, "data_format", [None, 1, LONG, b"channels_last", WIDE], TypeError, "data_format must be a string"),
    (89, "out", [0.0, [[0.0]], (), WIDE, type("L" * 10**5, (), {})()], TypeError, "out must be a NumPy array, not "),
    (85, "out", [np.zeros((1, 1), [(f"field{n}", "f4") for n in range(1000)])], ValueError, "out has shape"),
    (101, "workers", [-LONG, -(10**30)], ValueError, "workers must not be 0, nor below"),
    (101, "workers", [[LONG], WIDE, DEEP, 2.0], TypeError, "workers must be an integer or None"),
]


@both_layouts
@pytest.mark.parametrize(("row", "option", "values", "error", "pattern"), OPTIONS,
                         ids=[f"row {row}, {option}" for row, option, *_ in OPTIONS])
def test_bad_options(row, option, values, error, pattern, data_format):
    for function, value in itertools.product(ARGUMENTS, values):
        refused(function, {option: value}, error, pattern, data_format)


@both_layouts
@pytest.mark.parametrize("option", ["strides", "dilation_rate", "kernel_size"])
def test_bad_integers(option, data_format):
    """test_functional's table, which it goes through with the forward: here the gradients' turn."""
    for value, error, words in INTEGERS:
        for function in (KERNEL_GRAD,) if option == "kernel_size" else GRADIENTS:
            pattern = "" if error is ZeroDivisionError or not words else ".*".join([option, *map(re.escape, words)])
            refused(function, {option: value}, error, pattern, data_format)


def test_bad_dtype_of_out():
    """Its name is not written out where it is long."""
    for function in ARGUMENTS:
        for dtype in (np.float32, int, bool, complex, [(f"field{n}", "f4") for n in range(1000)]):
            out = np.zeros(result_shape(function, "channels_last"), dtype)
            refused(function, {"out": out}, TypeError, r"out has dtype .{,80}, but the result has dtype float64")


LARGE = {"x": np.broadcast_to(np.ones(4), (1, 512, 512, 4)), "kernel": np.ones((3, 3, 4, 1)), "bias": np.ones(4),
         "grad": np.broadcast_to(np.ones(4), (1, 510, 510, 4)), "input_shape": (1, 512, 512, 4), "kernel_size": 3}


def test_nothing_is_allocated():
    """No bad option costs memory: results, or copies of inputs, would be 8 MB here.  (A list of 10**5 is large itself.)"""
    tracemalloc.start()
    try:
        call(INPUT_GRAD, {}, base=LARGE)
        assert tracemalloc.get_traced_memory()[1] > 8e6, "not measured"
        rows = [(option, value, error) for _, option, values, error, _ in OPTIONS for value in values if value is not WIDE]
        rows += [(name, np.broadcast_to(np.zeros((), dtype), LARGE[name].shape), TypeError)
                 for name in ("x", "grad") for dtype in (complex, "S3", "M8[s]", "V2", object)]
        for function, (number, (option, value, error)) in itertools.product(ARGUMENTS, enumerate(rows)):
            if option in GOOD and option not in ARGUMENTS[function]:
                continue
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(error):
                call(function, {option: value}, base=LARGE)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 4e6, f"{function.__name__}, {option}, {peak} bytes for row {number}"
    finally:
        tracemalloc.stop()


SPELLINGS = [  # rows 31, 38, 40: an option in another form, and the plain one
    ("strides", [np.int64(1), np.uint8(1), np.array(1), [1, 1], np.array([1, 1], np.int16), Index(1), (Index(1), np.int8(1))], 1),
    ("dilation_rate", [[1, np.int8(1)], np.array([1, 1]), Index(1)], 1),
    ("padding", ["VALID", "Valid", np.str_("valid"), Index(0), [0, 0], np.array([0, 0]), [[0, 0], [0, 0]], np.zeros((2, 2), int),
                 ((0, 0), [np.int32(0), 0])], "valid"),
    ("workers", [np.int64(2), np.array(2), Index(2), 10**6, 2**70, -1], None),
]


@both_layouts
@pytest.mark.parametrize(("option", "values", "plain"), SPELLINGS, ids=[option for option, *_ in SPELLINGS])
def test_spellings(option, values, plain, data_format):
    for function in GRADIENTS:
        expected = call(function, {option: plain}, data_format)
        for value in values:
            np.testing.assert_array_equal(call(function, {option: value}, data_format), expected, strict=True)


# ---- arrays ----

def ones(*shape):
    return np.ones(shape)


@both_layouts
@pytest.mark.parametrize(("function", "changes", "pattern"), [
    # rows 2, 4, 16, 17, 19, 93, and long ones
    (KERNEL_GRAD, {"x": ones(2, 5, 6, 0)}, "grad has 6 channels, which is no multiple of the 0 of x"),
    (KERNEL_GRAD, {"x": ones(2, 5, 6, 0), "grad": ones(2, 3, 4, 0)}, "grad has 0 channels"),
    (KERNEL_GRAD, {"x": ones(2, 0, 6, 3)}, "output size would be zero or negative: height 0"),
    (KERNEL_GRAD, {"x": ones(2, 5, 0, 3)}, "output size would be zero or negative: width 0"),
    (INPUT_GRAD, {"input_shape": (2, 5, 0, 3)}, "output size would be zero or negative: width 0"),
    *[(function, {name: np.ones((1,) * axes)}, rf"{name} must have 4 dimensions.*\(N, [HC], .*; got")
      for function, name in ((INPUT_GRAD, "grad"), (KERNEL_GRAD, "grad"), (KERNEL_GRAD, "x")) for axes in (0, 1, 2, 3, 5, 64)],
    *[(INPUT_GRAD, {"input_shape": (1,) * axes}, "input_shape must have 4 dimensions") for axes in (0, 1, 3, 5, 10**5)],
    (FORWARD, {"x": np.ones((1,) * 64)}, "x must have 4 dimensions"),
    *[(function, {"kernel": np.ones((1,) * 64)}, "kernel must have shape") for function in (FORWARD, INPUT_GRAD)],
    (INPUT_GRAD, {"kernel": ones(3, 3, 1, 2)}, "input_shape has 3 channels but kernel has 1"),
    (INPUT_GRAD, {"kernel": ones(3, 3, 1, 6)}, "input_shape has 3 channels but kernel has 1"),
    (FORWARD, {"bias": np.ones((1,) * 64)}, r"bias must have shape \(6,\)"),
    (INPUT_GRAD, {"input_shape": (LONG, 5, 6, 3)}, "input_shape must hold sizes"),
    (INPUT_GRAD, {"input_shape": [2**62] * 10**5}, "input_shape must have 4 dimensions"),
], ids=lambda value: getattr(value, "__name__", None))
def test_bad_shapes(function, changes, pattern, data_format):
    refused(function, changes, ValueError, pattern, data_format)


class DaskByName:
    """Of a module of dask's, and nothing else of it: dask is not imported."""

    __module__ = "dask.array.core"


def ragged(a):
    return [[1.0], [2.0, 3.0]]


REFUSED_BY_ALL = [  # row, what is made of a good array, error, pattern with the argument's name; the forward's are elsewhere
    (59, lambda a: a.astype(object), TypeError, r"object \({name}\)"),
    (59, lambda a: a.astype(str), TypeError, r"str\d+ \({name}\)|must be float32.*{name}"),
    (59, lambda a: a.astype("S9"), TypeError, r"bytes\d+ \({name}\)"),
    (59, lambda a: np.zeros(a.shape, "M8[s]"), TypeError, r"datetime64\[s\] \({name}\)"),
    (59, lambda a: np.zeros(a.shape, "V4"), TypeError, r"void32 \({name}\)"),
    (60, lambda a: a.astype(np.complex64), TypeError, r"complex64 \({name}\)"),
    (60, lambda a: a.astype(complex), TypeError, r"complex128 \({name}\)"),
    (67, lambda a: matrix([[1.0]]), TypeError, "{name} must not be a matrix"),
    (68, np.ma.masked_array, TypeError, "{name} must not be a MaskedArray: its mask"),
    (72, lambda a: scipy.sparse.csr_array(np.eye(3)), TypeError, "{name} is a sparse matrix.*toarray"),
    (71, Dask, TypeError, "{name} is a dask array: use dwconv.dask.depthwise_conv2d"),
]
REFUSED_ALWAYS = [  # likewise, of all functions
    (59, lambda a: np.zeros(a.shape, "m8[s]"), TypeError, r"timedelta64\[s\] \({name}\)"),
    (59, lambda a: np.zeros(a.shape, [(f"field{n}", "f4") for n in range(1000)]), TypeError, r"void32000 \({name}\)"),
    (59, lambda a: LONG, TypeError, r"object \({name}\)"),
    (59, lambda a: DEEP, TypeError, r"str\d+ \({name}\)"),
    (59, lambda a: np.float64, TypeError, r"object \({name}\)"),
    (66, ragged, ValueError, "{name} is a list that makes no array.*inhomogeneous"),
    (66, lambda a: tuple(ragged(a)), ValueError, "{name} is a list that makes no array.*inhomogeneous"),
    *[(69, lambda a, answer=answer: Array(answer), TypeError, r"{name}: Array.__array__\(\) returned no array but")
      for answer in ("nothing", None, 3.0, [1.0], DEEP, LONG)],
    (69, lambda a: Array(np.ma.masked_array(a)), TypeError, "{name} must not be a MaskedArray: its mask"),
    (69, lambda a: Array(ValueError("mine")), ValueError, "^mine$"),
    (70, lambda a: Array(RuntimeError("Can't call numpy() on Tensor that requires grad")), RuntimeError, "requires grad"),
    (70, lambda a: Array(TypeError("Implicit conversion to a NumPy array is not allowed")), TypeError, "Implicit conversion"),
    (71, lambda a: DaskByName(), TypeError, "{name} is a dask array: use dwconv.dask.depthwise_conv2d"),
    (68, lambda a: [np.ma.masked_array(image) for image in a], TypeError, "{name} must not be a MaskedArray: its mask"),
    (71, lambda a: [a[0], [DaskByName()]], TypeError, "{name} is a dask array"),
]
if np.finfo(np.longdouble).eps != np.finfo(float).eps:  # where it is a double it is one
    REFUSED_BY_ALL.append((64, lambda a: a.astype(np.longdouble), TypeError, r"(longdouble|float\d+) \({name}\)"))


@both_layouts
@pytest.mark.parametrize(("functions", "row", "make", "error", "pattern"), [
    *[(GRADIENTS, *row) for row in REFUSED_BY_ALL], *[(tuple(ARGUMENTS), *row) for row in REFUSED_ALWAYS],
], ids=lambda value: str(value) if isinstance(value, int) else "")
def test_bad_arrays(functions, row, make, error, pattern, data_format):
    for function in functions:
        for name in ARGUMENTS[function]:
            if name not in ("input_shape", "kernel_size"):
                value = make(arranged(name, GOOD[name], data_format))
                refused(function, {name: value}, error, pattern.replace("{name}", name), data_format)


def test_dask_is_never_computed():
    """Neither a dask array nor an xarray object that holds one."""
    dask_array, xarray = pytest.importorskip("dask.array"), pytest.importorskip("xarray")

    def fail(block):
        raise AssertionError("computed")

    for name, function in (("x", FORWARD), ("kernel", FORWARD), ("bias", FORWARD), ("grad", INPUT_GRAD), ("x", KERNEL_GRAD)):
        lazy = dask_array.from_array(GOOD[name]).map_blocks(fail, dtype=float, meta=np.empty((0,) * GOOD[name].ndim))
        for value in (lazy, xarray.DataArray(lazy)):
            refused(function, {name: value}, TypeError, f"{name} is a dask array: use dwconv.dask.depthwise_conv2d")


@both_layouts
def test_other_libraries(data_format):
    """xarray's arrays in memory and pandas' frames are arrays, and plain arrays come out."""
    xarray, pandas = pytest.importorskip("xarray"), pytest.importorskip("pandas")
    for function in ARGUMENTS:
        expected = call(function, {}, data_format)
        for name in ARGUMENTS[function][:2]:
            value = xarray.DataArray(arranged(name, GOOD[name], data_format))
            result = call(function, {name: value}, data_format)
            assert type(result) is np.ndarray
            np.testing.assert_array_equal(result, expected, strict=True)
    kernel = GOOD["kernel"][:, :, 0, 0]
    expected = call(FORWARD, {"kernel": kernel, "bias": None})
    np.testing.assert_array_equal(call(FORWARD, {"kernel": pandas.DataFrame(kernel), "bias": None}), expected, strict=True)


def test_torch():
    """Tensors on the CPU are arrays; torch's own error for one that would lose its gradient."""
    torch = pytest.importorskip("torch")
    for function in ARGUMENTS:
        name = ARGUMENTS[function][0]
        tensor = torch.tensor(GOOD[name])
        np.testing.assert_array_equal(call(function, {name: tensor}), call(function, {}), strict=True)
        refused(function, {name: tensor.requires_grad_()}, RuntimeError, "requires grad")


class Interface:
    def __init__(self, changes):
        array = np.ones((1, 5, 5, 3))
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, **changes} if isinstance(changes, dict) else changes


@pytest.mark.parametrize("changes", [
    {"shape": (1, -5, 5, 3)}, {"shape": (2**40, 2**40)}, {"shape": "x"}, {"strides": (1,)}, {"typestr": "<q9"}, {"typestr": "|O"},
    {"data": None}, 3, {}.keys(),
], ids=str)
def test_interfaces_that_lie(changes):
    """NumPy's own errors: no pointer of such an object is used here."""
    assert call(FORWARD, {"x": Interface({})}).shape == (1, 3, 3, 6)
    refused(FORWARD, {"x": Interface(changes)}, (TypeError, ValueError), "")
    refused(KERNEL_GRAD, {"grad": Interface(changes)}, (TypeError, ValueError), "")


def windows(a):
    """Row 58: an array that overlaps itself, as windows that slide do."""
    return np.lib.stride_tricks.as_strided(a, a.shape, [a.itemsize * n for n in (1, 2, 5, 1)])


@pytest.mark.parametrize("form", [*FORMS.values(), windows], ids=[*FORMS, "windows"])
@both_layouts
def test_forms(form, data_format):
    """test_functional's forms of memory, for the gradients: as of a plain copy, and inputs stay as they were."""
    for function in GRADIENTS:
        for name in ARGUMENTS[function][:2]:
            arrays = {key: arranged(key, value, data_format) for key, value in GOOD.items()}
            arrays[name] = form(arrays[name].astype(np.float32))
            plain = np.array(arrays[name], float if isinstance(arrays[name], list) else np.float32)
            result = function(*[arrays[key] for key in ARGUMENTS[function]], data_format=data_format)
            assert type(result) is np.ndarray
            expected = function(*[{**arrays, name: plain}[key] for key in ARGUMENTS[function]], data_format=data_format)
            np.testing.assert_array_equal(result, expected, strict=True)
            np.testing.assert_array_equal(np.array(arrays[name]), plain)


# ---- sizes that no memory holds ----

def huge(*shape):
    """Ones, of which one is in memory."""
    return np.broadcast_to(np.ones((), np.float32), shape)


@pytest.mark.parametrize(("function", "arguments", "options", "pattern"), [
    (FORWARD, (huge(2**31, 2**29, 1, 1), huge(1, 1)), {"padding": "same"}, r"result of shape \(2147483648, 536870912, 1, 1\)"),
    (FORWARD, (huge(1, 5, 5, 3), huge(3, 3)), {"padding": 2**31 - 1}, r"result of shape \(1, 4294967297, 4294967297, 3\)"),
    (FORWARD, (huge(2**40, 5, 5, 3), huge(3, 3)), {"padding": 2**31 - 1}, r"result of shape \(1099511627776, 4294967297, "),
    (FORWARD, (huge(1, 2**20, 2**20, 1), huge(1, 1, 1, 2**30)), {}, r"result of shape \(1, 1048576, 1048576, 1073741824\)"),
    (FORWARD, (huge(0, 5, 5, 3), huge(3, 3)), {"padding": 2**31 - 1}, r"result of shape \(0, 4294967297, 4294967297, 3\)"),
    (INPUT_GRAD, (huge(1, 1, 1, 1), huge(1, 1, 1, 1), (1, 2**62, 2**62, 1)), {"strides": 2**62},
     r"input_shape: a result of shape \(1, 4611686018427387904, "),
    (INPUT_GRAD, (huge(0, 1, 1, 1), huge(1, 1, 1, 1), (0, 2**62, 2**62, 1)), {"strides": 2**62}, r"input_shape: .*\(0, "),
    (INPUT_GRAD, (huge(1, 1, 1, 1), huge(1, 1, 1, 1), (2**63 - 1,) * 4), {}, "input_shape: a result of shape"),
    (KERNEL_GRAD, (huge(1, 1, 1, 3), huge(1, 1, 1, 3), 2**31 - 1), {"padding": "same"},
     r"kernel_size: a result of shape \(2147483647, 2147483647, 3, 1\)"),
    (KERNEL_GRAD, (huge(0, 1, 1, 3), huge(0, 1, 1, 3), 2**62), {"padding": "same"}, "kernel_size: a result of shape"),
], ids=str)
def test_beyond_memory(function, arguments, options, pattern):
    """Rows 21 and 22: what no Py_ssize_t counts the bytes of is a ValueError with the sizes, before anything is allocated."""
    with pytest.raises(ValueError, match=f"{pattern}.* would be larger than any memory") as caught:
        function(*arguments, **options)
    assert len(str(caught.value)) < 500


# ---- code of the caller's that runs in the middle ----

class Changes:
    """An integer that makes an array smaller when it is asked for."""

    def __init__(self, array, number):
        self.array, self.number = array, number

    def __index__(self):
        self.array.resize((1, *self.array.shape[1:]), refcheck=False)
        return self.number


def activation(change):
    """A class, of which the function makes an object before it computes."""

    class Activation:
        def __init__(self):
            change.__index__()

        def __call__(self, y):
            return y

    return Activation


@pytest.mark.parametrize(("function", "option"), [
    *itertools.product(ARGUMENTS, ("strides", "dilation_rate", "workers")),
    (FORWARD, "activation"), (INPUT_GRAD, "input_shape"), (KERNEL_GRAD, "kernel_size"),
], ids=lambda value: getattr(value, "__name__", value))
def test_arguments_that_change_arrays(function, option):
    """Row 33: shapes are looked at after the last code that is not ours, so what they have become counts, and is refused."""
    for name in (*ARGUMENTS[function], "out"):
        own = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in GOOD.items()}
        own["out"] = np.zeros(result_shape(function, "channels_last"))
        if isinstance(own[name], np.ndarray):
            change = Changes(own[name], 3 if option in own else 1)
            values = {"input_shape": (2, 5, 6, change), "kernel_size": change, "activation": activation(change)}
            with pytest.raises(ValueError, match="shape"):
                call(function, {"out": own["out"], option: values.get(option, change)}, base=own)
            assert own[name].shape[0] == 1, "not changed"
            assert not own["out"].any()


# ---- values ----

@both_layouts
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subnormal_gradients(kernels, data_format, dtype):
    """Row 79: not flushed to zero; sums of multiples of the smallest number are exact."""
    tiny = np.finfo(dtype).smallest_subnormal
    base = {name: value.astype(dtype) if isinstance(value, np.ndarray) else value for name, value in GOOD.items()}
    for function, name in ((INPUT_GRAD, "grad"), (INPUT_GRAD, "kernel"), (KERNEL_GRAD, "x"), (KERNEL_GRAD, "grad")):
        expected = call(function, {}, data_format, base) * tiny
        assert expected.any()
        np.testing.assert_array_equal(call(function, {name: base[name] * tiny}, data_format, base), expected, strict=True)


ENVIRONMENT = platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not ENVIRONMENT, reason="knows where glibc keeps the control register on x86-64 only")
@pytest.mark.parametrize("control", [0x1F80, 0x9FC0, 0x5F80], ids=["default", "flush to zero", "round up"])
def test_floating_point_environment(kernels, threaded, control):
    """Row 79: the control bits of this thread are after a call what they were, whatever another library made of them."""
    libm, environment = ctypes.CDLL(ctypes.util.find_library("m")), (ctypes.c_uint32 * 8)()

    def bits():
        assert libm.fegetenv(environment) == 0
        return environment[7] & 0xFFC0  # MXCSR without its flags

    usual = bits()
    try:
        environment[7] = control
        assert libm.fesetenv(environment) == 0
        after = []
        for function, data_format in itertools.product(ARGUMENTS, LAYOUTS):
            call(function, {}, data_format, workers=2)
            after.append(bits())
    finally:
        environment[7] = usual
        libm.fesetenv(environment)
    assert set(after) == {control & 0xFFC0}


@both_layouts
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overflow_of_gradients_is_quiet(kernels, data_format, dtype):
    """Row 81: infinities and NaN as in IEEE arithmetic, and no warning (which would be an error)."""
    for function in GRADIENTS:
        large = {name: np.full(value.shape, np.finfo(dtype).max, dtype) if isinstance(value, np.ndarray) else value
                 for name, value in GOOD.items()}
        assert np.isposinf(call(function, {}, data_format, large)).any()
        large[ARGUMENTS[function][0]][...] = np.inf
        large[ARGUMENTS[function][1]][0] *= -1
        assert np.isnan(call(function, {}, data_format, large)).any()


# ---- around a call ----

def observers():
    """Names of what may watch a program: how to start it, how to end it."""
    thresholds, trace, profile, handler = gc.get_threshold(), sys.gettrace(), sys.getprofile(), faulthandler.is_enabled()
    yield "collector", lambda: gc.set_threshold(1), lambda: gc.set_threshold(*thresholds)
    yield "tracemalloc", lambda: tracemalloc.start(25), tracemalloc.stop
    yield "settrace", lambda: sys.settrace(lambda *event: lambda *event: None), lambda: sys.settrace(trace)
    yield "setprofile", lambda: sys.setprofile(lambda *event: None), lambda: sys.setprofile(profile)
    yield "faulthandler", faulthandler.enable, lambda: None if handler else faulthandler.disable()


@pytest.mark.parametrize("number", range(5))
def test_observed_calls(kernels, threaded, number):
    """Row 117: debuggers, profilers and the collector see a call, and change nothing."""
    _, start, stop = list(observers())[number]
    expected = [call(function, {}, data_format).tobytes() for function in ARGUMENTS for data_format in LAYOUTS]
    start()
    try:
        seen = [call(function, {}, data_format, workers=3).tobytes() for function in ARGUMENTS for data_format in LAYOUTS]
        with pytest.raises(ValueError, match="strides"):
            call(FORWARD, {"strides": 0})
    finally:
        stop()
    assert seen == expected


def test_environment_of_the_interpreter(monkeypatch):
    """Row 134: the variables that change how Python starts and what it warns of."""
    code = "import numpy as np, dwconv; print(dwconv.DepthwiseConv2D(3)(np.ones((1, 3, 3, 1))).shape)"
    names = {"PYTHONHASHSEED": "1", "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "PYTHONDEVMODE": "1",
             "PYTHONMALLOC": "debug", "LC_ALL": "C", "PYTHONPATH": str(pathlib.Path(dwconv.__file__).parents[1])}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("(1, 1, 1, 1)\n", "")
