"""Constraints: Keras' values, what each promises, dtypes."""

import json
import pathlib

import numpy as np
import pytest

from dwconv import constraints

RECORD = json.loads((pathlib.Path(__file__).parent / "data" / "keras_registries.json").read_text())
KERNEL = np.float32(RECORD["kernel"])
ALL = sorted(constraints._registry.names)


@pytest.mark.parametrize("case", RECORD["constraints"], ids=lambda case: f"{case['name']}-{case['arguments']}")
def test_values_of_keras(case):
    result = getattr(constraints, case["name"])(**case["arguments"])(KERNEL)
    np.testing.assert_allclose(result, np.float32(case["value"]), rtol=2e-6)


def norms(w, axis):
    return np.sqrt(np.sum(np.square(w, dtype=np.float64), axis=axis))


def test_norms_end_where_they_should():
    kernel = KERNEL.astype(np.float64)
    before = norms(kernel, (0, 1))
    assert before.min() < 2 < 2.9 < before.max()
    capped = constraints.MaxNorm(2.0, axis=[0, 1])(kernel)
    np.testing.assert_allclose(norms(capped, (0, 1)), np.minimum(before, 2), rtol=1e-6)
    between = constraints.MinMaxNorm(2.0, 2.9, axis=(0, 1))(kernel)
    np.testing.assert_allclose(norms(between, (0, 1)), np.clip(before, 2, 2.9), rtol=1e-6)
    halfway = constraints.MinMaxNorm(2.0, 2.9, rate=0.5, axis=(0, 1))(kernel)
    np.testing.assert_allclose(norms(halfway, (0, 1)), (np.clip(before, 2, 2.9) + before) / 2, rtol=1e-6)
    np.testing.assert_allclose(norms(constraints.UnitNorm(axis=2)(kernel), 2), 1, rtol=1e-6)


def test_non_neg_keeps_nan():
    result = constraints.NonNeg()(np.array([-1.0, 2.0, np.nan, -np.inf]))
    np.testing.assert_array_equal(result, [0.0, 2.0, np.nan, 0.0])


@pytest.mark.parametrize(
    ("size", "rings"),
    [(1, [[0]]), (2, [[0, 0], [0, 0]]), (3, [[4, 4, 4], [4, 0, 4], [4, 4, 4]])],
)
def test_radial_small(size, rings):
    w = np.arange(float(size * size)).reshape(size, size, 1, 1)
    np.testing.assert_array_equal(constraints.RadialConstraint()(w)[..., 0, 0], rings)


def test_radial_values_of_keras_2():
    """facts/keras-contract.md section 3.3: 5x5 gives rings of 6, 12 and 18, 4x4 gives 5 and 15."""
    five = constraints.RadialConstraint()(np.arange(50.0).reshape(5, 5, 1, 2))[..., 0] / 2
    assert five[2, 2, 0] == 6
    assert set(five[1:4, 1:4].ravel()) == {6, 12}
    assert set(five[0].ravel()) == set(five[:, -1].ravel()) == {18}
    four = constraints.RadialConstraint()(np.arange(16.0).reshape(4, 4, 1, 1))[..., 0, 0]
    assert set(four[1:3, 1:3].ravel()) == {5}
    assert set(four[0]) == set(four[:, 3]) == {15}


@pytest.mark.parametrize("shape", [(3, 2, 1, 1), (3, 3), (3, 3, 1), (3, 3, 1, 1, 1)])
def test_radial_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\(k, k, C, M\)"):
        constraints.RadialConstraint()(np.ones(shape))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_shape_dtype_and_input(name, dtype):
    w = np.random.default_rng(1).normal(size=(3, 3, 2, 2)).astype(dtype)
    before = w.copy()
    result = constraints.get(name)(w)
    assert result.shape == w.shape
    assert result.dtype == dtype
    np.testing.assert_array_equal(w, before)


@pytest.mark.parametrize("name", ["MaxNorm", "UnitNorm", "MinMaxNorm"])
def test_extreme_weights(name):
    constraint = constraints.get(name)
    np.testing.assert_array_equal(constraint(np.zeros((3, 2), np.float32)), 0)
    assert np.isnan(constraint(np.full((3, 2), np.nan, np.float32))).all()
    assert constraint(np.full((3, 2), 200, np.float16)).max() <= 2  # its squares overflow float16
    constraint(np.full((3, 2), 1e30, np.float32))  # and these float32: no warning


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MaxNorm", {"max_value": "2"}),
        ("MaxNorm", {"axis": 1.5}),
        ("MaxNorm", {"axis": [0, "1"]}),
        ("MinMaxNorm", {"rate": None}),
        ("UnitNorm", {"axis": None}),
        ("UnitNorm", {"axis": np.array([0.5, 1])}),
        ("UnitNorm", {"nope": 1}),
    ],
)
def test_bad_arguments(name, arguments):
    with pytest.raises(ValueError, match=r"must be|Could not interpret"):
        constraints.get({"class_name": name, "config": arguments})


@pytest.mark.parametrize(("axis", "plain"), [(np.int64(1), 1), ((0, 1), [0, 1]), (np.array([0, 1]), [0, 1]), (np.array(1), 1),
                                             (list(np.arange(2)), [0, 1])], ids=str)
def test_axes_of_numpy(axis, plain):
    """As JSON has them, and nobody else's list."""
    w = np.random.default_rng(2).standard_normal((3, 3, 4, 2))
    for make in (constraints.MaxNorm, constraints.MinMaxNorm, constraints.UnitNorm):
        constraint = make(axis=axis)
        assert json.loads(json.dumps(constraint.get_config()))["axis"] == plain
        np.testing.assert_array_equal(constraint(w), make(axis=plain)(w))
    axes = [0, 1]
    constraint = constraints.UnitNorm(axes)
    axes.append(2)
    assert constraint.get_config() == {"axis": [0, 1]}
