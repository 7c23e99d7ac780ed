"""Images decoded once: a file of uint8 pixels, memory-mapped and shared by every run and process on a machine.

A store is a folder `<data_dir>/decoded/<name>-<size>-<list>-<content>/`, or one of that name in the folder that the
environment variable IMBALANCE_STORE names, for data that cannot be written beside. It holds `images.u8`, row after row;
`checksums.npy`, the CRC-32 of each row; `files.npy`, that of each source file; `stamps.npy`, each file's size, mtime and
ctime in nanoseconds when it was last compared; `store.json`, what it was made of. `<list>` is a hash of the files'
names, the recipe and `VERSION`, `<content>` one of `files.npy`. It is built beside its place and renamed into it, so
what is there is whole.

A file whose stamps are those of the store is taken to be the one that was decoded; any other is read, and compared. The
ctime shows a change: `rsync -t`, `cp -p` and `tar` can set a file's mtime, nobody can set its ctime. It is also new after
a copy of the whole folder, or a change of permissions, which costs one reading of the files, not their decoding. The
inode says no more on a file system that keeps the ctime, and on many that are mounted over a network it changes by
itself.
"""

import errno
import glob
import hashlib
import io
import json
import os
import shutil
import stat
import sys
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbalance.data.images.decode import MAX_PIXELS, Recipe, decode_chunk, read_chunk, start_worker
from imbalance.data.images.stored import Stored
from imbalance.data.problems import Problem, raise_first
from imbalance.errors import BadInput
from imbalance.utils.files import check_regular, write_atomic

VERSION = 2  # of the format, and of what `imbalance.data.images.decode` makes of a recipe
CHUNK = 64  # images that a worker decodes at a time
SAMPLED = 64  # rows whose checksums are compared on every opening; `verify` compares all
ELSEWHERE = "IMBALANCE_STORE=<folder> in the environment puts the decoded images there"


def open_store(
    data_dir: str, name: str, folder: Path, paths: Sequence[str], recipe: Recipe, where: Callable[[int], str]
) -> Stored:
    """The images of `paths`, on the CPU; decoded first if there is no store of them.

    Args:
        data_dir: see `root`.
        name: of the data set.
        folder, paths: the files, relative to `folder`.
        where: from a row of `paths` to its place in the metadata, for messages.

    Raises:
        BadInput: a file is missing or cannot be decoded, or is there under two names; the disk is full; the store is
            damaged.
    """
    if np.prod(recipe.shape[1:], dtype=object) > MAX_PIXELS:
        raise BadInput(f"config.data.size: {recipe.shape[1]} given; images have at most {MAX_PIXELS:,} pixels")
    stamps, problems = stamps_of(folder, paths, where)
    raise_first(problems)
    base = base_of(data_dir, name, paths, recipe)
    directory = current(base, stamps)
    if not directory:
        try:
            with locked(base):
                # It may have been built while this process waited.
                directory = current(base, stamps) or find_or_build(base, stamps, folder, paths, recipe, where)
        except OSError as error:
            raise BadInput(f"config.data_dir: cannot write {base}: {error.strerror or error}; {ELSEWHERE}") from None
    shape = (len(paths), *recipe.shape)
    problems = damage(directory, shape, SAMPLED)
    if problems:
        raise BadInput(f"{problems[0]}; remove {directory} and the next run builds it anew")
    images = np.memmap(directory / "images.u8", dtype=np.uint8, mode="r", shape=shape)
    checksums = np.load(directory / "checksums.npy", allow_pickle=False)
    return Stored(images, checksums, torch.arange(len(paths)), torch.device("cpu"))


def root(data_dir: str) -> Path:
    """The folder of the stores: what IMBALANCE_STORE in the environment names, else `<data_dir>/decoded`."""
    return Path(os.environ.get("IMBALANCE_STORE") or Path(data_dir) / "decoded")


def base_of(data_dir: str, name: str, paths: Sequence[str], recipe: Recipe) -> Path:
    """What the folders of the stores of this list and recipe begin with."""
    return root(data_dir) / f"{name}-{recipe.shape[1]}-{hash_of([VERSION, recipe, list(paths)])}"


