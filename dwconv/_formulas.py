"""Formulas of activations: how they are applied to arrays, and those that take more than a line.

A formula is plain NumPy on float32 or float64 arrays, and knows neither dtypes nor `out`: `blockwise` applies formulas
of one element in blocks that stay in the cache, whatever the memory layout; `at_once` those that need a whole axis.
Both compute float16 and bfloat16 in float32, refuse other dtypes (TypeError) and unequal shapes (ValueError), let `out`
be an input, and never warn: overflow and NaN are results here. A "slope" is a derivative; a "pullback" takes x and the
gradient of the output to the gradient of x.
"""

import math

import numpy as np

_PRECISION = {"float16": np.float32, "bfloat16": np.float32, "float32": np.float32, "float64": np.float64}
_BLOCK = 32768  # elements: the temporaries of a formula stay in a second-level cache


def _prepare(arrays):
    """The inputs as arrays of one shape, and the dtype to compute in."""
    arrays = [np.asarray(array) for array in arrays]
    dtype = arrays[0].dtype
    if dtype.name not in _PRECISION:
        raise TypeError(f"Expected an array of {', '.join(_PRECISION)}. Received: an array of {dtype}")
    return arrays, _PRECISION[dtype.name]


def _check_shape(shape, *arrays):
    for array in arrays:
        if array.shape != shape:
            raise ValueError(f"Expected an array of shape {shape}. Received: an array of shape {array.shape}")


def blockwise(formula, arrays, out=None):
    """``formula(*arrays)``, elementwise, for arrays of one shape: a new array like the first one, or `out`."""
    arrays, precision = _prepare(arrays)
    out = np.empty_like(arrays[0]) if out is None else out
    _check_shape(arrays[0].shape, *arrays, out)
    blocks = np.nditer(
        [*arrays, out],
        ["external_loop", "buffered", "zerosize_ok", "copy_if_overlap"],
        [["readonly"]] * len(arrays) + [["writeonly"]],
        op_dtypes=[precision] * (len(arrays) + 1),
        casting="unsafe",  # to and from 16 bits
        buffersize=_BLOCK,
    )
    with np.errstate(all="ignore"), blocks:
        for *block, result in blocks:
            result[...] = formula(*block)
    return out


def at_once(formula, arrays, out=None):
    """``formula(*arrays)``, where it needs whole axes: a new array of the first one's dtype, or `out`."""
    arrays, precision = _prepare(arrays)
    with np.errstate(all="ignore"):
        # in C order, for the bits of a sum depend on the layout
        result = formula(*(np.asarray(array, precision, order="C") for array in arrays))
        result = result.astype(arrays[0].dtype, copy=False)
    if out is None:
        return result
    _check_shape(result.shape, out)
    out[...] = result
    return out


def relu(x, negative_slope=0.0, max_value=None, threshold=0.0):
    y = np.maximum(x, 0) if threshold == 0 else np.where(x <= threshold, 0, x)
    y = y if max_value is None else np.clip(y, 0, max_value)
    return y - negative_slope * np.maximum(threshold - x, 0) if negative_slope else y


def relu_slope(x, negative_slope=0.0, max_value=None, threshold=0.0):
    inside = 1 if max_value is None else (x >= 0) & (x < max_value)
    return np.where(x <= threshold, negative_slope, (x > threshold) & inside)


def sigmoid(x):
    small = np.exp(-np.abs(x))  # cannot overflow
    return np.where(x < 0, small, 1) / (1 + small)


def sigmoid_slope(x):
    small = np.exp(-np.abs(x))
    return small / (1 + small) ** 2


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def silu_slope(x):
    return sigmoid(x) + x * sigmoid_slope(x)


def mish(x):
    return x * np.tanh(softplus(x))


def mish_slope(x):
    y = softplus(x)
    return np.tanh(y) + x * (4 * sigmoid_slope(2 * y) * sigmoid(x))


def hard_sigmoid(x):
    return np.clip(x + 3, 0, 6) / 6


def sparse_sigmoid(x):
    return (np.clip(x, -1, 1) + 1) / 2


def squareplus(x, b=4):
    root = np.hypot(x, math.sqrt(b))
    return np.where(x < 0, b / (root - x), root + x) / 2  # without the cancellation of root + x below 0


def squareplus_slope(x, b=4):
    return squareplus(x, b) / np.hypot(x, math.sqrt(b))


