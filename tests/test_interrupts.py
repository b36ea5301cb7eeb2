"""Signals while a call runs: Ctrl-C ends it soon, a handler that returns does not change it, and the next call is right.

A call looks for signals from Python's main thread only, as Python itself does, so here every call under test runs in the main
thread of a process of its own.  The calls to be interrupted take from seconds to minutes if nothing ends them; their arrays are
zeros that no one wrote, which take address space but little memory.  What `out` holds after an interruption is not promised.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SOON = 2.0  # seconds from the signal to the exception; half a second is the aim, the rest is for a machine with other work

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")


def python(code, *arguments, timeout=100):
    """A Python process; its output."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, f"{done.stdout[-500:]}{done.stderr[-2000:]}"
    return done.stdout


COMMON = """
import faulthandler, os, signal, sys, threading, time
import numpy as np
import dwconv

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it for what it starts in the background

def prepare(function, layout, shape, k, dilation, array):
    '''A call, ready to be made, of a function for images (N, H, W, C), k x k taps and padding "same".'''
    n, h, w, c = shape
    x = array((n, c, h, w) if layout == "channels_first" else shape)
    options = dict(padding="same", dilation_rate=dilation, data_format=layout)
    if function == "kernel_grad":
        return lambda workers: dwconv.depthwise_conv2d_kernel_grad(x, x, k, workers=workers, **options)
    kernel = array((k, k, c, 1))
    if function == "input_grad":
        return lambda workers: dwconv.depthwise_conv2d_input_grad(x, kernel, x.shape, workers=workers, **options)
    return lambda workers: dwconv.depthwise_conv2d(x, kernel, workers=workers, **options)

rng = np.random.default_rng(0)
SOME = rng.standard_normal(2**16 + 1)
LAYOUTS = ["channels_last", "channels_first"]
FUNCTIONS = ["forward", "input_grad", "kernel_grad"]
SMALL = [prepare(function, layout, (2, 40, 40, 16), 3, 1, rng.standard_normal) for function in FUNCTIONS for layout in LAYOUTS]

def small():
    return [call(workers).tobytes() for call in SMALL for workers in (1, 2)]

RIGHT = small()

def lengthy(function, layout):
    '''A call of half a second of CPU time, by which the looks at signals go; what it gives; and its seconds on the clock.'''
    n, spent = 2, 0
    while spent < 0.5:
        n *= 2
        call = prepare(function, layout, (n, 96, 96, 16), 15, 1, lambda s: np.resize(SOME, s))
        start, spent = time.perf_counter(), time.process_time()
        expected = call(2)
        seconds, spent = time.perf_counter() - start, time.process_time() - spent
    return call, expected.tobytes(), seconds
"""

# ---- handlers that raise ----

LONG = {  # images (N, H, W, C), taps, dilation, dtype: 2e11 to 8e11 multiply-adds
    "one plane": ((1, 8192, 8192, 1), 101, 1, "f4"),
    "few channels": ((1, 8192, 16384, 3), 21, 1, "f4"),
    "many channels": ((1, 2048, 2048, 64), 51, 1, "f4"),
    "many images": ((4096, 64, 64, 16), 51, 1, "f4"),
    "many small planes": ((24576, 28, 28, 16), 55, 1, "f4"),
    "dilated": ((1, 1500, 1500, 16), 201, 5, "f4"),
    "taps like pixels": ((1, 512, 512, 16), 511, 1, "f4"),
    "float64": ((1, 1500, 1500, 16), 151, 1, "f8"),
}

INTERRUPT = COMMON + """
import json

def interrupted(call, workers):
    '''Seconds from the signal to its exception.'''
    sent = []

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.03, send)
    timer.start()
    try:
        call(workers)
        raise SystemExit("the call was over before the signal came, or held it back to its end")
    except KeyboardInterrupt:
        return time.perf_counter() - sent[0]

def address_space():
    return int(open("/proc/self/statm").read().split()[0]) * 4096 if os.path.exists("/proc/self/statm") else 0

cases, function = json.loads(sys.argv[1]), sys.argv[2]
slowest, before = 0, None
for number, (name, (shape, k, dilation, dtype)) in enumerate(cases.items()):
    for first, layout in enumerate(LAYOUTS):
        for workers in (1, 2) if name == "one plane" else (1 + (number + first) % 2,):
            print(f"{name}, {layout}, {workers} workers: ", end="", flush=True)
            faulthandler.dump_traceback_later(20, exit=True)
            seconds = interrupted(prepare(function, layout, shape, k, dilation, lambda s: np.zeros(s, dtype)), workers)
            faulthandler.cancel_dump_traceback_later()
            print(f"{seconds:.3f} s", flush=True)
            assert small() == RIGHT
            slowest, before = max(slowest, seconds), before or address_space()
assert address_space() - before < 2**28, "results of interrupted calls are still there"
print(slowest)
"""


