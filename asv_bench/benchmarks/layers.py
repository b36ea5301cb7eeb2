"""Layers of real networks: each pass in both layouts and precisions, then by kernels module and by number of workers.

Set-up stays outside the clock, results go to `out`, and the version is fixed, so that a comment changed here does not
cut a history.
"""

from .passes import LAYOUTS, PASSES, prepared
from .shapes import FEW, SHAPES


class Forward:
    params = (tuple(SHAPES), LAYOUTS, ("float32", "float64"))
    param_names = ("shape", "layout", "dtype")
    version = "2"

    def setup(self, shape, layout, dtype):
        self.call = prepared("forward", shape, layout, dtype)

    def time_forward(self, shape, layout, dtype):
        self.call()


class InputGrad:
    params = Forward.params
    param_names = Forward.param_names
    version = "1"

    def setup(self, shape, layout, dtype):
        self.call = prepared("input_grad", shape, layout, dtype)

    def time_input_grad(self, shape, layout, dtype):
        self.call()


class KernelGrad:
    params = Forward.params
    param_names = Forward.param_names
    version = "1"

    def setup(self, shape, layout, dtype):
        self.call = prepared("kernel_grad", shape, layout, dtype)

    def time_kernel_grad(self, shape, layout, dtype):
        self.call()


class Modules:
    """Each kernels module by itself; n/a where it was not built or the CPU does not run it."""

    params = (("avx512", "avx2", "baseline"), PASSES, FEW, LAYOUTS)
    param_names = ("kernels", "pass", "shape", "layout")
    version = "1"

    def setup(self, kernels, name, shape, layout):
        from dwconv import _runtime

        try:
            _runtime.kernels = _runtime.load(kernels)  # asv runs every combination in a process of its own
        except ImportError as error:
            raise NotImplementedError(str(error)) from error
        self.call = prepared(name, shape, layout)

    def time_module(self, kernels, name, shape, layout):
        self.call()


class Workers:
    params = ((1, 2, 4, 8), PASSES, FEW, LAYOUTS)
    param_names = ("workers", "pass", "shape", "layout")
    version = "1"

    def setup(self, workers, name, shape, layout):
        from dwconv import _runtime

        if workers > _runtime.cpu_count():
            raise NotImplementedError(f"this process may use {_runtime.cpu_count()} CPUs")
        self.call = prepared(name, shape, layout, workers=workers)

    def time_workers(self, workers, name, shape, layout):
        self.call()
