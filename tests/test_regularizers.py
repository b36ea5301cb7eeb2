"""Regularizers: Keras' values and gradients, dtypes, refusals."""

import json
import pathlib

import numpy as np
import pytest

from dwconv import regularizers

RECORD = json.loads((pathlib.Path(__file__).parent / "data" / "keras_registries.json").read_text())
KERNEL, MATRIX = np.float32(RECORD["kernel"]), np.float32(RECORD["matrix"])


@pytest.mark.parametrize("case", RECORD["regularizers"], ids=lambda case: f"{case['name']}-{case['arguments']}")
def test_values_and_gradients_of_keras(case):
    regularizer = getattr(regularizers, case["name"])(**case["arguments"])
    x = MATRIX if case["name"] == "OrthogonalRegularizer" else KERNEL
    value = regularizer(x)
    assert type(value) is float
    assert value == pytest.approx(case["value"], rel=1e-6)
    gradient = regularizers.gradient(regularizer)(x)
    assert gradient.dtype == x.dtype
    np.testing.assert_allclose(gradient, np.float32(case["gradient"]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "regularizer",
    [
        regularizers.L1(0.3),
        regularizers.L2(0.3),
        regularizers.L1L2(0.1, 0.7),
        regularizers.OrthogonalRegularizer(0.4),
        regularizers.OrthogonalRegularizer(0.4, "columns"),
    ],
    ids=repr,
)
def test_gradient_is_the_slope(regularizer):
    x = np.random.default_rng(4).normal(size=(4, 3))
    gradient = regularizer.gradient(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        slope = (regularizer(x + step) - regularizer(x - step)) / 2e-6
        assert gradient[index] == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", ["L1", "L2", "L1L2", "l1_l2"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_and_inputs(name, dtype):
    regularizer = regularizers.get(name)
    x = np.random.default_rng(1).normal(size=(3, 3, 2, 2)).astype(dtype)
    before = x.copy()
    gradient = regularizer.gradient(x)
    assert type(regularizer(x)) is float
    assert gradient.dtype == dtype
    assert gradient.shape == x.shape
    np.testing.assert_array_equal(x, before)


def test_sums_are_float64():
    assert regularizers.L2(1.0)(np.full(1000, 300, np.float16)) == 9e7  # overflows float16
    assert regularizers.L1(1.0)(np.full(2**24 + 2, 1, np.float32)) == 2**24 + 2
    assert regularizers.L2(1.0)(np.array([1e200])) == np.inf  # no warning
    assert np.isnan(regularizers.L1(1.0)(np.array([np.nan])))


def test_kinks_and_nan():
    np.testing.assert_array_equal(regularizers.L1(2.0).gradient(np.array([0.0, -1.0, np.nan])), [0.0, -2.0, np.nan])


def test_zero_factor_adds_nothing():
    assert regularizers.L1L2(l1=0.0, l2=2.0)(np.array([3.0])) == 18
    assert regularizers.L1L2(l1=2.0)(np.array([1e300])) == 2e300
    assert regularizers.L1L2()(np.array([np.inf])) == 0


def test_none_is_the_default():
    assert repr(regularizers.L1(None)) == "L1(l1=0.01)"
    assert repr(regularizers.L2(l2=None)) == "L2(l2=0.01)"
    assert repr(regularizers.L1L2(None, None)) == "L1L2(l1=0.0, l2=0.0)"
    assert repr(regularizers.l1_l2()) == "L1L2(l1=0.01, l2=0.01)"


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "0.1", True, [0.1], 10**400])
@pytest.mark.parametrize(
    ("name", "argument"), [("L1", "l1"), ("L2", "l2"), ("L1L2", "l2"), ("OrthogonalRegularizer", "factor")]
)
def test_bad_factors(name, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be a finite number"):
        getattr(regularizers, name)(**{argument: value})


def test_orthogonal_refusals():
    with pytest.raises(ValueError, match="rank 2"):
        regularizers.OrthogonalRegularizer()(KERNEL)
    with pytest.raises(ValueError, match="rank 2"):
        regularizers.OrthogonalRegularizer().gradient(KERNEL)
    with pytest.raises(ValueError, match="mode"):
        regularizers.OrthogonalRegularizer(mode="diagonals")
    assert regularizers.OrthogonalRegularizer()(np.ones((1, 3))) == 0
    assert np.isfinite(regularizers.OrthogonalRegularizer().gradient(np.zeros((2, 3)))).all()


def test_gradient_of_custom_regularizers():
    def custom(x):
        return float(np.sum(x))

    with pytest.raises(ValueError, match="no gradient"):
        regularizers.gradient(custom)
    with pytest.raises(ValueError, match="no gradient"):
        regularizers.gradient(regularizers.Regularizer())
    custom.gradient = np.ones_like
    assert regularizers.gradient(custom) is np.ones_like
    assert regularizers.Regularizer()(KERNEL) == 0.0
