"""The layer's `vjp`: gradients against central differences in float64, and what it promises besides.

A loss is sum(outputs * grad) + losses_grad * sum(layer.losses), computed by calls of the layer itself, so that whatever a
call does is what must have been differentiated; bias and weights are small integers over 8 or normal numbers, away from kinks.
That the gradients of the convolution are right for every geometry is test_gradients.py's matter.
"""

import copy
import itertools
import pickle
import threading

import ml_dtypes
import numpy as np
import oracle
import pytest

import dwconv
from dwconv import DepthwiseConv2D, activations, regularizers
from dwconv.layer import Gradients

ACTIVATIONS = sorted(set(activations._registry.names) - {"glu", "threshold"})
PENALTIES = {
    "l1": regularizers.L1(0.3),
    "l2": regularizers.L2(0.2),
    "l1_l2": regularizers.L1L2(0.1, 0.4),
}
STEP = 1e-5


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def made(shape=(2, 5, 6, 3), cls=DepthwiseConv2D, **options):
    """A built layer of float64, with weights that no kink of an activation or a penalty is near: always the same ones."""
    options = {"kernel_size": (3, 2), "padding": "same", "dtype": "float64"} | options
    layer = cls(**options)
    layer.build(shape)
    layer.kernel = normal(*layer.kernel.shape, seed=1)
    if layer.bias is not None:
        layer.bias = 0.05 * normal(*layer.bias.shape, seed=3)
    return layer


def loss(layer, x, grad, losses_grad):
    return float((layer(x) * grad).sum() + losses_grad * sum(layer.losses))


def slopes(function, array):
    """Central differences of a function of no arguments along some elements of an array, which is changed and changed back."""
    picked = np.random.default_rng(9).choice(array.size, min(array.size, 7), replace=False)
    result = {}
    for index in zip(*np.unravel_index(picked, array.shape), strict=True):
        kept = array[index]
        array[index] = kept + STEP
        above = function()
        array[index] = kept - STEP
        below = function()
        array[index] = kept
        result[index] = (above - below) / (2 * STEP)
    return result


def check(layer, x, losses_grad=0.0, rel=2e-6):
    """All three gradients against differences; the outputs are those of a call, and nothing is left on the layer."""
    expected = layer(x)
    before, losses = dict(vars(layer)), layer.losses
    outputs, pullback = layer.vjp(x)
    assert outputs.dtype == expected.dtype
    np.testing.assert_array_equal(outputs, expected)
    grad = normal(*outputs.shape, seed=2)
    gradients = pullback(grad, losses_grad=losses_grad)
    assert vars(layer) == before  # the same objects: nothing is kept
    assert layer.losses == losses
    assert type(gradients) is Gradients
    weights = [layer.kernel] if layer.bias is None else [layer.kernel, layer.bias]
    for array, gradient in zip([x, *weights], gradients, strict=False):
        assert (gradient.shape, gradient.dtype) == (array.shape, array.dtype)
        found = slopes(lambda: loss(layer, x, grad, losses_grad), array)
        scale = max(abs(slope) for slope in found.values())
        for index, slope in found.items():
            assert gradient[index] == pytest.approx(slope, rel=rel, abs=rel * max(scale, 1))
    assert (gradients.bias is None) == (layer.bias is None)
    return gradients


# --- central differences


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(kernels, activation, data_format):
    """softmax and its like go along the last axis, which is the width in channels_first, in a call and so here."""
    shape = (2, 5, 6, 3) if data_format == "channels_last" else (2, 3, 5, 6)
    check(made(shape, activation=activation, data_format=data_format, depth_multiplier=2), normal(*shape))


def test_activations_with_arguments(kernels):
    for activation in (activations.ReLU(2.0, 0.1, 0.25), activations.LeakyReLU(0.4), activations.ELU(0.7),
                       activations.Softmax([1, 3]), {"class_name": "ReLU", "config": {"max_value": 1.5}}):
        check(made(activation=activation), normal(2, 5, 6, 3))


@pytest.mark.parametrize("losses_grad", [0.0, 1.0, -2.5])
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("which", ["depthwise_regularizer", "bias_regularizer", "activity_regularizer"])
def test_every_regularizer(kernels, which, name, losses_grad):
    """The activity's divided by the batch, as a call defines it; with losses_grad=0 none of them counts."""
    layer, x = made(activation="tanh", **{which: PENALTIES[name]}), normal(2, 5, 6, 3)
    gradients = check(layer, x, losses_grad)
    plain = layer.vjp(x)[1](normal(2, 5, 6, 3, seed=2))
    assert np.array_equal(gradients.depthwise_kernel, plain.depthwise_kernel) == (
        losses_grad == 0 or which == "bias_regularizer")


