"""Store decoded images: a memory-mapped file of uint8 pixels that all runs and processes on a machine share.

A store is a folder `<name>-<size>-<list>-<content>` in the folder that `imbalance.data.stores.store_root` returns. `<list>`
is a hash of the file names, the recipe and `VERSION`; `<content>` is a hash of `files.npy`. A store has six files:

- `images.u8`: the pixels of one image after another;
- `checksums.npy`: the CRC-32 of the pixels of each image;
- `files.npy`: the CRC-32 of each image file;
- `stamps.npy`: the stamp of each image file (size, mtime and ctime, in nanoseconds) when its CRC-32 was last checked;
- `checked.json`: the stamp of `images.u8` when all of its rows were last checked, see `imbalance.data.stores`;
- `store.json`: a description of the content.

Without `images.u8` and `checked.json`, and with `index.json` in place of `store.json`, the folder is an index of image
files that are decoded at each access. A store or an index is built in a temporary folder and then renamed, so that an
existing one is always complete.

An image file whose stamp equals the saved stamp counts as unchanged. Any other image file is read, and its CRC-32 is
compared with the saved CRC-32. The stamp has the ctime, because `rsync -t`, `cp -p` and `tar` can give a changed file its old
mtime, but not its old ctime. Copying a file or changing its permissions changes the ctime, too. Such a file is read once,
but not decoded again. The inode is not in the stamp, because it changes by itself on many network file systems.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbalance.data.images.decode import MAX_PIXELS, Recipe, decode_chunk, read_chunk
from imbalance.data.images.decode_pool import checksum_pairs, file_problems, run_chunks
from imbalance.data.images.image_files import ImageFiles
from imbalance.data.images.stored_images import StoredImages
from imbalance.data.problems import Problem, raise_first
from imbalance.data.stores import ELSEWHERE, StoreCheck, build_lock, damaged_rows, store_root, temporary_store
from imbalance.errors import BadInput, Damaged
from imbalance.utils.files import write_atomic
from imbalance.utils.read import check_regular, read_array, read_bytes, read_json, seal

# The names of the description in the folder of a store, and in that of an index, which has no pixels.
STORE, INDEX = "store.json", "index.json"
FILES_PER_CALL, THREADS = 1024, 16  # files that a thread asks for at a time, and threads
SECONDS_BETWEEN_LINES = 5.0  # of progress
VERSION = 2  # raise it if the format changes, or the pixels that `imbalance.data.images.decode` makes from a recipe


def open_store(
    data_dir: str, name: str, folder: Path, paths: Sequence[str], recipe: Recipe, where: Callable[[int], str]
) -> StoredImages:
    """Open the store of the images `paths`, and build it first if it does not exist.

    Args:
        data_dir: the folder of the data sets, from which `imbalance.data.stores.store_root` derives the folder of stores.
        name: the name of the data set.
        folder, paths: the image files; `paths` are relative to `folder`.
        recipe: the steps that decode an image.
        where: a function from a position in `paths` to the metadata file and line that list this image, for messages.

    Returns:
        The images; indexing them returns a batch on the CPU.

    Raises:
        BadInput: a file is missing, cannot be decoded or is listed twice; the disk is full; the store is damaged.
    """
    directory = find_or_build(data_dir, name, folder, paths, recipe, where, STORE)
    shape = (len(paths), *recipe.shape)
    raise_damage(damage(directory, shape, every_row=False), directory)
    images = np.memmap(directory / "images.u8", dtype=np.uint8, mode="r", shape=shape)
    checksums = read_array(directory / "checksums.npy")
    return StoredImages(images, checksums, torch.arange(len(paths)), torch.device("cpu"), paths)


def open_files(
    data_dir: str,
    name: str,
    folder: Path,
    paths: Sequence[str],
    recipe: Recipe,
    where: Callable[[int], str],
    *,
    least_area: float,
) -> ImageFiles:
    """Return the images `paths`, which are decoded at each access; the arguments and errors are those of `open_store`.

    The first call decodes every image once, as a check, and keeps its checksums in an index. Later calls only compare
    the stamps of the files.

    Args:
        least_area: the least area of the random crops; 0.0 without random crops.
    """
    directory = find_or_build(data_dir, name, folder, paths, recipe, where, INDEX)
    description = STORE if (directory / STORE).exists() else INDEX
    raise_damage(table_problems(directory, (len(paths), *recipe.shape), description), directory)
    checksums = read_array(directory / "checksums.npy")
    rows = torch.arange(len(paths))
    return ImageFiles(folder, paths, recipe, least_area, checksums, rows, torch.device("cpu"))


def raise_damage(problems: Sequence[Problem], directory: Path) -> None:
    """Raise `BadInput` with the first of the problems of a store or index, if there are problems."""
    if problems:
        raise BadInput(f"{problems[0]}; remove the folder {directory}, and the next run builds it again")


def find_or_build(
    data_dir: str,
    name: str,
    folder: Path,
    paths: Sequence[str],
    recipe: Recipe,
    where: Callable[[int], str],
    kind: str,
) -> Path:
    """Return the folder of the store or index with the present content of the image files; build it if there is none.

    Args:
        kind: `STORE` to find or build a store; `INDEX` to find a store or an index, or else build an index. The other
            arguments are those of `open_store`.
    """
    if np.prod(recipe.shape[1:], dtype=object) > MAX_PIXELS:
        side = recipe.shape[1]
        raise BadInput(f"config.data.size: {side} given; {side}×{side} pixels are more than the allowed {MAX_PIXELS:,}")
    stamps, problems = file_stamps(folder, paths, where)
    raise_first(problems)
    base = store_base(data_dir, name, paths, recipe)
    directory = store_with_stamps(base, stamps, kind)
    if directory:
        return directory
    try:
        with build_lock(base):
            # Another process may have built the store while this one waited for the lock.
            directory = store_with_stamps(base, stamps, kind) or unchanged_store(
                base, stamps, folder, paths, recipe, where, kind
            )
            return directory or build(base, stamps, folder, paths, recipe, where, kind)
    except OSError as error:
        raise BadInput(f"config.data_dir: cannot write {base}: {error.strerror or error}; {ELSEWHERE}") from None


def store_base(data_dir: str, name: str, paths: Sequence[str], recipe: Recipe) -> Path:
    """Return the path of the store of these image files and this recipe, without its end `-<content>`.

    `<content>` is a hash of the files' checksums. So if image files change but keep their names, there are several
    stores whose paths begin with this path.
    """
    return store_root(data_dir) / f"{name}-{recipe.shape[1]}-{json_hash([VERSION, recipe, list(paths)])}"


def stored_checksums(
    data_dir: str, name: str, paths: Sequence[str], recipe: Recipe, stamps: np.ndarray
) -> tuple[Path | None, np.ndarray]:
    """Return the folder of the store whose saved stamps equal `stamps`, and the (N,) CRC-32 of the pixels of its images.

    Return None and an empty array if there is no such store, or if the store is damaged.
    """
    directory = store_with_stamps(store_base(data_dir, name, paths, recipe), stamps, STORE)
    if not directory or damage(directory, (len(paths), *recipe.shape), every_row=False):
        return None, np.empty(0)
    return directory, read_array(directory / "checksums.npy")


def json_hash(content: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `content` as JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def existing_stores(base: Path, kind: str) -> list[Path]:
    """Return the folders of all complete stores or indexes whose paths begin with `base`, a result of `store_base`.

    Args:
        kind: `STORE` for stores only; `INDEX` for stores and indexes.
    """
    kinds = (STORE,) if kind == STORE else (STORE, INDEX)
    return sorted(path.parent for name in kinds for path in base.parent.glob(f"{glob.escape(base.name)}-*/{name}"))


def store_with_stamps(base: Path, stamps: np.ndarray, kind: str) -> Path | None:
    """Return the folder of a store whose saved stamps equal `stamps`, the present stamps of the files; None without one.

    A stamp has a file's size and times. Equal stamps show that the image files have not changed since the store was
    built.

    Args:
        kind: see `existing_stores`.
    """
    for directory in existing_stores(base, kind):
        if np.array_equal(array_or_nothing(directory / "stamps.npy"), stamps):
            return directory
    return None


def unchanged_store(
    base: Path,
    stamps: np.ndarray,
    folder: Path,
    paths: Sequence[str],
    recipe: Recipe,
    where: Callable[[int], str],
    kind: str,
) -> Path | None:
    """Return the folder of a store with the present content but older stamps of the image files; None without one.

    Only image files whose stamps have changed are read. The returned store gets the new stamps.

    Args:
        kind: see `existing_stores`.
    """
    candidates: dict[Path, tuple[np.ndarray, np.ndarray]] = {}  # CRC-32 of files, rows whose stamps have changed
    for directory in existing_stores(base, kind):
        before, checksums = array_or_nothing(directory / "stamps.npy"), array_or_nothing(directory / "files.npy")
        if checksums.shape == (len(paths),):
            same = (before == stamps).all(1) if before.shape == stamps.shape else np.zeros(len(paths), dtype=bool)
            candidates[directory] = checksums, np.flatnonzero(~same)
    if not candidates:
        return None
    checksums, rows = min(candidates.values(), key=lambda candidate: len(candidate[1]))
    title = f"comparing changed files with {base}"
    changed: list[str] = [paths[int(row)] for row in rows]
    results = run_chunks(read_chunk, folder, changed, recipe, title)
    raise_first(file_problems(results, lambda i: where(int(rows[i])), changed))
    checksums = checksums.copy()
    checksums[rows] = [file for pairs, _ in results for file, _ in pairs]
    for directory, (stored, _) in candidates.items():
        if (stored == checksums).all():
            with suppress(OSError):  # if the store is read-only, the files are compared again next time
                write_array(directory / "stamps.npy", stamps)
            return directory
    return None


def array_or_nothing(path: Path) -> np.ndarray:
    """Return the array of an .npy file; if it cannot be read, an empty array, which equals no array of a store."""
    try:
        return read_array(path)
    except (Damaged, OSError):
        return np.empty(0)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write `array` to an .npy file, completely or not at all."""
    content = io.BytesIO()
    np.save(content, array)
    write_atomic(path, content.getbuffer())


