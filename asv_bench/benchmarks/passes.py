"""The three passes as calls on ready arrays, for the benchmarks beside.

What a commit does not have yet is a NotImplementedError, which asv records as n/a: every benchmark here runs on every
commit of the project.  Nothing is computed at import, since asv imports the suite to find the benchmarks.
"""

import numpy as np

import dwconv

from .shapes import SHAPES

PASSES = ("forward", "input_grad", "kernel_grad")
LAYOUTS = ("channels_last", "channels_first")


def function(name):
    """A function of dwconv by its public name."""
    found = getattr(dwconv, name, None)
    if found is None:
        raise NotImplementedError(f"this commit has no dwconv.{name}")
    return found


def prepared(name, shape, layout, dtype="float32", workers=1, warm=True):
    """A call without arguments of the pass `name` of SHAPES[shape]: results go to `out`; warm: it has run once."""
    (n, h, w, c), k, stride, dilation, multiplier = SHAPES[shape]
    compute = function("depthwise_conv2d" if name == "forward" else f"depthwise_conv2d_{name}")
    options = {"strides": stride, "dilation_rate": dilation, "padding": "same", "data_format": layout, "workers": workers}
    rng = np.random.default_rng(0)

    def array(*sizes):
        return rng.standard_normal(sizes).astype(dtype)

    def images(height, width, channels):
        return array(n, height, width, channels) if layout == "channels_last" else array(n, channels, height, width)

    x, y = images(h, w, c), images(-(-h // stride), -(-w // stride), c * multiplier)
    kernel, bias = array(k, k, c, multiplier), array(c * multiplier)
    arguments, out = {
        "forward": ((x, kernel, bias), y),
        "input_grad": ((y, kernel, x.shape), x),
        "kernel_grad": ((x, y, (k, k)), kernel),
    }[name]

    def call():
        compute(*arguments, out=out, **options)

    if warm:
        call()
    return call
