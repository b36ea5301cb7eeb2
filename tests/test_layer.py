"""The layer's life: arguments, build, call, weights, losses, dtypes, configs, copies, threads, safety.

That its numbers are Keras' is test_keras_golden.py's matter; here they are `depthwise_conv2d`'s, which has its own oracle.
"""

import copy
import gc
import inspect
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import weakref

import ml_dtypes
import numpy as np
import oracle
import pytest

import dwconv
from dwconv import DepthwiseConv2D, _layer_base, depthwise_conv2d
from dwconv._registry import get_custom_objects

KWARGS = {"data_format": "channels_last"}  # so that no keras.json of the machine that tests decides


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    yield
    get_custom_objects().clear()


def images(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def built(*args, shape=(2, 6, 7, 3), **kwargs):
    layer = DepthwiseConv2D(*args, **({"bias_initializer": "random_normal"} | kwargs))
    layer.build(shape)
    return layer


# --- arguments


def test_signature_is_kerases():
    signature = inspect.signature(DepthwiseConv2D)
    assert str(signature) == (
        "(kernel_size, strides=(1, 1), padding='valid', depth_multiplier=1, data_format=None, dilation_rate=(1, 1), "
        "activation=None, use_bias=True, depthwise_initializer='glorot_uniform', bias_initializer='zeros', "
        "depthwise_regularizer=None, bias_regularizer=None, activity_regularizer=None, depthwise_constraint=None, "
        "bias_constraint=None, **kwargs)"
    )


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), [3, 3], (3, np.int16(3)), np.array([3, 3])])
@pytest.mark.parametrize("name", ["kernel_size", "strides", "dilation_rate"])
def test_integers_are_taken_in_any_form(name, value):
    layer = DepthwiseConv2D(**({"kernel_size": 2} | {name: value}))
    assert getattr(layer, name) == (3, 3)
    assert all(type(size) is int for size in getattr(layer, name))


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2.0,
        2.5,
        True,
        np.True_,
        "3",
        "33",
        ("3", "3"),
        {3, 4},
        {3: 4},
        None,
        (),
        (3,),
        (3, 3, 3),
        (3, 0),
        (3, True),
        (3, 2.0),
        np.array([1.5, 2]),
        np.array([[3, 3]]),
        b"33",
        iter((3, 3)),
        float("nan"),
        2**63,
        10**5000,
        (3, -(2**70)),
        [[]],
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, int) or value < 2**70 else "huge",
)
@pytest.mark.parametrize("name", ["kernel_size", "strides", "dilation_rate"])
def test_what_is_no_pair_of_positive_integers_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer or two of them") as error:
        DepthwiseConv2D(**({"kernel_size": 2} | {name: value}))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, [1], 2**63])
def test_depth_multiplier_is_a_positive_integer(value):
    with pytest.raises(ValueError, match="`depth_multiplier` must be a positive integer"):
        DepthwiseConv2D(3, depth_multiplier=value)
    assert DepthwiseConv2D(3, depth_multiplier=np.int32(2)).depth_multiplier == 2


@pytest.mark.parametrize(("strides", "dilation"), [(2, 2), ((1, 2), (2, 1)), ((2, 1), (2, 1)), (3, (1, 4))])
def test_strides_with_dilation_are_refused(strides, dilation):
    with pytest.raises(ValueError, match="stride above 1 with a dilation above 1"):
        DepthwiseConv2D(3, strides=strides, dilation_rate=dilation)


@pytest.mark.parametrize("value", ["causal", "CAUSAL", "full", "", None, 1, b"same", ((1, 1), (1, 1)), [1], {"same"}])
def test_padding_is_valid_or_same(value):
    with pytest.raises(ValueError, match="padding"):
        DepthwiseConv2D(3, padding=value)
    assert DepthwiseConv2D(3, padding="SaMe").padding == "same"


@pytest.mark.parametrize("value", ["NHWC", "", 1, b"channels_last", ["channels_last"]])
def test_data_format_is_one_of_two(value):
    with pytest.raises(ValueError, match="`data_format` must be one of"):
        DepthwiseConv2D(3, data_format=value)
    assert DepthwiseConv2D(3, data_format="Channels_First").data_format == "channels_first"


@pytest.mark.parametrize("name", ["use_bias", "trainable", "autocast"])
def test_booleans(name):
    for value in ("no", 1, None, [], np.array([True])):
        with pytest.raises(ValueError, match=f"Expected `{name}` to be a boolean"):
            DepthwiseConv2D(3, **{name: value})
    assert getattr(DepthwiseConv2D(3, **{name: np.False_}), name) is False


@pytest.mark.parametrize("name", ["a/b", "../x", 3, b"x", "x" * 1001, ["x"]])
def test_name_is_a_short_string_without_slash(name):
    with pytest.raises(ValueError, match="`name` must be a string") as error:
        DepthwiseConv2D(3, name=name)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["", "conv", "nul\0", "ü☃", "x" * 1000])
def test_name_is_kept(name):
    assert DepthwiseConv2D(3, name=name).name == name


@pytest.mark.parametrize(
    ("kwargs", "hint"),
    [
        ({"foo": 1}, "foo"),
        ({"filters": 3}, "filters"),
        ({"kernel_initializer": "zeros"}, r"depthwise_\*"),
        ({"kernel_regularizer": "l2"}, r"depthwise_\*"),
        ({"stride": 2}, "stride"),
        ({"weights": []}, "weights"),
        ({"x" * 10**6: 1}, "xxx"),
    ],
)
def test_unknown_keywords_are_refused(kwargs, hint):
    with pytest.raises(ValueError, match=f"Unrecognized keyword arguments passed to DepthwiseConv2D.*{hint}") as error:
        DepthwiseConv2D(3, **kwargs)
    assert len(str(error.value)) < 300


