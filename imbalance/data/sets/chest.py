"""Chest X-rays of CheXpert and MIMIC-CXR, each alone and both together.

Each set alone has the class No Finding and the attribute sex × race. Both together have the class Pneumonia and the attribute
hospital.

Irvin et al., "CheXpert", AAAI 2019; Johnson et al., "MIMIC-CXR-JPG", 2019; groups and splits of Yang et al., "Change is Hard:
A Closer Look at Subpopulation Shift", ICML 2023. The user agreements of both sets forbid to pass on any part.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import Unpack

from imbalance.config.schema import Natural
from imbalance.data.files import csv_records, read_csv
from imbalance.data.images.listing import ImageKeys, Listing, image_dataset
from imbalance.data.problems import Problem
from imbalance.data.sets.published import (
    Labelled,
    PublishedSet,
    csv_images,
    draw_stratified,
    middle,
    published_listing,
)
from imbalance.errors import BadInput
from imbalance.utils.optional import optional

CLASSES = ("finding", "no finding")
# The attribute is 2 · race + sex.
ATTRIBUTES = ("white man", "white woman", "black man", "black woman", "other man", "other woman")
CHEXPERT = PublishedSet("chexpert", "CheXpert", CLASSES, ATTRIBUTES, (167093, 22280, 33419))
MIMIC = PublishedSet("mimic_cxr", "MIMIC-CXR-JPG", CLASSES, ATTRIBUTES, (303591, 17859, 35717))
SITES = ("MIMIC-CXR", "CheXpert")
OPPOSITE = 16384  # test images of the opposite correlation
MULTISITE_COUNTS = {"same": (338134, 19891, 39781), "opposite": (338134, 19891, OPPOSITE)}
DEMOGRAPHICS = "CHEXPERT DEMO"
PATIENT = re.compile(r"patient(\d+)")


def race(text: str) -> int:
    """Return the number of a race: 0 for white, 1 for black, 2 for any other text or ""; only the first five letters count."""
    return {"WHITE": 0, "BLACK": 1}.get(text[:5].upper(), 2)


def no_finding(text: str) -> int | str:
    """Return the class for a cell of the column No Finding: 1 for "1.0" or "1", 0 for "0.0", "0" or "".

    For any other cell return a text that says what is wrong.
    """
    return {"": 0, "0.0": 0, "0": 0, "1.0": 1, "1": 1}.get(text, f"No Finding is {text!r}, not empty, 0.0 or 1.0")


def list_chexpert(data_dir: str, *, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]) -> Listing:
    """List the X-rays of CheXpert (the small or the full images); the class is No Finding, the attribute sex × race.

    The published train and valid images are joined and split anew, as SubpopBench does it: 15 % are test, 10 % val, drawn
    from images and not from patients. So images of one patient can be in several splits.

    Args:
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: SubpopBench uses none.
    """
    first = chexpert_file(data_dir)
    race_of = patient_races(first.parent)

    def labels(row: dict[str, str]) -> tuple[str, int, int, int] | str | None:
        patient, (_, mark, path) = PATIENT.search(row["Path"]), row["Path"].partition("/")
        if not (patient and mark):
            return f"Path is {row['Path']!r}, which names no patient"
        target = no_finding(row["No Finding"])
        if isinstance(target, str):
            return target
        if row["Sex"] not in ("Male", "Female") or int(patient[1]) not in race_of:
            return None
        return path, target, 2 * race_of[int(patient[1])] + (row["Sex"] == "Female"), 0

    columns = ("Path", "Sex", "No Finding")
    parts = [csv_images(first.with_name(f"{part}.csv"), first.parent, columns, labels) for part in ("train", "valid")]
    attributes = np.concatenate([part.attributes for part in parts])
    images = Labelled(
        first.parent,  # not a file, because two files list the images
        first.parent,
        [path for part in parts for path in part.paths],
        np.concatenate([part.targets for part in parts]),
        attributes,
        draw_stratified(attributes, 0.1, 0.15),
        problems=[problem for part in parts for problem in part.problems],
    )
    return published_listing(CHEXPERT, images, middle(size), check_counts, image_keys)


def chexpert_file(data_dir: str) -> Path:
    """Return the path of CheXpert's train.csv; raise `BadInput` if it is missing."""
    return CHEXPERT.find(
        data_dir, [f"{folder}/train.csv" for folder in ("chexpert", "CheXpert-v1.0-small", "CheXpert-v1.0")]
    )


def mimic_file(data_dir: str) -> Path:
    """Return the path of the table of MIMIC-CXR-JPG's images; raise `BadInput` if it is missing."""
    folders = ("MIMIC-CXR-JPG", "mimic-cxr-jpg/2.0.0", "mimic-cxr-jpg")
    return MIMIC.find(data_dir, [f"{folder}/mimic-cxr-2.0.0-metadata.csv.gz" for folder in folders])