def test_every_built_in_regularizer_is_here():
    """OrthogonalRegularizer takes matrices only, so no depthwise kernel; its gradient is in test_regularizers.py."""
    classes = {type(regularizers.get(name)) for name in regularizers._registry.names}
    assert classes - {type(p) for p in PENALTIES.values()} == {regularizers.OrthogonalRegularizer, regularizers.Regularizer}


@pytest.mark.parametrize("options", [
    {"strides": 2},
    {"strides": (2, 3), "padding": "valid"},
    {"dilation_rate": (2, 3), "kernel_size": 2},
    {"depth_multiplier": 3, "use_bias": False},
    {"kernel_size": (7, 9)},
    {"use_bias": False, "activation": "relu"},
], ids=str)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_options(kernels, options, data_format):
    shape = (3, 6, 7, 2) if data_format == "channels_last" else (3, 2, 6, 7)
    everything = {"depthwise_regularizer": "l2", "bias_regularizer": "l1", "activity_regularizer": "l2"}
    layer = made(shape, data_format=data_format, **{"activation": "silu", **everything, **options})
    check(layer, normal(*shape), 1.5)


def test_by_hand():
    """One pixel, one weight: outputs = x*k + b; losses = l2*k**2 + y**2."""
    penalties = {"depthwise_regularizer": regularizers.L2(0.5), "activity_regularizer": regularizers.L2(1.0)}
    layer = made((1, 1, 1, 1), kernel_size=1, **penalties)
    layer.set_weights([np.full((1, 1, 1, 1), 3.0), np.full(1, 1.0)])
    outputs, pullback = layer.vjp(np.full((1, 1, 1, 1), 2.0))
    assert outputs.item() == 7
    assert [g.item() for g in pullback([[[[10.0]]]])] == [30, 20, 10]
    assert [g.item() for g in pullback(np.full((1, 1, 1, 1), 10), 1)] == [(10 + 14) * 3, (10 + 14) * 2 + 3, 24]
    assert [g.item() for g in pullback(np.zeros((1, 1, 1, 1)), losses_grad=np.float32(2))] == [84, 56 + 6, 28]


# --- the rest of the contract


def test_gradients_are_a_named_tuple():
    gradients = made().vjp(normal(2, 5, 6, 3))[1](normal(2, 5, 6, 3))
    assert gradients._fields == ("inputs", "depthwise_kernel", "bias")
    x_grad, kernel_grad, bias_grad = gradients
    assert (x_grad is gradients.inputs, kernel_grad is gradients.depthwise_kernel, bias_grad is gradients.bias) == (True,) * 3
    assert [a.shape for a in pickle.loads(pickle.dumps(gradients))] == [(2, 5, 6, 3), (3, 2, 3, 1), (3,)]


def test_vjp_builds_the_layer():
    layer = DepthwiseConv2D(3)
    outputs, pullback = layer.vjp(normal(2, 5, 6, 3))
    assert layer.built
    assert (outputs.dtype, outputs.shape) == (np.float32, (2, 3, 4, 3))
    assert pullback(outputs).inputs.dtype == np.float32
    with pytest.raises(ValueError, match="takes inputs with 4 axes and 3 channels"):
        layer.vjp(normal(2, 5, 6, 4))
    with pytest.raises(TypeError, match="real numbers"):
        layer.vjp(np.ones((1, 5, 6, 3), complex))


def test_losses_are_those_of_the_last_call():
    layer, x = made(activity_regularizer="l2"), normal(2, 5, 6, 3)
    layer(x)
    before = layer.losses
    layer.vjp(3 * x)[1](np.ones((2, 5, 6, 3)), 1.0)
    assert layer.losses == before


def test_trainable_decides_on_the_penalties_alone():
    layer, x = made(depthwise_regularizer="l2", bias_regularizer="l2", trainable=False), normal(2, 5, 6, 3)
    grad = normal(2, 5, 6, 3, seed=2)
    frozen, plain = layer.vjp(x)[1](grad, 1.0), layer.vjp(x)[1](grad)
    assert all(map(np.array_equal, frozen, plain))
    assert frozen.depthwise_kernel.any()
    layer.trainable = True
    assert not np.array_equal(layer.vjp(x)[1](grad, 1.0).bias, plain.bias)


