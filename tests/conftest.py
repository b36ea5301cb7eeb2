"""What all tests share: each kernels module in turn, threads for small calls, Hypothesis profiles.

`kernels` puts every module that is built and that this CPU runs in the place of the chosen one; with DWCONV_KERNELS set
it is that one only.  Nothing here computes: the reference is in oracle.py.
"""

import gc
import os

import hypothesis
import pytest

from dwconv import _cpu, _runtime

# The fixtures below hold nothing that an example changes, so examples may share them.
COMMON = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.function_scoped_fixture]}
hypothesis.settings.register_profile("default", max_examples=300, **COMMON)
hypothesis.settings.register_profile("ci", max_examples=300, derandomize=True, database=None, **COMMON)
hypothesis.settings.register_profile("nightly", max_examples=5000, **COMMON)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_collection_finish():
    """Tests that collect garbage shall not walk through ten thousand tests and every library each time."""
    gc.collect()
    gc.freeze()


def runnable():
    """Names of the kernels modules to test."""
    forced = os.environ.get("DWCONV_KERNELS")
    return [forced] if forced else [name for name in _runtime.built() if name in _cpu.instruction_sets()]


@pytest.fixture(params=runnable())
def kernels(request, monkeypatch):
    """Name of the kernels module that every call of the test runs on."""
    monkeypatch.setattr(_runtime, "kernels", _runtime.load(request.param))
    monkeypatch.setattr(_runtime, "kernels_name", request.param)
    return request.param


@pytest.fixture
def threaded(monkeypatch):
    """Small calls are worth threads too, so that workers=7 means seven."""
    monkeypatch.setattr(_runtime, "GRAIN", 1)
