"""Initializers: Keras' own numbers for integer seeds, statistics, seeds, shapes and dtypes."""

import json
import math
import pathlib
import random

import ml_dtypes
import numpy as np
import pytest

from dwconv import initializers
from dwconv._philox import SeedGenerator

RECORD = json.loads((pathlib.Path(__file__).parent / "data" / "keras_registries.json").read_text())
UNIFORM = {"RandomUniform", "GlorotUniform", "HeUniform", "LecunUniform"}
RANDOM = sorted({case["name"] for case in RECORD["initializers"]})
LARGE = (20, 30, 25, 8)  # 120000 numbers


def test_known_numbers_of_keras():
    """The values that facts/keras-contract.md section 3.2 quotes."""
    values = initializers.GlorotUniform(seed=0)((3, 3, 2, 1)).ravel()[:4]
    np.testing.assert_array_equal(values, np.float32([-0.27245724, 0.19422808, 0.28290245, 0.25530538]))


@pytest.mark.parametrize(
    "case", RECORD["initializers"], ids=lambda c: f"{c['name']}-{c['arguments']}-{c['seed']}-{c['dtype']}"
)
def test_seeded_numbers_are_keras_numbers(case):
    initializer = getattr(initializers, case["name"])(seed=case["seed"], **case["arguments"])
    values = initializer(tuple(case["shape"]), dtype=case["dtype"])
    expected = np.array(case["values"], case["dtype"]).reshape(case["shape"])
    assert values.shape == expected.shape
    assert values.dtype == expected.dtype
    if case["name"] in UNIFORM or case["arguments"].get("distribution") == "uniform":
        np.testing.assert_array_equal(values, expected)  # bit for bit
    elif case["name"] == "Orthogonal":  # Keras' QR decomposition is in the dtype
        np.testing.assert_allclose(values, expected, rtol=0, atol=8 * np.finfo(case["dtype"]).eps)
    else:
        spread = case["arguments"].get("mean", 0) + np.abs(expected).max()
        np.testing.assert_allclose(values, expected, rtol=0, atol=2 * np.finfo(case["dtype"]).eps * spread)


def test_seed_generator_advances_as_in_keras():
    record = RECORD["seed_generator"]
    initializer = initializers.get(record["serialized"])
    for draw in record["draws"]:
        np.testing.assert_array_equal(initializer((5,)), np.float32(draw))
    assert initializers.serialize(initializer) == record["serialized"]
    again = initializers.RandomUniform(seed=SeedGenerator(11))
    np.testing.assert_array_equal(again((5,)), np.float32(record["draws"][0]))


@pytest.mark.parametrize("name", RANDOM)
def test_integer_seed_repeats_and_none_differs(name):
    cls = getattr(initializers, name)
    first = cls(seed=5)
    np.testing.assert_array_equal(first((3, 3, 4, 2)), first((3, 3, 4, 2)))
    np.testing.assert_array_equal(first((3, 3, 4, 2)), cls(seed=np.int64(5))((3, 3, 4, 2)))
    assert not np.array_equal(first((3, 3, 4, 2)), cls(seed=6)((3, 3, 4, 2)))
    unseeded = cls()
    np.testing.assert_array_equal(unseeded((3, 3, 4, 2)), unseeded((3, 3, 4, 2)))
    assert not np.array_equal(unseeded((3, 3, 4, 2)), cls()((3, 3, 4, 2)))
    assert unseeded.get_config()["seed"] is None


def test_unseeded_follow_pythons_random():
    """As in Keras, so that `random.seed` makes a whole program repeatable."""
    state = random.getstate()
    try:
        random.seed(3)
        first = initializers.HeNormal()((4, 4))
        random.seed(3)
        np.testing.assert_array_equal(initializers.HeNormal()((4, 4)), first)
    finally:
        random.setstate(state)


def test_numpys_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    initializers.HeNormal(seed=3)((4, 4))
    initializers.HeNormal()((4, 4))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("seed", [1.0, 2.5, "3", True, [1], (1, 2), np.float32(1), {"class_name": "nope"}, b"1"])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"seed"):
        initializers.GlorotUniform(seed=seed)


# --- statistics: mean, spread and bounds of 120000 numbers


def fans(mode):
    kh, kw, c, m = LARGE
    return {"fan_in": kh * kw * c, "fan_out": kh * kw * m, "fan_avg": kh * kw * (c + m) / 2}[mode]