def patient_races(folder: Path) -> dict[int, int]:
    """Return the race (see `race`) of each patient, by patient number, from CHEXPERT DEMO.xlsx or .csv in `folder`."""
    file = folder / f"{DEMOGRAPHICS}.csv"
    records = (row for _, row in csv_records(file, ",")) if file.exists() else excel_rows(folder)
    heading = next(records, [])
    missing = [name for name in ("PATIENT", "PRIMARY_RACE") if name not in heading]
    if missing:
        raise BadInput(f"{folder / DEMOGRAPHICS}: no column {missing[0]}; {CHEXPERT.hint}")
    patient, column = heading.index("PATIENT"), heading.index("PRIMARY_RACE")
    return {int(found[1]): race(row[column]) for row in records if (found := PATIENT.match(row[patient]))}


def excel_rows(folder: Path) -> Iterator[list[str]]:
    """Yield the rows of CHEXPERT DEMO.xlsx in `folder` as texts; an empty cell becomes ""."""
    file = CHEXPERT.find(str(folder), (f"{DEMOGRAPHICS}.xlsx", f"{DEMOGRAPHICS}.csv"))
    install = f"reading Excel's format needs openpyxl: pip install openpyxl, or save the table as {DEMOGRAPHICS}.csv"
    with optional("openpyxl", message=f"{file}: {install}"):
        import openpyxl
    sheet = openpyxl.load_workbook(file, read_only=True).worksheets[0]
    for row in sheet.iter_rows(values_only=True):
        yield ["" if cell is None else str(cell) for cell in row]


