"""Depthwise 2-D convolution for NumPy arrays, drop-in for ``tf.keras.layers.DepthwiseConv2D``.

Public names only; the functions are in functional.py, the loops in _kernels.pyx.  What only layers need is imported at
first use, so that `import dwconv` costs little more than NumPy's own import.
"""

import importlib

from . import _messages, _runtime
from ._runtime import get_workers, set_workers
from .functional import depthwise_conv2d, depthwise_conv2d_input_grad, depthwise_conv2d_kernel_grad

__version__ = "0.1.0"
__all__ = [
    "DepthwiseConv2D", "activations", "constraints", "custom_object_scope", "depthwise_conv2d", "depthwise_conv2d_input_grad",
    "depthwise_conv2d_kernel_grad", "deserialize", "get_workers", "initializers", "kernel_from_torch", "load_keras_layers",
    "register_serializable", "regularizers", "serialize", "set_workers", "show_config",
]
_LAZY = {  # public name: the module that holds it, or is it
    "activations": "activations", "constraints": "constraints", "initializers": "initializers", "regularizers": "regularizers",
    "register_serializable": "_registry", "custom_object_scope": "_registry",
    "DepthwiseConv2D": "layer", "serialize": "layer", "deserialize": "layer",
    "load_keras_layers": "_keras_layers", "kernel_from_torch": "_weight_files",
}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'dwconv' has no attribute {name!r}")
    module = importlib.import_module(f"dwconv.{_LAZY[name]}")
    return module if _LAZY[name] == name else getattr(module, name)


def __dir__():
    return sorted({*globals(), *__all__})


def show_config(mode="stdout"):
    """What was built, what runs and why, as in NumPy.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print it, or return it as a dict.

    Returns
    -------
    dict or None

    Raises
    ------
    ValueError
        For another mode.
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f'mode must be "stdout" or "dicts", got {_messages.short(mode)}')
    config = {"dwconv": {"version": __version__}, **_runtime.describe()}
    if mode == "dicts":
        return config
    import json

    print(json.dumps(config, indent=2))
    return None
