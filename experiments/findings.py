"""The tables of the findings and of the README's ledger, made from results/.

    python -m experiments.findings           # rewrites docs/findings.md and README.md, draws results/pairs.png
    python -m experiments.findings --check   # says what does not agree with results/, and changes nothing

A table stands between `<!-- results: NAME -->` and `<!-- end of NAME -->`; the words around it are written by hand.
"""

import re
from collections.abc import Callable

import numpy as np
from absl import app, flags

from experiments import pairs, pairs_report, results
from experiments.figures import published
from experiments.intervals import mean, paired_difference
from experiments.pairs_report import TITLES, markdown
from experiments.results import Row, numbers
from experiments.runs import ROOT, exit_status

CHECK = flags.DEFINE_bool("check", False, "Compare only; exit status 1 where something does not agree.")

PAGES = (ROOT / "docs" / "findings.md", ROOT / "README.md")
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


def paper_table() -> str:
    """Every row of figures 3 and 4 of which a run is done."""
    table = [["row", "config", "published, mean ± standard deviation (n)", "ours, mean ± 95 % t-interval (n)", "agree",
              "right from epoch on", "hours a run"]]  # fmt: skip
    rows = results.read("rows")
    for figure, columns in PAPER_ROWS.items():
        for (name, config), (when, column) in ((pair, *columns.items()) for pair in CONFIGS.items()):
            mine = [row for row in rows if row["name"] == config and row["status"] == "done"]
            theirs = published(f"{figure} cifar", name + ("-ES" if figure == "figure4" else ""))
            if not mine or theirs is None:
                continue
            ours = 100 * numbers(mine, column)
            epochs = numbers(mine, "interpolation epoch")
            table.append([
                f"{name}, {when}", f"`{config}`", f"{theirs.value:.1f} ± {theirs.standard_deviation:.1f} ({theirs.n})",
                f"{mean(ours).text(1, 1)} ({len(ours)})", agreement(ours, theirs.value, theirs.standard_deviation, theirs.n),
                "never" if np.isnan(epochs).all() else f"{np.nanmean(epochs):.0f}",
                f"{numbers(mine, 'seconds').mean() / 3600:.1f}",
            ])  # fmt: skip
    return markdown(table) if table[1:] else "No run of these rows has finished yet."


# The tuning protocol

PROTOCOL = {
    "fashion_pair": "T-shirt against shirt, perceptron", "fashion_pair_lenet": "T-shirt against shirt, LeNet",
    "cifar_pair": "cat against dog, perceptron", "cifar_pair_lenet": "cat against dog, LeNet",
}  # fmt: skip
SEEDS = 10


def protocol_table() -> str:
    """Both losses at their best rates, where all seeds are done."""
    table = [
        [
            "data and network",
            "batch",
            "loss",
            "rate",
            "n",
            "interpolate",
            "test, last epoch",
            "poly minus cross-entropy",
        ]
    ]
    for data, said in PROTOCOL.items():
        for size in ("64", "512"):
            reference: dict[int, float] = {}
            for loss in ("ce", "poly"):
                rows = [
                    r for r in results.read("protocol") if r["name"] == f"{data}_{loss}" and r["batch size"] == size
                ]
                rate, of_seeds = best_rate(rows)
                if len(of_seeds) < SEEDS:
                    continue
                tests = {int(row["seed"]): float(row["test balanced"] or "nan") for row in of_seeds}
                difference = paired_difference(tests, reference).percent() if reference else ""
                reference = tests if loss == "ce" else {}
                table.append([
                    said, size, "cross-entropy" if loss == "ce" else "poly", rate, str(len(of_seeds)),
                    f"{np.mean([row['interpolation epoch'] != '' for row in of_seeds]):.0%}",
                    mean(list(tests.values())).percent(), difference,
                ])  # fmt: skip
    return markdown(table) if table[1:] else "No part of the protocol has finished yet."


def best_rate(rows: list[Row]) -> tuple[str, list[Row]]:
    """The rate with the best val at seed 0, of equal ones the smallest, and the runs at it."""
    scores = {row["lr"]: float(row["val balanced"]) for row in sorted(rows, key=lambda r: float(r["lr"]))
              if row["seed"] == "0" and row["status"] == "done"}  # fmt: skip
    best = max(scores, key=scores.get, default="")
    return best, [row for row in rows if row["lr"] == best and int(row["seed"]) < SEEDS]


# The pairs


def of_pairs(table: Callable[[dict], str]) -> Callable[[], str]:
    def made() -> str:
        found = pairs_report.scores_by_data(pairs.by_method(list(TITLES)))
        return table(found) if found else "No pair has finished yet."

    return made


TABLES: dict[str, Callable[[], str]] = {
    "paper": paper_table,
    "protocol": protocol_table,
    "pairs-tuning": lambda: pairs.tuning_table(list(TITLES)),
    "pairs-methods": of_pairs(pairs_report.methods_table),
    "pairs-comparisons": of_pairs(pairs_report.comparisons_table),
}


def rewritten(text: str) -> str:
    """`text` with every table as results/ has it now."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}\n{block[3]}", text)


def findings() -> int:
    differing = []
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            differing.append(str(page))
            if not CHECK.value:
                page.write_text(after, encoding="utf-8")
    if not CHECK.value:
        found = pairs_report.scores_by_data(pairs.by_method(list(TITLES)))
        if found:
            pairs_report.draw(found, results.RESULTS.value)
    print(f"{'differ from results/' if CHECK.value else 'rewritten'}: {', '.join(differing) or 'none'}")
    return int(bool(CHECK.value and differing))


def main(argv: list[str]) -> int:
    return exit_status(findings, argv)


if __name__ == "__main__":
    app.run(main)
