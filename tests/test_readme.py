"""The README's Python, run as it stands: what a newcomer pastes first must work, and mean what its comments say."""

import pathlib
import re

import numpy as np
import oracle

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SHAPE = re.compile(r"^(\w+) = .*# (\(\d+(?:, \d+)+\))", re.MULTILINE)


def test_examples():
    """Shapes that comments name are the results' shapes; the standardising subclass standardises."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    shapes = {name: tuple(map(int, shape[1:-1].split(", "))) for name, shape in SHAPE.findall(code)}
    assert len(shapes) >= 3
    assert {name: names[name].shape for name in shapes} == shapes
    layer = names["Standardized"](3, use_bias=False)
    x = np.random.default_rng(0).random((1, 6, 7, 2))
    y = layer(x)
    kernel = (layer.kernel - layer.kernel.mean((0, 1))) / (layer.kernel.std((0, 1)) + 1e-5)
    np.testing.assert_allclose(y, oracle.conv(x, kernel), atol=1e-5)
    assert layer.from_config(layer.get_config()).get_config() == layer.get_config()
