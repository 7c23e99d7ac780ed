"""Compare methods by the protocol of SubpopBench: a random search for each method, three selection rules, then more seeds.

    imbalance reproduce subpopbench --data=colored_digits --methods=erm,groupdro,reweight --steps=1000 --trials=4
    imbalance reproduce subpopbench --data=waterbirds --methods=erm,jtt,dfr --dry_run
    imbalance reproduce subpopbench --data=waterbirds --methods=mixup,focal --attributes=unknown --launcher=slurm --jobs=16
    imbalance reproduce subpopbench --data=colored_digits --no-train    # the tables of the kept runs in results/

The protocol is that of Yang et al., "Change is Hard: A Closer Look at Subpopulation Shift", ICML 2023. Each method is trained
at seed 0 with the default setting and 15 random settings, drawn as in the released code. Each selection rule chooses a
setting and a checkpoint. The chosen setting is trained with two more seeds. The tables show its test metrics, and quote the
published values beside them. With --keep the runs are added to results/subpopbench.csv.gz.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.override_flags import OverrideText
from imbalance.config.run_directory import read_logits, read_predictions
from imbalance.errors import BadInput
from imbalance.experiments.published import find_published
from imbalance.experiments.subpopbench_settings import (
    DATA,
    METHODS,
    DataSet,
    data_set_of,
    depends_on_attributes,
    has_head,
    point,
)
from imbalance.metrics import selection
from imbalance.metrics.intervals import Mean, mean, paired_difference
from imbalance.metrics.scores import saved_group_mask, score_metrics
from imbalance.metrics.selection import Evaluations, evaluations
from imbalance.report import kept_results
from imbalance.report.kept_results import Row
from imbalance.report.saved_runs import summary_of
from imbalance.report.tables import markdown
from imbalance.sweep.launch import train_in_study
from imbalance.sweep.runs import check_common_overrides, make_run
from imbalance.sweep.storage import StudyLocation
from imbalance.sweep.study import Point
from imbalance.sweep.sweep import parse_values
from imbalance.utils.output import counted

STUDY = "subpopbench"  # name of the table of results, and of the Optuna study unless --study names another

# The metrics of the tables, which are those of the tables of SubpopBench.
COLUMNS = (
    "worst group", "average", "adjusted", "balanced", "worst precision", "precision", "worst F1", "F1", "AUROC", "ECE",
)  # fmt: skip


class Rule(NamedTuple):
    """A rule that chooses a setting and a checkpoint.

    split: the split that the rule reads.
    value: function from the predictions at all checkpoints to a value for each checkpoint; the rule chooses the largest.
    """

    split: str
    value: Callable[[Evaluations], np.ndarray]


RULES = {
    "val worst group": Rule("val", selection.worst),
    "val worst class": Rule("val", selection.worst_class),
    "test worst group (oracle)": Rule("test", selection.worst),
}
QUOTED_RULE = {"known": "val worst group", "unknown": "val worst class"}  # of the published tables, by --attributes


# Rows of results


class Checkpoints(NamedTuple):
    """The predictions of a run on val and test at each checkpoint, and the (N, K) logits on test at each checkpoint."""

    val: Evaluations
    test: Evaluations
    logits: Sequence[np.ndarray]


def read_checkpoints(directory: Path, final_only: bool) -> Checkpoints:
    """Return the checkpoints of a finished run.

    Args:
        final_only: whether to return the final predictions alone, because a last layer was fitted after training.
    """
    if not final_only:
        logits = list(read_logits(directory, "test").values())
        return Checkpoints(evaluations(directory, "val")[1], evaluations(directory, "test")[1], logits)
    saved = [read_predictions(directory, split) for split in ("val", "test")]
    val, test = (
        Evaluations((s["logits"].argmax(1) == s["targets"])[None], s["targets"], saved_group_mask(s)) for s in saved
    )
    return Checkpoints(val, test, [saved[1]["logits"]])


def test_metrics(logits: np.ndarray, test: Evaluations) -> dict[str, float]:
    """Return the metrics in COLUMNS by name, as fractions.

    `adjusted` is the mean accuracy of the groups, without weights. `worst precision` and `worst F1` are of the worst class.

    Args:
        logits: (N, K) logits on test.
        test: targets and groups of test.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predictions, labels = logits.argmax(1), np.unique(test.targets)
    zero: Any = 0  # as in SubpopBench; the type stubs of scikit-learn allow only texts
    precision, recall, f1, _ = precision_recall_fscore_support(
        test.targets, predictions, labels=labels, zero_division=zero
    )
    right = (predictions == test.targets)[None]
    groups = selection.group_accuracies(Evaluations(right, test.targets, test.group_mask))[0]
    scores = score_metrics(logits, test.targets, [str(label) for label in range(logits.shape[1])])
    values = (
        groups.min(), right.mean(), groups.mean(), np.mean(recall), np.min(precision), np.mean(precision),
        np.min(f1), np.mean(f1), scores["auroc"], scores["ece"],
    )  # fmt: skip
    return dict(zip(COLUMNS, map(float, values), strict=True))