def test_pullback_may_be_called_again_and_after_an_update():
    """It has the weights that the outputs came from, whatever becomes of the layer's."""
    layer, x, grad = made(activation="tanh", depthwise_regularizer="l2"), normal(2, 5, 6, 3), normal(2, 5, 6, 3, seed=2)
    _, pullback = layer.vjp(x)
    first = pullback(grad, 1.0)
    layer.kernel *= 2  # in place, and assigned
    layer.set_weights([np.zeros((3, 2, 3, 1)), np.ones(3)])
    layer.strides, layer.padding, layer.activation = (2, 2), "valid", activations.relu
    layer.depthwise_regularizer = None
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, pullback(grad, 1.0), strict=True))
    assert not any(np.shares_memory(a, b) for a, b in itertools.product(first, (x, grad, *layer.weights)))


def test_inputs_and_gradients_are_not_changed():
    for activation in ("linear", "relu", "softmax", lambda_with_gradient()):
        layer, x, grad = made(activation=activation, activity_regularizer="l1"), normal(2, 5, 6, 3), normal(2, 5, 6, 3, seed=2)
        before = x.tobytes(), grad.tobytes(), layer.kernel.tobytes(), layer.bias.tobytes()
        outputs, pullback = layer.vjp(x)
        kept = outputs.tobytes()
        pullback(grad, 1.0)
        assert (x.tobytes(), grad.tobytes(), layer.kernel.tobytes(), layer.bias.tobytes()) == before
        assert outputs.tobytes() == kept


@pytest.mark.parametrize("shape", [(0, 5, 6, 3), (2, 0, 6, 3), (2, 5, 0, 3)], ids=str)
def test_empty(kernels, shape):
    layer = made(activity_regularizer="l2", depthwise_regularizer="l2", activation="tanh")
    outputs, pullback = layer.vjp(np.ones(shape))
    gradients = pullback(outputs, 1.0)
    assert gradients.inputs.shape == shape
    np.testing.assert_allclose(gradients.depthwise_kernel, 0.02 * layer.kernel)
    assert not gradients.bias.any()


@pytest.mark.parametrize("shape", [(), (2, 5, 6, 4), (1, 5, 6, 3), (5, 6, 3), (0, 5, 6, 3)], ids=str)
def test_output_grad_has_the_shape_of_the_outputs(shape):
    _, pullback = made().vjp(normal(2, 5, 6, 3))
    with pytest.raises(ValueError, match=r"`output_grad` must have the outputs' shape \(2, 5, 6, 3\)"):
        pullback(np.ones(shape))


@pytest.mark.parametrize("grad", [np.ones((2, 5, 6, 3), complex), np.full((2, 5, 6, 3), None), np.full((2, 5, 6, 3), "1")],
                         ids=["complex", "object", "str"])
def test_output_grad_is_of_real_numbers(grad):
    with pytest.raises(TypeError, match="`output_grad` must be real numbers"):
        made().vjp(normal(2, 5, 6, 3))[1](grad)


@pytest.mark.parametrize("value", [None, "1", 1j, np.ones(2), [1.0], True])
def test_losses_grad_is_a_number(value):
    with pytest.raises(ValueError, match="`losses_grad` must be a number"):
        made().vjp(normal(2, 5, 6, 3))[1](normal(2, 5, 6, 3), value)


# --- dtypes


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_policies(kernels, policy, activation):
    """Outputs bit for bit those of a call; gradients those of the float64 layer, rounded once where they are of 16 bits."""
    layer = made(dtype=policy, activation=activation, depthwise_regularizer="l2", activity_regularizer="l2")
    x = normal(2, 5, 6, 3).astype(ml_dtypes.bfloat16).astype(np.float16 if "float16" in policy.replace("bfloat16", "") else float)
    layer.set_weights([weight.astype(ml_dtypes.bfloat16) for weight in layer.weights])
    outputs, pullback = layer.vjp(x)
    assert outputs.tobytes() == layer(x).tobytes()
    assert outputs.dtype.name == layer.compute_dtype
    grad = (oracle.integers(outputs.shape, 3, 4) / 4).astype(outputs.dtype)
    gradients = pullback(grad, 1.0)
    assert [g.dtype.name for g in gradients] == [layer.compute_dtype, layer.variable_dtype, layer.variable_dtype]
    exact = DepthwiseConv2D.from_config(layer.get_config() | {"dtype": "float64"})
    exact.build(x.shape)
    exact.set_weights(layer.get_weights())
    for gradient, wanted in zip(gradients, exact.vjp(x)[1](grad, 1.0), strict=True):
        tolerance = max(ml_dtypes.finfo(gradient.dtype).eps, 1e-6)
        np.testing.assert_allclose(gradient.astype(float), wanted, rtol=tolerance, atol=tolerance)


