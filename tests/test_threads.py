"""Workers: where their number comes from, who gets how many, and that the threads of one process do no harm.

`asked` records the number that reaches a kernel.  That the bits do not depend on it is test_kernels.py's, what a process of its
own must be started for is in test_processes.py, and signals are in test_interrupts.py.
"""

import asyncio
import contextvars
import itertools
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
LAYOUTS = ["channels_last", "channels_first"]
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
    # from Python 3.14 a thread may take over what its starter set (sys.flags.thread_inherit_context)
    assert seen == [2 if getattr(sys.flags, "thread_inherit_context", 0) else 5]


def test_set_workers_is_of_its_task(asked):
    """The tasks of an event loop leave in another order than they entered; a thread that one of them starts has its number."""
    async def task(workers, entered, leave):
        with dwconv.set_workers(workers):
            entered.set()
            await leave.wait()
            return asked(), await asyncio.to_thread(asked)

    async def both():
        entered, leave = [asyncio.Event(), asyncio.Event()], [asyncio.Event(), asyncio.Event()]
        tasks = [asyncio.create_task(task(2 + k, entered[k], leave[k])) for k in range(2)]
        for k in range(2):
            await entered[k].wait()
        leave[0].set()
        first = await tasks[0]
        leave[1].set()
        return first, await tasks[1], asked()

    assert asyncio.run(both()) == ((2, 2), (3, 3), 5)
    assert dwconv.get_workers() == 5


def test_set_workers_may_be_left_elsewhere(asked):
    """As a fixture is that a framework enters in one task and leaves in another: nothing is raised, and nothing kept."""
    context = contextvars.copy_context()
    manager = dwconv.set_workers(2)
    context.run(manager.__enter__)
    assert (asked(), context.run(asked)) == (5, 2)
    manager.__exit__(None, None, None)
    assert asked() == 5


def test_small_calls_stay_serial(asked, monkeypatch):
    """Each worker gets at least GRAIN of a plan's work, so a call below twice that runs alone, whatever was asked for."""
    grain = 2 * (9 * 16 + 5 * (16 + 16))
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


def test_without_openmp_workers_are_accepted(kernels, threaded):
    """More workers than CPUs, tasks or rows: still right, with OpenMP and without."""
    for x in (X, X[:1, :1], X[:1, :, :1]):
        expected = dwconv.depthwise_conv2d(x, KERNEL, padding="same", workers=1)
        y = dwconv.depthwise_conv2d(x, KERNEL, padding="same", workers=100)
        assert y.tobytes() == expected.tobytes()


@pytest.mark.timeout(60)
def test_many_threads_at_once(kernels, threaded):
    """32 threads that start together, share their inputs, have an `out` each, and use two workers of their own in turn."""
    tasks = []
    for n, (shape, layout) in enumerate(itertools.product([(1, 9, 33, 3), (1, 20, 33, 16), (2, 20, 9, 17)], LAYOUTS)):
        x, w = np.random.default_rng(n).standard_normal(shape), np.random.default_rng(n).standard_normal((3, 3, shape[3], 1))
        x = x if layout == "channels_last" else np.moveaxis(x, 3, 1).copy()
        options = {"padding": "same", "data_format": layout}
        tasks += [(dwconv.depthwise_conv2d, (x, w), options, x.shape),
                  (dwconv.depthwise_conv2d_input_grad, (x, w, x.shape), options, x.shape),
                  (dwconv.depthwise_conv2d_kernel_grad, (x, x, 3), options, w.shape)]
    expected = [function(*arguments, workers=1, **options).tobytes() for function, arguments, options, _ in tasks]
    barrier, wrong, finished = threading.Barrier(32), [], []

    def work(number):
        barrier.wait()
        for k in range(60):
            which = (k + number) % len(tasks)
            function, arguments, options, shape = tasks[which]
            out = np.empty(shape)
            if function(*arguments, out=out, workers=1 + k % 2, **options).tobytes() != expected[which]:
                wrong.append((number, which))
        finished.append(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(barrier.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert len(finished) == barrier.parties


@pytest.mark.timeout(60)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_race(kernels, threaded, layout):
    """Threads that share one `out` and change x in mid-call get numbers nobody promises, but no crash, and harm nobody else."""
    x, kernel = np.ones((2, 16, 24, 24)), np.ones((3, 3, 16 if layout == "channels_first" else 24, 1))
    out, spoilt, stop = np.empty_like(x), x.copy(), threading.Event()
    options = {"padding": "same", "data_format": layout, "workers": 2}
    expected = dwconv.depthwise_conv2d(x, kernel, **options).tobytes()

    def spoil():
        while not stop.is_set():
            spoilt[...] = np.nan
            spoilt[...] = 1

    def write():
        for _ in range(50):
            dwconv.depthwise_conv2d(spoilt, kernel, out=out, **options)
            dwconv.depthwise_conv2d_input_grad(spoilt, kernel, x.shape, out=out, **options)
            dwconv.depthwise_conv2d_kernel_grad(spoilt, out, 3, **options)

    spoiler, writers = threading.Thread(target=spoil), [threading.Thread(target=write) for _ in range(2)]
    for thread in (spoiler, *writers):
        thread.start()
    for _ in range(50):
        assert dwconv.depthwise_conv2d(x, kernel, **options).tobytes() == expected
    for thread in writers:
        thread.join()
    stop.set()
    spoiler.join()


# ---- thread pools of others ----

@pytest.fixture
def pooled(threaded):
    """Function: an array's convolution with two workers; and the arrays with what it must give."""
    arrays = [np.random.default_rng(n).standard_normal((1, 20, 20, 16)) for n in range(24)]
    kernel = np.random.default_rng(0).standard_normal((3, 3, 16, 1))
    expected = [dwconv.depthwise_conv2d(x, kernel, padding="same", workers=1) for x in arrays]
    return lambda x: dwconv.depthwise_conv2d(x, kernel, padding="same", workers=2), arrays, expected


@pytest.mark.timeout(60)
@pytest.mark.parametrize("nested", [False, True])
def test_joblib_threads(pooled, nested):
    joblib = pytest.importorskip("joblib")
    function, arrays, expected = pooled

    def inner(part):
        return joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(function)(x) for x in part)

    if nested:
        results = joblib.Parallel(n_jobs=4, backend="threading")(joblib.delayed(inner)(arrays[k::4]) for k in range(4))
        results = [results[n % 4][n // 4] for n in range(len(arrays))]
    else:
        results = joblib.Parallel(n_jobs=8, backend="threading")(joblib.delayed(function)(x) for x in arrays)
    np.testing.assert_array_equal(results, expected)


@pytest.mark.timeout(60)
def test_dask_threads(pooled):
    dask = pytest.importorskip("dask")
    function, arrays, expected = pooled
    results = dask.compute([dask.delayed(function)(x) for x in arrays], scheduler="threads", num_workers=8)[0]
    np.testing.assert_array_equal(results, expected)


def test_warnings_are_not_touched(kernels):
    """A call leaves NumPy's error state and the warning filters as they were."""
    state, filters = np.geterr(), list(warnings.filters)
    dwconv.depthwise_conv2d(X, KERNEL.astype(np.float16), activation="tanh")
    assert (np.geterr(), list(warnings.filters)) == (state, filters)
