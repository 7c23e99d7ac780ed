"""Keep the results of methods in results/leaderboard.csv, and rank the methods on each data set."""

import csv
import functools
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from imbalance.config.files import config_files_by_name
from imbalance.config.registries import registries
from imbalance.config.resolve import load
from imbalance.config.schema import flatten
from imbalance.errors import BadInput, Damaged
from imbalance.metrics.intervals import Mean, mean
from imbalance.report.settings import selection_rule
from imbalance.report.tables import markdown
from imbalance.utils.files import write_atomic
from imbalance.utils.read import read_bytes

Entry = dict[str, str]
NAME = "leaderboard.csv"
EVIDENCE = "submitted"  # folder in results/ for the configs and summaries of submitted runs
# The results of a row with equal values in these columns can be compared with each other.
COMPARABLE: tuple[str, ...] = ("data", "metric", "network", "starts from", "budget", "tuning", "rule")
COLUMNS: tuple[str, ...] = (
    *COMPARABLE, "method", "settings", "labels in train", "labels in val", "n", "diverged", "mean", "low", "high",
    "seeds", "config", "digest", "evidence", "commit", "by",
)  # fmt: skip
KEY = (*COMPARABLE, "method", "config", "settings", "by")  # the columns that identify a row
PUBLISHED_OF = {  # the beginning of the name in docs/literature.csv, by data set
    "celeba": "CelebA", "cifar10lt": "CIFAR-10-LT, ratio 100", "cifar100lt": "CIFAR-100-LT, ratio 100", "waterbirds": "Waterbirds",
}  # fmt: skip


# What a config says


def data_text(flat: Mapping[str, Any]) -> str:
    """Return the data set of a config, with values that differ from its main config, such as "cifar10 (draw=stratified)".

    The main config is the first config in configs/, by name, that has this data set and whose name ends in _erm.

    Args:
        flat: the values of the config by full key, such as "data.name".
    """
    name = flat["data.name"]
    values = {key.removeprefix("data."): value for key, value in flat.items() if key.startswith("data.")}
    main = main_data_sections().get(name, {})
    # A saved config has lists where the config file has tuples, so texts are compared.
    different = [
        f"{key}={_text(value)}" for key, value in values.items() if _text(value) != _text(main.get(key, value))
    ]
    return f"{name} ({', '.join(sorted(different))})" if different else name


@functools.cache
def main_data_sections() -> dict[str, dict[str, Any]]:
    """Return, by data set, the section `config.data` of its main config; see `data_text`."""
    sections: dict[str, dict[str, Any]] = {}
    for name, path in sorted(config_files_by_name().items()):
        if name.endswith("_erm"):
            section = load(path).to_dict()["data"]
            sections.setdefault(section["name"], flatten(section))
    return sections


def _text(value: Any) -> str:
    return "+".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


# The sections of a config that make a method, and the entries of each that plain training has.
PLAIN = {
    "groups": ("data",), "sampler": ("shuffle",), "weights": ("uniform",), "mix": ("none",), "loss": ("cross_entropy",),
    "objective": ("average", "log_average"), "head": ("none",),
}  # fmt: skip


def method_text(flat: Mapping[str, Any]) -> str:
    """Return the method of a config as text: the entries that plain training lacks, such as "weights importance by group"."""
    parts = []
    for section, plain in PLAIN.items():
        name = flat[f"{section}.name"]
        if name not in plain:
            by = flat.get(f"{section}.by")
            parts.append(f"{section} {name}" + (f" by {by}" if by else ""))
    return " + ".join(parts) or "ERM"


def labels_in_train(flat: Mapping[str, Any]) -> str:
    """Return "groups" if training reads the groups of train, else "classes".

    Training reads groups if the config's groups are those of the data set, and an entry balances by group or counts groups.
    """
    if flat["groups.name"] != "data":
        return "classes"
    for section in PLAIN:
        entry = registries()[section].get(flat[f"{section}.name"])
        counts = entry is not None and {"group_counts", "num_groups"} & _arguments(entry)
        if flat.get(f"{section}.by") == "group" or counts:
            return "groups"
    return "classes"


def _arguments(entry: Any) -> set[str]:
    import inspect

    while hasattr(entry, "func"):
        entry = entry.func
    return set(inspect.signature(entry).parameters)


def about_config(flat: Mapping[str, Any]) -> Entry:
    """Return the cells of a row that follow from a config.

    Args:
        flat: the values of the config by full key, such as "data.name".
    """
    rule = selection_rule({f"config.{key}": value for key, value in flat.items()})
    widths = f" {_text(flat['model.hidden'])}" if flat.get("model.hidden") else ""
    pretrained = flat.get("model.pretrained") or "random weights"
    if flat["data.name"] == "features":
        pretrained = "features of another network"
    val = rule["labels"].removeprefix("val ")
    if flat["head.name"] == "test_time":
        val += "; and inputs of test"
    return {
        "data": data_text(flat), "method": method_text(flat), "labels in train": labels_in_train(flat),
        "rule": rule["name"].partition(", head ")[0], "labels in val": val,
        "network": f"{flat['model.name']}{widths}", "starts from": str(pretrained),
        "budget": f"{flat['trainer.epochs']} epochs, batches of {flat['trainer.batch_size']}",
    }  # fmt: skip


