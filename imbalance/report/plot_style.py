"""Set the style of all figures, and save them as PNG and PDF."""

import logging
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imbalance.utils.files import names_file
from imbalance.utils.optional import optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
NEUTRAL = "#999999"


def subplots(rows: int, columns: int, width: float, height: float, **options) -> tuple["Figure", Any]:
    """Return matplotlib's figure and axes in this project's style, drawn without a screen.

    Args:
        width: in inches, as is `height`.
        options: keyword arguments of `matplotlib.pyplot.subplots`.

    Raises:
        BadInput: matplotlib is not installed.
    """
    install = "figures need matplotlib, which is not installed; type pip install -c constraints.txt -e '.[report]'"
    with optional("matplotlib", message=install):
        import matplotlib
    matplotlib.use("Agg")
    for name in ("matplotlib", "fontTools"):  # absl prints every message that reaches the root logger
        logging.getLogger(name).setLevel(logging.WARNING)
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8, "legend.frameon": False,
            "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
            "axes.axisbelow": True, "pdf.fonttype": 42,  # keep text as text in a PDF
        }
    )  # fmt: skip
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def label(text: str) -> str:
    """Escape a name for matplotlib, which reads `$` as a formula and hides labels that begin with an underscore."""
    text = text.replace("$", r"\$")
    return "\N{ZERO WIDTH SPACE}" + text if text.startswith("_") else text


def wrapped(text: str, width: int) -> str:
    """Return a name for matplotlib as `label` does, in lines of at most `width` characters, so that long names fit."""
    return label("\n".join(textwrap.wrap(text, width, break_on_hyphens=False)))


def save(figure: "Figure", folder: str | Path, name: str) -> list[Path]:
    """Write <folder>/<name>.png and .pdf, print their paths, and return the paths.

    The PNG has a palette of 256 colours, which makes it a third as large; the figures of results/ are part of every clone.
    The palette covers rare colours, too, such as that of a line that is hidden except in the legend.
    """
    import matplotlib.pyplot as plt
    from PIL import Image

    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in ("png", "pdf")]
    for path in paths:
        with names_file(path):
            figure.savefig(path, dpi=160)
            if path.suffix == ".png":
                with Image.open(path) as image:
                    small = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
                small.save(path, optimize=True)
        figure.set_layout_engine("none")  # the second file has the layout of the first, which takes as long as drawing
    plt.close(figure)
    print("\n" + ", ".join(map(str, paths)))
    return paths
