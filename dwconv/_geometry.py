"""Sizes and padding: arithmetic on Python ints, which do not overflow.  No arrays, no kernels.

An axis of a convolution is (size, out, taps, stride, dilation, pad): `size` inputs, `out` outputs, and output o takes
input o*stride + t*dilation - pad for each tap t that lies in the input.
"""

import math
import operator
import sys

from ._messages import short

FORMATS = ("channels_last", "channels_first")
_PADDINGS = '"valid", "same", an integer, a pair of integers or ((top, bottom), (left, right))'
LIMIT = 2**31  # of padding and of the dilated kernel; sizes of arrays are bounded by memory


def integer(name, value, minimum, what="an integer or a pair of integers"):
    """An int of at least `minimum`; anything with __index__ but bool."""
    if type(value) is not int:
        if isinstance(value, bool) or not hasattr(type(value), "__index__"):
            raise TypeError(f"{name} must be {what}, not {short(value)}")
        value = operator.index(value)
    if not minimum <= value < 2**63:
        raise ValueError(f"{name} must be at least {minimum} and fit 64 bits, got {short(value)}")
    return value


def countable(what, shape):
    """ValueError if an array of that shape has more bytes than Py_ssize_t counts, with 8 for each element."""
    if math.prod(n for n in shape if n) > sys.maxsize // 8:  # as NumPy counts: axes without elements do not make it small
        raise ValueError(f"{what} of shape {short(shape)} would be larger than any memory")


def pair(name, value, minimum=1):
    """(rows, columns) from an integer or a pair of integers."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair of integers, got {len(value)} of them: {short(value)}")
        return integer(name, value[0], minimum), integer(name, value[1], minimum)
    return (integer(name, value, minimum),) * 2


def padding_pairs(padding):
    """"valid", "same" or ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        lower = padding.lower()
        if lower not in ("valid", "same"):
            raise ValueError(f"padding must be {_PADDINGS}, got {short(padding)}")
        return lower
    if isinstance(padding, (tuple, list)) and len(padding) == 2 and all(isinstance(p, (tuple, list)) for p in padding):
        return pair("padding", padding[0], 0), pair("padding", padding[1], 0)
    both = padding if isinstance(padding, (tuple, list)) else (padding, padding)
    if len(both) != 2:
        raise ValueError(f"padding must be {_PADDINGS}, got {len(both)} of them: {short(padding)}")
    rows, cols = (integer("padding", pad, 0, _PADDINGS) for pad in both)
    return (rows, rows), (cols, cols)


def same_padding(size, span, stride):
    """TensorFlow's "same": ceil(size / stride) outputs, the odd element of padding at the end.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    total = max((-(-size // stride) - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


def axis(name, size, taps, stride, dilation, padding):
    """The axis (see above) of `size` inputs; `padding` is "valid", "same" or (before, after)."""
    span = (taps - 1) * dilation + 1
    if padding == "same":
        before, after = same_padding(size, span, stride)
    else:
        before, after = (0, 0) if padding == "valid" else padding
    if max(span, before, after) >= LIMIT:
        raise ValueError(f"{name}: a kernel of {span} elements (kernel_size {taps}, dilation_rate {dilation}) with padding "
                         f"{before, after} is beyond the limit of 2**31")
    room = size + before + after - span
    if room < 0 and padding != "same":
        raise ValueError(
            f"computed output size would be zero or negative: {name} {size} with padding {before, after} is smaller than "
            f"the kernel's {span} (kernel_size {taps}, dilation_rate {dilation})")
    out = -(-size // stride) if padding == "same" else room // stride + 1
    # a stride without a second output, or a dilation without a second tap, moves nothing: 1 keeps the kernels' sums small
    return size, out, taps, stride if out > 1 else 1, dilation if taps > 1 else 1, before
