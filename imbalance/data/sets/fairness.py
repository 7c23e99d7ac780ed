"""Published tables of people: COMPAS, law school, credit cards and ACSIncome; each is an entry of `TABLES`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from imbalance.config.schema import Fraction
from imbalance.data.files import check_columns, csv_records, find_path, width_problem
from imbalance.data.problems import Problem, raise_first
from imbalance.data.sets.arrays import columns_dataset
from imbalance.data.splits import Dataset
from imbalance.data.tables.columns import Columns
from imbalance.data.tables.values import Categories, factorise
from imbalance.errors import BadInput

Row = dict[str, str]
TARGET = "class"  # column that the reader adds


class PeopleTable(NamedTuple):
    """A published table, with a row for each person.

    title: the name of the table, for messages.
    files: paths under data_dir at which the file is looked for.
    numeric, categorical: the columns that are inputs, by their names after `renamed`.
    attributes: from each column that can be an attribute to names for the values in the file; {} to keep these values.
    classes: the names of the two classes.
    is_second: function from a text in the column `target` to whether the row is of the second class; it raises ValueError
        for an invalid text.
    target: the column that `is_second` reads.
    keep: function from a row to whether the published table keeps the row.
    filtered_by: the columns that `keep` reads besides inputs and `target`.
    counts: the published number of rows in each class × value of the first attribute, in the order of `classes`
        and `attributes`; () if it is not known.
    renamed: from names of columns in other copies of the file to the names in the fields above.
    """

    title: str
    files: Sequence[str]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    attributes: Mapping[str, Mapping[str, str]]
    classes: tuple[str, str]
    is_second: Callable[[str], bool]
    target: str
    keep: Callable[[Row], bool] = lambda row: True
    filtered_by: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    renamed: Mapping[str, str] = {}


def is_one(text: str) -> bool:
    """Return True for "1" or "1.0" and False for "0" or "0.0"; raise ValueError for any other text."""
    return bool(("0", "1").index(text.removesuffix(".0")))


def number(text: str) -> float:
    """Return `text` as a number; nan for an empty text."""
    return float(text) if text.strip() else float("nan")


def keep_defendant(row: Row) -> bool:
    """Return whether a row of COMPAS stays in the table, by the rules of ProPublica and AIF360."""
    return (
        abs(number(row["days_b_screening_arrest"])) <= 30
        and row["is_recid"] != "-1"
        and row["c_charge_degree"] != "O"
        and row["score_text"] != "N/A"
    )


def keep_worker(row: Row) -> bool:
    """Return whether a row of the census stays in ACSIncome, by the rules of folktables."""
    least = {"AGEP": 16, "PINCP": 100, "WKHP": 0}
    return all(number(row[name]) > value for name, value in least.items()) and number(row["PWGTP"]) >= 1


PAY = tuple(f"PAY_{month}" for month in (0, 2, 3, 4, 5, 6))
AMOUNTS = tuple(f"{kind}_AMT{month}" for kind in ("BILL", "PAY") for month in range(1, 7))
CREDIT = ("LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE", *PAY, *AMOUNTS)
SEX = {"1": "man", "2": "woman"}
TABLES = {
    "compas": PeopleTable(
        "COMPAS",
        ("compas/compas-scores-two-years.csv", "compas-scores-two-years.csv"),
        ("age", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count"),
        ("c_charge_degree", "race", "sex"),
        {"sex": {"Female": "woman", "Male": "man"}, "race": {}},
        ("no arrest in two years", "arrest in two years"),
        is_one,
        "two_year_recid",
        keep_defendant,
        ("days_b_screening_arrest", "is_recid", "score_text"),
        (762, 2601, 413, 2396),
    ),
    "law": PeopleTable(
        "the law school table",
        ("law/law_data.csv", "law_data.csv"),
        ("LSAT", "UGPA"),
        ("race", "sex"),
        {"sex": {"1": "sex 1", "2": "sex 2"}, "race": {}},
        ("failed", "passed"),
        is_one,
        "first_pf",
        counts=(1180, 1251, 8357, 11003),
    ),
    "credit": PeopleTable(
        "the table of credit card clients",
        ("credit/UCI_Credit_Card.csv", "UCI_Credit_Card.csv"),
        ("LIMIT_BAL", "AGE", *PAY, *AMOUNTS),
        ("EDUCATION", "MARRIAGE", "SEX"),
        {"SEX": SEX},
        ("paid", "default"),
        is_one,
        "default.payment.next.month",
        counts=(9015, 14349, 2873, 3763),
        renamed={f"X{number}": name for number, name in enumerate(CREDIT, 1)}
        | dict.fromkeys(("Y", "default payment next month"), "default.payment.next.month"),
    ),
    "acs_income": PeopleTable(
        "ACSIncome",
        (),
        ("AGEP", "SCHL", "WKHP"),
        ("COW", "MAR", "OCCP", "POBP", "RELP", "SEX", "RAC1P"),
        {"SEX": SEX, "RAC1P": {}},
        ("at most 50,000", "above 50,000"),
        lambda text: float(text) > 50_000,
        "PINCP",
        keep_worker,
        ("PWGTP",),
    ),
}


def fairness(
    data_dir: str,
    seed: int,
    *,
    table: Literal["compas", "law", "credit", "acs_income"],
    file: str,
    attributes: tuple[str, ...],
    val_fraction: Fraction,
    test_fraction: Fraction,
    check_counts: bool,
) -> Dataset:
    """Return a published table of people, in which the groups are class × attributes; the attributes are no inputs.

    Numbers are standardised and categories one-hot encoded, as `data.name="arrays"` does it. No split is published, so val
    and test are drawn by the run's seed.

    Args:
        table: "compas": is a defendant arrested again in two years (Angwin et al., ProPublica 2016)? "law": does a law
            student pass the bar at the first attempt (Wightman 1998, as Kusner et al., NeurIPS 2017, prepared it)?
            "credit": does a client of a bank in Taiwan default (Yeh and Lien 2009)? "acs_income": does a person of the
            American Community Survey earn more than 50,000 dollars (Ding et al., "Retiring Adult", NeurIPS 2021)?
        file: the file under data_dir; "" for the usual places. For "acs_income" it is needed, because each state and year
            has a file, such as "2018/1-Year/psam_p06.csv".
        attributes: the columns that are crossed with the class, such as ("sex",); () if the classes are the groups.
        val_fraction, test_fraction: the shares of every group that become val and test.
        check_counts: False to accept a file with other counts than the published one.
    """
    about = TABLES[table]
    if unknown := [name for name in attributes if name not in about.attributes]:
        raise BadInput(
            f"config.data.attributes: {unknown[0]!r} given; name attributes of {table!r}: {', '.join(about.attributes)}"
        )
    if not (file or about.files):
        raise BadInput(
            "config.data.file: '' given; name the file of a state and year, such as '2018/1-Year/psam_p06.csv'"
        )
    hint = f"`imbalance data download {table}` gets it, or says how"
    columns = read_people(find_path(data_dir, [file] if file else about.files, about.title, hint), about)
    if check_counts and about.counts:
        raise_first(count_problems(columns, about, hint))
    return columns_dataset(
        columns,
        seed,
        numeric=about.numeric,
        categorical=tuple(name for name in about.categorical if name not in attributes),
        missing=("",),
        target=TARGET,
        classes=about.classes,
        attributes=attributes,
        split="",
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        delimiter=",",
    )


def read_people(file: Path, about: PeopleTable) -> Columns:
    """Return the columns of inputs and attributes, and the column `TARGET` of class names, in the rows that are kept.

    If the heading names a column twice, as that of COMPAS does, the first one counts.

    Raises:
        BadInput: a column is missing, or a line has a wrong number of fields or a value that cannot be read.
    """
    records = csv_records(file, ",")
    _, heading = next(records, (1, []))
    first: dict[str, int] = {}
    for position, name in enumerate(heading):
        first.setdefault(about.renamed.get(name, name), position)
    names = dict.fromkeys((*about.numeric, *about.categorical, *about.attributes, *about.filtered_by, about.target))
    check_columns(file, list(first), list(names))
    inputs = dict.fromkeys((*about.numeric, *about.categorical, *about.attributes))
    values: dict[str, list[str]] = {name: [] for name in (*inputs, TARGET)}
    lines, problems = [], []
    for line, fields in records:
        if len(fields) != len(heading):
            problems.append(width_problem(file, line, len(fields), len(heading)))
            continue
        row = {name: fields[first[name]].strip() for name in names}
        try:
            if not about.keep(row):
                continue
            values[TARGET].append(about.classes[about.is_second(row[about.target])])
        except ValueError:
            read = (about.target, *about.filtered_by)
            shown = ", ".join(f"{name} is {row[name]!r}" for name in read)
            problems.append(Problem(f"{file} line {line}", f"{shown}; a value is not one of the published table"))
            continue
        for name in inputs:
            values[name].append(row[name])
        lines.append(line)
    raise_first(problems)
    columns: dict[str, np.ndarray | Categories] = {name: factorise(texts) for name, texts in values.items()}
    for name, names_of_values in about.attributes.items():
        column = columns[name]
        assert isinstance(column, Categories)
        columns[name] = column.replaced(lambda text, known=names_of_values: known.get(text, text))
    return Columns(str(file), columns, find_lines=lambda: np.array(lines, dtype=np.int64))


def count_problems(columns: Columns, about: PeopleTable, hint: str) -> list[Problem]:
    """Return a list with one problem if the counts of class × first attribute are not the published ones; else []."""
    name, values = next(iter(about.attributes.items()))
    label, attribute = columns.text(TARGET), columns.text(name)
    counts = tuple(int(((label == k) & (attribute == v)).sum()) for k in about.classes for v in values.values())
    if counts == about.counts:
        return []
    cause = (
        f"not the published file of {about.title}: the groups class × {name} have {counts} rows, not {about.counts}; {hint}; "
        "set config.data.check_counts=False to use it all the same"
    )
    return [Problem(columns.source, cause)]
