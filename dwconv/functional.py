"""The functions: the convolution and its two gradients.  Check the arguments, plan, call a kernel.

All checks are made here and in _plan, once, before anything is allocated or written; the kernels below make none.  So what runs
a caller's code (`__index__`, a class as activation) comes before shapes are looked at.  Nothing here knows the layer or Keras.
"""

import numpy as np

from . import _plan, _runtime
from ._arrays import COMPUTED, as_array, check_out, common_dtypes, delivered, packed, readable
from ._plan import hashable

_ndarray = np.ndarray


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
        float32 and float64 are computed in their own precision, float16 and bfloat16 in float32, rounded once.

    Raises
    ------
    ValueError
        For a wrong value or shape, with both numbers in the text.
    TypeError
        For a wrong type, and for a result dtype that is none of the four.

    Notes
    -----
    Per output, ``|error| <= (kh*kw + 2) * eps * sum|kernel||x|``, since it is one chain of multiply-adds (N. J. Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1).  NaN and Inf reach just the outputs that cover them.

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
        data_format = _plan.text("data_format", data_format)
    if type(x) is not _ndarray:  # such calls saved are a tenth of a small call's time
        x = as_array("x", x)
    if type(kernel) is not _ndarray:
        kernel = as_array("kernel", kernel)
    if bias is not None and type(bias) is not _ndarray:
        bias = as_array("bias", bias)
    dtype = computed = x.dtype
    mixed = dtype not in COMPUTED or kernel.dtype is not dtype or (bias is not None and bias.dtype is not dtype)
    if mixed:
        dtype, computed = common_dtypes((x, kernel) if bias is None else (x, kernel, bias))
    if type(strides) is not int:
        strides = hashable("strides", strides)
    if type(padding) is not str:
        padding = hashable("padding", padding)
    if type(dilation_rate) is not int:
        dilation_rate = hashable("dilation_rate", dilation_rate)
    clamp, function = (), None
    if activation is not None:
        from . import activations  # here, since most calls need none, and it would double the import time

        clamp, function = activations._fused(activation)
    if workers is not None and not (type(workers) is int and workers > 0):
        workers = _runtime.check_workers(workers)
    x_shape = x.shape  # read once
    rows, cols, shape, kernel_shape, work = _plan.forward(x_shape, kernel.shape, strides, padding, dilation_rate, data_format)
    batch = len(x_shape) == 4
    if bias is not None and bias.shape != kernel_shape[2:]:
        raise ValueError(f"bias must have shape {kernel_shape[2:]}, one number per output channel, got {bias.shape}")
    if not batch:
        shape = shape[1:]
    direct = out is not None and check_out(out, shape, dtype) and dtype is computed and function is None
    workers = _runtime.resolve_workers(workers, work)

    y = out if direct else np.empty(shape, computed)
    if work:
        if kernel.ndim == 2:
            kernel = np.broadcast_to(kernel[:, :, None], kernel_shape)
        # most arrays need no call, a tenth of a small one's time
        if mixed or not (batch and x.flags.carray):
            x = readable(x if batch else x[None], computed)
        if mixed or not kernel.flags.carray:
            kernel = packed(kernel, computed)
        if bias is not None and (mixed or not bias.flags.carray):
            bias = packed(bias, computed)
        while not _runtime.kernels.forward(data_format, x, kernel, bias, y if batch else y[None], rows, cols, clamp or (),
                                           workers):
            # out shares memory with an input; a new array only with one whose strides span what is not its own
            y, x = np.empty(shape, computed), x if y is out else x.copy()
    elif y.size:  # images without rows or columns: outputs of padding alone
        y[...] = 0 if bias is None else bias if data_format == "channels_last" else bias[:, None, None]
        if clamp:
            np.clip(y, *clamp, out=y)
    if function is not None:
        activations._apply(function, y)
    return y if y is out or (out is None and dtype is computed) else delivered(y, out, dtype)


