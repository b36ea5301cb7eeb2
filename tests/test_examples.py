"""The worked examples, run as their users run them: each reaches what it promises, well under a minute."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
NEEDED = ("matplotlib", "PIL", "scipy", "sklearn", "threadpoolctl", "tqdm")
MISSING = [name for name in NEEDED if not importlib.util.find_spec(name)]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs the extra `examples`: {', '.join(MISSING)} not installed")


def run(name, *arguments):
    """What an example prints, in the words after its last carriage returns."""
    done = subprocess.run([sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-1000:]
    return done.stdout, done.stderr


def test_deblur(tmp_path):
    """The kernel is found to a twentieth of its sum, and drawn."""
    text, _ = run("deblur.py", "-o", tmp_path / "found.png")
    before, after = map(float, re.search(r"sum \|found - true\| ([\d.]+) -> ([\d.]+)", text).groups())
    assert before > 1
    assert after < 0.05
    first, last = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", text).groups())
    assert last < first
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_digits():
    """At least 95 % on digits that it has not seen, in under a minute, with a progress bar."""
    text, bar = run("digits.py")
    assert float(re.search(r"([\d.]+) on 450 others", text)[1]) >= 0.95
    assert float(re.search(r"digits in ([\d.]+) s", text)[1]) < 60
    assert "100%" in bar
