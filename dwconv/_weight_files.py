"""Layers' weights from and to files: .npz, .safetensors, and Keras' .keras, .h5 and .weights.h5.

The format of a file that is read is told by its content.  A layer takes all of its weights or none: names and shapes are compared
first, then arrays are read, then they are set at once.  Refused: files of models that are no such file (PyTorch's and ONNX's are
read by their own packages, `kernel_from_torch` takes their arrays), streams, and anything that would have to be unpickled.
A file that is written takes its place when it is complete.
"""

import contextlib
import errno
import io
import mmap
import os
import secrets

import numpy as np

from . import _keras_hdf5
from ._arrays import as_array
from ._geometry import integer
from ._weight_entries import (
    KERNELS,
    Variable,
    checked_member,
    checked_zip,
    entry,
    npz_variable,
    optional,
    read_member,
    refusals,
    regular_size,
    shown,
    split,
)

_SUFFIXES = (".npz", ".safetensors", ".weights.h5")
_MODEL, _WEIGHTS = "config.json", "model.weights.h5"  # members of a .keras file


@contextlib.contextmanager
def opened(path):
    """``(format, {layer name: Entry})`` of a file, whose arrays can be read inside the context; every error names the file.

    The format is "keras", "npz" or "safetensors".  ValueError for what is none of these or is broken, OSError for what cannot
    be opened, ImportError without the package for the format.
    """
    path = os.fsdecode(path)
    with refusals(path), contextlib.ExitStack() as stack:
        size = regular_size(path)
        file = stack.enter_context(open(path, "rb"))
        start = file.read(9)
        file.seek(0)
        if start[:8] == b"\x89HDF\r\n\x1a\n":
            content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            yield "keras", _hdf5(stack, file, content)
        elif start[:2] == b"PK":
            archive = stack.enter_context(checked_zip(file))
            yield _zip(stack, archive, size)
        elif start[8:] == b"{":
            yield "safetensors", _safetensors(stack, path)
        else:
            raise ValueError(f"it is neither HDF5 nor a zip (.keras, .npz) nor .safetensors, but begins with {start!r}")


def _hdf5(stack, file, content, config=None):
    entries, h5 = _keras_hdf5.entries(file, content, config)
    stack.enter_context(h5)
    return entries


def _zip(stack, archive, size):
    members = archive.namelist()
    if _MODEL not in members:
        variables = {}
        for member in members:
            group, leaf = split(member.removesuffix(".npy"))
            if leaf is not None and member.endswith(".npy"):
                variables.setdefault(group, {})[leaf] = npz_variable(archive, member, size)
        return "npz", _entries(variables)
    if _WEIGHTS not in members:
        raise ValueError(f"a Keras model without {_WEIGHTS}; its members are {', '.join(map(repr, members))[:200]}")
    config = _keras_hdf5.model_config(read_member(archive, checked_member(archive, _MODEL, size)).decode())
    weights = read_member(archive, checked_member(archive, _WEIGHTS, size))
    return "keras", _hdf5(stack, io.BytesIO(weights), weights, config)


def _safetensors(stack, path):
    """That library checks the header and the offsets, and maps the file instead of reading it."""
    file = stack.enter_context(optional("safetensors", "safetensors").safe_open(path, "np"))
    variables = {}
    for key in file.keys():  # noqa: SIM118 - it is no dict
        group, leaf = split(key)
        if leaf is not None:
            shape = tuple(file.get_slice(key).get_shape())
            variables.setdefault(group, {})[leaf] = Variable(shape, lambda key=key: file.get_tensor(key))
    return _entries(variables)


def _entries(variables):
    found = {group: entry(leaves, group) for group, leaves in variables.items()}
    return {group: weights for group, weights in found.items() if weights is not None}


# --- a layer's


def load(layer, path, name=None):
    """Sets a layer's weights from a file; `Layer.load_weights` says what may be in it."""
    with opened(path) as (_, entries):
        values = matching(layer, _chosen(entries, name))
        set_weights(layer, values)


def _chosen(entries, name):
    """The entry of that name or in that group; without a name the one depthwise layer, or the one layer."""
    entries = {key: weights for key, weights in entries.items() if weights.kernel is not None}
    depthwise = {key: weights for key, weights in entries.items() if weights.depthwise}
    candidates = depthwise or entries
    if name is None and len(candidates) == 1:
        return next(iter(candidates.values()))
    found = [weights for key, weights in entries.items() if name in (key, weights.group)]
    if name is not None and found:
        return found[0]
    first = ", ".join(f"{key[:60]!r} {weights.kernel.shape}"[:90] for key, weights in list(candidates.items())[:4])
    more = f" and {len(candidates) - 4} more" if len(candidates) > 4 else ""
    asked = f"the file has no layer {name!r:.60}" if name is not None else f"one of {len(candidates)} layers is to be named"
    raise ValueError(f"{asked}; kernels are {first}{more}" if candidates else
                     f"the file has no kernel of four axes that is called {', '.join(KERNELS)}: give arrays of other names to "
                     "set_weights, PyTorch's by kernel_from_torch")


