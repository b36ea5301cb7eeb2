"""The layer against recorded answers of Keras 3.15 (and configs of Keras 2): tests/data/keras_layers.json and .npz.

Recorded by tests/keras/record_layers.py.  Where dwconv differs on purpose, the differences are listed here with their reason,
and a recorded case that stops to be one of them fails.
"""

import json
import pathlib

import numpy as np
import oracle
import pytest

import dwconv
from dwconv import _layer_base

DATA = pathlib.Path(__file__).parent / "data"
RECORD = json.loads((DATA / "keras_layers.json").read_text())
UNIFORM = ("GlorotUniform", "HeUniform", "LecunUniform", "RandomUniform", "VarianceScaling", "Ones", "Constant")
# Keras has constants of some activations in float32, and TensorFlow adds up 16-bit numbers in their own type.
TOLERANCE = {"float32": 1e-5, "float64": 1e-7, "float16": 2e-2, "bfloat16": 1e-1}


def inputs(shape, index):
    """The formula of record_layers.py."""
    size = int(np.prod(shape))
    return (((np.arange(size, dtype=np.int64) * 7919 + index * 104729) % 257 - 128) / 64).reshape(shape).astype(np.float32)


def wide(array):
    return np.asarray(array).astype(np.float64)


def recorded():
    """The cases that Keras computed, with their number, weights and outputs."""
    with np.load(DATA / "keras_layers.npz") as file:
        numbers = {name: (file[name], [0]) for name in file}

    def take(shape, dtype):
        flat, position = numbers["float64" if dtype == "float64" else "float32"]
        count = int(np.prod(shape))
        position[0] += count
        return flat[position[0] - count : position[0]].reshape(shape)

    cases = []
    for index, case in enumerate(RECORD["cases"]):
        if "config" in case["keras"]:
            weights = [take(shape, dtype) for shape, dtype in case["keras"]["weights"]]
            cases.append((index, case, weights, take(case["keras"]["output_shape"], case["keras"]["dtype"])))
    assert all(len(flat) == position[0] for flat, position in numbers.values())
    return cases


COMPUTED = recorded()
REFUSED = [(index, case) for index, case in enumerate(RECORD["cases"]) if "raises" in case["keras"]]


def refused_here(case):
    strides, dilation = case["arguments"].get("strides", 1), case["arguments"].get("dilation_rate", 1)
    return np.max(strides) > 1 and np.max(dilation) > 1


def test_there_are_enough_cases():
    assert len(COMPUTED) > 200
    assert len(REFUSED) > 50


@pytest.mark.parametrize(("index", "case", "weights", "outputs"), COMPUTED, ids=[str(case[0]) for case in COMPUTED])
def test_case(index, case, weights, outputs):
    keras = case["keras"]
    if refused_here(case):  # documented by Keras as an error, and computed by 3.15
        with pytest.raises(ValueError, match="stride"):
            dwconv.DepthwiseConv2D(**case["arguments"])
        return
    layer, x = dwconv.DepthwiseConv2D(**case["arguments"]), inputs(case["input_shape"], index)
    got = layer(x)
    assert got.dtype.name == keras["dtype"]
    assert list(got.shape) == list(layer.compute_output_shape(case["input_shape"])) == keras["output_shape"]
    tolerance = max(TOLERANCE[keras["dtype"]], 1e-5)  # the normal family's weights differ in their last bits
    np.testing.assert_allclose(wide(got), wide(outputs), rtol=tolerance, atol=tolerance)

    uniform = case["arguments"]["depthwise_initializer"]["class_name"] in UNIFORM
    assert [[list(weight.shape), weight.dtype.name] for weight in layer.weights] == keras["weights"]
    np.testing.assert_allclose(wide(layer.kernel), weights[0], rtol=0 if uniform else 1e-5, atol=0 if uniform else 2e-6)
    assert not weights[1:] or np.array_equal(wide(layer.bias), weights[1])
    assert layer.losses == pytest.approx(keras["losses"], rel=tolerance, abs=tolerance)
    assert layer.count_params() == keras["count_params"]
    assert layer.get_build_config() == {"input_shape": tuple(case["input_shape"])}
    assert json.loads(json.dumps(layer.get_build_config())) == keras["build_config"]
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (
        keras["trainable_weights"],
        keras["non_trainable_weights"],
    )


