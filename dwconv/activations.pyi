from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias

from numpy.typing import NDArray

def get(identifier: str | dict[str, Any] | Callable[..., Any] | None) -> Any: ...
def serialize(obj: Any) -> Any: ...
def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any: ...
def gradient(activation: Any) -> Callable[..., NDArray[Any]]: ...

_Activation: TypeAlias = Callable[..., NDArray[Any]]  # f(x, ..., out=None): a factory makes them, so that more is not known

linear: _Activation
relu: _Activation
relu6: _Activation
leaky_relu: _Activation
elu: _Activation
celu: _Activation
selu: _Activation
sigmoid: _Activation
log_sigmoid: _Activation
softplus: _Activation
silu: _Activation
mish: _Activation
gelu: _Activation
tanh: _Activation
tanh_shrink: _Activation
hard_tanh: _Activation
softsign: _Activation
exponential: _Activation
squareplus: _Activation
hard_sigmoid: _Activation
hard_silu: _Activation
hard_shrink: _Activation
soft_shrink: _Activation
threshold: _Activation
sparse_plus: _Activation
sparse_sigmoid: _Activation
softmax: _Activation
log_softmax: _Activation
sparsemax: _Activation
glu: _Activation

class _ActivationLayer:
    def __init__(self, *values: Any, **arguments: Any) -> None: ...
    def __call__(self, x: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def gradient(self, x: NDArray[Any], grad: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def get_config(self) -> dict[str, Any]: ...
    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self: ...

class ReLU(_ActivationLayer): ...
class LeakyReLU(_ActivationLayer): ...
class ELU(_ActivationLayer): ...
class Softmax(_ActivationLayer): ...