def stored_checksums(
    data_dir: str, name: str, paths: Sequence[str], recipe: Recipe, stamps: np.ndarray
) -> tuple[Path | None, np.ndarray]:
    """The store that a run would take without reading the files, and the (N,) checksums of its rows; None if none."""
    directory = current(base_of(data_dir, name, paths, recipe), stamps)
    if not directory or damage(directory, (len(paths), *recipe.shape), 1):
        return None, np.empty(0)
    return directory, read_array(directory / "checksums.npy")


def hash_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def stores(base: Path) -> list[Path]:
    """The whole stores of the same list and recipe, each of other contents."""
    return sorted(description.parent for description in base.parent.glob(f"{glob.escape(base.name)}-*/store.json"))


def current(base: Path, stamps: np.ndarray) -> Path | None:
    """The store whose source files have not been touched since they were compared with it."""
    for directory in stores(base):
        if np.array_equal(read_array(directory / "stamps.npy"), stamps):
            return directory
    return None


def find_or_build(
    base: Path,
    stamps: np.ndarray,
    folder: Path,
    paths: Sequence[str],
    recipe: Recipe,
    where: Callable[[int], str],
) -> Path:
    """The store of the files' contents, which are read where their stamps are new; built if there is none."""
    changed = {}
    for directory in stores(base):
        before, files = read_array(directory / "stamps.npy"), read_array(directory / "files.npy")
        if files.shape == (len(paths),):
            same = (before == stamps).all(1) if before.shape == stamps.shape else np.zeros(len(paths), dtype=bool)
            changed[directory] = files, np.flatnonzero(~same)
    if changed:
        files, rows = min(changed.values(), key=lambda found: len(found[1]))
        title = f"comparing changed files with {base}"
        results = run_chunks(read_chunk, folder, [paths[row] for row in rows], recipe, title)
        raise_first(problems_of(results, lambda i: where(rows[i]), [paths[row] for row in rows]))
        files = files.copy()
        files[rows] = [file for found, _ in results for file, _ in found]
        for directory, (known, _) in changed.items():
            if (known == files).all():
                with suppress(OSError):  # a read-only store: the files are compared again next time
                    write_array(directory / "stamps.npy", stamps)
                return directory
    return build(base, stamps, folder, paths, recipe, where)


def read_array(path: Path) -> np.ndarray:
    """What an .npy file holds; nothing where it cannot be read, so that what needs it is done anew."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return np.empty(0)


def write_array(path: Path, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array)
    write_atomic(path, content.getbuffer())


def damage(directory: Path, shape: tuple[int, ...], sampled: int) -> list[Problem]:
    """What is wrong with a store: its files' sizes, its description, and `sampled` rows of it (0: all)."""
    images = directory / "images.u8"
    try:
        description = json.loads((directory / "store.json").read_text())
        tables = {name: (directory / f"{name}.npy").read_bytes() for name in ("checksums", "files")}
        size = images.stat().st_size
    except (OSError, ValueError) as error:
        return [Problem(str(directory), str(error))]
    expected = {"version": VERSION, "shape": list(shape)} | {name: zlib.crc32(table) for name, table in tables.items()}
    wrong = [key for key, value in expected.items() if description.get(key) != value]
    if wrong:
        return [Problem(str(directory / "store.json"), f"{wrong[0]} is not that of its files")]
    if size != np.prod(shape, dtype=np.int64):
        return [Problem(str(images), f"{size:,} bytes, not {np.prod(shape, dtype=np.int64):,}")]
    checksums = np.load(directory / "checksums.npy", allow_pickle=False)
    rows = np.unique(np.linspace(0, shape[0] - 1, min(sampled or shape[0], shape[0])).astype(np.int64))
    pixels = np.memmap(images, dtype=np.uint8, mode="r", shape=shape)
    wrong_rows = [row for row in rows if zlib.crc32(pixels[row]) != checksums[row]]
    return [Problem(f"{images} row {row}", "fails its checksum") for row in wrong_rows]


