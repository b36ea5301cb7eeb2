"""Arrays as the functions take and the kernels read them: conversion, dtypes, layout, `out`.

Inputs are copied only where a kernel cannot read them as they lie (another dtype, gaps between the elements of a row,
misaligned), never changed, and refused where a conversion would lose something.
"""

import operator

import numpy as np

from ._messages import short

_ndarray = np.ndarray
COMPUTED = {np.dtype(np.float32), np.dtype(np.float64)}
_PLAIN = {int, float, bool, np.ndarray}  # elements of lists, without a second look


def _refuse_lossy(name, value, depth=4):
    """TypeError for what NumPy would convert by dropping or computing something, in a list of arrays too."""
    if isinstance(value, (list, tuple)):
        others = {kind for kind in {*map(type, value)} - _PLAIN if depth and not issubclass(kind, np.generic)}
        for element in value if others else ():
            if type(element) in others:
                _refuse_lossy(name, element, depth - 1)
        return
    if isinstance(value, (np.ma.MaskedArray, np.matrix)):
        lost = "mask" if hasattr(value, "mask") else "rule of two axes"
        raise TypeError(f"{name} must not be a {type(value).__name__:.80}: its {lost} would be lost")
    graph = getattr(value, "__dask_graph__", None)  # xarray's objects have one too, which is None unless they hold dask arrays
    if type(value).__module__.partition(".")[0] == "dask" or (callable(graph) and graph() is not None):
        raise TypeError(f"{name} is a dask array: use dwconv.dask.depthwise_conv2d, or call .compute() on it first")
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"{name} is a sparse matrix: convert it with .toarray() first")


def as_array(name, value):
    """`value` as an array; TypeError for what NumPy would convert by dropping or computing something."""
    if type(value) is np.ndarray:
        return value
    _refuse_lossy(name, value)
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError) as error:  # on another device, mostly
            raise TypeError(f"{name} gives NumPy no access to its memory: {error}") from error
    if hasattr(type(value), "__array__") and not isinstance(value, np.ndarray):
        array = value.__array__()  # called here, since np.asarray calls a wrong answer a ValueError and would take off a mask
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name}: {type(value).__name__:.80}.__array__() returned no array but {short(array)}")
        return as_array(name, array)
    try:
        return np.asarray(value)
    except ValueError as error:
        if isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is a list that makes no array: {str(error)[:200]}") from error
        raise


def common_dtypes(arrays, names=("x", "kernel", "bias")):
    """The result's dtype and the computing one; TypeError if it is not one of the four floating-point types."""
    dtype = arrays[0].dtype
    if dtype in COMPUTED and dtype is arrays[len(arrays) // 2].dtype is arrays[-1].dtype:  # of one to three
        return dtype, dtype  # nothing to promote: most calls
    try:
        dtype = np.result_type(*arrays)
    except TypeError:
        dtype = None
    if dtype is not None:
        dtype = dtype if dtype.isnative else dtype.newbyteorder("=")
        if dtype in COMPUTED:
            return dtype, dtype
        if dtype.name in ("float16", "bfloat16"):  # the latter is not NumPy's own
            return dtype, np.dtype(np.float32)
    types = ", ".join(f"{a.dtype.name} ({name})" for a, name in zip(arrays, names, strict=False))
    if dtype is None:
        raise TypeError(f"the arrays have no common dtype, convert one of them: {types}")
    raise TypeError(f"the arrays' common dtype must be float32, float64, float16 or bfloat16, got {types}")


def axis_numbers(value):
    """An axis as an int, or several as a list of them; TypeError for other types, ValueError for what no array has."""
    several = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim)
    try:
        axes = [operator.index(axis) for axis in (value if several else [value])]
    except TypeError as error:
        raise TypeError(f"`axis` must be an integer or a list of integers. Received: {short(value)}") from error
    if not all(-64 <= axis < 64 for axis in axes):
        raise ValueError(f"`axis` must be from -64 to 63, since arrays have at most 64 axes. Received: {short(value)}")
    return axes if several else axes[0]


def is_readable(a, dtype):
    """Whether a kernel can read `a` as it lies: of that dtype, rows without gaps between elements, aligned."""
    flags = a.flags
    if a.dtype != dtype or not flags.aligned:
        return False
    size = dtype.itemsize
    return flags.c_contiguous or ((a.strides[-1] == size or a.shape[-1] == 1) and not any(s % size for s in a.strides))


def readable(a, dtype):
    """`a` as a kernel can read it; a copy only if needed."""
    if (a.flags.carray and a.dtype is dtype) or is_readable(a, dtype):
        return a  # most arrays; each call and each attribute is a hundredth of a small call's time
    # of a broadcast array only what is in memory: the whole may be larger than that
    core = a[tuple(slice(1 if s == 0 else None) for s in a.strides[:-1])]
    copy = np.array(core, dtype, order="C", copy=True)
    return copy if core.shape == a.shape else np.broadcast_to(copy, a.shape)


def packed(a, dtype):
    """`a` of that dtype, C-contiguous and aligned.  A copy only if needed."""
    flags = a.flags
    if (flags.carray and a.dtype is dtype) or (a.dtype == dtype and flags.c_contiguous and flags.aligned):
        return a
    return np.array(a, dtype, order="C", copy=True)


def self_overlap(a):
    """Whether two elements of `a` may share memory: False is certain."""
    if a.flags.c_contiguous:
        return False
    reach = a.itemsize
    for stride, size in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach = stride * (size - 1) + reach
    return False


def check_out(out, shape, dtype):
    """Whether a kernel can write to `out` as it lies; ValueError or TypeError if nothing can."""
    if type(out) is _ndarray and out.dtype is dtype and out.shape == shape and out.flags.carray:
        return True
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out must be a NumPy array, not {type(out).__name__:.80}")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, but the result has shape {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype!s:.80}, but the result has dtype {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if not out.flags.c_contiguous and any(s == 0 and n > 1 for s, n in zip(out.strides, out.shape, strict=True)):
        raise ValueError(f"out has elements that share memory: strides {out.strides}")
    return is_readable(out, dtype) and not self_overlap(out)


def delivered(y, out, dtype):
    """The result y in `out`, or as an array of that dtype; rounds once, quietly."""
    if y is out or (out is None and y.dtype == dtype):
        return y
    with np.errstate(all="ignore"):  # beyond float16 is Inf, and below it 0, as in any other sum
        if out is None:
            return y.astype(dtype)
        np.copyto(out, y, casting="same_kind")
    return out
