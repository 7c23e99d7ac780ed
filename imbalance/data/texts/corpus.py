"""Build a data set from a list of texts with their labels; every data set of texts uses this module."""

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch

from imbalance.config.schema import Count, Name, Natural
from imbalance.data.population import name_problems, population_problems
from imbalance.data.problems import Problem, raise_first
from imbalance.data.splits import Dataset, Split
from imbalance.data.stores import ELSEWHERE, build_lock, store_root
from imbalance.data.texts.tokenizers import LEARNT, from_json, learn_tokenizer, load_tokenizer
from imbalance.data.texts.tokens import Texts, damage, open_tokens, store_directory, texts_hash
from imbalance.errors import BadInput, Damaged
from imbalance.utils.files import write_atomic
from imbalance.utils.read import checked_format, read_json, seal

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenKeys(TypedDict):
    """Keys of `config.data` that all data sets of texts have.

    Args:
        tokenizer: "words" or "pieces" (byte pairs) to learn a tokenizer on the training texts; or the name or folder of
            pretrained weights, to use their tokenizer.
        vocabulary: the size of the vocabulary to learn; 0 with the tokenizer of pretrained weights.
        max_tokens: the largest number of tokens of a text; longer texts are truncated.
        bucket: the number of batches whose texts are sorted by length together and then divided into batches anew, so
            that they need less padding; 0 for no sorting.
    """

    tokenizer: Name
    vocabulary: Natural
    max_tokens: Count
    bucket: Natural


@dataclass(frozen=True)
class Corpus:
    """A list of N texts with their labels, made without tokenising the texts.

    file: the file that lists the texts.
    columns: the column that holds the texts; two columns for pairs of texts.
    texts: N texts, or N pairs of texts; in memory, or read from a file when they are iterated over.
    targets, groups, splits: (N,) int64; splits are 0, 1, 2 for train, val, test.
    indices: (N,) int64, the row of each text in the file, from 0.
    where: returns the file and line of a text, from its number between 0 and N − 1, for messages.
    eval_group_mask: (N, E) bool, the evaluation groups of each text; None if `groups` are the evaluation groups.
    evaluation_names: the names of the E evaluation groups.
    problems: the problems of the file; its rows with a problem are not among the N texts.
    preprocessing: what a trained model must know to read a file, such as the delimiter; the tokenizer is added later.
    blanks: True if empty texts are allowed, because a few published data sets have some.
    notes: lines for the log on how the file was read.
    token_keys: the keys of `config.data` by which the texts are tokenised.
    """

    file: Path
    columns: tuple[str, ...]
    texts: Texts
    targets: np.ndarray
    groups: np.ndarray
    splits: np.ndarray
    indices: np.ndarray
    where: Callable[[int], str]
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    eval_group_mask: np.ndarray | None = None
    evaluation_names: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    blanks: bool = False
    notes: tuple[str, ...] = ()
    token_keys: TokenKeys = field(kw_only=True)

    def all_problems(self) -> list[Problem]:
        """Return all problems: of the file, of class names and group names, of splits, and one for each blank text."""
        file, names = str(self.file), (self.class_names, self.group_names)
        problems = list(self.problems)
        problems += name_problems(file, *names)
        if self.evaluation_names:
            problems += name_problems(file, self.class_names, self.evaluation_names)
        for row, example in enumerate(() if self.blanks else self.texts):
            for name, text in zip(self.columns, (example,) if isinstance(example, str) else example):
                if not text.strip():
                    problems.append(
                        Problem(
                            self.where(row), f"{name} is empty; set config.data.skip_empty=True to leave out such rows"
                        )
                    )
        return problems + population_problems(file, self.targets, self.groups, self.splits, *names)


def text_dataset(list_texts: Callable[..., Corpus]) -> Callable[..., Dataset]:
    """Return a function that has the arguments of `list_texts`, and builds the data set of the texts that it lists."""

    @functools.wraps(list_texts)
    def dataset(data_dir: str, seed: int, **values: Any) -> Dataset:
        corpus = list_texts(data_dir, seed, **values)
        raise_first(corpus.all_problems())
        return build_text_dataset(corpus, data_dir)

    return dataset


