"""Configuration of the documentation: `sphinx-build -W docs docs/_build`."""

from importlib.metadata import version as installed_version
from pathlib import Path

project = "halfspace-reporting"
author = "The halfspace-reporting authors"
copyright = author
release = version = installed_version(project)

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
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


def setup(app):
    """Connect the hook above; Sphinx calls this."""
    app.connect("autodoc-skip-member", skip_tuple_fields)
