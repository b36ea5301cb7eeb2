"""Bad and edge inputs of the layer and of what it reads, by the rows of the project's robustness notes (test_robustness_rows.py).

As in test_robustness.py: what no other file has, above all arguments so large that a message could fail on them, and arrays of
other libraries.  A refusal leaves the layer, its weights and the input as they were, and is one short sentence.
"""

import itertools
import json
import os
import sys
import warnings

import numpy as np
import oracle
import pytest
import scipy.sparse
from test_functional import FORMS, Array, Dask, Index, matrix
from test_robustness import DEEP, LONG, WIDE, DaskByName, ragged

import dwconv
from dwconv import DepthwiseConv2D, _keras_config

X = oracle.integers((2, 5, 6, 3), 1, 3, np.float32)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty folder in the place of ~/.keras, and no warning given yet."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(_keras_config, "_warned", set())
    return tmp_path


class Overridden(DepthwiseConv2D):
    """Bias and activation are added by the layer here, not in the kernel."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel)

    def convolution_op_vjp(self, inputs, kernel):
        return super().convolution_op_vjp(inputs, kernel)


def built(cls=DepthwiseConv2D, **options):
    layer = cls(3, **options)
    layer(X)
    return layer


def state(layer):
    return layer.built, layer.get_build_config(), [weight.tobytes() for weight in layer.weights], layer.losses


def refused(layer, attempt, error, pattern, most=500):
    """The attempt on the layer raises that error with a short text of one line, and the layer is as it was."""
    before = state(layer)
    with pytest.raises(error, match=pattern) as caught:
        attempt(layer)
    assert len(str(caught.value)) < most
    assert "\n" not in str(caught.value)
    assert state(layer) == before


# ---- inputs ----

INPUTS = [  # row, inputs, error, pattern
    (2, lambda: X[..., :0], ValueError, "number of channels must be positive|takes inputs with 4 axes and 3 channels"),
    (4, lambda: X[:, :0], ValueError, "zero or negative: height 0"),
    (4, lambda: X[:, :, :0], ValueError, "zero or negative: width 0"),
    (7, lambda: X[:, :, :2], ValueError, "zero or negative: width 2 .* the kernel's 3"),
    (16, lambda: np.ones((1,) * 64), ValueError, "4 axes"),
    (59, lambda: np.zeros(X.shape, "m8[s]"), TypeError, r"`inputs` must be real numbers.*timedelta64"),
    (59, lambda: np.zeros(X.shape, [(f"field{n}", "f4") for n in range(1000)]), TypeError, "`inputs` must be real numbers"),
    (59, lambda: LONG, TypeError, "`inputs` must be real numbers.*object"),
    (59, lambda: DEEP, TypeError, "`inputs` must be real numbers.*U"),
    (66, lambda: ragged(X), ValueError, "inputs is a list that makes no array.*inhomogeneous"),
    (67, lambda: matrix([[1.0]]), TypeError, "inputs must not be a matrix"),
    (68, lambda: np.ma.masked_array(X), TypeError, "inputs must not be a MaskedArray: its mask"),
    *[(69, lambda answer=answer: Array(answer), TypeError, r"inputs: Array.__array__\(\) returned no array but")
      for answer in ("nothing", None, LONG)],
    (69, lambda: Array(np.ma.masked_array(X)), TypeError, "inputs must not be a MaskedArray: its mask"),
    (70, lambda: Array(RuntimeError("Can't call numpy()")), RuntimeError, "Can't call"),
    (71, lambda: Dask(X), TypeError, "inputs is a dask array: use dwconv.dask.depthwise_conv2d"),
    (71, DaskByName, TypeError, "inputs is a dask array: use dwconv.dask.depthwise_conv2d"),
    (72, lambda: scipy.sparse.csr_array(np.eye(3)), TypeError, "inputs is a sparse matrix.*toarray"),
]


@pytest.mark.parametrize(("row", "make", "error", "pattern"), INPUTS, ids=[f"row {row}" for row, *_ in INPUTS])
def test_bad_inputs(row, make, error, pattern):
    """A call and vjp, on a layer that they would build and on one that is built, in both layouts."""
    for data_format, is_built in itertools.product(("channels_last", "channels_first"), (False, True)):
        last = data_format == "channels_last"
        value = make()
        value = value if last or not isinstance(value, np.ndarray) or value.ndim != 4 else np.moveaxis(value, -1, 1)
        layer = DepthwiseConv2D(3, data_format=data_format, depthwise_regularizer="l2")
        if is_built:
            layer(X if last else np.moveaxis(X, -1, 1))
        before = value.tobytes() if isinstance(value, np.ndarray) else None
        refused(layer, lambda layer, value=value: layer(value), error, pattern)
        refused(layer, lambda layer, value=value: layer.vjp(value), error, pattern)
        assert before is None or value.tobytes() == before


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_inputs(form):
    """test_functional's forms of memory: the same bits, and the input stays as it was."""
    layer = built(padding="same", depth_multiplier=2, activation="tanh")
    plain = X[:1]
    outputs, pullback = layer.vjp(plain)
    gradients = pullback(outputs)
    changed = form(plain.copy())
    np.testing.assert_array_equal(layer(changed), outputs, strict=True)
    others, pullback = layer.vjp(changed)
    np.testing.assert_array_equal(others, outputs, strict=True)
    for one, other in zip(pullback(form(outputs.copy())), gradients, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.array(changed), plain)


