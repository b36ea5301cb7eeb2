"""What a layer's arguments, inputs, weights and configs may be, and the small values that describe them.

Every refusal names the argument and what was received.  It is a ValueError for the layer's own arguments, whatever is
wrong with them (as Keras mostly has it, and because they come from config files), and a TypeError for arrays of types that
have no place in a convolution.  Nothing here knows the layer, and nothing is imported because a config says so, but for
ml_dtypes, which alone has bfloat16.
"""

import re
import typing

import numpy as np

from . import _geometry, _keras_config
from ._arrays import as_array
from ._geometry import countable as countable  # for the layer, with its other checks
from ._messages import short

# policy: (what is computed and returned, what the weights are kept in)
_POLICIES = {name: (name, name) for name in ("float32", "float64", "float16", "bfloat16")}
_POLICIES |= {"mixed_float16": ("float16", "float32"), "mixed_bfloat16": ("bfloat16", "float32")}
_POLICY_CLASSES = ("DTypePolicy", "FloatDTypePolicy", "Policy", "PolicyV1")  # Keras 3, its early versions, Keras 2
_FLOATS = ("float32", "float64", "float16", "bfloat16")
_KEYWORDS = ("name", "trainable", "dtype", "autocast", "groups")
# Arguments that mean nothing here and that configs of Keras 2 and calls written for Sequential carry.
_IGNORED = ("batch_input_shape", "batch_size", "input_shape", "input_dim")
# Arguments of Conv2D, from which Keras 2 derived the layer: some of its configs have them, and it never used them.
_LEFTOVERS = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
_MOST_DEPTH, _MOST_NODES, _MOST_CHARACTERS = 64, 10**6, 10**5  # of a config: far beyond what any layer writes


class DTypePolicy(typing.NamedTuple):
    """The dtypes of a layer: `compute_dtype` of its inputs and outputs, `variable_dtype` of its weights; all names."""

    name: str
    compute_dtype: str
    variable_dtype: str


class InputSpec(typing.NamedTuple):
    """What inputs a layer takes: so many axes at least, and ``{axis: size}``."""

    min_ndim: int
    axes: dict


class NotBuiltError(ValueError, AttributeError):
    """The layer has no weights yet; an AttributeError too, so that ``hasattr(layer, "kernel")`` answers."""


# --- arguments


def integers(name, value, minimum=1):
    """(rows, columns) from an integer or a sequence of two; NumPy's integers and arrays too."""
    plain = value.tolist() if isinstance(value, np.ndarray) and value.size <= 2 else value
    try:
        return _geometry.pair(name, plain, minimum)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"`{name}` must be a positive integer or two of them. Received: {name}={short(value)}") from error


def integer(name, value):
    """A positive int."""
    try:
        return _geometry.integer(name, value, 1)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={short(value)}") from error


def boolean(name, value):
    """A bool; Keras takes the truth of anything for `use_bias`, so that "no" means yes there."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"Expected `{name}` to be a boolean. Received: {name}={short(value)} (of type {type(value)})")
    return bool(value)


def padding(value):
    """ "valid" or "same"."""
    lower = value.lower() if isinstance(value, str) else value
    if lower == "causal":
        raise ValueError('`padding="causal"` is for 1-D convolution only: use "valid" or "same"')
    if not isinstance(lower, str) or lower not in ("valid", "same"):
        raise ValueError(f'`padding` must be "valid" or "same". Received: padding={short(value)}')
    return lower


def data_format(value):
    """ "channels_last" or "channels_first"; for None, what the user's keras.json says."""
    if value is None:
        return _keras_config.image_data_format()
    lower = value.lower() if isinstance(value, str) else value
    if not isinstance(lower, str) or lower not in _geometry.FORMATS:
        raise ValueError(f"`data_format` must be one of {', '.join(_geometry.FORMATS)}. Received: data_format={short(value)}")
    return lower


def name(value):
    """A str without "/", as in Keras 3; it never becomes a path, but it is written into every message."""
    if not isinstance(value, str) or "/" in value or len(value) > 1000:
        raise ValueError(
            f"`name` must be a string of at most 1000 characters, none of them `/`. Received: name={short(value)}")
    return str(value)


def snake_case(class_name):
    """The name that Keras derives from a class's: DepthwiseConv2D gives depthwise_conv2d."""
    return re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", class_name).lower()


def policy(value):
    """The `DTypePolicy` for None (float32), a name, a dtype, another policy or its config; ValueError for others."""
    given = value
    if isinstance(value, dict):
        config = value.get("config")
        known = value.get("class_name") in _POLICY_CLASSES and isinstance(config, dict)
        value = config.get("name") if known else None
    elif value is None:
        value = "float32"
    elif isinstance(value, type) and issubclass(value, np.generic):
        value = np.dtype(value).name
    elif not isinstance(value, str):
        value = getattr(value, "name", None)  # of NumPy's and TensorFlow's dtypes, of Keras' policies
    if not isinstance(value, str) or value not in _POLICIES:
        raise ValueError(f"`dtype` must be one of {', '.join(_POLICIES)}. Received: dtype={short(given)}")
    return DTypePolicy(value, *_POLICIES[value])


