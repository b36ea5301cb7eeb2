"""The oracle against numbers worked by hand and against scipy.signal.correlate2d.  dwconv is not called here."""

import itertools

import numpy as np
import pytest
import scipy.signal
from oracle import bound, conv, input_grad, integers, kernel_grad, windows

ROW = [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("size", "kernel", "options", "expected"), [
    (4, [1, 10], {}, [21, 32, 43]),                                        # correlation: the kernel is not flipped
    (4, [1, 10], {"padding": "same"}, [21, 32, 43, 4]),                    # even kernel: the odd element at the right
    (4, [1, 10, 100], {"padding": "same"}, [210, 321, 432, 43]),
    (4, [1, 10, 100], {"padding": "same", "strides": (1, 2)}, [321, 43]),  # TensorFlow's, where torch would pad both sides
    (5, [1, 10, 100], {"padding": "same", "strides": (1, 2)}, [210, 432, 54]),
    (7, [1, 10, 100], {"padding": "same", "strides": (1, 4)}, [321, 765]),
    (4, [1, 10, 100], {"padding": ((0, 0), (2, 1))}, [100, 210, 321, 432, 43]),
    (2, [1], {"padding": (0, 2)}, [0, 0, 1, 2, 0, 0]),                     # padding wider than the kernel
    (5, [1, 10, 100], {"dilation_rate": (1, 2)}, [531]),
    (7, [1, 10], {"dilation_rate": (1, 3), "strides": (1, 2)}, [41, 63]),
    (3, [1, 10], {"strides": (1, 9)}, [21]),
])
def test_rows_by_hand(size, kernel, options, expected):
    x, kernel = np.array(ROW[:size], float).reshape(1, 1, size, 1), np.array(kernel, float).reshape(1, -1)
    assert conv(x, kernel, **options)[0, 0, :, 0].tolist() == expected
    turned = {k: v[::-1] if isinstance(v, tuple) else v for k, v in options.items()}
    assert conv(x.transpose(0, 2, 1, 3), kernel.T, **turned)[0, :, 0, 0].tolist() == expected


def test_channels_by_hand():
    """Output channel c*M + m is input channel c by filter m; bias and activations come after; layouts are transposes."""
    x, kernel, bias = np.array([[[[1.0, 2.0]]]]), np.array([[[[1.0, 2.0, 3.0], [10.0, 20.0, -30.0]]]]), np.arange(6.0)
    expected = [1, 3, 5, 23, 44, -55]
    assert conv(x, kernel, bias).ravel().tolist() == expected
    assert conv(x, kernel, bias, activation="relu").ravel().tolist() == [1, 3, 5, 23, 44, 0]
    assert conv(x, kernel, bias, activation="relu6").ravel().tolist() == [1, 3, 5, 6, 6, 0]
    first = conv(x.reshape(1, 2, 1, 1), kernel, bias, data_format="channels_first")
    assert first.shape == (1, 6, 1, 1)
    assert first.ravel().tolist() == expected
    assert bound(x, kernel, bias, eps=1.0).ravel().tolist() == [3, 9, 15, 69, 132, 195]


def test_padding_is_not_multiplied():
    kernel = np.array([[np.inf, 1.0, np.nan]])
    assert np.array_equal(conv(np.ones((1, 1, 1, 1)), kernel, padding="same").ravel(), [1.0])


@pytest.mark.parametrize("padding", ["valid", "same", 2, (0, 3), ((1, 0), (4, 2))])
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (2, 5), (4, 1)])
def test_against_scipy(taps, padding):
    """Pad with zeros, put zeros between the taps, correlate, and keep every stride-th output."""
    x, kernel = integers((2, 11, 10, 3), 1), integers((*taps, 3, 2), 2)
    for (sh, sw), (dh, dw) in itertools.product([(1, 1), (2, 3)], [(1, 1), (1, 2), (3, 2)]):
        y = conv(x, kernel, padding=padding, strides=(sh, sw), dilation_rate=(dh, dw))
        spread = np.zeros(((taps[0] - 1) * dh + 1, (taps[1] - 1) * dw + 1, 3, 2))
        spread[::dh, ::dw] = kernel
        if padding == "same":  # its sizes by definition; the odd element of padding goes last
            assert y.shape == (2, -(-11 // sh), -(-10 // sw), 6)
            axes = zip(y.shape[1:3], (sh, sw), spread.shape[:2], (11, 10), strict=True)
            total = [max((o - 1) * s + k - n, 0) for o, s, k, n in axes]
            margins = [(t // 2, (t + 1) // 2) for t in total]
        else:
            margins = {"valid": [(0, 0)] * 2, 2: [(2, 2)] * 2, (0, 3): [(0, 0), (3, 3)]}.get(padding, padding)
        padded = np.pad(x, [(0, 0), *margins, (0, 0)])
        for n, c, m in itertools.product(range(2), range(3), range(2)):
            expected = scipy.signal.correlate2d(padded[n, :, :, c], spread[:, :, c, m], mode="valid")[::sh, ::sw]
            np.testing.assert_array_equal(y[n, :, :, c * 2 + m], expected)


def test_windows_by_hand():
    """Rows are outputs, columns inputs: a kernel of two taps, dilated, then strided with padding."""
    assert windows(4, 2, 1, 2, "valid", 0).tolist() == [[[1, 0, 0, 0], [0, 1, 0, 0]], [[0, 0, 1, 0], [0, 0, 0, 1]]]
    assert windows(3, 2, 2, 1, (0, 1), 1).tolist() == [[[0, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 1]]]
    assert windows(2, 3, 1, 1, "same", 0)[0].tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("options", [
    {}, {"padding": "same"}, {"strides": 2, "padding": "same"}, {"strides": (2, 3), "dilation_rate": (2, 1), "padding": 2},
    {"padding": ((3, 0), (1, 4)), "strides": (3, 2), "dilation_rate": (1, 2)},
], ids=str)
def test_gradients_are_transposes(options):
    """The dense matrix of the operation, a column for each element of x and for each of the kernel, and its transpose."""
    x, kernel = integers((2, 5, 6, 2), 1), integers((3, 2, 2, 3), 2)
    y = conv(x, kernel, **options)
    grad = integers(y.shape, 3)
    of_x = np.stack([conv(e.reshape(x.shape), kernel, **options).ravel() for e in np.eye(x.size)], 1)
    assert np.array_equal(of_x @ x.ravel(), y.ravel())
    assert np.array_equal(input_grad(grad, kernel, x.shape, **options).ravel(), of_x.T @ grad.ravel())
    of_kernel = np.stack([conv(x, e.reshape(kernel.shape), **options).ravel() for e in np.eye(kernel.size)], 1)
    assert np.array_equal(kernel_grad(x, grad, (3, 2), **options).ravel(), of_kernel.T @ grad.ravel())