def test_inputs_of_other_libraries():
    """xarray's arrays in memory are arrays; those that hold dask arrays are not computed behind the user's back."""
    xarray, dask_array = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    layer = built()
    np.testing.assert_array_equal(layer(xarray.DataArray(X)), layer(X), strict=True)
    refused(layer, lambda layer: layer(xarray.DataArray(dask_array.from_array(X))), TypeError, "inputs is a dask array")


# ---- activations and overridden operations ----

@pytest.mark.parametrize(("function", "error", "pattern"), [
    (lambda y: y[:1, :1], ValueError, r"activation returned shape \(1, 1, 4, 3\) for an array of shape \(2, 3, 4, 3\)"),
    (lambda y: None, ValueError, r"activation returned shape \(\) for"),
    (lambda y: y * 1j, TypeError, "[Cc]annot cast.*complex64|must be real numbers.*complex64"),
    (lambda y: y.astype(str), (TypeError, ValueError), "[Cc]annot cast|must be real numbers"),
    (lambda y: 1 // 0, ZeroDivisionError, "division"),
], ids=["shape", "None", "complex", "text", "error"])
@pytest.mark.parametrize("cls", [DepthwiseConv2D, Overridden])
@pytest.mark.parametrize("use_bias", [True, False])
def test_bad_activations(function, error, pattern, cls, use_bias):
    """Row 43: also of a layer that applies them itself."""
    layer = built(cls, use_bias=use_bias)
    layer.activation = function
    refused(layer, lambda layer: layer(X), error, pattern)


@pytest.mark.parametrize("cls", [DepthwiseConv2D, Overridden])
def test_activations_of_other_dtypes(cls):
    """What they return is converted to the outputs' dtype."""
    layer = built(cls, activation=lambda y: (y > 0).astype(np.int8))
    assert layer(X).dtype == np.float32
    assert set(np.unique(layer(X))) == {0.0, 1.0}


@pytest.mark.parametrize(("result", "error", "pattern"), [
    (None, ValueError, "`convolution_op` must return an array with 4 axes. Received: None"),
    (np.ones((3, 1)), ValueError, "`convolution_op` must return an array with 4 axes"),
    (np.ones((2, 3, 4, 3), complex), TypeError, "The result of `convolution_op` must be real numbers"),
    (np.ma.ones((2, 3, 4, 3)), TypeError, "must not be a MaskedArray"),
], ids=["None", "two axes", "complex", "masked"])
@pytest.mark.parametrize("autocast", [True, False])
def test_bad_results_of_convolution_op(result, error, pattern, autocast):
    """A forgotten return would else be an array of NaN."""

    class Wrong(DepthwiseConv2D):
        def convolution_op(self, inputs, kernel):
            return result

        def convolution_op_vjp(self, inputs, kernel):
            return result, None

    layer = Wrong(3, autocast=autocast)
    layer.build(X.shape)
    refused(layer, lambda layer: layer(X), error, pattern)
    refused(layer, lambda layer: layer.vjp(X), error, pattern)


# ---- arguments ----

ARGUMENTS = {  # argument: pattern of the refusal of what is far too long
    "kernel_size": "`kernel_size` must be a positive integer or two of them",
    "strides": "`strides` must be a positive integer or two of them",
    "dilation_rate": "`dilation_rate` must be a positive integer or two of them",
    "depth_multiplier": "`depth_multiplier` must be a positive integer",
    "padding": "`padding` must be",
    "data_format": "`data_format` must be one of",
    "use_bias": "`use_bias` to be a boolean",
    "trainable": "`trainable` to be a boolean",
    "autocast": "`autocast` to be a boolean",
    "name": "`name` must be a string",
    "dtype": "`dtype` must be one of",
    "groups": "`groups` must be 1",
    "filters": "Unrecognized keyword arguments .*filters|Unrecognized keyword arguments",
    "activation": "Could not interpret activation function identifier",
    **{f"depthwise_{kind}": f"Could not interpret {kind} identifier" for kind in ("initializer", "regularizer", "constraint")},
    **{f"bias_{kind}": f"Could not interpret {kind} identifier" for kind in ("initializer", "regularizer", "constraint")},
    "activity_regularizer": "Could not interpret regularizer identifier",
}


class Unprintable:
    def __repr__(self):
        raise ZeroDivisionError("no repr")


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_long_arguments(argument):
    """Row 28: integers that str() refuses, long lists and strings, and what has no repr; lists of known names do not grow."""
    for value in (LONG, -LONG, [LONG, 3], WIDE, DEEP, DEEP.encode(), {DEEP: LONG}, {LONG}, Unprintable()):
        with pytest.raises(ValueError, match=ARGUMENTS[argument]) as caught:
            DepthwiseConv2D(**{"kernel_size": 3, argument: value})
        assert len(str(caught.value)) < (1500 if "Known names" in str(caught.value) else 500)


@pytest.mark.parametrize("shape", [
    {1, 8, 3, 4}, frozenset((1, 8, 3, 4)), {1: 2, 8: 3, 3: 4, 4: 5},   # of no order
    (1, 8, 8, 0), (1, 0, 8, 3), (1, 8, 0, 3), (1, 8, 8, -1), (-1, 8, 8, 3), (1, -8, 8, 3),
    (1, 2, 8, 3), (1, 8, 2, 3), (LONG, 8, 8, 3), (1, 8, 8, 2**63), WIDE, DEEP, LONG, None, Unprintable(),
], ids=itertools.count())
def test_bad_output_shapes(shape):
    """Row 100, in both layouts; what compute_output_shape refuses, build refuses."""
    for data_format in ("channels_last", "channels_first"):
        if data_format == "channels_first" and isinstance(shape, tuple):
            shape = tuple(shape[axis] for axis in (0, 3, 1, 2))
        layer = DepthwiseConv2D(3, data_format=data_format)
        for method in ("compute_output_shape", "build"):
            refused(layer, lambda layer, method=method, shape=shape: getattr(layer, method)(shape), ValueError,
                    "shape|channels|zero or negative")


def test_exceptions_of_integers_pass():
    """Row 33."""
    error = ZeroDivisionError("mine")
    for name in ("kernel_size", "strides", "dilation_rate", "depth_multiplier"):
        for value in (Index(error), (1, Index(error))):
            if name != "depth_multiplier" or not isinstance(value, tuple):
                with pytest.raises(ZeroDivisionError, match="mine"):
                    DepthwiseConv2D(**{"kernel_size": 3, name: value})
    layer = DepthwiseConv2D(3)
    refused(layer, lambda layer: layer.build((1, 8, Index(error), 3)), ZeroDivisionError, "mine")


# No array here is below 2**48 bytes, so that nothing is allocated even where memory is overcommitted.
@pytest.mark.parametrize(("options", "error", "pattern"), [
    ({"depth_multiplier": 2**50}, MemoryError, "allocate"),
    ({"depth_multiplier": 2**50, "depthwise_initializer": "zeros"}, MemoryError, "allocate"),
    ({"depth_multiplier": 2**62}, ValueError, r"kernel of layer .*\(3, 3, 3, 4611686018427387904\) would be larger than"),
    ({"depth_multiplier": 2**62, "depthwise_initializer": "zeros"}, ValueError, "larger than any memory"),
    ({"kernel_size": 2**30, "padding": "same"}, ValueError, r"\(1073741824, 1073741824, 3, 1\) would be larger than any memory"),
    ({"kernel_size": 2**31, "padding": "same"}, ValueError, r"kernel_size 2147483648.*the limit of 2\*\*31"),
    ({"dilation_rate": 2**62, "padding": "same"}, ValueError, r"dilation_rate 4611686018427387904.*the limit of 2\*\*31"),
    ({"dilation_rate": 2**62}, ValueError, r"the limit of 2\*\*31"),
], ids=str)
def test_beyond_memory(options, error, pattern):
    """Rows 22, 24, 36: the layer is not built then."""
    refused(DepthwiseConv2D(**{"kernel_size": 3, **options}), lambda layer: layer(X), error, pattern)


def test_long_names_do_not_fill_messages():
    """Row 126: a name may have 1000 characters, a message shows 80 of them."""
    layer = DepthwiseConv2D(3, name="n" * 1000)
    refused(layer, lambda layer: layer.count_params(), ValueError, "has no weights yet")
    layer(X)
    for attempt in (lambda layer: layer(X[..., :2]), lambda layer: layer.build(X.shape), lambda layer: layer.set_weights([]),
                    lambda layer: layer.stateless_call([], [], X), lambda layer: setattr(layer, "kernel", 1),
                    lambda layer: layer.load_own_variables({DEEP: 1})):
        refused(layer, attempt, ValueError, "'nnn")


# ---- weights ----

@pytest.mark.parametrize(("attempt", "error", "pattern"), [
    *[(lambda layer, value=value: layer.set_weights(value), TypeError, "`weights` must be a list of arrays. Received: ")
      for value in (None, LONG, 3.0, (weight for weight in (1, 2)))],
    (lambda layer: layer.set_weights(WIDE), ValueError, "has 2 weights. Received: a list of 100000"),
    (lambda layer: layer.set_weights("kb"), ValueError, r"kernel of layer .* has shape \(3, 3, 3, 1\)"),
    (lambda layer: layer.set_weights([LONG, LONG]), ValueError, r"kernel of layer .* has shape \(3, 3, 3, 1\)"),
    (lambda layer: layer.set_weights([layer.kernel + 1, np.zeros(3, [(f"f{n}", "f4") for n in range(1000)])]), TypeError,
     "bias of layer .* must be real numbers"),
    (lambda layer: layer.set_weights([layer.kernel + 1, Dask(layer.bias)]), TypeError, "bias of layer .* is a dask array"),
    (lambda layer: layer.set_weights([layer.kernel + 1, np.ma.masked_array(layer.bias)]), TypeError, "bias of .* MaskedArray"),
    (lambda layer: layer.set_weights([layer.kernel + 1, Array(ZeroDivisionError("mine"))]), ZeroDivisionError, "mine"),
    (lambda layer: setattr(layer, "kernel", ragged(0)), ValueError, "kernel of layer .* is a list that makes no array"),
    (lambda layer: setattr(layer, "bias", Array("nothing")), TypeError, "bias of layer .* returned no array"),
    (lambda layer: layer.add_loss(LONG), ValueError, "`loss` must be a number"),
    (lambda layer: layer.build_from_config(LONG), ValueError, "A build config is a dict"),
    (lambda layer: layer.build_from_config([LONG]), ValueError, "A build config is a dict"),
    (lambda layer: layer.vjp(X)[1](LONG), TypeError, "`output_grad` must be real numbers"),
    (lambda layer: layer.vjp(X)[1](X[:, 1:-1, 1:-1], LONG), ValueError, "`losses_grad` must be a number"),
], ids=itertools.count())
def test_bad_weights(attempt, error, pattern):
    """Rows 94, 95: all or nothing."""
    refused(built(), attempt, error, pattern)


def test_weights_of_a_layer_without_bias():
    two = [np.ones((3, 3, 3, 1)), np.ones(3)]
    refused(built(use_bias=False), lambda layer: layer.set_weights(two), ValueError, "has 1 weights. Received: a list of 2")


# ---- configs ----

@pytest.mark.parametrize(("options", "pattern"), [
    *[({"depthwise_initializer": {"class_name": "HeNormal", "config": {"input_axes": [axis], "output_axes": [1]}}},
       "Axes .* are not all of the 4 of a shape") for axis in (4, -5, LONG)],
    ({"depthwise_initializer": {"class_name": "HeNormal", "config": {"input_axes": 3}}}, "Could not interpret"),
    ({"depthwise_initializer": {"class_name": "VarianceScaling", "config": {"mode": LONG}}}, "Expected one of fan_in"),
    ({"depthwise_initializer": {"class_name": "Constant", "config": {"value": LONG}}}, "`value` must be real numbers"),
    ({"depthwise_initializer": {"class_name": "Orthogonal", "config": {"gain": LONG}}}, "`gain` must be a finite number"),
    ({"depthwise_initializer": {"class_name": "HeNormal", "config": {"seed": [LONG]}}}, "`seed` must be"),
    ({"depthwise_regularizer": {"class_name": "L2", "config": {"l2": LONG}}}, "`l2` must be a finite number"),
    ({"depthwise_regularizer": {"class_name": "OrthogonalRegularizer", "config": {"mode": LONG}}}, "`mode` must be"),
    ({"depthwise_constraint": {"class_name": "MaxNorm", "config": {"axis": LONG}}}, "`axis` must be from -64 to 63"),
    ({"depthwise_constraint": {"class_name": "UnitNorm", "config": {"axis": [0, 10**30]}}}, "`axis` must be from -64 to 63"),
    ({"depthwise_constraint": {"class_name": "UnitNorm", "config": {"axis": 4}}}, "axis 4 is out of bounds"),
    ({"activation": {"class_name": "Softmax", "config": {"axis": LONG}}}, "`axis` must be from -64 to 63"),
    ({"activation": {"class_name": "Softmax", "config": {"axis": 4}}}, "axis 4 is out of bounds"),
    ({"activation": {"class_name": "LeakyReLU", "config": {"negative_slope": LONG}}}, "`negative_slope` must be a finite"),
], ids=itertools.count())
def test_bad_objects(options, pattern):
    """Row 125: the wrong value is a ValueError, at the latest where it is used."""

    def use():
        layer = DepthwiseConv2D(3, **options)
        layer(X)
        layer.apply_constraints()

    with pytest.raises(ValueError, match=pattern) as caught:
        use()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("text", "pattern"), [
    ('{"kernel_size": NaN}', "`kernel_size` must be"),
    ('{"kernel_size": 3, "strides": [Infinity, 1]}', "`strides` must be"),
    ('{"kernel_size": 1e999}', "`kernel_size` must be"),
    ('{"kernel_size": -0}', "`kernel_size` must be"),
    ('{"kernel_size": 3, "depthwise_regularizer": {"class_name": "L2", "config": {"l2": NaN}}}', "`l2` must be a finite"),
    ('{"kernel_size": 3, "kernel_size": [0, 0]}', "`kernel_size` must be"),
    ('{"kernel_size": 3, "": 1}', "Unrecognized"),
    ('{"kernel_size": 3, "kernel\\u005fsize ": 1}', "Unrecognized"),
    ('{"kernel_size": "3"}', "`kernel_size` must be"),
], ids=str)
def test_json(text, pattern):
    """Row 123: what Python's json makes of odd texts."""
    with pytest.raises(ValueError, match=pattern):
        DepthwiseConv2D.from_config(json.loads(text))
    assert DepthwiseConv2D.from_config(json.loads('{"kernel_size": 3, "kernel_size": [5, 5]}')).kernel_size == (5, 5)