@pytest.mark.parametrize(("index", "case", "weights", "outputs"), COMPUTED, ids=[str(case[0]) for case in COMPUTED])
def test_config(index, case, weights, outputs):
    keras = case["keras"]["config"]
    if refused_here(case):
        with pytest.raises(ValueError, match="stride"):
            dwconv.DepthwiseConv2D.from_config(keras)
        return
    # Keras keeps the factor of L1 in float32
    exact = json.loads(json.dumps(keras).replace("0.009999999776482582", "0.01"))
    from_arguments = dwconv.DepthwiseConv2D(**case["arguments"]).get_config()
    assert json.dumps(from_arguments) == json.dumps(exact)  # in Keras' order too
    layer = dwconv.DepthwiseConv2D.from_config(keras)
    assert json.loads(json.dumps(layer.get_config())) == keras
    layer.build_from_config(case["keras"]["build_config"])
    layer.set_weights(weights)
    tolerance = TOLERANCE[case["keras"]["dtype"]]
    np.testing.assert_allclose(
        wide(layer(inputs(case["input_shape"], index))), wide(outputs), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(("index", "case"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_case_that_keras_refuses(index, case):
    arguments, x = case["arguments"], inputs(case["input_shape"], index)
    if case["keras"]["raises"] == "InvalidArgumentError":  # unequal strides, which TensorFlow's kernel does not have
        assert len(set(arguments["strides"])) == 2
        layer = dwconv.DepthwiseConv2D(**(arguments | {"activation": None, "dtype": "float64"}))
        got = layer(x)
        options = {key: arguments[key] for key in ("strides", "dilation_rate", "data_format")} | {"padding": layer.padding}
        options["strides"] = tuple(options["strides"])
        wanted = oracle.conv(x, layer.kernel, layer.bias, **options)
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
        return
    assert case["keras"]["raises"] == "ValueError"
    with pytest.raises(ValueError, match=r"zero or negative|stride"):
        dwconv.DepthwiseConv2D(**arguments)(x)


# What dwconv answers instead, where it is not what Keras answers.
OTHER_ANSWERS = {
    ("AttributeError", "padding"): "ValueError",  # None and numbers
    ("TypeError", "kernel_size"): "ValueError",  # digit strings; depth_multiplier=None; an activation's unknown class
    ("InvalidArgumentError", "strides"): None,  # unequal strides are computed
    (None, "dilation_rate"): "ValueError",  # strides with dilation are refused, as documented
}


@pytest.mark.parametrize(
    "case", RECORD["odd"], ids=lambda case: f"{list(case['arguments'].items())[-1]} {case['input_shape']}"[:70]
)
def test_odd_arguments_and_shapes(case):
    keras = case["keras"].get("raises")
    wanted = next(
        (answer for (error, name), answer in OTHER_ANSWERS.items() if error == keras and name in case["arguments"]), keras
    )
    if wanted is not None:
        with pytest.raises({"ValueError": ValueError, "TypeError": TypeError}[wanted]) as error:
            dwconv.DepthwiseConv2D(**case["arguments"])(inputs(case["input_shape"], 0))
        assert len(str(error.value)) < 2000
        return
    outputs = dwconv.DepthwiseConv2D(**case["arguments"])(inputs(case["input_shape"], 0))
    assert keras is not None or list(outputs.shape) == case["keras"]["output_shape"]


@pytest.mark.parametrize("case", RECORD["shapes"], ids=lambda case: str(case["shape"]))
def test_output_shape(case):
    layer = dwconv.DepthwiseConv2D(**({"kernel_size": 3, "data_format": "channels_last"} | case["arguments"]))
    if case["keras"] == "ValueError":
        with pytest.raises(ValueError, match="zero or negative"):
            layer.compute_output_shape(case["shape"])
    else:
        assert layer.compute_output_shape(case["shape"]) == tuple(case["keras"])


@pytest.mark.parametrize("case", RECORD["keras_2"], ids=lambda case: str(case["arguments"])[:50])
def test_config_of_keras_2(case):
    assert case["config"]["groups"] == 1  # which Keras 3 refuses
    layer = dwconv.DepthwiseConv2D.from_config(case["config"])
    arguments = {key: value for key, value in case["arguments"].items() if key != "batch_input_shape"}
    wanted = dwconv.DepthwiseConv2D(
        **({"name": case["config"]["name"], "data_format": "channels_last"} | arguments)
    ).get_config()
    text = json.dumps(layer.get_config())
    for rounded, number in ("0.009999999776482582", "0.01"), ("0.30000001192092896", "0.3"):  # by Keras 2, to float32
        text = text.replace(rounded, number)
    assert json.loads(text) == json.loads(json.dumps(wanted))
    wrapped = dwconv.deserialize(case["serialized"])
    assert wrapped.get_config() == layer.get_config()
    assert wrapped.built == ("build_config" in case["serialized"])


def test_automatic_names(monkeypatch):
    monkeypatch.setattr(_layer_base, "_counters", {})
    classes = [type(name, (dwconv.DepthwiseConv2D,), {}) for name, _ in RECORD["names"]]
    assert [cls(3, data_format="channels_last").name for cls in classes] == [name for _, name in RECORD["names"]]
