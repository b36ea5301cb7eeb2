"""The functions: check the arguments, plan, call a kernel.

All checks are made here, once, before anything is allocated or written; the kernels below make none.  A plan depends
on shapes and options only and is kept, so that a repeated call costs microseconds.  Nothing here knows the layer or
Keras.
"""

import functools
import math
import typing

import numpy as np

from . import _runtime
from ._arrays import as_array, check_out, common_dtypes, is_readable, packed, readable, self_overlap
from ._geometry import FORMATS, axis, padding_pairs, pair

_CLAMPS = {"linear": (), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}  # what the kernels apply themselves


class _Plan(typing.NamedTuple):
    rows: tuple        # axes, see _geometry
    cols: tuple
    out_shape: tuple   # with the batch axis
    kernel_shape: tuple  # (kh, kw, C*M)
    work: int          # multiply-adds


@functools.lru_cache(maxsize=512)  # options have passed _hashable, which knows 1 from True
def _plan(x_shape, kernel_shape, strides, padding, dilation_rate, data_format):
    """Checks shapes and options of a forward call."""
    if data_format not in FORMATS:
        raise ValueError(f'data_format must be "channels_last" or "channels_first", got {data_format!r:.80}')
    first = data_format == "channels_first"
    if len(x_shape) not in (3, 4):
        axes = "(N, C, H, W) or (C, H, W)" if first else "(N, H, W, C) or (H, W, C)"
        raise ValueError(f"x must have 4 dimensions, or 3 for one image: {axes}; got shape {x_shape}")
    n, *image = x_shape if len(x_shape) == 4 else (1, *x_shape)
    c, h, w = image if first else (image[2], image[0], image[1])
    if len(kernel_shape) not in (2, 3, 4):
        raise ValueError(f"kernel must have shape (kh, kw, C, M), (kh, kw, C) or (kh, kw), got {kernel_shape}")
    kh, kw, channels, multiplier = (*kernel_shape, c, 1)[:4] if len(kernel_shape) == 2 else (*kernel_shape, 1)[:4]
    if channels != c:
        raise ValueError(f"x has {c} channels but kernel has {channels}: shapes {x_shape} ({data_format}) and {kernel_shape}")
    if min(kh, kw, c, multiplier) < 1:
        raise ValueError(f"kernel size, channels and depth multiplier must be at least 1: shapes {x_shape} and {kernel_shape}")
    strides, dilation_rate = pair("strides", strides), pair("dilation_rate", dilation_rate)
    pads = padding_pairs(padding)
    pads = (pads, pads) if isinstance(pads, str) else pads
    rows = axis("height", h, kh, strides[0], dilation_rate[0], pads[0])
    cols = axis("width", w, kw, strides[1], dilation_rate[1], pads[1])
    out = (n, c * multiplier, rows[1], cols[1]) if first else (n, rows[1], cols[1], c * multiplier)
    return _Plan(rows, cols, out, (kh, kw, c * multiplier), n * rows[1] * cols[1] * c * multiplier * kh * kw)


