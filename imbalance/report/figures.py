"""What figures share: their look, the files they are written to, and the published values printed beside ours."""

import logging
from pathlib import Path

from imbalance.errors import BadInput

# Okabe and Ito's colours, told apart by most colour-blind readers.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
NEUTRAL = "#999999"


def subplots(rows: int, columns: int, width: float, height: float, **options):
    """matplotlib's, drawn without a screen; sizes in inches."""
    try:
        import matplotlib
    except ImportError:
        raise BadInput("matplotlib is not installed; pip install -c constraints.txt -e '.[report]'") from None
    matplotlib.use("Agg")
    for chatty in ("matplotlib", "fontTools"):  # absl shows what the root logger is told
        logging.getLogger(chatty).setLevel(logging.WARNING)
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8, "legend.frameon": False,
            "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
            "axes.axisbelow": True, "pdf.fonttype": 42,  # text stays text in a PDF
        }
    )  # fmt: skip
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def label(text: str) -> str:
    """A name as matplotlib shows it: no formula, and not hidden, as what begins with an underscore is."""
    text = text.replace("$", r"\$")
    return "\N{ZERO WIDTH SPACE}" + text if text.startswith("_") else text


def save(figure, folder: str | Path, name: str) -> list[Path]:
    """Write <folder>/<name>.png and .pdf, and say so."""
    import matplotlib.pyplot as plt

    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in ("png", "pdf")]
    for path in paths:
        figure.savefig(path, dpi=160)
    plt.close(figure)
    print("\n" + ", ".join(map(str, paths)))
    return paths
