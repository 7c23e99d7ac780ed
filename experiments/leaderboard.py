"""Write the rows of results/leaderboard.csv that follow from the tables of kept results.

    imbalance leaderboard    # rewrites these rows; `imbalance findings` then writes the page

Each row has one method, one setting and one selection rule; no rule reads test. The digest of a row is a hash of the rows
of results that it was computed from. The rows of submitted runs stay as they are. The studies of pairs of classes (pairs,
leads) and of limits (limit_on_features, limit_descent) are left out: they compare two losses over many small tasks, and
have pages of their own.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.override_flags import OverrideText
from imbalance.config.schema import flatten
from imbalance.experiments import choose, every_method_runs, keel_tables, keel_tables_runs, protocol, subpopbench
from imbalance.experiments.keel_tables_runs import OUTSIDERS
from imbalance.experiments.subpopbench_settings import DATA, METHODS, RETRAINED, data_set_of, has_head, point
from imbalance.metrics.selection import KEPT
from imbalance.metrics.variance import variance_components
from imbalance.report import kept_results, leaderboard
from imbalance.report.kept_results import Row, numbers, score
from imbalance.report.leaderboard import Entry
from imbalance.report.tables import markdown
from imbalance.sweep.runs import make_run
from imbalance.utils.output import counted

BY = "the maintainers"
LITERATURE = Path(__file__).resolve().parent.parent / "docs" / "literature.csv"
IGNORED = ("trainer.eval_splits", "trainer.eval_every", *KEPT)  # change no result


def config_of(row: Row) -> dict[str, Any]:
    """Return the config values of a row of results by full key, such as "optim.lr".

    The overrides of a row have + between the values of a tuple.
    """
    changes = dict(part.split("=", 1) for part in row["overrides"].split(",") if "=" in part)
    texts = {key: OverrideText(value.replace("+", ",")) for key, value in changes.items() if key not in IGNORED}
    return flatten(make_run(row["name"], texts, 0, "runs").config.to_dict())


class Tuning(NamedTuple):
    """The choice of hyperparameters: a text that says how they were chosen, and the labels of val that the choice read."""

    text: str
    labels: str

    @property
    def cells(self) -> Entry:
        return {"tuning": self.text, "labels in tuning": self.labels}


UNTUNED = Tuning("not tuned", "none")
ON_DIGITS = Tuning("learning rate the best of 5 on val, exponent also chosen on val", "classes")
ON_COLORED_DIGITS = Tuning("best of 3 learning rates on val, over 3 other seeds", "groups")
ON_SEED_0 = Tuning("chosen on val at seed 0", "groups")
RATE_OF_ERM = Tuning("learning rate of ERM, the best of 3 on val", "groups")
BY_HAND = Tuning("learning rates set by hand after earlier runs, which were not kept", "classes")
# The choice of hyperparameters of a config, by table of results and config.
TUNED = {
    **{("ledger", f"digits_{method}"): ON_DIGITS for method in ("erm", "ce", "poly")},
    **{("ledger", f"colored_digits_{method}"): ON_COLORED_DIGITS for method in ("erm", "ce", "poly", "undersampled")},
    **{(choose.STUDY, f"colored_digits_{method}"): ON_COLORED_DIGITS for method in ("erm", "dro", "dfr", "jtt")},
    **{(choose.STUDY, f"colored_digits_{method}"): ON_SEED_0 for method in ("eiil", "lff")},
    **{(choose.STUDY, f"colored_digits_{method}"): RATE_OF_ERM for method in ("george", "spare", "ula", "xrm")},
    (choose.STUDY, "colored_digits_lc"): Tuning("not recorded", "groups"),
}


def tuning_of(table: str, row: Row) -> Tuning:
    """Return how the hyperparameters of a row in the ledger, of the advice or in the table of draws were chosen."""
    if table == "draws":
        return BY_HAND
    changed = [part for part in settings_of(row).split(",") if part and not part.startswith("data.")]
    tuning = TUNED.get((table, row["name"]), UNTUNED)
    if not changed or tuning == UNTUNED:
        return tuning
    of_another = Tuning(f"learning rate of {row['name']}, which was chosen on val", tuning.labels)
    return UNTUNED if any(part.startswith("optim.lr=") for part in changed) else of_another


def settings_of(row: Row) -> str:
    """Return the overrides of a row that can change a result; "" if there are none."""
    parts = row["overrides"].split(",")
    return ",".join(p for p in parts if "=" in p and p.partition("=")[0] not in (*IGNORED, "data.classes", "data.draw"))


def entry(
    table: str, rows: Sequence[Row], values: Mapping[int, float], about: Mapping[str, str], config: Mapping[str, Any]
) -> Entry:
    """Return a row of the leaderboard.

    Args:
        table: the name of the table of results that has `rows`.
        values: the metric of each seed; nan for a seed that diverged.
        about: cells that the config does not determine, by column; at least "metric", "tuning" and "labels in tuning", and
            "test examples" and "draws" if the rows have no numbers of test examples.
        config: the values of the config by full key.
    """
    evidence = f"results/{kept_results.file_of(table, Path(leaderboard.__file__).parents[2] / 'results').name}"
    lines = [json.dumps({key: value for key, value in row.items() if value}, sort_keys=True) for row in rows]
    return leaderboard.ordered(
        leaderboard.about_config(config),
        leaderboard.result_cells(values),
        {"config": rows[0]["name"], "settings": settings_of(rows[0]), "evidence": evidence, "by": BY},
        {"digest": leaderboard.digest_of(lines), "commit": " ".join(sorted({row["commit"] for row in rows}))},
        {} if "test examples" in about else data_cells(rows),
        about,
    )


def data_cells(rows: Sequence[Row]) -> Entry:
    """Return the number of test examples, and the number of draws of train, val and test that the seeds have."""
    done = [row for row in rows if row["status"] == "done"]
    sizes = {sum(map(int, row["test counts"].split("|"))) for row in rows}
    return {"test examples": str(max(sizes)), "draws": str(len({row["data"] for row in done}))}


def by_setting(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each setting; rows with the same config and overrides have the same setting."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["name"], row["overrides"]), []).append(row)
    yield from groups.values()


METRICS = {"worst-group accuracy": "worst_group_accuracy", "balanced accuracy": "balanced_accuracy"}


def metric_for(rows: Sequence[Row]) -> str:
    """Return the metric that ranks methods on the data set of `rows`: of groups for colored digits, else of classes."""
    return "worst-group accuracy" if rows[0]["set"] == "colored_digits" else "balanced accuracy"


def tests_of(rows: Sequence[Row], metric: str) -> dict[int, float]:
    """Return the test metric of each row, at the epoch that its config selects, by seed."""
    return {int(row["seed"]): score(row, "test", METRICS[metric]) for row in rows}


def default_entries(table: str, folder: Path) -> Iterator[Entry]:
    """Yield a row for each setting of a table of results."""
    for rows in by_setting(kept_results.read(table, folder)):
        yield default_entry(table, rows)


def default_entry(table: str, rows: Sequence[Row]) -> Entry:
    """Return the row of a setting, as `tuning_of` says it was tuned, at the epoch that its config selects."""
    metric = metric_for(rows)
    about = {"metric": metric, **tuning_of(table, rows[0]).cells}
    return entry(table, rows, tests_of(rows, metric), about, config_of(rows[0]))


def advice_entries(folder: Path) -> Iterator[Entry]:
    """Yield a row for each setting of the runs that docs/choose.md shows, except those that the ledger has, too."""
    known = {(row["name"], settings_of(row)) for row in kept_results.read("ledger", folder)}
    for rows in by_setting(kept_results.read(choose.STUDY, folder)):
        if (rows[0]["name"], settings_of(rows[0])) not in known:
            yield default_entry(choose.STUDY, rows)


def long_tail_entries(folder: Path) -> Iterator[Entry]:
    """Yield two rows for each setting on long-tailed CIFAR-10: of the last epoch, and of the epoch that is best on val."""
    for rows in by_setting(kept_results.read("long_tails", folder)):
        last = {"rule": "last epoch", "labels in val": "none"}
        best = {"rule": "best balanced accuracy", "labels in val": "classes"}
        for about, column in ((last, "test balanced"), (best, "best balanced: test balanced")):
            values = dict(zip((int(row["seed"]) for row in rows), numbers(rows, column).tolist()))
            cells = {"metric": "balanced accuracy", **UNTUNED.cells, **about}
            yield entry("long_tails", rows, values, cells, config_of(rows[0]))


def protocol_entries(folder: Path) -> Iterator[Entry]:
    """Yield a row for each data set, batch size and loss of the tuning protocol, at the learning rate best on val."""
    every = kept_results.read("protocol", folder)
    for data, (_, metric_name) in (protocol.SMALL_DATA | protocol.IMAGES).items():
        for size in ("64", "512"):
            for loss in protocol.LOSSES:
                tried = [row for row in every if protocol.is_run_of(row, data, loss) and row["batch size"] == size]
                if not tried:
                    continue
                chosen, rows = protocol.best_kept_rate(tried, metric_name)
                scores = {row["lr"]: score(row, "val", metric_name) for row in tried if row["seed"] == "0"}
                remarks = []
                if (ties := sum(value == scores[chosen] for value in scores.values())) > 1:
                    remarks.append(f"smallest of {ties} equally good learning rates")
                if float(chosen) in (min(map(float, scores)), max(map(float, scores))):
                    remarks.append("the learning rate is an end of the grid")
                metric = next(title for title, name in METRICS.items() if name == metric_name)
                exponents = ", exponent also chosen on val" if data == "digits" else ""
                text = f"best of {len(scores)} learning rates on val at seed 0{exponents}"
                about = {
                    "metric": metric,
                    **Tuning(text, "groups" if metric_name == "worst_group_accuracy" else "classes").cells,
                    "settings": ",".join([settings_of(rows[0]), *remarks]),
                }
                if data == "cifar_pair_features":  # features of the images of cifar_pair
                    about["source"] = "CIFAR-10"
                yield entry("protocol", rows, tests_of(rows, metric), about, config_of(rows[0]))


def tied_settings(rows: Sequence[Row], rule: str) -> int:
    """Return how many settings of a method are the best at seed 0 by a rule of SubpopBench; the first of them was taken.

    Args:
        rows: the rows of one method in one comparison.
    """
    values = [float(row[f"{rule}: value"]) for row in rows if row["seed"] == "0" and row["status"] == "done"]
    return values.count(max(values))


def steps_text(method: str, steps: int) -> str:
    """Return the number of training steps of a method of SubpopBench, those of a head or of a second network included."""
    if METHODS[method].overrides.get("head.name") in RETRAINED:
        return f"{2 * steps:,} steps, half of them of the head alone"
    return f"{steps:,} steps" + (" of two networks" if method == "lff" else "")


def method_config(comparison: subpopbench.Comparison, method: str) -> tuple[str, dict[str, Any]]:
    """Return the config of a data set, and the values of a method by full key in setting 0 of SubpopBench."""
    data_set = DATA.get(comparison.data) or data_set_of(comparison.data, comparison.budget, {})
    values = point(data_set, method, 0, 0, comparison.attributes, comparison.budget)
    changes = {key: value for key, value in values.items() if key not in ("config", "seed")}
    run = make_run(data_set.config, {**changes, **subpopbench.parse_changes(comparison.changes)}, 0, "runs")
    return data_set.config, flatten(run.config.to_dict())


def subpopbench_entries(folder: Path) -> Iterator[Entry]:
    """Yield a row for each method and each rule that reads val, in each comparison by the protocol of SubpopBench."""
    for comparison, rows in subpopbench.comparisons(kept_results.read(subpopbench.STUDY, folder)).items():
        settings = 1 + max(int(row["setting"]) for row in rows)
        # The configs are those of setting 0, because the cells below say what differs between settings.
        configs = {method: method_config(comparison, method) for method in {row["method"] for row in rows}}
        for rule, labels in (("val worst group", "groups"), ("val worst class", "classes")):
            for method, outcome in subpopbench.outcomes(rows, rule, subpopbench.SEEDS).items():
                if outcome.setting is None:
                    continue
                config, values = configs[method]
                ties = tied_settings([row for row in rows if row["method"] == method], rule)
                first = f" (first of {ties} equally good ones)" if ties > 1 else ""
                chosen = list(outcome.runs.values())
                steps = steps_text(method, comparison.budget)
                fitted = has_head(METHODS[method]) and METHODS[method].needs_attributes
                about = {
                    "metric": "worst-group accuracy",
                    "rule": rule,
                    "labels in val": f"groups{leaderboard.FITTED_TO_VAL}" if fitted else labels,
                    "budget": f"{steps}, attributes of train {comparison.attributes}",
                    **Tuning(f"best of {counted(settings, 'setting')} by the rule at seed 0", labels).cells,
                    "learning rate": f"{float(chosen[0]['lr']):.3g}",
                    "settings": f"setting {outcome.setting} of SubpopBench{first}",
                    "config": config,
                }
                yield entry("subpopbench", chosen, outcome.values(rule, "worst group"), about, values)


def every_method_budget(data: every_method_runs.Data, method: str) -> Entry:
    """Return the cell "budget" of a method whose two stages share the epochs of the comparison; {} for other methods."""
    if method != "jtt":
        return {}
    return {"budget": f"{data.epochs} epochs, batches of {data.batch}"}


def every_method_entries(folder: Path) -> Iterator[Entry]:
    """Yield a row for each data set, rule and method of the comparison of every method on real data."""
    rows = kept_results.read(every_method_runs.STUDY, folder)
    for name, data in every_method_runs.DATA.items():
        for labels, rule in every_method_runs.rules_of(data).items():
            for method in every_method_runs.methods_for(data):
                of_method = [row for row in rows if row["set"] == name and row["method"] == method]
                exponents = every_method_runs.window(of_method, data, method, rule)
                tried = [row for row in of_method if int(row["exponent"]) in exponents]
                if not tried:
                    continue
                values = every_method_runs.run_values(data, method, data.rates)
                config = flatten(make_run(every_method_runs.CONFIG, values, 0, "runs").config.to_dict())
                ends = sorted({10.0**exponent for exponent in (exponents[0], exponents[-1])})
                fitted = (
                    leaderboard.FITTED_TO_VAL
                    if every_method_runs.EVERY[method].overrides.get("head.name") == "dfr"
                    else ""
                )
                read = "groups" if fitted and data.by == "group" else labels
                about = {
                    "data": f"{data.title} ({data.representation})",
                    "source": data.source,
                    "metric": f"{'worst-group' if data.metric == 'worst group' else 'balanced'} accuracy",
                    "starts from": "random weights"
                    if every_method_runs.trains_features(data)
                    else f"features of {data.representation}",
                    **every_method_budget(data, method),
                    **Tuning("best of 3 learning rates on val of each seed", labels).cells,
                    "learning rate": " to ".join(f"{end:g}" for end in ends),
                    "rule": f"best {'worst group' if rule == 'worst group' else 'balanced accuracy'} on val",
                    "labels in val": f"{read}{fitted}",
                    # If the groups are the classes, a method that reads groups reads classes.
                    **({"labels in train": "classes"} if data.by == "class" else {}),
                    "settings": "no learning rate acts" if len(exponents) == 1 else "",
                    "test examples": str(data.test_examples),
                    "draws": str(len({row["data"] for row in tried if row["status"] == "done"})),
                }
                yield entry(
                    every_method_runs.STUDY,
                    tried,
                    every_method_runs.outcome(of_method, data, method, rule),
                    about,
                    config,
                )


def keel_entries(folder: Path) -> Iterator[Entry]:
    """Yield a row for each network of the study on KEEL's tables, which count as one data set.

    A seed's value is the mean over base data sets; see `keel_tables`. Only tables and seeds that every other table has, too,
    are used. ERM has a second row, with thresholds from val, because it is the baseline of the study.
    """
    rows = kept_results.read(keel_tables_runs.STUDY, folder)
    seeds = keel_tables.common_seeds(rows)
    if not seeds:
        return
    rows = [row for row in rows if int(row["seed"]) in seeds]
    by_seed = {seed: keel_tables.Results([row for row in rows if int(row["seed"]) == seed]) for seed in sorted(seeds)}
    rates = keel_tables_runs.tuned_rates(kept_results.read(keel_tables_runs.RATE_STUDY, folder))
    about = {
        "data": f"keel ({counted(len({row['table'] for row in rows}), 'table')})", "metric": "balanced accuracy",
        "budget": f"about {keel_tables_runs.STEPS} steps, batches of {keel_tables_runs.BATCH}",
        "draws": str(len(seeds)),
        "test examples": str(sum(int(size) for row in rows for size in row["test counts"].split("|")) // len(seeds)),
        **Tuning(f"best of {len(keel_tables_runs.RATES)} learning rates on val of {len(keel_tables_runs.TUNED_ON)} tables", "classes").cells,
    }  # fmt: skip
    for method in (*keel_tables.BY_LARGEST, keel_tables.THRESHOLDS):
        if method.arm in OUTSIDERS:
            continue
        values = {seed: results.mean("balanced accuracy", method) for seed, results in by_seed.items()}
        config = keel_tables.example_config(method, rates[method.arm])
        settings = {"settings": keel_tables.settings_text(config), "config": keel_tables_runs.CONFIG}
        column = f"{method.arm}: {'right at val' if method.at_val else 'right'}"
        own = [
            {key: value for key, value in row.items() if ": " not in key or key == column} for row in rows
        ]  # for the digest
        yield entry(keel_tables_runs.STUDY, own, values, {**about, **settings}, config)


SOURCES = (
    partial(default_entries, "ledger"), partial(default_entries, "draws"), advice_entries, long_tail_entries,
    protocol_entries, subpopbench_entries, every_method_entries, keel_entries,
)  # fmt: skip


def kept_entries(folder: Path) -> list[Entry]:
    """Return all rows of the leaderboard that can be computed from the tables of results in a folder, such as results/."""
    return [entry for source in SOURCES for entry in source(folder)]


def fill(*, results: str) -> str:
    """Write the rows that follow from the tables of results to leaderboard.csv; return the message to print.

    Args:
        results: folder that holds the tables of results, such as results/.
    """
    folder = Path(results)
    entries = kept_entries(folder)
    leaderboard.add(folder, entries, lambda row: not row["evidence"].startswith(f"results/{leaderboard.EVIDENCE}/"))
    return f"{folder / leaderboard.NAME}: {counted(len(entries), 'row')} from kept results"


def literature() -> list[dict[str, str]]:
    """Return the rows of docs/literature.csv: method, data, value and source of published numbers."""
    with open(LITERATURE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def board_tables(folder: Path) -> str:
    """Return the tables of the leaderboard by data set, from leaderboard.csv in a folder."""
    return leaderboard.board(leaderboard.read(folder), literature())


def variance_table(folder: Path) -> str:
    """Return a table of variance shares of worst-group accuracies on test, from the runs in subpopbench.csv.gz.

    "All runs" are all settings that were tried. Each run has one value for each rule that reads val. "Chosen settings" are the
    values on the board, one for each method, seed and rule. Diverged runs have no value.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    rules = [name for name, rule in subpopbench.RULES.items() if rule.split == "val"]
    heads = [
        "data",
        "values",
        "methods",
        "n",
        "standard deviation, points",
        "method",
        "tuning",
        "seed",
        "selection rule",
    ]
    table = []

    def line(data: str, title: str, values: Sequence[tuple[float, Sequence[str]]]) -> None:
        """Add a line for values with their labels: the method, the setting if there is one, and the seed."""
        accuracies, labels = [value for value, _ in values], list(zip(*(labels for _, labels in values)))
        names = ("method", "tuning", "seed") if len(labels) == 3 else ("method", "seed")
        components = variance_components(accuracies, dict(zip(names, labels)), "selection rule")
        cells = {name: f"{c.share:.0%} ({c.low:.0%} to {c.high:.0%})" for name, c in components.items()}
        table.append([data, title, str(len(set(labels[0]))), str(len(values)), f"{100 * np.std(accuracies, ddof=1):.1f}",
                      *(cells.get(head, "–") for head in heads[5:])])  # fmt: skip

    for comparison, rows in subpopbench.comparisons(kept_results.read(subpopbench.STUDY, folder)).items():
        done = [row for row in rows if row["status"] == "done"]
        reads = {m: leaderboard.labels_in_train(method_config(comparison, m)[1]) for m in {r["method"] for r in done}}
        everything = [
            (float(row[f"{rule}: worst group"]), (row["method"], row["setting"], row["seed"]))
            for row in done
            for rule in rules
        ]
        chosen = [
            (value, (method, str(seed)))
            for rule in rules
            for method, outcome in subpopbench.outcomes(rows, rule, subpopbench.SEEDS).items()
            for seed, value in outcome.values(rule, "worst group").items() if np.isfinite(value)
        ]  # fmt: skip
        line(comparison.data, "all runs", everything)
        for labels, title in (
            ("classes", "all runs, methods that read no groups of train"),
            ("groups", "all runs, methods that read groups of train"),
        ):
            line("", title, [value for value in everything if reads[value[1][0]] == labels])
        line("", "chosen settings", chosen)
    return markdown(heads, table) if table else "No run has finished yet.\n"


def quoted_elsewhere(folder: Path) -> str:
    """Return a table of the published values on data sets that have no row in leaderboard.csv."""
    names = {entry["data"].partition(" ")[0] for entry in leaderboard.read(folder)}
    shown = tuple(text for name, text in leaderboard.PUBLISHED_OF.items() if name in names)
    return leaderboard.quoted_table([row for row in literature() if not row["data"].startswith(shown)])
