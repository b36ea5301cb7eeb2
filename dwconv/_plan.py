"""Plans: what shapes and options come to, checked and kept, so that a repeated call of the functions costs microseconds.

All checks that need no array are made here, before anything is allocated or written.  A gradient has the plan of the
convolution that it belongs to: `forward` is that of x and kernel; `input_gradient` and `kernel_gradient` check the shape of its
result's gradient besides.
"""

import functools
import typing

import numpy as np

from ._geometry import FORMATS, axis, countable, padding_pairs, pair
from ._messages import short


class Plan(typing.NamedTuple):
    rows: tuple        # axes, see _geometry
    cols: tuple
    out_shape: tuple   # of the result, with the batch axis
    kernel_shape: tuple  # (kh, kw, C*M)
    work: int          # its multiply-adds, and 5 for each number read or written; 0: there are none of the ones or of the others


def _is_first(data_format):
    if data_format not in FORMATS:
        raise ValueError(f'data_format must be "channels_last" or "channels_first", got {short(data_format)}')
    return data_format == "channels_first"


@functools.lru_cache(maxsize=512)  # options have passed `hashable`, which knows 1 from True
def forward(x_shape, kernel_shape, strides, padding, dilation_rate, data_format, name="x"):
    """The plan of a convolution of x, which messages call `name`."""
    first = _is_first(data_format)
    if len(x_shape) not in (3, 4):
        axes = "(N, C, H, W) or (C, H, W)" if first else "(N, H, W, C) or (H, W, C)"
        raise ValueError(f"{name} must have 4 dimensions, or 3 for one image: {axes}; got shape {x_shape}")
    n, *image = x_shape if len(x_shape) == 4 else (1, *x_shape)
    c, h, w = image if first else (image[2], image[0], image[1])
    if len(kernel_shape) not in (2, 3, 4):
        raise ValueError(f"kernel must have shape (kh, kw, C, M), (kh, kw, C) or (kh, kw), got {kernel_shape}")
    kh, kw, channels, multiplier = (*kernel_shape, c, 1)[:4] if len(kernel_shape) == 2 else (*kernel_shape, 1)[:4]
    if channels != c:
        raise ValueError(f"{name} has {c} channels but kernel has {channels}: shapes {x_shape} ({data_format}) and "
                         f"{kernel_shape}")
    if min(kh, kw, c, multiplier) < 1:
        raise ValueError(f"kernel size, channels and depth multiplier must be at least 1: shapes {x_shape} and {kernel_shape}")
    strides, dilation_rate = pair("strides", strides), pair("dilation_rate", dilation_rate)
    pads = padding_pairs(padding)
    pads = (pads, pads) if isinstance(pads, str) else pads
    rows = axis("height", h, kh, strides[0], dilation_rate[0], pads[0])
    cols = axis("width", w, kw, strides[1], dilation_rate[1], pads[1])
    out = (n, c * multiplier, rows[1], cols[1]) if first else (n, rows[1], cols[1], c * multiplier)
    countable("the result", out)
    results, numbers = n * rows[1] * cols[1] * c * multiplier, n * h * w * c
    work = results * kh * kw + 5 * (results + numbers) if results and numbers else 0
    return Plan(rows, cols, out, (kh, kw, c * multiplier), work)


def _of_gradient(name, x_shape, kernel_shape, grad_shape, options):
    """The plan of the convolution of x with kernel, whose result has the shape `grad_shape`."""
    plan = forward(x_shape, kernel_shape, *options, name)
    if grad_shape != plan.out_shape:
        raise ValueError(f"grad has shape {grad_shape}, but the convolution of {name} {x_shape} with a kernel {kernel_shape} "
                         f"has shape {plan.out_shape}")
    return plan


def _four_axes(first, **shapes):
    for name, shape in shapes.items():
        if len(shape) != 4:
            axes = "(N, C, H, W)" if first else "(N, H, W, C)"
            raise ValueError(f"{name} must have 4 dimensions, {axes}; got {len(shape)}: {short(shape)}")


@functools.lru_cache(maxsize=512)
def input_gradient(input_shape, kernel_shape, grad_shape, *options):
    """The plan of the convolution of x with kernel whose result's gradient has the shape `grad_shape`; options as in `forward`.

    Its out_shape is that of the gradient for x."""
    _four_axes(_is_first(options[-1]), input_shape=input_shape, grad=grad_shape)
    if len(kernel_shape) != 4:
        raise ValueError(f"kernel must have shape (kh, kw, C, M), got {kernel_shape}")
    countable("input_shape: a result", input_shape)
    return _of_gradient("input_shape", input_shape, kernel_shape, grad_shape, options)._replace(out_shape=input_shape)


@functools.lru_cache(maxsize=512)
def kernel_gradient(x_shape, kernel_size, grad_shape, *options):
    """The same for a kernel of that size, with as many filters as the result's gradient has channels.

    Its out_shape is that of the gradient for the kernel, (kh, kw, C, M)."""
    size, first = pair("kernel_size", kernel_size), _is_first(options[-1])
    _four_axes(first, x=x_shape, grad=grad_shape)
    c, channels = x_shape[1 if first else 3], grad_shape[1 if first else 3]
    if c < 1 or channels < 1 or channels % c:
        raise ValueError(f"grad has {channels} channels, which is no multiple of the {c} of x: shapes {grad_shape} "
                         f"and {x_shape} ({options[-1]})")
    kernel_shape = (*size, c, channels // c)
    countable("kernel_size: a result", kernel_shape)
    return _of_gradient("x", x_shape, kernel_shape, grad_shape, options)._replace(out_shape=kernel_shape)


def hashable(name, value, depth=2):
    """An option as a key of the plan: pairs spelled as lists, arrays or NumPy integers become tuples of int."""
    if type(value) in (int, str):
        return value
    if type(value) is tuple and len(value) == 2:  # the usual spellings, quickly
        a, b = value
        if type(a) is type(b) is int:
            return value
        if type(a) is type(b) is tuple and len(a) == len(b) == 2:
            (c, d), (e, f) = value
            if type(c) is type(d) is type(e) is type(f) is int:
                return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.ndarray) and value.size <= 4:  # no option has more
        value = value.tolist() if value.ndim else value.item()
    if isinstance(value, (tuple, list)) and depth:
        return tuple([hashable(name, v, depth - 1) for v in value])
    if isinstance(value, (bool, np.ndarray)) or not hasattr(type(value), "__index__"):
        texts = ", a string or two pairs of integers" if name == "padding" else ""
        raise TypeError(f"{name} takes an integer, a pair of integers{texts}, not {short(value)}")
    return value.__index__()


def text(name, value):
    """A str, from one of its subclasses too; TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {short(value)}")
    return str(value)


def sizes(name, value):
    """A tuple of int, from a sequence of integers that are not negative."""
    if type(value) is tuple and len(value) == 4:  # the shape of an array, quickly
        a, b, c, d = value
        if type(a) is type(b) is type(c) is type(d) is int and min(value) >= 0 and max(value) < 2**63:
            return value
    value = value.tolist() if isinstance(value, np.ndarray) and value.size <= 4 else value
    if not isinstance(value, (tuple, list)) or any(isinstance(n, bool) or not hasattr(type(n), "__index__") for n in value):
        raise TypeError(f"{name} must be a tuple of integers, not {short(value)}")
    value = tuple([n.__index__() for n in value])
    if not all(0 <= n < 2**63 for n in value):
        raise ValueError(f"{name} must hold sizes of at least 0 that fit 64 bits, got {short(value)}")
    return value
