"""Data set CivilComments of WILDS: is a comment toxic, and does it mention an identity?

Borkan et al., "Nuanced Metrics for Measuring Unintended Bias with Real Data for Text Classification", WWW 2019; Koh et al.,
"WILDS: A Benchmark of in-the-Wild Distribution Shifts", ICML 2021.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import Unpack

from imbalance.data.files import find_path, read_csv
from imbalance.data.population import SPLITS
from imbalance.data.problems import Problem
from imbalance.data.texts.corpus import Corpus, TokenKeys, identity_class_groups, text_dataset

IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
FILE = "all_data_with_identities.csv"
FILES = (f"civilcomments_v1.0/{FILE}", f"civilcomments/{FILE}", f"civilcomments/data/{FILE}", FILE)
PUBLISHED = (269_038, 45_180, 133_782)  # comments of train, val and test
CLASSES = ("not toxic", "toxic")


def list_civilcomments(
    data_dir: str, seed: int, *, evaluation: Literal["fine", "coarse", "mentions"], **token_keys: Unpack[TokenKeys]
) -> Corpus:
    """List comments on news with their classes and groups; a comment is toxic if at least half of the raters said so.

    The four groups cross the two classes with whether a comment mentions an identity. A comment mentions one of eight
    identities if at least half of the raters said so.

    Args:
        evaluation: "fine" evaluates by the sixteen groups of WILDS, each of the eight identities in each class; a
            comment can be in several of these groups or in none. "coarse" evaluates by the four groups. "mentions" is the
            protocol of SubpopBench (CivilCommentsFine): a comment has a row for each identity that it mentions, also in
            train; a comment without an identity is left out; and the groups are class × identity.
    """
    hint = "`imbalance data download civilcomments` says how to get it"
    path = find_path(data_dir, FILES, "CivilComments", hint)
    needed = ("comment_text", "split", "toxicity", *IDENTITIES)
    heading, rows, lines, problems = read_csv(path, needed)
    columns = {name: heading.index(name) for name in needed}
    good = []
    for i, row in enumerate(rows):
        split = row[columns["split"]]
        causes = [] if split in SPLITS else [f"split is {split!r}, not one of {', '.join(SPLITS)}"]
        causes += [f"{n} is {row[columns[n]]!r}, not a number" for n in needed[2:] if not is_number(row[columns[n]])]
        problems += [Problem(f"{path} line {lines[i]}", cause) for cause in causes]
        if not causes:
            good.append(i)
    rows = [rows[i] for i in good]
    splits = np.array([SPLITS.index(row[columns["split"]]) for row in rows], dtype=np.int64)
    counts = tuple(np.bincount(splits, minlength=3).tolist())
    if counts != PUBLISHED and not problems:
        problems.append(
            Problem(
                str(path),
                f"not the published data: train, val and test have {counts} comments, not {PUBLISHED}; {hint}",
            )
        )
    numbers = np.array([[float(row[columns[name]]) for name in needed[2:]] for row in rows]).reshape(-1, 9)
    targets, has_identity = (numbers[:, 0] >= 0.5).astype(np.int64), numbers[:, 1:] >= 0.5
    mask, names, chosen = None, (), np.arange(len(rows))
    attributes, attribute_names = has_identity.any(1).astype(np.int64), ("no identity", "identity")
    if evaluation == "fine":
        mask, names = identity_class_groups(has_identity, IDENTITIES, targets, CLASSES)
    elif evaluation == "mentions":
        chosen, attributes = np.nonzero(has_identity)
        attribute_names = IDENTITIES
    return Corpus(
        Path(path),
        ("comment_text",),
        [rows[i][columns["comment_text"]] for i in chosen.tolist()],
        targets[chosen],
        len(attribute_names) * targets[chosen] + attributes,
        splits[chosen],
        np.array(good, dtype=np.int64)[chosen],
        lambda row: f"{path} line {lines[good[chosen[row]]]}",
        CLASSES,
        tuple(f"{label}, {identity}" for label in CLASSES for identity in attribute_names),
        mask,
        names,
        problems,
        {"delimiter": ","},
        blanks=True,
        token_keys=token_keys,
    )


def is_number(text: str) -> bool:
    """Return whether `text` can be read as a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


civilcomments = text_dataset(list_civilcomments)
