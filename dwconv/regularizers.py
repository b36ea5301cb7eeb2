"""Regularizers: penalties on a weight or an output, as in ``keras.regularizers``.

``regularizer(x)`` returns a float, summed in float64 whatever x is; ``regularizer.gradient(x)`` returns the derivative,
an array of x's shape and dtype (where a penalty has a kink, 0 as in TensorFlow). Names, arguments, defaults and configs
are Keras'. Factors are finite and not negative, as in Keras 3: ValueError otherwise.
"""

import numpy as np

from ._registry import Registry, finite_number

_registry = Registry("regularizer", "regularizers")
get, deserialize, serialize = _registry.get, _registry.deserialize, _registry.serialize


def gradient(regularizer):
    """The function x -> gradient of a regularizer: its attribute `gradient`; ValueError for a callable without one."""
    function = getattr(regularizer, "gradient", None)
    if not callable(function):
        raise ValueError(f"{regularizer!r:.80} has no gradient: give it a function gradient(x) as an attribute")
    return function


def _total(x, function):
    """The sum of ``function(x)`` in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sum(function(np.asarray(x), dtype=np.float64)))


@_registry.register("regularizer")
class Regularizer:
    """Base class, and the penalty 0: a subclass has ``__call__(self, x)``, `get_config` and, to train, `gradient`."""

    def __call__(self, x):
        """The penalty, a float."""
        return 0.0

    def get_config(self):
        """The constructor's arguments, as JSON has them."""
        raise NotImplementedError(f"{type(self).__name__} does not implement get_config()")

    @classmethod
    def from_config(cls, config):
        """The regularizer that `get_config` described."""
        return cls(**config)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


@_registry.register("l1l2", l1_l2={"l1": 0.01, "l2": 0.01})
class L1L2(Regularizer):
    """``l1 * sum(|x|) + l2 * sum(x**2)``. The name "l1_l2" stands for 0.01 and 0.01, as in Keras 2."""

    def __init__(self, l1=0.0, l2=0.0):
        self.l1 = float(finite_number(0.0 if l1 is None else l1, "l1", 0))
        self.l2 = float(finite_number(0.0 if l2 is None else l2, "l2", 0))

    def __call__(self, x):
        # A factor of 0 takes its sum away, even an infinite one.
        l1 = self.l1 * _total(x, np.abs) if self.l1 else 0.0
        return l1 + self.l2 * _total(x, np.square) if self.l2 else l1

    def gradient(self, x):
        """``l1 * sign(x) + 2 * l2 * x``."""
        x = np.asarray(x)
        return (self.l1 * np.sign(x) + 2 * self.l2 * x).astype(x.dtype, copy=False)

    def get_config(self):
        return {"l1": self.l1, "l2": self.l2}


@_registry.register("l1")
class L1(Regularizer):
    """``l1 * sum(|x|)``."""

    def __init__(self, l1=0.01):
        self.l1 = float(finite_number(0.01 if l1 is None else l1, "l1", 0))

    def __call__(self, x):
        return self.l1 * _total(x, np.abs)

    def gradient(self, x):
        """``l1 * sign(x)``."""
        x = np.asarray(x)
        return (self.l1 * np.sign(x)).astype(x.dtype, copy=False)

    def get_config(self):
        return {"l1": self.l1}


@_registry.register("l2")
class L2(Regularizer):
    """``l2 * sum(x**2)``."""

    def __init__(self, l2=0.01):
        self.l2 = float(finite_number(0.01 if l2 is None else l2, "l2", 0))

    def __call__(self, x):
        return self.l2 * _total(x, np.square)

    def gradient(self, x):
        """``2 * l2 * x``."""
        x = np.asarray(x)
        return (2 * self.l2 * x).astype(x.dtype, copy=False)

    def get_config(self):
        return {"l2": self.l2}


@_registry.register("orthogonal_regularizer")
class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean absolute cosine between two rows (or columns: `mode`) of a matrix, halved as in Keras.

    Rank 2 only, as in Keras, so never a depthwise kernel: ValueError. One row alone has the penalty 0 (Keras: NaN).
    """

    def __init__(self, factor=0.01, mode="rows"):
        self.factor = float(finite_number(factor, "factor", 0))
        if mode not in ("rows", "columns"):
            raise ValueError(f"`mode` must be 'rows' or 'columns'. Received: mode={mode!r:.80}")
        self.mode = mode

    def _cosines(self, x):
        """The unit rows n of x (or of its transpose), their norms, and n @ n.T with a diagonal of 0, in float64."""
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2:
            raise ValueError(f"Inputs to OrthogonalRegularizer must have rank 2. Received: inputs.shape={x.shape}")
        x = x if self.mode == "rows" else x.T
        norms = np.maximum(np.sqrt(np.sum(x * x, axis=1, keepdims=True)), 1e-12)  # a row of zeros stays one
        rows = x / norms
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, 0.0)
        return rows, norms, cosines

    def _scale(self, count):
        return self.factor * 0.5 / max(count * (count - 1) / 2, 1)

    def __call__(self, x):
        _, _, cosines = self._cosines(x)
        return self._scale(len(cosines)) * float(np.sum(np.abs(cosines)))

    def gradient(self, x):
        """The chain rule through rows = x / norms: what lies along a row does not change its direction."""
        rows, norms, cosines = self._cosines(x)
        d_rows = 2 * self._scale(len(cosines)) * np.sign(cosines) @ rows
        d_x = (d_rows - rows * np.sum(d_rows * rows, axis=1, keepdims=True)) / norms
        return (d_x if self.mode == "rows" else d_x.T).astype(np.asarray(x).dtype, copy=False)

    def get_config(self):
        return {"factor": self.factor, "mode": self.mode}


def l1_l2(l1=0.01, l2=0.01):
    """``L1L2(l1, l2)`` with Keras 2's defaults."""
    return L1L2(l1, l2)


l1, l2, orthogonal_regularizer = L1, L2, OrthogonalRegularizer  # Keras exports the classes under these names too
