"""Texts tokenised once: files of token numbers, memory-mapped and shared by every run and process on a machine.

A store is a folder `tokens-<key>` beside those of decoded images (see `imbalance.data.images.store.root`). It holds `ids.npy`,
the tokens of all texts one after another; `kinds.npy`, which text of a pair each is of, empty without pairs;
`starts.npy`, where each text begins; `checksums.npy`, a CRC-32 of each text and its tokens; `store.json`. The key is a hash of
the tokenizer, of the texts and of `VERSION`, so what is there is what would be made. It is built beside its place and
renamed into it, so what is there is whole.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from imbalance.data.images.store import ELSEWHERE, locked, root
from imbalance.data.problems import Problem
from imbalance.data.texts.tokenizers import encode
from imbalance.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VERSION = 1
PARTS = {"ids": np.int32, "kinds": np.uint8, "starts": np.int64, "checksums": np.uint32}
CHUNK = 8192  # texts that are tokenised between two lines of progress

CPU = torch.device("cpu")
Texts = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Tokens:
    """N texts as tokens, standing in for a tensor of `Split.inputs`: indexing brings a batch, padded to its longest.

    ids: (T,) int32, the tokens of all texts of the source, one after another.
    kinds: (T,) uint8, which text of a pair each is of; (0,) where there are no pairs.
    starts: (M + 1,) int64, where each text begins.
    checksums: (M,) uint32.
    rows: (N,) int64, on the CPU: which of them these are.
    vocabulary: how many tokens there are.
    padding: the one that stands for nothing.
    target: the device that batches go to.
    """

    ids: np.ndarray
    kinds: np.ndarray
    starts: np.ndarray
    checksums: np.ndarray
    rows: Tensor
    vocabulary: int
    padding: int
    target: torch.device
    dtype, device = torch.int64, CPU

    @property
    def shape(self) -> tuple[int]:
        return (len(self.rows),)

    def __len__(self) -> int:
        return len(self.rows)

    def dim(self) -> int:
        return 1

    def is_floating_point(self) -> bool:
        return False

    @property
    def lengths(self) -> Tensor:
        """(N,) how many tokens each has."""
        rows = self.rows.numpy()
        return torch.from_numpy(self.starts[rows + 1] - self.starts[rows])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Tokens":
        """The same texts, with batches that go to `device`; they stay whole numbers."""
        return replace(self, target=device)

    def subset(self, index: Tensor) -> "Tokens":
        """The texts at `index` of these."""
        return replace(self, rows=self.rows[index])

    def __getitem__(self, index: Tensor | slice) -> dict[str, Tensor]:
        """Of B texts `input_ids` (B, L), `attention_mask` (B, L), 1 for what is no padding, and of pairs `token_type_ids`.

        L is the length of the longest of them. They are put together on the CPU, where `index` is.
        """
        rows = self.rows[index].numpy()
        starts, stops = self.starts[rows], self.starts[rows + 1]
        places = starts[:, None] + np.arange((stops - starts).max(initial=1))
        is_token = places < stops[:, None]
        places = np.minimum(places, len(self.ids) - 1)
        found = {
            "input_ids": np.where(is_token, self.ids[places], self.padding).astype(np.int64),
            "attention_mask": is_token.astype(np.int64),
        }
        if len(self.kinds):
            found["token_type_ids"] = np.where(is_token, self.kinds[places], 0).astype(np.int64)
        return {name: self.moved(torch.from_numpy(array)) for name, array in found.items()}

    def moved(self, tensor: Tensor) -> Tensor:
        if self.target.type == "cuda":
            tensor = tensor.pin_memory()  # without which a copy waits for the device
        return tensor.to(self.target, non_blocking=True)

    def index_select(self, dim: int, index: Tensor) -> dict[str, Tensor]:
        """The same, by the name of what is fast for a tensor; `dim` is 0."""
        return self[index]


def bucketed(order: Tensor, lengths: Tensor, batch_size: int, pool: int, generator: torch.Generator) -> Tensor:
    """The same examples in another order, in which those of a batch are about as long, so that little is padding.

    An epoch's order is cut into stretches of `pool` batches; each is sorted by length (equal lengths as they come) and cut
    into batches, and the batches of the whole epoch are shuffled. What remains at the end, less than a batch, stays there.
    So an epoch has the examples and the number of batches that it had, and which of them meet in a batch depends on their
    lengths.

    Args:
        order: (M,) rows; lengths: (N,) of all rows.
        generator: of the seed and the epoch alone.
    """
    whole = len(order) // batch_size * batch_size
    stretches = order[:whole].split(pool * batch_size)
    batches = torch.cat([part[lengths[part].argsort(stable=True)] for part in stretches]).view(-1, batch_size)
    return torch.cat([batches[torch.randperm(len(batches), generator=generator)].flatten(), order[whole:]])


def open_tokens(data_dir: str, texts: Texts, tokenizer: "Tokenizer") -> Tokens:
    """The tokens of all texts, in their order; made first if there is no store of them.

    Raises:
        BadInput: the store cannot be written, or is damaged.
    """
    directory = directory_of(data_dir, texts, tokenizer)
    if not (directory / "store.json").is_file():
        try:
            with locked(directory):
                if not (directory / "store.json").is_file():  # else built while this process waited
                    build(directory, texts, tokenizer)
        except OSError as error:
            full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
            raise BadInput(
                f"config.data_dir: cannot write {directory}: {error.strerror or error}{full}; {ELSEWHERE}"
            ) from None
    if problems := damage(directory, len(texts)):
        raise BadInput(f"{problems[0]}; remove {directory} and the next run builds it anew")
    ids, kinds, starts, checksums = (read(directory, part) for part in PARTS)
    rows = torch.arange(len(texts))
    return Tokens(ids, kinds, starts, checksums, rows, tokenizer.get_vocab_size(), tokenizer.padding["pad_id"], CPU)


def of_texts(texts: Texts, tokenizer: "Tokenizer") -> Tokens:
    """The tokens of a few texts, in memory."""
    arrays = arrays_of(texts, encode(tokenizer, texts))
    rows = torch.arange(len(texts))
    return Tokens(*arrays, rows, tokenizer.get_vocab_size(), tokenizer.padding["pad_id"], CPU)


def directory_of(data_dir: str, texts: Texts, tokenizer: "Tokenizer") -> Path:
    """Where the store of these texts under this tokenizer is, or will be."""
    key = hashlib.sha256(json.dumps([VERSION, tokenizer.to_str()]).encode())
    key.update(hash_of_texts(texts).encode())
    return root(data_dir) / f"tokens-{key.hexdigest()[:24]}"


def hash_of_texts(texts: Texts) -> str:
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=True).encode()).hexdigest()


def arrays_of(texts: Texts, encoded: Sequence[tuple[list[int], list[int]]]) -> tuple[np.ndarray, ...]:
    """`PARTS`, of the tokens of each text. A checksum is also of the text: another word can get the same number."""
    ids = [np.array(tokens, dtype=np.int32) for tokens, _ in encoded]
    kinds = [np.array(of_one, dtype=np.uint8) for _, of_one in encoded]
    starts = np.concatenate([[0], np.cumsum([len(tokens) for tokens in ids], dtype=np.int64)]).astype(np.int64)
    checksums = [
        zlib.crc32(kind, zlib.crc32(tokens, zlib.crc32(repr(text).encode())))
        for text, tokens, kind in zip(texts, ids, kinds, strict=True)
    ]
    all_ids = np.concatenate([*ids, np.empty(0, dtype=np.int32)])
    all_kinds = np.concatenate([*kinds, np.empty(0, dtype=np.uint8)])
    all_kinds = all_kinds if all_kinds.any() else all_kinds[:0]
    return all_ids, all_kinds, starts, np.array(checksums, dtype=np.uint32)


def build(directory: Path, texts: Texts, tokenizer: "Tokenizer") -> None:
    """Tokenise the texts into a store, which appears whole or not at all."""
    for leftover in directory.parent.glob(f"{directory.name}.*.building"):  # of a killed build: the lock is ours
        shutil.rmtree(leftover)
    print(f"tokenising into {directory}: {len(texts):,} texts", file=sys.stderr, flush=True)
    encoded, bar = [], sys.stderr.isatty()
    for start in range(0, len(texts), CHUNK):
        encoded += encode(tokenizer, texts[start : start + CHUNK])
        if bar:
            end = "\r" if len(encoded) == len(texts) else ""
            print(f"\r\x1b[K{100 * len(encoded) / len(texts):.0f} %", end=end, file=sys.stderr, flush=True)
    temporary = directory.with_name(f"{directory.name}.{os.getpid()}.building")
    temporary.mkdir()
    try:
        for part, array in zip(PARTS, arrays_of(texts, encoded), strict=True):
            with open(temporary / f"{part}.npy", "wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        sums = {part: zlib.crc32((temporary / f"{part}.npy").read_bytes()) for part in PARTS}
        description = {"version": VERSION, "texts": len(texts), "tokens": sum(len(ids) for ids, _ in encoded)} | sums
        (temporary / "store.json").write_text(json.dumps(description, indent=2) + "\n")
        shutil.rmtree(directory, ignore_errors=True)  # a folder without a description is no store
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(directory: Path, part: str) -> np.ndarray:
    """One of `PARTS`: the tokens memory-mapped, what is small in memory."""
    mode = "r" if part in ("ids", "kinds") else None
    array = np.load(directory / f"{part}.npy", mmap_mode=mode, allow_pickle=False)
    return array if len(array) else np.empty(0, dtype=PARTS[part])


def damage(directory: Path, texts: int, whole: bool = False) -> list[Problem]:
    """What is wrong with a store.

    Args:
        whole: read all of it, and compare the checksum of each file.
    """
    try:
        description = json.loads((directory / "store.json").read_text())
        sums = {part: description.get(part) for part in PARTS}
        if whole:
            sums = {part: zlib.crc32((directory / f"{part}.npy").read_bytes()) for part in PARTS}
        arrays = {part: read(directory, part) for part in PARTS}
    except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:  # the last two of other JSON and arrays
        return [Problem(str(directory), str(error))]
    starts, tokens = arrays["starts"], description.get("tokens")
    sound = {"version": VERSION, "texts": texts} | sums
    wrong = [key for key, value in sound.items() if description.get(key) != value]
    lengths = len(starts) == texts + 1 and len(arrays["checksums"]) == texts
    lengths = lengths and len(arrays["ids"]) == starts[-1] == tokens and len(arrays["kinds"]) in (0, tokens)
    if wrong or not lengths:
        what = wrong[0] if wrong else "tokens"
        return [Problem(str(directory / "store.json"), f"{what} is not that of its files")]
    return []
