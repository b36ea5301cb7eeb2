"""Which kernels module runs, and how many workers a call gets.

The module is chosen once, at import: the best of those built that `_cpu` allows, or the one that DWCONV_KERNELS names.
A module that is there but does not import, or a named one that is not there, is an ImportError, never a silent
fallback.  The number of workers is read anew at every call that is worth threads, and never cached: `workers=`, else
`set_workers`, else DWCONV_NUM_THREADS, else OpenMP's own, which OMP_NUM_THREADS and threadpoolctl set.
"""

import contextlib
import contextvars
import importlib
import importlib.util
import operator
import os
import platform
import warnings

import numpy as np

from . import _cpu
from ._messages import short

SUFFIXES = {"avx512": "_avx512", "avx2": "_avx2", "baseline": ""}  # instruction set: its module's suffix, best first

# Work of a plan below which a further worker costs more than it saves: waking one takes 3 to 5 us here, so a call is shared
# out only where each worker gets at least that long.  Measured, 36 shapes of both layouts, one worker beside two.
GRAIN = 320_000


def built():
    """Names of the kernels modules that were built, best first."""
    package = __package__ or "dwconv"
    return [name for name, suffix in SUFFIXES.items() if importlib.util.find_spec(f"{package}._kernels{suffix}")]


def load(name):
    """The kernels module of an instruction set; ImportError if it was not built or this CPU cannot run it."""
    if name not in SUFFIXES:
        raise ImportError(f"DWCONV_KERNELS must be one of {', '.join(SUFFIXES)}, not {name!r}")
    runs = _cpu.instruction_sets()
    if name not in runs:
        raise ImportError(f"DWCONV_KERNELS={name}: this CPU does not have that instruction set, only {', '.join(runs)}")
    if name not in built():
        raise ImportError(f"DWCONV_KERNELS={name}: that kernels module was not built, only {', '.join(built())}")
    return importlib.import_module(f"._kernels{SUFFIXES[name]}", __package__)


def _choose():
    forced = os.environ.get("DWCONV_KERNELS")
    if forced:
        return forced, "DWCONV_KERNELS"
    return next(name for name in built() if name in _cpu.instruction_sets()), "the best one built that this CPU runs"


kernels_name, kernels_reason = _choose()
kernels = load(kernels_name)

# What set_workers set: of a thread, and of an asyncio task, since the tasks of a thread enter and leave in any order.
_workers = contextvars.ContextVar("dwconv.workers", default=None)

# Of the process: kept in an extension module, which outlives a reload and a second import, as OpenMP's threads do.
_state = vars(_cpu).setdefault("_state", {"threads_used": False, "forked": False})


def _after_fork():
    # libgomp hangs in a child whose parent ran a parallel region (GCC bug 60035); results do not depend on workers
    _state["forked"] = _state["threads_used"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def cpu_count():
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers):
    """A number of workers as a positive int; negative ones count from all CPUs as in scipy.fft (-1: all)."""
    if type(workers) is int and workers > 0:
        return workers
    if isinstance(workers, bool) or not hasattr(type(workers), "__index__"):
        raise TypeError(f"workers must be an integer or None, not {short(workers)}")
    count, workers = cpu_count(), operator.index(workers)
    if workers == 0 or workers < -count:
        raise ValueError(f"workers must not be 0, nor below -{count} on {count} CPUs; got {short(workers)}")
    return workers if workers > 0 else count + 1 + workers


def _from_environment():
    """DWCONV_NUM_THREADS as a number of workers, or None; one warning where it is not one."""
    text = os.environ.get("DWCONV_NUM_THREADS")
    if not text:
        return None
    try:
        return check_workers(int(text))
    except ValueError:
        warnings.warn(f"DWCONV_NUM_THREADS={text[:80]!r} is not a number of workers and is ignored", RuntimeWarning, stacklevel=4)
        return None


def default_workers():
    """The number of workers of a call that names none, and where it comes from."""
    workers = _workers.get()
    if workers:
        return workers, "set_workers"
    workers = _from_environment()
    if workers:
        return workers, "DWCONV_NUM_THREADS"
    return kernels.max_threads(), "OpenMP (OMP_NUM_THREADS, threadpoolctl)"


def get_workers():
    """Number of workers that calls of this thread use at most, unless they say otherwise.

    Returns
    -------
    int
        What `set_workers` set in this thread or asyncio task, else DWCONV_NUM_THREADS, else OpenMP's number of threads.
    """
    return default_workers()[0]


@contextlib.contextmanager
def set_workers(workers):
    """Context manager: the default number of workers of this thread's or asyncio task's calls, as in `scipy.fft`.

    Parameters
    ----------
    workers : int
        At most so many threads a call; -1 for all CPUs.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is 0, or negative and beyond the number of CPUs.
    """
    workers, before = check_workers(workers), _workers.get()
    _workers.set(workers)
    try:
        yield
    finally:
        _workers.set(before)  # no token: resetting to one fails where a fixture is left in another task than it was entered in


def resolve_workers(workers, work):
    """Workers for a plan's `work`: what was asked for (checked, or None), but never more than it is worth."""
    worth = work // GRAIN
    if worth < 2 or _state["forked"]:
        return 1
    workers = min(default_workers()[0] if workers is None else workers, worth, 1024)
    if workers > 1:
        _state["threads_used"] = True
    return workers


def describe():
    """What was built, what runs and why: plain dicts for `show_config`."""
    runs, workers = _cpu.instruction_sets(), default_workers()
    modules = {name: load(name).build_info() if name in runs else "built, but this CPU cannot run it" for name in built()}
    return {
        "python": {"version": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()},
        "kernels": {"used": kernels_name, "because": kernels_reason, "cpu runs": runs, "built": modules},
        "workers": {
            "default": workers[0], "from": workers[1], "cpus": cpu_count(),
            "forked": "serial, since the parent process used threads" if _state["forked"] else False,
        },
        "environment": {name: value for name, value in os.environ.items() if name.startswith(("DWCONV_", "OMP_"))},
    }
