"""What a process of its own must be started for: forks and process pools, small stacks, the interpreter's end, second imports.

Every process has a time limit, and a forked child an alarm, so that a deadlock is a failure.  A known limit that is not tested,
since the process ends: where the system refuses a new thread (RLIMIT_NPROC, a container's pids.max), libgomp prints "Thread
creation failed" and exits with status 1; workers=1 needs no thread.
"""

import multiprocessing
import os
import subprocess
import sys

import pytest
from conftest import runnable

from dwconv import _runtime

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or sets limits as Linux has them")
openmp = pytest.mark.skipif(not _runtime.kernels.build_info()["openmp"], reason="built without OpenMP")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("DWCONV_NUM_THREADS", raising=False)


def run(code, *arguments, timeout=60):
    """A Python process; its output.  It has failed if it wrote to stderr."""
    command = [sys.executable, *(["-c", code] if isinstance(code, str) else [code]), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


# The functions in both layouts, by kernels that have 2 workers for the smallest call; `bits` is what they give.
COMMON = """
import os, signal, sys, threading
import numpy as np
import dwconv
from dwconv import _runtime
_runtime.GRAIN = 1

def bits(workers, shape=(2, 20, 40, 16), k=3, dtype="f8", **options):
    rng, found = np.random.default_rng(0), []
    for layout in ("channels_last", "channels_first"):
        x, kernel = rng.standard_normal(shape).astype(dtype), rng.standard_normal((k, k, shape[3], 1)).astype(dtype)
        x = np.moveaxis(x, 3, 1).copy() if layout == "channels_first" else x
        options.update(padding="same", data_format=layout, workers=workers)
        found += [dwconv.depthwise_conv2d(x, kernel, **options), dwconv.depthwise_conv2d_kernel_grad(x, x, k, **options),
                  dwconv.depthwise_conv2d_input_grad(x, kernel, x.shape, **options)]
    return b"".join(y.tobytes() for y in found)

def forked(work, alarm=20):
    '''The exit status of a child that does `work`: 0 if it returned a true value.'''
    child = os.fork()
    if not child:
        signal.alarm(alarm)
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

# ---- threads of the process ----

THREADS = COMMON + """
import threadpoolctl
before = len(os.listdir("/proc/self/task"))
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    bits(None)
print(len(os.listdir("/proc/self/task")) - before)
for workers in (1, 3):
    bits(workers)
    print(len(os.listdir("/proc/self/task")) - before)
"""


@linux
@openmp
def test_threads_that_run(kernels, monkeypatch):
    """None are started under threadpoolctl's limit of 1 nor by workers=1, two more by workers=3; the caller is one of them."""
    monkeypatch.setenv("DWCONV_KERNELS", kernels)
    assert run(THREADS).split() == ["0", "0", "2"]


@pytest.mark.parametrize("value", ["", "abc", "0", "4,2", "3", "99999"])
def test_omp_num_threads(value, monkeypatch):
    """libgomp may complain; dwconv works."""
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    code = "import numpy as np, dwconv; print(dwconv.depthwise_conv2d(np.ones((1, 300, 300, 8)), np.ones((3, 3))).sum())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert float(done.stdout) == 298 * 298 * 8 * 9, done.stderr


STACKS = COMMON + """
def work():
    return [bits_of_module(name) for name in sys.argv[1:]]

def bits_of_module(name):
    _runtime.kernels = _runtime.load(name)
    found = [bits(workers, shape, k, dtype) for workers in (1, 2) for dtype in ("f4", "f8")
             for shape, k in [((2, 40, 40, 16), 3), ((1, 30, 30, 1), 7), ((1, 12, 300, 5), 11), ((2, 9, 7, 70), 4)]]
    x = np.ones((1, 21, 20, 33), np.float16)
    return [*found, dwconv.depthwise_conv2d(x, x[0, :5, :5], strides=2, activation="softmax").tobytes()]

results = []
try:
    threading.stack_size(32768)  # the least that CPython takes
except ValueError:
    threading.stack_size(65536)  # the platform wants more
thread = threading.Thread(target=lambda: results.append(work()))
thread.start()
thread.join()
assert results == [work()]
"""


def test_small_stacks(monkeypatch):
    """The tiles need no more stack than a Python thread of 32 KiB and an OpenMP thread of 16 KiB have."""
    monkeypatch.setenv("OMP_STACKSIZE", "16k")
    run(STACKS, *runnable())


MEMORY = COMMON + """
import resource
x, kernel = np.random.default_rng(0).standard_normal((8, 64, 24, 24)), np.random.default_rng(1).standard_normal((6, 6, 64, 1))
out, options = np.empty_like(x), {"padding": "same", "data_format": "channels_first"}
calls = [lambda workers: dwconv.depthwise_conv2d(x, kernel, out=out, workers=workers, **options),
         lambda workers: dwconv.depthwise_conv2d_input_grad(x, kernel, x.shape, out=out, workers=workers, **options)]
for name, call in [(name, call) for name in sys.argv[1:] for call in calls]:
    _runtime.kernels = _runtime.load(name)
    expected, limits = call(1).tobytes(), resource.getrlimit(resource.RLIMIT_AS)
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**20, limits[1]))
    try:
        call(1024)
        sys.exit("no error")
    except MemoryError:
        pass
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert call(2).tobytes() == expected
"""


@linux
@openmp
def test_scratch_that_cannot_be_had():
    """The scratch of 1024 workers is 60 MB: MemoryError before a thread starts, and the next call is right."""
    run(MEMORY, *runnable())


# ---- fork ----

FORK = COMMON + """
expected = bits(int(sys.argv[1]))

def child():
    same = bits(2) == expected and bits(None) == expected
    serial = bool(dwconv.show_config("dicts")["workers"]["forked"])
    return same, serial

def first():
    same, serial = child()
    print(same, serial, flush=True)
    return forked(second) == 0

def second():
    same, serial = child()
    print(same, serial, flush=True)
    return True

assert forked(first) == 0
assert (bits(2) == expected, dwconv.show_config("dicts")["workers"]["forked"]) == (True, False)
"""


@forks
@pytest.mark.parametrize(("workers", "serial"), [(2, "True"), (1, "False")], ids=["after threads", "before threads"])
def test_fork(kernels, monkeypatch, workers, serial):
    """After a threaded call the child and its child compute serially (libgomp would hang, GCC bug 60035), the parent goes on;
    before one, the child may use threads, and it is its own child that computes serially.  Always the same bits."""
    monkeypatch.setenv("DWCONV_KERNELS", kernels)
    assert run(FORK, workers).split() == ["True", serial, "True", "True"]


FORK_BUSY = COMMON + """
expected, stop = bits(2), threading.Event()

def compute():
    while not stop.is_set():
        assert bits(2) == expected

threads = [threading.Thread(target=compute) for _ in range(4)]
for thread in threads:
    thread.start()
print([forked(lambda: bits(2) == expected) for _ in range(10)])
stop.set()
for thread in threads:
    thread.join()
"""


@forks
def test_fork_while_threads_compute(monkeypatch):
    """The child has none of these threads, and waits for none of them."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::DeprecationWarning")  # Python 3.12 has an opinion on such forks
    assert run(FORK_BUSY) == f"{[0] * 10}\n"


IMPORTED_AGAIN = COMMON + """
import importlib, importlib.util
expected, folder = bits(2), os.path.dirname(dwconv.__file__)
if sys.argv[1] == "reloaded":
    for name, module in sorted(sys.modules.items()):
        if name.startswith("dwconv") and module.__file__.endswith(".py"):
            importlib.reload(module)
elif sys.argv[1] == "imported again":
    for name in [name for name in sys.modules if name.split(".")[0] == "dwconv"]:
        del sys.modules[name]
    import dwconv
else:
    spec = importlib.util.spec_from_file_location("other", f"{folder}/__init__.py", submodule_search_locations=[folder])
    dwconv = sys.modules["other"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dwconv)
dwconv._runtime.GRAIN = 1
if hasattr(os, "fork"):
    print(forked(lambda: bits(2) == expected and dwconv.show_config("dicts")["workers"]["forked"]))
assert bits(2) == expected
with dwconv.set_workers(2):
    assert bits(None) == expected
print(dwconv.DepthwiseConv2D(3)(np.ones((1, 3, 3, 2))).shape)
"""


@pytest.mark.parametrize("how", ["reloaded", "imported again", "imported under another name"])
def test_imported_twice(how):
    """A second import works, and a fork after it knows that the first one has used threads."""
    assert run(IMPORTED_AGAIN, how).split("\n", hasattr(os, "fork"))[-1] == "(1, 1, 1, 2)\n"


# ---- process pools ----

POOLS = COMMON + """
import concurrent.futures, multiprocessing

def work(number):
    return bits(2, shape=(1, 20, 20, number))

if __name__ == "__main__":
    expected, context = [work(number) for number in (1, 3, 16)], multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        assert pool.map(work, (1, 3, 16)) == expected
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(work, (1, 3, 16))) == expected
    assert work(16) == expected[2]
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools(method, tmp_path, monkeypatch):
    """multiprocessing's pool, whose processes are daemons, and concurrent.futures' one, after a threaded call."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::DeprecationWarning")
    script = tmp_path / "script.py"
    script.write_text(POOLS)
    run(script, method)


JOBLIB = COMMON + """
import joblib
work = lambda number: (bits(None, shape=(1, 20, 20, number)), dwconv.get_workers())
expected = [work(number)[0] for number in (1, 3, 16)]
with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(work)(number) for number in (1, 3, 16))
assert [result for result, _ in results] == expected
print({workers for _, workers in results})
"""


def test_joblib_processes():
    """joblib's own limit of threads reaches its processes."""
    pytest.importorskip("joblib")
    assert run(JOBLIB) == "{1}\n"