@pytest.mark.parametrize(
    ("name", "scale", "mode"),
    [
        ("GlorotUniform", 1, "fan_avg"),
        ("GlorotNormal", 1, "fan_avg"),
        ("LecunUniform", 1, "fan_in"),
        ("LecunNormal", 1, "fan_in"),
        ("HeUniform", 2, "fan_in"),
        ("HeNormal", 2, "fan_in"),
    ],
)
def test_scaled_statistics(name, scale, mode):
    values = initializers.get({"class_name": name, "config": {"seed": 1}})(LARGE)
    std = math.sqrt(scale / fans(mode))
    assert abs(values.mean()) < 4 * std / math.sqrt(values.size)
    assert values.std() == pytest.approx(std, rel=0.01)
    bound = math.sqrt(3) * std if "Uniform" in name else 2 * std / 0.87962566103423978
    assert 0.99 * bound < np.abs(values).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("distribution", ["truncated_normal", "normal", "untruncated_normal", "uniform", "Uniform"])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_variance_scaling_has_its_variance(distribution, mode):
    initializer = initializers.VarianceScaling(3.0, mode, distribution, seed=2)
    assert initializer(LARGE).std() == pytest.approx(math.sqrt(3 / fans(mode)), rel=0.01)


def test_plain_distributions():
    uniform = initializers.RandomUniform(-1, 3, seed=1)(LARGE)
    assert -1 <= uniform.min() < -0.999
    assert 2.999 < uniform.max() < 3
    assert uniform.mean() == pytest.approx(1, abs=0.02)
    assert uniform.std() == pytest.approx(4 / math.sqrt(12), rel=0.01)
    normal = initializers.RandomNormal(1, 2, seed=1)(LARGE)
    assert normal.mean() == pytest.approx(1, abs=0.03)
    assert normal.std() == pytest.approx(2, rel=0.01)
    assert 4 < np.abs((normal - 1) / 2).max() < 6
    truncated = initializers.TruncatedNormal(1, 2, seed=1)(LARGE)
    assert truncated.mean() == pytest.approx(1, abs=0.03)
    assert truncated.std() == pytest.approx(2 * 0.87962566, rel=0.01)
    assert 1.99 < np.abs((truncated - 1) / 2).max() < 2.000001


def test_neighbouring_seeds_are_uncorrelated():
    first, second = (initializers.RandomNormal(seed=seed)(LARGE).ravel() for seed in (10, 11))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(first.size)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / math.sqrt(first.size)


@pytest.mark.parametrize("shape", [(3, 3, 4, 2), (2, 2, 3, 20), (5, 5), (1, 1, 1, 1)])
def test_orthogonal(shape):
    matrix = initializers.Orthogonal(gain=2.0, seed=3)(shape, dtype=np.float64).reshape(-1, shape[-1])
    product = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


# --- the simple ones, shapes and dtypes


def test_constants():
    np.testing.assert_array_equal(initializers.get("zeros")((2, 3)), np.zeros((2, 3)))
    np.testing.assert_array_equal(initializers.get("one")((2, 3)), np.ones((2, 3)))
    np.testing.assert_array_equal(initializers.get("constant")((2,)), np.zeros(2))
    np.testing.assert_array_equal(initializers.Constant(-1.5)((2, 3)), np.full((2, 3), -1.5))
    np.testing.assert_array_equal(initializers.Identity(2.0)((2, 3)), 2 * np.eye(2, 3))


@pytest.mark.parametrize("values", [np.arange(6.0).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]])
def test_constant_array(values):
    initializer = initializers.Constant(values)
    for twin in (initializer, initializers.get(json.loads(json.dumps(initializers.serialize(initializer))))):
        result = twin((2, 3))
        np.testing.assert_array_equal(result, values)
        assert result.dtype == np.float32
        result[...] = 0  # a new array each time
        np.testing.assert_array_equal(twin((2, 3)), values)
        with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
            twin((3,))
    assert initializers.serialize(initializer)["config"]["value"]["class_name"] == "__numpy__"


def test_array_as_identifier():
    values = np.arange(6.0).reshape(2, 3)
    initializer = initializers.get(values)
    values[...] = -1
    np.testing.assert_array_equal(initializer((2, 3)), np.arange(6.0).reshape(2, 3))
    assert initializers.get(np.float32(0.5)).get_config() == {"value": 0.5}
    bfloat16 = initializers.get(np.ones(3, ml_dtypes.bfloat16))
    assert json.loads(json.dumps(bfloat16.get_config()))["value"]["config"] == {"value": [1.0, 1.0, 1.0], "dtype": "float32"}
    axes = initializers.VarianceScaling(input_axes=np.array([0, 1]), output_axes=[0, 3]).get_config()
    assert json.loads(json.dumps(axes))["input_axes"] == [0, 1]


