"""Configuration of the site, which `sphinx-build -W docs docs/_build` builds without network access."""

import os
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import imbalance  # noqa: E402

# The gallery runs copies of the scripts in a separate folder, so that their output is not written into the repository.
shutil.rmtree(HERE / "_examples", ignore_errors=True)
shutil.copytree(HERE / "examples", HERE / "_examples")

project = "imbalance"
author = copyright = "The imbalance developers"
release = version = imbalance.__version__
language = "en"

extensions = ["myst_parser", "sphinx_gallery.gen_gallery", "sphinx_copybutton"]
exclude_patterns = [
    "_build",
    "examples",
    "_examples",
    "gallery/**/*.ipynb",
    "gallery/**/*.py",
    "gallery/**/*.md5",
    "gallery/**/*.zip",
]
suppress_warnings = ["config.cache"]  # `reset_modules` contains a function, which Sphinx cannot keep between builds

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = ("https", "mailto")


def fresh_folder(gallery: dict, script: str) -> None:
    """Remove the output files of earlier scripts; sphinx-gallery calls this before each script."""
    for path in (HERE / "_examples").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix not in (".py", ".rst"):
            path.unlink()


sphinx_gallery_conf = {
    "examples_dirs": "_examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"__init__\.py",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,  # the page of computation times loads scripts from other hosts
    "show_signature": False,
    "plot_gallery": "True",
    "only_warn_on_example_error": False,
    "abort_on_example_error": True,
    "within_subsection_order": "FileNameSortKey",
    "image_srcset": ["2x"],
    "reset_modules": (fresh_folder, "matplotlib"),
}

html_theme = "furo"
html_title = "imbalance"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_exclude = ".linenos, .gp, .go"

NAVIGATION = {
    "": ["start", "choose", "how-it-compares"],
    "Learn": ["concepts/index", "methods/index", "gallery/index"],
    "Do": ["how-to/index"],
    "Look up": [
        "reference/index",
        "findings",
        "findings-tables",
        "leaderboard",
        "preregistered/index",
        "results",
        "speed",
    ],
}


def add_navigation(app, page: str, source: list[str]) -> None:
    """Add tables of contents to index pages, and make links to example scripts lead to the pages of the gallery.

    The Markdown files have neither, because a web host that shows these files has no tables of contents and no gallery.
    """
    text = re.sub(r"\]\(((?:\.\./)?)examples/(plot_\w+)\.py\)", r"](\1gallery/\2.rst)", source[0])
    text = re.sub(r"\]\(((?:\.\./)?)examples/\)", r"](\1gallery/index.rst)", text)
    own_pages = {"": list(dict.fromkeys(re.findall(r"\]\(([\w-]+)\.md\)", text)))}
    sections = NAVIGATION if page == "index" else own_pages if page.endswith("/index") and "gallery" not in page else {}
    for caption, pages in sections.items():
        options = f":hidden:\n:caption: {caption}\n" if caption else ":hidden:\n"
        text += "\n```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```\n"
    source[0] = text


def add_mathml(writer, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers display without JavaScript."""
    block = isinstance(node, nodes.math_block)
    writer.body.append(convert(node.astext(), display="block" if block else "inline"))
    raise nodes.SkipNode


def setup(app) -> dict[str, bool]:
    app.connect("source-read", add_navigation)
    app.add_html_math_renderer("mathml", (add_mathml, None), (add_mathml, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
