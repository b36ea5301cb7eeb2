"""Types of the public names.  The stubs hold no docstrings and no private names; .ci/types compares them with the code."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any, Literal, TypeVar, overload

from numpy.typing import ArrayLike, NDArray

from . import activations, constraints, initializers, regularizers
from .functional import depthwise_conv2d, depthwise_conv2d_input_grad, depthwise_conv2d_kernel_grad
from .layer import DepthwiseConv2D, deserialize, serialize

_Object = TypeVar("_Object", bound=Callable[..., Any])

__version__: str
__all__ = [
    "DepthwiseConv2D", "activations", "constraints", "custom_object_scope", "depthwise_conv2d", "depthwise_conv2d_input_grad",
    "depthwise_conv2d_kernel_grad", "deserialize", "get_workers", "initializers", "kernel_from_torch", "load_keras_layers",
    "register_serializable", "regularizers", "serialize", "set_workers", "show_config",
]

def get_workers() -> int: ...
def set_workers(workers: int) -> AbstractContextManager[None]: ...
@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def register_serializable(package: str = "Custom", name: str | None = None) -> Callable[[_Object], _Object]: ...
def custom_object_scope(custom_objects: Mapping[str, Any] | None) -> AbstractContextManager[None]: ...
def kernel_from_torch(weight: ArrayLike, groups: int) -> NDArray[Any]: ...
def load_keras_layers(path: str | bytes | PathLike[Any]) -> dict[str, DepthwiseConv2D]: ...
