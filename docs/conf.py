"""Settings of the documentation site. It builds offline, with warnings as errors."""

import importlib.util
import sys
from pathlib import Path

import regraft

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "regraft"
author = "The regraft authors"
copyright = "The regraft authors"
version = release = regraft.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "commands"]
exclude_patterns = ["_build", "_extra", "README.md", "pictures"]
suppress_warnings = ["ref.python"]  # names in lists of attributes need not be unique

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_mock_imports = ["flwr"]  # an optional extra whose requirements exclude those of this site
EXTRAS = ("keras", "lightning", "transformers")
autodoc_mock_imports += [m for m in EXTRAS if importlib.util.find_spec(m) is None]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    "exclude-members": "dense_type, extra_repr",
}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
maximum_signature_line_length = 90

html_theme = "furo"
html_title = "regraft"
html_static_path = ["_static"]
html_extra_path = ["_extra"]  # reports of studies, as `regraft study report` wrote them
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