def row_of(directory: Path, about: Mapping[str, Any], final_only: bool) -> Row:
    """Return the row of a run for the table of results.

    The row has the cells `about`, and those of `kept_results.row_of` except its cells of selection rules. For each rule in
    RULES, the row also has cells of the checkpoint that the rule chooses, unless the run diverged. "<rule>: value" is the
    value by which the rule chooses, and "<rule>: <metric>" is a test metric.
    """
    row = kept_results.row_of(directory)
    assert row is not None, "called for a run that is done or diverged"
    others = (*kept_results.RULES, "path")  # its choices of an epoch, which this table replaces by those of RULES
    row = {key: value for key, value in row.items() if not key.startswith(tuple(f"{name}: " for name in others))}
    row |= {key: kept_results.text(value) for key, value in about.items()}
    if row["status"] != "done":
        return row
    checkpoints = read_checkpoints(directory, final_only)
    for name, rule in RULES.items():
        values = rule.value(checkpoints.val if rule.split == "val" else checkpoints.test)
        best = int(values.argmax())
        cells = {"value": float(values[best]), **test_metrics(checkpoints.logits[best], checkpoints.test)}
        row |= {f"{name}: {key}": kept_results.text(value) for key, value in cells.items()}
    return row


# Tables


class Comparison(NamedTuple):
    """Data set, budget, changes and attributes that all rows of a table have in common.

    data: name of the data set.
    budget: number of training steps of every run.
    changes: overrides of all runs, as text with spaces between them; "" for none.
    attributes: "known" or "unknown" in training.
    """

    data: str
    budget: int
    changes: str
    attributes: str

    def has(self, row: Row) -> bool:
        """Return whether a row belongs to this comparison; a row whose attributes are "" fits both "known" and "unknown"."""
        values = row["protocol data"], int(row["budget"]), row["changes"]
        return values == self[:3] and row["attributes"] in ("", self.attributes)


class Outcome(NamedTuple):
    """Setting that a rule chooses for a method, and the runs of this setting.

    setting: number of the chosen setting; None if every run of the search diverged.
    runs: the rows of the chosen setting, by seed; a diverged run has a row.
    """

    setting: int | None
    runs: Mapping[int, Row]

    def values(self, rule: str, column: str) -> dict[int, float]:
        """Return a test metric at the checkpoint that the rule chooses, by seed; nan for a diverged run."""
        return {seed: float(row.get(f"{rule}: {column}") or "nan") for seed, row in self.runs.items()}


def best_setting(rows: Sequence[Row], rule: str) -> int | None:
    """Return the setting whose run at seed 0 has the best checkpoint by the rule; None if every run diverged.

    Of several equally good settings, the first is returned.
    """
    at_seed_0 = sorted((row for row in rows if row["seed"] == "0"), key=lambda row: int(row["setting"]))
    values = {int(row["setting"]): float(row[f"{rule}: value"]) for row in at_seed_0 if row["status"] == "done"}
    return max(values, key=values.__getitem__, default=None)


