"""Write the tables of docs/{findings,findings-tables,leaderboard,results,choose}.md from results/.

    imbalance findings           # rewrites the pages, and draws the figures in results/
    imbalance findings --check   # names the pages that differ from results/, and changes nothing

A table stands between `<!-- results: NAME -->` and `<!-- end of NAME -->`; the text around it is written by hand.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from imbalance.errors import BadInput
from imbalance.experiments import (
    choose,
    early_stopping,
    every_method,
    figure3,
    keel_tables,
    leads_along_training,
    limit_on_features,
    pairs,
    paper_rows,
    protocol,
    subpopbench,
)
from imbalance.experiments.colored_digits_methods import UNTUNED
from imbalance.experiments.image_draws import draws_table
from imbalance.experiments.leaderboard import board_tables, quoted_elsewhere, variance_table
from imbalance.experiments.long_tails import long_tails_table
from imbalance.report import kept_results, leaderboard
from imbalance.report.tables import markdown
from imbalance.sweep.compare import compare_kept
from imbalance.sweep.variants import Variant

ROOT = Path(__file__).resolve().parent.parent
PAGES = tuple(
    ROOT / "docs" / f"{name}.md" for name in ("findings", "findings-tables", "leaderboard", "results", "choose")
)
BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def pair_scores(folder: Path) -> dict[str, dict[pairs.Method, pairs.Scores]]:
    """Return the scores of all methods on all pairs of classes, by data set.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    return pairs.scores_by_data(pairs.by_method(kept_results.read(pairs.STUDY, folder), pairs.TITLES))


def one_rate_table(folder: Path) -> str:
    """Return the table that compares importance weights with none, at one learning rate for each loss.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rows = kept_results.read(pairs.STUDY, folder)
    return pairs.one_rate_table(pairs.by_method(rows, pairs.TITLES, one_rate=True))


def pairs_table(table: Callable[[dict], str]) -> Callable[[Path], str]:
    """Return a function that reads the scores of all pairs from a folder, and returns `table(scores)`."""

    def make(folder: Path) -> str:
        scores = pair_scores(folder)
        return table(scores) if scores else "No pair has finished yet.\n"

    return make


def without_overrides(*configs: str) -> dict[str, Variant]:
    """Return variants that are configs without overrides, by the name of the config."""
    return {config: Variant(config) for config in configs}


def code_table(folder: Path) -> str:
    """Return a table of how many rows of each table of results name a commit that a clone can check out.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    heads = ["table", "rows", "commit in every clone", "with uncommitted changes (+)", "commit in no clone (?)"]
    counts = []
    for path in sorted(folder.glob("*.csv*")):
        if path.name == leaderboard.NAME:  # its rows are means over runs
            continue
        name = path.name.partition(".")[0]
        ends = [row["commit"][-1:] for row in kept_results.read(name, folder)]
        lost = [ends.count(mark) for mark in "+?"]
        counts.append([name, *(f"{count:,}" for count in (len(ends), len(ends) - sum(lost), *lost))])
    return markdown(heads, counts)


def of_leaderboard(table: Callable[[list[leaderboard.Entry]], str]) -> Callable[[Path], str]:
    """Return a function from a folder to the `table` of the rows of leaderboard.csv in this folder."""
    return lambda folder: table(leaderboard.read(folder))


TABLES: dict[str, Callable[[Path], str]] = {  # by name, a function that makes the table from the folder of kept results
    "code": code_table,
    "paper": partial(paper_rows.kept_table, figure3.ROWS["cifar"]),
    "choose-groups": choose.groups_table,
    "choose-classes": choose.classes_table,
    "digits": partial(compare_kept, without_overrides("digits_ce", "digits_erm", "digits_poly"), "balanced_accuracy"),
    "gaussian": partial(
        compare_kept, without_overrides("gaussian_erm", "gaussian_ce", "gaussian_poly"), "balanced_accuracy"
    ),
    "colored-digits": partial(compare_kept, UNTUNED, "worst_group_accuracy"),
    "protocol-made-up": partial(protocol.kept_table, protocol.SMALL_DATA),
    "protocol": partial(protocol.kept_table, protocol.IMAGES),
    "draws": draws_table,
    "keel-outcome": keel_tables.outcome_text,
    "keel-summary": keel_tables.summary_table,
    "keel-arms": keel_tables.arms_table,
    "keel-ratio": keel_tables.ratio_table,
    "keel-rare": keel_tables.rare_table,
    "keel-size": keel_tables.size_table,
    "leaderboard": board_tables,
    "leaderboard-overall": of_leaderboard(leaderboard.overall_table),
    "leaderboard-variance": variance_table,
    "leaderboard-not-comparable": of_leaderboard(leaderboard.not_comparable_table),
    "leaderboard-quoted": quoted_elsewhere,
    "long-tails": long_tails_table,
    "limit-outcome": limit_on_features.outcome_text,
    "limit-contrasts": limit_on_features.contrasts_table,
    "limit-parts": limit_on_features.parts_table,
    "limit-tuning": limit_on_features.tuning_text,
    "limit-arms": limit_on_features.arms_table,
    "limit-descent": limit_on_features.descent_table,
    "early": early_stopping.early_table,
    "leads": leads_along_training.leads_table,
    "leads-rates": leads_along_training.rates_table,
    "every-method": every_method.kept_tables,
    "every-method-balanced": every_method.balanced_table,
    "every-method-dfr": every_method.dfr_table,
    "every-method-last-epoch": every_method.last_epoch_table,
    "every-method-summary": every_method.summary_table,
    "every-method-variance": every_method.variance_table,
    "leads-summary": leads_along_training.leads_summary,
    "subpopbench-colored-digits": partial(subpopbench.kept_table, "colored_digits"),
    "subpopbench-dominoes": partial(subpopbench.kept_table, "dominoes"),
    "pairs-tuning": lambda folder: pairs.tuning_table(kept_results.read(pairs.STUDY, folder), pairs.TITLES),
    "pairs-methods": pairs_table(pairs.methods_table),
    "pairs-comparisons": pairs_table(pairs.comparisons_table),
    "pairs-interaction": pairs_table(pairs.interaction_table),
    "pairs-one-rate": one_rate_table,
    "pairs-trend": pairs_table(pairs.trend_table),
}


def with_new_tables(text: str, folder: Path) -> str:
    """Return the text of a page with every table made anew from the results in `folder`."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]](folder)}{block[3]}", text)


def findings(*, check: bool, results: str) -> int:
    """Rewrite PAGES, and draw the figures in `results`.

    Args:
        check: name the pages whose tables differ from the results, and change nothing.
        results: folder that holds the tables of results, such as results/.

    Returns:
        1 if `check` and a page differs, else 0.
    """
    folder, differing = Path(results), []
    if not folder.is_dir():
        raise BadInput(f"--results={results}: no such folder; name the folder of the tables of results")
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = with_new_tables(before, folder)
        if after != before:
            differing.append(str(page))
            if not check:
                page.write_text(after, encoding="utf-8")
    if not check:
        limit_on_features.draw(results)
        keel_tables.draw(results)
        if scores := pair_scores(folder):
            pairs.draw(scores, results)
    if differing and check:
        print(f"these pages differ from results/: {', '.join(differing)}; type imbalance findings to rewrite them")
    else:
        print(f"rewritten: {', '.join(differing)}" if differing else "all pages agree with results/")
    return int(check and bool(differing))
