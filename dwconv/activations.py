"""Activations and their gradients, as in ``keras.activations``.

``activation(x, out=None)`` takes an array of float16, bfloat16, float32 or float64 (TypeError otherwise) and returns
one of the same shape and dtype: a new one or `out`, which may be `x` itself; only `glu` halves an axis. Names,
arguments and formulas are Keras 3's, also where Keras 2 differs (`hard_sigmoid`), and Keras 2's layer names such as
"LeakyReLU" work. `sparsemax` is right where Keras 3.15 is wrong (keras #23425). NaN stays NaN and nothing warns.
`PReLU` is not here: it has weights.

``gradient(activation)(x, grad)`` is `grad`, which belongs to the output, times the derivative at `x`; on a kink, that
of the side that TensorFlow takes at 0. Below, an activation is a name, a text, a formula and a derivative, with the
longer formulas in `_formulas`.
"""

import functools
import math

import numpy as np

from . import _formulas as f
from ._arrays import axis_numbers
from ._registry import Registry, finite_number

_registry = Registry("activation function", "activations")
deserialize, serialize = _registry.deserialize, _registry.serialize
_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # of selu: Klambauer et al., 2017, arXiv:1706.02515


def get(identifier):
    """The activation for None (`linear`), a name, a dict, a class (an instance of it) or a callable (itself)."""
    return linear if identifier is None else _registry.get(identifier)


def gradient(activation):
    """The function (x, grad) -> gradient: an activation's attribute `gradient`; ValueError where there is none."""
    function = getattr(activation, "gradient", None)
    if not callable(function):
        raise ValueError(f"{activation!r:.80} has no gradient: give it a function gradient(x, grad) as an attribute")
    return function


def _of_one_argument(identifier):
    """As `get`; ValueError for what is no function of an array alone that keeps its shape."""
    function = get(identifier)
    if function is glu:
        raise ValueError('activation "glu" halves an axis: apply dwconv.activations.glu to the result instead')
    if function is threshold:
        raise ValueError('activation "threshold" has no defaults: use a function of x that calls it, or ReLU(threshold=...)')
    return function


def _fused(identifier):
    """(clamp, None) for what the kernels apply themselves, else (None, function)."""
    function = _of_one_argument(identifier)
    for known, clamp in ((linear, ()), (relu, (0.0, math.inf)), (relu6, (0.0, 6.0))):
        if function is known:
            return clamp, None
    return None, function


def _apply(function, y):
    """Puts function(y) in y; built-in functions compute in place, a user's may return what it likes of that shape."""
    built_in = any(known is function or known is type(function) for known, _ in _registry.names.values())
    result = function(y, out=y) if built_in else np.asarray(function(y))
    if result.shape != y.shape:
        raise ValueError(f"activation returned shape {result.shape} for an array of shape {y.shape}")
    if result is not y:
        np.copyto(y, result, casting="same_kind")


def _activation(name, text, formula, pullback, *aliases, evaluate=f.at_once):
    """The activation of a formula(x, ...) with the gradient pullback(x, grad, ...), entered under its names."""

    @functools.wraps(formula)
    def activation(x, *args, out=None, **kwargs):
        return evaluate(lambda x: formula(x, *args, **kwargs), [x], out)

    def gradient(x, grad, *args, out=None, **kwargs):
        return evaluate(lambda x, grad: pullback(x, grad, *args, **kwargs), [x, grad], out)

    activation.__name__ = activation.__qualname__ = name
    activation.__module__, activation.__doc__, activation.gradient = __name__, text, gradient
    return _registry.register(*aliases)(activation)


def _elementwise(name, text, formula, slope, *aliases):
    """The activation of a formula of one element and its derivative."""

    def pullback(x, grad, *args, **kwargs):
        return grad * slope(x, *args, **kwargs)

    return _activation(name, text, formula, pullback, *aliases, evaluate=f.blockwise)


