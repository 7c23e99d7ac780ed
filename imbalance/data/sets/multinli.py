"""Data set MultiNLI, with negation in the hypothesis as the spurious attribute.

Williams, Nangia and Bowman, NAACL 2018; groups and splits of Sagawa et al., "Distributionally Robust Neural Networks for
Group Shifts", ICLR 2020.
"""

import json
from pathlib import Path

import numpy as np
from typing_extensions import Unpack

from imbalance.data.files import find_path, read_csv
from imbalance.data.problems import Problem
from imbalance.data.texts.corpus import Corpus, TokenKeys, text_dataset
from imbalance.errors import BadInput
from imbalance.utils.read import open_regular

METADATA = "metadata_random.csv"
# The layouts of group_DRO, of codes that follow it, of WILDS, and of the two downloads side by side.
FOLDERS = ("multinli/data", "multinli", "multinli_v1.0", "")
PUBLISHED = (206_175, 82_462, 123_712)  # pairs of train, val and test
# MultiNLI's files, in the order in which the metadata file numbers pairs
PARTS = ("train", "dev_matched", "dev_mismatched")
CLASSES = ("contradiction", "entailment", "neutral")
TEXTS = ("sentence1", "sentence2")


def list_multinli(data_dir: str, seed: int, **token_keys: Unpack[TokenKeys]) -> Corpus:
    """List pairs of sentences; the second sentence contradicts the first, follows from the first, or neither.

    The six groups cross the three classes with negation: the second sentence has one of the words nobody, no, never and
    nothing. A metadata file has the class, negation and split of each pair. It refers to a pair by a number, which
    counts the pairs of all three files of MultiNLI. A pair is refused if its class in the metadata file differs from
    its label in MultiNLI.
    """
    hint = "`imbalance data download multinli` downloads it"
    path = find_path(data_dir, [f"{folder}/{METADATA}".lstrip("/") for folder in FOLDERS], "MultiNLI's metadata", hint)
    needed = ("gold_label", "sentence2_has_negation", "split")
    heading, rows, lines, problems = read_csv(path, needed)
    columns = {name: heading.index(name) for name in (*needed, *(name for name in TEXTS if name in heading))}
    good, numbers = [], []
    for i, row in enumerate(rows):
        try:
            values = [
                int(row[0]),
                *(round(float({"True": 1, "False": 0}.get(v := row[columns[n]], v))) for n in needed),
            ]
            valid = values[0] >= 0 and values[1] in range(3) and values[2] in range(2) and values[3] in range(3)
        except ValueError:
            valid = False
        if valid:
            good.append(i)
            numbers.append(values)
        else:
            wrong = "the line must have a row number, a label from 0 to 2, a negation of 0 or 1 and a split from 0 to 2"
            problems.append(Problem(f"{path} line {lines[i]}", wrong))
    places, targets, negations, splits = np.array(numbers, dtype=np.int64).reshape(-1, 4).T
    counts = tuple(np.bincount(splits, minlength=3).tolist())
    if counts != PUBLISHED and not problems:
        problems.append(
            Problem(
                str(path), f"not the published data: train, val and test have {counts} pairs, not {PUBLISHED}; {hint}"
            )
        )
    first, second = TEXTS
    if set(TEXTS) <= columns.keys():
        texts = [(rows[i][columns[first]], rows[i][columns[second]]) for i in good]
    else:
        pairs = read_pairs(data_dir)
        texts = []
        for i, place, target in zip(good, places.tolist(), targets.tolist()):
            label, pair = pairs[place] if place < len(pairs) else ("no pair", ("", ""))
            if label != CLASSES[target]:
                cause = f"gold_label is {target} ({CLASSES[target]}), but pair {place} of MultiNLI is {label!r}"
                problems.append(Problem(f"{path} line {lines[i]}", cause))
            texts.append(pair)
    return Corpus(
        Path(path),
        TEXTS,
        texts,
        targets,
        2 * targets + negations,
        splits,
        np.array(good, dtype=np.int64),
        lambda row: f"{path} line {lines[good[row]]}",
        CLASSES,
        tuple(f"{label}, {negation}" for label in CLASSES for negation in ("no negation", "negation")),
        problems=problems,
        preprocessing={"delimiter": ","},
        blanks=True,
        token_keys=token_keys,
    )


def read_pairs(data_dir: str) -> list[tuple[str, tuple[str, str]]]:
    """Read the three files of MultiNLI, in the order of `PARTS`: return the label and the two sentences of each pair."""
    names = [f"{folder}/multinli_1.0/multinli_1.0_train.jsonl".lstrip("/") for folder in FOLDERS]
    names += [name.replace("multinli_1.0/", "", 1) for name in names]
    first = find_path(data_dir, names, "MultiNLI", "`imbalance data download multinli` downloads it")
    pairs = []
    for part in PARTS:
        file, number = first.with_name(f"multinli_1.0_{part}.jsonl"), 0
        try:
            with open_regular(file) as lines:
                for number, line in enumerate(lines, 1):  # noqa: B007 (the message below has the number)
                    pair = json.loads(line)
                    pairs.append((pair["gold_label"], (pair["sentence1"], pair["sentence2"])))
        except (OSError, ValueError) as error:
            raise BadInput(f"{file}: {getattr(error, 'strerror', None) or error}; download it again") from None
        except (KeyError, TypeError) as error:
            raise BadInput(f"{file} line {number}: {error} is missing") from None
    return pairs


multinli = text_dataset(list_multinli)