def matching(layer, weights):
    """The arrays of an entry, read if their shapes are the layer's, which need not be built; ValueError if they are not."""
    kernel, bias = weights.kernel, weights.bias
    channels = layer.kernel.shape[2] if layer.built else kernel.shape[2]
    wanted = (*layer.kernel_size, channels, layer.depth_multiplier)
    own, place = f"layer {layer.name[:80]!r}", repr(weights.group[-80:]) if weights.group else "it"
    if kernel.shape != wanted:
        raise ValueError(f"{place} has a kernel of shape {kernel.shape}, {own} one of {wanted}")
    given = None if bias is None else bias.shape
    wanted = (channels * layer.depth_multiplier,) if layer.use_bias else None
    if given != wanted:
        given, wanted = ("no bias" if shape is None else f"a bias of shape {shape}" for shape in (given, wanted))
        raise ValueError(f"{place} has {given}, {own} {wanted}")
    values = [variable.read() for variable in (kernel, bias) if variable is not None]
    for value in values:
        if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
            raise ValueError(f"{place} has weights of dtype {value.dtype}, which are no real numbers")
    return values


def set_weights(layer, values):
    """Builds the layer if it is not built, and sets its weights."""
    if not layer.built:
        shape = [None, None, None, None]
        shape[layer._channel_axis] = values[0].shape[2]
        layer.build(tuple(shape))
    layer.set_weights(values)


def save(layer, path, overwrite=True):
    """Writes a layer's weights; `Layer.save_weights` says how."""
    path = os.path.realpath(os.fsdecode(path))  # a link stays one, the file that it leads to is replaced
    suffix = next((suffix for suffix in _SUFFIXES if path.endswith(suffix)), None)
    if suffix is None:
        raise ValueError(f"{shown(path)}: a file of weights ends in {', '.join(_SUFFIXES)}")
    layer.count_params()  # NotBuiltError
    arrays = dict(zip(("kernel", "bias"), layer.weights, strict=False))
    with refusals(path):
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "it exists and overwrite is False", path)
        temporary = os.path.join(os.path.dirname(path), f".dwconv-{secrets.token_hex(8)}")
        try:
            with open(temporary, "x+b") as file:
                _WRITERS[suffix](file, layer.name, arrays)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _write_npz(file, name, arrays):
    # .npy has no bfloat16; float32 holds all of its numbers
    np.savez(file, **{key: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for key, a in arrays.items()})


def _write_safetensors(file, name, arrays):
    # weights are C-contiguous, whatever they were set from; of others safetensors 0.8.0 writes the memory as it lies (its #825)
    file.write(optional("safetensors.numpy", "safetensors").save(arrays))


def _write_keras(file, name, arrays):
    _keras_hdf5.write(file, name, arrays.values())


_WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors, ".weights.h5": _write_keras}


# --- arrays of other frameworks


def kernel_from_torch(weight, groups):
    """The kernel of a depthwise convolution in PyTorch or ONNX, as Keras and dwconv have it.

    Parameters
    ----------
    weight : array_like, shape (C*M, 1, kh, kw)
        ``conv.weight.detach().numpy()`` of a ``torch.nn.Conv2d``; ``onnx.numpy_helper.to_array(initializer)`` of a Conv's W.
    groups : int
        C, the number of channels: ``conv.groups``, or the node's attribute `group`.

    Returns
    -------
    ndarray, shape (kh, kw, C, M)
        A copy.  The bias, of shape (C*M,), needs no change: output channel ``c*M + m`` is filter m of channel c there too.

    Raises
    ------
    ValueError
        For another shape, as that of a convolution that is not depthwise, and for groups that do not divide C*M.

    Examples
    --------
    >>> import numpy as np
    >>> import dwconv
    >>> weight = np.arange(32.0).reshape(8, 1, 2, 2)
    >>> kernel = dwconv.kernel_from_torch(weight, groups=4)
    >>> kernel.shape
    (2, 2, 4, 2)
    >>> bool((kernel[:, :, 3, 1] == weight[7, 0]).all())
    True
    """
    weight, groups = as_array("weight", weight), integer("groups", groups, 1, "an integer")
    if weight.ndim != 4 or weight.shape[1] != 1 or weight.shape[0] % groups:
        raise ValueError(f"weight must have shape (groups * M, 1, kh, kw) with groups={groups}, got {weight.shape}")
    multiplier, rows, cols = weight.shape[0] // groups, *weight.shape[2:]
    return np.ascontiguousarray(weight.reshape(groups, multiplier, rows, cols).transpose(2, 3, 0, 1))
