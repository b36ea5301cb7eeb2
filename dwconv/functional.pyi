from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from numpy.typing import ArrayLike, NDArray

_Pair: TypeAlias = int | Sequence[int]
_Padding: TypeAlias = Literal["valid", "same"] | int | Sequence[int] | Sequence[Sequence[int]]
_Format: TypeAlias = Literal["channels_last", "channels_first"]
_Activation: TypeAlias = str | dict[str, Any] | Callable[..., ArrayLike] | None

def depthwise_conv2d(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: _Pair = 1,
    padding: _Padding = "valid",
    dilation_rate: _Pair = 1,
    data_format: _Format = "channels_last",
    activation: _Activation = None,
    out: NDArray[Any] | None = None,
    workers: int | None = None,
) -> NDArray[Any]: ...
def depthwise_conv2d_input_grad(
    grad: ArrayLike,
    kernel: ArrayLike,
    input_shape: Sequence[int],
    *,
    strides: _Pair = 1,
    padding: _Padding = "valid",
    dilation_rate: _Pair = 1,
    data_format: _Format = "channels_last",
    out: NDArray[Any] | None = None,
    workers: int | None = None,
) -> NDArray[Any]: ...
def depthwise_conv2d_kernel_grad(
    x: ArrayLike,
    grad: ArrayLike,
    kernel_size: _Pair,
    *,
    strides: _Pair = 1,
    padding: _Padding = "valid",
    dilation_rate: _Pair = 1,
    data_format: _Format = "channels_last",
    out: NDArray[Any] | None = None,
    workers: int | None = None,
) -> NDArray[Any]: ...