@pytest.mark.parametrize("value", ["x", None, object(), [["a"]], [1j], [[1], [1, 2]], np.array(["a"]), 10**400])
def test_bad_constants(value):
    with pytest.raises(ValueError, match=r"real numbers|inhomogeneous"):
        initializers.Constant(value)


@pytest.mark.parametrize("dtype", ["O", "S1000000000", "U5", "f4,f4", "M8[s]", "nope", "c16", None, {}, "V3"])
def test_bad_dtypes_of_constant_arrays(dtype):
    value = {"class_name": "__numpy__", "config": {"value": ["a", "b"], "dtype": dtype}}
    with pytest.raises(ValueError, match=r"real numbers|Could not interpret|could not convert"):
        initializers.get({"class_name": "Constant", "config": {"value": value}})


@pytest.mark.parametrize("name", sorted(initializers._registry.names))
def test_every_initializer_keeps_shape_and_dtype(name):
    initializer = initializers.get(name)
    if type(initializer) is initializers.Initializer:
        with pytest.raises(NotImplementedError):
            initializer((2, 2))
        return
    if type(initializer) is initializers.Identity:
        with pytest.raises(ValueError, match="2D"):
            initializer((3, 3, 2, 1))
    shape = (4, 3) if type(initializer) is initializers.Identity else (3, 3, 2, 1)
    for dtype in ("float16", np.float32, np.dtype(np.float64)):
        result = initializer(shape, dtype=dtype)
        assert type(result) is np.ndarray
        assert result.shape == shape
        assert result.dtype == dtype
        assert np.isfinite(result).all()
        assert result.flags.writeable
    assert initializer(shape).dtype == initializer(shape, dtype=None).dtype == np.float32


@pytest.mark.parametrize("name", ["GlorotUniform", "HeNormal", "RandomNormal"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2, 1), (1,), (5,), [2, 3], (np.int64(2), 3)])
def test_unusual_shapes(name, shape):
    result = getattr(initializers, name)(seed=1)(shape)
    assert type(result) is np.ndarray
    assert result.shape == tuple(shape)


def test_bad_shapes_and_dtypes():
    initializer = initializers.GlorotUniform()
    with pytest.raises(ValueError, match="negative"):
        initializer((2, -1))
    with pytest.raises(TypeError):
        initializer((2, 1.5))
    for dtype in (np.int32, bool, np.complex64, np.longdouble):
        with pytest.raises(TypeError, match="dtype"):
            initializer((2, 1), dtype=dtype)
    with pytest.raises(ValueError, match="two-dimensional"):
        initializers.Orthogonal()((3,))


def test_bfloat16_is_keras_too():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = initializers.RandomUniform(0, 1, seed=4)((2, 2, 1, 1), dtype=ml_dtypes.bfloat16)
    assert values.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(values.astype(np.float64) * 128 % 1, 0)  # seven random bits


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((), {}, (1, 1)),
        ((5,), {}, (5, 5)),
        ((4, 6), {}, (4, 6)),
        ((3, 3, 64, 4), {}, (576, 36)),
        ((3, 5, 64, 4), {"input_axes": [0, 1], "output_axes": [0, 1, 3]}, (15, 60)),
        ((3, 3, 64, 4), {"input_axes": [0, 1]}, (576, 36)),
    ],
)
def test_fans(shape, axes, expected):
    assert initializers.compute_fans(shape, **axes) == expected


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("VarianceScaling", {"scale": 0}),
        ("VarianceScaling", {"scale": "2"}),
        ("VarianceScaling", {"mode": "fan_both"}),
        ("VarianceScaling", {"mode": ["fan_in"]}),
        ("VarianceScaling", {"distribution": "cauchy"}),
        ("RandomNormal", {"stddev": float("nan")}),
        ("RandomUniform", {"minval": None}),
        ("Identity", {"gain": "1"}),
        ("Orthogonal", {"gain": True}),
    ],
)
def test_bad_arguments(name, arguments):
    with pytest.raises(ValueError, match=r"must be|Expected"):
        getattr(initializers, name)(**arguments)


def test_keras_spellings_are_exported():
    for name in ("glorot_uniform", "he_normal", "zeros", "orthogonal", "random_normal", "variance_scaling"):
        assert getattr(initializers, name) is type(initializers.get(name))
