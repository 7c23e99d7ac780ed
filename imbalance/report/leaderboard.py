"""Keep the results of methods in results/leaderboard.csv, and rank the methods on each data set."""

import csv
import functools
import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from imbalance.config.files import config_files_by_name
from imbalance.config.registries import registries
from imbalance.config.resolve import load
from imbalance.config.schema import flatten
from imbalance.errors import BadInput, Damaged
from imbalance.metrics.intervals import Mean, mean, paired_difference
from imbalance.report.settings import selection_rule
from imbalance.report.tables import markdown, markdown_cell
from imbalance.utils.files import write_atomic
from imbalance.utils.output import counted
from imbalance.utils.read import read_bytes

Entry = dict[str, str]
NAME = "leaderboard.csv"
EVIDENCE = "submitted"  # folder in results/ for the configs and summaries of submitted runs
# The results of a row with equal values in these columns can be compared with each other.
COMPARABLE: tuple[str, ...] = ("data", "metric", "network", "starts from", "budget", "tuning", "rule")
COLUMNS: tuple[str, ...] = (
    *COMPARABLE, "method", "learning rate", "settings", "labels in train", "labels in val", "labels in tuning", "source",
    "n", "diverged", "mean", "low", "high", "seeds", "values", "test examples", "draws",
    "config", "digest", "evidence", "commit", "by",
)  # fmt: skip
KEY = (*COMPARABLE, "method", "config", "settings", "by", "learning rate")  # the columns that identify a row
LABELS = ("none", "classes", "groups")  # labels that a choice can read; each value includes those before it
SOURCES = {  # the published images that a data set is made of, by data set; the other data sets are sources of their own
    "digits": "scikit-learn's digits", "colored_digits": "scikit-learn's digits", "colored_mnist": "MNIST",
    "cifar10": "CIFAR-10", "cifar10lt": "CIFAR-10", "corrupted_cifar10": "CIFAR-10", "cifar100lt": "CIFAR-100",
    "dominoes": "CIFAR-10",  # the half of the image that decides the class
    "fashion": "Fashion-MNIST", "colored_fashion": "Fashion-MNIST", "cxr_multisite": "mimic_cxr",
    "breeds": "ImageNet", "imagenet_bg": "ImageNet", "imagenet_lt": "ImageNet",
}  # fmt: skip
RANKED_SEEDS = 3  # fewest seeds of a row that has a rank
RANKED_METHODS = 5  # fewest methods of a table that counts over data sets
RANKED_SOURCES = 5  # fewest sources over which ranks are averaged
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
TWO_NETWORKS = ("lff", "lc")  # objectives that train a second network beside the first
FITTED_TO_VAL = "; fitted to val"
FITTED = ("dfr", "dpe", "temperature", "thresholds")  # heads that are fitted to val


def method_text(flat: Mapping[str, Any]) -> str:
    """Return the method of a config as text: the entries that plain training lacks.

    An exponent belongs to the method, as in "weights importance by group, exponent 1.5".
    """
    parts = []
    for section, plain in PLAIN.items():
        name = flat[f"{section}.name"]
        if name not in plain:
            by, exponent = flat.get(f"{section}.by"), flat.get(f"{section}.exponent")
            power = "" if exponent is None else f", exponent {float(exponent):g}"
            parts.append(f"{section} {name}" + (f" by {by}" if by else "") + power)
    return " + ".join(parts) or "ERM"


def budget_text(flat: Mapping[str, Any]) -> str:
    """Return all the training of a run as text, that of a first run, of a second network and of a head included."""
    parts = [f"{flat['trainer.epochs']} epochs, batches of {flat['trainer.batch_size']}"]
    if flat["objective.name"] in TWO_NETWORKS:
        parts.append("two networks")
    first = [value for key, value in flat.items() if key.endswith(".first_epochs")]
    parts += [f"after a first run of {counted(value, 'epoch')}" for value in first]
    if flat.get("head.epochs"):
        parts.append(f"then {counted(flat['head.epochs'], 'epoch')} of the head")
    return ", ".join(parts)


def source_of(data: str) -> str:
    """Return the published images that a data set is made of; two data sets with the same source are no independent evidence.

    Args:
        data: text of `data_text`.
    """
    return SOURCES.get(data.partition(" ")[0], data)


