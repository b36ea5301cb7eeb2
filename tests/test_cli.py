"""python -m dwconv: what it prints and writes, and how it fails: exit code 2 or 1 and one line, never a traceback.

`python -m` itself is run where the process matters; the rest calls `main` in this one, since matplotlib takes a second to
import.  Whether the panels look like their labels is for people to see.
"""

import json
import os
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

import dwconv
from dwconv import __main__, _runtime


def module(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "dwconv", *arguments], capture_output=True, text=True, timeout=100, cwd=cwd)


def picture(path, mode, size=(23, 17)):
    """A small picture of noise."""
    channels = {"L": (), "I;16": (), "RGB": (3,), "RGBA": (4,), "LA": (2,), "P": ()}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], *channels), np.uint8)
    if mode == "I;16":
        Image.fromarray(pixels.astype(np.uint16) * 257).save(path)
    elif mode == "P":
        Image.fromarray(pixels).convert("P").save(path)
    else:
        Image.fromarray(pixels).save(path)
    return path


def test_info(tmp_path):
    done = module("info", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    config = json.loads(done.stdout)
    assert {"dwconv", "python", "kernels", "workers", "environment"} <= config.keys()
    assert config["dwconv"]["version"] == dwconv.__version__
    assert config["kernels"]["used"] in config["kernels"]["built"]
    assert not list(tmp_path.iterdir())


def test_demo(tmp_path):
    """The sample photograph, as the README has it: what ran is printed, and the picture is one."""
    done = module("demo", "-o", "out.png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert f"kernels module {_runtime.kernels_name}" in done.stdout
    assert re.search(r"at most \d+ workers", done.stdout)
    assert re.search(r"x \(1, \d+, \d+, 3\) float32", done.stdout)
    assert len(re.findall(r" ms .* GFLOP/s .* largest difference \d", done.stdout)) == len(__main__.FILTERS)
    worst = float(re.search(r"largest difference to float64 NumPy over all filters: (\S+)", done.stdout)[1])
    assert 0 < worst < 1e-5
    pixels = matplotlib.image.imread(tmp_path / "out.png")
    assert min(pixels.shape[:2]) > 500
    assert pixels[..., :3].std() > 0.1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "I;16"])
