"""The tables of the findings and of the ledger of results, made from results/.

    imbalance findings           # rewrites docs/findings.md and docs/results.md, draws results/pairs.png
    imbalance findings --check   # says what does not agree with results/, and changes nothing

A table stands between `<!-- results: NAME -->` and `<!-- end of NAME -->`; the words around it are written by hand.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import pairs, pairs_report
from . import results as kept
from .figures import published
from .intervals import mean, paired_difference
from .pairs_report import TITLES
from .results import Row, numbers
from .tables import markdown

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "docs" / "findings.md", ROOT / "docs" / "results.md")
BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


# The paper's rows


PAPER_ROWS = {
    "figure3": {"last epoch": "test balanced"},
    "figure4": {"early-stopped": "best balanced: test balanced"},
}
CONFIGS = {
    "ce No IW": "cifar_erm", "ce IW": "cifar_ce", "ce IW-Exp": "cifar_ce_exponent15",
    "poly No IW": "cifar_poly_unweighted", "poly IW": "cifar_poly", "poly IW-Exp": "cifar_poly_exponent15",
}  # fmt: skip


def agreement(ours: np.ndarray, value: float, deviation: float, n: int) -> str:
    """Whether Welch's 95 % interval of the difference between our seeds and the published ones has zero in it."""
    from scipy import stats

    if len(ours) < 2:
        return "one seed decides nothing"
    result = stats.ttest_ind_from_stats(ours.mean(), ours.std(ddof=1), len(ours), value, deviation, n, equal_var=False)
    variances = ours.var(ddof=1) / len(ours), deviation**2 / n
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / (len(ours) - 1) + variances[1] ** 2 / (n - 1))
    half = stats.t.ppf(0.975, degrees) * sum(variances) ** 0.5
    difference = ours.mean() - value
    assert (abs(difference) < half) == (result.pvalue > 0.05)
    return f"{'yes' if abs(difference) < half else 'no'}: {difference:+.1f} ± {half:.1f}"


def paper_table(folder: Path) -> str:
    """Every row of figures 3 and 4 of which a run is done."""
    heads = ["row", "config", "published, mean ± standard deviation (n)", "ours, mean ± 95 % t-interval (n)", "agree",
             "right from epoch on", "hours a run"]  # fmt: skip
    table = []
    rows = kept.read("rows", folder)
    for figure, columns in PAPER_ROWS.items():
        for (name, config), (when, column) in ((pair, *columns.items()) for pair in CONFIGS.items()):
            mine = [row for row in rows if row["name"] == config and row["status"] == "done"]
            theirs = published(f"{figure} cifar", name + ("-ES" if figure == "figure4" else ""))
            if not mine or theirs is None:
                continue
            ours = 100 * numbers(mine, column)
            epochs = numbers(mine, "interpolation epoch")
            table.append([
                f"{name}, {when}", config, f"{theirs.value:.1f} ± {theirs.standard_deviation:.1f} ({theirs.n})",
                f"{mean(ours, 0, 100).text(1, 1)} ({len(ours)})", agreement(ours, theirs.value, theirs.standard_deviation, theirs.n),
                "never" if np.isnan(epochs).all() else f"{np.nanmean(epochs):.0f}",
                f"{numbers(mine, 'seconds').mean() / 3600:.1f}",
            ])  # fmt: skip
    return markdown(heads, table) if table else "No run of these rows has finished yet.\n"


# The tuning protocol

PROTOCOL = {
    "fashion_pair": "T-shirt against shirt, perceptron", "fashion_pair_lenet": "T-shirt against shirt, LeNet",
    "cifar_pair": "cat against dog, perceptron", "cifar_pair_lenet": "cat against dog, LeNet",
}  # fmt: skip
SEEDS = 10


def protocol_table(folder: Path) -> str:
    """Both losses at their best rates, where all seeds are done."""
    heads = [
        "data and network",
        "batch",
        "loss",
        "rate",
        "n",
        "interpolate",
        "test, last epoch",
        "poly minus cross-entropy",
    ]
    table, rows_there = [], kept.read("protocol", folder)
    for data, said in PROTOCOL.items():
        for size in ("64", "512"):
            found = {
                loss: best_rate([r for r in rows_there if r["name"] == f"{data}_{loss}" and r["batch size"] == size])
                for loss in ("ce", "poly")
            }
            if any(len(rows) < SEEDS for _, rows in found.values()):
                continue
            tests = {loss: {int(row["seed"]): float(row["test balanced"] or "nan") for row in rows}
                     for loss, (_, rows) in found.items()}  # fmt: skip
            difference = paired_difference(tests["poly"], tests["ce"], 0, 1).percent()
            for loss, (rate, rows) in found.items():
                table.append([
                    said, size, "cross-entropy" if loss == "ce" else "poly", rate, len(rows),
                    f"{np.mean([row['interpolation epoch'] != '' for row in rows]):.0%}",
                    mean(list(tests[loss].values()), 0, 1).percent(), difference if loss == "poly" else "",
                ])  # fmt: skip
    return markdown(heads, table) if table else "No part of the protocol has finished yet.\n"


def best_rate(rows: list[Row]) -> tuple[str, list[Row]]:
    """The rate with the best val at seed 0, of equal ones the smallest, and the runs at it."""
    scores = {row["lr"]: float(row["val balanced"]) for row in sorted(rows, key=lambda r: float(r["lr"]))
              if row["seed"] == "0" and row["status"] == "done"}  # fmt: skip
    best = max(scores, key=scores.get, default="")
    return best, [row for row in rows if row["lr"] == best and int(row["seed"]) < SEEDS]


# The pairs


def scores(folder: Path) -> dict:
    return pairs_report.scores_by_data(pairs.by_method(kept.read(pairs.STUDY, folder), TITLES))


def of_pairs(table: Callable[[dict], str]) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        found = scores(folder)
        return table(found) if found else "No pair has finished yet.\n"

    return made


TABLES: dict[str, Callable[[Path], str]] = {  # each from the folder of results
    "paper": paper_table,
    "protocol": protocol_table,
    "pairs-tuning": lambda folder: pairs.tuning_table(kept.read(pairs.STUDY, folder), TITLES),
    "pairs-methods": of_pairs(pairs_report.methods_table),
    "pairs-comparisons": of_pairs(pairs_report.comparisons_table),
    "pairs-trend": of_pairs(pairs_report.trend_table),
}


def rewritten(text: str, folder: Path) -> str:
    """`text` with every table as the folder of results has it now."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]](folder)}{block[3]}", text)


def findings(*, check: bool, results: str) -> int:
    """Rewrite the pages and draw the picture; or only compare, and return 1 where something does not agree."""
    folder, differing = Path(results), []
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = rewritten(before, folder)
        if after != before:
            differing.append(str(page))
            if not check:
                page.write_text(after, encoding="utf-8")
    if not check and (found := scores(folder)):
        pairs_report.draw(found, results)
    print(f"{'differ from results/' if check else 'rewritten'}: {', '.join(differing) or 'none'}")
    return int(check and bool(differing))