def list_mimic_cxr(data_dir: str, *, size: Natural, check_counts: bool, **image_keys: Unpack[ImageKeys]) -> Listing:
    """List the X-rays of MIMIC-CXR-JPG; the class is No Finding, the attribute is sex × race.

    patients.csv.gz and admissions.csv.gz of MIMIC-IV must be in the folder of the tables of MIMIC-CXR-JPG. Images of all views
    are used. As in SubpopBench, 10 % are test and 5 % val, drawn from images and not from patients, so a patient can be in
    several splits. The race is that of a patient's first admission in the file.

    Args:
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: SubpopBench uses none.
    """
    file = mimic_file(data_dir)
    problems: list[Problem] = []

    def table(name: str, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        heading, rows, _, wrong = read_csv(file.with_name(name), columns)
        problems.extend(wrong)
        positions = [heading.index(column) for column in columns]
        return (tuple(row[i] for i in positions) for row in rows)

    races: dict[str, int] = {}
    for subject, text in table("admissions.csv.gz", ("subject_id", "race")):
        races.setdefault(subject, race(text))
    sex_of = {
        subject: {"M": 0, "F": 1}[sex]
        for subject, sex, age in table("patients.csv.gz", ("subject_id", "gender", "anchor_age"))
        if sex in ("M", "F") and age.isdecimal() and int(age) > 0
    }
    target_of = {
        (subject, study): no_finding(text)
        for subject, study, text in table("mimic-cxr-2.0.0-negbio.csv.gz", ("subject_id", "study_id", "No Finding"))
    }

    def labels(row: dict[str, str]) -> tuple[str, int, int, int] | str | None:
        subject, study = row["subject_id"], row["study_id"]
        target = target_of.get((subject, study))
        if subject not in sex_of or target is None:
            return None
        if isinstance(target, str):
            return target
        return mimic_path(row), target, 2 * races.get(subject, 2) + sex_of[subject], 0

    images = csv_images(file, file.parent, ("dicom_id", "subject_id", "study_id"), labels)
    splits = draw_stratified(images.attributes, 0.05, 0.1)
    images = images._replace(splits=splits, problems=[*problems, *images.problems])
    return published_listing(MIMIC, images, middle(size), check_counts, image_keys)


def mimic_path(row: dict[str, str]) -> str:
    """Return the path of an image of MIMIC-CXR-JPG, from a row of the table of images."""
    subject, study = row["subject_id"], row["study_id"]
    return f"files/p{subject[:2]}/p{subject}/s{study}/{row['dicom_id']}.jpg"


def pneumonia(text: str) -> int | str:
    """Return the class for a cell of the column Pneumonia: 1 for "1", and 0 for "0", "-1" (uncertain) and "".

    For any other cell return a text that says what is wrong.
    """
    return {"": 0, "0": 0, "-1": 0, "1": 1}.get(
        text.removesuffix(".0"), f"Pneumonia is {text!r}, not empty, -1, 0 or 1"
    )


def list_cxr_multisite(
    data_dir: str,
    *,
    test: Literal["same", "opposite"],
    size: Natural,
    check_counts: bool,
    **image_keys: Unpack[ImageKeys],
) -> Listing:
    """List the X-rays of MIMIC-CXR-JPG and CheXpert together; the class is Pneumonia, the attribute is the hospital.

    90 % of the healthy images are of MIMIC-CXR, and 90 % of the sick ones of CheXpert, as SubpopBench draws them. So a
    network can learn the hospital in place of the illness. 10 % are test and 5 % val, drawn from images and not from
    patients, so a patient can be in several splits.

    Args:
        test: "same" for test images drawn like those of train. "opposite" for the 16,384 images that SubpopBench calls
            deploy: only 10 % of the healthy images are of MIMIC-CXR, and only 10 % of the sick ones of CheXpert. The sick
            ones of CheXpert are drawn with replacement, so a test image can occur several times.
        size: the side in pixels of the square images: the shorter side is resized to 8/7 of this side, and the middle
            is kept. 0 to resize and crop as the pretrained weights of config.model need.
        check_counts: False to accept data with other counts than the published ones.
        augment: SubpopBench uses none.
    """
    about = PublishedSet("cxr_multisite", "CXRMultisite", ("healthy", "pneumonia"), SITES, MULTISITE_COUNTS[test])
    mimic, first = mimic_file(data_dir), chexpert_file(data_dir)
    name = "mimic-cxr-2.0.0-negbio.csv.gz"
    heading, rows, _, problems = read_csv(mimic.with_name(name), ("subject_id", "study_id", "Pneumonia"))
    subject, study, finding = (heading.index(column) for column in ("subject_id", "study_id", "Pneumonia"))
    text_of = {(row[subject], row[study]): row[finding] for row in rows}

    def mimic_labels(row: dict[str, str]) -> tuple[str, int, int, int] | str | None:
        text = text_of.get((row["subject_id"], row["study_id"]))
        target = None if text is None else pneumonia(text)
        return target if target is None or isinstance(target, str) else (mimic_path(row), target, 0, 0)

    def chexpert_labels(row: dict[str, str]) -> tuple[str, int, int, int] | str | None:
        _, mark, path = row["Path"].partition("/")
        target = pneumonia(row["Pneumonia"]) if mark else f"Path is {row['Path']!r}, which names no folder"
        return target if isinstance(target, str) else (path, target, 1, 0)

    parts = [csv_images(mimic, mimic.parent, ("dicom_id", "subject_id", "study_id"), mimic_labels)]
    for part in ("train", "valid"):
        file = first.with_name(f"{part}.csv")
        parts.append(csv_images(file, first.parent, ("Path", "Pneumonia"), chexpert_labels))
    root = Path(data_dir)
    paths = [str((part.folder / path).relative_to(root)) for part in parts for path in part.paths]
    targets, sites = (np.concatenate([getattr(part, key) for part in parts]) for key in ("targets", "attributes"))
    problems = [*problems, *(problem for part in parts for problem in part.problems)]
    drawn, splits = draw_multisite(targets, sites, test) if not problems else (np.zeros(0, np.int64),) * 2
    images = Labelled(
        root, root, [paths[row] for row in drawn.tolist()], targets[drawn], sites[drawn], splits, problems=problems
    )
    return published_listing(about, images, middle(size), check_counts, image_keys)


def draw_multisite(targets: np.ndarray, sites: np.ndarray, test: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the images that CXRMultisite uses, and their splits, as SubpopBench draws both with seed 42.

    Args:
        targets, sites: (N,) the class and the hospital of each image, first those of MIMIC-CXR, then those of CheXpert.
        test: "same" or "opposite", as for `list_cxr_multisite`.
    """

    def sample(rows: np.ndarray, count: int, replace: bool = False) -> np.ndarray:  # DataFrame.sample of pandas
        if count > len(rows) and not replace:
            raise BadInput(
                f"config.data_dir: CXRMultisite needs {count:,} images of a class and hospital, but there are {len(rows):,}; "
                "put all images of MIMIC-CXR-JPG and CheXpert into that folder"
            )
        return rows[np.random.RandomState(42).choice(len(rows), size=count, replace=replace)]

    def nine_of_ten(rows: np.ndarray, site: int, replace: bool = False) -> np.ndarray:
        usual, other = rows[sites[rows] == site], rows[sites[rows] != site]
        return np.concatenate([usual, sample(other, int(len(usual) / 0.9) - len(usual), replace)])

    healthy, sick = np.flatnonzero(targets == 0), np.flatnonzero(targets == 1)
    drawn = np.concatenate([nine_of_ten(healthy, 0), nine_of_ten(sick, 1)])
    splits = draw_stratified(targets[drawn], 0.05, 0.1)
    if test == "same":
        return drawn, splits
    trained = splits < 2
    unused = np.setdiff1d(np.arange(len(targets)), drawn[trained])
    parts = nine_of_ten(unused[targets[unused] == 0], 1), nine_of_ten(unused[targets[unused] == 1], 0, replace=True)
    deployed = sample(np.concatenate(parts), OPPOSITE)
    rows = np.concatenate([drawn[trained], deployed])
    return rows, np.concatenate([splits[trained], np.full(len(deployed), 2)])


chexpert, mimic_cxr, cxr_multisite = map(image_dataset, (list_chexpert, list_mimic_cxr, list_cxr_multisite))
