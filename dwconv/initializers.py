"""Initializers: the first values of a layer's weights, as in ``keras.initializers``.

``initializer(shape, dtype=np.float32)`` returns a new array. Names, arguments, defaults and configs are Keras'. `seed`
is None, an integer or a `SeedGenerator`: an integer draws what Keras draws on TensorFlow, in every call; None draws one
integer when the object is made. Not here: `STFT`, which makes kernels of rank 3 only. Nothing is broadcast.
"""

import math
import operator

import numpy as np

from ._messages import short
from ._philox import SeedGenerator, integer_seed, sample
from ._registry import Registry, finite_number

_registry = Registry("initializer", "initializers")
_seeds = Registry("seed", "random")
_seeds.register()(SeedGenerator)
_MODES, _DISTRIBUTIONS = ("fan_in", "fan_out", "fan_avg"), ("truncated_normal", "untruncated_normal", "uniform")
deserialize, serialize = _registry.deserialize, _registry.serialize


def get(identifier):
    """The initializer for None (None), a name, a dict, an array (its values), a class, an instance or a callable."""
    return Constant(identifier) if isinstance(identifier, np.ndarray | np.generic) else _registry.get(identifier)


def compute_fans(shape, input_axes=None, output_axes=None):
    """(fan_in, fan_out) as Keras counts them: a kernel (kh, kw, C, M) has kh*kw*C and kh*kw*M, depthwise or not."""
    if input_axes is None or output_axes is None:
        return math.prod(shape[:-1] or shape), math.prod(shape[:-2]) * math.prod(shape[-1:])
    if not all(-len(shape) <= axis < len(shape) for axis in (*input_axes, *output_axes)):
        raise ValueError(f"Axes {short(input_axes)} and {short(output_axes)} are not all of the {len(shape)} of a shape")
    return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)


@_registry.register("initializer")
class Initializer:
    """Base class: a subclass has ``__call__(self, shape, dtype=None)`` and, if it has arguments, `get_config`."""

    _arguments = ()  # of the constructor, in the order of Keras' configs

    def __call__(self, shape, dtype=None):
        """A new array of `shape` and `dtype`, which is float32 by default."""
        raise NotImplementedError(f"{type(self).__name__} does not implement __call__(shape, dtype)")

    def get_config(self):
        """The constructor's arguments, as JSON has them."""
        config = {name: getattr(self, name) for name in self._arguments}
        return {k: _seeds.serialize(v) if isinstance(v, SeedGenerator) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config):
        """The initializer that `get_config` described; Keras 2 also wrote a dtype, which is for the call to say."""
        return cls(**{name: value for name, value in config.items() if name != "dtype"})

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"


@_registry.register("constant", "ConstantV2")
class Constant(Initializer):
    """`value` everywhere: a number, or an array or nested list of the shape asked for."""

    def __init__(self, value=0.0):
        if isinstance(value, dict):  # Keras writes an array so
            dtype = np.dtype(value["config"]["dtype"])
            value = np.array(value["config"]["value"], dtype if dtype.kind in "biuf" else None)
        value = np.array(value)
        self.value = value.astype(np.float32) if value.dtype.name == "bfloat16" else value  # which JSON has no name for
        if self.value.dtype.kind not in "biuf":
            raise ValueError(f"`value` must be real numbers. Received: {short(value)}")

    def __call__(self, shape, dtype=None):
        if self.value.ndim and self.value.shape != tuple(shape):
            raise ValueError(f"The initial values have shape {self.value.shape}. Received: shape={tuple(shape)}")
        return np.full(shape, self.value, np.float32 if dtype is None else dtype)

    def get_config(self):
        array = {"value": self.value.tolist(), "dtype": self.value.dtype.name}
        return {"value": {"class_name": "__numpy__", "config": array} if self.value.ndim else array["value"]}


@_registry.register("zeros", "zero", "ZerosV2")
class Zeros(Initializer):
    """0 everywhere."""

    def __call__(self, shape, dtype=None):
        return np.zeros(shape, np.float32 if dtype is None else dtype)


@_registry.register("ones", "one", "OnesV2")
class Ones(Initializer):
    """1 everywhere."""

    def __call__(self, shape, dtype=None):
        return np.ones(shape, np.float32 if dtype is None else dtype)


@_registry.register("identity", "IdentityInitializer", "IdentityV2")
class Identity(Initializer):
    """`gain` times the identity matrix: rank 2 only, as in Keras, hence never a depthwise kernel."""

    _arguments = ("gain",)

    def __init__(self, gain=1.0):
        self.gain = finite_number(gain, "gain")

    def __call__(self, shape, dtype=None):
        if len(shape) != 2:
            raise ValueError(f"Identity matrix initializer can only be used for 2D matrices. Received: shape={shape}")
        return (self.gain * np.eye(*shape)).astype(np.float32 if dtype is None else dtype)


class _RandomInitializer(Initializer):
    def __init__(self, seed=None):
        seed = _seeds.get(seed) if isinstance(seed, dict) else seed
        self.seed = seed if seed is None or isinstance(seed, SeedGenerator) else integer_seed(seed)
        self._source = integer_seed(None) if seed is None else self.seed


@_registry.register("random_uniform", "uniform", "RandomUniformV2")
class RandomUniform(_RandomInitializer):
    """Uniform on [minval, maxval)."""

    _arguments = ("seed", "minval", "maxval")

    def __init__(self, minval=-0.05, maxval=0.05, seed=None):
        self.minval, self.maxval = finite_number(minval, "minval"), finite_number(maxval, "maxval")
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        return sample("uniform", shape, dtype, self._source, self.minval, self.maxval)