def test_old_keywords_are_taken():
    layer = DepthwiseConv2D(3, groups=1, batch_input_shape=(None, 8, 8, 3), input_shape=(8, 8, 3), input_dim=3, batch_size=2)
    assert not layer.built
    for groups in (2, 0, None, "1"):
        with pytest.raises(ValueError, match="`groups` must be 1"):
            DepthwiseConv2D(3, groups=groups)


def test_missing_kernel_size():
    with pytest.raises(TypeError, match="kernel_size"):
        DepthwiseConv2D()


def test_none_for_the_initializers():
    layer = built(3, depthwise_initializer=None, bias_initializer=None)
    assert type(layer.depthwise_initializer) is dwconv.initializers.GlorotUniform
    assert not layer.bias.any()  # as documented; Keras draws random numbers
    assert layer.kernel.std() > 0


@pytest.mark.parametrize("activation", ["glu", dwconv.activations.glu, {"class_name": "function", "config": "glu"}])
def test_glu_is_refused(activation):
    with pytest.raises(ValueError, match="halves an axis"):
        DepthwiseConv2D(3, activation=activation)


# --- names


def test_automatic_names(monkeypatch):
    monkeypatch.setattr(_layer_base, "_counters", {})
    my_layer = type("MyDW", (DepthwiseConv2D,), {})
    layers = [DepthwiseConv2D(3), my_layer(3), DepthwiseConv2D(3, name="depthwise_conv2d"), DepthwiseConv2D(3), my_layer(3)]
    assert [layer.name for layer in layers] == [
        "depthwise_conv2d",
        "my_dw",
        "depthwise_conv2d",
        "depthwise_conv2d_1",
        "my_dw_1",
    ]


# --- build and call


def test_life():
    layer = DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, activation="relu", name="dw")
    assert repr(layer) == "<DepthwiseConv2D name=dw, built=False>"
    assert (layer.built, layer.weights, layer.get_weights(), layer.losses, layer.get_build_config()) == (
        False,
        [],
        [],
        [],
        None,
    )
    assert layer.input_spec == (4, {})
    x = images(2, 7, 6, 3)
    y = layer(x)
    assert repr(layer) == "<DepthwiseConv2D name=dw, built=True>"
    assert layer.get_build_config() == {"input_shape": (2, 7, 6, 3)}
    assert layer.input_spec.axes == {-1: 3}
    assert layer.kernel is layer.depthwise_kernel is layer.weights[0]
    assert layer.bias is layer.weights[1]
    assert (layer.kernel.shape, layer.bias.shape, layer.count_params()) == ((3, 3, 3, 2), (6,), 60)
    np.testing.assert_array_equal(
        y, depthwise_conv2d(x, layer.kernel, layer.bias, strides=2, padding="same", activation="relu")
    )
    assert y.shape == layer.compute_output_shape(x.shape) == (2, 4, 3, 6)
    np.testing.assert_array_equal(layer(x), y)
    assert layer(images(5, 9, 4, 3)).shape == (5, 5, 2, 6)  # only the channels are fixed
    assert layer(images(0, 9, 4, 3)).shape == (0, 5, 2, 6)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "tanh", "softmax", "LeakyReLU", np.tanh])
@pytest.mark.parametrize("use_bias", [True, False])
def test_call_is_the_function(data_format, activation, use_bias):
    shape = (2, 6, 7, 3) if data_format == "channels_last" else (2, 3, 6, 7)
    layer = built((2, 3), (2, 1), "same", 2, data_format, activation=activation, use_bias=use_bias, shape=shape)
    x = images(*shape)
    wanted = depthwise_conv2d(
        x, layer.kernel, layer.bias, strides=(2, 1), padding="same", data_format=data_format, activation=activation
    )
    np.testing.assert_array_equal(layer(x), wanted)
    np.testing.assert_array_equal(layer.call(x), wanted)
    plain = depthwise_conv2d(x, layer.kernel, strides=(2, 1), padding="same", data_format=data_format)
    np.testing.assert_array_equal(layer.convolution_op(x, layer.kernel), plain)
    assert (layer.bias is None) == (not use_bias)


def test_bias_goes_to_the_channels_where_the_width_is_as_long():
    layer = built(1, data_format="channels_first", shape=(1, 3, 3, 3))  # Keras 3.15 adds it along the width there
    x = images(1, 3, 3, 3)
    np.testing.assert_allclose(
        layer(x), oracle.conv(x, layer.kernel, layer.bias, data_format="channels_first"), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("strides", [(1, 2), (3, 1), (2, 3)])
def test_unequal_strides(strides):
    layer = built(3, strides, "same")
    x = images(2, 6, 7, 3)
    np.testing.assert_allclose(
        layer(x), oracle.conv(x, layer.kernel, layer.bias, strides=strides, padding="same"), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(6, 7, 3), (1, 2, 6, 7, 3), (6,), ()])
@pytest.mark.parametrize("first", [True, False])
def test_inputs_have_four_axes(shape, first):
    layer = DepthwiseConv2D(3) if first else built(3)
    with pytest.raises(ValueError, match="4 axes"):
        layer(np.ones(shape, np.float32))
    assert layer.built != first


@pytest.mark.parametrize(("data_format", "axis"), [("channels_last", -1), ("channels_first", 1)])
def test_other_number_of_channels(data_format, axis):
    layer = built(1, data_format=data_format, shape=(1, 3, 3, 3))
    shape = [2, 8, 8, 8]
    shape[axis] = 4
    with pytest.raises(ValueError, match=rf"3 channels on axis {axis}\. Received: inputs of shape \(2, .*4"):
        layer(np.ones(shape, np.float32))