def _gradient(function, first, second, size, strides, padding, dilation_rate, data_format, out, workers):
    """What the kernels' `function` makes of grad and kernel for x of shape `size`, or of x and grad for a kernel of that size."""
    if type(data_format) is not str:  # as in the convolution, calls saved
        data_format = _plan.text("data_format", data_format)
    if type(strides) is not int:
        strides = hashable("strides", strides)
    if type(padding) is not str:
        padding = hashable("padding", padding)
    if type(dilation_rate) is not int:
        dilation_rate = hashable("dilation_rate", dilation_rate)
    if workers is not None:
        workers = _runtime.check_workers(workers)
    for_x = function == "input_grad"
    dtype = computed = first.dtype
    if dtype not in COMPUTED or second.dtype is not dtype:
        dtype, computed = common_dtypes((first, second), ("grad", "kernel") if for_x else ("x", "grad"))
    if for_x:
        plan = _plan.input_gradient(size, second.shape, first.shape, strides, padding, dilation_rate, data_format)
    else:
        plan = _plan.kernel_gradient(first.shape, size, second.shape, strides, padding, dilation_rate, data_format)
    rows, cols, shape, kernel_shape, work = plan
    direct = out is not None and check_out(out, shape, dtype) and dtype is computed and (for_x or out.flags.c_contiguous)
    workers = _runtime.resolve_workers(workers, work)

    y = out if direct else np.empty(shape, computed)
    if first.size and second.size and y.size:
        first, second = readable(first, computed), (packed if for_x else readable)(second, computed)
        compute = getattr(_runtime.kernels, function)
        while not compute(data_format, first, second, y if for_x else y.reshape(kernel_shape), rows, cols, workers):
            first = first if y is out else first.copy()  # as in the convolution
            second = second if y is out else second.copy()
            y = np.empty(shape, computed)
    else:
        y[...] = 0  # sums over no pixels
    return y if y is out or (out is None and dtype is computed) else delivered(y, out, dtype)


def depthwise_conv2d_input_grad(grad, kernel, input_shape, *, strides=1, padding="valid", dilation_rate=1,
                                data_format="channels_last", out=None, workers=None):
    """Gradient for x of a scalar whose gradient for ``depthwise_conv2d(x, kernel)`` is `grad`.

    It is the transpose of the convolution: ``sum(grad * depthwise_conv2d(x, kernel)) == sum(result * x)`` for every x.

    Parameters
    ----------
    grad : array_like, shape (N, OH, OW, C*M), or (N, C*M, OH, OW) for channels_first
        Of the shape that `depthwise_conv2d` returns for these options.
    kernel : array_like, shape (kh, kw, C, M)
        The filters.
    input_shape : tuple of int
        The shape of x, (N, H, W, C) or (N, C, H, W): strides make several of them fit one `grad`.
    strides, padding, dilation_rate, data_format, out, workers
        As in `depthwise_conv2d`.

    Returns
    -------
    ndarray, shape `input_shape`
        Of dtype np.result_type(grad, kernel), by the rules of `depthwise_conv2d`.

    Raises
    ------
    ValueError, TypeError
        As in `depthwise_conv2d`, and ValueError where the shapes do not belong together.

    Examples
    --------
    >>> import numpy as np
    >>> import dwconv
    >>> dwconv.depthwise_conv2d_input_grad(np.ones((1, 1, 2, 1)), np.ones((1, 2, 1, 1)), (1, 1, 3, 1)).ravel()
    array([1., 2., 1.])
    """
    if type(grad) is not _ndarray:
        grad = as_array("grad", grad)
    if type(kernel) is not _ndarray:
        kernel = as_array("kernel", kernel)
    input_shape = _plan.sizes("input_shape", input_shape)
    return _gradient("input_grad", grad, kernel, input_shape, strides, padding, dilation_rate, data_format, out, workers)


def depthwise_conv2d_kernel_grad(x, grad, kernel_size, *, strides=1, padding="valid", dilation_rate=1,
                                 data_format="channels_last", out=None, workers=None):
    """Gradient for the kernel of a scalar whose gradient for ``depthwise_conv2d(x, kernel)`` is `grad`.

    ``sum(grad * depthwise_conv2d(x, kernel)) == sum(result * kernel)`` for every kernel.

    Parameters
    ----------
    x : array_like, shape (N, H, W, C), or (N, C, H, W) for channels_first
        Images.
    grad : array_like, shape (N, OH, OW, C*M) or (N, C*M, OH, OW)
        Of the shape that `depthwise_conv2d` returns for these options.
    kernel_size : int or (int, int)
        kh and kw, of which padding and strides make several fit one `grad`.
    strides, padding, dilation_rate, data_format, out, workers
        As in `depthwise_conv2d`.

    Returns
    -------
    ndarray, shape (kh, kw, C, M)
        M is the channels of `grad` by those of x; the dtype is np.result_type(x, grad), by the rules of `depthwise_conv2d`.

    Raises
    ------
    ValueError, TypeError
        As in `depthwise_conv2d`, and ValueError where the shapes do not belong together.

    Examples
    --------
    >>> import numpy as np
    >>> import dwconv
    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> dwconv.depthwise_conv2d_kernel_grad(x, np.ones((1, 2, 2, 1)), (2, 2))[..., 0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    if type(x) is not _ndarray:
        x = as_array("x", x)
    if type(grad) is not _ndarray:
        grad = as_array("grad", grad)
    kernel_size = hashable("kernel_size", kernel_size)
    return _gradient("kernel_grad", x, grad, kernel_size, strides, padding, dilation_rate, data_format, out, workers)