@_registry.register("random_normal", "normal", "RandomNormalV2")
class RandomNormal(_RandomInitializer):
    """N(mean, stddev)."""

    _arguments = ("seed", "mean", "stddev")
    _distribution = "normal"

    def __init__(self, mean=0.0, stddev=0.05, seed=None):
        self.mean, self.stddev = finite_number(mean, "mean"), finite_number(stddev, "stddev")
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        return sample(self._distribution, shape, dtype, self._source, self.mean, self.stddev)


@_registry.register("truncated_normal", "TruncatedNormalV2")
class TruncatedNormal(RandomNormal):
    """N(mean, stddev) redrawn until within two `stddev` of `mean`: its standard deviation is 0.88 `stddev`."""

    _distribution = "truncated_normal"


@_registry.register("variance_scaling", "VarianceScalingV2")
class VarianceScaling(_RandomInitializer):
    """Mean 0 and variance `scale` / n, where n is the fan that `mode` names, at least 1.

    `mode` is "fan_in", "fan_out" or "fan_avg", `distribution` "truncated_normal" (or "normal"), "untruncated_normal" or
    "uniform"; `input_axes` and `output_axes` go to `compute_fans`: [0, 1] and [0, 1, 3] suit a depthwise kernel.
    """

    _arguments = ("seed", "scale", "mode", "distribution", "input_axes", "output_axes")

    def __init__(self, scale=1.0, mode="fan_in", distribution="truncated_normal", seed=None, input_axes=None, output_axes=None):
        distribution = {"normal": "truncated_normal"}.get(str(distribution).lower(), str(distribution).lower())
        for value, known in (mode, _MODES), (distribution, _DISTRIBUTIONS):
            if value not in known:
                raise ValueError(f"Expected one of {', '.join(known)}. Received: {short(value)}")
        self.scale, self.mode, self.distribution = finite_number(scale, "scale", 5e-324), mode, distribution
        self.input_axes, self.output_axes = (a if a is None else [*map(operator.index, a)] for a in (input_axes, output_axes))
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        variance = self.scale / max(1.0, {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode])
        if self.distribution == "uniform":
            return sample("uniform", shape, dtype, self._source, -math.sqrt(3 * variance), math.sqrt(3 * variance))
        name, factor = ("normal", 1.0) if self.distribution != "truncated_normal" else (self.distribution, 0.87962566103423978)
        return sample(name, shape, dtype, self._source, 0.0, math.sqrt(variance) / factor)


class _Preset(VarianceScaling):  # its subclasses have their settings in their heads
    _arguments = ("seed", "input_axes", "output_axes")

    def __init_subclass__(cls, **settings):
        cls._settings = settings or cls._settings

    def __init__(self, seed=None, input_axes=None, output_axes=None):
        super().__init__(**self._settings, seed=seed, input_axes=input_axes, output_axes=output_axes)


@_registry.register("glorot_uniform", "GlorotUniformV2", "glorot_uniformV2")
class GlorotUniform(_Preset, mode="fan_avg", distribution="uniform"):
    """Uniform within sqrt(6 / (fan_in + fan_out)) of 0 (Glorot and Bengio, AISTATS 2010)."""


@_registry.register("glorot_normal", "GlorotNormalV2", "glorot_normalV2")
class GlorotNormal(_Preset, mode="fan_avg"):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio, AISTATS 2010)."""


@_registry.register("lecun_uniform", "LecunUniformV2", "lecun_uniformV2")
class LecunUniform(_Preset, distribution="uniform"):
    """Uniform within sqrt(3 / fan_in) of 0 (LeCun et al., Efficient BackProp, 1998)."""


@_registry.register("lecun_normal", "LecunNormalV2", "lecun_normalV2")
class LecunNormal(_Preset, mode="fan_in"):
    """Truncated normal of variance 1 / fan_in (LeCun et al., Efficient BackProp, 1998)."""


@_registry.register("he_uniform", "HeUniformV2", "he_uniformV2")
class HeUniform(_Preset, scale=2.0, distribution="uniform"):
    """Uniform within sqrt(6 / fan_in) of 0 (He et al., ICCV 2015)."""


@_registry.register("he_normal", "HeNormalV2", "he_normalV2")
class HeNormal(_Preset, scale=2.0):
    """Truncated normal of variance 2 / fan_in (He et al., ICCV 2015)."""


@_registry.register("orthogonal", "OrthogonalInitializer", "OrthogonalV2")
class Orthogonal(_RandomInitializer):
    """`gain` times orthonormal columns, or rows if fewer, of (prod(shape[:-1]), shape[-1]) (Saxe et al., ICLR 2014)."""

    _arguments = ("seed", "gain")

    def __init__(self, gain=1.0, seed=None):
        self.gain = finite_number(gain, "gain")
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise ValueError(f"The tensor to initialize must be at least two-dimensional. Received: shape={shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        normal = sample("normal", (max(rows, columns), min(rows, columns)), dtype, self._source, 0.0, 1.0)
        q, r = np.linalg.qr(normal.astype(np.float64))
        q *= np.sign(np.diag(r))  # makes the decomposition unique, and its distribution uniform
        return (self.gain * (q if rows >= columns else q.T)).reshape(shape).astype(normal.dtype)


constant, zeros, ones, identity, orthogonal = Constant, Zeros, Ones, Identity, Orthogonal  # Keras has these names too
random_uniform, random_normal, truncated_normal = RandomUniform, RandomNormal, TruncatedNormal
variance_scaling, glorot_uniform, glorot_normal = VarianceScaling, GlorotUniform, GlorotNormal
lecun_uniform, lecun_normal, he_uniform, he_normal = LecunUniform, LecunNormal, HeUniform, HeNormal
