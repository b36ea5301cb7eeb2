"""python -m dwconv selftest: that it passes, that its cases are of every kind, and that it finds what is broken and repeats it.

Its oracle and the tests' own are written differently; here they are compared.
"""

import random
import re
import subprocess
import sys
import types

import conftest
import numpy as np
import oracle
import pytest

from dwconv import __main__, _cases, _oracle, _runtime, _selftest

SUMMARY = r"seed (\d+): (\d+) cases on ([\w, ]+) in [\d.]+ s, (\d+) failures\n"


def selftest(*arguments):
    return __main__.main(["selftest", *map(str, arguments)])


@pytest.mark.parametrize("geometry", [
    {"strides": (1, 1), "dilation_rate": (1, 1), "padding": "same"},
    {"strides": (2, 3), "dilation_rate": (2, 1), "padding": "same"},
    {"strides": (3, 1), "dilation_rate": (1, 3), "padding": "valid"},
    {"strides": (1, 2), "dilation_rate": (3, 2), "padding": ((4, 0), (1, 7))},
], ids=str)
def test_oracles_agree(geometry):
    x, kernel = oracle.integers((2, 11, 10, 3), 1), oracle.integers((3, 2, 3, 2), 2)
    y = _oracle.conv(x, kernel, **geometry)
    assert np.array_equal(y.reshape(*y.shape[:3], 6), oracle.conv(x, kernel, **geometry))
    (rows, _), (cols, _) = _oracle.axes(x.shape[1:3], (3, 2), **geometry)
    assert y.shape == (2, rows, cols, 3, 2)
    grad = oracle.integers(y.shape, 3)
    flat = grad.reshape(*grad.shape[:3], 6)
    for function, *arguments in (("input_grad", grad, kernel, x.shape), ("kernel_grad", x, grad, (3, 2))):
        expected = getattr(oracle, function)(*[flat if a is grad else a for a in arguments], **geometry)
        assert np.array_equal(getattr(_oracle, function)(*arguments, **geometry), expected)


# ---- the cases ----

KINDS = {
    "convolution": lambda c: c.function == "conv",
    "input gradient": lambda c: c.function == "input_grad",
    "kernel gradient": lambda c: c.function == "kernel_grad",
    "channels_first": lambda c: c.data_format == "channels_first",
    "no images": lambda c: c.image[0] == 0,
    "aligned blocks": lambda c: c.image[3] >= 128 and c.kernel[3] == 1,
    "pixels 2 KB apart": lambda c: c.function == "kernel_grad" and c.image[3] * c.result.itemsize % 2048 == 0,
    "few channels": lambda c: c.image[3] < 4,
    "long rows": lambda c: 192 <= c.image[2] < 1000,
    "rows beyond GRAD_COLS": lambda c: c.image[2] > 1024 and c.function == "input_grad",
    "wide kernel": lambda c: c.kernel[1] > 32,
    "tall kernel": lambda c: c.kernel[0] > 8 and c.kernel[1] < 3,
    "31x31": lambda c: min(c.kernel[:2]) >= 15,
    "stride 3": lambda c: c.geometry["strides"] == (3, 3),
    "stride and dilation": lambda c: min(c.geometry["strides"] + c.geometry["dilation_rate"]) > 1,
    "explicit padding": lambda c: not isinstance(c.geometry["padding"], str) and c.geometry["padding"][0][0] > 2,
    "multiplier": lambda c: c.kernel[3] > 4,
    "more than the caches hold": lambda c: c.image[0] > 3,
    "one image": lambda c: c.function == "conv" and len(c.arrays["x"].shape) == 3,
    "2-D kernel": lambda c: "kernel" in c.arrays and len(c.arrays["kernel"].shape) == 2,
    "bias": lambda c: "bias" in c.arrays,
    "relu": lambda c: c.options.get("activation") == "relu",
    "relu6": lambda c: c.options.get("activation") == "relu6",
    "many workers": lambda c: c.options["workers"] == 61,
    "float64": lambda c: c.result == np.float64,
    "float16": lambda c: c.result == np.float16,
    "bfloat16": lambda c: c.result.name == "bfloat16",
    "integers": lambda c: any(a.dtype.kind in "iu" for a in c.arrays.values()),
    "bool": lambda c: any(a.dtype.kind == "b" for a in c.arrays.values()),
    "byte-swapped": lambda c: any(not a.dtype.isnative for a in c.arrays.values()),
    "read-only": lambda c: any(not a.writeable for a in c.arrays.values()),
    "misaligned": lambda c: any(a.offset % a.dtype.itemsize for a in c.arrays.values()),
    "backwards": lambda c: any(min(a.strides) < 0 for a in c.arrays.values()),
    "broadcast": lambda c: any(0 in a.strides for a in c.arrays.values()),
    "Fortran": lambda c: any(a.strides[0] == a.dtype.itemsize < min(a.strides[1:]) for a in c.arrays.values() if a.shape[1:]),
    "stepped": lambda c: any(min(map(abs, a.strides)) > a.dtype.itemsize for a in c.arrays.values()),
    "out": lambda c: c.out is not None,
    "out in an input's memory": lambda c: c.shared is not None,
    "NaN": lambda c: c.holes,
}


