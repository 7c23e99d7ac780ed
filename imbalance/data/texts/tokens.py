"""Store tokenised texts: memory-mapped files of token numbers that all runs and processes on a machine share.

A store is a folder `tokens-<key>` in the folder that `imbalance.data.stores.store_root` returns. The key is a hash of the
tokenizer, the texts and `VERSION`. A store has six files:

- `ids.npy`: the tokens of all texts, one text after another, as numbers in the vocabulary;
- `kinds.npy`: for each token, 0 if it is in the first text of a pair and 1 if in the second; empty if there are no pairs;
- `starts.npy`: the position in `ids.npy` at which each text begins;
- `checksums.npy`: one CRC-32 for each text, over the text and its tokens together;
- `checked.json`: the stamps of the four arrays when they were last checked, see `imbalance.data.stores`;
- `store.json`: a description of the content.

A store is built in a temporary folder and then renamed, so that an existing store is always complete.
"""

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor

from imbalance.data.problems import Problem
from imbalance.data.stores import StoreCheck, build_once, store_root
from imbalance.data.texts.tokenizers import encode
from imbalance.errors import BadInput, Damaged
from imbalance.utils.files import write_atomic
from imbalance.utils.read import BLOCK, map_array, open_regular, read_json, seal

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VERSION = 1
# The arrays of a store and their types.
PARTS = {"ids": np.int32, "kinds": np.uint8, "starts": np.int64, "checksums": np.uint32}
FILES = [f"{part}.npy" for part in PARTS]
CHUNK = 8192  # texts between two updates of the progress

CPU = torch.device("cpu")
Texts = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Tokens:
    """N tokenised texts, used in `Split.inputs` like a tensor: indexing returns a padded batch on the device.

    ids: (T,) int32, the tokens of all M texts of the store, one text after another.
    kinds: (T,) uint8, 0 for a token in the first text of a pair and 1 for one in the second; (0,) if there are no pairs.
    starts: (M + 1,) int64, the position in `ids` at which each text begins; the last entry is T.
    checksums: (M,) uint32, one CRC-32 for each text, over the text and its tokens together.
    rows: (N,) int64, on the CPU: the positions of these N texts among the M texts of the store.
    vocabulary: the number of different tokens of the tokenizer.
    padding: the number of the token that pads a batch.
    target: the device that batches are copied to.
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
        """The shape (N,); it has no second number, because texts differ in length."""
        return (len(self.rows),)

    def __len__(self) -> int:
        return len(self.rows)

    def dim(self) -> int:
        """Return the number of dimensions, as `torch.Tensor.dim` does."""
        return 1

    def is_floating_point(self) -> bool:
        """Return False, because tokens are integers."""
        return False

    @property
    def lengths(self) -> Tensor:
        """The (N,) numbers of tokens of the texts."""
        rows = self.rows.numpy()
        return torch.from_numpy(self.starts[rows + 1] - self.starts[rows])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Tokens":
        """Return these texts with `device` as the device that batches are copied to.

        `dtype` is ignored, because tokens stay integers; it is an argument because `torch.Tensor.to` has one.
        """
        return replace(self, target=device)

    def subset(self, index: Tensor) -> "Tokens":
        """Return the texts at the positions `index`, without reading tokens."""
        return replace(self, rows=self.rows[index])

    def __getitem__(self, index: Tensor | slice) -> dict[str, Tensor]:
        """Return the texts at `index` as a batch, padded to the length L of the longest text; `index` must be on the CPU.

        The batch has `input_ids` and `attention_mask` (1 for tokens, 0 for padding), and `token_type_ids` if the texts
        are pairs. All are (B, L).
        """
        rows = self.rows[index].numpy()
        starts, stops = self.starts[rows], self.starts[rows + 1]
        places = starts[:, None] + np.arange((stops - starts).max(initial=1))
        is_token = places < stops[:, None]
        places = np.minimum(places, len(self.ids) - 1)
        batch = {
            "input_ids": np.where(is_token, self.ids[places], self.padding).astype(np.int64),
            "attention_mask": is_token.astype(np.int64),
        }
        if len(self.kinds):
            batch["token_type_ids"] = np.where(is_token, self.kinds[places], 0).astype(np.int64)
        return {name: self.to_target(torch.from_numpy(array)) for name, array in batch.items()}

    def to_target(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the target device without waiting for the device."""
        if self.target.type == "cuda":
            tensor = tensor.pin_memory()  # a copy from pageable memory would wait for the device
        return tensor.to(self.target, non_blocking=True)

    def index_select(self, dim: int, index: Tensor) -> dict[str, Tensor]:
        """Return `self[index]`; `dim` is always 0. Callers use this method, because for tensors it is faster than indexing."""
        return self[index]