def test_window_that_does_not_fit():
    layer = DepthwiseConv2D(3, name="n")
    with pytest.raises(ValueError, match="zero or negative"):
        layer(images(1, 2, 6, 3))
    assert not layer.built
    layer(images(1, 3, 6, 3))
    with pytest.raises(ValueError, match="zero or negative"):  # Keras returns an empty array
        layer(images(1, 2, 6, 3))


@pytest.mark.parametrize(
    "shape",
    [
        (1, 8, 8, None),
        (1, 8, 8, 0),
        (8, 8, 3),
        None,
        3,
        "abcd",
        (1, 8, 8, -3),
        (1, 8, 8, 2.0),
        (1, 8, 8, True),
        (1, 2, 8, 3),
        ((1,),),
    ],
)
def test_build_refuses(shape):
    layer = DepthwiseConv2D(3)
    with pytest.raises(ValueError, match=r"[Ss]hape|channels|zero or negative"):
        layer.build(shape)
    assert not layer.built
    layer.build((None, None, None, 3))
    assert layer.get_build_config() == {"input_shape": (None, None, None, 3)}


def test_build_is_done_once():
    layer = built(3)
    kernel = layer.kernel
    with pytest.raises(ValueError, match="already built"):
        layer.build((2, 6, 7, 3))
    layer(images(2, 6, 7, 3))
    assert layer.kernel is kernel


def test_before_build():
    layer = DepthwiseConv2D(3, name="fresh")
    assert not hasattr(layer, "kernel")
    assert not hasattr(layer, "bias")
    for attempt in (
        layer.count_params,
        layer.apply_constraints,
        lambda: layer.call(images(1, 4, 4, 1)),
        lambda: layer.stateless_call([], [], images(1, 4, 4, 1)),
        lambda: setattr(layer, "kernel", 1),
    ):
        with pytest.raises(ValueError, match="'fresh' has no weights yet"):
            attempt()
    layer.set_weights([])
    with pytest.raises(ValueError, match=r"'fresh' has no weights yet: .*build"):
        layer.set_weights([np.ones((3, 3, 1, 1))])


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 8, 8, 3, 1), (1, -8, 8, 3), (1, 8.0, 8, 3), "abcd", 8])
def test_output_shape_refuses(shape):
    with pytest.raises(ValueError, match=r"shape|axes"):
        DepthwiseConv2D(3).compute_output_shape(shape)


def test_output_shape_with_unknown_sizes():
    assert DepthwiseConv2D(3, depth_multiplier=2, **KWARGS).compute_output_shape((None, 8, None, 3)) == (None, 6, None, 6)
    assert DepthwiseConv2D(3, **KWARGS).compute_output_shape([None] * 4) == (None,) * 4
    assert DepthwiseConv2D(3, padding="same", **KWARGS).compute_output_shape((2, 0, 8, 3)) == (2, 0, 8, 3)


def test_options_are_read_at_every_call():
    layer = built(3, activation="relu")
    x = images(2, 6, 7, 3)
    layer.strides, layer.activation = (2, 2), dwconv.activations.tanh
    np.testing.assert_array_equal(layer(x), depthwise_conv2d(x, layer.kernel, layer.bias, strides=2, activation="tanh"))


def test_arguments_of_a_call():
    layer = built(3)
    x = images(2, 6, 7, 3)
    np.testing.assert_array_equal(layer(x, training=True), layer(x))
    with pytest.raises(TypeError, match="mask"):
        layer(x, mask=None)

    class Training(DepthwiseConv2D):
        def call(self, inputs, factor=1, training=None):
            return super().call(inputs) * factor * (2 if training else 1)

    layer = Training(3)
    np.testing.assert_array_equal(layer(x, training=True), layer(x) * 2)
    np.testing.assert_array_equal(layer(x, 3, training=False), layer(x, factor=3))


# --- inputs


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ml_dtypes.bfloat16, "uint8", "int64", "bool"])
def test_inputs_are_converted(dtype):
    layer = built(3)
    x = (images(2, 6, 7, 3) * 4).clip(0, 5).astype(dtype)
    before = x.copy()
    y = layer(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, layer(x.astype(np.float32)))
    np.testing.assert_array_equal(x, before)


def test_inputs_that_asarray_takes():
    layer = built(1, shape=(1, 2, 2, 1))
    wanted = layer(np.array([[[[1], [2]], [[3], [4]]]], np.float32))
    np.testing.assert_array_equal(layer([[[[1.0], [2.0]], [[3.0], [4.0]]]]), wanted)
    np.testing.assert_array_equal(layer((([(1,), [2]], ([3], [4])),)), wanted)

    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return np.array([[[[1.0], [2.0]], [[3.0], [4.0]]]])

    np.testing.assert_array_equal(layer(Wrapped()), wanted)


@pytest.mark.parametrize(
    "x",
    [
        np.ones((1, 4, 4, 1), complex),
        np.ones((1, 4, 4, 1), object),
        np.full((1, 4, 4, 1), "x"),
        np.ma.ones((1, 4, 4, 1)),
        None,
        "x",
        np.ones((1, 4, 4, 1), "M8[s]"),
        np.ones((1, 4, 4, 1), np.longdouble),
        {"x": 1},
    ],
)
def test_inputs_that_are_no_real_numbers(x):
    with pytest.raises(TypeError, match="inputs"):
        DepthwiseConv2D(3)(x)


def test_ragged_inputs():
    with pytest.raises(ValueError, match="inhomogeneous"):
        DepthwiseConv2D(3)([[1.0], [1.0, 2.0]])


def test_without_autocast_the_common_dtype_counts():
    layer = built(3, autocast=False)
    x = images(2, 6, 7, 3, dtype=np.float64)
    np.testing.assert_array_equal(layer(x), depthwise_conv2d(x, layer.kernel, layer.bias))
    assert layer(x).dtype == np.float64
    assert layer((4 * x).astype(np.int8)).dtype == np.float32