def build_text_dataset(corpus: Corpus, data_dir: str) -> Dataset:
    """Return the data set of a corpus; build the store of its tokens first if it does not exist.

    The texts of a split are sorted by length, longest first. An evaluation reads them in this order. So it needs little
    padding, and if a batch is too large for the memory, this shows at the first batch.
    """
    built, max_tokens = make_tokenizer(corpus, data_dir), corpus.token_keys["max_tokens"]
    tokens = open_tokens(data_dir, corpus.texts, built)
    lengths = tokens.lengths.numpy()

    def split(number: int) -> Split:
        rows = np.flatnonzero(corpus.splits == number)
        rows = torch.from_numpy(rows[np.argsort(-lengths[rows], kind="stable")])
        targets, groups, indices = (
            torch.from_numpy(array)[rows] for array in (corpus.targets, corpus.groups, corpus.indices)
        )
        mask = None if corpus.eval_group_mask is None else torch.from_numpy(corpus.eval_group_mask)[rows]
        return Split(tokens.subset(rows), targets, groups, indices, eval_group_mask=mask)

    cut = int((lengths >= max_tokens).sum())
    notes = (
        *corpus.notes,
        f"{tokens.vocabulary:,} tokens ({corpus.token_keys['tokenizer']}); {lengths.mean():.1f} a text, at most {lengths.max()}"
        + (f"; {cut:,} texts reach config.data.max_tokens={max_tokens}" if cut else ""),
    )
    preprocessing = {
        "kind": "texts",
        "columns": corpus.columns,
        "tokenizer": built.to_str(),
        **corpus.preprocessing,
    }
    return Dataset(
        split(0),
        split(1),
        split(2),
        corpus.class_names,
        corpus.group_names,
        evaluation_names=corpus.evaluation_names,
        bucket=corpus.token_keys["bucket"],
        preprocessing=preprocessing,
        notes=notes,
    )


def token_problems(corpus: Corpus, data_dir: str) -> list[Problem]:
    """Check all files in the token store of `corpus`, and return the problems; return [] if there is no store.

    A token store is a folder with the tokenised texts of a data set.
    """
    built = make_tokenizer(corpus, data_dir)
    directory = store_directory(data_dir, corpus.texts, built)
    problems = damage(directory, len(corpus.texts), whole=True) if (directory / "store.json").is_file() else []
    return [Problem(place, f"{cause}; remove {directory}") for place, cause in problems]


def make_tokenizer(corpus: Corpus, data_dir: str) -> "Tokenizer":
    """Learn or load the tokenizer that `corpus.token_keys` names, and make it truncate texts to `max_tokens` tokens."""
    keys = corpus.token_keys
    kind, vocabulary, max_tokens = keys["tokenizer"], keys["vocabulary"], keys["max_tokens"]
    if kind not in LEARNT:
        if vocabulary:
            raise BadInput(f"config.data.vocabulary: {vocabulary} given; it must be 0 for the tokenizer of {kind}")
        tokenizer = load_tokenizer(kind)
    else:
        least = 5 if kind == "words" else 261  # the special tokens and one more, or the special tokens and all bytes
        if vocabulary < least:
            raise BadInput(f"config.data.vocabulary: {vocabulary} given; {kind!r} needs {least} or more")
        tokenizer = learn_once(data_dir, kind, TrainingTexts(corpus), vocabulary)
    if max_tokens < 4:
        raise BadInput(f"config.data.max_tokens: {max_tokens} given; it must be 4 or more")
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


class TrainingTexts:
    """An iterable of the training texts of a corpus, for any number of passes; the two texts of a pair come in succession."""

    def __init__(self, corpus: Corpus):
        self.corpus = corpus

    def __iter__(self) -> Iterator[str]:
        for example, split in zip(self.corpus.texts, self.corpus.splits.tolist()):
            if split == 0:
                yield from (example,) if isinstance(example, str) else example


def learn_once(data_dir: str, kind: str, texts: Iterable[str], vocabulary: int) -> "Tokenizer":
    """Learn a tokenizer on `texts` and save it; load it if an earlier call has learnt one from the same arguments.

    Args:
        kind: "words" or "pieces".
        vocabulary: the size of the vocabulary.
    """
    key = texts_hash(itertools.chain([kind, str(vocabulary)], texts))
    path = store_root(data_dir) / f"vocabulary-{key[:24]}.json"
    try:
        if not path.exists():  # a file that exists is read without a lock, which a read-only disk does not allow
            with build_lock(path):
                learnt = json.loads(learn_tokenizer(kind, texts, vocabulary).to_str())
                write_atomic(path, json.dumps(seal(learnt), ensure_ascii=False).encode())
        content = read_json(path)
        return checked_format(path, lambda: from_json(json.dumps(content, ensure_ascii=False)))
    except Damaged as error:
        raise Damaged(path, error.reason, f"remove {path}, and the next run writes it again") from None
    except OSError as error:
        raise BadInput(f"config.data_dir: {path}: {error.strerror or error}; {ELSEWHERE}") from None


def identity_class_groups(
    has_identity: np.ndarray, identities: Sequence[str], targets: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Make an evaluation group for each pair of an identity and a class.

    An example with several identities is in several groups; an example without an identity is in none.

    Args:
        has_identity: (N, I) bool, true for the identities that each example mentions.
        identities: the names of the I identities.

    Returns:
        The (N, I · K) bool mask of the evaluation groups, and the names of these groups.
    """
    in_class = targets[:, None] == np.arange(len(class_names))
    mask = (has_identity[:, :, None] & in_class[:, None, :]).reshape(len(targets), -1)
    return mask, tuple(f"{identity}, {label}" for identity in identities for label in class_names)
