from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray

from .functional import _Activation, _Format, _Padding, _Pair

__all__ = ["DepthwiseFilter"]

class DepthwiseFilter:  # scikit-learn has no types: its base classes' methods that users call stand here
    n_features_in_: int
    feature_names_in_: NDArray[Any]
    output_shape_: tuple[int, int, int]

    def __init__(
        self,
        kernel: ArrayLike,
        *,
        bias: ArrayLike | None = None,
        image_shape: Sequence[int] | None = None,
        strides: _Pair = 1,
        padding: _Padding = "same",
        dilation_rate: _Pair = 1,
        data_format: _Format = "channels_last",
        activation: _Activation = None,
    ) -> None: ...
    def fit(self, X: ArrayLike, y: Any = None) -> Self: ...
    def transform(self, X: ArrayLike) -> Any: ...  # an array, or what `set_output` chose
    def fit_transform(self, X: ArrayLike, y: Any = None, **fit_params: Any) -> Any: ...
    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]: ...
    def get_params(self, deep: bool = True) -> dict[str, Any]: ...
    def set_params(self, **params: Any) -> Self: ...
    def __sklearn_tags__(self) -> Any: ...