def test_views_are_read_in_place():
    layer = built(3)
    x = images(4, 12, 14, 3)[::-2, ::2, ::-2]
    np.testing.assert_array_equal(layer(x), layer(x.copy()))


# --- dtypes

POLICIES = {
    "float32": ("float32", "float32"),
    "float64": ("float64", "float64"),
    "float16": ("float16", "float16"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "mixed_float16": ("float16", "float32"),
    "mixed_bfloat16": ("bfloat16", "float32"),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_policies(policy):
    layer = built(
        3,
        dtype=policy,
        activation="gelu",
        activity_regularizer="l2",
        depthwise_constraint="unit_norm",
        depthwise_regularizer="l1",
        depthwise_initializer=dwconv.initializers.HeNormal(seed=1),
    )
    compute, variable = POLICIES[policy]
    assert (layer.compute_dtype, layer.variable_dtype, layer.dtype) == (compute, variable, variable)
    assert (layer.dtype_policy.name, layer.dtype_policy.compute_dtype) == (policy, compute)
    assert [weight.dtype.name for weight in layer.weights] == [variable] * 2
    x = images(2, 6, 7, 3)
    y = layer(x)
    assert y.dtype.name == compute
    kernel, bias = (weight.astype(y.dtype) for weight in layer.weights)
    np.testing.assert_array_equal(y, depthwise_conv2d(x.astype(y.dtype), kernel, bias, activation="gelu"))
    assert len(layer.losses) == 2
    layer.apply_constraints()
    layer.set_weights([np.ones((3, 3, 3, 1)), np.zeros(3)])
    assert [weight.dtype.name for weight in layer.weights] == [variable] * 2
    twin = DepthwiseConv2D.from_config(json.loads(json.dumps(layer.get_config())))
    assert twin.dtype_policy == layer.dtype_policy
    assert pickle.loads(pickle.dumps(layer))(x).dtype == y.dtype


@pytest.mark.parametrize(
    "dtype",
    [
        np.float64,
        np.dtype("float64"),
        "float64",
        DepthwiseConv2D(3, dtype="float64", **KWARGS).dtype_policy,
        {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float64"}, "registered_name": None},
        {"module": "keras.mixed_precision", "class_name": "Policy", "config": {"name": "float64"}, "registered_name": None},
        {"class_name": "PolicyV1", "config": {"name": "float64", "loss_scale": None}},
        {"class_name": "FloatDTypePolicy", "config": {"name": "float64"}},
    ],
)
def test_spellings_of_a_policy(dtype):
    assert DepthwiseConv2D(3, dtype=dtype).dtype == "float64"


@pytest.mark.parametrize(
    "dtype",
    [
        "nope",
        "int8",
        "int32",
        "float8",
        "",
        3,
        float,
        int,
        np.int32,
        np.float128 if hasattr(np, "float128") else "float128",
        [],
        {},
        object(),
        {"class_name": "DTypePolicy"},
        {"class_name": "DTypePolicy", "config": {"name": ["float32"]}},
        {"class_name": "system", "config": {"name": "float32"}},
        {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}},
        "x" * 10**6,
    ],
)
def test_unknown_dtypes(dtype):
    with pytest.raises(ValueError, match="`dtype` must be one of float32, float64") as error:
        DepthwiseConv2D(3, dtype=dtype)
    assert len(str(error.value)) < 300


def test_policy_may_be_set():
    layer = built(3)
    layer.dtype_policy = "mixed_float16"
    assert layer(images(2, 6, 7, 3)).dtype == np.float16
    with pytest.raises(ValueError, match="`dtype`"):
        layer.dtype_policy = "int8"
    assert layer.compute_dtype == "float16"


# --- weights


def test_assigned_weights_are_checked_and_copied():
    layer = built(3, depth_multiplier=2)
    for name in ("kernel", "depthwise_kernel"):
        kernel = images(3, 3, 3, 2, dtype=np.float64)
        setattr(layer, name, kernel)
        np.testing.assert_array_equal(layer.kernel, kernel.astype(np.float32))
        kernel[...] = 0
        assert layer.kernel.any()
    layer.bias = [1, 2, 3, 4, 5, 6]
    assert layer.bias.dtype == np.float32
    before = layer.get_weights()
    for name, value in (
        ("kernel", np.ones((3, 3, 3, 1))),
        ("kernel", np.ones((3, 3, 6))),
        ("depthwise_kernel", 1.0),
        ("bias", np.ones(3)),
    ):
        with pytest.raises(ValueError, match="has shape"):
            setattr(layer, name, value)
    for value in (np.ones(6, complex), np.array(["1"] * 6), np.ma.ones(6)):
        with pytest.raises(TypeError, match="bias"):
            layer.bias = value
    for old, weight in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(weight, old)
    with pytest.raises(ValueError, match="use_bias=False"):
        built(3, use_bias=False).bias = np.ones(3)


def test_get_and_set_weights():
    layer, other = built(3), built(3)
    x = images(2, 6, 7, 3)
    assert not np.array_equal(layer(x), other(x))  # unseeded
    other.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x), other(x))
    layer.get_weights()[0][...] = 0
    other.weights[0][...] = 0  # the array itself
    assert layer.kernel.any()
    assert not other.kernel.any()
    kernel_only = built(3, use_bias=False)
    kernel_only.set_weights(layer.get_weights()[:1])
    np.testing.assert_array_equal(kernel_only.kernel, layer.kernel)
    assert kernel_only.bias is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda kernel, bias: [kernel], ValueError),
        (lambda kernel, bias: [kernel, bias, bias], ValueError),
        (lambda kernel, bias: [kernel + 1, bias[:1]], ValueError),
        (lambda kernel, bias: [kernel + 1, bias[None]], ValueError),
        (lambda kernel, bias: [kernel[:, :, :1], bias], ValueError),
        (lambda kernel, bias: [bias, kernel], ValueError),
        (lambda kernel, bias: [kernel + 1, bias * 1j], TypeError),
        (lambda kernel, bias: [kernel + 1, bias.astype(object)], TypeError),
        (lambda kernel, bias: [kernel + 1, [[1.0], [1.0, 2.0], 3]], ValueError),
        (lambda kernel, bias: 3, TypeError),
    ],
)
def test_refused_weights_change_nothing(change, error):
    layer = built(3)
    before = layer.get_weights()
    with pytest.raises(error):
        layer.set_weights(change(*layer.get_weights()))
    for old, weight in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_trainable():
    layer = built(3, depthwise_regularizer="l2")
    assert [w is v for w, v in zip(layer.trainable_weights, layer.variables, strict=True)] == [True, True]
    assert layer.non_trainable_weights == layer.non_trainable_variables == []
    assert len(layer.losses) == 1
    layer.trainable = False
    assert layer.trainable_weights == layer.trainable_variables == []
    assert len(layer.non_trainable_weights) == len(layer.weights) == 2
    assert layer.losses == []  # as in Keras 3
    with pytest.raises(ValueError, match="boolean"):
        layer.trainable = 1


