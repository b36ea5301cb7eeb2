from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

from numpy.typing import ArrayLike, DTypeLike, NDArray

_Axes = Sequence[int] | None

def get(identifier: str | dict[str, Any] | NDArray[Any] | Callable[..., Any] | None) -> Any: ...
def serialize(obj: Any) -> Any: ...
def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any: ...
def compute_fans(shape: Sequence[int], input_axes: _Axes = None, output_axes: _Axes = None) -> tuple[float, float]: ...

class SeedGenerator:
    seed: int | None
    name: str | None
    def __init__(self, seed: int | None = None, name: str | None = None) -> None: ...
    def __call__(self) -> tuple[int, int]: ...
    def get_config(self) -> dict[str, Any]: ...

_Seed = int | SeedGenerator | dict[str, Any] | None

class Initializer:
    def __call__(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> NDArray[Any]: ...
    def get_config(self) -> dict[str, Any]: ...
    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self: ...

class Constant(Initializer):
    value: NDArray[Any]
    def __init__(self, value: ArrayLike | dict[str, Any] = 0.0) -> None: ...

class Zeros(Initializer): ...
class Ones(Initializer): ...

class Identity(Initializer):
    gain: float
    def __init__(self, gain: float = 1.0) -> None: ...

class _RandomInitializer(Initializer):
    seed: int | SeedGenerator | None
    def __init__(self, seed: _Seed = None) -> None: ...

class RandomUniform(_RandomInitializer):
    minval: float
    maxval: float
    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: _Seed = None) -> None: ...

class RandomNormal(_RandomInitializer):
    mean: float
    stddev: float
    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: _Seed = None) -> None: ...

class TruncatedNormal(RandomNormal): ...

class VarianceScaling(_RandomInitializer):
    scale: float
    mode: str
    distribution: str
    input_axes: list[int] | None
    output_axes: list[int] | None
    def __init__(
        self,
        scale: float = 1.0,
        mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in",
        distribution: Literal["normal", "truncated_normal", "untruncated_normal", "uniform"] = "truncated_normal",
        seed: _Seed = None,
        input_axes: _Axes = None,
        output_axes: _Axes = None,
    ) -> None: ...

class _Preset(VarianceScaling):
    def __init__(self, seed: _Seed = None, input_axes: _Axes = None, output_axes: _Axes = None) -> None: ...

class GlorotUniform(_Preset): ...
class GlorotNormal(_Preset): ...
class LecunUniform(_Preset): ...
class LecunNormal(_Preset): ...
class HeUniform(_Preset): ...
class HeNormal(_Preset): ...

class Orthogonal(_RandomInitializer):
    gain: float
    def __init__(self, gain: float = 1.0, seed: _Seed = None) -> None: ...

constant = Constant
zeros = Zeros
ones = Ones
identity = Identity
orthogonal = Orthogonal
random_uniform = RandomUniform
random_normal = RandomNormal
truncated_normal = TruncatedNormal
variance_scaling = VarianceScaling
glorot_uniform = GlorotUniform
glorot_normal = GlorotNormal
lecun_uniform = LecunUniform
lecun_normal = LecunNormal
he_uniform = HeUniform
he_normal = HeNormal