def bucketed(order: Tensor, lengths: Tensor, batch_size: int, pool: int, generator: torch.Generator) -> Tensor:
    """Reorder an epoch so that the texts of a batch have similar lengths, which needs less padding.

    The epoch is cut into stretches of `pool` batches. Each stretch is sorted by length (a stable sort) and cut into
    batches, and all batches of the epoch are shuffled. An incomplete batch stays at the end. The epoch keeps its
    examples and its number of batches; only which examples share a batch changes.

    Args:
        order: (M,) the texts of an epoch in the order in which the sampler drew them, each as its position in the split.
        lengths: (N,) the number of tokens of each text of the split.
        pool: the number of batches in a stretch.
        generator: a generator seeded by the run's seed and the epoch alone.
    """
    whole = len(order) // batch_size * batch_size
    stretches = order[:whole].split(pool * batch_size)
    batches = torch.cat([part[lengths[part].argsort(stable=True)] for part in stretches]).view(-1, batch_size)
    return torch.cat([batches[torch.randperm(len(batches), generator=generator)].flatten(), order[whole:]])


def open_tokens(data_dir: str, texts: Texts, tokenizer: "Tokenizer") -> Tokens:
    """Open the store of the tokens of `texts`, and build it first if it does not exist.

    Raises:
        BadInput: the store cannot be written, or is damaged.
    """
    directory = store_directory(data_dir, texts, tokenizer)
    build_once(directory, lambda temporary: write_store(temporary, directory, texts, tokenizer))
    if problems := damage(directory, len(texts)):
        raise BadInput(f"{problems[0]}; remove the folder {directory}, and the next run builds it again")
    ids, kinds, starts, checksums = (read(directory, part) for part in PARTS)
    return as_tokens((ids, kinds, starts, checksums), tokenizer)


def tokenise(texts: Texts, tokenizer: "Tokenizer") -> Tokens:
    """Tokenise texts in memory, without a store, for predictions."""
    return as_tokens(token_arrays(texts, encode(tokenizer, texts)), tokenizer)


def as_tokens(arrays: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tokenizer: "Tokenizer") -> Tokens:
    """Return the arrays of a token store as `Tokens` on the CPU.

    Args:
        arrays: the arrays that `PARTS` names, in this order.
        tokenizer: the tokenizer of the texts.
    """
    padding = tokenizer.padding
    assert padding is not None  # both ways to get a tokenizer set the padding
    rows = torch.arange(len(arrays[3]))
    return Tokens(*arrays, rows, tokenizer.get_vocab_size(), padding["pad_id"], CPU)


def store_directory(data_dir: str, texts: Texts, tokenizer: "Tokenizer") -> Path:
    """Return the folder of the store of these texts and this tokenizer; the store need not exist."""
    key = hashlib.sha256(json.dumps([VERSION, tokenizer.to_str()]).encode())
    key.update(texts_hash(texts).encode())
    return store_root(data_dir) / f"tokens-{key.hexdigest()[:24]}"


