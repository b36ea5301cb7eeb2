"""What a call costs where the arithmetic is next to nothing; a first call, and the import, in a process of their own."""

import numpy as np

from .passes import PASSES, function, prepared


class Calls:
    """A 4x4x8 image, which an AVX-512 core computes in a fraction of a microsecond: the rest is Python, checks and the plan."""

    params = PASSES
    param_names = ("pass",)
    version = "1"

    def setup(self, name):
        self.call = prepared(name, "tiny_4x4x8_k3", "channels_last")

    def time_call(self, name):
        self.call()


class LayerCall:
    version = "1"

    def setup(self):
        self.layer = function("DepthwiseConv2D")(3, padding="same")
        self.images = np.ones((1, 4, 4, 8), np.float32)
        self.layer(self.images)

    def time_layer_call(self):
        self.layer(self.images)

    def time_layer_from_config(self):
        type(self.layer).from_config(self.layer.get_config())


class Processes:
    version = "1"
    number = 1  # of statements a process: only the first is a first call
    repeat = (5, 20, 10.0)

    def timeraw_import(self):
        return "import dwconv"

    def timeraw_import_numpy(self):
        """What the import of dwconv is to be compared with: it contains this one."""
        return "import numpy"

    def timeraw_first_call(self):
        """Plan, pages of the output, and the threads' start."""
        return "dwconv.depthwise_conv2d(x, kernel, padding='same')", """
import numpy as np
import dwconv
x, kernel = np.ones((1, 112, 112, 32), np.float32), np.ones((3, 3, 32, 1), np.float32)
"""
