"""`dwconv.dask`: the bits of the NumPy call for any chunks, its errors, laziness, three schedulers, less memory than the array.

The NumPy call is the reference here, and it is compared with the oracle elsewhere.
"""

import os
import pathlib
import pickle
import re
import subprocess
import sys
import unittest.mock

import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import oracle
import pytest

import dwconv
from dwconv import activations

da = pytest.importorskip("dask.array", reason="needs the extra `dask`")
dask = pytest.importorskip("dask")

from dwconv.dask import depthwise_conv2d  # noqa: E402

X, KERNEL, BIAS = oracle.integers((2, 9, 8, 3), 1), oracle.integers((3, 3, 3, 2), 2), oracle.integers((6,), 3)
CHUNKS = ((1, 1), (4, 1, 4), (3, 5), (2, 1))
LAZY = da.from_array(X, CHUNKS)


def check(lazy, arrays, options, scheduler="sync"):
    """`lazy` computes to what the NumPy call returns: the same bits, dtype and shape, which were known before."""
    expected = dwconv.depthwise_conv2d(*arrays, **options)
    assert (lazy.shape, lazy.dtype, lazy._meta.dtype) == (expected.shape, expected.dtype, expected.dtype)
    got = lazy.compute(scheduler=scheduler)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == expected.tobytes()


# ---- bits ----

@st.composite
def chunked(draw, size):
    """Chunks of an axis: any, some of them empty, as dask allows."""
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=4)))
    return tuple(int(n) for n in np.diff([0, *cuts, size]))


DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.uint8]
ACTIVATIONS = [None, "relu", "relu6", "tanh", "gelu", "softmax", "sparsemax", activations.Softmax(axis=1),
               activations.Softmax([1, -1]), activations.LeakyReLU(0.1), np.negative]


@hypothesis.settings(max_examples=100)
@hypothesis.given(st.data())
def test_any_chunks(data):
    """Shapes, options, dtypes and chunks of every argument at random, chunks smaller than the halo or than a stride included."""
    draw = data.draw
    n, h, w, c, m = (draw(st.integers(low, high)) for low, high in ((0, 3), (1, 12), (1, 12), (1, 6), (1, 3)))
    kernel_size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides, dilation = (draw(st.tuples(st.integers(1, 4), st.integers(1, 3))) for _ in range(2))
    pads = st.tuples(st.integers(0, 9), st.integers(0, 9))
    padding = draw(st.sampled_from(["same", "valid"]) | st.integers(0, 5) | pads | st.tuples(pads, pads))
    first, single = draw(st.booleans()), draw(st.booleans())
    options = {"strides": strides, "dilation_rate": dilation, "padding": padding,
               "data_format": "channels_first" if first else "channels_last", "activation": draw(st.sampled_from(ACTIVATIONS))}

    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = ((n, c, h, w) if first else (n, h, w, c))[single:]
    x = (rng.normal(size=shape) * 9).astype(draw(st.sampled_from(DTYPES)))
    kernel = rng.normal(size=(*kernel_size, c, m)).astype(draw(st.sampled_from(DTYPES[:4])))
    kernel = kernel[(...,) + (0,) * draw(st.integers(0, 2))]
    channels = c * (m if kernel.ndim == 4 else 1)
    bias = draw(st.none() | st.just(rng.normal(size=channels).astype(kernel.dtype)))
    lazy = [a if a is None or (a is not x and draw(st.booleans())) else da.from_array(a, tuple(draw(chunked(k)) for k in a.shape))
            for a in (x, kernel, bias)]
    try:
        dwconv.depthwise_conv2d(x, kernel, bias, **options)
    except (ValueError, TypeError) as error:  # larger than the image, or two dtypes without a common one: the same words
        with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
            depthwise_conv2d(*lazy, **options)
    else:
        check(depthwise_conv2d(*lazy, **options), (x, kernel, bias), options)


@pytest.mark.parametrize("activation", sorted(name for name in activations._registry.names if name not in ("glu", "threshold")))
def test_activations(activation):
    options = {"activation": activation, "padding": 2}
    check(depthwise_conv2d(LAZY, KERNEL / 9, **options), (X, KERNEL / 9), options)


def test_special_numbers():
    """NaN and Inf reach the outputs that cover them, across seams and not into the padding, whatever the weight."""
    x = X.copy()
    x[0, 4, 3, 0], x[1, 0, 0, 1], x[1, 8, 7, 2] = np.nan, np.inf, -np.inf
    kernel = KERNEL.copy()
    kernel[0, 0], kernel[2, 2, 1] = 0, np.inf
    expected = dwconv.depthwise_conv2d(x, kernel, padding="same")
    got = depthwise_conv2d(da.from_array(x, CHUNKS), kernel, padding="same").compute(scheduler="sync")
    np.testing.assert_array_equal(got, expected)  # signs of NaN are not compared
    assert np.isnan(got).any()
    assert np.isinf(got).any()


