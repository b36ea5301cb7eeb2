"""Forward convolution of real layers, in both layouts, and the cost of a call that computes next to nothing.

Set-up stays outside the clock, results go to `out`, and the version is fixed, so that a comment changed here does not
cut a history.
"""

import numpy as np

import dwconv

from .shapes import SHAPES


class Forward:
    params = (tuple(SHAPES), ("channels_last", "channels_first"), ("float32", "float64"), (1, 2))
    param_names = ("shape", "layout", "dtype", "workers")
    version = "1"

    def setup(self, shape, layout, dtype, workers):
        (n, h, w, c), k, stride, dilation, multiplier = SHAPES[shape]
        rng = np.random.default_rng(0)
        x = rng.standard_normal((n, h, w, c) if layout == "channels_last" else (n, c, h, w)).astype(dtype)
        kernel = rng.standard_normal((k, k, c, multiplier)).astype(dtype)
        bias = rng.standard_normal(c * multiplier).astype(dtype)
        self.options = {
            "strides": stride, "dilation_rate": dilation, "padding": "same", "data_format": layout, "workers": workers,
        }
        self.arguments = x, kernel, bias
        self.out = dwconv.depthwise_conv2d(*self.arguments, **self.options)

    def time_forward(self, shape, layout, dtype, workers):
        dwconv.depthwise_conv2d(*self.arguments, out=self.out, **self.options)


class Import:
    version = "1"

    def timeraw_import(self):
        return "import dwconv"