@pytest.mark.parametrize("value", [LONG, DEEP, WIDE, None, Unprintable()], ids=itertools.count())
def test_long_things_are_no_layers(value):
    for function in (dwconv.deserialize, DepthwiseConv2D.from_config, lambda value: dwconv.deserialize({"class_name": value}),
                     lambda value: DepthwiseConv2D.from_config({"kernel_size": 3, "config": value})):
        with pytest.raises(ValueError, match=r"config|Could not interpret|characters|Unrecognized") as caught:
            function(value)
        assert len(str(caught.value)) < 500
    with pytest.raises(TypeError, match="`layer` must be a DepthwiseConv2D"):
        dwconv.serialize(value)
    with pytest.raises(ValueError, match="mode must be"):
        dwconv.show_config(value)


def test_without_ml_dtypes(monkeypatch):
    """Row 63: only bfloat16 needs it, and says so."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    for dtype in ("bfloat16", "mixed_bfloat16"):
        with pytest.raises(ImportError, match=r"bfloat16 .* pip install 'dwconv\[bf16\]'"):
            DepthwiseConv2D(3, dtype=dtype)
    for dtype in ("float16", "float32", "mixed_float16"):
        assert DepthwiseConv2D(3, dtype=dtype)(X).shape == (2, 3, 4, 3)


# ---- keras.json ----

PLACES = {  # rows 122, 131: a folder under the test's own, and what is found there
    "spaces": " a b ", "not ASCII": "gewöhnlich ☃", "newline": "a\nb", "percent": "%s{0}", "dash": "-",
    "bytes that are no text": os.fsdecode(b"\xff\xfe"), "dots": "x/../y",
}


@pytest.mark.skipif(os.name != "posix", reason="Windows refuses some of these names")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_places_of_keras_json(home, monkeypatch, place):
    """Any name of a folder; broken files are warned of by a text that can be printed."""
    folder = home / place
    folder.mkdir(parents=True)
    (home / "x").mkdir(exist_ok=True)
    monkeypatch.setenv("KERAS_HOME", str(folder))
    assert DepthwiseConv2D(3).data_format == "channels_last"
    (folder / "keras.json").write_text('{"image_data_format": "channels_first"}')
    assert DepthwiseConv2D(3).data_format == "channels_first"
    (folder / "keras.json").write_text("{")
    with pytest.warns(UserWarning, match="is ignored") as caught:
        assert DepthwiseConv2D(3).data_format == "channels_last"
    assert str(caught[0].message).encode().isascii() or place == PLACES["not ASCII"]
    assert [path.name for path in folder.iterdir()] == ["keras.json"]


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/null")
@pytest.mark.parametrize(("place", "warned"), [("x" * 5000, 1), ("y/" * 3000, 1), ("/dev/null", 1), ("~nobody/", 0)])
def test_places_without_keras_json(home, monkeypatch, place, warned):
    """Names that no file system has: one warning, a short one, at most."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("KERAS_HOME", place)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [DepthwiseConv2D(3).data_format for _ in range(2)] == ["channels_last"] * 2
    assert [len(str(warning.message)) < 500 for warning in caught] == [True] * warned
    assert not any(home.iterdir())


def test_without_home(home, monkeypatch):
    """Row 122: HOME unset or wrong; os.stat finds nothing, so that no file of the machine's users decides."""
    def nothing(path):
        raise FileNotFoundError(path)

    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(os, "stat", nothing)
    for value in (None, "", str(home / "not there"), "relative"):
        monkeypatch.setenv("HOME", value) if value is not None else monkeypatch.delenv("HOME", raising=False)
        assert DepthwiseConv2D(3).data_format == "channels_last"
        assert isinstance(_keras_config.path(), str)
    monkeypatch.undo()
    assert not any(home.iterdir())