def outcomes(rows: Sequence[Row], rule: str, seeds: int) -> dict[str, Outcome]:
    """Return the outcome of each method that has rows, by method, in the order of METHODS.

    Args:
        rows: the rows of one comparison.
        seeds: number of seeds; seeds count from 0.
    """
    result = {}
    for method in METHODS:
        of_method = [row for row in rows if row["method"] == method]
        if of_method:
            setting = best_setting(of_method, rule)
            chosen = [row for row in of_method if int(row["setting"]) == setting and int(row["seed"]) < seeds]
            result[method] = Outcome(setting, {int(row["seed"]): row for row in chosen})
    return result


def joint_means(by_method: Mapping[str, Mapping[int, float]], reference: str) -> dict[str, tuple[str, str]]:
    """Return two texts for each method: joint intervals of its mean, and of its mean difference from `reference`.

    In at least 95 % of cases all intervals of means contain the true means at once. The same is true of the intervals of
    differences. Each interval has the level 1 − 0.05 / m, where m is the number of methods or differences (Bonferroni).
    The methods may have different spreads, and share seeds.

    Args:
        by_method: the values of each method, by seed; nan for a diverged run.
        reference: key of `by_method`; the differences are "" if it is missing.
    """
    result = {}
    for method, values in by_method.items():
        alone = mean(list(values.values()), 0, 1, family=len(by_method))
        difference = ""
        if method != reference and reference in by_method:
            baseline = by_method[reference]
            difference = range_text(paired_difference(values, baseline, 0, 1, family=max(1, len(by_method) - 1)))
        result[method] = range_text(alone), difference
    return result


def range_text(value: Mean) -> str:
    """Return the ends of an interval in percent as text, such as "12.3 to 45.6"; "–" if there is none."""
    return "–" if np.isnan(value.low) else f"{100 * value.low:.1f} to {100 * value.high:.1f}"


def main_table(rows: Sequence[Row], comparison: Comparison, seeds: int) -> str:
    """Return a table of each method's worst-group accuracy by each rule, with joint intervals for the rule of QUOTED_RULE.

    Args:
        rows: the rows of the comparison.
        seeds: number of seeds; seeds count from 0.
    """
    quoted_rule = QUOTED_RULE[comparison.attributes]
    by_rule = {rule: outcomes(rows, rule, seeds) for rule in RULES}
    values = {method: outcome.values(quoted_rule, "worst group") for method, outcome in by_rule[quoted_rule].items()}
    joint = joint_means(values, "erm")
    quotations = {method: quotation(comparison, METHODS[method].title) for method in values}
    quotes = any(quotations.values())
    table = []
    for method, outcome in by_rule[quoted_rule].items():
        cells = [summarise(by_rule[rule][method].values(rule, "worst group")) for rule in RULES]
        done = sum(row["status"] == "done" for row in outcome.runs.values())
        searched = sum(row["method"] == method and row["seed"] == "0" for row in rows)
        chosen = "–" if outcome.setting is None else outcome.setting
        line = [METHODS[method].title, *cells, *joint[method], chosen, searched, done]
        table.append([*line, quotations[method]] if quotes else line)
    heads = [
        "method",
        *RULES,
        f"joint interval, {quoted_rule}",
        "minus ERM, joint interval",
        "setting",
        "settings tried",
        "n",
    ]
    heads += ["worst group, published (quoted)"] * quotes
    return markdown(heads, table)


def full_table(rows: Sequence[Row], rule: str, seeds: int) -> str:
    """Return a table of all metrics in COLUMNS for each method, at the setting and checkpoint that `rule` chooses.

    Args:
        rows: the rows of one comparison.
        seeds: number of seeds; seeds count from 0.
    """
    table = []
    for method, outcome in outcomes(rows, rule, seeds).items():
        done = sum(row["status"] == "done" for row in outcome.runs.values())
        chosen = "all diverged" if outcome.setting is None else outcome.setting
        cells = [summarise(outcome.values(rule, column)) for column in COLUMNS]
        table.append([METHODS[method].title, chosen, *cells, done])
    return markdown(["method", "setting", *COLUMNS, "n"], table)


def summarise(values: Mapping[int, float]) -> str:
    """Return the mean over seeds and its 95 % interval, which is not a joint one, as text, in percent."""
    return mean(list(values.values()) or [nan], 0, 1).percent()


