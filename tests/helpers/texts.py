"""Data sets of short texts, a config that trains on them in less than a second, and a tiny pretrained encoder."""

import csv
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from conftest import ROOT
from ml_collections import ConfigDict

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.data import Dataset
from imbalance.data import load as load_data
from imbalance.utils.torchvision_import import import_torchvision

civilcomments = import_module("imbalance.data.sets.civilcomments")
PLACES, GOOD, BAD = ("shop", "film"), ("good", "fine", "lovely"), ("bad", "awful", "dull")
FILLERS = ("the", "a", "very", "quite", "this", "was", "day", "I", "think", "so", "it", "is")
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "!",
    "the",
    "a",
    "very",
    "was",
    "so",
    "good",
    "fine",
    "lovely",
    "bad",
    "awful",
    "dull",
    "shop",
    "film",
    "##s",
]


def write_texts(file: Path, n: int = 240) -> None:
    """Write a CSV file with `n` texts, their targets and places, and two identities that overlap.

    Words of the text determine the target. The place is the same for 80 % of the examples of a target.
    """
    rng = np.random.default_rng(0)
    with open(file, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "target", "place", "old", "tall"])
        for i in range(n):
            good = i % 2
            place = PLACES[good if rng.random() < 0.8 else 1 - good]
            words = rng.choice(FILLERS, size=rng.integers(1, 20)).tolist()
            words.insert(rng.integers(len(words)), rng.choice(GOOD if good else BAD))
            row = [" ".join([place, *words]) + "!", ("no", "yes")[good], place, rng.random() < 0.4, rng.random() < 0.4]
            writer.writerow([*row[:3], *(float(value) for value in row[3:])])


def text_config(tmp_path: Path) -> ConfigDict:
    """Return a config that trains a bag of embeddings on 165 short texts for two epochs in float64."""
    write_texts(tmp_path / "texts.csv")
    config = load(ROOT / "configs" / "text_small_erm.py")
    config.data_dir, config.work_dir = str(tmp_path), str(tmp_path / "runs")
    config.data.update(classes=("no", "yes"), attributes=("place",), vocabulary=60, bucket=2)
    config.model.width = 6
    config.trainer.update(epochs=2, batch_size=33, dtype="float64", eval_batch_size=50)
    config.callbacks.select = "last"
    return config


def dataset_of(config: ConfigDict) -> Dataset:
    """Load the data set of a config."""
    return load_data(validate(config).data, config.data_dir, config.seed)


def assert_close(ours: Path, theirs: Path, tolerance: float) -> None:
    """Check that the selected weights in two run directories are equal up to `tolerance`."""
    a, b = (torch.load(d / "checkpoints" / "selected.pt", weights_only=True) for d in (ours, theirs))
    for key in b:
        torch.testing.assert_close(a[key], b[key], rtol=tolerance, atol=tolerance)


def save_bert(folder: Path, positions: int = 40, kind: str = "bert") -> Path:
    """Write a tiny random BERT and its tokenizer into `folder`, as a download would, and return `folder`.

    Args:
        positions: the largest number of tokens of a text.
        kind: "bert", or any other word for a DistilBERT.
    """
    import_torchvision()  # transformers imports torchvision, whose plain import can fail if torch is CPU-only
    import transformers
    from tokenizers import BertWordPieceTokenizer

    folder.mkdir()
    numbers = {word: i for i, word in enumerate(WORDS)}
    tokenizer = BertWordPieceTokenizer(numbers, lowercase=True)
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = dict(vocab_size=len(WORDS) + 4, max_position_embeddings=positions)
    if kind == "bert":
        sizes |= dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20)
        transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(folder)
    else:
        sizes |= dict(dim=16, n_layers=2, n_heads=2, hidden_dim=20)
        transformers.DistilBertModel(transformers.DistilBertConfig(**sizes)).save_pretrained(folder)
    return folder


def write_civilcomments(folder: Path, counts=(40, 20, 20)) -> list[dict]:
    """Write the file of CivilComments with random identities into `folder`, and return its rows.

    Args:
        counts: the number of comments in train, val and test.
    """
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for split, n in zip(("train", "val", "test"), counts):
        for i in range(n):
            identities = (rng.random(8) < 0.08) * rng.choice([0.5, 0.75, 1.0], 8)
            row = {"": len(rows), "id": i, "comment_text": "so good,\nthe film" if i % 2 else "awful", "split": split}
            row |= {"toxicity": (0.49, 0.5)[i // 2 % 2]} | dict(zip(civilcomments.IDENTITIES, identities))
            rows.append(row)
    with open(folder / "all_data_with_identities.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows
