"""What `DepthwiseConv2D.vjp` computes: a layer's outputs, and the function that takes a gradient back through it.

The chain is convolution, bias, activation, activity regularizer, and beside it the weights' penalties.  Everything that the
way back needs is in the function returned, nothing on the layer.  16-bit layers go both ways in float32, and what comes
out is rounded once.  Refused, when `vjp` is called: activations and regularizers without a gradient, and layers of which
a subclass changes the way forth but not the way back, since NumPy has no automatic differentiation that would follow.
"""

import typing

import numpy as np

from . import _layer_checks as checks
from . import activations, regularizers
from ._arrays import common_dtypes, delivered
from .functional import depthwise_conv2d, depthwise_conv2d_input_grad, depthwise_conv2d_kernel_grad

_FROM_OUTPUTS = (activations.linear, activations.relu, activations.relu6)  # their slopes can be read from their results
_PAIRS = (("__call__", "vjp"), ("call", "vjp"), ("losses", "vjp"), ("convolution_op", "convolution_op_vjp"))


class Gradients(typing.NamedTuple):
    """Of a scalar, for the inputs of a layer and for its weights: arrays of their shapes and dtypes, None without a bias."""

    inputs: np.ndarray
    depthwise_kernel: np.ndarray
    bias: np.ndarray | None


def _depth(layer, name):
    """How far from the layer itself an attribute is defined: -1 on it, else the place of a class among its classes."""
    return -1 if name in vars(layer) else [name in vars(cls) for cls in type(layer).__mro__].index(True)


def _checked(function, value, like):
    """What a gradient function returned, as an array like the one that it was called with."""
    value = np.asarray(value)
    if value.shape != like.shape:
        raise ValueError(f"{function!r:.80} returned shape {value.shape} for an array of shape {like.shape}")
    return value.astype(like.dtype, copy=False)


def convolution_pullback(inputs, kernel, options):
    """grad -> (for the inputs, for the kernel): the way back through the convolution."""

    def pullback(grad):
        return (depthwise_conv2d_input_grad(grad, kernel, inputs.shape, **options),
                depthwise_conv2d_kernel_grad(inputs, grad, kernel.shape[:2], **options))

    return pullback


def vjp(layer, inputs, base):
    """(outputs, pullback); base: the class whose own convolution can be done with bias and activation at once."""
    for name, gradient in _PAIRS:
        if _depth(layer, name) < _depth(layer, gradient):
            raise NotImplementedError(f"{type(layer).__name__} overrides `{name}` but not `{gradient}`, so that its gradients "
                                      f"would be wrong: override `{gradient}` too, see DepthwiseConv2D.{gradient}")
    methods = ("convolution_op", "convolution_op_vjp")
    own = all(getattr(getattr(layer, name), "__func__", None) is getattr(base, name) for name in methods)
    activation = activations.get(layer.activation)
    activation_gradient = activations.gradient(activation)
    activity, *penalties = (None if regularizer is None else regularizers.gradient(regularizer) for regularizer in (
        layer.activity_regularizer, layer.depthwise_regularizer if layer.trainable else None,
        layer.bias_regularizer if layer.trainable and layer.use_bias else None))
    x, options = layer._accepted(inputs), layer._options
    weights = [weight for weight in layer._built_weights() if weight is not None]
    last, x_dtype, weight_dtype = options["data_format"] == "channels_last", x.dtype, weights[0].dtype
    dtype, computed = common_dtypes((x,) if layer.autocast else (x, *weights))
    # Copies of the weights, which their owner may change before the way back; rounded where a call rounds them.
    weights = [np.array(weight, computed) for weight in weights]
    rounded = [weight.astype(dtype).astype(computed) if weight_dtype != dtype else weight for weight in weights]
    x, kernel, bias = x.astype(computed, copy=False), rounded[0], rounded[1] if len(rounded) > 1 else None

    if own:
        at_once = any(activation is function for function in _FROM_OUTPUTS)
        z = depthwise_conv2d(x, kernel, bias, activation=activation if at_once else None, **options)
        convolution_gradients = convolution_pullback(x, kernel, options)
    else:
        at_once = activation is activations.linear
        z, convolution_gradients = layer.convolution_op_vjp(x, kernel)
        z = checks.convolved(z, computed)
        if bias is not None:
            z = z + (bias if last else bias[:, None, None])
    y = z
    if not at_once:
        y = z.copy()
        activations._apply(activation, y)

    def pullback(output_grad, losses_grad=0.0):
        """`Gradients` of a scalar whose gradient for the outputs is `output_grad`, plus `losses_grad` times the losses'."""
        losses_grad = checks.scalar("losses_grad", losses_grad)
        grad = checks.inputs(output_grad, computed, True, "output_grad")
        if grad.shape != y.shape:
            raise ValueError(f"`output_grad` must have the outputs' shape {y.shape}. Received: an array of shape {grad.shape}")
        if losses_grad and activity is not None and len(y):
            grad = grad + losses_grad / len(y) * _checked(activity, activity(y), y)
        grad = _checked(activation_gradient, activation_gradient(z, grad), z)
        for_x, for_kernel = convolution_gradients(grad)
        for_weights = [_checked(convolution_gradients, for_kernel, kernel)]
        if bias is not None:  # a sum over pixels is the kernel's gradient of a single tap on ones: exact to the end, threaded
            ones = np.broadcast_to(np.ones(grad.shape[-1:], computed), grad.shape)
            total = depthwise_conv2d_kernel_grad(ones, grad, 1, padding="same", data_format=options["data_format"])
            for_weights.append(total.reshape(bias.shape))
        if losses_grad:
            for k, (penalty, weight) in enumerate(zip(penalties, weights, strict=False)):
                if penalty is not None:
                    for_weights[k] = for_weights[k] + losses_grad * _checked(penalty, penalty(weight), weight)
        for_x = delivered(_checked(convolution_gradients, for_x, x), None, x_dtype)
        for_weights = [delivered(gradient, None, weight_dtype) for gradient in for_weights]
        return Gradients(for_x, for_weights[0], for_weights[1] if bias is not None else None)

    return delivered(y, None, dtype), pullback