def test_demo_of_a_picture(mode, tmp_path, capsys):
    """Colour, grey, with transparency, a palette, 16 bits."""
    path, output = picture(tmp_path / "in.png", mode), tmp_path / "out.png"
    assert __main__.main(["demo", str(path), "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    assert f"image {path}: x (1, 17, 23, 3) float32" in printed
    assert matplotlib.image.imread(output).ndim == 3


def test_read_image(tmp_path):
    """Values are the file's, from 0 to 1."""
    pixels = np.asarray(Image.open(picture(tmp_path / "in.png", "RGB")))
    np.testing.assert_allclose(__main__.read_image(tmp_path / "in.png"), pixels / 255, rtol=1e-6)
    grey = np.asarray(Image.open(picture(tmp_path / "grey.png", "I;16")))
    np.testing.assert_allclose(__main__.read_image(tmp_path / "grey.png"), np.stack([grey / 65535] * 3, -1), rtol=1e-6)


def test_demo_writes_demo_png_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["demo", str(picture(tmp_path / "in.png", "L"))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "wrote demo.png"
    assert (tmp_path / "demo.png").stat().st_size > 1000


def bad_files(folder):
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    whole = picture(folder / "whole.png", "RGB").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "folder.png").mkdir()


@pytest.mark.parametrize("arguments", [
    ["missing.png"], ["text.png"], ["empty.png"], ["cut.png"], ["folder.png"],
    ["whole.png", "-o", "nowhere/out.png"], ["whole.png", "-o", "folder.png"],
], ids=str)
def test_bad_paths(arguments, tmp_path, monkeypatch, capsys):
    bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["demo", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m dwconv demo: ")
    assert error.count("\n") == 1


def test_bad_path_of_the_process(tmp_path):
    done = module("demo", "missing.png", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"python -m dwconv demo: .*missing\.png.*\n", done.stderr)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert __main__.main(["demo"]) == 2
    assert re.fullmatch(r".*needs the demo extra \(pip install 'dwconv\[demo\]'\).*\n", capsys.readouterr().err)


def test_pictures_are_not_replaced(tmp_path, capsys):
    path, output = picture(tmp_path / "in.png", "L"), tmp_path / "out.png"
    output.write_text("mine")
    assert __main__.main(["demo", str(path), "-o", str(output)]) == 2
    assert capsys.readouterr() == ("", f"python -m dwconv demo: {output} exists; --force replaces it\n")
    assert output.read_text() == "mine"
    assert __main__.main(["demo", str(path), "-o", str(output), "--force"]) == 0
    assert matplotlib.image.imread(output).ndim == 3


@pytest.mark.parametrize("arguments", [
    [], ["nothing"], ["info", "more"], ["demo", "--nothing"], ["demo", "a", "b"], ["bench", "--nothing"],
    ["bench", "--pass", "sideways"], ["bench", "--layout", "nhwc"], ["bench", "--dtype", "float16"],
    ["bench", "--workers", "two"], ["bench", "--seconds", "long"], ["bench", "--shape"], ["bench", "--json"]], ids=str)
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m dwconv")


def test_usage_of_the_process(tmp_path):
    done = module(cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m dwconv")
    assert "Traceback" not in done.stderr


# ---- streams ----

BENCH = ["bench", "tiny", "--seconds", "0.0001"]
SMALL = "import sys; from dwconv import _bench_cases, __main__; _bench_cases.LEVELS = (); sys.exit(__main__.process())"


def started(arguments, cwd, **streams):
    """The command in a process, without the copies of 128 MiB."""
    return subprocess.run([sys.executable, "-c", SMALL, *arguments], text=True, timeout=100, cwd=cwd, **streams)


@pytest.mark.parametrize("arguments", [["info"], BENCH], ids=lambda value: value[0])
def test_reader_that_went_away(arguments, tmp_path):
    """`python -m dwconv info | head -1`: exit code 1, and nothing to say about it."""
    read, write = os.pipe()
    os.close(read)
    done = started(arguments, tmp_path, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_reader_of_demo_that_went_away(tmp_path, monkeypatch):
    """Not an error of the file that is read or written, though both are OSError."""
    def gone(*arguments):
        raise BrokenPipeError
    monkeypatch.setattr(__main__, "demo", gone)
    with pytest.raises(BrokenPipeError):
        __main__.main(["demo", "-o", str(tmp_path / "out.png")])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's device for this")
def test_full_disk(tmp_path):
    with open("/dev/full", "w") as full:
        done = started(["info"], tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode in (1, 2)  # it depends on the buffer whether the command finds out, or the end of the process
    assert re.fullmatch(r"python -m dwconv(?: info)?: \[Errno 28\] .*\n", done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors in the child")
@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_closed_streams(descriptor, tmp_path):
    """Without stdin, stdout or stderr: what remains says what it says otherwise."""
    done = started(BENCH, tmp_path, capture_output=True, preexec_fn=lambda: os.close(descriptor))
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("tiny_4x4x8_k3" in done.stdout) == (descriptor != 1)


def test_interrupt(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(__main__._bench, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["dwconv", "bench"])
    assert __main__.process() == 130
    assert capsys.readouterr() == ("", "")


def test_difference_is_noticed(tmp_path, monkeypatch, capsys):
    """A wrong kernel makes the demo fail: its difference is to an independent computation."""
    right = dwconv.depthwise_conv2d
    monkeypatch.setattr(dwconv, "depthwise_conv2d", lambda *args, **options: right(*args, **options) + np.float32(0.01))
    assert __main__.main(["demo", str(picture(tmp_path / "in.png", "RGB")), "-o", str(tmp_path / "out.png")]) == 1
    assert "over all filters: 1.0e-02" in capsys.readouterr().out
