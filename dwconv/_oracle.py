"""The convolution and its gradients in plain NumPy and float64, for the self-test and the demo.

The definition written down once more, a slice of the padded image for each tap: it shares no code with the package, neither its
kernels nor its geometry, and tests/test_selftest.py compares it with the tests' own oracle, which is written differently.
Refused here: speed, and infinities, since what is not in the image is a zero that is multiplied like any other.

Images are (N, H, W, C), kernels (kh, kw, C, M), results and their gradients (N, OH, OW, C, M).  Options: strides and
dilation_rate, pairs; padding, "valid", "same" or a pair of (before, after).
"""

import numpy as np


def _axis(size, taps, stride, dilation, padding):
    span = (taps - 1) * dilation + 1
    if padding == "same":  # https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
        out = -(-size // stride)
        return out, max((out - 1) * stride + span - size, 0) // 2
    before, after = (0, 0) if padding == "valid" else padding
    return (size + before + after - span) // stride + 1, before


def axes(size, kernel_size, strides, dilation_rate, padding):
    """((outputs, padding before the first input) of the rows, ... of the columns)."""
    paddings = (padding, padding) if isinstance(padding, str) else padding
    return [_axis(*each) for each in zip(size, kernel_size, strides, dilation_rate, paddings, strict=True)]


def _seen(x, kernel_size, **geometry):
    """x (N, H, W, C) inside its padding, and {tap (i, j): what the outputs see through it (N, OH, OW, C)}: views of one array."""
    (n, h, w, c), (sh, sw), (dh, dw) = x.shape, geometry["strides"], geometry["dilation_rate"]
    (oh, top), (ow, left) = axes((h, w), kernel_size, **geometry)
    height, width = (oh - 1) * sh + 1, (ow - 1) * sw + 1  # of what a tap sees
    padded = np.zeros((n, max(top + h, height + (kernel_size[0] - 1) * dh), max(left + w, width + (kernel_size[1] - 1) * dw), c))
    inner = padded[:, top : top + h, left : left + w]
    inner[...] = x
    return inner, {(i, j): padded[:, i * dh : i * dh + height : sh, j * dw : j * dw + width : sw]
                   for i, j in np.ndindex(*kernel_size)}


def conv(x, kernel, **geometry):
    """The convolution of an image with a kernel."""
    return sum(view[..., None] * kernel[tap] for tap, view in _seen(x, kernel.shape[:2], **geometry)[1].items())


def input_grad(grad, kernel, shape, **geometry):
    """The transpose of `conv`, for an image of that shape."""
    inner, seen = _seen(np.zeros(shape), kernel.shape[:2], **geometry)
    for tap, view in seen.items():
        view += (grad * kernel[tap]).sum(-1)
    return inner


def kernel_grad(x, grad, kernel_size, **geometry):
    """For each tap and channel the sum over the outputs of grad times what the image has there."""
    seen = _seen(x, kernel_size, **geometry)[1].values()
    return np.stack([np.einsum("nopc,nopcm->cm", view, grad) for view in seen]).reshape(*kernel_size, *grad.shape[3:])