# ---- the end of the interpreter ----

AT_EXIT = COMMON + """
import atexit, builtins, time

class Last:
    def __init__(self, text):
        self.text = text

    def __del__(self):
        print(self.text, bits(2) == expected, flush=True)

expected = bits(2)
cycle, builtins.kept = Last("cycle"), Last("builtins")   # what `del` finds at once, what the collector does, what the end does
cycle.itself = cycle
atexit.register(lambda: print("atexit", bits(2) == expected, flush=True))
if sys.argv[1] == "daemons":
    def forever():
        while True:
            bits(2)
    for _ in range(6):
        threading.Thread(target=forever, daemon=True).start()
threading.Thread(target=lambda: (time.sleep(0.1), print("thread", bits(2) == expected, flush=True))).start()
"""


@pytest.mark.parametrize("daemons", ["alone", "daemons"])
def test_end_of_the_interpreter(daemons):
    """Calls by a thread that outlives the main one, by atexit and by __del__ are right; daemons that are in a call do no harm."""
    for _ in range(2 if daemons == "daemons" else 1):
        lines = run(AT_EXIT, daemons, timeout=30).splitlines()
        assert lines[:2] == ["thread True", "atexit True"]
        assert daemons == "daemons" or sorted(lines[2:]) == ["builtins True", "cycle True"]