def texts_hash(texts: Iterable[str] | Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 of the JSON list of all texts, in hexadecimal digits."""
    digest, separator = hashlib.sha256(b"["), b""
    for text in texts:
        digest.update(separator + json.dumps(text, ensure_ascii=True).encode())
        separator = b", "
    digest.update(b"]")
    return digest.hexdigest()


def token_arrays(
    texts: Texts, encoded: Sequence[tuple[list[int], list[int]]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the arrays of a token store for tokenised texts: those that `PARTS` names, in this order.

    A checksum depends on the text as well as on its tokens, because another text can have the same tokens.

    Args:
        encoded: the result of `encode` for these texts.
    """
    ids = [np.array(tokens, dtype=np.int32) for tokens, _ in encoded]
    kinds = [np.array(types, dtype=np.uint8) for _, types in encoded]
    starts = np.concatenate([[0], np.cumsum([len(tokens) for tokens in ids], dtype=np.int64)]).astype(np.int64)
    checksums = [
        zlib.crc32(kind.data, zlib.crc32(tokens.data, zlib.crc32(repr(text).encode())))
        for text, tokens, kind in zip(texts, ids, kinds, strict=True)
    ]
    all_ids = np.concatenate([*ids, np.empty(0, dtype=np.int32)])
    all_kinds = np.concatenate([*kinds, np.empty(0, dtype=np.uint8)])
    all_kinds = all_kinds if all_kinds.any() else all_kinds[:0]
    return all_ids, all_kinds, starts, np.array(checksums, dtype=np.uint32)


def write_store(folder: Path, directory: Path, texts: Texts, tokenizer: "Tokenizer") -> None:
    """Tokenise the texts, and write the files of their store to `folder`, which will become `directory`."""
    print(f"tokenising into {directory}: {len(texts):,} texts", file=sys.stderr, flush=True)
    tokens = write_parts(folder, texts, tokenizer)
    sums = {part: crc_of_file(folder / f"{part}.npy") for part in PARTS}
    description = {"version": VERSION, "texts": len(texts), "tokens": tokens} | sums
    write_atomic(folder / "store.json", json.dumps(seal(description), indent=2).encode() + b"\n")
    StoreCheck(folder, FILES).remember()


def write_parts(folder: Path, texts: Texts, tokenizer: "Tokenizer") -> int:
    """Write the arrays that `PARTS` names into `folder`, `CHUNK` texts at a time, and return the number of tokens."""
    bar, done, first_start = sys.stderr.isatty(), 0, 0
    with ExitStack() as stack:
        writers = {part: stack.enter_context(growing_array(folder / f"{part}.npy", PARTS[part])) for part in PARTS}
        any_kinds = False
        writers["starts"].append(np.zeros(1, dtype=np.int64))
        for first in range(0, len(texts), CHUNK):
            chunk = texts[first : first + CHUNK]
            ids, kinds, starts, checksums = token_arrays(chunk, encode(tokenizer, chunk))
            any_kinds |= len(kinds) > 0
            writers["ids"].append(ids)
            # A chunk without second texts has no kinds; other chunks may have some.
            writers["kinds"].append(kinds if len(kinds) else np.zeros(len(ids), dtype=np.uint8))
            writers["starts"].append(starts[1:] + first_start)
            writers["checksums"].append(checksums)
            first_start, done = first_start + int(starts[-1]), done + len(chunk)
            if bar:
                end = "\r" if done == len(texts) else ""
                print(f"\r\x1b[K{100 * done / len(texts):.0f} %", end=end, file=sys.stderr, flush=True)
        if not any_kinds:
            writers["kinds"].clear()
    return first_start


class GrowingArray:
    """An .npy file of one dimension, to whose end arrays are appended."""

    def __init__(self, file: BinaryIO, dtype: type):
        self._file, self._dtype, self._length = file, np.dtype(dtype), 0
        self._write_header()

    def _write_header(self) -> None:
        """Write the header. NumPy pads the header, so that one with a larger length later fits into the same place."""
        self._file.seek(0)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, array: np.ndarray) -> None:
        self._file.write(array.astype(self._dtype, copy=False).data)
        self._length += len(array)

    def clear(self) -> None:
        self._length = 0
        self._write_header()
        self._file.truncate()

    def close(self) -> None:
        """Write the header with the final length, and sync the file."""
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def growing_array(path: Path, dtype: type) -> Iterator[GrowingArray]:
    """Return a context manager that opens a new .npy file as a `GrowingArray`, and completes the file at the end."""
    with open(path, "wb") as file:
        array = GrowingArray(file, dtype)
        yield array
        array.close()


def crc_of_file(path: Path) -> int:
    """Return the CRC-32 of the content of a file, read one block at a time."""
    crc = 0
    with open_regular(path) as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def read(directory: Path, part: str) -> np.ndarray:
    """Return the array `part` of the token store in `directory` as a memory map, which all processes share.

    Args:
        part: one of the names in `PARTS`.
    """
    path = directory / f"{part}.npy"
    array = map_array(path)
    return array if len(array) else np.empty(0, dtype=PARTS[part])


def damage(directory: Path, texts: int, whole: bool = False) -> list[Problem]:
    """Return the problems of a store: wrong sizes, a wrong description, or files that fail their checksum.

    Args:
        directory: the folder of the store.
        texts: the number of texts that the store must have.
        whole: compare the checksum of each file, even if it is unchanged since it was last checked; see `StoreCheck`.
    """
    try:
        check = StoreCheck(directory, FILES)
        whole |= not check.is_recent
        description = read_json(directory / "store.json")
        sums = {part: description.get(part) for part in PARTS}
        if whole:
            sums = {part: crc_of_file(directory / f"{part}.npy") for part in PARTS}
        arrays = {part: read(directory, part) for part in PARTS}
    except Damaged as error:
        return [Problem(str(error.args[0]), f"damaged ({error.reason})")]
    except OSError as error:
        return [Problem(str(error.filename or directory), error.strerror or str(error))]
    starts, tokens = arrays["starts"], description.get("tokens")
    expected = {"version": VERSION, "texts": texts} | sums
    wrong = [key for key, value in expected.items() if description.get(key) != value]
    lengths_match = len(starts) == texts + 1 and len(arrays["checksums"]) == texts
    lengths_match = lengths_match and len(arrays["ids"]) == starts[-1] == tokens and len(arrays["kinds"]) in (0, tokens)
    if wrong or not lengths_match:
        key = wrong[0] if wrong else "tokens"
        return [Problem(str(directory / "store.json"), f"{key} does not match the files of the store")]
    if whole:
        check.remember()
    return []