def test_cases_are_of_every_kind():
    pytest.importorskip("ml_dtypes")
    missing = dict(KINDS)
    for number in range(6000):
        case = _cases.draw(1, number)
        missing = {name: test for name, test in missing.items() if not test(case)}
        if not missing:
            return
    pytest.fail(f"never drawn: {', '.join(missing)}")


def test_a_case_follows_from_seed_and_number():
    some = [_cases.draw(seed, number) for seed, number in [(1, 7), (1, 8), (2, 7), (1, 7)]]
    assert some[0] == some[3]
    assert len({str(case) for case in some}) == 3
    assert some[1] == _cases.draw(1, 8)


def test_gaps_take_little_memory():
    """Once one took 11 GB: an axis of 1790 elements had the stride of one of 223."""
    large = [_cases._placed(random.Random(k), (2, 223, 1790, 1), np.dtype(float)) for k in range(300)]
    assert 2**23 < max(array.nbytes for array in large) <= 2**26


# ---- runs ----

def test_short_run(capsys):
    """It passes on every kernels module, and leaves the settings that it changes as they were."""
    before = _runtime.GRAIN, _runtime.kernels
    assert selftest("--cases", 200, "--seed", 4) == 0
    assert (_runtime.GRAIN, _runtime.kernels) == before
    printed = capsys.readouterr()
    assert re.fullmatch(SUMMARY, printed.out).groups() == ("4", "200", ", ".join(conftest.runnable()), "0")
    assert printed.err == ""  # the bar is for terminals


def test_seconds_end_a_run(capsys):
    assert selftest("--seconds", 0) == 0
    first = re.fullmatch(SUMMARY, capsys.readouterr().out)
    assert selftest("--seconds", 0) == 0
    second = re.fullmatch(SUMMARY, capsys.readouterr().out)
    assert first[2] == second[2] == "1"
    assert first[1] != second[1]  # other cases each time; by chance the same once in a million


def test_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert selftest("--cases", 1, "--seed", 1) == 0
    assert re.match(r"\r\[ {30}\] 0 cases, 0 failures *\r\r {79}\r$", capsys.readouterr().err)


def test_verbose(capsys):
    assert selftest("--case", 3, "--seed", 1, "-v") == 0
    assert capsys.readouterr().out.startswith(f"{_cases.draw(1, 3)}\nseed 1: 1 cases")


PROCESS = "import sys; sys.modules['ml_dtypes'] = None; from dwconv.__main__ import main; sys.exit(main(sys.argv[1:]))"


