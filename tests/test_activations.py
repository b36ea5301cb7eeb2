"""Activations: Keras' values and gradients, slopes, dtypes, `out`, memory layouts, extreme values, refusals."""

import functools
import inspect
import json
import math
import pathlib

import numpy as np
import pytest

import dwconv
from dwconv import activations
from dwconv._formulas import normal_cdf

RECORD = json.loads((pathlib.Path(__file__).parent / "data" / "keras_registries.json").read_text())
INPUTS = {"points": np.float32(RECORD["points"]), "rows": np.float32(RECORD["rows"])}
CASES = [case for case in RECORD["activations"] if case["name"] != "sparsemax"]  # wrong there: keras #23425
FUNCTIONS = {name: activations.get(name) for name in sorted(activations._registry.names) if name != "threshold"}
SAME_SHAPE = {name: function for name, function in FUNCTIONS.items() if name != "glu"}
WHOLE_AXIS = {"softmax", "log_softmax", "sparsemax", "glu", "Softmax"}
ELEMENTWISE = {name: function for name, function in FUNCTIONS.items() if name not in WHOLE_AXIS}
KINKS = {"celu": [0]}  # TensorFlow adds the slopes of both sides

each = pytest.mark.parametrize("function", SAME_SHAPE.values(), ids=SAME_SHAPE)
each_elementwise = pytest.mark.parametrize("function", ELEMENTWISE.values(), ids=ELEMENTWISE)