def quotation(comparison: Comparison, title: str) -> str:
    """Return the published value of a method on a data set as text; "" if published.csv has none."""
    value = find_published(f"subpopbench {comparison.data} {comparison.attributes}", title)
    return "" if value is None else f"{value.value:g} ± {value.standard_deviation:g}"


def description(rows: Sequence[Row], comparison: Comparison, seeds: int) -> str:
    """Return the head of a table: what was trained, and in what it differs from the protocol."""
    settings = 1 + max(int(row["setting"]) for row in rows)
    steps = f"{comparison.budget:,} steps a run"
    if comparison.data not in DATA:
        steps += " (the protocol does not name this data set)"
    elif comparison.budget != (budget := DATA[comparison.data].steps):
        steps += f" (scaled down from {budget:,})" if comparison.budget < budget else f" (instead of {budget:,})"
    settings_text = counted(settings, "setting") + ("" if settings >= 16 else " (scaled down from 16)")
    diverged = sum(row["status"] != "done" for row in rows)
    return (
        f"{comparison.data}: {settings_text} a method at seed 0, {counted(seeds, 'seed')} of the chosen ones, {steps}, attributes "
        f"of train {comparison.attributes}; changes of the config: {comparison.changes or 'none'}; "
        f"{len(rows):,} runs, of which {diverged} diverged."
    )


def parse_changes(text: str) -> dict[str, OverrideText]:
    """Return by key the overrides in `text`, such as "model.hidden=64,64 model.name=mlp"."""
    return {key: OverrideText(value) for key, value in (part.split("=", 1) for part in text.split())}


LEGEND = (
    "Worst-group accuracy on test, %: mean ± 95 % t-interval of each method alone. The joint intervals contain the true means "
    "(or the true differences) of all methods at once in 95 % of cases."
)


def kept_table(data: str, folder: Path) -> str:
    """Return the main tables of a data set: one for each of its comparisons in subpopbench.csv.gz in a folder.

    Args:
        folder: folder that holds the tables of results, such as results/.
    """
    parts = [
        f"{description(rows, comparison, SEEDS)}\n\n{main_table(rows, comparison, SEEDS)}"
        for comparison, rows in comparisons(kept_results.read(STUDY, folder)).items()
        if comparison.data == data
    ]
    return "\n".join(parts) if parts else "No run has finished yet.\n"


SEEDS = 3  # of the protocol


def comparisons(rows: Sequence[Row]) -> dict[Comparison, list[Row]]:
    """Return the rows of each comparison that has a row with its own attributes, "known" or "unknown".

    Rows whose attributes are "" come under both.
    """
    keys = {(row["protocol data"], int(row["budget"]), row["changes"]) for row in rows}
    kinds = [Comparison(*key, attributes) for key in sorted(keys) for attributes in QUOTED_RULE]
    found = {comparison: [row for row in rows if comparison.has(row)] for comparison in kinds}
    return {c: of_c for c, of_c in found.items() if any(row["attributes"] == c.attributes for row in of_c)}


def print_tables(rows: Sequence[Row], comparison: Comparison, seeds: int) -> None:
    """Print the main table and, for each rule, the table of all metrics."""
    print(f"{description(rows, comparison, seeds)}\n{LEGEND}\n\n{main_table(rows, comparison, seeds)}")
    for rule in RULES:
        print(f"{comparison.data}, selected by {rule}\n\n{full_table(rows, rule, seeds)}")


# The command


