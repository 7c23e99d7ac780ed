"""Published tables of people: made-up files with the columns of the real ones."""

import csv
from pathlib import Path

import numpy as np
import pytest

from imbalance.data import load
from imbalance.data.problems import DataProblems
from imbalance.data.sets.fairness import CREDIT, TABLES, read_people
from imbalance.errors import BadInput

SECTION = dict(name="fairness", file="", val_fraction=0.2, test_fraction=0.3, check_counts=False)
# The heading of ProPublica's file names two columns twice.
COMPAS = ["id", "sex", "age", "race", "juv_fel_count", "decile_score", "juv_misd_count", "juv_other_count", "priors_count", "days_b_screening_arrest", "c_charge_degree", "is_recid", "decile_score", "score_text", "priors_count", "two_year_recid"]  # fmt: skip


def write(path: Path, heading: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([heading, *rows])


def compas_row(i: int, **changes) -> list:
    values = dict(id=i, sex=("Male", "Female")[i % 2], age=20 + i % 40, race=("Other", "Caucasian")[i // 2 % 2],
                  juv_fel_count=0, decile_score=5, juv_misd_count=i % 3, juv_other_count=0, priors_count=i % 7,
                  days_b_screening_arrest=-1, c_charge_degree="FM"[i % 2], is_recid=0, score_text="Low",
                  two_year_recid=i // 4 % 2) | changes  # fmt: skip
    row = [values[name] for name in COMPAS]
    row[14] = 99  # the second column priors_count
    return row


def test_compas_keeps_the_rows_that_propublica_keeps(tmp_path):
    left_out = [dict(days_b_screening_arrest=31), dict(days_b_screening_arrest=""), dict(is_recid=-1),
                dict(c_charge_degree="O"), dict(score_text="N/A")]  # fmt: skip
    rows = [compas_row(i) for i in range(80)]
    write(tmp_path / "compas/compas-scores-two-years.csv", COMPAS, [*[compas_row(0, **c) for c in left_out], *rows])
    dataset = load(SECTION | dict(table="compas", attributes=("sex",)), str(tmp_path), 0)
    assert sum(len(part) for part in (dataset.train, dataset.val, dataset.test)) == 80
    assert dataset.group_names[1] == "no arrest in two years, woman" and dataset.class_names[1] == "arrest in two years"
    features = dataset.preprocessing["features"]
    assert [column["column"] for column in features["categorical"]] == ["c_charge_degree", "race"]  # not sex
    priors = next(column for column in features["numeric"] if column["column"] == "priors_count")
    assert priors["mean"][0] < 7  # the first of two columns with this name
    for part in (dataset.train, dataset.val, dataset.test):
        rows_of_file = part.indices.numpy()
        assert part.targets.tolist() == (rows_of_file // 4 % 2).tolist()
        assert part.groups.tolist() == (2 * part.targets.numpy() + rows_of_file % 2).tolist()
    both = load(SECTION | dict(table="compas", attributes=("sex", "race")), str(tmp_path), 0)
    assert len(both.group_names) == 8 and len(both.preprocessing["features"]["categorical"]) == 1


def test_counts_are_compared(tmp_path):
    write(tmp_path / "compas-scores-two-years.csv", COMPAS, [compas_row(i) for i in range(80)])
    section = SECTION | dict(table="compas", attributes=("sex",), check_counts=True)
    with pytest.raises(
        DataProblems, match=r"\(20, 20, 20, 20\) rows, not \(762, 2601, 413, 2396\).*check_counts=False"
    ):
        load(section, str(tmp_path), 0)


@pytest.mark.parametrize("heading", [list(CREDIT), [f"X{i}" for i in range(1, 24)]], ids=["Kaggle", "UCI"])
def test_credit_is_read_in_both_copies(tmp_path, heading):
    rows = [[i, 1000 * i, 1 + i % 2, i % 4, i % 3, 20 + i, *([i % 5] * 18), int(i % 4 < 2)] for i in range(80)]
    target = "Y" if heading[0] == "X1" else "default.payment.next.month"
    write(tmp_path / "credit/UCI_Credit_Card.csv", ["ID", *heading, target], rows)
    dataset = load(SECTION | dict(table="credit", attributes=("SEX",)), str(tmp_path), 0)
    assert dataset.group_names == ("paid, man", "paid, woman", "default, man", "default, woman")
    numeric = [column["column"] for column in dataset.preprocessing["features"]["numeric"]]
    assert numeric == ["LIMIT_BAL", "AGE", *CREDIT[5:]]
    assert dataset.train.targets.tolist() == [int(i % 4 < 2) for i in dataset.train.indices.tolist()]


def test_law_has_two_inputs_and_the_other_attribute(tmp_path):
    heading = ["", "race", "sex", "LSAT", "UGPA", "region_first", "ZFYA", "sander_index", "first_pf"]
    rows = [
        [i, ("White", "Black")[i % 2], 1 + i // 2 % 2, 30 + i % 9, 3.1, "GL", 0.1, 0.7, float(i // 4 % 2)]
        for i in range(80)
    ]
    write(tmp_path / "law/law_data.csv", heading, rows)
    dataset = load(SECTION | dict(table="law", attributes=("race",)), str(tmp_path), 0)
    assert dataset.group_names == ("failed, Black", "failed, White", "passed, Black", "passed, White")
    assert dataset.input_shape == (4,)  # LSAT, UGPA, and the two values of sex


def test_acs_income_keeps_and_labels_people_as_folktables_does(tmp_path):
    heading = ["SERIALNO", *TABLES["acs_income"].numeric, *TABLES["acs_income"].categorical, "PWGTP", "PINCP"]

    def row(i: int, **changes) -> list:
        values = dict.fromkeys(heading, 1) | dict(AGEP=30 + i % 9, WKHP=40, SCHL=16, SEX=1 + i % 2, COW="", PWGTP=1,
                                                  PINCP=50_000 + (i // 2 % 2)) | changes  # fmt: skip
        return [values[name] for name in heading]

    left_out = [dict(AGEP=16), dict(PINCP=100), dict(PINCP=""), dict(WKHP=0), dict(PWGTP=0)]
    write(tmp_path / "2018/1-Year/psam_p06.csv", heading, [*[row(0, **c) for c in left_out], *map(row, range(80))])
    section = SECTION | dict(table="acs_income", file="2018/1-Year/psam_p06.csv", attributes=("SEX",))
    dataset = load(section, str(tmp_path), 0)
    assert sum(len(part) for part in (dataset.train, dataset.val, dataset.test)) == 80
    assert dataset.train.targets.tolist() == [i // 2 % 2 for i in dataset.train.indices.tolist()]
    with pytest.raises(BadInput, match="config.data.file: '' given; name the file of a state"):
        load(section | dict(file=""), str(tmp_path), 0)


def test_wrong_attributes_cells_and_columns_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"config.data.attributes: 'age' given; name attributes of 'compas': sex, race"):
        load(SECTION | dict(table="compas", attributes=("age",)), str(tmp_path), 0)
    with pytest.raises(BadInput, match="COMPAS is not in .*data download compas"):
        load(SECTION | dict(table="compas", attributes=()), str(tmp_path), 0)
    file = tmp_path / "compas-scores-two-years.csv"
    write(file, COMPAS, [compas_row(0), compas_row(1, two_year_recid="yes"), compas_row(2)[:-1]])
    with pytest.raises(DataProblems) as error:
        read_people(file, TABLES["compas"])
    assert [str(problem).partition(".csv ")[2] for problem in error.value.problems] == [
        "line 3: two_year_recid is 'yes', days_b_screening_arrest is '-1', is_recid is '0', score_text is 'Low'; a value is not "
        "one of the published table",
        "line 4: 15 fields, but the heading has 16; each line needs as many",
    ]
    write(file, COMPAS[:-1], [compas_row(0)[:-1]])
    with pytest.raises(BadInput, match="no column 'two_year_recid'"):
        read_people(file, TABLES["compas"])


def test_the_published_counts_add_up_to_the_published_rows():
    """6,172 of 7,214 rows of ProPublica, 21,791 students of Kusner et al., 30,000 clients of UCI."""
    assert {name: sum(about.counts) for name, about in TABLES.items()} == {
        "compas": 6172,
        "law": 21791,
        "credit": 30000,
        "acs_income": 0,
    }
    assert np.isclose(sum(TABLES["credit"].counts[2:]) / 30000, 0.2212)  # the share of defaults that the authors give