def most_labels(*labels: str) -> str:
    """Return, of several texts that start with a word of LABELS, the text whose word includes most labels."""
    return max(labels, key=lambda text: LABELS.index(text.partition(";")[0]))


def labels_in_train(flat: Mapping[str, Any]) -> str:
    """Return "groups" if training reads the groups of train, else "classes".

    Training reads groups if the config's groups are those of the data set, and an entry balances by group or counts groups.
    """
    if flat["groups.name"] != "data":
        return "classes"
    for section in PLAIN:
        entry = registries()[section].get(flat[f"{section}.name"])
        # The sampler `within_class` has the groups themselves, as plain entries do that only count examples.
        counts = flat[f"{section}.name"] == "within_class" or (
            entry is not None and {"group_counts", "num_groups"} & _arguments(entry)
        )
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
    if flat["head.name"] in FITTED:
        val += FITTED_TO_VAL
    if flat["head.name"] == "test_time":
        val += "; and inputs of test"
    data = data_text(flat)
    return {
        "data": data, "source": source_of(data), "method": method_text(flat), "labels in train": labels_in_train(flat),
        "rule": rule["name"].partition(", head ")[0], "labels in val": val,
        "network": f"{flat['model.name']}{widths}", "starts from": str(pretrained),
        "budget": budget_text(flat), "learning rate": f"{flat['optim.lr']:g}" if "optim.lr" in flat else "–",
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
        "values": " ".join(f"{values[seed]:.6g}" for seed in sorted(values)),
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
            for other in (row for row in rows.values() if row is not old):
                if seeds := runs_in_both(entry, other):
                    raise BadInput(
                        f"{folder / NAME}: {entry['data']}, {entry['method']}: the runs of the seeds {' '.join(seeds)} are in another "
                        f"row already; submit all runs of that row, the seeds {other['seeds']}, with "
                        f"--by={other['by']!r} --tuning={other['tuning']!r}"
                    )
            rows[key] = entry
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
        write_atomic(folder / NAME, out.getvalue().encode())


def runs_in_both(first: Entry, second: Entry) -> list[str]:
    """Return the seeds of runs that two rows of submitted runs share: of the same setting, and with the same metric.

    Rows differ in the name of who submits and in the tuning, too, so a run could be in several rows, among other seeds.
    """
    submitted = all(row["evidence"].startswith(f"results/{EVIDENCE}/") for row in (first, second))
    if not submitted or any(first[column] != second[column] for column in KEY if column not in ("by", "tuning")):
        return []
    metrics = [dict(zip(row["seeds"].split(), row["values"].split(), strict=True)) for row in (first, second)]
    return [seed for seed, metric in metrics[0].items() if metrics[1].get(seed) == metric]


def digest_of(lines: Iterable[str]) -> str:
    """Return a digest of lines of text that does not depend on their order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def ordered(*parts: Mapping[str, str]) -> Entry:
    """Return the cells of several dictionaries as one row, in the order of COLUMNS; a later dictionary wins.

    The cell "labels in val" becomes the labels of val that the selection rule or the tuning reads.
    """
    cells = {key: value for part in parts for key, value in part.items()}
    cells["labels in val"] = most_labels(cells["labels in val"], cells["labels in tuning"])
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
    """Return the rows in blocks that can be compared, by their values in COMPARABLE.

    In each block the rows that read the same labels are together, the best of them first.
    """
    result: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        result.setdefault(tuple(entry[column] for column in COMPARABLE), []).append(entry)
    return {
        key: sorted(rows, key=lambda row: (labels_read(row), -float(row["mean"] or "-inf")))
        for key, rows in sorted(result.items())
    }


def labels_read(row: Mapping[str, str]) -> tuple[str, str]:
    """Return the labels of train and of val that a row reads."""
    return row["labels in train"], row["labels in val"]


def tables_of_equal_labels(rows: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """Return the rows of a block that have a rank, by the labels that they read; a row needs RANKED_SEEDS seeds."""
    result: dict[tuple[str, str], list[Entry]] = {}
    for row in rows:
        if int(row["n"]) >= RANKED_SEEDS:
            result.setdefault(labels_read(row), []).append(row)
    return result


def rank_text(rank: float) -> str:
    """Return a rank as text, such as "3" or "3.5"."""
    return f"{rank:g}"


def values_of(row: Mapping[str, str]) -> dict[int, float]:
    """Return the metric of each seed of a row, as a fraction; nan for a seed that diverged."""
    return dict(zip(map(int, row["seeds"].split()), map(float, row["values"].split()), strict=True))


def board(entries: Sequence[Entry], literature: Sequence[Mapping[str, str]]) -> str:
    """Return the tables of all data sets as Markdown, each data set with published values as quotations below its tables.

    The rows of a table can be compared. A row's rank is among the methods that read the same labels of train and val.

    Args:
        literature: rows with `name`, `data`, `value` and `source`.
    """
    parts, by_data = [], {}
    for key, rows in blocks(entries).items():
        by_data.setdefault((key[0], key[1]), []).append((dict(zip(COMPARABLE, key)), rows))
    for (data, metric), tables in by_data.items():
        parts.append(f"### {markdown_cell(data)}\n")
        for about, rows in sorted(tables, key=lambda table: -len(table[1])):
            shown = {column: markdown_cell(value) for column, value in about.items()}
            parts.append(
                f"{metric.capitalize()} on test, %. Network: {shown['network']}, from {shown['starts from']}; budget: {shown['budget']}; "
                f"hyperparameters: {shown['tuning']}; selection rule: {shown['rule']}; {test_text(rows)}.\n"
            )
            parts.append(block_table(rows))
        quoted = [row for row in literature if row["data"].startswith(PUBLISHED_OF.get(data.partition(" ")[0], "\n"))]
        if quoted:
            parts.append(
                "Quoted from publications, without a rank, because networks, budgets, starting weights and rules differ:\n"
            )
            parts.append(quoted_table(quoted))
    return "\n".join(parts)


def test_text(rows: Sequence[Entry]) -> str:
    """Return the number of test examples, and how many draws of the data the seeds have, as text."""
    sizes = " or ".join(f"{size:,}" for size in sorted({int(row["test examples"]) for row in rows}))
    draws = " or ".join(map(str, sorted({int(row["draws"]) for row in rows})))
    return f"test: {sizes} examples; draws of the data: {draws}"


# Overrides that another column or the text above a table shows, too, or that change no result.
SHOWN_ELSEWHERE = re.compile(
    r"(\w+\.(name|by|exponent)|optim\.lr|model\.\w+|trainer\.(epochs|batch_size|eval_splits)|callbacks\.keep_logits)="
)


def block_table(rows: Sequence[Entry]) -> str:
    """Return a Markdown table of comparable rows in the order of `blocks`.

    A rank has no meaning if no other row reads the same labels, so such a row has none.
    """
    tables = tables_of_equal_labels(rows)
    rank_of = {id(row): rank for table in tables.values() if len(table) > 1 for row, rank in zip(table, ranks(table))}
    lines = []
    for row in rows:
        n = row["n"] + (f" ({row['diverged']} diverged)" if row["diverged"] != "0" else "")
        table = tables.get(labels_read(row), [])
        ranked, difference = id(row) in rank_of, ""
        rank = f"{rank_text(rank_of[id(row)])} of {len(table)}" if ranked else ""
        if ranked and row is not table[0]:
            above = table[next(i for i, other in enumerate(table) if other is row) - 1]
            difference = paired_difference(values_of(row), values_of(above), 0, 1).percent()
        settings = ", ".join(part for part in row["settings"].split(",") if not SHOWN_ELSEWHERE.match(part))
        read = "train {}, val {}".format(*labels_read(row))
        lines.append([
            read, rank, row["method"], row["learning rate"], settings, percent(row), difference, n, row["by"],
            row["digest"][:8],
        ])  # fmt: skip
    heads = [
        "labels read", "rank", "method", "learning rate", "other settings", "mean ± 95 % interval",
        "minus the rank above, paired by seed", "n", "by", "digest",
    ]  # fmt: skip
    return markdown(heads, lines)


def quoted_table(literature: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table of published values, marked as quoted."""
    heads = ["method", "data", "value (quoted)", "source"]
    return markdown(heads, [[row["name"], row["data"], row["value"], row["source"]] for row in literature])


def tables_by_source(entries: Sequence[Entry]) -> dict[tuple[str, str], dict[str, list[list[Entry]]]]:
    """Return the tables that count over data sets, by the labels that their rows read and by source.

    In such a table, at least RANKED_METHODS methods read the same labels.
    """
    result: dict[tuple[str, str], dict[str, list[list[Entry]]]] = {}
    for rows in blocks(entries).values():
        for labels, table in tables_of_equal_labels(rows).items():
            if len({row["method"] for row in table}) >= RANKED_METHODS:
                result.setdefault(labels, {}).setdefault(table[0]["source"], []).append(table)
    return result


def relative_ranks(by_source: Mapping[str, Sequence[Sequence[Entry]]]) -> dict[str, dict[str, float]]:
    """Return the relative ranks of the methods of a line-up, by method and by source that all of them share.

    The line-up has as many methods as share RANKED_SOURCES sources; the methods on the fewest sources are left out first. Return
    {} if no methods share so many. A relative rank is 0 for the best method of the line-up and 1 for the worst; other methods
    do not count. Only tables count that have the whole line-up, and those of one source are averaged.

    Args:
        by_source: tables of rows that read the same labels, as in `tables_by_source`.
    """
    sources: dict[str, set[str]] = {}
    for source, tables in by_source.items():
        for row in itertools.chain(*tables):
            sources.setdefault(row["method"], set()).add(source)
    for fewest in range(RANKED_SOURCES, len(by_source) + 1):
        line_up = {method for method, of_method in sources.items() if len(of_method) >= fewest}
        shared = ranks_in_line_up(by_source, line_up)
        if len(shared) >= RANKED_SOURCES:
            return {method: {source: relative[method] for source, relative in shared.items()} for method in line_up}
    return {}


def ranks_in_line_up(
    by_source: Mapping[str, Sequence[Sequence[Entry]]], line_up: Set[str]
) -> dict[str, dict[str, float]]:
    """Return the relative ranks in a line-up, by source and method, for the sources with a table that has the whole line-up."""
    result = {}
    for source, tables in sorted(by_source.items()):
        relative: dict[str, list[float]] = {}
        for table in tables:
            rows = [row for row in table if row["method"] in line_up]
            if len(rows) > 1 and {row["method"] for row in rows} == line_up:
                for row, rank in zip(rows, ranks(rows)):
                    relative.setdefault(row["method"], []).append((rank - 1) / (len(rows) - 1))
        if relative:
            result[source] = {method: float(np.mean(values)) for method, values in relative.items()}
    return result


def overall_table(entries: Sequence[Entry]) -> str:
    """Return a table of the average relative rank of each method over the sources of data that its line-up shares.

    The methods of a line-up read the same labels; see `relative_ranks`. A line-up needs RANKED_SOURCES common sources. If no
    line-up has so many, return a text that names the sources so far.
    """
    tables = tables_by_source(entries)
    line_ups = [
        (labels, method, relative)
        for labels, by_source in tables.items()
        for method, relative in relative_ranks(by_source).items()
    ]
    if not line_ups:
        sources = sorted({source for by_source in tables.values() for source in by_source})
        return (
            f"There are too few sources: no line-up of methods has {RANKED_SOURCES} in common yet, so there is no ranking over "
            f"data sets. Sources with a table that counts: {', '.join(sources) or 'none'}.\n"
        )
    common, lines = sorted({source for *_, relative in line_ups for source in relative}), []
    for labels, method, relative in sorted(line_ups, key=lambda row: (row[0], np.mean(list(row[2].values())), row[1])):
        values = list(relative.values())
        spread = f"{min(values):.2f} to {max(values):.2f}"
        each = (f"{relative[source]:.2f}" if source in relative else "" for source in common)
        lines.append(["train {}, val {}".format(*labels), method, f"{np.mean(values):.2f}", spread, len(values), *each])
    heads = ["labels read", "method", "average relative rank", "range over sources", "n, common sources"]
    return markdown([*heads, *common], lines)


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
