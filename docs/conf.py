"""The site: `sphinx-build -W docs docs/_build`. Nothing is fetched, neither by the build nor by the built pages."""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import imbalance  # noqa: E402

# The gallery runs a copy of the scripts, in their folder: what they write is none of the repository's.
shutil.rmtree(HERE / "_examples", ignore_errors=True)
shutil.copytree(HERE / "examples", HERE / "_examples")

project = "imbalance"
author = copyright = "The imbalance developers"
release = version = imbalance.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "from_code",  # the file beside this one
]
exclude_patterns = [
    "_build",
    "examples",
    "_examples",
    "gallery/**/*.ipynb",
    "gallery/**/*.py",
    "gallery/**/*.md5",
    "gallery/**/*.zip",
]
suppress_warnings = ["config.cache"]  # for the functions that sphinx-gallery is given

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
myst_url_schemes = ("https", "mailto")

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": "_examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"__init__\.py",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,  # its page asks other hosts for scripts
    "show_signature": False,
    "plot_gallery": "True",
    "only_warn_on_example_error": False,
    "abort_on_example_error": True,
    "within_subsection_order": "FileNameSortKey",
    "image_srcset": ["2x"],
    "reset_modules": ("from_code.fresh_folder", "matplotlib"),
}

html_theme = "furo"
html_title = "imbalance"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_exclude = ".linenos, .gp, .go"
