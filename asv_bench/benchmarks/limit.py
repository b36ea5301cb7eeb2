"""The share of the machine's limit that a pass reaches; n/a on commits before `python -m dwconv bench`, which measures it."""

try:
    from dwconv import _bench_cases
except ImportError:
    _bench_cases = None

from .passes import LAYOUTS, PASSES
from .shapes import FEW


class Limit:
    """1 is all that the CPU can do.  More is better: asv takes any number for a time, so here its colours mean the opposite,
    and asv.conf.json leaves this one out of the search for regressions."""

    params = (PASSES, FEW, LAYOUTS)
    param_names = ("pass", "shape", "layout")
    version = "1"
    unit = "share of the limit"

    def setup(self, name, shape, layout):
        if _bench_cases is None:
            raise NotImplementedError("this commit does not measure the limit")

    def track_share_of_limit(self, name, shape, layout):
        case = _bench_cases.Case(_bench_cases.chosen([shape], [])[0], name, layout, "float32", 1)
        machine = _bench_cases.Machine("float32", 1, 0.3)
        seconds = _bench_cases.measure({"": _bench_cases.repeated(case.dwconv), "copy": machine.copy(case.bytes)}, 0.3)
        return machine.limit(case, seconds["copy"])[0] / seconds[""]
