"""python -m dwconv bench: what it counts, what it refuses, what it prints and writes; and every benchmark of asv_bench once.

Times themselves are not tested: a machine that runs tests has other work.
"""

import importlib
import json
import math
import pathlib
import re
import sys

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import dwconv
from dwconv import __main__, _bench_cases, _bench_peers, _runtime

ROOT = pathlib.Path(__file__).parents[1]
SMALL = "2x9x7x3 k3 s2 d1 m2"


@pytest.fixture(autouse=True)
def small_memory(monkeypatch):
    """Copies of 128 MiB take longer than all the rest."""
    monkeypatch.setattr(_bench_cases, "LEVELS", [(2**k, f"{k} MiB") for k in (10, 12, 14)])


def bench(capsys, *arguments):
    """Exit code, stdout and stderr of a run without time to spend."""
    code = __main__.main(["bench", "--seconds", "0.0005", *arguments])
    return code, *capsys.readouterr()


# ---- shapes and their cost ----

def test_shape():
    assert _bench_cases.shape("a", "1x2x3x4 k5") == ("a", (1, 2, 3, 4), (5, 5), 1, 1, 1)
    assert _bench_cases.shape("b", "1x2x3x4 k5x6 s7 d8 m9") == ("b", (1, 2, 3, 4), (5, 6), 7, 8, 9)
    assert _bench_cases.shape("c", "1x2x3x4 k5 m2").multiplier == 2
    assert [s.name for s in _bench_cases.chosen(["tiny", "14x14x512"], ["1x2x3x4 k1"])] == [
        "mobilenet_v1_14x14x512_k3", "tiny_4x4x8_k3", "1x2x3x4 k1"]
    assert [s.name for s in _bench_cases.chosen([], [])] == list(_bench_cases.SHAPES)
    assert [s.name for s in _bench_cases.chosen([], ["1x2x3x4 k1"])] == ["1x2x3x4 k1"]


def test_names_tell_shapes():
    """A name holds its sizes, and asv_bench has the same table."""
    for name, text in _bench_cases.SHAPES.items():
        (_, h, w, c), (k, _), stride, dilation, multiplier = _bench_cases.shape(name, text)[1:]
        extra = "".join(f"{letter}{n}" for letter, n in (("s", stride), ("d", dilation), ("m", multiplier)) if n > 1)
        assert name.endswith(f"_{h}x{w}x{c}_k{k}{extra}")
    table = suite().import_module("benchmarks.shapes").SHAPES
    assert {name: (s.x, s.kernel_size[0], s.stride, s.dilation, s.multiplier) for name in _bench_cases.SHAPES
            for s in _bench_cases.chosen([name], [])} == table


sizes = st.integers(1, 9)


@settings(max_examples=60)
@given(x=st.tuples(st.integers(1, 2), sizes, sizes, st.integers(1, 3)), k=st.tuples(st.integers(1, 5), st.integers(1, 5)),
       stride=st.integers(1, 4), dilation=st.integers(1, 3), m=st.integers(1, 2), layout=st.sampled_from(_bench_cases.LAYOUTS))
def test_multiply_adds_and_bytes(x, k, stride, dilation, m, layout):
    """Multiply-adds are the sum of a convolution of ones; bytes are those of the arrays."""
    shape = _bench_cases.Shape("", x, k, stride, dilation, m)
    try:
        case = _bench_cases.Case(shape, "forward", layout, "float32", 1)
    except ValueError:  # a kernel larger than the padded image, or only padding under the taps
        reject()
    ones = dwconv.depthwise_conv2d(np.ones_like(case.x), np.ones_like(case.kernel), strides=stride, padding=case.pads,
                                   dilation_rate=dilation, data_format=layout)
    assert case.multiply_adds == ones.sum() > 0
    assert case.bytes == 4 * (case.x.size + case.kernel.size + case.bias.size + ones.size)


