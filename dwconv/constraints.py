"""Constraints: projections of a weight onto the values that it may have, as in ``keras.constraints``.

``constraint(w)`` returns an array of w's shape and dtype and leaves `w` alone. Names, arguments, defaults and configs
are Keras'; `RadialConstraint` is Keras 2's. Norms run over `axis`, one or several: Keras' default 0 is the height of a
depthwise kernel (kh, kw, C, M), ``[0, 1]`` makes a norm for each filter. 16-bit weights are computed in float32.
"""

import numpy as np

from ._arrays import axis_numbers
from ._registry import Registry, finite_number

_registry = Registry("constraint", "constraints")
get, deserialize, serialize = _registry.get, _registry.deserialize, _registry.serialize

_EPSILON = 1e-7  # keras.config.epsilon(): a weight of norm 0 stays 0


def _rescale(w, axis, wanted):
    """`w`, with each norm over `axis` changed to ``wanted(norm)``: w * wanted(norm) / (epsilon + norm)."""
    w = np.asarray(w)
    wide = w.astype(np.float32) if w.dtype.itemsize < 4 else w
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.sqrt(np.sum(np.square(wide), axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=True))
        return (wide * (wanted(norm) / (_EPSILON + norm))).astype(w.dtype, copy=False)


@_registry.register("constraint")
class Constraint:
    """Base class, and the constraint that changes nothing: a subclass has ``__call__(self, w)`` and `get_config`."""

    def __call__(self, w):
        """The weight that is allowed, an array of the same shape and dtype."""
        return w

    def get_config(self):
        """The constructor's arguments, as JSON has them."""
        return {}

    @classmethod
    def from_config(cls, config):
        """The constraint that `get_config` described."""
        return cls(**config)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"


@_registry.register("max_norm", "maxnorm")
class MaxNorm(Constraint):
    """Norms of at most `max_value`."""

    def __init__(self, max_value=2, axis=0):
        self.max_value, self.axis = finite_number(max_value, "max_value"), axis_numbers(axis)

    def __call__(self, w):
        return _rescale(w, self.axis, lambda norm: np.clip(norm, 0, self.max_value))

    def get_config(self):
        return {"max_value": self.max_value, "axis": self.axis}


@_registry.register("min_max_norm")
class MinMaxNorm(Constraint):
    """Norms moved by the fraction `rate` of the way into [min_value, max_value]."""

    def __init__(self, min_value=0.0, max_value=1.0, rate=1.0, axis=0):
        self.min_value, self.max_value = finite_number(min_value, "min_value"), finite_number(max_value, "max_value")
        self.rate, self.axis = finite_number(rate, "rate"), axis_numbers(axis)

    def __call__(self, w):
        def wanted(norm):
            return self.rate * np.clip(norm, self.min_value, self.max_value) + (1 - self.rate) * norm

        return _rescale(w, self.axis, wanted)

    def get_config(self):
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


@_registry.register("unit_norm", "unitnorm")
class UnitNorm(Constraint):
    """Norms of 1."""

    def __init__(self, axis=0):
        self.axis = axis_numbers(axis)

    def __call__(self, w):
        return _rescale(w, self.axis, np.ones_like)

    def get_config(self):
        return {"axis": self.axis}


@_registry.register("non_neg", "nonneg")
class NonNeg(Constraint):
    """No value below 0; NaN stays NaN."""

    def __call__(self, w):
        return np.maximum(w, 0, dtype=np.asarray(w).dtype)


@_registry.register("radial_constraint")
class RadialConstraint(Constraint):
    """Each (k, k) filter of a kernel (k, k, C, M) constant on the square rings around its centre.

    A ring takes the value that the filter has on its diagonal, below and right of the centre; the innermost ring takes
    the one above and left (Keras 2's ``RadialConstraint``; Keras 3 has none). ValueError for any other shape.
    """

    def __call__(self, w):
        w = np.asarray(w)
        if w.ndim != 4 or w.shape[0] != w.shape[1]:
            raise ValueError(f"The weight must be a kernel of shape (k, k, C, M). Received: shape {w.shape}")
        size = w.shape[0]
        distance = np.abs(np.arange(size) - (size - 1) / 2).astype(int)
        ring = np.maximum.outer(distance, distance)  # 0 in the centre
        diagonal = size // 2 + ring - (1 if size % 2 else ring == 0)
        return w[diagonal, diagonal]


# Keras exports the classes under these names too.
max_norm, min_max_norm, unit_norm, non_neg = MaxNorm, MinMaxNorm, UnitNorm, NonNeg