@pytest.mark.parametrize("function", ["forward", "input_grad", "kernel_grad"])
def test_keyboard_interrupt(function):
    """SIGINT ends every kind of call within SOON; the small calls after it, of all functions, have the bits of those before."""
    output = python(INTERRUPT, json.dumps(LONG), function)
    assert float(output.splitlines()[-1]) < SOON, output


OTHER = COMMON + """
class Late(Exception):
    pass

def ring(number, frame):
    raise Late

signal.signal(signal.SIGALRM, ring)
layer = dwconv.DepthwiseConv2D(101, padding="same")
x = np.zeros((1, 8192, 8192, 1), "f4")
layer.build(x.shape)
faulthandler.dump_traceback_later(20, exit=True)
start = time.perf_counter()
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    layer(x)
except Late:
    print(time.perf_counter() - start - 0.1)
assert small() == RIGHT
"""


def test_other_exceptions_of_handlers():
    """A time limit by SIGALRM, through the layer: the handler's own exception passes."""
    assert float(python(OTHER)) < SOON


UNCAUGHT = COMMON + """
call = prepare("forward", "channels_last", (1, 8192, 8192, 1), 101, 1, lambda s: np.zeros(s, "f4"))
faulthandler.dump_traceback_later(20, exit=True)
print("ready", flush=True)
call(2)
"""


def test_ctrl_c_as_the_user_sees_it():
    """SIGINT from another process ends a script as it does any other: by that signal, with a traceback to the call."""
    process = subprocess.Popen([sys.executable, "-c", UNCAUGHT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.3)
            start = time.perf_counter()
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=60)[1]
            assert time.perf_counter() - start < SOON + 1  # and what Python needs to end
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "depthwise_conv2d" in errors


# ---- handlers that return ----

RETURN = COMMON + """
faulthandler.dump_traceback_later(60, exit=True)
call, expected, seconds = lengthy(*sys.argv[1:])
ticks, children, wrong = [], [], []

def tick(number, frame):
    ticks.append(time.perf_counter())
    if small() != RIGHT:
        wrong.append("in the handler")
    if len(ticks) == 2:
        children.append(os.fork())
        if not children[0]:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            os._exit(0 if small() == RIGHT else 3)
    signal.setitimer(signal.ITIMER_REAL, seconds / 20)  # once, lest a slow machine never leave the handler

signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, seconds / 20)
result, seen = call(2), len(ticks)
signal.setitimer(signal.ITIMER_REAL, 0)
print(seen, flush=True)
assert result.tobytes() == expected
assert not wrong
assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
assert small() == RIGHT
"""


@pytest.mark.parametrize(("function", "layout"), [("forward", "channels_first"), ("input_grad", "channels_last"),
                                                  ("kernel_grad", "channels_first")])
def test_handlers_that_return(function, layout):
    """A handler that runs while a call does, calls dwconv itself and once forks: all of them get the right bits.

    Without a look at signals in mid-call it would run once, after the call."""
    assert int(python(RETURN, function, layout)) >= 2


# ---- the call is in another thread ----

THREAD = COMMON + """
faulthandler.dump_traceback_later(60, exit=True)
call, expected, _ = lengthy("forward", "channels_last")
right, ended, stop = [], threading.Event(), threading.Event()

def work():
    while not stop.is_set():
        right.append(call(2).tobytes() == expected)
    ended.set()

sent = []

def send():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

threading.Timer(0.05, send).start()
threading.Thread(target=work).start()
try:
    ended.wait()  # join() is confused by an interruption: python/cpython issue 90882
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
stop.set()
ended.wait()
assert right and all(right)
"""


def test_call_in_another_thread_goes_on():
    """SIGINT is the main thread's, at once, and the other one finishes its call."""
    assert float(python(THREAD)) < SOON
