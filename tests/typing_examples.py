"""What users write, for `mypy --strict` (.ci/types): nothing here is run, and pytest does not collect it.

A line that must be an error says so with `type: ignore`, and --strict makes an ignore that hides nothing an error itself.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import dwconv

Array = NDArray[Any]
images = np.ones((2, 8, 8, 3), np.float32)
kernel = np.ones((3, 3, 3, 2), np.float32)

assert_type(dwconv.depthwise_conv2d(images, kernel), Array)
dwconv.depthwise_conv2d(images.tolist(), [[1.0, 2.0]], np.zeros(3), strides=(1, 2), padding=((1, 0), (2, 2)), workers=-1)
dwconv.depthwise_conv2d(images, kernel, activation=np.tanh, out=np.empty((2, 6, 6, 6), np.float32))
dwconv.depthwise_conv2d(images, kernel, data_format="NHWC")  # type: ignore[arg-type]
dwconv.depthwise_conv2d(images, kernel, None, 2)  # type: ignore[call-arg]
assert_type(dwconv.depthwise_conv2d_input_grad(images, kernel, images.shape, padding="same"), Array)
assert_type(dwconv.depthwise_conv2d_kernel_grad(images, images, 3), Array)

layer = dwconv.DepthwiseConv2D(3, padding="same", activation="relu", depthwise_regularizer=dwconv.regularizers.L2(1e-4))
outputs, pullback = layer.vjp(images)
assert_type(outputs, Array)
gradients = pullback(outputs - 1, losses_grad=1.0)
layer.depthwise_kernel -= 0.1 * gradients.depthwise_kernel
assert_type(gradients.bias, Array | None)
assert_type(layer(images), Array)
assert_type(dwconv.deserialize(dwconv.serialize(layer)), dwconv.DepthwiseConv2D)
print(layer.kernels)  # type: ignore[attr-defined]
dwconv.DepthwiseConv2D(3, data_format=3)  # type: ignore[arg-type]


class Standardised(dwconv.DepthwiseConv2D):
    def convolution_op(self, inputs: Array, kernel: Array) -> Array:
        return super().convolution_op(inputs, kernel - kernel.mean((0, 1)))


assert_type(Standardised.from_config(layer.get_config()), Standardised)


@dwconv.register_serializable("mine")
def double(x: Array) -> Array:
    return 2 * x


assert_type(double(outputs), Array)
with dwconv.set_workers(1), dwconv.custom_object_scope({"double": double}):
    assert_type(dwconv.get_workers(), int)
assert_type(dwconv.show_config(), None)
assert_type(dwconv.show_config("dicts"), dict[str, Any])
assert_type(dwconv.initializers.GlorotUniform(seed=1)((3, 3, 3, 1)), Array)
assert_type(dwconv.activations.relu(outputs, negative_slope=0.1), Array)
print(dwconv.activations.relu8)  # type: ignore[attr-defined]
