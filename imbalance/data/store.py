"""Images decoded once: a file of uint8 pixels, memory-mapped and shared by every run and process on a machine.

A store is a folder `<data_dir>/decoded/<name>-<key>/` of three files: `images.u8`, row after row; `checksums.npy`, the
CRC-32 of each row; `store.json`, what it was made of. The key is a hash of the source files' names, sizes and times,
of the recipe and of `VERSION`, so that another source or another preprocessing is another store. It is built beside its
place and renamed into it, so what is there is whole.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imbalance.data.decode import Recipe, check, decode_into, start_worker
from imbalance.errors import BadInput

VERSION = 1  # of the format, and of what `imbalance.data.decode` makes of a recipe
CHUNK = 64  # images that a worker decodes at a time
SAMPLED = 64  # rows whose checksums are compared on every opening; `verify` compares all


@dataclass(frozen=True)
class Stored:
    """N images of a store, standing in for a tensor of `Split.inputs`: indexing it brings a batch to the device.

    images: (M, C, H, W) uint8, the read-only memory map.
    rows: (N,) int64, on the CPU.
    target, layout: where batches go, and in which memory format.
    """

    images: np.ndarray
    rows: Tensor
    target: torch.device
    layout: torch.memory_format
    dtype, device = torch.uint8, torch.device("cpu")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.images.shape[1:])

    def dim(self) -> int:
        return 4

    def __len__(self) -> int:
        return len(self.rows)

    def is_floating_point(self) -> bool:
        return False

    def to(self, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format) -> "Stored":
        """The same images, with batches that go to `device`. They stay uint8: `dtype` is only what a tensor takes."""
        return replace(self, target=device, layout=memory_format)

    def subset(self, index: Tensor) -> "Stored":
        """The images at `index` of these."""
        return replace(self, rows=self.rows[index])

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """(B, C, H, W) uint8 on the target device, gathered on the CPU, where `index` is, and moved in one piece."""
        rows = self.rows[index]
        shape = (len(rows), *self.images.shape[1:])
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.target.type == "cuda")
        np.take(self.images, rows.numpy(), axis=0, out=batch.numpy(), mode="clip")  # "raise" would copy once more
        return batch.to(self.target, non_blocking=True, memory_format=self.layout)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The same, by the name of what is fast for a tensor; `dim` is 0."""
        return self[index]


def open_store(
    data_dir: str, name: str, folder: Path, paths: Sequence[str], recipe: Recipe, where: Callable[[int], str]
) -> np.ndarray:
    """The images of `paths` as (N, C, H, W) uint8, memory-mapped; built first if there is no such store.

    Args:
        data_dir: the store's folder goes under its `decoded`.
        name: of the data set.
        folder, paths: the files, relative to `folder`.
        where: from a row of `paths` to its place in the metadata, for messages.

    Raises:
        BadInput: a file is missing or cannot be decoded, the disk is full, or the store is damaged.
    """
    sizes, problems = stamps(folder, paths)
    if problems:
        raise_first([f"{where(row)}: {paths[row]}: {reason}" for row, reason in problems])
    content = json.dumps([VERSION, recipe, list(zip(paths, sizes, strict=True))])
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    directory = Path(data_dir) / "decoded" / f"{name}-{recipe.shape[1]}-{key}"
    if not (directory / "store.json").exists():
        try:
            with locked(directory):
                if not (directory / "store.json").exists():  # it may have been built while this process waited
                    build(directory, folder, paths, recipe, where)
        except OSError as error:
            raise BadInput(f"config.data_dir: cannot write {directory}: {error.strerror or error}") from None
    problems = damage(directory, (len(paths), *recipe.shape), SAMPLED)
    if problems:
        raise BadInput(f"{problems[0]}; remove {directory} and the next run builds it anew")
    return np.memmap(directory / "images.u8", dtype=np.uint8, mode="r", shape=(len(paths), *recipe.shape))


def damage(directory: Path, shape: tuple[int, ...], sampled: int) -> list[str]:
    """What is wrong with a store: its files' sizes, its description, and `sampled` rows of it (0: all)."""
    images = directory / "images.u8"
    try:
        description = json.loads((directory / "store.json").read_text())
        table = (directory / "checksums.npy").read_bytes()
        size = images.stat().st_size
    except (OSError, ValueError) as error:
        return [f"{directory}: {error}"]
    expected = {"version": VERSION, "shape": list(shape), "checksums": zlib.crc32(table)}
    wrong = [key for key, value in expected.items() if description.get(key) != value]
    if wrong:
        return [f"{directory / 'store.json'}: {wrong[0]} is not that of its files"]
    if size != np.prod(shape, dtype=np.int64):
        return [f"{images}: {size:,} bytes, not {np.prod(shape, dtype=np.int64):,}"]
    checksums = np.load(directory / "checksums.npy", allow_pickle=False)
    rows = np.unique(np.linspace(0, shape[0] - 1, min(sampled or shape[0], shape[0])).astype(np.int64))
    pixels = np.memmap(images, dtype=np.uint8, mode="r", shape=shape)
    return [f"{images}: row {row} fails its checksum" for row in rows if zlib.crc32(pixels[row]) != checksums[row]]