@pytest.mark.parametrize("options", [
    {"strides": 2**63 - 1, "padding": 3}, {"strides": (2**31 - 1, 1), "padding": ((2**31 - 1,) * 2, (0, 0))},
    {"padding": ((0, 40), (30, 0)), "strides": 5}, {"dilation_rate": (2, 1), "padding": "same", "strides": (1, 7)},
], ids=str)
def test_far_windows(options):
    """Windows that lie in the padding alone, or beyond the image."""
    check(depthwise_conv2d(LAZY, KERNEL, BIAS, **options), (X, KERNEL, BIAS), options)


def test_images_without_pixels():
    for shape in ((0, 9, 8, 3), (2, 0, 8, 3), (2, 0, 0, 3)):
        for padding in ("same", 2):
            options = {"padding": padding, "activation": "relu"}
            check(depthwise_conv2d(da.zeros(shape), KERNEL, BIAS, **options), (np.zeros(shape), KERNEL, BIAS), options)


# ---- the graph ----

def test_chunks():
    """Chunks follow x's: the same for "same", halved by strides, multiplied along channels."""
    assert depthwise_conv2d(LAZY, KERNEL, padding="same").chunks == ((1, 1), (4, 1, 4), (3, 5), (4, 2))
    assert depthwise_conv2d(LAZY, KERNEL).chunks == ((1, 1), (3, 1, 3), (2, 4), (4, 2))
    x = da.zeros((1, 224, 224, 3), chunks=(1, 32, -1, -1))
    assert depthwise_conv2d(x, np.ones((3, 3)), strides=2, padding="same").chunks == ((1,), (16,) * 7, (112,), (3,))
    assert depthwise_conv2d(LAZY, KERNEL, activation="softmax", padding="same").chunks == ((1, 1), (4, 1, 4), (3, 5), (6,))


def test_size_of_the_graph():
    """One task a block, and the cuts where windows cross seams: two a seam."""
    x = da.zeros((100, 1000, 10, 4), chunks=(1, 100, -1, -1))
    added = len(dict(depthwise_conv2d(x, np.ones((5, 5)), padding="same").__dask_graph__())) - len(dict(x.__dask_graph__()))
    assert added == 1000 + 1800 + 1


def test_nothing_is_computed_early():
    def fail(block):
        raise AssertionError("computed")

    x = da.from_array(X, CHUNKS).map_blocks(fail, dtype=float, meta=np.empty((0,) * 4))
    kernel = da.from_array(KERNEL).map_blocks(fail, dtype=float, meta=np.empty((0,) * 4))
    y = depthwise_conv2d(x, kernel, padding="same", strides=2, activation=fail)
    with pytest.raises(AssertionError, match="computed"):
        y.compute(scheduler="sync")


def test_only_what_is_needed():
    """A corner of the result needs the chunks that its block's windows reach and no others."""
    read = []

    def watched(block, block_info=None):
        read.append(tuple(block_info[0]["chunk-location"]))
        return block

    x = da.from_array(X, CHUNKS).map_blocks(watched, dtype=float, meta=np.empty((0,) * 4))
    depthwise_conv2d(x, KERNEL, padding="same")[0, :3, 7, 0].compute(scheduler="sync")
    assert sorted(read) == [(0, 0, 0, 0), (0, 0, 1, 0), (0, 1, 0, 0), (0, 1, 1, 0)]


def test_names_are_deterministic():
    """Equal calls have equal names, however the options are spelled; different calls have not."""
    name = depthwise_conv2d(LAZY, KERNEL, padding="same").name
    assert depthwise_conv2d(LAZY, KERNEL.copy(), padding="SAME", strides=[1, 1], dilation_rate=np.int64(1)).name == name
    others = [{"padding": "valid"}, {"padding": ((1, 1), (1, 0))}, {"activation": "relu"}, {"bias": BIAS}, {"kernel": KERNEL + 1}]
    names = {depthwise_conv2d(LAZY, **{"kernel": KERNEL, "padding": "same", **other}).name for other in others}
    assert len(names - {name}) == len(others)


def test_kernel_changed_afterwards():
    kernel, bias = KERNEL.copy(), BIAS.copy()
    y = depthwise_conv2d(LAZY, kernel, bias)
    kernel[:], bias[:] = 0, 0
    check(y, (X, KERNEL, BIAS), {})


# ---- what is refused, while the graph is made ----