def test_limit_is_the_larger_time():
    machine = _bench_cases.Machine("float32", 1, 1e-4)
    case = _bench_cases.Case(_bench_cases.shape("", SMALL), "forward", "channels_last", "float32", 1)
    arithmetic = case.multiply_adds / machine.peak
    assert machine.limit(case, arithmetic * 2) == (arithmetic * 2, "memory")
    assert machine.limit(case, arithmetic / 2) == (arithmetic, "arithmetic")


def test_multiply_adds_of_the_module(kernels):
    """A vector of doubles has half as many lanes; every worker does all its steps."""
    module = _runtime.load(kernels)
    lanes = max(module.build_info()["vector_bytes"] // 4, 1)
    single = module.multiply_adds(False, 10, 1)
    assert single > 0
    assert single % (10 * lanes) == 0
    assert module.multiply_adds(True, 10, 1) == (single // 2 if lanes > 1 else single)
    assert module.multiply_adds(False, 20, 3) == 6 * single


@pytest.mark.parametrize("size", [1, 5, 64, 1000])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_copies(kernels, size, workers):
    source = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    memory = np.zeros(size + 2, np.uint8)
    _runtime.load(kernels).copies(source, memory[1:-1], 3, workers)
    np.testing.assert_array_equal(memory[1:-1], source)
    assert memory[0] == memory[-1] == 0


def test_measure_calls_as_often_as_it_says(monkeypatch):
    """With a clock that runs a second a call, a call takes a second."""
    clock = {"now": 0.0}
    monkeypatch.setattr(_bench_cases.time, "perf_counter", lambda: clock["now"])

    def call(step):
        clock["now"] += step
    runs = {"slow": _bench_cases.repeated(lambda: call(1.0)), "fast": _bench_cases.repeated(lambda: call(0.25))}
    assert _bench_cases.measure(runs, 14.0) == {"slow": 1.0, "fast": 0.25}
    assert clock["now"] == 3 + 3 / 4 + 7 * 2 * 2  # two to warm up and one to tell how long; then 2 seconds each a round


# ---- the command ----

@pytest.mark.parametrize("direction", _bench_cases.PASSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_table(direction, dtype, capsys):
    code, out, err = bench(capsys, "tiny", "--shape", SMALL, "--pass", direction, "--dtype", dtype, "--workers", "2")
    assert (code, err) == (0, "")
    assert out.startswith(f"{direction}, {dtype}, 2 worker(s), {_runtime.kernels_name} kernels\nthis machine: ")
    assert re.search(r"this machine: \d+\.\d GFLOP/s in registers; copies at (\d+\.\d GB/s of \d+ [KM]iB(, )?){3}\n", out)
    rows = [line for line in out.splitlines() if re.search(r"  channels_(last|first) ", line)]
    assert [re.split(r"  +", row)[:2] for row in rows] == [
        [name, layout] for layout in _bench_cases.LAYOUTS for name in ("tiny_4x4x8_k3", SMALL)]
    assert all(re.search(r"  \d+\.\d +\d+\.\d +\d+\.\d +-$", row) for row in rows)  # too small for a share of the limit
    assert "geometric mean: of limit -" in out


def test_limit_table(capsys):
    """Bytes and multiply-adds are exact: 14 rows of 3 taps that all meet the image but at both ends, in both directions."""
    code, out, _ = bench(capsys, "v1_14x14x512", "--limit", "--layout", "channels_first")
    assert code == 0
    assert re.search(r"\nshape +layout +bytes +multiply-adds +limit us +limited by +time us +reached\n", out)
    row = out.splitlines()[-1]
    numbers = re.fullmatch(r"mobilenet_v1_14x14x512_k3 +channels_first +([\d,]+) +([\d,]+) +\d+\.\d +(?:memory|arithmetic) +"
                           r"\d+\.\d +\d+%", row)
    assert int(numbers[1].replace(",", "")) == 4 * 512 * (2 * 14 * 14 + 9 + 1)
    assert int(numbers[2].replace(",", "")) == 512 * 40 * 40


def test_busy_machine(monkeypatch, capsys):
    """A share that cannot be is said to be none."""
    monkeypatch.setattr(_bench_cases.Machine, "limit", lambda machine, case, copy: (1e3, "memory"))
    code, _, err = bench(capsys, "v1_7x7", "--layout", "channels_first")
    assert code == 0
    assert err == ("python -m dwconv bench: a share well above 100 %: other work ran while the limit was measured, "
                   "so none of them counts\n")


def test_json(tmp_path, capsys):
    path = tmp_path / "out.json"
    code, out, err = bench(capsys, "--shape", SMALL, "--json", str(path), "--layout", "channels_last")
    assert (code, err) == (0, "")
    assert SMALL in out
    written = json.loads(path.read_text())
    code, out, err = bench(capsys, "--shape", SMALL, "--json", "-", "--layout", "channels_last")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    for result in (written, printed):
        assert result["config"] == dwconv.show_config("dicts")
        assert 1e8 < result["peak_flops"] < 1e15
        assert all(1e4 < rate < 1e15 for rate in result["copy_bytes_per_second"].values())
        (row,) = result["rows"]
        assert row["shape"] == SMALL
        assert 0 < row["seconds"]["dwconv"] < 10
        assert 0 < row["limit_seconds"] < 10
        assert (row["workers"], row["wrong"]) == (1, [])


def test_output_is_not_replaced(tmp_path, capsys):
    path = tmp_path / "out.json"
    path.write_text("mine")
    arguments = ["--shape", SMALL, "--layout", "channels_last", "--json", str(path)]
    assert bench(capsys, *arguments) == (2, "", f"python -m dwconv bench: {path} exists; --force replaces it\n")
    assert path.read_text() == "mine"
    assert bench(capsys, *arguments, "--force")[0] == 0
    assert json.loads(path.read_text())["rows"]


def test_plot(tmp_path, capsys):
    path = tmp_path / "out.png"
    assert bench(capsys, "tiny", "--shape", SMALL, "--plot", str(path), "--against", "scipy")[0] == 0
    pixels = matplotlib.image.imread(path)
    assert pixels[..., :3].std() > 0.05


@pytest.mark.parametrize(("arguments", "message"), [
    (["nothing_like_it"], "no shape is called 'nothing_like_it'; there are mobilenet_v1_112x112x32_k3, "),
    (["--shape", "1x2x3"], 'a shape is written like "1x56x56x128 k3 s2 d1 m1"'),
    (["--shape", "1x2x3x4 k3 s1 " + "9" * 999], "a shape is written like"),
    (["--shape", "1x2x3x4 k3 s٣"], "a shape is written like"),
    (["--shape", "1x2x3x4 k123456"], "of at most 5 digits each"),
    (["--shape", "0x2x3x4 k3"], "0x2x3x4 k3: there is nothing to compute"),
    (["--shape", "1x0x3x4 k3"], "computed output size would be zero or negative"),
    (["--shape", "1x2x3x0 k3"], "must be at least 1"),
    (["--shape", "1x2x3x4 k0"], "must be at least 1"),
    (["--shape", "1x2x3x4 k3 s0"], "strides must be at least 1"),
    (["--shape", "1x1x1x4 k4"], "computed output size would be zero or negative"),
    (["--shape", "99999x99999x99999x99999 k3"], ""),
    (["--workers", "0"], "workers must not be 0"),
    (["--seconds", "0"], "--seconds must be more than 0"),
    (["--seconds", "nan"], "--seconds must be more than 0"),
    (["--against", "torch,nothing"], "--against takes some of torch,onnxruntime,openvino,tensorflow,scipy,opencv; got 'nothing'"),
    (["--json", "nowhere/out.json"], "nowhere/out.json cannot be written: there is no folder"),
    (["--json", "."], ". cannot be written: it is a folder"),
    (["--plot", "out.nothing"], "--plot writes "),
    (["--plot", "out"], "--plot writes "),
], ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None)
def test_bad_input(arguments, message, tmp_path, monkeypatch, capsys):
    """One line, exit code 2, no file."""
    monkeypatch.chdir(tmp_path)
    code, out, err = bench(capsys, *arguments)
    assert code == 2
    assert err.startswith("python -m dwconv bench: ")
    assert message in err
    assert err.count("\n") == 1
    assert "99999" in " ".join(arguments) or out == ""  # only memory that is not there is found out late
    assert not list(tmp_path.iterdir())


def test_plot_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    code, out, err = bench(capsys, "tiny", "--plot", str(tmp_path / "out.png"))
    assert (code, out) == (2, "")
    assert "needs the demo extra (pip install 'dwconv[demo]')" in err


def test_without_tqdm(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    code, out, err = bench(capsys, "tiny")
    assert (code, err) == (0, "")
    assert out.count("tiny_4x4x8_k3") == 2


def test_progress_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    code, out, err = bench(capsys, "tiny")
    assert code == 0
    assert out.count("tiny_4x4x8_k3") == 2
    assert "/2" in err


def test_wrong_result_is_no_time(monkeypatch, capsys):
    right = _bench_cases.Case.dwconv
    monkeypatch.setattr(_bench_cases.Case, "dwconv", lambda case: right(case) + np.float32(0.1))
    code, out, err = bench(capsys, "tiny", "--layout", "channels_last", "--limit")
    assert code == 1
    assert "tiny_4x4x8_k3 channels_last: dwconv WRONG RESULT, off by " in err
    assert re.search(r"tiny_4x4x8_k3.*-  +-$", out, re.MULTILINE)


# ---- other libraries ----

MODULES = {name: _bench_peers.NEEDS.get(name, (name,)) for name in _bench_peers.PEERS}


@pytest.mark.parametrize("name", _bench_peers.PEERS)
def test_library(name, capsys):
    """It agrees with dwconv on whatever it can do, and does something."""
    for module in MODULES[name]:
        pytest.importorskip(module)
    shapes = [part for text in ("2x9x8x3 k3", "1x9x8x4 k5x3", "1x12x11x4 k3 s2", "1x9x8x4 k3 s1 d2", "1x9x8x4 k3 s1 d1 m2")
              for part in ("--shape", text)]
    done = 0
    for direction in _bench_cases.PASSES:
        code, out, err = bench(capsys, *shapes, "--pass", direction, "--against", name, "--json", "-")
        assert code == 0, err
        assert all(line.startswith(f"python -m dwconv bench: {name} left out: ") for line in err.splitlines())
        done += sum(name in row["seconds"] for row in json.loads(out)["rows"])
    assert done >= 2


def test_columns_of_libraries(capsys):
    pytest.importorskip("scipy")
    code, out, err = bench(capsys, "tiny", "--shape", "1x9x8x4 k3 s2", "--against", "scipy")
    assert (code, err) == (0, "python -m dwconv bench: scipy left out: it has only stride, dilation and multiplier 1\n")
    assert re.search(r"of limit +scipy us +best/dwconv\n", out)
    assert re.search(r"tiny_4x4x8_k3 +channels_last .* \d+\.\d +\d+\.\d\d$", out, re.MULTILINE)
    assert re.search(r"1x9x8x4 k3 s2 +channels_last .* - +-$", out, re.MULTILINE)
    assert float(re.search(r"best/dwconv (\d+\.\d\d)$", out.strip())[1]) > 0


def test_missing_libraries(monkeypatch, capsys):
    monkeypatch.setattr(_bench_peers, "find_spec", lambda name: None)
    code, out, err = bench(capsys, "tiny", "--against", "torch,opencv,onnxruntime")
    assert code == 0
    assert err.splitlines() == [
        "python -m dwconv bench: torch left out: not installed: torch",
        "python -m dwconv bench: opencv left out: not installed: cv2",
        "python -m dwconv bench: onnxruntime left out: not installed: onnxruntime, onnx"]
    assert "best/dwconv" not in out


def test_library_that_differs(monkeypatch, capsys):
    """Off, of another shape, NaN: no time, and exit code 1."""
    for spoil in (lambda y: y + 1, lambda y: y[0], lambda y: y * np.nan):
        monkeypatch.setitem(_bench_peers.PEERS, "scipy", lambda case, spoil=spoil: (case.dwconv, spoil))
        monkeypatch.setattr(_bench_peers, "missing", lambda name: None)
        code, out, err = bench(capsys, "tiny", "--layout", "channels_last", "--against", "scipy")
        assert code == 1
        assert "scipy WRONG RESULT" in err
        assert re.search(r"^tiny_4x4x8_k3.*- +-$", out, re.MULTILINE)


# ---- asv_bench ----

def suite():
    """importlib, with asv_bench on the path; the modules of earlier calls are forgotten."""
    if str(ROOT / "asv_bench") not in sys.path:
        sys.path.append(str(ROOT / "asv_bench"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]
    return importlib


def benchmarks():
    """(class, name of a method) of all benchmarks."""
    for path in sorted((ROOT / "asv_bench" / "benchmarks").glob("[!_]*.py")):
        module = suite().import_module(f"benchmarks.{path.stem}")
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__:
                for name in vars(cls):
                    if re.match("(time|timeraw|peakmem|track)_", name):
                        yield cls, name


def parameters(cls):
    """Of a small run: the last of everything, but few workers, and the cheapest shape."""
    params = getattr(cls, "params", ())
    small = {"workers": 2, "shape": "efficientnet_b0_14x14x672_k5"}
    axes = [params] if params and not isinstance(params[0], tuple) else params
    return [small.get(name, axis[-1]) for name, axis in zip(getattr(cls, "param_names", ()), axes, strict=True)]


def test_benchmarks_run(monkeypatch):
    """Each once: versions are fixed, and nothing is left of what a benchmark sets."""
    monkeypatch.setattr(_runtime, "kernels", _runtime.kernels)
    monkeypatch.setattr(_bench_cases, "measure", lambda runs, seconds: {name: run(1) or 1.0 for name, run in runs.items()})
    found = list(benchmarks())
    assert len(found) >= 14
    for cls, name in found:
        assert isinstance(cls.version, str)
        instance, arguments = cls(), parameters(cls)
        if hasattr(cls, "param_names") and "kernels" in cls.param_names:
            arguments[cls.param_names.index("kernels")] = _runtime.built()[-1]
        if hasattr(instance, "setup"):
            instance.setup(*arguments)
        result = getattr(instance, name)(*arguments)
        if name.startswith("track_"):
            assert 0 < result < math.inf
            assert cls.unit
        if name.startswith("timeraw_"):
            statement, setup = (result, "") if isinstance(result, str) else result
            exec(setup + "\n" + statement, {})


def test_benchmarks_of_an_old_commit(monkeypatch):
    """What a commit does not have is n/a: NotImplementedError from setup, and no other failure at import or there."""
    for name in ("depthwise_conv2d_input_grad", "depthwise_conv2d_kernel_grad"):
        monkeypatch.delattr(dwconv, name)
    monkeypatch.setitem(sys.modules, "dwconv._bench_cases", None)
    monkeypatch.delattr(dwconv, "_bench_cases")
    absent = set()
    for cls, _ in benchmarks():
        try:
            if hasattr(cls, "setup"):
                cls().setup(*parameters(cls))
        except NotImplementedError as error:
            absent.add((cls.__name__, str(error).split()[-1]))
    assert {name for name, _ in absent} == {"InputGrad", "KernelGrad", "Modules", "Workers", "Calls", "PeakMemory", "Limit"}
    assert ("InputGrad", "dwconv.depthwise_conv2d_input_grad") in absent