def subpopbench(
    *,
    data: Sequence[str],
    methods: Sequence[str],
    attributes: str,
    trials: int,
    steps: int,
    dry_run: bool,
    train: bool,
    keep: bool,
    results: str,
    overrides: Mapping[str, Any],
    seeds: int,
    work_dir: str,
    jobs: int,
    stacked: int,
    study: str | None,
    storage: str,
    launcher: str,
    slurm: Sequence[str],
) -> None:
    """Train the runs of the protocol that are not done yet, and print a table for every data set and selection rule.

    Args:
        data: keys of DATA, or names of other data sets that have a config <name>_erm.
        methods: keys of METHODS; if none, all that can be trained with these `attributes` and data.
        attributes: "known" or "unknown" in training; the attributes of val and test are always known.
        trials: number of settings for each method, the default setting included.
        steps: number of training steps of every run; 0 for the number of the protocol.
        dry_run: print the numbers of runs, steps and hours, and train nothing.
        train: False to train nothing, and print the tables of the runs in results/subpopbench.csv.gz.
        keep: add a row for each run to results/subpopbench.csv.gz.
        results: folder that holds the tables of results, such as results/.
        overrides: config values by key, for all runs.
        seeds: number of seeds for each chosen setting; seeds count from 0.
        stacked: largest number of runs that one worker trains as one stacked model.
        study: name of the Optuna study that holds the runs; "subpopbench" if None.
    """
    check_names("--data", data)
    if not train:
        print_kept(data, methods, attributes, seeds, Path(results))
        return
    common = check_common_overrides(overrides)
    data_sets = {name: data_set_of(name, steps, common) for name in data}
    chosen_methods = methods_for(methods, attributes, data_sets)
    changes = " ".join(f"{key}={value}" for key, value in sorted(common.items()) if key != "data_dir")

    def point_of(name: str, method: str, setting: int, seed: int) -> Point:
        return parse_values({**point(data_sets[name], method, setting, seed, attributes, steps), **common})

    searched = {
        (name, method, setting, 0): point_of(name, method, setting, 0)
        for name in data
        for method in chosen_methods
        for setting in range(trials)
    }
    for run in searched.values():  # refuse what is wrong before anything is trained
        make_run(run["config"], {k: v for k, v in run.items() if k not in ("config", "seed")}, 0, work_dir)
    if dry_run:
        print(plan(searched, data_sets, chosen_methods, trials, seeds, work_dir, jobs), end="")
        return
    location = StudyLocation(study or STUDY, work_dir, storage)

    def rows_of(points: Mapping[tuple[str, str, int, int], Point]) -> list[Row]:
        """Train the runs of these points, and return their rows."""
        directories = train_in_study(location, list(points.values()), jobs, stacked, launcher, slurm)
        rows = []
        for (name, method, setting, _), directory in zip(points, directories):
            about = {
                "protocol data": name,
                "method": method,
                "setting": setting,
                "attributes": attributes if depends_on_attributes(method) else "",
                "budget": steps or data_sets[name].steps,
                "changes": changes,
            }
            rows.append(row_of(directory, about, has_head(METHODS[method])))
        return rows

    rows = rows_of(searched)
    wanted = {}
    for name in data:
        for rule in RULES:
            of_name = [row for row in rows if row["protocol data"] == name]
            for method, outcome in outcomes(of_name, rule, seeds).items():
                if outcome.setting is not None:
                    keys = [(name, method, outcome.setting, seed) for seed in range(1, seeds)]
                    wanted |= {key: point_of(*key) for key in keys}
    if wanted:
        rows += rows_of(wanted)
    if keep:
        for row in rows:
            kept_results.check_row(row)
        added = kept_results.add(STUDY, Path(results), rows, packed=True)
        print(f"{kept_results.file_of(STUDY, Path(results))}: {added} of {counted(len(rows), 'run')} added\n")
    for name, data_set in data_sets.items():
        comparison = Comparison(name, steps or data_set.steps, changes, attributes)
        print_tables([row for row in rows if row["protocol data"] == name], comparison, seeds)


def print_kept(data: Sequence[str], methods: Sequence[str], attributes: str, seeds: int, folder: Path) -> None:
    """Print the tables of these data sets and methods from subpopbench.csv.gz in a folder; no `methods` means all."""
    for name in methods:
        check_one_of("--methods", name, list(METHODS))
    found = comparisons(kept_results.read(STUDY, folder))
    for name in data:
        mine = {c: rows for c, rows in found.items() if c.data == name and c.attributes == attributes}
        if not mine:
            raise BadInput(
                f"--data={name}: {kept_results.file_of(STUDY, folder)} has no runs with {attributes} attributes; to train "
                "and keep some, type --keep in place of --no-train"
            )
        for comparison, rows in mine.items():
            print_tables([row for row in rows if not methods or row["method"] in methods], comparison, seeds)


