"""What was built and how it is put together: kernels modules, imports, names in the documents, what an import costs.

Most of it needs a process of its own, since a kernels module is chosen once, at import.  Compiling is not tried here: .ci/run
does that, with gcc, without OpenMP, with bounds checks and from the sdist.
"""

import ast
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import dwconv
from dwconv import _cpu, _runtime

PACKAGE, ROOT = pathlib.Path(dwconv.__file__).parent, pathlib.Path(__file__).parents[1]
RUNNABLE = [name for name in _runtime.built() if name in _cpu.instruction_sets()]


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options)


# ---- kernels modules ----

ALONE = """
import json, sys
import numpy as np
import dwconv
y = dwconv.depthwise_conv2d(np.ones((1, 4, 5, 3), np.float32), np.ones((3, 3), np.float32))
assert (y == 9).all()
loaded = sorted(name for name in sys.modules if name.startswith("dwconv._kernels"))
print(json.dumps([loaded, dwconv.show_config("dicts")]))
"""


@pytest.mark.parametrize("name", _runtime.SUFFIXES)
def test_each_module_alone(name, monkeypatch):
    """DWCONV_KERNELS loads that module and no other, or says why it cannot: never a silent fallback."""
    monkeypatch.setenv("DWCONV_KERNELS", name)
    done = python("-c", ALONE)
    if name not in RUNNABLE:
        assert done.returncode == 1
        assert re.search(rf"ImportError: DWCONV_KERNELS={name}: .*(was not built|does not have)", done.stderr)
        return
    assert done.returncode == 0, done.stderr
    loaded, config = json.loads(done.stdout)
    assert loaded == [f"dwconv._kernels{_runtime.SUFFIXES[name]}"]
    assert (config["kernels"]["used"], config["kernels"]["because"]) == (name, "DWCONV_KERNELS")
    assert config["environment"]["DWCONV_KERNELS"] == name


@pytest.mark.parametrize("name", ["sse9", "AVX2", "_avx2", "../os", "os"])
def test_unknown_module(name, monkeypatch):
    monkeypatch.setenv("DWCONV_KERNELS", name)
    done = python("-c", "import dwconv")
    assert done.returncode == 1
    assert f"ImportError: DWCONV_KERNELS must be one of avx512, avx2, baseline, not {name!r}" in done.stderr


def test_modules_that_are_not_there(monkeypatch):
    """Not built, or not for this CPU: two clear sentences."""
    monkeypatch.setattr(_runtime, "built", lambda: ["baseline"])
    monkeypatch.setattr(_cpu, "instruction_sets", lambda: ["avx2", "baseline"])
    with pytest.raises(ImportError, match=r"DWCONV_KERNELS=avx2: that kernels module was not built, only baseline"):
        _runtime.load("avx2")
    with pytest.raises(ImportError, match=r"DWCONV_KERNELS=avx512: this CPU does not have .*, only avx2, baseline"):
        _runtime.load("avx512")


def test_best_module_by_default(monkeypatch):
    monkeypatch.delenv("DWCONV_KERNELS", raising=False)
    _, config = json.loads(python("-c", ALONE).stdout)
    assert config["kernels"]["used"] == next(name for name in ("avx512", "avx2", "baseline") if name in RUNNABLE)
    assert list(config["kernels"]["built"]) == _runtime.built()
    assert config["kernels"]["cpu runs"] == _cpu.instruction_sets()
    assert _cpu.instruction_sets() in (["avx512", "avx2", "baseline"], ["avx2", "baseline"], ["baseline"])


def test_vector_widths():
    """Each module was compiled for its own instruction set, the baseline for what every such CPU has."""
    widths = {name: _runtime.load(name).build_info()["vector_bytes"] for name in RUNNABLE}
    assert {name: width for name, width in widths.items() if name != "baseline"} == {
        name: width for name, width in {"avx512": 64, "avx2": 32}.items() if name in widths}
    assert widths.get("baseline", 16) in (0, 16, 32, 64)  # 32 and 64: built with DWCONV_NATIVE; none: with DWCONV_MODULES
    assert all(_runtime.load(name).build_info()["compiler"] for name in RUNNABLE)


def test_openmp_is_in_all_modules_or_none():
    assert len({_runtime.load(name).build_info()["openmp"] for name in RUNNABLE}) == 1


def test_show_config(capsys):
    config = dwconv.show_config("dicts")
    assert {"dwconv", "python", "kernels", "workers", "environment"} <= config.keys()
    assert dwconv.show_config() is None
    assert json.loads(capsys.readouterr().out) == config
    with pytest.raises(ValueError, match=r'mode must be "stdout" or "dicts", got \'yaml\''):
        dwconv.show_config("yaml")


# ---- structure ----

