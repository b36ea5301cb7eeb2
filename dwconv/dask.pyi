from dask.array import Array
from numpy.typing import ArrayLike

from .functional import _Activation, _Format, _Padding, _Pair

__all__ = ["depthwise_conv2d"]

def depthwise_conv2d(
    x: Array,
    kernel: ArrayLike | Array,
    bias: ArrayLike | Array | None = None,
    *,
    strides: _Pair = 1,
    padding: _Padding = "valid",
    dilation_rate: _Pair = 1,
    data_format: _Format = "channels_last",
    activation: _Activation = None,
) -> Array: ...