def test_overflow_of_a_mixed_policy_is_not_in_the_sums():
    """Gradients of float32 weights are summed in float32, whatever the 16-bit numbers that they come from."""
    layer = made((1, 64, 64, 1), kernel_size=1, dtype="mixed_float16", bias_initializer="zeros")
    _, pullback = layer.vjp(np.full((1, 64, 64, 1), 100, np.float16))
    gradients = pullback(np.full((1, 64, 64, 1), 100, np.float16))
    assert gradients.depthwise_kernel.item() == 64 * 64 * 100 * 100
    assert gradients.bias.item() == 64 * 64 * 100


def test_bias_of_many_pixels(kernels):
    """10**6 float32 terms of one sign: pairwise as in the kernel's gradient, where one running sum would be 1 % off."""
    layer = made((1, 1000, 1000, 1), kernel_size=1, dtype="float32")
    grad = np.full((1, 1000, 1000, 1), 0.1, np.float32)
    bias = layer.vjp(grad)[1](grad).bias.item()
    assert abs(bias - 1e6 * float(np.float32(0.1))) < 1e-5 * bias


@pytest.mark.parametrize(("x_dtype", "policy"), [("float32", "float64"), ("float64", "float32"), ("float16", "float32"),
                                                 ("float32", "float16")])
def test_without_autocast(x_dtype, policy):
    layer = made(dtype=policy, autocast=False, activation="tanh")
    x = normal(2, 5, 6, 3).astype(x_dtype)
    outputs, pullback = layer.vjp(x)
    assert outputs.tobytes() == layer(x).tobytes()
    gradients = pullback(np.ones(outputs.shape))
    assert [g.dtype.name for g in gradients] == [x_dtype, policy, policy]


def test_integer_inputs():
    layer = made(dtype="float32")
    outputs, pullback = layer.vjp(np.ones((2, 5, 6, 3), np.uint8))
    assert pullback(np.ones((2, 5, 6, 3), int)).inputs.dtype == outputs.dtype == np.float32


# --- custom activations and regularizers


def lambda_with_gradient():
    def cube(x):
        return x**3

    cube.gradient = lambda x, grad: 3 * x**2 * grad
    return cube


def test_custom_functions_with_gradients():
    def penalty(x):
        return 0.3 * np.sum(x**4)

    penalty.gradient = lambda x: 1.2 * x**3
    layer = made(activation=lambda_with_gradient(), depthwise_regularizer=penalty, activity_regularizer=penalty)
    check(layer, normal(2, 5, 6, 3), 0.7, rel=1e-5)


def test_custom_activation_that_works_in_place():
    def twice(x):
        x *= 2
        return x

    twice.gradient = lambda x, grad: 2 * grad
    check(made(activation=twice), normal(2, 5, 6, 3))


@pytest.mark.parametrize(("option", "words"), [
    ("activation", r"custom.* has no gradient: give it a function gradient\(x, grad\)"),
    ("depthwise_regularizer", r"custom.* has no gradient: give it a function gradient\(x\)"),
    ("bias_regularizer", r"custom.* has no gradient: give it a function gradient\(x\)"),
    ("activity_regularizer", r"custom.* has no gradient: give it a function gradient\(x\)"),
])
def test_custom_functions_without_gradients(option, words):
    """Refused when vjp is called, before anything is computed, while calls work; not if it does not count."""

    def custom(x):
        return x if option == "activation" else 0.0

    layer, x = made(**{option: custom}), normal(2, 5, 6, 3)
    layer(x)
    with pytest.raises(ValueError, match=words):
        layer.vjp(x)
    layer = made(**{option: custom}, use_bias=False, trainable=False)
    if option in ("activation", "activity_regularizer"):
        with pytest.raises(ValueError, match=words):
            layer.vjp(x)
    else:
        layer.vjp(x)[1](x, 1.0)


