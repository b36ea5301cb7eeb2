from collections.abc import Callable, Mapping, MutableMapping, Sequence
from os import PathLike
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

from numpy.typing import ArrayLike, NDArray

from .functional import _Format, _Pair

_Array: TypeAlias = NDArray[Any]
_Shape: TypeAlias = Sequence[int | None]
_Object: TypeAlias = str | dict[str, Any] | Callable[..., Any] | None  # a name, a config, an instance, a class, a function

class Gradients(NamedTuple):
    inputs: _Array
    depthwise_kernel: _Array
    bias: _Array | None

class DepthwiseConv2D:
    rank: ClassVar[int]
    supports_masking: ClassVar[bool]
    name: str
    trainable: bool
    autocast: bool
    built: bool
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    dilation_rate: tuple[int, int]
    padding: str
    depth_multiplier: int
    data_format: str
    activation: Callable[..., Any]
    use_bias: bool
    depthwise_initializer: Callable[..., Any]
    bias_initializer: Callable[..., Any]
    depthwise_regularizer: Callable[..., Any] | None
    bias_regularizer: Callable[..., Any] | None
    activity_regularizer: Callable[..., Any] | None
    depthwise_constraint: Callable[..., Any] | None
    bias_constraint: Callable[..., Any] | None
    input_spec: Any
    kernel: _Array  # takes what np.asarray takes, of the same shape
    depthwise_kernel: _Array
    bias: _Array | None
    dtype_policy: Any

    def __init__(
        self,
        kernel_size: _Pair,
        strides: _Pair = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: _Format | None = None,
        dilation_rate: _Pair = (1, 1),
        activation: _Object = None,
        use_bias: bool = True,
        depthwise_initializer: _Object | _Array = "glorot_uniform",
        bias_initializer: _Object | _Array = "zeros",
        depthwise_regularizer: _Object = None,
        bias_regularizer: _Object = None,
        activity_regularizer: _Object = None,
        depthwise_constraint: _Object = None,
        bias_constraint: _Object = None,
        **kwargs: Any,
    ) -> None: ...
    def __call__(self, inputs: ArrayLike, *args: Any, training: bool | None = None, **kwargs: Any) -> _Array: ...
    def build(self, input_shape: _Shape) -> None: ...
    def call(self, inputs: _Array) -> _Array: ...
    def convolution_op(self, inputs: _Array, kernel: _Array) -> _Array: ...
    def convolution_op_vjp(
        self, inputs: _Array, kernel: _Array
    ) -> tuple[_Array, Callable[[_Array], tuple[_Array, _Array]]]: ...
    def vjp(self, inputs: ArrayLike) -> tuple[_Array, Callable[..., Gradients]]: ...
    def stateless_call(
        self,
        trainable_variables: Sequence[ArrayLike],
        non_trainable_variables: Sequence[ArrayLike],
        *args: Any,
        return_losses: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ...]: ...
    def compute_output_shape(self, input_shape: _Shape) -> tuple[int | None, ...]: ...
    def apply_constraints(self) -> None: ...
    @property
    def weights(self) -> list[_Array]: ...
    @property
    def trainable_weights(self) -> list[_Array]: ...
    @property
    def non_trainable_weights(self) -> list[_Array]: ...
    @property
    def variables(self) -> list[_Array]: ...
    @property
    def trainable_variables(self) -> list[_Array]: ...
    @property
    def non_trainable_variables(self) -> list[_Array]: ...
    @property
    def losses(self) -> list[float]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def compute_dtype(self) -> str: ...
    @property
    def variable_dtype(self) -> str: ...
    def add_loss(self, loss: float | list[float] | tuple[float, ...]) -> None: ...
    def get_weights(self) -> list[_Array]: ...
    def set_weights(self, weights: Sequence[ArrayLike]) -> None: ...
    def count_params(self) -> int: ...
    def save_own_variables(self, store: MutableMapping[str, Any]) -> None: ...
    def load_own_variables(self, store: Mapping[str, Any]) -> None: ...
    def save_weights(self, path: str | bytes | PathLike[Any], overwrite: bool = True) -> None: ...
    def load_weights(self, path: str | bytes | PathLike[Any], name: str | None = None) -> None: ...
    def get_config(self) -> dict[str, Any]: ...
    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self: ...
    def get_build_config(self) -> dict[str, Any] | None: ...
    def build_from_config(self, config: Mapping[str, Any]) -> None: ...
    def __copy__(self) -> Self: ...

def serialize(layer: DepthwiseConv2D) -> dict[str, Any]: ...
def deserialize(config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> DepthwiseConv2D: ...