def test_own_variables():
    layer, other, store = built(3), built(3), {}
    layer.save_own_variables(store)
    assert sorted(store) == ["0", "1"]
    other.load_own_variables(store)
    np.testing.assert_array_equal(other.kernel, layer.kernel)
    for wrong in ({}, {"0": store["0"]}, {**store, "2": 1}, {"kernel": store["0"], "bias": store["1"]}):
        with pytest.raises(ValueError, match="expected variables"):
            other.load_own_variables(wrong)
    with pytest.raises(ValueError, match="has shape"):
        other.load_own_variables({"0": store["0"], "1": np.ones(4)})


def test_first_values():
    seeded = built(3, depthwise_initializer=dwconv.initializers.GlorotUniform(seed=5))
    np.testing.assert_array_equal(seeded.kernel, dwconv.initializers.GlorotUniform(seed=5)((3, 3, 3, 1)))
    array = images(3, 3, 3, 1)
    layer = built(3, depthwise_initializer=array, bias_initializer=lambda shape, dtype: np.full(shape, 0.5, dtype))
    np.testing.assert_array_equal(layer.kernel, array)
    assert layer.kernel is not array
    assert layer.bias.tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="shape"):
        built(3, depthwise_initializer=array[:2])
    with pytest.raises(ValueError, match="The kernel of layer"):
        built(3, depthwise_initializer=lambda shape, dtype: np.ones(3))
    assert not np.array_equal(built(3).kernel, built(3).kernel)


def test_constraints_are_applied_only_on_request():
    layer = built(
        3,
        depthwise_initializer=dwconv.initializers.Constant(-1.0),
        depthwise_constraint="non_neg",
        bias_constraint="max_norm",
    )
    layer(images(2, 6, 7, 3))
    assert (layer.kernel == -1).all()
    layer.bias = [30, 40, 0]
    layer.apply_constraints()
    assert (layer.kernel == 0).all()
    np.testing.assert_allclose(layer.bias, [1.2, 1.6, 0], rtol=1e-6)
    without_bias = built(3, use_bias=False, depthwise_constraint="unit_norm", bias_constraint="unit_norm")
    without_bias.apply_constraints()
    np.testing.assert_allclose((without_bias.kernel**2).sum(0), 1, rtol=1e-5)
    wrong = built(3, depthwise_constraint="non_neg", bias_constraint=lambda bias: bias[:1])
    before = wrong.get_weights()
    with pytest.raises(ValueError, match="has shape"):
        wrong.apply_constraints()
    np.testing.assert_array_equal(wrong.kernel, before[0])


# --- losses


def test_losses():
    layer = built(3, depthwise_regularizer="l2", bias_regularizer="l1", activity_regularizer=dwconv.regularizers.L2(0.5))
    x = images(2, 6, 7, 3)
    weights = [0.01 * float((layer.kernel.astype(float) ** 2).sum()), 0.01 * float(abs(layer.bias.astype(float)).sum())]
    assert layer.losses == pytest.approx(weights)
    for _ in range(2):  # a call replaces the activity loss
        y = layer(x)
        assert layer.losses == pytest.approx([0.5 * float((y.astype(float) ** 2).sum()) / 2, *weights])
        assert all(type(loss) is float for loss in layer.losses)
    layer(x[:0])
    assert layer.losses[0] == 0.0


def test_add_loss():
    class Losing(DepthwiseConv2D):
        def call(self, inputs):
            self.add_loss(np.float32(1.5))
            return super().call(inputs)

    layer = Losing(3, activity_regularizer=lambda y: np.float64(2.0), bias_regularizer="l2")
    for _ in range(2):
        layer(images(2, 6, 7, 3))
        assert layer.losses == [1.5, 1.0, 0.0]
    layer.add_loss([1, float("nan"), np.array(2.0)])
    assert layer.losses[2:5] == pytest.approx([1.0, float("nan"), 2.0], nan_ok=True)
    before = layer.losses[:2]
    for loss in ("x", None, np.ones(2), 1j, lambda: 1.0, True):
        with pytest.raises(ValueError, match="`loss` must be a number"):
            layer.add_loss(loss)
    assert layer.losses[:2] == before
    assert len(layer.losses) == 6