def random(*shape, dtype=np.float64, scale=2.0):
    return (scale * np.random.default_rng(7).normal(size=shape)).astype(dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-{case['arguments']}")
def test_values_and_gradients_of_keras(case):
    function, x = getattr(activations, case["name"]), INPUTS[case["input"]]
    y = function(x, **case["arguments"])
    expected = np.float32(case["value"])
    assert y.dtype == x.dtype
    # TensorFlow's squareplus cancels where x is very negative
    np.testing.assert_allclose(y, expected, rtol=3e-6, atol=5e-7 if case["name"] == "squareplus" else 1e-7)
    weights = np.arange(1, y.size + 1, dtype=np.float32).reshape(y.shape)
    gradient = activations.gradient(function)(x, weights, **case["arguments"])
    smooth = ~np.isin(x, KINKS.get(case["name"], []))
    tolerance = 3e-6 * weights.max()  # TensorFlow's own errors, such as 1 - tanh(x)**2, times the weights
    np.testing.assert_allclose(gradient[smooth], np.float32(case["gradient"])[smooth], rtol=2e-5, atol=tolerance)


def test_every_keras_activation_is_compared():
    recorded = {case["name"] for case in RECORD["activations"]}
    functions = {function.__name__ for function in FUNCTIONS.values() if inspect.isfunction(function)}
    assert functions | {"threshold"} == recorded


@each
def test_gradient_is_the_slope(function):
    x = random(3, 4)
    grad = random(3, 4)[::-1]
    gradient = activations.gradient(function)(x, grad)
    assert gradient.shape == x.shape
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        slope = np.sum(grad * (function(x + step) - function(x - step))) / 2e-6
        assert gradient[index] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_gradients_with_arguments_are_slopes():
    x, grad = random(2, 6), random(2, 6)[::-1]
    cases = [
        ("relu", {"negative_slope": 0.1, "max_value": 2.0, "threshold": -0.5}),
        ("gelu", {"approximate": True}),
        ("squareplus", {"b": 0.3}),
        ("threshold", {"threshold": 0.3, "default_value": 5.0}),
        ("softmax", {"axis": 0}),
        ("softmax", {"axis": [0, 1]}),
        ("log_softmax", {"axis": 0}),
        ("sparsemax", {"axis": 0}),
        ("glu", {"axis": 0}),
    ]
    for name, arguments in cases:
        function = getattr(activations, name)
        part = grad[: len(function(x, **arguments))]
        gradient = function.gradient(x, part, **arguments)
        for index in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[index] = 1e-6
            change = function(x + step, **arguments) - function(x - step, **arguments)
            assert gradient[index] == pytest.approx(np.sum(part * change) / 2e-6, rel=1e-6, abs=1e-8), name


@each
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_and_precision(function, dtype):
    x = random(2, 3, 5, 4, dtype=dtype)
    before = x.copy()
    y = function(x)
    exact = function(x.astype(np.float64))
    assert y.dtype == dtype
    assert y.shape == x.shape
    np.testing.assert_array_equal(x, before)
    # 16 bits are rounded once; the others are a few operations away
    allowed = 0.51 if dtype == np.float16 else 12
    np.testing.assert_allclose(y, exact, rtol=0, atol=allowed * np.finfo(dtype).eps * max(1, np.abs(exact).max()))
    assert activations.gradient(function)(x, y).dtype == dtype


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = random(2, 3, 4, dtype=ml_dtypes.bfloat16)
    for function in SAME_SHAPE.values():
        y = function(x)
        assert y.dtype == x.dtype
        expected = function(x.astype(np.float32)).astype(x.dtype)
        np.testing.assert_array_equal(y.astype(np.float32), expected.astype(np.float32))


@each
def test_out(function):
    x = random(2, 3, 4, 6, dtype=np.float32)
    expected = function(x).copy()
    out = np.full_like(x, np.nan)
    assert function(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert function(x, out=x) is x  # in place
    np.testing.assert_array_equal(x, expected)


@each
def test_memory_layouts(function):
    wide = random(4, 6, 8, 12, dtype=np.float32)
    for x in (wide.transpose(0, 3, 1, 2), wide[:, ::2, ::-1, 1::3], np.asfortranarray(wide), wide[:0]):
        expected = function(np.ascontiguousarray(x))
        np.testing.assert_array_equal(function(x), expected)
        out = np.empty((*x.shape, 2), np.float32)[..., 1]
        assert function(x, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_overlapping_out():
    x = np.arange(100000, dtype=np.float32)
    expected = activations.relu6(x[:-1])
    activations.relu6(x[:-1], out=x[1:])
    np.testing.assert_array_equal(x[1:], expected)


@each_elementwise
def test_blocks_do_not_show(function):
    x = random(100_003, dtype=np.float32)
    np.testing.assert_array_equal(function(x)[99_000:], function(x[99_000:].copy()))


@each
def test_nan_stays_and_nothing_warns(function):
    for dtype in (np.float16, np.float32, np.float64):
        big = np.finfo(dtype).max
        extreme = np.array([[0.0, -0.0, big, -big, np.inf, -np.inf, 1e-30, 30.0]], dtype).T
        function(extreme)  # warnings are errors
        gradient = activations.gradient(function)(extreme[:4], np.ones((4, 1), dtype))
        assert not np.isnan(gradient).any()
        assert np.isnan(function(np.full((2, 3), np.nan, dtype))).all()


@each_elementwise
def test_large_finite_values_give_no_nan(function):
    for dtype in (np.float16, np.float32, np.float64):
        x = np.array([-1, 1], dtype) * np.finfo(dtype).max
        assert not np.isnan(function(x)).any()


def test_relu_keeps_nan_and_infinity():
    x = np.array([np.nan, np.inf, -np.inf, 2.0, -3.0])
    np.testing.assert_array_equal(activations.relu(x), [np.nan, np.inf, 0, 2, 0])
    np.testing.assert_array_equal(activations.relu6(x), [np.nan, 6, 0, 2, 0])
    np.testing.assert_array_equal(activations.relu(x, threshold=1.0, max_value=1.5), [np.nan, 1.5, 0, 1.5, 0])


def test_stable_where_the_formula_is_not():
    x = np.array([-745.0, -40.0, 40.0, 800.0])
    np.testing.assert_allclose(activations.sigmoid(x), np.exp([-745.0, -40.0, 0, 0]), rtol=1e-15)
    np.testing.assert_allclose(activations.log_sigmoid(x)[:2], x[:2], rtol=1e-15)
    np.testing.assert_allclose(activations.log_sigmoid(x)[2], -np.exp(-40.0), rtol=1e-15)
    np.testing.assert_allclose(activations.softplus(x)[2:], x[2:], rtol=1e-15)
    np.testing.assert_allclose(activations.squareplus(np.array([-1e8])), 1e-8, rtol=1e-15)
    np.testing.assert_allclose(activations.tanh.gradient(x[1:2], np.ones(1)), 4 * np.exp(-80.0), rtol=1e-15)
    np.testing.assert_array_equal(activations.softmax(np.array([1e4, 1e4])), 0.5)
    np.testing.assert_allclose(activations.log_softmax(np.array([0.0, 1e4])), [-1e4, 0])


def test_normal_cdf_against_math_erfc():
    x = np.concatenate([np.linspace(-37, 10, 40001), np.linspace(-0.7, 0.7, 1001)])
    exact = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    eps = np.finfo(np.float64).eps
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(normal_cdf(x), exact, rtol=0, atol=2 * eps)
        relative = np.abs(normal_cdf(x) / exact - 1) / eps
        assert np.all(relative < 6 + 3 * x**2)  # the error of x / sqrt(2), magnified by the slope of the logarithm
        single = normal_cdf(x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact, rtol=0, atol=2 * np.finfo(np.float32).eps)


def test_sparsemax_projects_onto_the_simplex():
    np.testing.assert_allclose(activations.sparsemax(np.array([0.0, 0.5, 1.0])), [0, 0.25, 0.75])  # keras #23425
    np.testing.assert_allclose(activations.sparsemax(np.array([0.1, 0.2, 0.3, 0.4, 0.5])), [0, 0.1, 0.2, 0.3, 0.4])
    x = random(50, 7, scale=0.7)
    y = activations.sparsemax(x)
    np.testing.assert_allclose(y.sum(axis=-1), 1)
    assert y.min() == 0
    np.testing.assert_allclose(activations.sparsemax(x + 1e6), y, atol=1e-9)
    np.testing.assert_allclose(activations.sparsemax(x.T, axis=0), y.T)
    # the nearest point: moving towards any corner increases the distance
    for corner in np.eye(7):
        assert np.all(np.sum((x - y) * (corner - y), axis=-1) <= 1e-12)


def test_softmax_sums_to_one():
    x = random(2, 3, 4, 5, dtype=np.float32)
    for axis in (-1, 1, (1, 2), [1, 2], None):
        total = activations.softmax(x, axis=axis).sum(axis=tuple(axis) if isinstance(axis, list) else axis)
        np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_callables_that_look_built_in():
    """functools.wraps copies the module and the name of what it wraps."""
    @functools.wraps(activations.gelu)
    def exact(x):
        return activations.gelu(x, approximate=False)

    x = np.linspace(-2, 2, 12).reshape(1, 2, 2, 3)
    y = dwconv.depthwise_conv2d(x, np.ones((1, 1)), activation=exact)
    np.testing.assert_array_equal(y, activations.gelu(x, approximate=False))


def test_threshold_has_no_defaults():
    x = np.ones((1, 2, 2, 3))
    for attempt in (lambda: dwconv.depthwise_conv2d(x, np.ones((1, 1)), activation="threshold"),
                    lambda: dwconv.DepthwiseConv2D(1, activation="threshold")):
        with pytest.raises(ValueError, match='"threshold" has no defaults'):
            attempt()


def test_glu_halves_its_axis():
    x = random(2, 3, 4)
    np.testing.assert_allclose(activations.glu(x), x[..., :2] / (1 + np.exp(-x[..., 2:])))
    out = np.empty((1, 3, 4))
    assert activations.glu(x, axis=0, out=out) is out
    for call in (
        lambda: activations.glu(x, axis=1),
        lambda: activations.glu(x, out=x),
        lambda: activations.glu.gradient(x, x),
    ):
        with pytest.raises(ValueError, match=r"shape"):
            call()


def test_linear_is_its_argument():
    x = random(3)
    assert activations.linear(x) is x
    assert activations.linear(x, out=x) is x
    out = np.empty(3)
    assert activations.linear(x, out=out) is out
    np.testing.assert_array_equal(out, x)
    assert activations.gradient(activations.linear)(None, x) is x


def test_identity_of_what_the_kernels_apply():
    for name in ("linear", "relu", "relu6"):
        assert activations.get(name) is getattr(activations, name)
    assert activations.get("swish") is activations.silu
    assert activations.get("hard_swish") is activations.hard_silu
    assert activations.serialize(activations.get("swish")) == "silu"


@each_elementwise
@pytest.mark.parametrize("dtype", [int, bool, complex, object, str, np.longdouble])
def test_other_dtypes(function, dtype):
    if function is not activations.linear:
        with pytest.raises(TypeError, match="float32"):
            function(np.ones(3).astype(dtype))


@each
def test_wrong_shapes(function):
    if function is activations.linear:
        return
    x = random(2, 3)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        function(x, out=np.empty((2, 2)))
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        activations.gradient(function)(x, np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        function(x, out=np.broadcast_to(0.0, (2, 3)))


def test_gradient_of_custom_callables():
    def custom(x):
        return x

    with pytest.raises(ValueError, match="no gradient"):
        activations.gradient(custom)
    with pytest.raises(ValueError, match="no gradient"):
        activations.gradient(np.tanh)
    custom.gradient = lambda x, grad: grad
    assert activations.gradient(custom)(1, 2) == 2


def test_layers_with_arguments():
    x = random(4, 6)
    pairs = [
        (activations.LeakyReLU(), activations.leaky_relu(x, 0.3)),
        (activations.LeakyReLU(0.1), activations.leaky_relu(x, 0.1)),
        (activations.ELU(alpha=0.5), activations.elu(x, 0.5)),
        (activations.ReLU(2.0, 0.1, 0.5), activations.relu(x, 0.1, 2.0, 0.5)),
        (activations.get("ThresholdedReLU"), np.where(x > 1, x, 0)),
        (activations.Softmax(axis=[0, 1]), activations.softmax(x, axis=(0, 1))),
    ]
    for layer, expected in pairs:
        np.testing.assert_array_equal(layer(x), expected)
        twin = activations.get(json.loads(json.dumps(activations.serialize(layer))))
        np.testing.assert_array_equal(twin(x), expected)
        assert repr(twin) == repr(layer)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("LeakyReLU", {"negative_slope": "0.1"}),
        ("LeakyReLU", {"negative_slope": -1}),
        ("ReLU", {"max_value": -1.0}),
        ("ELU", {"alpha": None}),
        ("Softmax", {"axis": 1.5}),
        ("Softmax", {"axis": "x"}),
    ],
)
def test_bad_layer_arguments(name, arguments):
    with pytest.raises(ValueError, match=r"must be|Could not interpret"):
        activations.get({"class_name": name, "config": arguments})


def test_layers_refuse_unknown_arguments():
    with pytest.raises(TypeError, match="negative_slope"):
        activations.LeakyReLU(slope=0.1)
    with pytest.raises(TypeError, match="negative_slope"):
        activations.LeakyReLU(0.1, 0.2)
