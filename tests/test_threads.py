"""Workers: where their number comes from, who gets how many, and that threads, forks and limits do no harm.

`asked` records the number that reaches a kernel.  That the bits do not depend on it is test_kernels.py's; here are the rules and
the processes.  What could hang runs in a process of its own with a time limit.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
import types
import warnings

import numpy as np
import pytest
import threadpoolctl

import dwconv
from dwconv import _runtime

CPUS = _runtime.cpu_count()
rng = np.random.default_rng(0)
X, KERNEL = rng.standard_normal((2, 40, 40, 16), np.float32), rng.standard_normal((3, 3, 16, 1), np.float32)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
openmp = pytest.mark.skipif(not _runtime.kernels.build_info()["openmp"], reason="built without OpenMP")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("DWCONV_NUM_THREADS", raising=False)


@pytest.fixture
def asked(threaded, monkeypatch):
    """Function: the workers of a call with these options, as the kernel gets them; OpenMP's own is 5."""
    numbers = []

    def forward(*arguments):
        numbers.append(arguments[-1])
        return True

    monkeypatch.setattr(_runtime, "kernels", types.SimpleNamespace(forward=forward, max_threads=lambda: 5))

    def ask(x=X, **options):
        dwconv.depthwise_conv2d(x, KERNEL, **options)
        return numbers.pop()

    return ask


def run(code, *arguments, timeout=60):
    """A Python process; its output."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# ---- the number ----

NUMBERS = [(None, 5), (1, 1), (3, 3), (np.int64(2), 2), (-1, CPUS), (-CPUS, 1), (2**40, 1024)]


@pytest.mark.parametrize(("workers", "expected"), NUMBERS)
def test_workers_of_a_call(asked, workers, expected):
    assert asked(workers=workers) == expected


def test_order_of_precedence(asked, monkeypatch):
    """workers=, set_workers, DWCONV_NUM_THREADS, OpenMP."""
    assert (asked(), dwconv.get_workers()) == (5, 5)
    monkeypatch.setenv("DWCONV_NUM_THREADS", "3")
    assert (asked(), dwconv.get_workers()) == (3, 3)
    with dwconv.set_workers(2):
        assert (asked(), dwconv.get_workers()) == (2, 2)
        assert (asked(workers=4), dwconv.get_workers()) == (4, 2)
    assert (asked(), dwconv.get_workers()) == (3, 3)


@pytest.mark.parametrize(("text", "expected"), [("3", 3), (" 4 ", 4), ("-1", CPUS), ("", 5)])
def test_environment(asked, monkeypatch, text, expected):
    monkeypatch.setenv("DWCONV_NUM_THREADS", text)
    assert (asked(), dwconv.get_workers()) == (expected, expected)


@pytest.mark.parametrize("text", ["abc", "0", "-1000", "1.5", "4,2", "x" * 10**5, "9" * 10**4])
def test_environment_that_is_no_number(asked, monkeypatch, text):
    """One warning a call, a short one, and OpenMP's number."""
    monkeypatch.setenv("DWCONV_NUM_THREADS", text)
    with pytest.warns(RuntimeWarning, match="DWCONV_NUM_THREADS=.*is not a number of workers") as caught:
        assert asked() == 5
    assert len(caught) == 1
    assert len(str(caught[0].message)) < 300
    assert caught[0].filename != _runtime.__file__


@pytest.mark.parametrize("workers", [0, -CPUS - 1, -(10**30)])
def test_wrong_numbers(workers):
    for refuse in (lambda: dwconv.depthwise_conv2d(X, KERNEL, workers=workers), lambda: dwconv.set_workers(workers).__enter__()):
        with pytest.raises(ValueError, match=f"workers must not be 0.*{CPUS} CPUs"):
            refuse()
    assert dwconv.get_workers() == _runtime.kernels.max_threads()


@pytest.mark.parametrize("workers", [True, 1.0, "1", [1], np.float32(1)])
def test_wrong_types(workers):
    for refuse in (lambda: dwconv.depthwise_conv2d(X, KERNEL, workers=workers), lambda: dwconv.set_workers(workers).__enter__()):
        with pytest.raises(TypeError, match="workers must be an integer"):
            refuse()