def test_stateless_call():
    layer = built(3, activity_regularizer="l2", depthwise_regularizer="l2")
    x, new = images(2, 6, 7, 3), [images(3, 3, 3, 1, seed=1), images(3, seed=2)]
    before, losses = layer(x), layer.losses
    outputs, others = layer.stateless_call(new, [], x)
    np.testing.assert_array_equal(outputs, depthwise_conv2d(x, *new))
    assert others == []
    outputs, others, new_losses = layer.stateless_call(new, [], x, return_losses=True)
    assert new_losses == pytest.approx(
        [0.01 * (outputs.astype(float) ** 2).sum() / 2, 0.01 * (new[0].astype(float) ** 2).sum()]
    )
    np.testing.assert_array_equal(layer(x), before)
    assert layer.losses == losses
    with pytest.raises(ValueError, match="2 trainable and 0 other weights"):
        layer.stateless_call([], new, x)
    with pytest.raises(ValueError, match="has shape"):
        layer.stateless_call(new[::-1], [], x)
    layer.trainable = False
    outputs, others = layer.stateless_call([], new, x, training=False)
    np.testing.assert_array_equal(others[0], new[0])


# --- configs


class Standardised(DepthwiseConv2D):
    """Weight standardisation (Qiao et al., 2019, arXiv:1903.10520) in a few lines."""

    def convolution_op(self, inputs, kernel):
        mean, std = kernel.mean((0, 1), keepdims=True), kernel.std((0, 1), keepdims=True)
        return super().convolution_op(inputs, (kernel - mean) / (std + 1e-5))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_overridden_convolution_op_takes_effect(data_format, policy):
    shape = (2, 6, 7, 3) if data_format == "channels_last" else (2, 3, 6, 7)
    layer = Standardised(
        3, data_format=data_format, activation="relu6", bias_initializer="random_normal", depth_multiplier=2, dtype=policy
    )
    x = images(*shape)
    y = layer(x)
    kernel, bias = (weight.astype(y.dtype).astype(float) for weight in layer.weights)
    standard = (kernel - kernel.mean((0, 1))) / (kernel.std((0, 1)) + 1e-5)
    wanted = oracle.conv(x.astype(y.dtype), standard, bias, data_format=data_format, activation="relu6")
    tolerance = {"float32": 1e-5, "mixed_float16": 2e-2, "bfloat16": 1.5e-1}[policy]
    np.testing.assert_allclose(y.astype(float), wanted, rtol=tolerance, atol=tolerance)
    assert y.dtype.name == layer.compute_dtype
    assert dwconv.deserialize(dwconv.serialize(layer), {"Standardised": Standardised}).kernel.shape == (3, 3, 3, 2)


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("activation", ["linear", "gelu"])
def test_overridden_convolution_op_rounds_once(policy, activation):
    """As the layer itself: a 16-bit layer computes in float32 whatever is overridden."""
    class Same(DepthwiseConv2D):
        def convolution_op(self, inputs, kernel):
            assert inputs.dtype == kernel.dtype == np.float32
            return super().convolution_op(inputs, kernel)

        def convolution_op_vjp(self, inputs, kernel):
            return super().convolution_op_vjp(inputs, kernel)

    x = 100 * images(2, 6, 7, 3)
    options = {"depthwise_initializer": "ones", "bias_initializer": dwconv.initializers.Constant(-1000.0)}
    layer, same = (cls(3, dtype=policy, activation=activation, **options) for cls in (DepthwiseConv2D, Same))
    y = layer(x)
    for other in (same(x), same.vjp(x)[0], layer.vjp(x)[0]):
        assert other.dtype == y.dtype
        np.testing.assert_array_equal(other.astype(float), y.astype(float))


def test_convolution_op_of_one_layer():
    layer = built(3, activation="tanh")
    x = images(2, 6, 7, 3)
    layer.convolution_op = lambda inputs, kernel: depthwise_conv2d(inputs, kernel * 2)
    wanted = np.tanh(depthwise_conv2d(x, layer.kernel * 2) + layer.bias)
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-5, atol=1e-6)


def full():
    return DepthwiseConv2D(
        (3, 5),
        2,
        "SAME",
        4,
        "channels_first",
        1,
        "swish",
        False,
        dwconv.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", 7),
        "constant",
        "l1_l2",
        "l2",
        dwconv.regularizers.L1(0.4),
        dwconv.constraints.MinMaxNorm(0.1, 0.9, 0.5, [0, 1]),
        "max_norm",
        name="full",
        trainable=False,
        dtype="mixed_bfloat16",
    )


@pytest.mark.parametrize("layer", [DepthwiseConv2D(3, **KWARGS), full()])
def test_config_round_trip(layer):
    config = layer.get_config()
    text = json.dumps(config)
    twin = DepthwiseConv2D.from_config(json.loads(text))
    assert twin.get_config() == config
    assert json.dumps(twin.get_config()) == text
    assert not twin.built
    copied = copy.deepcopy(config)
    DepthwiseConv2D.from_config(config)
    assert config == copied
    assert dwconv.serialize(dwconv.deserialize(json.loads(json.dumps(dwconv.serialize(layer))))) == dwconv.serialize(layer)


def test_serialize():
    layer = built(3, name="dw", shape=(None, 8, 8, 3), **KWARGS)
    written = dwconv.serialize(layer)
    assert written == {
        "module": "keras.layers",
        "class_name": "DepthwiseConv2D",
        "config": layer.get_config(),
        "registered_name": None,
        "build_config": {"input_shape": (None, 8, 8, 3)},
    }
    read = dwconv.deserialize(json.loads(json.dumps(written)))
    assert (type(read), read.built, read.kernel.shape, read.name) == (DepthwiseConv2D, True, (3, 3, 3, 1), "dw")
    assert "build_config" not in dwconv.serialize(DepthwiseConv2D(3))
    for thing in (None, "relu", DepthwiseConv2D, dwconv.regularizers.L2()):
        with pytest.raises(TypeError, match="must be a DepthwiseConv2D"):
            dwconv.serialize(thing)
    with pytest.raises(ValueError, match="register_serializable"):
        dwconv.serialize(DepthwiseConv2D(3, activation=lambda x: x))