FLOORS = {
    "_kernels": 0, "_kernels_avx2": 0, "_kernels_avx512": 0, "_cpu": 0, "_messages": 0,
    "_registry": 1, "_geometry": 1, "_arrays": 1, "_runtime": 1, "_keras_config": 1, "_philox": 1, "_formulas": 1,
    "_oracle": 1,
    "initializers": 2, "constraints": 2, "regularizers": 2, "activations": 2, "_layer_checks": 2, "_plan": 2,
    "_cases": 2, "_weight_entries": 2, "_keras_hdf5": 2.5,  # the last: of _weight_files' own
    "functional": 3, "_weight_files": 3,
    "_layer_base": 3.5, "_layer_gradients": 3.5,  # of layer.py's own
    "layer": 4,
    "_bench_cases": 4, "_bench_peers": 4,
    "__init__": 5, "_bench": 5, "_keras_layers": 5, "_selftest": 5, "dask": 5, "sklearn": 5,
    "__main__": 6,
}


def imported(path):
    """Names of the modules of dwconv that a file imports, at its top or anywhere else."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (name[1] if len(name) > 1 else "__init__" for name in names if name[0] == "dwconv")
        elif isinstance(node, ast.ImportFrom) and (node.level or node.module.split(".")[0] == "dwconv"):
            assert node.level < 2
            module = node.module if node.level else node.module.partition(".")[2]
            yield from [module] if module else (alias.name if alias.name in FLOORS else "__init__" for alias in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_imports_go_down(path):
    """A file imports only from the floors below it; a new file gets its floor in the table."""
    assert path.stem in FLOORS
    wrong = [name for name in imported(path) if FLOORS[name] >= FLOORS[path.stem]]
    assert not wrong, f"{path.name} (floor {FLOORS[path.stem]}) imports {wrong}"


def test_public_names():
    """All of them are there, documented, and nothing else is public but modules."""
    assert sorted(dwconv.__all__) == dwconv.__all__
    assert all(getattr(dwconv, name).__doc__ for name in dwconv.__all__)
    others = {name for name in dir(dwconv) if name[0] != "_"} - set(dwconv.__all__)
    assert all(type(getattr(dwconv, name)).__name__ == "module" for name in others), others


DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.rst"))]


def test_there_is_a_readme():
    assert ROOT / "README.md" in DOCUMENTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_in_documents(document):
    """Files and folders that a document names exist: `code/like/this`, `this.py`, and targets of links."""
    text = re.sub(r"https?://\S+", "", document.read_text(encoding="utf-8"))
    names = re.findall(r"[\w.-]*[\w-]/[\w./-]*\w\.\w+|\b[\w-]+\.(?:py|pyx|h|toml|md|sh|in)\b", text)
    names += re.findall(r"`([\w.-]+/)`", text) + re.findall(r"\]\(([^)#:]+)\)", text)
    folders = [ROOT, ROOT / "tests", ROOT / "asv_bench", ROOT / "docs", PACKAGE.parent, PACKAGE]
    names = [name for name in names if not name.startswith("_generated/")]  # which docs/conf.py writes
    missing = sorted({name for name in names if not any((folder / name).exists() for folder in folders)})
    assert not missing


def test_version():
    assert importlib.metadata.version("dwconv") == dwconv.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", dwconv.__version__)


def test_numpy_is_the_only_requirement():
    needed = [line for line in importlib.metadata.requires("dwconv") if "extra ==" not in line]
    assert [re.match(r"[\w-]+", line)[0] for line in needed] == ["numpy"]


# ---- what an import does ----

SIDE_EFFECTS = """
import os, sys, threading, warnings
import numpy as np

def state():
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()
    files = [os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names]
    return threads, sorted(files), dict(os.environ), np.geterr(), list(warnings.filters), sys.getswitchinterval(), list(sys.path)

before, modules = state(), set(sys.modules)
import dwconv
assert state() == before, (before, state())
assert np.float64(2.0**-1074) * 1.0 > 0 and np.array([1e-310], float)[0] / 2 > 0    # subnormals are not flushed
print(*sorted({name.split(".")[0] for name in set(sys.modules) - modules}))
"""


def test_import_has_no_side_effects(tmp_path, monkeypatch):
    """No threads, files, settings; and nothing imported that is not NumPy's, the standard library's or Cython's bookkeeping."""
    for name in ("HOME", "KERAS_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    done = python("-B", "-c", SIDE_EFFECTS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    foreign = set(done.stdout.split()) - {"dwconv", "numpy", *sys.stdlib_module_names}
    assert not [name for name in foreign if not name.startswith(("cython_runtime", "_cython_"))]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", ["-Werror", "-O", "-OO", "-bb", "-Xdev", "-I", "-Xfrozen_modules=off"])
def test_interpreter_flags(flags):
    done = python(flags, "-c", ALONE)
    assert (done.returncode, done.stderr) == (0, "")


def test_import_time(tmp_path):
    """At most 1.3 times NumPy's own, both compiled: of several processes the best, since a busy machine only ever adds."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}  # the first process fills it
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    ratios = []
    for _ in range(12):
        lines = python("-X", "importtime", "-c", "import dwconv", env=environment).stderr.splitlines()
        total = {fields[2].strip(): int(fields[1]) for fields in (line.split("|") for line in lines[1:])}
        ratios.append(total["dwconv"] / total["numpy"])
        if ratios[-1] <= 1.3:
            return
    pytest.fail(f"import dwconv takes {min(ratios):.2f} times as long as import numpy")