@pytest.mark.parametrize("option", ["activation", "depthwise_regularizer", "activity_regularizer"])
def test_custom_gradients_of_other_shapes(option):
    def custom(x):
        return x if option == "activation" else 0.0

    custom.gradient = lambda x, grad=None: x[..., :1]
    _, pullback = made(**{option: custom}, depth_multiplier=2).vjp(normal(2, 5, 6, 3))
    with pytest.raises(ValueError, match=r"returned shape \(.*1\) for an array of shape \(.*[26]\)"):
        pullback(normal(2, 5, 6, 6), 1.0)


# --- subclasses


class Standardized(DepthwiseConv2D):
    """Weight standardisation: the convolution's kernel is (kernel - mean) / (std + eps) of each filter."""

    eps = 1e-3

    def standard(self, kernel):
        centred, std = kernel - kernel.mean((0, 1)), kernel.std((0, 1))
        return centred, std

    def convolution_op(self, inputs, kernel):
        centred, std = self.standard(kernel)
        return super().convolution_op(inputs, centred / (std + self.eps))

    def convolution_op_vjp(self, inputs, kernel):
        centred, std = self.standard(kernel)
        outputs, pullback = super().convolution_op_vjp(inputs, centred / (std + self.eps))

        def standardized_pullback(grad):
            for_inputs, g = pullback(grad)
            along = (g * centred).mean((0, 1)) / (std * (std + self.eps))
            return for_inputs, (g - g.mean((0, 1)) - centred * along) / (std + self.eps)

        return outputs, standardized_pullback


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("activation", ["linear", "relu", "gelu"])
def test_overridden_convolution_with_its_way_back(kernels, data_format, activation):
    shape = (2, 5, 6, 3) if data_format == "channels_last" else (2, 3, 5, 6)
    layer = made(shape, Standardized, kernel_size=3, depth_multiplier=2, data_format=data_format, activation=activation,
                 depthwise_regularizer="l2", activity_regularizer="l2")
    check(layer, normal(*shape), 1.0, rel=1e-5)


def test_overridden_convolution_of_16_bits():
    layer = made(cls=Standardized, kernel_size=3, dtype="mixed_float16", activation="relu")
    x = normal(2, 5, 6, 3, dtype=np.float16)
    outputs, pullback = layer.vjp(x)
    np.testing.assert_allclose(outputs.astype(float), layer(x).astype(float), rtol=1e-2, atol=1e-2)
    assert [g.dtype.name for g in pullback(outputs)] == ["float16", "float32", "float32"]


def overriding(*names):
    """A subclass that overrides these methods with ones that do the same."""

    def method(name):
        return lambda self, *args, **kwargs: getattr(super(cls, self), name)(*args, **kwargs)

    cls = type("Mine", (DepthwiseConv2D,), {name: method(name) for name in names})
    return cls


@pytest.mark.parametrize(("names", "refused"), [
    (["convolution_op"], "overrides `convolution_op` but not `convolution_op_vjp`"),
    (["call"], "Mine overrides `call` but not `vjp`"),
    (["__call__"], "Mine overrides `__call__` but not `vjp`"),
    (["convolution_op", "vjp"], "overrides `convolution_op` but not `convolution_op_vjp`"),
    (["call", "convolution_op_vjp"], "overrides `call` but not `vjp`"),
    (["call", "vjp"], None),
    (["convolution_op", "convolution_op_vjp"], None),
    (["convolution_op_vjp"], None),
    (["build", "get_config", "compute_output_shape"], None),
], ids=str)
def test_what_a_subclass_must_override(names, refused):
    """Silence would be a gradient of another layer; a subclass of the subclass is no different."""
    for cls in (overriding(*names), type("Below", (overriding(*names),), {})):
        layer, x = made(cls=cls), normal(2, 5, 6, 3)
        layer(x)
        if refused is None:
            expected = made().vjp(x)
            outputs, pullback = layer.vjp(x)
            np.testing.assert_allclose(outputs.sum(), layer(x).sum())
            assert pullback(x).inputs.shape == expected[1](x).inputs.shape
        else:
            with pytest.raises(NotImplementedError, match=refused.replace("Mine", cls.__name__)):
                layer.vjp(x)


def test_overridden_losses():
    cls = type("Mine", (DepthwiseConv2D,), {"losses": property(lambda self: [1.0])})
    with pytest.raises(NotImplementedError, match="overrides `losses` but not `vjp`"):
        made(cls=cls).vjp(normal(2, 5, 6, 3))