@_registry.register()
def linear(x, out=None):
    """x itself, or its copy in `out`."""
    if out is not None and out is not x:
        out[...] = x
    return x if out is None else out


linear.gradient = lambda x, grad, out=None: linear(grad, out)
relu = _elementwise(
    "relu", "min(x, max_value) if x > threshold else negative_slope * (x - threshold)", f.relu, f.relu_slope
)
relu6 = _elementwise("relu6", "min(max(x, 0), 6)", lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6))
leaky_relu = _elementwise(
    "leaky_relu",
    "x if x > 0 else negative_slope * x",
    lambda x, negative_slope=0.2: np.where(x > 0, x, negative_slope * x),
    lambda x, negative_slope=0.2: np.where(x > 0, 1, negative_slope),
)
elu = _elementwise(
    "elu",
    "x if x > 0 else alpha * (exp(x) - 1) (Clevert et al., 2016, arXiv:1511.07289)",
    lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    lambda x, alpha=1.0: np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0))),
)
celu = _elementwise(
    "celu",
    "max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1) (Barron, 2017, arXiv:1704.07483)",
    lambda x, alpha=1.0: np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0) / alpha),
    lambda x, alpha=1.0: np.exp(np.minimum(x, 0) / alpha),
)
selu = _elementwise(
    "selu",
    "1.0507 * elu(x, 1.6733), more exactly",
    lambda x: _SCALE * np.where(x > 0, x, _ALPHA * np.expm1(np.minimum(x, 0))),
    lambda x: _SCALE * np.where(x >= 0, 1, _ALPHA * np.exp(np.minimum(x, 0))),
)
sigmoid = _elementwise("sigmoid", "1 / (1 + exp(-x))", f.sigmoid, f.sigmoid_slope)
log_sigmoid = _elementwise("log_sigmoid", "log(sigmoid(x))", lambda x: -f.softplus(-x), lambda x: f.sigmoid(-x))
softplus = _elementwise("softplus", "log(1 + exp(x))", f.softplus, f.sigmoid)
silu = _elementwise("silu", "x * sigmoid(x)", lambda x: x * f.sigmoid(x), f.silu_slope, "swish")
mish = _elementwise("mish", "x * tanh(softplus(x)) (arXiv:1908.08681)", f.mish, f.mish_slope)
gelu = _elementwise("gelu", "x * P(N(0, 1) < x) (arXiv:1606.08415); `approximate`: by tanh", f.gelu, f.gelu_slope)
tanh = _elementwise("tanh", "tanh(x)", lambda x: np.tanh(x), lambda x: 4 * f.sigmoid_slope(2 * x))
tanh_shrink = _elementwise("tanh_shrink", "x - tanh(x)", lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2)
hard_tanh = _elementwise("hard_tanh", "x, but in [-1, 1]", lambda x: np.clip(x, -1, 1), lambda x: np.abs(x) <= 1)
softsign = _elementwise("softsign", "``x / (1 + |x|)``", lambda x: x / (1 + np.abs(x)), lambda x: (1 + np.abs(x)) ** -2)
exponential = _elementwise("exponential", "exp(x)", lambda x: np.exp(x), lambda x: np.exp(x))
squareplus = _elementwise("squareplus", "(x + sqrt(x**2 + b)) / 2 (arXiv:2112.11687)", f.squareplus, f.squareplus_slope)
hard_sigmoid = _elementwise(
    "hard_sigmoid", "relu6(x + 3) / 6", f.hard_sigmoid, lambda x: ((x > -3) & (x < 3)) / x.dtype.type(6)
)
hard_silu = _elementwise(
    "hard_silu",
    "x * relu6(x + 3) / 6",
    lambda x: x * f.hard_sigmoid(x),
    lambda x: np.where(np.abs(x) < 3, (2 * x + 3) / 6, x >= 3),
    "hard_swish",
)
hard_shrink = _elementwise(
    "hard_shrink",
    "``x if |x| > threshold else 0``",
    lambda x, threshold=0.5: np.where(np.abs(x) <= threshold, 0, x),
    lambda x, threshold=0.5: np.abs(x) > threshold,
)
soft_shrink = _elementwise(
    "soft_shrink",
    "x, moved towards 0 by at most `threshold`",
    lambda x, threshold=0.5: x - np.clip(x, -threshold, threshold),
    lambda x, threshold=0.5: np.abs(x) > threshold,
)
threshold = _elementwise(
    "threshold",
    "x if x > threshold else default_value",
    lambda x, threshold, default_value: np.where(x <= threshold, default_value, x),
    lambda x, threshold, default_value: x > threshold,
)
sparse_plus = _elementwise(
    "sparse_plus",
    "0 below -1, x above 1, and (x + 1)**2 / 4 between",
    lambda x: np.where(x >= 1, x, f.sparse_sigmoid(x) ** 2),
    f.sparse_sigmoid,
)
sparse_sigmoid = _elementwise(
    "sparse_sigmoid", "(x + 1) / 2, but in [0, 1]", f.sparse_sigmoid, lambda x: (np.abs(x) < 1) / 2
)
softmax = _activation("softmax", "exp(x) / sum(exp(x)) along `axis`", f.softmax, f.softmax_pullback)
log_softmax = _activation("log_softmax", "log(softmax(x)) along `axis`", f.log_softmax, f.log_softmax_pullback)
sparsemax = _activation("sparsemax", "Nearest point of the simplex along `axis`", f.sparsemax, f.sparsemax_pullback)
glu = _activation("glu", "a * sigmoid(b), where a and b are the halves of `axis`", f.glu, f.glu_pullback)


