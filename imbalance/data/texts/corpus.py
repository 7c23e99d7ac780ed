"""Texts and their labels, as a file lists them: what CivilComments, MultiNLI and a user's own texts share."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from imbalance.config.schema import Count, Name, Natural
from imbalance.data.images.store import ELSEWHERE, locked, root
from imbalance.data.population import name_problems, population_problems
from imbalance.data.problems import Problem, raise_first
from imbalance.data.splits import Dataset, Split
from imbalance.data.texts.tokenizers import LEARNT, from_json, learnt, ready
from imbalance.data.texts.tokens import Texts, damage, directory_of, hash_of_texts, open_tokens
from imbalance.errors import BadInput
from imbalance.utils.files import write_whole

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KEYS = {"tokenizer": Name, "vocabulary": Natural, "max_tokens": Count, "bucket": Natural}  # of every data set of texts


@dataclass(frozen=True)
class Corpus:
    """N texts that a config asks for, not tokenised yet, and what is wrong with their labels.

    file: where they are listed.
    columns: what the texts are called there; two for pairs.
    texts: N texts, or pairs of them.
    targets, groups, splits: (N,) int64; splits are 0, 1, 2 for train, val, test.
    indices: (N,) int64, rows of the file, from 0; lines: (N,) where they are in it, for messages.
    members: (N, E) bool, the evaluation groups that each is in; None where they are the groups.
    problems: of the file. Rows that cannot be read are named there, and left out of the rest.
    preprocessing: what a trained model must know beside the tokenizer.
    blanks: whether a text may be empty, as some of what is published are.
    """

    file: Path
    columns: tuple[str, ...]
    texts: Texts
    targets: np.ndarray
    groups: np.ndarray
    splits: np.ndarray
    indices: np.ndarray
    lines: np.ndarray
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    members: np.ndarray | None = None
    member_names: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    blanks: bool = False

    def all_problems(self) -> list[Problem]:
        """Those of the file; names that are none, classes and groups without an example; texts without a letter."""
        where, names = str(self.file), (self.class_names, self.group_names)
        found = list(self.problems)
        found += name_problems(where, *names)
        if self.member_names:
            found += name_problems(where, self.class_names, self.member_names)
        for row, text in enumerate(() if self.blanks else self.texts):
            for name, one in zip(self.columns, (text,) if isinstance(text, str) else text):
                if not one.strip():
                    found.append(Problem(f"{where} line {self.lines[row]}", f"{name} is empty"))
        return found + population_problems(where, self.targets, self.groups, self.splits, *names)


def tokenised(list_texts: Callable[..., Corpus]) -> Callable[..., Dataset]:
    """The data set of what `list_texts` lists. Its signature, which is what a config must say, has these keys more:

    tokenizer: "words" or "pieces" (byte pairs), learnt on the training texts; or the name or folder of pretrained weights
        whose tokenizer it is.
    vocabulary: how many tokens are learnt; 0 for a tokenizer that has its own.
    max_tokens: what is longer is cut off.
    bucket: so many batches are sorted by length together, see `imbalance.data.texts.tokens.bucketed`; 0: none.
    """

    def dataset(data_dir: str, seed: int, **values: Any) -> Dataset:
        keys = {name: values.pop(name) for name in KEYS}
        corpus = list_texts(data_dir, seed, **values)
        raise_first(corpus.all_problems())
        return dataset_of(corpus, data_dir, **keys)

    functools.update_wrapper(dataset, list_texts)
    listed = inspect.signature(list_texts)
    keys = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in KEYS.items()]
    dataset.__signature__ = listed.replace(parameters=[*listed.parameters.values(), *keys])
    dataset.__annotations__ = list_texts.__annotations__ | KEYS
    return dataset


def dataset_of(
    corpus: Corpus, data_dir: str, *, tokenizer: str, vocabulary: int, max_tokens: int, bucket: int
) -> Dataset:
    """The splits of `corpus`, their tokens from its store, which is built if there is none.

    A split's rows are in the order of their lengths, the longest first: an evaluation goes through them in order, so it
    pads little, and what is too much for the memory shows at once.
    """
    kind, tokenizer = tokenizer, tokenizer_of(corpus, data_dir, tokenizer, vocabulary, max_tokens)
    tokens = open_tokens(data_dir, corpus.texts, tokenizer)
    lengths = tokens.lengths.numpy()

    def split(number: int) -> Split:
        rows = np.flatnonzero(corpus.splits == number)
        rows = torch.from_numpy(rows[np.argsort(-lengths[rows], kind="stable")])
        labels = (torch.from_numpy(array)[rows] for array in (corpus.targets, corpus.groups, corpus.indices))
        members = None if corpus.members is None else torch.from_numpy(corpus.members)[rows]
        return Split(tokens.subset(rows), *labels, eval_group_mask=members)

    cut = int((lengths >= max_tokens).sum())
    notes = (
        f"{tokens.vocabulary:,} tokens ({kind}); {lengths.mean():.1f} a text, at most {lengths.max()}"
        + (f"; {cut:,} texts reach config.data.max_tokens={max_tokens}" if cut else ""),
    )
    preprocessing = {
        "kind": "texts",
        "columns": corpus.columns,
        "tokenizer": tokenizer.to_str(),
        **corpus.preprocessing,
    }
    return Dataset(
        *map(split, range(3)),
        corpus.class_names,
        corpus.group_names,
        evaluation_names=corpus.member_names,
        bucket=bucket,
        preprocessing=preprocessing,
        notes=notes,
    )


def token_problems(
    corpus: Corpus, data_dir: str, *, tokenizer: str, vocabulary: int, max_tokens: int, bucket: int
) -> list[Problem]:
    """What is wrong with the store of the tokens of `corpus`, of which all is read; nothing if there is none yet."""
    directory = directory_of(data_dir, corpus.texts, tokenizer_of(corpus, data_dir, tokenizer, vocabulary, max_tokens))
    found = damage(directory, len(corpus.texts), whole=True) if (directory / "store.json").is_file() else []
    return [Problem(place, f"{cause}; remove {directory}") for place, cause in found]


def tokenizer_of(corpus: Corpus, data_dir: str, kind: str, vocabulary: int, max_tokens: int) -> "Tokenizer":
    """The tokenizer that a config asks for, which cuts at `max_tokens`."""
    if kind not in LEARNT:
        if vocabulary:
            raise BadInput(f"config.data.vocabulary: {vocabulary} given; it is 0 for the tokenizer of {kind}")
        tokenizer = ready(kind)
    else:
        least = 5 if kind == "words" else 261  # special tokens and one more; with all bytes
        if vocabulary < least:
            raise BadInput(f"config.data.vocabulary: {vocabulary} given; {kind!r} needs {least} or more")
        rows = np.flatnonzero(corpus.splits == 0)
        texts = [corpus.texts[row] for row in rows]
        texts = texts if isinstance(texts[0], str) else [text for pair in texts for text in pair]
        tokenizer = learnt_once(data_dir, kind, texts, vocabulary)
    if max_tokens < 4:
        raise BadInput(f"config.data.max_tokens: {max_tokens} given; a text takes 4 or more")
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def learnt_once(data_dir: str, kind: str, texts: Sequence[str], vocabulary: int) -> "Tokenizer":
    """A vocabulary of the texts, from the file of an earlier run if there is one."""
    key = hash_of_texts([kind, str(vocabulary), *texts])
    path = root(data_dir) / f"vocabulary-{key[:24]}.json"
    try:
        with locked(path):
            if not path.is_file():
                write_whole(path, learnt(kind, texts, vocabulary).to_str().encode())
        content = path.read_text()
    except OSError as error:
        raise BadInput(f"config.data_dir: {path}: {error.strerror or error}; {ELSEWHERE}") from None
    try:
        return from_json(content)
    except Exception as error:  # tokenizers has no narrower class for what is no tokenizer
        raise BadInput(f"{path}: {error}; remove it and the next run makes it anew") from None


def overlapping(
    belongs: np.ndarray, names: Sequence[str], targets: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Evaluation groups, each what is of an identity and of a class: (N, I · K) bool, and their names.

    An example is in one for each identity that it has, and in none if it has none.

    Args:
        belongs: (N, I) bool.
    """
    of_class = targets[:, None] == np.arange(len(class_names))
    members = (belongs[:, :, None] & of_class[:, None, :]).reshape(len(targets), -1)
    return members, tuple(f"{name}, {label}" for name in names for label in class_names)