def test_set_workers_needs_a_number():
    with pytest.raises(TypeError, match="workers"):
        dwconv.set_workers(None).__enter__()


def test_set_workers_nests_and_restores(asked):
    def fail():
        with dwconv.set_workers(2):
            assert asked() == 2
            raise ZeroDivisionError

    with dwconv.set_workers(3):
        with dwconv.set_workers(-1):
            assert asked() == CPUS
        assert asked() == 3
        with pytest.raises(ZeroDivisionError):
            fail()
        assert asked() == 3
    assert asked() == 5


def test_set_workers_is_of_its_thread(asked):
    seen = []
    with dwconv.set_workers(2):
        thread = threading.Thread(target=lambda: seen.append(dwconv.get_workers()))
        thread.start()
        thread.join()
        assert dwconv.get_workers() == 2
    assert seen == [5]


def test_small_calls_stay_serial(asked, monkeypatch):
    """Each worker gets at least GRAIN multiply-adds, so a call below twice that runs alone, whatever was asked for."""
    grain = 9 * 16 * 2
    monkeypatch.setattr(_runtime, "GRAIN", grain)
    for pixels, expected in [(1, (1, 1)), (2, (1, 1)), (3, (1, 1)), (4, (2, 2)), (11, (5, 5)), (13, (5, 6)), (100, (5, 7))]:
        x = X[:1, :1, :pixels] if pixels <= 40 else X[:1, :5, :20]
        assert (asked(x, padding="same"), asked(x, padding="same", workers=7)) == expected


def test_grain():
    """Waking a thread costs microseconds: that is the work that must be there, not nanoseconds of it nor milliseconds."""
    assert 10**4 <= _runtime.GRAIN <= 10**7


def test_show_config_says_where_it_comes_from(monkeypatch):
    def workers():
        told = dwconv.show_config("dicts")["workers"]
        return told["default"], told["from"]

    assert workers()[1].startswith("OpenMP")
    monkeypatch.setenv("DWCONV_NUM_THREADS", "3")
    assert workers() == (3, "DWCONV_NUM_THREADS")
    with dwconv.set_workers(2):
        assert workers() == (2, "set_workers")


# ---- threads ----

@openmp
def test_threadpoolctl(kernels):
    """OpenMP's limit is read at every call, as its other users see it."""
    before = dwconv.get_workers()
    for limit in (1, 3):
        with threadpoolctl.threadpool_limits(limit, user_api="openmp"):
            assert dwconv.get_workers() == limit
    assert dwconv.get_workers() == before


THREADS = """
import os, sys
import numpy as np
import dwconv
from dwconv import _runtime
_runtime.GRAIN = 1
x, kernel = np.ones((2, 40, 40, 16), np.float32), np.ones((3, 3), np.float32)
before = len(os.listdir("/proc/self/task"))
for workers in (1, int(sys.argv[1])):
    dwconv.depthwise_conv2d(x, kernel, workers=workers)
    print(len(os.listdir("/proc/self/task")) - before)
"""


@linux
@openmp
def test_threads_that_run(kernels, monkeypatch):
    """workers=1 starts none, workers=3 two more; the caller is one of them."""
    monkeypatch.setenv("DWCONV_KERNELS", kernels)
    assert run(THREADS, 3).split() == ["0", "2"]


def test_without_openmp_workers_are_accepted(kernels, threaded):
    """More workers than CPUs, tasks or rows: still right, with OpenMP and without."""
    for x in (X, X[:1, :1], X[:1, :, :1]):
        expected = dwconv.depthwise_conv2d(x, KERNEL, padding="same", workers=1)
        y = dwconv.depthwise_conv2d(x, KERNEL, padding="same", workers=100)
        assert y.tobytes() == expected.tobytes()


