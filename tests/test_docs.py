"""The pages in docs/: every line of code in them runs and prints what it says.

Their building, and links and names in them, are for Sphinx, which .ci/run calls.
"""

import doctest
import pathlib

import pytest

PAGES = sorted((pathlib.Path(__file__).parents[1] / "docs").glob("*.rst"))
NEEDED = {"coming_from.rst": ("scipy", "xarray", "dask.array"), "dask.rst": ("dask.array",), "scikit_learn.rst": ("sklearn",)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page):
    for name in NEEDED.get(page.name, ()):
        pytest.importorskip(name)
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS, encoding="utf-8")
    assert failed == 0


def test_pages_have_examples():
    """So that a folder that was not found, or code without prompts, is noticed."""
    parser = doctest.DocTestParser()
    assert sum(len(parser.get_examples(page.read_text(encoding="utf-8"))) for page in PAGES) > 50
