"""Real Keras and dwconv side by side, on fresh random cases: usage `compare_layers.py [count] [seed]`.

Run it in the environment of setup-keras.sh with a built dwconv on PYTHONPATH.  For every case that both take: outputs within
1e-5 (16-bit ones within TensorFlow's own tolerance, for it adds up in that type), equal shapes, dtypes, losses and counts,
seeded weights equal (bit for bit in the uniform family), equal configs, and each one's config loaded by the other, where it
gives the same outputs for the same weights.  Refusals agree but for the deliberate differences, which are counted.
Exit status 1 at any difference.
"""

import collections
import json
import sys

import record_layers as record  # first, since it sets Keras' environment

import keras
import numpy as np
import tensorflow as tf

import dwconv

THEIRS, OURS = keras.layers.DepthwiseConv2D, dwconv.DepthwiseConv2D
# Keras has constants of some activations in float32, and TensorFlow adds up 16-bit numbers in their own type.
TOLERANCE = {"float32": 1e-5, "float64": 1e-7, "float16": 2e-2, "bfloat16": 1e-1}


def deliberate(question, theirs, ours):
    """Why the two may differ in whether they refuse, or None."""
    arguments = question["arguments"]
    strides, dilation = np.max(arguments.get("strides", 1)), np.max(arguments.get("dilation_rate", 1))
    if strides > 1 and dilation > 1:
        return "strides with dilation: refused, as documented" if ours.get("raises") == "ValueError" else None
    if theirs.get("raises") == "InvalidArgumentError" and np.size(arguments["strides"]) == 2 and "raises" not in ours:
        return "unequal strides: computed"
    return None


def bias_along_width(arguments, output_shape):
    """Keras 3.15 on TensorFlow takes the last axis for the channels where it is as long (keras/src/backend/tensorflow/numpy.py, add)."""
    first = arguments["data_format"] == "channels_first"
    return first and arguments["use_bias"] and output_shape[1] == output_shape[3] > 1


def close(a, b, dtype, what):
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance, err_msg=what)


def compare(question, index, counts):
    theirs, their_weights, their_outputs = record.ask(THEIRS, question, index)
    ours, our_weights, our_outputs = record.ask(OURS, question, index)
    reason = deliberate(question, theirs, ours)
    if reason or "raises" in theirs:
        assert reason or ours == theirs, (theirs, ours)
        counts[reason or "both refuse, alike"] += 1
        return
    dtype = theirs["dtype"]
    name = question["arguments"]["depthwise_initializer"]["class_name"]
    for ours_, theirs_ in zip(our_weights, their_weights, strict=True):
        assert (ours_.shape, ours_.dtype) == (theirs_.shape, theirs_.dtype)
    if name in (*record.UNIFORM, "VarianceScaling", "Ones", "Constant"):
        np.testing.assert_array_equal(our_weights[0], their_weights[0])
        counts["kernels equal bit for bit"] += 1
    else:
        np.testing.assert_allclose(our_weights[0], their_weights[0], rtol=1e-5, atol=2e-6)
        counts["kernels of the normal family within 2e-6"] += 1
    np.testing.assert_array_equal(our_weights[1:], their_weights[1:])
    if bias_along_width(question["arguments"], ours["output_shape"]):
        counts["Keras adds the bias along the width: outputs not compared"] += 1
        return
    exact = "float32" if dtype == "float64" else dtype  # the normal family's weights differ in their last bits
    close(our_outputs, their_outputs, exact, "outputs")
    close(ours.pop("losses"), theirs.pop("losses"), exact, "losses")
    config, their_config = ours["config"], theirs["config"]
    rounded = json.dumps(their_config).replace("0.009999999776482582", "0.01")  # Keras keeps L1's factor in float32
    assert json.dumps(config) == rounded
    assert {**ours, "config": 0} == {**theirs, "config": 0}
    # across: their config here, ours there
    for layer_class, other_config in (OURS, their_config), (THEIRS, config):
        layer = layer_class.from_config(json.loads(json.dumps(other_config)))
        layer.build(question["input_shape"])
        layer.set_weights(their_weights)
        got = layer(record.inputs(question["input_shape"], index))
        close(record.plain(got), their_outputs, dtype, "across")
    # wrapped, as models have it
    wrapped = json.loads(json.dumps(keras.layers.serialize(THEIRS.from_config(their_config))))
    assert dwconv.serialize(dwconv.deserialize(wrapped))["config"]["kernel_size"] == tuple(their_config["kernel_size"])
    layer = OURS.from_config(config)
    layer.build(question["input_shape"])
    loaded = keras.layers.deserialize(json.loads(json.dumps(dwconv.serialize(layer))))
    assert loaded.built
    assert [tuple(w.shape) for w in loaded.weights] == [w.shape for w in layer.weights]
    counts["both compute, alike"] += 1


def main(count=300, seed=1):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    counts, failures = collections.Counter(), 0
    for index, question in enumerate(record.cases(int(count), int(seed))):
        try:
            compare(question, index, counts)
        except AssertionError as error:
            failures += 1
            print(f"case {index}: {json.dumps(question)}\n{error}\n")
    assert record.names(OURS) == record.names(THEIRS)
    for question in record.odd_questions():
        ours, theirs = (record.ask(layer_class, question, 0)[0].get("raises") for layer_class in (OURS, THEIRS))
        counts["odd arguments and shapes: " + ("alike" if ours == theirs else f"Keras {theirs}, dwconv {ours}")] += 1
    assert record.shape_answers(OURS) == record.shape_answers(THEIRS)
    for what, number in sorted(counts.items()):
        print(f"{number:5d} {what}")
    print(f"{failures:5d} differences")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