def _hashable(name, value, depth=2):
    """An option as a key of the plan: pairs spelled as lists, arrays or NumPy integers become tuples of int."""
    if type(value) in (int, str) or (type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.ndim else value.item()
    if isinstance(value, (tuple, list)) and depth:
        return tuple([_hashable(name, v, depth - 1) for v in value])
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        texts = ", a string or two pairs of integers" if name == "padding" else ""
        raise TypeError(f"{name} takes an integer, a pair of integers{texts}, not {value!r:.80}")
    return value.__index__()


def _activation(identifier):
    """(clamp, None) for what the kernels apply themselves, else (None, function)."""
    from . import activations  # here, since most calls need none, and it would double the import time

    function = activations.get(identifier)
    if function is activations.glu:
        raise ValueError('activation "glu" halves an axis: apply dwconv.activations.glu to the result instead')
    name = getattr(function, "__name__", None)
    if name in _CLAMPS and function is getattr(activations, name):
        return _CLAMPS[name], None
    return None, function


def _activate(function, y):
    """Puts function(y) in y; built-in functions compute in place, a user's may return what it likes of that shape."""
    built_in = getattr(function, "__module__", None) == "dwconv.activations"
    result = function(y, out=y) if built_in else np.asarray(function(y))
    if result.shape != y.shape:
        raise ValueError(f"activation returned shape {result.shape} for an array of shape {y.shape}")
    if result is not y:
        np.copyto(y, result, casting="same_kind")


def depthwise_conv2d(x, kernel, bias=None, *, strides=1, padding="valid", dilation_rate=1, data_format="channels_last",
                     activation=None, out=None, workers=None):
    """Depthwise 2-D convolution (cross-correlation): each channel with its own filters.

    ``y[n, i, j, c*M + m] = activation(bias[c*M + m] + sum over p, q of
    x[n, i*sh + p*dh - top, j*sw + q*dw - left, c] * kernel[p, q, c, m])``, where x outside the image adds nothing.

    Parameters
    ----------
    x : array_like, shape (N, H, W, C), or (N, C, H, W) for channels_first; without N for one image
        Images, of any real dtype: see Returns.
    kernel : array_like, shape (kh, kw, C, M), (kh, kw, C) or (kh, kw)
        The filters, in both layouts; without M it is 1, and a 2-D kernel serves every channel.
    bias : array_like, shape (C*M,), optional
        Added to the output channels.
    strides, dilation_rate : int or pair of int
        For rows and columns, at least 1, in any combination.
    padding : {"valid", "same"}, int, (int, int) or ((top, bottom), (left, right))
        "same" is TensorFlow's: ceil(size / stride) outputs, the odd element at the bottom and right.
    data_format : {"channels_last", "channels_first"}
        Layout of x and of the result.
    activation : str or callable, optional
        A name of `dwconv.activations` or a function of the result; relu and relu6 cost nothing extra.
    out : ndarray, optional
        Where the result goes: its exact shape and dtype, any strides; may overlap an input.  Returned.
    workers : int, optional
        Threads at most, -1 for all CPUs; see `get_workers`.  The bits do not depend on it.

    Returns
    -------
    ndarray, shape (N, OH, OW, C*M) or (N, C*M, OH, OW); without N where x has none
        Its dtype is np.result_type(x, kernel[, bias]), for integers and bool too (int64 with float32 gives float64).
        float32 and float64 are computed in their own precision,
        float16 and bfloat16 in float32, rounded once.

    Raises
    ------
    ValueError
        For a wrong value or shape, with both numbers in the text.
    TypeError
        For a wrong type, and for a result dtype that is none of the four.

    Notes
    -----
    Per output, ``|error| <= (kh*kw + 2) * eps * sum|kernel||x|``, since it is one chain of multiply-adds (N. J. Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1).  NaN and Inf reach just the outputs that
    cover them.

    Examples
    --------
    >>> import numpy as np
    >>> import dwconv
    >>> x = np.arange(9.0).reshape(3, 3, 1)
    >>> dwconv.depthwise_conv2d(x, np.ones((2, 2)), strides=1)[..., 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    if type(data_format) is not str:
        if not isinstance(data_format, str):
            raise TypeError(f"data_format must be a string, not {data_format!r:.80}")
        data_format = str(data_format)
    x, kernel = as_array("x", x), as_array("kernel", kernel)
    arrays = (x, kernel)
    if bias is not None:
        bias = as_array("bias", bias)
        arrays = (x, kernel, bias)
    dtype, computed = common_dtypes(arrays)
    plan = _plan(x.shape, kernel.shape, _hashable("strides", strides), _hashable("padding", padding),
                 _hashable("dilation_rate", dilation_rate), data_format)
    channels = plan.kernel_shape[2]
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"bias must have shape ({channels},), one number per output channel, got {bias.shape}")
    clamp, function = ((), None) if activation is None else _activation(activation)
    shape = plan.out_shape if x.ndim == 4 else plan.out_shape[1:]
    if out is not None:
        check_out(out, shape, dtype)
    workers = _runtime.resolve_workers(workers, plan.work)

    direct = (out is not None and dtype == computed and function is None
              and is_readable(out, dtype) and not self_overlap(out))
    y = out if direct else np.empty(shape, computed)
    if x.size and y.size:
        if kernel.ndim == 2:
            kernel = np.broadcast_to(kernel[:, :, None], plan.kernel_shape)
        inputs = (readable(x if x.ndim == 4 else x[None], computed),
                  packed(kernel, computed).reshape(plan.kernel_shape), None if bias is None else packed(bias, computed))
        options = (plan.rows, plan.cols, clamp or (), workers)
        forward = _runtime.kernels.forward
        if not forward(data_format, *inputs, y if y.ndim == 4 else y[None], *options):  # out shares memory with an input
            y = np.empty(shape, computed)
            forward(data_format, *inputs, y if y.ndim == 4 else y[None], *options)
    elif y.size:  # an image without rows or columns: outputs of padding alone
        y[...] = 0 if bias is None else bias if data_format == "channels_last" else bias[:, None, None]
        if clamp:
            np.clip(y, *clamp, out=y)
    if function is not None:
        _activate(function, y)
    if y is out or (out is None and dtype == computed):
        return y
    with np.errstate(over="ignore"):  # beyond float16 is Inf, as in any other sum
        if out is None:
            return y.astype(dtype)
        np.copyto(out, y, casting="same_kind")
    return out
