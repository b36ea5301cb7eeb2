"""Arrays that are not NumPy's own, as inputs: what DLPack alone gives, torch tensors, xarray, memory maps, zarr-like arrays.

They are read where they lie and never changed; the result is always a NumPy array.  What must be refused is in
test_functional.py, dask arrays in test_dask.py.
"""

import numpy as np
import oracle
import pytest

import dwconv

X, KERNEL, BIAS = oracle.integers((2, 5, 6, 3), 1), oracle.integers((3, 3, 3, 2), 2), oracle.integers((6,), 3)
EXPECTED = oracle.conv(X, KERNEL, BIAS)


class Foreign:
    """An array of another library, which has nothing but DLPack; `device` as DLPack numbers them, 1 is the CPU."""

    def __init__(self, array, device=1):
        self._array, self._device = array, device

    def __dlpack_device__(self):
        return self._device, 0

    def __dlpack__(self, **options):
        if self._device != 1:
            raise BufferError("the array is on device 2")
        return self._array.__dlpack__(**options)


class Stored:
    """An array in a file, as h5py and zarr have them: it is read when it becomes a NumPy array."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __array__(self, dtype=None, copy=None):
        return self._array.astype(dtype or self.dtype)


@pytest.mark.parametrize("wrap", [Foreign, Stored, np.ndarray.tolist, memoryview], ids=lambda wrap: wrap.__name__)
def test_array_likes(wrap):
    x, kernel, bias = wrap(X), wrap(KERNEL), wrap(BIAS)
    for arrays in ((x, KERNEL, BIAS), (X, kernel, BIAS), (X, KERNEL, bias), (x, kernel, bias)):
        result = dwconv.depthwise_conv2d(*arrays)
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, EXPECTED, strict=True)
    grad = dwconv.depthwise_conv2d_input_grad(wrap(EXPECTED), kernel, X.shape)
    np.testing.assert_array_equal(grad, oracle.input_grad(EXPECTED, KERNEL, X.shape))


def test_dlpack_is_not_a_copy(monkeypatch):
    """The kernels read the other library's memory: neither is a copy made nor one asked for."""
    given, seen = [], []
    monkeypatch.setattr(np, "from_dlpack", lambda value, load=np.from_dlpack: given.append(load(value)) or given[-1])
    forward = dwconv._runtime.kernels.forward
    kernels = type("Kernels", (), {"forward": staticmethod(lambda *arguments: seen.append(arguments[1]) or forward(*arguments))})
    monkeypatch.setattr(dwconv._runtime, "kernels", kernels)
    dwconv.depthwise_conv2d(Foreign(X), KERNEL)
    assert np.shares_memory(given[0], X)
    assert np.shares_memory(seen[0], X)


def test_another_device():
    with pytest.raises(TypeError, match=r"kernel gives NumPy no access to its memory: .*device 2"):
        dwconv.depthwise_conv2d(X, Foreign(KERNEL, device=2))


def test_memory_map(tmp_path):
    """Read-only, and of the byte order of another machine."""
    for dtype in (">f4", "<f8"):
        np.save(tmp_path / "x.npy", X.astype(dtype))
        result = dwconv.depthwise_conv2d(np.load(tmp_path / "x.npy", mmap_mode="r"), KERNEL, BIAS)
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, EXPECTED)


def test_torch():
    """CPU tensors, in any layout; what torch itself does not hand over is refused in its words."""
    torch = pytest.importorskip("torch")
    x, kernel = torch.from_numpy(X), torch.from_numpy(KERNEL)
    result = dwconv.depthwise_conv2d(x, kernel, torch.from_numpy(BIAS))
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, EXPECTED, strict=True)
    first = x.permute(0, 3, 1, 2)  # torch's own layout, a view
    result = dwconv.depthwise_conv2d(first, kernel, BIAS, data_format="channels_first")
    np.testing.assert_array_equal(result, EXPECTED.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(torch.from_numpy(result), EXPECTED.transpose(0, 3, 1, 2))
    with pytest.raises(RuntimeError, match=r"detach\(\)"):
        dwconv.depthwise_conv2d(x.clone().requires_grad_(), kernel)