AT_EXIT_LONG = COMMON + """
import time
x, kernel = np.zeros((1, 1024, 1024, 16), np.float32), np.zeros((31, 31, 16, 1), np.float32)
calls = [lambda workers: dwconv.depthwise_conv2d(x, kernel, padding="same", workers=workers),
         lambda workers: dwconv.depthwise_conv2d_input_grad(x, kernel, x.shape, padding="same", workers=workers),
         lambda workers: dwconv.depthwise_conv2d_kernel_grad(x, x, 31, padding="same", workers=workers)]
for call in calls:
    for workers in (1, 1, 2):
        threading.Thread(target=call, args=(workers,), daemon=True).start()
time.sleep(0.2)
"""


def test_end_while_daemons_are_in_long_calls():
    """A long call asks Python for signals, and Python may be no more."""
    for _ in range(3):
        assert run(AT_EXIT_LONG, timeout=30) == ""


# ---- sub-interpreters ----

SUBINTERPRETER = COMMON + """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = '''
import sys, warnings
sys.path[:] = %r
warnings.simplefilter("ignore")  # NumPy's, on sub-interpreters
try:
    import numpy as np
    import dwconv
except ImportError:
    print("ImportError")
else:
    print(dwconv.depthwise_conv2d(np.ones((1, 4, 4, 1)), np.ones((3, 3))).sum())
''' % sys.path
expected = bits(2)
other = interpreters.create()
interpreters.run_string(other, code)
interpreters.destroy(other)
assert bits(2) == expected
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's module for sub-interpreters")
def test_subinterpreter():
    """A second interpreter of the process gets an ImportError or a right answer, and the first one goes on."""
    assert run(SUBINTERPRETER) in ("ImportError\n", "36.0\n")