@pytest.mark.parametrize(("changes", "error", "words"), [
    ({"x": X}, TypeError, ["dask array", "ndarray", "dwconv.depthwise_conv2d"]),
    ({"x": LAZY[0, 0]}, ValueError, ["4 dimensions", "(8, 3)"]),
    ({"x": LAZY[LAZY[:, 0, 0, 0] > 0]}, ValueError, ["unknown size", "compute_chunk_sizes"]),
    ({"x": da.ma.masked_equal(LAZY, 1)}, TypeError, ["x must be", "MaskedArray"]),
    ({"x": LAZY.astype(complex)}, TypeError, ["complex128"]),
    ({"x": LAZY.astype(int), "kernel": KERNEL.astype(int), "bias": None}, TypeError, ["int64"]),
    ({"kernel": da.ones((3, 3, 4, 2))}, ValueError, ["3 channels", "4"]),
    ({"kernel": da.ma.masked_equal(da.from_array(KERNEL), 1)}, TypeError, ["kernel must be", "MaskedArray"]),
    ({"kernel": np.ma.masked_equal(KERNEL, 1)}, TypeError, ["kernel must not be a MaskedArray"]),
    ({"bias": da.ones(5)}, ValueError, ["bias must have shape (6,)", "(5,)"]),
    ({"bias": None, "activation": "glu"}, ValueError, ["glu"]),
    ({"activation": "nothing"}, ValueError, ["nothing"]),
    ({"strides": 0}, ValueError, ["at least 1", "got 0"]),
    ({"strides": 2.0}, TypeError, ["2.0"]),
    ({"padding": "full"}, ValueError, ["full"]),
    ({"data_format": "NHWC"}, ValueError, ["NHWC"]),
    ({"data_format": None}, TypeError, ["data_format"]),
    ({"workers": 2}, TypeError, ["workers"]),
    ({"out": LAZY}, TypeError, ["out"]),
], ids=lambda value: ", ".join(value) if isinstance(value, dict) else "")
def test_refused(changes, error, words):
    with pytest.raises(error) as caught:
        depthwise_conv2d(**{"x": LAZY, "kernel": KERNEL, "bias": BIAS, **changes})
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)
    if error is ValueError and "x" not in changes:  # and in the words of the NumPy call
        arrays = {name: np.asarray(a) if isinstance(a, da.Array) else a for name, a in changes.items()}
        with pytest.raises(ValueError, match=f"^{re.escape(str(caught.value))}$"):
            dwconv.depthwise_conv2d(X, **{"kernel": KERNEL, "bias": BIAS, **arrays})


# ---- schedulers ----

def halved(y):
    return y / 2


OPTIONS = {"strides": (2, 1), "padding": "same", "activation": halved}


def test_threads(monkeypatch):
    """Eight threads at once, each block with one worker."""
    seen, call = set(), dwconv.functional.depthwise_conv2d

    def watched(*args, **kwargs):
        seen.add(kwargs["workers"])
        return call(*args, **kwargs)

    x = np.random.default_rng(0).normal(size=(8, 64, 64, 16)).astype(np.float32)
    kernel = KERNEL[:, :, 0, 0].astype(np.float32)
    y = depthwise_conv2d(da.from_array(x, (3, 7, 30, 5)), kernel, padding="same")
    monkeypatch.setattr(dwconv.functional, "depthwise_conv2d", watched)
    with dask.config.set(num_workers=8):
        got = y.compute(scheduler="threads")
    assert got.tobytes() == call(x, kernel, padding="same").tobytes()
    assert seen == {1}


@pytest.mark.timeout(120)
def test_other_processes():
    """A graph is data: it is pickled and computed in processes that know nothing of this one."""
    y = depthwise_conv2d(LAZY, KERNEL, BIAS, **{**OPTIONS, "activation": "softmax"})
    check(pickle.loads(pickle.dumps(y)), (X, KERNEL, BIAS), {**OPTIONS, "activation": "softmax"})
    with dask.config.set(num_workers=1):
        check(y, (X, KERNEL, BIAS), {**OPTIONS, "activation": "softmax"}, scheduler="processes")


@pytest.mark.timeout(120)
def test_distributed():
    """A LocalCluster of two processes; the array is made where it is needed."""
    distributed = pytest.importorskip("dask.distributed")
    with (
        unittest.mock.patch.dict(os.environ),  # the cluster sets OMP_NUM_THREADS and more, for later tests too
        dask.config.set({"distributed.comm.timeouts.connect": "60s", "distributed.admin.tick.limit": "60s"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster, timeout=60) as client,
    ):
        y = depthwise_conv2d(LAZY, da.from_array(KERNEL, (1, 3, 2, 1)), BIAS, **OPTIONS)
        check(y, (X, KERNEL, BIAS), OPTIONS, scheduler=client)


# ---- memory ----

@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of memory that the system enforces")
def test_larger_than_memory(monkeypatch):
    """The example sets the limit itself: the same bits as NumPy's, in less memory than the array has."""
    example = pathlib.Path(__file__).parents[1] / "examples" / "larger_than_memory.py"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # whose stacks and buffers count, on a large machine
    done = subprocess.run([sys.executable, example, "--gigabytes", "0.6", "--limit", "0.45"],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-1000:]
    array, peak = map(float, re.search(r"([\d.]+) GB filtered .* peak of ([\d.]+) GB", done.stdout).groups())
    assert peak <= 0.45 < 0.6 <= array
    assert re.search(r"(\d+) of \1 blocks have NumPy's bits", done.stdout)