def methods_for(methods: Sequence[str], attributes: str, data_sets: Mapping[str, DataSet]) -> list[str]:
    """Return the methods to train: `methods` or, if it is empty, all that can be trained.

    Raises:
        BadInput: a method is unknown, is given twice, or cannot be trained with these attributes or data.
    """
    texts = next((name for name, data_set in data_sets.items() if data_set.kind == "text"), None)
    usable = [
        name
        for name, method in METHODS.items()
        if (attributes == "known" or not method.needs_attributes) and (not texts or method.texts)
    ]
    check_names("--methods", methods)
    for name in methods:
        if name in METHODS and name not in usable:
            if attributes == "unknown" and METHODS[name].needs_attributes:
                raise BadInput(
                    f"--methods={name}: the method reads the attributes of train, which --attributes=unknown withholds; "
                    f"leave {name} out, or type --attributes=known"
                )
            raise BadInput(
                f"--methods={name}: the method cannot be trained on the texts of {texts}; leave {name} out, or type another --data"
            )
        check_one_of("--methods", name, usable)
    return list(methods) or usable


def check_one_of(flag: str, name: str, valid: Sequence[str]) -> None:
    """Raise `BadInput` if `name`, which was typed with `flag`, is not in `valid`."""
    if name not in valid:
        raise BadInput(f"{flag}: {name!r} given; valid: {', '.join(valid)}")


def check_names(flag: str, names: Sequence[str]) -> None:
    """Raise `BadInput` if `names`, which were typed with `flag`, has the same name twice."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise BadInput(f"{flag}: {name!r} given twice; type it once")


def plan(
    searched: Mapping[tuple[str, str, int, int], Point],
    data_sets: Mapping[str, DataSet],
    methods: Sequence[str],
    trials: int,
    seeds: int,
    work_dir: str,
    jobs: int,
) -> str:
    """Return a table of the most runs, steps and hours that the protocol takes, by data set and method.

    Each of the three rules can choose another setting; a chosen setting is trained with all seeds above 0. The time of a
    step is the mean over the finished runs of the data set under `work_dir`, with set-up and evaluation.

    Args:
        searched: the points of the search, by data set, method, setting and seed.
        jobs: number of workers, by which the hours are divided.
    """
    rows, unknown, total = [], [], np.zeros(3)
    most = trials + min(len(RULES), trials) * (seeds - 1)
    for name, data_set in data_sets.items():
        summaries = [
            summary_of(path.parent) for path in Path(work_dir).glob(f"{data_set.config}/*/seed=*/summary.json")
        ]
        done = [s for s in summaries if s["status"] == "done" and s.get("step")]
        step = sum(s["seconds"] for s in done) / sum(s["step"] for s in done) if done else nan
        unknown += [] if done else [name]
        for method in methods:
            points = [searched[name, method, setting, 0] for setting in range(trials)]
            epochs = [
                (p["trainer.epochs"] + p.get("weights.first_epochs", 0)) * ceil(data_set.size / p["trainer.batch_size"])
                for p in points
            ]
            steps = round(np.mean(epochs) * most)
            hours = steps * step / 3600 / jobs
            total += most, steps, hours
            rows.append([name, METHODS[method].title, trials, most, f"{steps:,}", hours_text(hours)])
    rows.append(["all", "", "", f"{total[0]:,.0f}", f"{total[1]:,.0f}", hours_text(total[2])])
    text = markdown(
        ["data", "method", "settings", "runs, at most", "steps, at most", f"hours with {jobs} workers"], rows
    )
    if unknown:
        text += (
            f"\nNo finished run under {work_dir} tells the time of a step on {', '.join(unknown)}. To measure it, type the "
            "command with --methods=erm --trials=1 --seeds=1 --steps=200 in place of --dry_run.\n"
        )
    return text


def hours_text(hours: float) -> str:
    """Return a number of hours as text with two significant digits; "unknown" for nan."""
    return "unknown" if np.isnan(hours) else f"{hours:.2g}"
