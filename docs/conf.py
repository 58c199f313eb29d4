"""Sphinx configuration: ``make docs``. Nothing is downloaded while it builds."""

import re

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


def name_attributes(app, what, name, obj, options, lines):
    """``a, b: text`` among attributes means both, as it does among arguments."""
    found, inside, i = [], False, 0
    while i < len(lines):
        if re.fullmatch(r"\w[\w ]*:", lines[i]):
            inside = lines[i] == "Attributes:"
        match = re.match(r"( +)(\w+(?:, \w+)+)(: .*)", lines[i]) if inside else None
        end = i + 1
        while match and end < len(lines) and lines[end].startswith(match[1] + " "):
            end += 1
        for each in match[2].split(", ") if match else ():
            found += [match[1] + each + match[3], *lines[i + 1 : end]]
        found += [] if match else [lines[i]]
        i = end
    lines[:] = found


def setup(app):
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("autodoc-process-docstring", name_attributes, priority=400)