def _gelu_tanh(x):
    return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def gelu(x, approximate=False):
    return x * (0.5 * (1 + _gelu_tanh(x)) if approximate else normal_cdf(x))


def gelu_slope(x, approximate=False):
    x = np.clip(x, -50, 50)  # beyond, it is 0 or 1, and the terms below are no numbers
    if not approximate:
        return normal_cdf(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    t = _gelu_tanh(x)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def softmax(x, axis=-1):
    axis = tuple(axis) if isinstance(axis, list) else axis
    y = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return y / np.sum(y, axis=axis, keepdims=True)


def softmax_pullback(x, grad, axis=-1):
    _check_shape(x.shape, grad)
    axis = tuple(axis) if isinstance(axis, list) else axis
    y = softmax(x, axis)
    return y * (grad - np.sum(y * grad, axis=axis, keepdims=True))


def log_softmax(x, axis=-1):
    x = x - np.max(x, axis=axis, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True))


def log_softmax_pullback(x, grad, axis=-1):
    _check_shape(x.shape, grad)
    return grad - softmax(x, axis) * np.sum(grad, axis=axis, keepdims=True)


def sparsemax(x, axis=-1):
    """Algorithm 1 of Martins and Astudillo, ICML 2016."""
    x = np.moveaxis(x - np.max(x, axis=axis, keepdims=True), axis, -1)
    falling = -np.sort(-x, axis=-1)
    sums = np.cumsum(falling, axis=-1) - 1
    counts = np.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    count = np.sum(falling * counts > sums, axis=-1, keepdims=True)
    threshold = np.take_along_axis(sums, np.maximum(count - 1, 0), axis=-1) / count
    return np.moveaxis(np.maximum(x - threshold, 0), -1, axis)


def sparsemax_pullback(x, grad, axis=-1):
    _check_shape(x.shape, grad)
    support = sparsemax(x, axis) > 0
    mean = np.sum(grad * support, axis=axis, keepdims=True) / np.sum(support, axis=axis, keepdims=True)
    return (grad - mean) * support


def _halves(x, axis):
    if x.shape[axis] % 2:
        raise ValueError(f"axis size must be divisible by 2. Received: x.shape={x.shape} with axis={axis}")
    return np.split(x, 2, axis=axis)


def glu(x, axis=-1):
    value, gate = _halves(x, axis)
    return value * sigmoid(gate)


def glu_pullback(x, grad, axis=-1):
    value, gate = _halves(x, axis)
    _check_shape(value.shape, grad)
    return np.concatenate([grad * sigmoid(gate), grad * value * sigmoid_slope(gate)], axis=axis)


# W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp. 23 (1969) 631-637, the coefficients
# of his program CALERF (netlib.org/specfun/erf), highest power first: numerator, denominator.
_ERF_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
_ERFC_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_ERFC_LARGE = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346047e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _ratio(x, coefficients):
    """The numerator's polynomial over the denominator's, by Horner's rule."""
    numerator, denominator = (np.full_like(x, highest) for highest, *_ in coefficients)
    for polynomial, (_, *rest) in zip((numerator, denominator), coefficients, strict=True):
        for coefficient in rest:
            polynomial *= x
            polynomial += coefficient
    return numerator / denominator


def normal_cdf(x):
    """The probability that N(0, 1) is below x, elementwise: erfc(-x / sqrt(2)) / 2, within 2 eps.

    Where x is very negative, the error relative to the (tiny) result is about x**2 eps.
    """
    y = np.minimum(np.abs(x) * x.dtype.type(np.sqrt(0.5)), 30)  # beyond 30 the tail is 0 in float64
    head = np.trunc(y * 16) / 16  # its square is exact, so that exp(-y * y) keeps its last bits (Cody)
    gauss = np.exp(-head * head) * np.exp((head - y) * (head + y))
    inverse = 1 / (y * y)  # infinite where it is not used
    middle = gauss * _ratio(y, _ERFC_MIDDLE)
    large = gauss * (x.dtype.type(np.pi**-0.5) - inverse * _ratio(inverse, _ERFC_LARGE)) / y
    small = 1 - y * _ratio(y * y, _ERF_SMALL)
    tail = np.where(y < 0.46875, small, np.where(y > 4, large, middle))  # erfc(y)
    return np.where(x < 0, tail, 2 - tail) / 2