def test_convolution_of_one_layer():
    """Set on the layer itself, as test_layer.py has it."""
    layer, x = made(), normal(2, 5, 6, 3)
    layer.convolution_op = lambda inputs, kernel: 2 * DepthwiseConv2D.convolution_op(layer, inputs, kernel)
    with pytest.raises(NotImplementedError, match="convolution_op_vjp"):
        layer.vjp(x)

    def convolution_op_vjp(inputs, kernel):
        outputs, pullback = DepthwiseConv2D.convolution_op_vjp(layer, inputs, kernel)
        return 2 * outputs, lambda grad: pullback(2 * grad)

    layer.convolution_op_vjp = convolution_op_vjp
    outputs, pullback = layer.vjp(x)
    np.testing.assert_array_equal(outputs, layer(x))
    grad = normal(2, 5, 6, 3, seed=2)
    found = slopes(lambda: loss(layer, x, grad, 0.0), layer.kernel)
    gradient = pullback(grad).depthwise_kernel
    assert all(gradient[index] == pytest.approx(slope, rel=1e-6, abs=1e-7) for index, slope in found.items())


def test_way_back_of_wrong_shape():
    class Wrong(DepthwiseConv2D):
        def convolution_op_vjp(self, inputs, kernel):
            outputs, _ = super().convolution_op_vjp(inputs, kernel)
            return outputs, lambda grad: (grad[:1], kernel)

    with pytest.raises(ValueError, match=r"returned shape \(1, 5, 6, 3\) for an array of shape \(2, 5, 6, 3\)"):
        made(cls=Wrong).vjp(normal(2, 5, 6, 3))[1](normal(2, 5, 6, 3))


# --- copies, threads


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
                         ids=["copy", "deepcopy", "pickle"])
def test_copies(duplicate):
    """A layer that has been differentiated is copied and pickled as any other, and gives the same gradients."""
    layer, x = made(activation="gelu", activity_regularizer="l2", depthwise_regularizer="l1"), normal(2, 5, 6, 3)
    expected = layer.vjp(x)[1](x, 1.0)
    twin = duplicate(layer)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(expected, twin.vjp(x)[1](x, 1.0), strict=True))


def test_threads_share_a_layer():
    """Each gets the gradients of its own inputs, with the ways back called in another order than the ways forth."""
    layer = made((1, 9, 9, 4), activation="tanh", activity_regularizer="l2")
    inputs = [normal(1, 9, 9, 4, seed=seed) for seed in range(8)]
    expected = [layer.vjp(x)[1](x, 1.0) for x in inputs]
    barrier, failures = threading.Barrier(8), []

    def work(number):
        barrier.wait()
        for _ in range(20):
            pullbacks = [(k, layer.vjp(inputs[k])[1]) for k in (number, (number + 1) % 8)]
            for k, pullback in reversed(pullbacks):
                gradients = pullback(inputs[k], 1.0)
                if any(a.tobytes() != b.tobytes() for a, b in zip(gradients, expected[k], strict=True)):
                    failures.append(k)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- training


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_descent_finds_a_kernel(kernels, dtype):
    """A layer learns what another one does: the loss, penalties included, falls to a thousandth."""
    options = {"dtype": dtype, "kernel_size": 3}
    teacher, layer = made(**options), made(**options, depthwise_regularizer=regularizers.L2(1e-6))
    layer.kernel = np.zeros_like(layer.kernel)
    x = normal(2, 12, 12, 3).astype(dtype)
    wanted, losses = teacher(x), []
    for _ in range(20):
        outputs, pullback = layer.vjp(x)
        losses.append(float(np.square(outputs - wanted).mean()) + sum(layer.losses))
        gradients = pullback(2 * (outputs - wanted) / outputs.size, losses_grad=1.0)
        layer.kernel -= gradients.depthwise_kernel
        layer.bias -= gradients.bias
    assert all(after < before for before, after in itertools.pairwise(losses[:8]))
    assert losses[-1] < losses[0] / 1000


def test_functions_and_layer_agree():
    layer, x, grad = made(strides=2), normal(2, 5, 6, 3), normal(2, 3, 3, 3, seed=2)
    gradients = layer.vjp(x)[1](grad)
    options = {"strides": 2, "padding": "same"}
    np.testing.assert_array_equal(gradients.inputs, dwconv.depthwise_conv2d_input_grad(grad, layer.kernel, x.shape, **options))
    np.testing.assert_array_equal(gradients.depthwise_kernel, dwconv.depthwise_conv2d_kernel_grad(x, grad, (3, 2), **options))
    np.testing.assert_allclose(gradients.bias, grad.sum((0, 1, 2)), rtol=1e-13)
