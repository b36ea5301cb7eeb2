"""The random numbers that Keras draws on TensorFlow for a seed: Philox4x32-10 and what TensorFlow makes of its words.

Written so that a seeded layer starts with Keras' weights. The uniform numbers are equal bit for bit; the normal ones up
to the last bits, for TensorFlow takes logarithm, sine and cosine from its C library. It keeps no global state, and it
is for first values of weights: no attempt is made to be faster than NumPy's generators, whose numbers are others.
"""

import math
import operator
import random

import numpy as np

from ._messages import short

_MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
_WORD = 0xFFFFFFFF


def integer_seed(seed):
    """`seed` as an int, a random one for None (drawn as Keras does); ValueError for anything else, bools included."""
    if seed is None:
        return random.randint(1, 10**9)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"`seed` must be None, an integer or a SeedGenerator. Received: seed={short(seed)}")
    return int(seed)


class SeedGenerator:
    """A seed that advances with every draw, as ``keras.random.SeedGenerator``: each use gives new numbers."""

    def __init__(self, seed=None, name=None):
        self.seed, self.name = seed if seed is None else integer_seed(seed), name
        self._state = integer_seed(seed), 0

    def __call__(self):
        """The two integers of the next seed."""
        state = self._state
        self._state = state[0], state[1] + 1
        return state

    def get_config(self):
        """The seed that it began with, not its state: as in Keras."""
        return {"seed": self.seed, "name": self.name}


def _philox(counter, key):
    """Philox4x32-10 (Salmon et al., SC 2011, doi:10.1145/2063384.2063405): four uint64 arrays of 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def _random_words(seed, blocks):
    """The 32-bit words, uint64 (..., 4), of the blocks with the numbers `blocks`, uint64 (...).

    Keras reduces both integers of a seed to int32 (keras/src/backend/tensorflow/random.py), TensorFlow scrambles them
    into a key and the upper half of a counter (tensorflow/core/kernels/stateless_random_ops.cc).
    """
    low, high = (integer % (2**31 - 2) for integer in seed)
    k0, k1, c2, c3 = _philox((low, 0, high, 0), (0x3EC8F720, 0x02461E29))
    upper = np.zeros_like(blocks)
    return np.stack(_philox((blocks & _WORD, blocks >> 32, upper + c2, upper + c3), (k0, k1)), axis=-1)


def _unit_uniform(words, dtype):
    """Numbers in [0, 1) with random mantissas from words (..., 4): (..., 4), but (..., 2) for float64."""
    bits = _MANTISSA_BITS[dtype.name]
    if bits > 32:
        words = (words[..., 0::2] << 32) | words[..., 1::2]
    return ((words & (2**bits - 1)) * 2.0**-bits).astype(dtype)


def _unit_normal(words, dtype):
    """N(0, 1) from words (..., 4), float32 (..., 4) or float64 (..., 2): the method of Box and Muller (1958).

    TensorFlow's tsl/lib/random/random_distributions_utils.h, in its precision; the functions are rounded once from
    float64, so that the bits do not depend on NumPy's vector code.
    """
    uniform = _unit_uniform(words, dtype)
    u, v = np.maximum(uniform[..., 0::2], dtype.type(1e-7)), uniform[..., 1::2]
    radius = np.sqrt(-2 * np.log(u, dtype=np.float64).astype(dtype))
    angle = (2 * np.pi * v.astype(np.float64)).astype(dtype)
    sine, cosine = (f(angle, dtype=np.float64).astype(dtype) for f in (np.sin, np.cos))
    return np.stack([sine * radius, cosine * radius], axis=-1).reshape(uniform.shape)


def _truncated_normal(seed, groups, size, dtype):
    """N(0, 1) inside (-2, 2), (groups, size): each group takes the first that fit from 64 * size blocks of its own."""
    result = np.empty((groups, size), dtype)
    pending, blocks = np.arange(groups, dtype=np.uint64), 2  # two blocks are enough for nearly every group
    while pending.size:
        numbers = pending[:, None] * (64 * size) + np.arange(blocks, dtype=np.uint64)
        normal = _unit_normal(_random_words(seed, numbers), dtype).reshape(len(pending), -1)
        inside = np.abs(normal) < 2
        first = np.argsort(~inside, axis=1, kind="stable")[:, :size]
        done = inside.sum(axis=1) >= size
        result[pending[done]] = np.take_along_axis(normal, first, axis=1)[done]
        pending, blocks = pending[~done], 4 * blocks
    return result


def sample(distribution, shape, dtype, seed, a, b):
    """Random numbers, in the order in which TensorFlow fills a tensor, each step rounded to `dtype`.

    Parameters
    ----------
    distribution : {"uniform", "normal", "truncated_normal"}
        Uniform on [a, b); normal with mean a and standard deviation b; the same, redrawn until inside (a - 2b, a + 2b).
    shape : sequence of int
        ValueError if one is negative, TypeError if one is no integer.
    dtype : dtype-like or None
        float16, bfloat16, float32 (None) or float64, else TypeError; 16-bit normal numbers are float32 ones, rounded.
    seed : int or SeedGenerator
    a, b : float

    Returns
    -------
    np.ndarray of that shape and dtype
    """
    shape, dtype = tuple(map(operator.index, shape)), np.dtype(np.float32 if dtype is None else dtype)
    if min(shape, default=0) < 0:
        raise ValueError(f"`shape` must not have negative sizes. Received: shape={shape}")
    if dtype.name not in _MANTISSA_BITS:
        raise TypeError(f"Random weights are {', '.join(_MANTISSA_BITS)}. Received: dtype={dtype}")
    seed = (seed, 0) if isinstance(seed, int) else seed()
    wide = np.dtype(np.float32) if dtype.itemsize == 2 and distribution != "uniform" else dtype
    count, size = math.prod(shape), 2 if wide.itemsize == 8 else 4
    groups = -(-count // size)
    if distribution == "truncated_normal":
        values = _truncated_normal(seed, groups, size, wide)
    else:
        words = _random_words(seed, np.arange(groups, dtype=np.uint64))
        values = _unit_uniform(words, wide) if distribution == "uniform" else _unit_normal(words, wide)
    values = values.reshape(-1)[:count].reshape(shape).astype(dtype, copy=False)
    if distribution == "uniform":
        a, b = np.array([a, b], np.float32).astype(dtype)  # the way that Keras takes
        b = b - a
    return np.asarray(values * dtype.type(b) + dtype.type(a))