def dtype(dtype_name):
    """The NumPy dtype of a policy's name for it; ImportError for bfloat16 without the package that has it."""
    if dtype_name != "bfloat16":
        return np.dtype(dtype_name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("bfloat16 is a dtype of the package ml_dtypes: pip install 'dwconv[bf16]'") from error
    return np.dtype(ml_dtypes.bfloat16)


def keyword_arguments(kwargs, cls):
    """The arguments behind the fifteen, checked: a dict of name, trainable, dtype and autocast."""
    unknown = {key: value for key, value in kwargs.items() if key not in (*_KEYWORDS, *_IGNORED)}
    if unknown:
        hint = ". The kernel's are called depthwise_*" if unknown.keys() & {*_LEFTOVERS} else ""
        raise ValueError(f"Unrecognized keyword arguments passed to {cls.__name__}: {short(unknown)}{hint}")
    if kwargs.get("groups", 1) != 1:
        received = short(kwargs["groups"])
        raise ValueError(f"`groups` must be 1: every channel is a group already. Received: groups={received}")
    return {
        "name": None if kwargs.get("name") is None else name(kwargs["name"]),
        "trainable": boolean("trainable", kwargs.get("trainable", True)),
        "dtype": policy(kwargs.get("dtype")),
        "autocast": boolean("autocast", kwargs.get("autocast", True)),
    }


# --- shapes and arrays


def shape(value):
    """The shape of a batch of images, a tuple of four sizes, where None is not known."""
    try:
        if isinstance(value, set | frozenset | dict):
            raise TypeError("it has no order")
        sizes = tuple(None if size is None else _geometry.integer("size", size, 0) for size in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A shape is a sequence of sizes and None. Received: {short(value)}") from error
    if len(sizes) != 4:
        raise ValueError(f"Expected the shape of a batch of images, with 4 axes. Received: {len(sizes)} axes, {short(sizes)}")
    return sizes


def inputs(value, wanted, autocast, name="inputs"):
    """The array that a layer of the compute dtype `wanted` computes with; TypeError for what has no real numbers."""
    x = as_array(name, value)
    if x.dtype == wanted:  # the usual call
        return x
    if x.dtype.kind in "biu" or (autocast and x.dtype.name in _FLOATS):
        return x.astype(wanted, copy=False)
    if x.dtype.name not in _FLOATS:
        raise TypeError(f"`{name}` must be real numbers, of at most 64 bits. Received: dtype {x.dtype!s:.80}")
    return x


def _real(label, array):
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{label} must be real numbers. Received: dtype {array.dtype!s:.80}")
    return array


def convolved(value, wanted):
    """What an overridden `convolution_op` returned, as an array of a dtype (None: its own); ValueError unless it has 4 axes."""
    array = as_array("the result of convolution_op", value)
    if array.ndim != 4:
        raise ValueError(f"`convolution_op` must return an array with 4 axes. Received: {short(value)}")
    return np.asarray(_real("The result of `convolution_op`", array), wanted)


def activated(function, outputs):
    """``function(outputs)`` as an array of the shape and dtype of `outputs`, as `depthwise_conv2d` has it."""
    result = np.asarray(function(outputs))
    if result.shape != outputs.shape:
        raise ValueError(f"activation returned shape {result.shape} for an array of shape {outputs.shape}")
    return _real("What the activation returned", result).astype(outputs.dtype, copy=False)


def weight(label, value, wanted_shape, wanted_dtype):
    """A new array of that shape and dtype with the value; ValueError for another shape, TypeError for no real numbers."""
    array = as_array(label, value)
    if array.shape != tuple(wanted_shape):
        raise ValueError(f"{label} has shape {tuple(wanted_shape)}, which is not that of the value given: {array.shape}")
    return np.array(_real(label, array), dtype=wanted_dtype, order="C")


def scalar(label, value):
    """A float from a real number or an array of one, NaN and infinities too."""
    array = np.asarray(value)
    if array.ndim or (array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16"):
        raise ValueError(f"`{label}` must be a number. Received: {short(value)}")
    return float(array)


# --- configs


def config(value):
    """A shallow copy of a config; ValueError if it is no dict of what JSON has, or deeper or larger than a layer's.

    So nothing that reads it later meets its recursion limit or works for minutes.  Objects that JSON does not have
    are left for the argument that they are for to judge.
    """
    if not isinstance(value, dict):
        raise ValueError(f"A layer's config is a dict. Received: {short(value)}")
    nodes, level = 0, [value]
    for _ in range(_MOST_DEPTH):
        keys = [key for node in level if isinstance(node, dict) for key in node]
        if any(not isinstance(key, str) for key in keys):
            raise ValueError("The keys of a config are strings")
        if any(len(text) > _MOST_CHARACTERS for text in (*keys, *level) if isinstance(text, str)):
            raise ValueError(f"A string in a config has at most {_MOST_CHARACTERS} characters")
        inner = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list | tuple)]
        nodes += sum(map(len, inner))
        if nodes > _MOST_NODES:
            raise ValueError(f"A config has at most {_MOST_NODES} values")
        level = [child for children in inner for child in children]
        if not level:
            return dict(value)
    raise ValueError(f"A config is nested at most {_MOST_DEPTH} levels deep")


def layer_config(value):
    """The constructor's arguments in a layer's own config, of any generation."""
    value = config(value)
    if isinstance(value.get("name"), str):  # Keras 2 allowed paths; of these the last part, as `load_keras_layers` has it
        value["name"] = value["name"].rpartition("/")[2]
    if "groups" in value:  # Keras 2 wrote it
        value = {key: part for key, part in value.items() if key not in _LEFTOVERS}
    return value