def damage(directory: Path, shape: tuple[int, ...], every_row: bool) -> list[Problem]:
    """Return the problems of a store: wrong file sizes, a wrong description, and images with a wrong checksum.

    Args:
        directory: the folder of the store.
        shape: the shape (N, C, H, W) that the store must have.
        every_row: check every row, even if the file is unchanged since it was last checked; see `StoreCheck`.
    """
    images = directory / "images.u8"
    try:
        check = StoreCheck(directory, [images.name])
        size = images.stat().st_size
    except OSError as error:
        return [Problem(str(error.filename or directory), error.strerror or str(error))]
    if problems := table_problems(directory, shape, STORE):
        return problems
    if size != np.prod(shape, dtype=np.int64):
        return [Problem(str(images), f"{size:,} bytes, but the store needs {np.prod(shape, dtype=np.int64):,}")]
    pixels, sample = np.memmap(images, dtype=np.uint8, mode="r", shape=shape), check.is_recent and not every_row
    wrong_rows = damaged_rows(pixels, read_array(directory / "checksums.npy"), sample)
    if not (sample or wrong_rows):
        check.remember()
    return [Problem(f"{images} row {row}", "fails its checksum") for row in wrong_rows]


def table_problems(directory: Path, shape: tuple[int, ...], kind: str) -> list[Problem]:
    """Return the problems of the description of a store or index, and of the two files whose checksums it has.

    Args:
        directory: the folder of the store or index.
        shape: the shape (N, C, H, W) that its images must have.
        kind: `STORE` or `INDEX`, the name of the file that describes the others.
    """
    try:
        description = read_json(directory / kind)
        tables = {name: read_bytes(directory / f"{name}.npy") for name in ("checksums", "files")}
    except Damaged as error:
        return [Problem(str(error.args[0]), f"damaged ({error.reason})")]
    except OSError as error:
        return [Problem(str(error.filename or directory), error.strerror or str(error))]
    expected = {"version": VERSION, "shape": list(shape)} | {name: zlib.crc32(table) for name, table in tables.items()}
    wrong = [key for key, value in expected.items() if description.get(key) != value]
    return [Problem(str(directory / kind), f"{wrong[0]} does not match the files of the store")] if wrong else []