def build(
    base: Path,
    stamps: np.ndarray,
    folder: Path,
    paths: Sequence[str],
    recipe: Recipe,
    where: Callable[[int], str],
) -> Path:
    """Decode `paths` into a store, which appears whole or not at all; returns its folder."""
    for leftover in base.parent.glob(f"{glob.escape(base.name)}.*.building"):  # of a killed build: the lock is ours
        shutil.rmtree(leftover)
    row_bytes = int(np.prod(recipe.shape))
    total, free = row_bytes * len(paths), shutil.disk_usage(base.parent).free
    sizes = f"{total / 1e6:,.1f} MB, and the disk of {base.parent} had {free / 1e6:,.1f} MB free"
    full = f"config.data_dir: the decoded images take {sizes}; {ELSEWHERE}"
    if total > free:
        raise BadInput(full)
    temporary = base.with_name(f"{base.name}.{os.getpid()}.building")
    temporary.mkdir()
    try:
        images = temporary / "images.u8"
        with open(images, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, total)  # a disk that fills up meanwhile fails here, not in an hour
            results = run_chunks(decode_chunk, folder, paths, recipe, f"decoding into {base}", store=images)
            os.fsync(file.fileno())
        raise_first(problems_of(results, where, paths))
        pairs = np.array([pair for found, _ in results for pair in found], dtype=np.uint32).reshape(-1, 2)
        np.save(temporary / "files.npy", pairs[:, 0])
        np.save(temporary / "checksums.npy", pairs[:, 1])
        np.save(temporary / "stamps.npy", stamps)  # of before the decoding: a file that changes meanwhile is read again
        description = {
            "version": VERSION,
            "source": str(folder.absolute()),
            "recipe": recipe._asdict(),
            "shape": [len(paths), *recipe.shape],
        } | {name: zlib.crc32((temporary / f"{name}.npy").read_bytes()) for name in ("checksums", "files")}
        (temporary / "store.json").write_text(json.dumps(description, indent=2) + "\n")
        directory = base.with_name(f"{base.name}-{hash_of(pairs[:, 0].tolist())}")
        shutil.rmtree(directory, ignore_errors=True)  # a folder without a description is no store
        temporary.rename(directory)
        return directory
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


def stamps_of(folder: Path, paths: Sequence[str], where: Callable[[int], str]) -> tuple[np.ndarray, list[Problem]]:
    """(N, 3) each file's size, mtime and ctime in nanoseconds, and what is missing, no file, or there twice."""
    found, problems = [(0, 0, 0)] * len(paths), []
    first_of: dict[tuple[int, int], int] = {}
    for row, path in enumerate(paths):
        problem = None
        try:
            status = os.stat(f"{folder}/{path}" if path[:1] != "/" else path)  # noqa: PTH116 (a Path takes three times as long)
            if not stat.S_ISREG(status.st_mode):
                check_regular(folder / path)
            found[row] = status.st_size, status.st_mtime_ns, status.st_ctime_ns
            # One entry of one folder, by whatever way it is reached. Hard links are copies, which `verify` reports.
            first = first_of.setdefault((status.st_dev, status.st_ino), row) if status.st_nlink == 1 else row
            if first != row:
                problem = f"the same file as {paths[first]} ({where(first)})"
        except FileNotFoundError:
            problem = f"no such file{other_spelling(folder / path)}"
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or f"{error} in the name"
        if problem:
            problems.append(Problem(f"{where(row)}: {path if path.isprintable() else repr(path)}", problem))
    return np.array(found, dtype=np.int64).reshape(-1, 3), problems


def other_spelling(path: Path) -> str:
    """For a name that is there with its accents composed in another way, which looks the same: a word on that."""
    for form in ("NFC", "NFD"):
        if Path(unicodedata.normalize(form, str(path))).exists():
            return f", but one whose accents are written in another way ({form} of Unicode)"
    return ""


def problems_of(results: list, where: Callable[[int], str], paths: Sequence[str]) -> list[Problem]:
    """What `run_chunks` found to be wrong with files."""
    return [Problem(f"{where(row)}: {paths[row]}", reason) for _, wrong in results for row, reason in wrong]


def image_problems(
    folder: Path, paths: Sequence[str], recipe: Recipe, where: Callable[[int], str]
) -> tuple[np.ndarray, list[Problem]]:
    """(N,) the CRC-32 of each image's pixels, 0 where there is none, and what is wrong, opening every one."""
    results = run_chunks(decode_chunk, folder, paths, recipe, f"checking {folder}")
    pairs = np.array([pair for found, _ in results for pair in found], dtype=np.uint32).reshape(-1, 2)
    return pairs[:, 1], problems_of(results, where, paths)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Alone in building `directory`; whoever comes second waits. The lock of a killed process is free at once."""
    from filelock import FileLock, Timeout

    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory.with_name(f"{directory.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process that builds {directory}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
