"""Configuration of the documentation: `sphinx-build -W docs docs/_build`."""

import re
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

project = "halfspace-reporting"
author = "The halfspace-reporting authors"
copyright = author
release = version = installed_version(project)

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"  # browsers know it: pages load nothing from elsewhere
myst_heading_anchors = 3

default_role = "py:obj"  # a name in single backticks is a link where there is such a name
autosummary_generate = True
autodoc_mock_imports = [name for name in ("torch", "transformers") if not find_spec(name)]
autodoc_typehints = "none"  # numpydoc's type slot says them
numpydoc_show_class_members = False  # the class template lists them

published = Path(__file__).parents[1] / "asv_benchmarks" / "html"
if published.is_dir():  # `asv publish` has been here
    html_extra_path = [str(published)]
    tags.add("asv")  # noqa: F821  (Sphinx defines it)

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {
    "navbar_center": [],  # the sidebar has all pages
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
}
html_sidebars = {"**": ["all-pages"]}


def skip_tuple_fields(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples: the class docstring describes them."""
    return True if (obj.__doc__ or "").startswith("Alias for field number") else None


def mathml(node, display):
    """MathML of a formula; a warning where a macro of it is not known."""
    made = convert(node.astext(), display=display)
    made = re.sub("<mi>(log|ln|:)</mi>", r'<mo lspace=".2em" rspace=".2em">\1</mo>', made)
    if "\\" in made:
        logging.getLogger(__name__).warning("not MathML: %s", node.astext(), location=node)
    return made


def visit_formula(self, node):
    """Write a formula within a line."""
    self.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def visit_displayed_formula(self, node):
    """Write a formula that has lines of its own."""
    self.body.append(f'<div class="formula">{mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app):
    """Connect the hooks above; Sphinx calls this."""
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.add_html_math_renderer("mathml", (visit_formula, None), (visit_displayed_formula, None))
