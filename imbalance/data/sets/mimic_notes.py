"""Data set MIMICNotes of SubpopBench: words in the notes of two days predict whether a patient dies in intensive care.

The files come from the database MIMIC-III (Johnson et al., Scientific Data 2016). Its user agreement forbids to pass
on any part.
"""

import numpy as np
import torch

from imbalance.data.files import find_path, load_array, read_csv
from imbalance.data.problems import Problem, raise_first
from imbalance.data.splits import Dataset, Split
from imbalance.errors import BadInput

FOLDER = "mimic_notes"
TABLE = f"{FOLDER}/subpop_bench_meta/metadata.csv"
CLASSES, ATTRIBUTES = ("survives", "dies"), ("woman", "man")
VALUES = {"0": 0, "1": 1, "2": 2, "False": 0, "True": 1}
HINT = "`imbalance data download mimic_notes` says how to make the files"


def mimic_notes(data_dir: str) -> Dataset:
    """Return the data set MIMICNotes: an example is a stay, with 10,000 tf-idf values of its notes; groups are death × sex.

    Yang et al., "Change is Hard: A Closer Look at Subpopulation Shift", ICML 2023. The authors' code writes the files:
    features.npy has the inputs, and metadata.csv the labels and splits. The code's pickles are not read, because reading a
    pickle can run code.
    """
    file = find_path(data_dir, (TABLE,), "the table of MIMICNotes", HINT)
    features = load_array(find_path(data_dir, (f"{FOLDER}/features.npy",), "the features of MIMICNotes", HINT))
    if not isinstance(features, np.ndarray) or features.ndim != 2 or features.dtype.kind != "f":
        raise BadInput(
            f"{file.parent.parent / 'features.npy'}: not an array of floats with a row for each stay; {HINT}"
        )
    names = ("filename", "split", "y", "a")
    heading, rows, lines, problems = read_csv(file, names)
    positions = [heading.index(name) for name in names]
    limits = (len(features), 3, 2, 2)
    numbers = np.full((len(rows), 4), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        for k, (position, limit) in enumerate(zip(positions, limits)):
            text = row[position]
            value = VALUES.get(text, -1) if k else int(text) if text.isdecimal() else -1
            if 0 <= value < limit:
                numbers[i, k] = value
            else:
                problems.append(
                    Problem(f"{file} line {lines[i]}", f"{names[k]} is {text!r}, not from 0 to {limit - 1}")
                )
    raise_first(problems)
    places, splits, targets, sexes = torch.from_numpy(numbers).unbind(1)

    def split(number: int) -> Split:
        chosen = splits == number
        inputs = torch.from_numpy(features[places[chosen].numpy()].astype(np.float32))
        labels = targets[chosen]
        return Split(inputs, labels, 2 * labels + sexes[chosen], places[chosen])

    group_names = tuple(f"{label}, {sex}" for label in CLASSES for sex in ATTRIBUTES)
    return Dataset(split(0), split(1), split(2), CLASSES, group_names)
