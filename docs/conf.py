"""Sphinx configuration.  Build: sphinx-build -W --keep-going -b html docs docs/_build (the `docs` extra).

Drawings and the table of loads are made anew at every build, from the tables in the C headers (tiles.py), so that they cannot
tell of tiles that no longer exist.  No network: hence no intersphinx, and no fonts or scripts from elsewhere.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tiles

import dwconv

tiles.write(pathlib.Path(__file__).parent / "_generated")

project = "dwconv"
author = "the dwconv developers"
copyright = "the dwconv developers"
release = version = dwconv.__version__

extensions = ["sphinx.ext.autodoc", "numpydoc", "myst_parser"]  # the last: CONTRIBUTING.md and CHANGELOG.md are pages too
exclude_patterns = ["_build", "_generated/*.rst"]
default_role = "py:obj"  # what docstrings put in single backticks are names
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections have them, in words
numpydoc_show_class_members = False
numpydoc_validation_checks = {"PR02"}  # no parameter is documented that does not exist
numpydoc_validation_exclude = {r"\.activations\."}  # made by a factory, whose signature says (*args, **kwargs)
myst_heading_anchors = 2

html_theme = "pydata_sphinx_theme"
html_title = "dwconv"
html_static_path = ["_static"]
html_show_sourcelink = False
html_sidebars = {"**": []}  # the pages are one flat list, which the head of each holds
html_theme_options = {
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": [],
    "footer_end": [],
}
