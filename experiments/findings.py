"""The tables of the findings and of the ledger of results, made from results/.

    imbalance findings           # rewrites docs/findings.md and docs/results.md, draws results/pairs.png
    imbalance findings --check   # says what does not agree with results/, and changes nothing

A table stands between `<!-- results: NAME -->` and `<!-- end of NAME -->`; the words around it are written by hand.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from imbalance.experiments import figure3, pairs, pairs_report
from imbalance.experiments.colored_digits_methods import UNTUNED
from imbalance.experiments.ledger import ON_IMAGES, ON_MADE_UP, compared, draws_table, long_tails_table, protocol_table
from imbalance.experiments.pairs_report import TITLES
from imbalance.experiments.published import published
from imbalance.metrics.intervals import mean
from imbalance.report import keep as kept
from imbalance.report.keep import numbers
from imbalance.report.tables import markdown
from imbalance.sweep.variants import Variant

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "docs" / "findings.md", ROOT / "docs" / "results.md")
BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


# The paper's rows


PAPER_ROWS = {
    "figure3": {"last epoch": "test balanced"},
    "figure4": {"early-stopped": "best balanced: test balanced"},
}


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
        for (name, variant), (when, column) in ((pair, *columns.items()) for pair in figure3.ROWS["cifar"].items()):
            mine = [row for row in variant.rows(rows) if row["status"] == "done"]
            theirs = published(f"{figure} cifar", name + ("-ES" if figure == "figure4" else ""))
            if not mine or theirs is None:
                continue
            ours = 100 * numbers(mine, column)
            epochs = numbers(mine, "interpolation epoch")
            table.append([
                f"{name}, {when}", variant, f"{theirs.value:.1f} ± {theirs.standard_deviation:.1f} ({theirs.n})",
                f"{mean(ours, 0, 100).text(1, 1)} ({len(ours)})", agreement(ours, theirs.value, theirs.standard_deviation, theirs.n),
                "never" if np.isnan(epochs).all() else f"{np.nanmean(epochs):.0f}",
                f"{numbers(mine, 'seconds').mean() / 3600:.1f}",
            ])  # fmt: skip
    return markdown(heads, table) if table else "No run of these rows has finished yet.\n"


# The pairs


def scores(folder: Path) -> dict:
    return pairs_report.scores_by_data(pairs.by_method(kept.read(pairs.STUDY, folder), TITLES))


def one_rate_table(folder: Path) -> str:
    """That of the pairs, from the rows at the rates of no weights."""
    return pairs_report.one_rate_table(pairs.by_method(kept.read(pairs.STUDY, folder), TITLES, one_rate=True))


def of_pairs(table: Callable[[dict], str]) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        found = scores(folder)
        return table(found) if found else "No pair has finished yet.\n"

    return made


def as_files(*configs: str) -> dict[str, Variant]:
    """Return configs as variants without overrides, by name."""
    return {config: Variant(config) for config in configs}


TABLES: dict[str, Callable[[Path], str]] = {  # each from the folder of results
    "paper": paper_table,
    "digits": partial(compared, as_files("digits_ce", "digits_erm", "digits_poly"), "balanced_accuracy"),
    "gaussian": partial(compared, as_files("gaussian_erm", "gaussian_ce", "gaussian_poly"), "balanced_accuracy"),
    "colored-digits": partial(compared, UNTUNED, "worst_group_accuracy"),
    "protocol-made-up": partial(protocol_table, ON_MADE_UP),
    "protocol": partial(protocol_table, ON_IMAGES),
    "draws": draws_table,
    "long-tails": long_tails_table,
    "pairs-tuning": lambda folder: pairs.tuning_table(kept.read(pairs.STUDY, folder), TITLES),
    "pairs-methods": of_pairs(pairs_report.methods_table),
    "pairs-comparisons": of_pairs(pairs_report.comparisons_table),
    "pairs-one-rate": one_rate_table,
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