def test_subclass_is_found_by_registration_or_scope():
    written = json.loads(json.dumps(dwconv.serialize(Standardised(3, name="s"))))
    assert (written["module"], written["registered_name"]) == (__name__, "Standardised")
    with pytest.raises(ValueError, match="Standardised"):
        dwconv.deserialize(written)
    with dwconv.custom_object_scope({"Standardised": Standardised}):
        assert type(dwconv.deserialize(written)) is Standardised
    dwconv.register_serializable("my")(Standardised)
    written = json.loads(json.dumps(dwconv.serialize(Standardised(3, name="s"))))
    assert written["registered_name"] == "my>Standardised"
    assert type(dwconv.deserialize(written)) is Standardised


def test_custom_objects_reach_the_arguments():
    def halves(shape, dtype=None):
        return np.full(shape, 0.5, dtype)

    written = dwconv.serialize(built(3, depthwise_initializer=halves))
    with pytest.raises(ValueError, match="halves"):
        dwconv.deserialize(written)
    assert (dwconv.deserialize(written, {"halves": halves}).kernel == 0.5).all()


OLDEST = {  # as Keras 2.2 wrote it: bare class names, dtypes in initializers
    "name": "conv_dw_1",
    "trainable": True,
    "batch_input_shape": [None, 8, 8, 3],
    "dtype": "float32",
    "kernel_size": [3, 3],
    "strides": [1, 1],
    "padding": "same",
    "data_format": "channels_last",
    "dilation_rate": [1, 1],
    "activation": "linear",
    "use_bias": False,
    "bias_initializer": {"class_name": "Zeros", "config": {"dtype": "float32"}},
    "bias_regularizer": None,
    "activity_regularizer": None,
    "bias_constraint": None,
    "depth_multiplier": 1,
    "depthwise_initializer": {
        "class_name": "VarianceScaling",
        "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None, "dtype": "float32"},
    },
    "depthwise_regularizer": {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 3.9999998989515007e-05}},
    "depthwise_constraint": None,
}


def test_oldest_configs():
    layer = DepthwiseConv2D.from_config(OLDEST)
    assert layer(images(1, 8, 8, 3)).shape == (1, 8, 8, 3)
    assert layer.depthwise_regularizer.l2 == 3.9999998989515007e-05
    assert dwconv.deserialize({"class_name": "DepthwiseConv2D", "config": OLDEST}).get_config() == layer.get_config()


def test_leftovers_of_keras_2():
    leftovers = {
        "groups": 1,
        "kernel_initializer": {"class_name": "Ones"},
        "kernel_regularizer": None,
        "kernel_constraint": None,
    }
    config = DepthwiseConv2D(3, name="x").get_config()
    assert DepthwiseConv2D.from_config({**config, **leftovers}).get_config() == config
    with pytest.raises(ValueError, match="`groups` must be 1"):
        DepthwiseConv2D.from_config({**config, "groups": 2})


# --- safety


def changed(path, value):
    """The wrapped default config with another value at a path of keys."""
    config = json.loads(json.dumps(dwconv.serialize(built(3, name="x", **KWARGS))))
    *way, last = path
    node = config
    for key in way:
        node = node[key]
    node[last] = value
    return config


