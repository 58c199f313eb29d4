"""Sphinx configuration: ``make docs``. Nothing is downloaded while it builds."""

import uva_agents

project = "uva-agents"
author = "the uva-agents developers"
copyright = author
version = release = uva_agents.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "uva-agents"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def keep_colons(app, what, name, obj, options, lines):
    """Napoleon takes what stands before a colon in an attribute's docstring for its type; here that is the sentence's subject."""
    if what in ("attribute", "data", "property") and lines and ":" in lines[0]:
        lines[0] = ": " + lines[0]


def setup(app):
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
