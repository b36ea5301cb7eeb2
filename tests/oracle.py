"""Depthwise convolution in plain NumPy, to check dwconv against: float64 (or exact integers), every option, no speed.

Written from the documents, not from dwconv: one clipped slice of the image per tap, so that padding is never multiplied, and
"same" by the formula of TensorFlow's notes.  It shares no code with the package.  Checked in test_oracle.py.
"""

import numpy as np


def pads(size, taps, stride, dilation, padding, axis):
    """(before, after) of an axis (0: rows, 1: columns) for any form of `padding`."""
    if padding == "valid":
        return 0, 0
    if padding == "same":  # https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
        span = (taps - 1) * dilation + 1
        total = max(span - (stride if size % stride == 0 else size % stride), 0)
        return total // 2, total - total // 2
    if isinstance(padding, int):
        return padding, padding
    return tuple(padding[axis]) if isinstance(padding[axis], (tuple, list)) else (padding[axis],) * 2


def both(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def conv(x, kernel, bias=None, strides=1, padding="valid", dilation_rate=1, data_format="channels_last", activation=None,
         dtype=np.float64):
    """The convolution of x (4-D, or 3-D for one image) with kernel (kh, kw, C, M), (kh, kw, C) or (kh, kw), in `dtype`."""
    if x.ndim == 3:
        return conv(x[None], kernel, bias, strides, padding, dilation_rate, data_format, activation, dtype)[0]
    if data_format == "channels_first":
        x = x.transpose(0, 2, 3, 1)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    n, h, w, c = x.shape
    if kernel.ndim == 2:
        kernel = np.stack([kernel] * c, axis=2)
    if kernel.ndim == 3:
        kernel = kernel[..., None]
    kh, kw, _, m = kernel.shape
    (sh, sw), (dh, dw) = both(strides), both(dilation_rate)
    (top, bottom), (left, right) = pads(h, kh, sh, dh, padding, 0), pads(w, kw, sw, dw, padding, 1)
    oh, ow = (h + top + bottom - (kh - 1) * dh - 1) // sh + 1, (w + left + right - (kw - 1) * dw - 1) // sw + 1
    y = np.zeros((n, oh, ow, c, m), dtype)
    if bias is not None:
        y += bias.astype(dtype).reshape(c, m)
    inside = [[o for o in range(ow) if 0 <= o * sw + j * dw - left < w] for j in range(kw)]
    with np.errstate(invalid="ignore", over="ignore"):
        for i in range(kh):
            rows = [o for o in range(oh) if 0 <= o * sh + i * dh - top < h]
            for j, cols in enumerate(inside):
                if rows and cols:
                    i0, j0 = rows[0] * sh + i * dh - top, cols[0] * sw + j * dw - left
                    seen = x[:, i0 : i0 + len(rows) * sh : sh, j0 : j0 + len(cols) * sw : sw][:, : len(rows), : len(cols)]
                    y[:, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] += seen[..., None] * kernel[i, j]
    y = activated(y.reshape(n, oh, ow, c * m), activation)
    return y.transpose(0, 3, 1, 2) if data_format == "channels_first" else y


def activated(y, activation):
    if activation in ("relu", "relu6"):
        y = np.where(y < 0, 0, y)
    if activation == "relu6":
        y = np.where(y > 6, 6, y)
    return y


def bound(x, kernel, bias=None, *, eps, **options):
    """The largest error that design.md allows per output: (kh*kw + 2) * eps * sum|kernel||x|."""
    options.pop("activation", None)  # which are contractions
    terms = conv(abs(x), abs(kernel), None if bias is None else abs(bias), **options)
    return (kernel.shape[0] * kernel.shape[1] + 2) * eps * terms


def integers(shape, seed, most=9, dtype=np.float64):
    """Integers of magnitude 1 to `most`, so that every sum of a test is exact and no term is lost in a zero."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, most, shape, endpoint=True) * (2 * rng.integers(2, size=shape) - 1)).astype(dtype)


def windows(size, taps, stride, dilation, padding, axis):
    """(taps, out, size), 0 or 1: whether output o has input i at tap t.  The operation along one axis, as dense matrices."""
    before, after = pads(size, taps, stride, dilation, padding, axis)
    out = (size + before + after - (taps - 1) * dilation - 1) // stride + 1
    t, o, i = np.ogrid[:taps, :out, :size]
    return (o * stride + t * dilation - before == i).astype(float)


def _matrices(shape, kernel_size, strides, padding, dilation_rate):
    options = zip(shape[1:3], kernel_size, both(strides), both(dilation_rate), strict=True)
    return [windows(*sizes, padding, axis) for axis, sizes in enumerate(options)]


def input_grad(grad, kernel, shape, strides=1, padding="valid", dilation_rate=1):
    """The transpose of `conv` on grad (N, OH, OW, C*M), for an x of that shape (N, H, W, C) and a kernel (kh, kw, C, M)."""
    rows, cols = _matrices(shape, kernel.shape[:2], strides, padding, dilation_rate)
    grad = grad.reshape(*grad.shape[:3], *kernel.shape[2:])
    result = np.zeros(shape, grad.dtype)
    for row, weights in zip(rows, kernel, strict=True):
        lines = sum(col.T @ (grad * weight).sum(-1) for col, weight in zip(cols, weights, strict=True))  # (N, OH, W, C)
        result += np.moveaxis(np.tensordot(row, lines, (0, 1)), 0, 1)
    return result


def kernel_grad(x, grad, kernel_size, strides=1, padding="valid", dilation_rate=1):
    """The sum over the images and the outputs of grad (N, OH, OW, C*M) times what x (N, H, W, C) has at each tap."""
    rows, cols = _matrices(x.shape, kernel_size, strides, padding, dilation_rate)
    grad = grad.reshape(*grad.shape[:3], x.shape[3], grad.shape[3] // x.shape[3])
    result = np.zeros((*kernel_size, *grad.shape[3:]), grad.dtype)
    for t, row in enumerate(rows):
        lines = np.moveaxis(np.tensordot(row, x, (1, 1)), 0, 1)  # (N, OH, W, C)
        for u, col in enumerate(cols):
            result[t, u] = ((col @ lines)[..., None] * grad).sum((0, 1, 2))
    return result
