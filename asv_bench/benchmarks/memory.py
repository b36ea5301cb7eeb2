"""Peak memory of a pass.  asv measures the whole process, so what a pass adds is its number less the reference's."""

from .passes import PASSES, prepared


class PeakMemory:
    """A large batch: scratch that grows with the input would show.  The reference holds the same arrays and computes nothing."""

    params = PASSES
    param_names = ("pass",)
    version = "1"

    def setup(self, name):
        self.call = prepared(name, "batch8_28x28x256_k3", "channels_first", warm=False)

    def peakmem_pass(self, name):
        self.call()

    def peakmem_reference(self, name):
        pass