def build(directory: Path, folder: Path, paths: Sequence[str], recipe: Recipe, where: Callable[[int], str]) -> None:
    """Decode `paths` into `directory`, which appears whole or not at all."""
    for leftover in directory.parent.glob(f"{directory.name}.*.building"):  # of a killed build: the lock is ours
        shutil.rmtree(leftover)
    row_bytes = int(np.prod(recipe.shape))
    total, free = row_bytes * len(paths), shutil.disk_usage(directory.parent).free
    sizes = f"{total / 1e6:,.1f} MB, and the disk of {directory.parent} had {free / 1e6:,.1f} MB free"
    full = f"config.data_dir: the decoded images take {sizes}"
    if total > free:
        raise BadInput(full)
    temporary = directory.with_name(f"{directory.name}.{os.getpid()}.building")
    temporary.mkdir()
    try:
        images = temporary / "images.u8"
        with open(images, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, total)  # a disk that fills up meanwhile fails here, not in an hour
            results = run_chunks(decode_into, folder, paths, recipe, f"decoding into {directory}", store=images)
            os.fsync(file.fileno())
        problems = [f"{where(row)}: {paths[row]}: {reason}" for _, wrong in results for row, reason in wrong]
        if problems:
            raise_first(problems)
        checksums = np.array([value for values, _ in results for value in values], dtype=np.uint32)
        np.save(temporary / "checksums.npy", checksums)
        description = {
            "version": VERSION,
            "source": str(folder.absolute()),
            "recipe": recipe._asdict(),
            "shape": [len(paths), *recipe.shape],
            "checksums": zlib.crc32((temporary / "checksums.npy").read_bytes()),
        }
        (temporary / "store.json").write_text(json.dumps(description, indent=2) + "\n")
        shutil.rmtree(directory, ignore_errors=True)  # a folder without a description is no store
        temporary.rename(directory)
    except OSError as error:
        raise BadInput(
            full if error.errno == errno.ENOSPC else f"config.data_dir: {temporary}: {error.strerror}"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def run_chunks(function: Callable, folder: Path, paths: Sequence[str], recipe: Recipe, title: str, **more) -> list:
    """`function` on chunks of `paths` on every core, with a line of progress; the results in the order of the paths."""
    starts = range(0, len(paths), CHUNK)
    workers = min(len(os.sched_getaffinity(0)), len(starts))
    calls = [dict(first=i, folder=folder, paths=paths[i : i + CHUNK], recipe=recipe, **more) for i in starts]
    if workers <= 1 or len(paths) <= 4 * CHUNK:  # not worth the start of processes
        return [function(**call) for call in calls]
    context = get_context("spawn")  # a fork of a process with threads, or with a GPU, may hang
    with ProcessPoolExecutor(workers, context, start_worker) as pool:
        futures = [pool.submit(function, **call) for call in calls]
        try:
            show_progress(title, futures, len(paths))
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise BadInput(
                f"{title}: a worker process died: out of memory, or a script that starts a run outside of "
                "`if __name__ == '__main__'`"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def show_progress(title: str, futures: list[Future], images: int) -> None:
    """A line on stderr that a terminal sees grow, and a log once."""
    started, bar = time.monotonic(), sys.stderr.isatty()
    print(f"{title}: {images:,} images", file=sys.stderr, flush=True)
    for done, future in enumerate(as_completed(futures), 1):
        future.result()
        if bar:
            seconds = time.monotonic() - started
            left = seconds / done * (len(futures) - done)
            line = f"{done * CHUNK / seconds:,.0f} images/s, {100 * done / len(futures):.0f} %, {left:.0f} s left"
            print(f"\r\x1b[K{line}", end="\r" if done == len(futures) else "", file=sys.stderr, flush=True)


def stamps(folder: Path, paths: Sequence[str]) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
    """(bytes, time of change in seconds) of each file, and the missing ones as (row, reason)."""
    found, missing = [], []
    for row, path in enumerate(paths):
        try:
            status = (folder / path).stat()
            found.append((status.st_size, int(status.st_mtime)))
        except OSError as error:
            missing.append((row, error.strerror.lower()))
    return found, missing


def image_problems(folder: Path, paths: Sequence[str], recipe: Recipe, where: Callable[[int], str]) -> list[str]:
    """One line for every image that is missing or cannot be decoded."""
    results = run_chunks(check, folder, paths, recipe, f"checking {folder}")
    return [f"{where(row)}: {paths[row]}: {reason}" for _, wrong in results for row, reason in wrong]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Alone in building `directory`; whoever comes second waits. The lock of a killed process is free at once."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_name(f"{directory.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that builds {directory}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def raise_first(problems: list[str]) -> None:
    """Raise `BadInput` with the first of `problems`, saying how many there are."""
    more = f" (and {len(problems) - 1:,} more: python -m imbalance.data verify lists them)" if problems[1:] else ""
    raise BadInput(problems[0] + more)
