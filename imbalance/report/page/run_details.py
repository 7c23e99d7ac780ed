"""Collect the page's data about each run, with its misclassified examples."""

import shlex
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from imbalance.report.collect import Row, values_under
from imbalance.report.page.contents import Content
from imbalance.report.page.examples import Example, read_eval_dataset, render_example
from imbalance.report.page.overview import Overview, Shared
from imbalance.report.settings import NOT_COMPARED

NUMBERS = 1_500_000  # most characters that the metrics of all runs may take, so that a page of many runs stays small
TaskKey = tuple[str, int]  # equal for runs with the same test examples
Details = dict[str, Any]


def run_details(
    work_dir: Path,
    rows: Sequence[Row],
    contents: Sequence[Content],
    overview: Overview,
    shared: Shared,
    pictured: int,
    rendered: dict[TaskKey, dict[int, Example]] | None = None,
) -> tuple[list[Details], list[Example]]:
    """Return a tuple: the details of every run, and the misclassified examples, to which the details refer by index.

    An example that several runs misclassify is listed once.

    Args:
        work_dir: folder of the run directories.
        rows: one row for each run, as `collect` returns it.
        contents: what `read_content` returns for each run.
        overview: result of the function `overview` for the same runs.
        shared: values that several runs of the page have; the page stores each of them once.
        pictured: number of runs whose misclassified examples are listed. Only their data sets are read, because reading
            a large data set may take minutes.
        rendered: examples that were rendered earlier, by task and test row; those that this call renders are added.
    """
    rendered = {} if rendered is None else rendered
    index_of: dict[tuple[TaskKey, int], int] = {}  # by task and test row, the index in `examples`
    examples: list[Example] = []
    hidden = {f"config.{key}" for key in overview["common"]}.union(NOT_COMPARED)
    most = NUMBERS // (len(rows) * 9)
    details = [
        details_of_run(work_dir / row["run"], row, content, hidden, shared, most)
        for row, content in zip(rows, contents)
    ]
    for i in choose_pictured(overview, pictured):
        wanted = sorted({error["row"] for group in details[i]["errors"] for error in group["examples"]})
        if not wanted:
            continue
        task = _task_key(rows[i])
        known = rendered.setdefault(task, {})
        new = [row for row in wanted if row not in known]
        if new:
            dataset, why_not = read_eval_dataset(work_dir / rows[i]["run"])
            if dataset is None:
                details[i]["not_shown"] = why_not
                continue
            known |= {row: render_example(dataset.test, row, dataset.preprocessing) for row in new}
        for row in wanted:
            if (task, row) not in index_of:
                index_of[task, row] = len(examples)
                examples.append(known[row])
        for group in details[i]["errors"]:
            for error in group["examples"]:
                error["shown"] = index_of[task, error["row"]]
    return details, examples


def choose_pictured(overview: Overview, pictured: int) -> list[int]:
    """Return the indices of at most `pictured` runs: the first done run of every setting, then the second, and so on.

    A setting is a config file with overrides; its runs differ only in the seed.
    """
    by_setting: dict[int, list[int]] = {}
    for i, run in enumerate(overview["runs"]):
        if run["status"] == "done":
            by_setting.setdefault(run["setting"], []).append(i)
    turns = max(map(len, by_setting.values()), default=0)
    order = [runs[turn] for turn in range(turns) for runs in by_setting.values() if turn < len(runs)]
    return order[:pictured]


def details_of_run(directory: Path, row: Row, content: Content, hidden: Set[str], shared: Shared, most: int) -> Details:
    """Return the details of one run.

    Args:
        content: what `read_content` returns for the run.
        hidden: keys of the row that are not shown, such as those of config values that all runs share.
        shared: values that several runs of the page have; the page stores each of them once.
        most: the largest number of metrics to show.
    """
    own = ("reason", "log", "confusion", "reliability", "errors")
    return {
        "command": f"python main.py --config={shlex.quote(str(directory / 'config.json'))}",
        "config": {
            key.removeprefix("config."): value
            for key, value in values_under(row, "config.").items()
            if key not in hidden
        },
        "metrics": shared.entries(val_and_test_metrics(row, most)),
        "curves": shared.entries(content["curves"]),
        "counts": shared.index(content["counts"]),
        "made": shared.entries({key: shared.index(value) for key, value in content["made"].items()}),
        **{key: content[key] for key in own},
    }


def val_and_test_metrics(row: Row, most: int) -> dict[str, float]:
    """Return a run's metrics on val and test; leave out those of single classes if there are more than `most` metrics."""
    metrics = {key: value for key, value in values_under(row, "val/", "test/").items() if isinstance(value, float)}
    if len(metrics) > most:
        metrics = {k: value for k, value in metrics.items() if k.count("/") == 1 or "/group_accuracy/" in k}
    return {key: round(value, 5) for key, value in metrics.items()}


def _task_key(row: Row) -> TaskKey:
    """Return a key that is equal for runs with the same test examples: the values of `config.data`, and the seed."""
    data = sorted((key, str(value)) for key, value in row.items() if key.startswith("config.data."))
    return str(data), row["seed"]