def result_cells(values: Mapping[int, float]) -> Entry:
    """Return the cells of a row that follow from the metric: its mean over seeds, the 95 % t-interval, n and the seeds.

    Args:
        values: the metric of each seed, as a fraction; nan for a seed that diverged.
    """
    over_seeds = mean(list(values.values()), 0, 1)
    cells = {"mean": over_seeds.value, "low": over_seeds.low, "high": over_seeds.high}
    return {
        "n": str(over_seeds.n), "diverged": str(len(values) - over_seeds.n), "seeds": " ".join(map(str, sorted(values))),
        **{key: "" if np.isnan(value) else f"{value:.12g}" for key, value in cells.items()},
    }  # fmt: skip


# The file


def read(folder: Path) -> list[Entry]:
    """Return the rows of leaderboard.csv in a folder such as results/; [] if there is no such file.

    Raises:
        Damaged: the file is no CSV file, has other columns, or has a mean, n or diverged that is no number.
    """
    path = folder / NAME
    if not path.exists():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_bytes(path).decode(), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Damaged(path, str(error)) from None
    for number, row in enumerate(rows, 2):
        if tuple(row) != COLUMNS or None in row.values():
            raise Damaged(path, f"row {number} has not the columns {', '.join(COLUMNS)}")
        try:
            float(row["mean"] or "nan"), int(row["n"]), int(row["diverged"])
        except ValueError:
            raise Damaged(path, f"row {number}: mean, n or diverged is no number") from None
    return rows


def add(folder: Path, entries: Iterable[Entry], drop: Callable[[Entry], bool] = lambda row: False) -> None:
    """Add rows to leaderboard.csv, and sort the file; a new row replaces the old row with the same values in `KEY`.

    Args:
        drop: returns whether to remove an old row first.

    Raises:
        BadInput: an old row that would be replaced has seeds that the new row lacks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "leaderboard.lock"):
        rows = {tuple(row[key] for key in KEY): row for row in read(folder) if not drop(row)}
        for entry in entries:
            key = tuple(entry[column] for column in KEY)
            old = rows.get(key)
            if old is not None and not set(old["seeds"].split()) <= set(entry["seeds"].split()):
                raise BadInput(
                    f"{folder / NAME}: {entry['data']}, {entry['method']} has a row with the seeds {old['seeds']}; submit "
                    f"runs with these seeds and further ones (given: {entry['seeds']})"
                )
            rows[key] = entry
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
        write_atomic(folder / NAME, out.getvalue().encode())


def digest_of(lines: Iterable[str]) -> str:
    """Return a digest of lines of text that does not depend on their order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def ordered(*parts: Mapping[str, str]) -> Entry:
    """Return the cells of several dictionaries as one row, in the order of COLUMNS; a later dictionary wins."""
    cells = {key: value for part in parts for key, value in part.items()}
    return {column: cells[column] for column in COLUMNS}


# Tables


def percent(entry: Mapping[str, str]) -> str:
    """Return the mean and the interval of a row in percent, such as "12.3 ± 0.4"; the mean alone without an interval."""
    value, low, high = (float(entry[key] or "nan") for key in ("mean", "low", "high"))
    if np.isnan(value):
        return "all diverged"
    return f"{100 * value:.1f}" if np.isnan(low) else Mean(value, low, high, int(entry["n"])).percent()


def ranks(entries: Sequence[Mapping[str, str]]) -> list[float]:
    """Return the rank of each row by its mean, 1 for the largest; equal means share the mean of their ranks."""
    means = np.array([float(entry["mean"] or "-inf") for entry in entries])
    return [float((means > value).sum() + ((means == value).sum() + 1) / 2) for value in means]


def blocks(entries: Iterable[Entry]) -> dict[tuple[str, ...], list[Entry]]:
    """Return the rows in blocks that can be compared, by their values in COMPARABLE; the best row of each block is first."""
    result: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        result.setdefault(tuple(entry[column] for column in COMPARABLE), []).append(entry)
    return {key: sorted(rows, key=lambda row: -float(row["mean"] or "-inf")) for key, rows in sorted(result.items())}


def rank_text(rank: float) -> str:
    """Return a rank as text, such as "3" or "3.5"."""
    return f"{rank:g}"