_KERAS_2_ARGUMENTS = {"alpha": "negative_slope", "theta": "threshold"}


class _ActivationLayer:
    """An activation with arguments, as ``keras.layers`` has it; of a layer's config only these arguments are read."""

    def __init__(self, *values, **arguments):
        arguments = {**self._defaults, **dict(zip(self._defaults, values, strict=False)), **arguments}
        if len(values) > len(self._defaults) or arguments.keys() != self._defaults.keys():
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._defaults)}")
        self._arguments = {name: self._check(name, value) for name, value in arguments.items()}

    @staticmethod
    def _check(name, value):
        if name == "axis":
            return axis_numbers(value)
        return value if name == "max_value" and value is None else finite_number(value, name, 0)

    @classmethod
    def from_config(cls, config):
        """The activation of a layer's config, of Keras 3 or 2."""
        names = {name: name if name in cls._defaults else _KERAS_2_ARGUMENTS.get(name) for name in config}
        return cls(**{names[name]: value for name, value in config.items() if names[name] in cls._defaults})

    def get_config(self):
        """The arguments, as JSON has them."""
        return dict(self._arguments)

    def __call__(self, x, out=None):
        return self._function(x, out=out, **self._arguments)

    def gradient(self, x, grad, out=None):
        """`grad` times the derivative at x."""
        return self._function.gradient(x, grad, out=out, **self._arguments)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._arguments.items())})"


@_registry.register(family="layers", ThresholdedReLU={"threshold": 1.0})
class ReLU(_ActivationLayer):
    """`relu` with arguments. The name "ThresholdedReLU" is Keras 2's, with a threshold (`theta`) of 1."""

    _function, _defaults = staticmethod(relu), {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}


@_registry.register(family="layers")
class LeakyReLU(_ActivationLayer):
    """`leaky_relu` with another default."""

    _function, _defaults = staticmethod(leaky_relu), {"negative_slope": 0.3}


@_registry.register(family="layers")
class ELU(_ActivationLayer):
    """`elu` with arguments."""

    _function, _defaults = staticmethod(elu), {"alpha": 1.0}


@_registry.register(family="layers")
class Softmax(_ActivationLayer):
    """`softmax` with arguments."""

    _function, _defaults = staticmethod(softmax), {"axis": -1}