def build(
    base: Path,
    stamps: np.ndarray,
    folder: Path,
    paths: Sequence[str],
    recipe: Recipe,
    where: Callable[[int], str],
    kind: str,
) -> Path:
    """Decode the image files `paths` into a new store or index, and return its folder; an interrupted call leaves no folder.

    The caller must hold the build lock.

    Args:
        kind: `STORE` to build a store; `INDEX` to build an index, which has no pixels.
    """
    with temporary_store(base) as temporary:
        total = int(np.prod(recipe.shape)) * len(paths) if kind == STORE else 0
        free = shutil.disk_usage(base.parent).free
        sizes = f"{total / 1e6:,.1f} MB, but the disk of {base.parent} had {free / 1e6:,.1f} MB free"
        full = f"config.data_dir: the decoded images need {sizes}; {ELSEWHERE}"
        if total > free:
            raise BadInput(full)
        try:
            if kind == STORE:
                images = temporary / "images.u8"
                with open(images, "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, total)  # a disk that is too small fails now, not after an hour
                    results = run_chunks(decode_chunk, folder, paths, recipe, f"decoding into {base}", store=images)
                    os.fsync(file.fileno())
            else:
                results = run_chunks(decode_chunk, folder, paths, recipe, f"checking each image of {folder} once")
            raise_first(file_problems(results, where, paths))
            pairs = checksum_pairs(results)
            np.save(temporary / "files.npy", pairs[:, 0])
            np.save(temporary / "checksums.npy", pairs[:, 1])
            # The stamps were taken before decoding, so the next run reads a file again that changed during decoding.
            np.save(temporary / "stamps.npy", stamps)
            description = {
                "version": VERSION,
                "source": str(folder.absolute()),
                "recipe": recipe._asdict(),
                "shape": [len(paths), *recipe.shape],
            } | {name: zlib.crc32(read_bytes(temporary / f"{name}.npy")) for name in ("checksums", "files")}
            write_atomic(temporary / kind, json.dumps(seal(description), indent=2).encode() + b"\n")
            if kind == STORE:
                StoreCheck(temporary, ["images.u8"]).remember()
            directory = base.with_name(f"{base.name}-{json_hash(pairs[:, 0].tolist())}")
            shutil.rmtree(directory, ignore_errors=True)  # this folder is an index, or has no valid description
            temporary.rename(directory)
            return directory
        except OSError as error:
            raise BadInput(
                full
                if error.errno == errno.ENOSPC
                else f"config.data_dir: cannot write {temporary}: {error.strerror}; {ELSEWHERE}"
            ) from None


def file_stamps(folder: Path, paths: Sequence[str], where: Callable[[int], str]) -> tuple[np.ndarray, list[Problem]]:
    """Return the (N, 3) size, mtime and ctime of each file, and a problem for each file that cannot be used.

    Such a file is missing, is listed twice, or is a pipe, a device or the like. The times are in nanoseconds. A file that
    is missing or is a pipe or device has zeros.
    """
    stamps, problems = [(0, 0, 0)] * len(paths), []
    first_row: dict[tuple[int, int], int] = {}
    for row, (path, status) in enumerate(zip(paths, file_statuses(folder, paths))):
        problem = None
        try:
            if isinstance(status, Exception):
                raise status
            if not stat.S_ISREG(status.st_mode):
                check_regular(folder / path)
            stamps[row] = status.st_size, status.st_mtime_ns, status.st_ctime_ns
            # Two paths may lead to one file. Hard links are not refused here; `imbalance data verify` reports them as copies.
            first = first_row.setdefault((status.st_dev, status.st_ino), row) if status.st_nlink == 1 else row
            if first != row:
                problem = f"the same file as {paths[first]} ({where(first)}); list each file once"
        except FileNotFoundError:
            problem = f"no such file{other_spelling(folder / path)}"
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or f"{error} in the name"
        if problem:
            problems.append(Problem(f"{where(row)}: {path if path.isprintable() else repr(path)}", problem))
    return np.array(stamps, dtype=np.int64).reshape(-1, 3), problems


def file_statuses(folder: Path, paths: Sequence[str]) -> Iterator[os.stat_result | OSError | ValueError]:
    """Yield the result of `os.stat` for each file, or its error; print the progress if that takes long.

    Several threads call `os.stat`, because a file system on the network answers many questions at once.
    """

    def status(path: str) -> os.stat_result | OSError | ValueError:
        try:
            return os.stat(f"{folder}/{path}" if path[:1] != "/" else path)  # noqa: PTH116 (a Path takes three times as long)
        except (OSError, ValueError) as error:  # ValueError: the name has a NUL
            return error

    def statuses(start: int) -> list[os.stat_result | OSError | ValueError]:
        return [status(path) for path in paths[start : start + FILES_PER_CALL]]

    starts, began = range(0, len(paths), FILES_PER_CALL), time.monotonic()
    shown = began
    with ThreadPoolExecutor(THREADS) as threads:
        for start, chunk in zip(starts, threads.map(statuses, starts) if len(starts) > 1 else map(statuses, starts)):
            now = time.monotonic()
            if now - shown > SECONDS_BETWEEN_LINES and start:
                shown, left = now, (now - began) / start * (len(paths) - start)
                line = f"{folder}: looked at {start:,} of {len(paths):,} files, {left:.0f} s left"
                print(line, file=sys.stderr, flush=True)
            yield from chunk


def other_spelling(path: Path) -> str:
    """Return the end of the message about the missing file `path`.

    If there is a file whose name looks the same but has another Unicode form, the end says so; otherwise it is "".
    """
    for form in ("NFC", "NFD"):
        if Path(unicodedata.normalize(form, str(path))).exists():
            return (
                f", but one whose accents are written in another way ({form} of Unicode); write the name in that form"
            )
    return ""
