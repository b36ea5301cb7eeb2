from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray

_Axis = int | Sequence[int]

def get(identifier: str | dict[str, Any] | Callable[..., Any] | None) -> Any: ...
def serialize(obj: Any) -> Any: ...
def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any: ...

class Constraint:
    def __call__(self, w: ArrayLike) -> NDArray[Any]: ...
    def get_config(self) -> dict[str, Any]: ...
    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self: ...

class MaxNorm(Constraint):
    max_value: float
    axis: _Axis
    def __init__(self, max_value: float = 2, axis: _Axis = 0) -> None: ...

class MinMaxNorm(Constraint):
    min_value: float
    max_value: float
    rate: float
    axis: _Axis
    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: _Axis = 0) -> None: ...

class UnitNorm(Constraint):
    axis: _Axis
    def __init__(self, axis: _Axis = 0) -> None: ...

class NonNeg(Constraint): ...
class RadialConstraint(Constraint): ...

max_norm = MaxNorm
min_max_norm = MinMaxNorm
unit_norm = UnitNorm
non_neg = NonNeg