def test_without_ml_dtypes():
    command = [sys.executable, "-c", PROCESS, "selftest", "--cases", "50", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(SUMMARY, done.stdout)


# ---- what is broken is found ----


def broken(module, name, fault):
    """A kernels module whose function `name` does what it should, and then the fault to (result, first input)."""
    def function(data_format, *arguments):
        result = arguments[3 if name == "forward" else 2]
        done = getattr(module, name)(data_format, *arguments)
        if done:
            fault(result, arguments[0])
        return done

    functions = {other: getattr(module, other) for other in ("forward", "input_grad", "kernel_grad", "max_threads")}
    return types.SimpleNamespace(**{**functions, name: function})


def off_by_one(result, _):
    """In the last channel or column of some shapes."""
    if result.shape[-1] % 4 == 3:
        result[..., -1] += 1


def lost(result, _):
    """A NaN."""
    np.nan_to_num(result, copy=False)


def writes_elsewhere(result, _):
    """Where the buffer that `out` lies in begins."""
    while result is not None and result.dtype != np.uint8:
        result = result.base
    if result is not None:
        result[-result.ctypes.data % 64] = 7


def changes_input(_, first):
    if first.flags.writeable:
        first[..., :1] = 3


def fails(result, _):
    raise ZeroDivisionError(f"shape {result.shape}")


@pytest.mark.parametrize("fault", [off_by_one, lost, writes_elsewhere, changes_input, fails])
@pytest.mark.parametrize("function", ["forward", "input_grad", "kernel_grad"])
def test_faults_are_found_and_repeated(function, fault, monkeypatch, capsys):
    """One of the modules is broken in one function, most often or rarely: found, and the line that is printed finds it again."""
    name = conftest.runnable()[0]
    modules = {other: _runtime.load(other) for other in conftest.runnable()}
    modules[name] = broken(modules[name], function, fault)
    monkeypatch.setattr(_runtime, "load", modules.get)
    monkeypatch.setattr(_runtime, "kernels", modules[name])  # what runs if DWCONV_KERNELS names it
    monkeypatch.setattr(_selftest, "MOST_FAILURES", 2)
    assert selftest("--cases", 1000, "--seed", 1) == 1
    printed = capsys.readouterr().out
    assert re.search(SUMMARY, printed)[4] == "2"  # then it stops
    found = re.findall(rf"^{name}: (.+)\n  Case\(.+\)\n  again: python -m dwconv (selftest --seed 1 --case \d+)$", printed, re.M)
    assert len(found) == 2
    message, line = found[-1]
    assert __main__.main(line.split()) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(f"{name}: {message}\n")
    assert re.search(SUMMARY, printed)[4] == "1"
    monkeypatch.undo()
    assert __main__.main(line.split()) == 0


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--seconds", "soon"], "argument --seconds: must be a number of at least 0, not 'soon'"),
    (["--seconds", "-1"], "argument --seconds: must be a number of at least 0, not '-1'"),
    (["--seconds", "inf"], "argument --seconds: must be a number of at least 0, not 'inf'"),
    (["--cases", "0"], "argument --cases: must be an integer of at least 1, not '0'"),
    (["--cases", "1.5"], "argument --cases: must be an integer of at least 1, not '1.5'"),
    (["--seed", "-1"], "argument --seed: must be an integer of at least 0, not '-1'"),
    (["--seed", "1", "--case", "x"], "argument --case: must be an integer of at least 0, not 'x'"),
    (["--case", "1", "--cases", "2"], "argument --cases: not allowed with argument --case"),
    (["--case", "1", "--seconds", "2"], "argument --seconds: not allowed with argument --case"),
], ids=str)
def test_wrong_arguments(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as caught:
        selftest(*arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"python -m dwconv selftest: error: {sentence}\n")


def test_case_without_seed(capsys):
    assert selftest("--case", 1) == 2
    assert capsys.readouterr().err == "python -m dwconv selftest: --case needs the --seed that it belongs to\n"