def test_many_threads_at_once(kernels, threaded):
    """Python threads that start together, share their inputs, and each use two workers of their own."""
    shapes = [(1, h, 33, c) for h in (9, 20) for c in (3, 16, 17)]
    arrays = [np.random.default_rng(1).standard_normal(shape) for shape in shapes]
    weights = [np.random.default_rng(2).standard_normal((3, 3, shape[3], 1)) for shape in shapes]
    expected = [dwconv.depthwise_conv2d(x, w, workers=1).tobytes() for x, w in zip(arrays, weights, strict=True)]
    barrier, wrong = threading.Barrier(12), []

    def work(number):
        barrier.wait()
        for k in range(60):
            which = (k + number) % len(shapes)
            y = dwconv.depthwise_conv2d(arrays[which], weights[which], workers=1 + k % 2)
            if y.tobytes() != expected[which]:
                wrong.append((number, shapes[which]))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(barrier.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_small_stacks(kernels):
    """The tiles need no more stack than a thread of 64 KiB has."""
    results = []
    before = threading.stack_size(64 * 1024)
    try:
        thread = threading.Thread(target=lambda: results.append(dwconv.depthwise_conv2d(X, KERNEL, workers=1)))
        thread.start()
        thread.join(60)
    finally:
        threading.stack_size(before)
    assert results[0].tobytes() == dwconv.depthwise_conv2d(X, KERNEL).tobytes()


def test_warnings_are_not_touched(kernels):
    """A call leaves NumPy's error state and the warning filters as they were."""
    state, filters = np.geterr(), list(warnings.filters)
    dwconv.depthwise_conv2d(X, KERNEL.astype(np.float16), activation="tanh")
    assert (np.geterr(), list(warnings.filters)) == (state, filters)


# ---- processes ----

FORK = """
import os, signal, sys
import numpy as np
import dwconv
from dwconv import _runtime
_runtime.GRAIN = 1
rng = np.random.default_rng(0)
x, kernel = rng.standard_normal((2, 40, 40, 16)), rng.standard_normal((3, 3, 16, 1))
parent = dwconv.depthwise_conv2d(x, kernel, workers=int(sys.argv[1])).tobytes()

def child(depth):
    if os.fork():
        return os.waitstatus_to_exitcode(os.wait()[1])
    signal.alarm(20)
    same = dwconv.depthwise_conv2d(x, kernel, workers=2).tobytes() == parent
    same = same and dwconv.depthwise_conv2d(x, kernel).tobytes() == parent
    serial = bool(dwconv.show_config("dicts")["workers"]["forked"])
    os._exit((0 if same else 1) + (2 if serial else 0) + (child(depth - 1) * 4 if depth else 0))

print(child(1), dwconv.show_config("dicts")["workers"]["forked"])
assert dwconv.depthwise_conv2d(x, kernel, workers=2).tobytes() == parent
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(("workers", "expected"), [(2, "10 False"), (1, "8 False")], ids=["after threads", "before threads"])
def test_fork(kernels, monkeypatch, workers, expected):
    """After a threaded call the child and its child compute serially (libgomp would hang, GCC bug 60035), the parent goes on;
    before one, the child may use threads, and it is its own child that computes serially.  Always the same bits."""
    monkeypatch.setenv("DWCONV_KERNELS", kernels)
    assert run(FORK, workers, timeout=60).strip() == expected


POOL = """
import multiprocessing, sys
import numpy as np
import dwconv
from dwconv import _runtime

def work(seed):
    _runtime.GRAIN = 1
    x = np.random.default_rng(seed).standard_normal((2, 40, 40, 16))
    return dwconv.depthwise_conv2d(x, np.ones((3, 3)), workers=2).tobytes()

if __name__ == "__main__":
    expected = [work(seed) for seed in range(4)]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(work, range(4)) == expected
    print("same")
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pool(method, tmp_path):
    """multiprocessing after a threaded call."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    script = tmp_path / "script.py"
    script.write_text(POOL)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


@pytest.mark.parametrize("value", ["", "abc", "0", "4,2", "3", "99999"])
def test_omp_num_threads(value, monkeypatch):
    """libgomp may complain; dwconv works."""
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    code = "import numpy as np, dwconv; print(dwconv.depthwise_conv2d(np.ones((1, 300, 300, 8)), np.ones((3, 3))).sum())"
    assert float(run(code)) == 298 * 298 * 8 * 9