def board(entries: Sequence[Entry], literature: Sequence[Mapping[str, str]]) -> str:
    """Return the tables of all data sets as Markdown, each data set with published values as quotations below its tables.

    The rows of a table can be compared. A row's second rank is among the methods that read the same labels of train and val.

    Args:
        literature: rows with `name`, `data`, `value` and `source`.
    """
    parts, by_data = [], {}
    for key, rows in blocks(entries).items():
        by_data.setdefault((key[0], key[1]), []).append((dict(zip(COMPARABLE, key)), rows))
    for (data, metric), tables in by_data.items():
        parts.append(f"### {data}\n")
        for about, rows in sorted(tables, key=lambda table: -len(table[1])):
            parts.append(
                f"{metric.capitalize()} on test, %. Network: {about['network']}, from {about['starts from']}; budget: {about['budget']}; "
                f"hyperparameters: {about['tuning']}; selection rule: {about['rule']}.\n"
            )
            parts.append(block_table(rows))
        quoted = [row for row in literature if row["data"].startswith(PUBLISHED_OF.get(data.partition(" ")[0], "\n"))]
        if quoted:
            parts.append(
                "Quoted from publications, without a rank, because networks, budgets, starting weights and rules differ:\n"
            )
            parts.append(quoted_table(quoted))
    return "\n".join(parts)


# Overrides that the column of the method or the text above a table shows, too.
SHOWN_ELSEWHERE = re.compile(r"(\w+\.(name|by)|model\.\w+|trainer\.(epochs|batch_size))=")


def block_table(rows: Sequence[Entry]) -> str:
    """Return a Markdown table of comparable rows, which must be sorted, the best first."""
    labels = [(row["labels in train"], row["labels in val"]) for row in rows]
    among = {kind: ranks([row for row, own in zip(rows, labels) if own == kind]) for kind in set(labels)}
    lines = []
    for row, own, rank in zip(rows, labels, ranks(rows)):
        n = row["n"] + (f" ({row['diverged']} diverged)" if row["diverged"] != "0" else "")
        equal = f"{rank_text(among[own].pop(0))} of {labels.count(own)}"
        settings = ", ".join(part for part in row["settings"].split(",") if not SHOWN_ELSEWHERE.match(part))
        read = f"train {own[0]}, val {own[1]}"
        lines.append(
            [rank_text(rank), row["method"], settings, read, equal, percent(row), n, row["by"], row["digest"][:8]]
        )
    heads = [
        "rank",
        "method",
        "settings",
        "labels read",
        "rank among equal labels",
        "mean ± 95 % interval",
        "n",
        "by",
        "digest",
    ]
    return markdown(heads, lines)


def quoted_table(literature: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table of published values, marked as quoted."""
    heads = ["method", "data", "value (quoted)", "source"]
    return markdown(heads, [[row["name"], row["data"], row["value"], row["source"]] for row in literature])


def overall_table(entries: Sequence[Entry]) -> str:
    """Return a table of the average rank of each method over data sets, with the number of data sets.

    Each data set counts once, with the block of comparable rows that has the most methods. A method with several rows in a
    block has its best rank. Only methods that are ranked on at least two data sets have a line.
    """
    largest: dict[str, list[Entry]] = {}
    for key, rows in blocks(entries).items():
        methods = {row["method"] for row in rows}
        if len(methods) > 1 and len(methods) > len({row["method"] for row in largest.get(key[0], [])}):
            largest[key[0]] = rows
    ranks_by_method: dict[str, list[tuple[float, int]]] = {}
    for rows in largest.values():
        best: dict[str, Entry] = {}
        for row in rows:  # the best row of a method is first
            best.setdefault(row["method"], row)
        for method, rank in zip(best, ranks(list(best.values()))):
            ranks_by_method.setdefault(method, []).append((rank, len(best)))
    lines = []
    for method, method_ranks in ranks_by_method.items():
        if len(method_ranks) > 1:
            average = np.mean([rank for rank, _ in method_ranks])
            relative = np.mean([(rank - 1) / (size - 1) for rank, size in method_ranks])
            each = ", ".join(f"{rank_text(rank)} of {size}" for rank, size in method_ranks)
            lines.append((relative, [method, f"{average:.1f}", len(method_ranks), f"{relative:.2f}", each]))
    heads = [
        "method",
        "average rank",
        "n, data sets",
        "average relative rank, 0 for the best, 1 for the worst",
        "ranks",
    ]
    table = [line for _, line in sorted(lines, key=lambda line: (line[0], line[1][0]))]
    return markdown(heads, table) if table else "No method is ranked on two data sets yet.\n"


def not_comparable_table(entries: Sequence[Entry]) -> str:
    """Return a table that says, for each data set, how many tables `board` has, and in which columns these tables differ."""
    by_data: dict[str, list[tuple[str, ...]]] = {}
    for key in blocks(entries):
        by_data.setdefault(key[0], []).append(key)
    lines = []
    for data, keys in by_data.items():
        differing = [column for i, column in enumerate(COMPARABLE) if len({key[i] for key in keys}) > 1]
        lines.append([data, len(keys), ", ".join(differing) or "nothing"])
    return markdown(["data", "tables", "not comparable, because they differ in"], lines)