def nested(depth, kind):
    value = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize(
    "config",
    [
        changed(["module"], "os"),
        changed(["class_name"], "system"),
        changed(["class_name"], "__lambda__"),
        changed(["class_name"], "Dense"),
        changed(["class_name"], None),
        changed(["class_name"], ["DepthwiseConv2D"]),
        changed(["registered_name"], "evil>DepthwiseConv2D"),
        changed(["config"], None),
        changed(["config"], []),
        changed(["config"], "x"),
        changed(["config", "nope"], 1),
        changed(["config", "kernel_size"], None),
        changed(["config", "activation"], {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}),
        changed(
            ["config", "activation"],
            {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        ),
        changed(["config", "depthwise_initializer", "module"], "dwconv_canary"),
        changed(["config", "depthwise_initializer", "class_name"], "eval"),
        changed(["config", "dtype", "class_name"], "system"),
        changed(["config", "dtype", "config"], None),
        changed(["config", "kernel_size"], [10**5000, 3]),
        changed(["config", "kernel_size"], float("nan")),
        changed(["config", "strides"], [float("inf"), 1]),
        changed(["config", "name"], "x" * 10**7),
        changed(["config", "padding"], "x" * 10**7),
        changed(["x" * 10**7], 1),
        changed(["config", "y" * 10**6], 1),
        changed(["config", "kernel_size"], nested(100_000, list)),
        changed(["config", "bias_initializer"], nested(100_000, dict)),
        changed(["config", "activation"], nested(100, dict)),
        changed(["extra"], nested(100_000, dict)),
        changed(["config", "name"], [0] * (10**6 + 1)),
        changed(["config", 3], 4),
        changed(["build_config"], 3),
        changed(["build_config"], {}),
        changed(["build_config", "input_shape"], [1, 8, 8]),
        changed(["build_config", "input_shape"], [1, 8, 8, None]),
        changed(["build_config", "input_shape"], "abcd"),
        changed(["build_config", "input_shape"], [1, 2, 8, 3]),
        None,
        [],
        "DepthwiseConv2D",
        3,
        {},
        {"config": {}},
    ],
    ids=itertools.count(),
)
def test_refused_configs(config, tmp_path, monkeypatch):
    (tmp_path / "dwconv_canary.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the texts are many)
        dwconv.deserialize(config)
    assert len(str(error.value)) < 2500
    assert "dwconv_canary" not in sys.modules
    assert [path.name for path in tmp_path.iterdir()] == ["dwconv_canary.py"]


@pytest.mark.parametrize(("name", "expected"), [("block/dw_1", "dw_1"), ("../x", "x"), ("plain", "plain")])
def test_names_of_keras_2(name, expected):
    """Which may be paths; the constructor's may not, as Keras 3's."""
    layer = DepthwiseConv2D.from_config({"name": name, "kernel_size": [3, 3], "groups": 1, "dtype": "float32"})
    assert layer.name == expected
    if "/" in name:
        with pytest.raises(ValueError, match="`name` must be"):
            DepthwiseConv2D(3, name=name)


def test_shared_parts_do_not_multiply():
    node = [0] * 1000
    for _ in range(5):
        node = [node] * 1000
    with pytest.raises(ValueError, match="at most 1000000 values"):
        DepthwiseConv2D.from_config({"kernel_size": node})


def test_from_config_refuses_with_value_errors():
    for config in (
        {},
        {"kernel_size": 3, "nope": 1},
        {"kernel_size": 3, 4: 5},
        None,
        [],
        "x",
        {"kernel_size": 3, "self": 1},
    ):
        with pytest.raises(ValueError, match=r"config|Unrecognized"):
            DepthwiseConv2D.from_config(config)

    class NoKeywords(DepthwiseConv2D):
        def __init__(self, kernel_size):
            super().__init__(kernel_size)

    with pytest.raises(ValueError, match="Not a config of NoKeywords") as error:
        NoKeywords.from_config(DepthwiseConv2D(3).get_config())
    assert isinstance(error.value.__cause__, TypeError)


def test_deserialize_gives_layers_only():
    config = {"class_name": "thing", "config": {}}
    with pytest.raises(ValueError, match="Not a layer"):
        dwconv.deserialize(config, {"thing": dwconv.activations.relu})


def test_largest_config_that_is_read():
    array = np.arange(1000.0).reshape(10, 10, 10, 1)
    layer = DepthwiseConv2D(10, depthwise_initializer=array)
    layer.build((None, 10, 10, 10))
    twin = dwconv.deserialize(json.loads(json.dumps(dwconv.serialize(layer))))
    np.testing.assert_array_equal(twin.kernel, array)


# --- copies


class Annotated(DepthwiseConv2D):
    def __init__(self, *args, note="", **kwargs):
        super().__init__(*args, **kwargs)
        self.note = note

    def get_config(self):
        return {**super().get_config(), "note": self.note}


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("is_built", [True, False])
def test_copies(duplicate, is_built):
    layer = Annotated(3, note="mine", activation="tanh", depthwise_initializer="he_normal", activity_regularizer="l2")
    x = images(2, 6, 7, 3)
    if is_built:
        layer(x)
    twin = duplicate(layer)
    assert (type(twin), twin.name, twin.built, twin.note, twin.losses) == (
        Annotated,
        layer.name,
        is_built,
        "mine",
        layer.losses,
    )
    assert twin.get_config() == layer.get_config()
    if is_built:
        np.testing.assert_array_equal(twin(x), layer(x))
        twin.kernel[...] = 0
        assert layer.kernel.any()
    assert Annotated.from_config(layer.get_config()).note == "mine"


def test_layers_die():
    layer = built(3)
    reference = weakref.ref(layer)
    layer(images(2, 6, 7, 3))
    copy.copy(layer).stateless_call(layer.weights, [], images(2, 6, 7, 3))
    del layer
    gc.collect()
    assert reference() is None


def test_subclass_that_builds_more():
    class Scaled(DepthwiseConv2D):
        def build(self, input_shape):
            super().build(input_shape)
            self.scale = 2.0

        def call(self, inputs):
            return super().call(inputs) * self.scale

    layer, x = Scaled(3), images(2, 6, 7, 3)
    np.testing.assert_array_equal(layer(x), depthwise_conv2d(x, layer.kernel, layer.bias) * 2)


# --- threads


@pytest.mark.parametrize("round", range(5))
def test_many_threads_build_once(round):
    builds, results = [], []

    class Counting(DepthwiseConv2D):
        def build(self, input_shape):
            builds.append(1)
            super().build(input_shape)
            threading.Event().wait(0.002)  # the others must wait for this too
            self.finished = True

        def call(self, inputs):
            return super().call(inputs) if self.finished else None

    layer, x, barrier = Counting(3), images(2, 6, 7, 3), threading.Barrier(16)

    def work():
        barrier.wait()
        results.append(layer(x))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len(results) == 16
    for result in results:
        np.testing.assert_array_equal(result, depthwise_conv2d(x, layer.kernel, layer.bias))


def test_calls_see_old_or_new_weights_but_no_mixture():
    layer, x, stop = built(1, shape=(1, 1, 1, 1)), np.ones((1, 1, 1, 1), np.float32), threading.Event()
    pairs = [[np.full((1, 1, 1, 1), value), np.full(1, -value)] for value in (1.0, 2.0)]
    layer.set_weights(pairs[0])

    def work():
        while not stop.is_set():
            for pair in pairs:
                layer.set_weights(pair)

    before, thread = sys.getswitchinterval(), threading.Thread(target=work)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        outputs = {float(layer(x)[0, 0, 0, 0]) for _ in range(3000)}
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
    assert outputs == {0.0}


def test_names_are_different_in_threads():
    layers = []
    threads = [threading.Thread(target=lambda: layers.extend(DepthwiseConv2D(3) for _ in range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({layer.name for layer in layers}) == 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_of_a_process_that_was_building():
    code = """if True:
        import os, threading
        import numpy as np
        import dwconv
        from dwconv import _layer_base

        held, done = threading.Event(), threading.Event()

        def hold():
            with _layer_base.lock:
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            dwconv.DepthwiseConv2D(3, data_format="channels_last")(np.ones((1, 4, 4, 1)))
            os._exit(7)
        done.set()
        thread.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout == "7\n", run.stderr
