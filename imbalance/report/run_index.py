"""Remember what was read of many runs in an index, so that only runs whose files have changed are read again.

The index is the file `.index.sqlite` in the folder of the run directories. A value that was read of a run is taken from it only
if the size, the times of change and the inode of every file that the value depends on are as they were. The operating system
sets the time of the last change of an inode (ctime), so an index that came with copied runs fits none of them. A file that
changed less than two seconds before it was read is not remembered, since a later change could leave the same times.

The index can be removed at any time, and nothing is lost. It is written in one transaction, so several processes can use
it. If it is damaged, is in use, or was made by other code, or the disk is read-only, the runs themselves are read.
"""

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from imbalance.utils.package import __version__
from imbalance.utils.read import check_regular, short_hash

NAME = ".index.sqlite"
FEWEST = (
    100  # changed runs for which the index is written; fewer are read again each time, which takes a second at most
)
INNER_FOLDERS = ("checkpoints", "evaluations", "first", "predictions")  # folders of a run directory without runs
SETTLED = 2_000_000_000  # nanoseconds
SCHEMA = (
    "CREATE TABLE keys (digest TEXT PRIMARY KEY, keys TEXT)",
    "CREATE TABLE parts (part TEXT, run TEXT, stamp TEXT, keys TEXT, content TEXT, digest TEXT, PRIMARY KEY (part, run))",
)
SOURCES = ("config", "metrics", "report", "utils")  # folders of the package whose code decides what is read of a run
Value = dict[str, Any]


class Part(NamedTuple):
    """A value that is read of a run directory.

    name: name of the value in the index, `<kind>` or `<kind>/<variant>`; the index has one variant of a kind.
    files: names of the files of the run that the value depends on.
    read: function of a run directory that returns the value, a dictionary for JSON; None if there is none.
    is_sound: function of the value that returns False if a file could not be read, which may be different the next time.
    """

    name: str
    files: tuple[str, ...]
    read: Callable[[Path], Value | None]
    is_sound: Callable[[Value], bool]


def read_each(folder: Path, runs: Sequence[str], part: Part) -> list[Value | None]:
    """Return the value `part` of each run directory: from the index if no file has changed, otherwise from the files.

    Args:
        folder: folder of the run directories, which has the index.
        runs: paths of the run directories under `folder`.
    """
    known, values, new = dict(_stored(folder / NAME, part.name)), [], {}
    shared_keys: dict[tuple[str, ...], tuple[str, ...]] = {}
    for run in runs:
        now, (stamp, changed) = time.time_ns(), file_stamp(folder / run, part.files)
        old_stamp, value = known.get(run, ("", None))
        if value is None or old_stamp != stamp:
            value = part.read(folder / run)
            if value is not None:
                keys = shared_keys.setdefault(tuple(value), tuple(value))
                value = dict(zip(keys, value.values()))  # the same key objects in all values, to save memory
                if part.is_sound(value) and changed + SETTLED < now:
                    new[run] = stamp, value
        values.append(value)
    if len(new) >= FEWEST:
        with suppress(sqlite3.Error, OSError):
            _store(folder / NAME, part.name, new, set(known) - set(runs))
    return values


def file_stamp(directory: Path | str, names: Iterable[str]) -> tuple[str, int]:
    """Return a text that differs after any change of a file, and the time of the last change in nanoseconds.

    Args:
        names: names of files in `directory`; they may be missing.
    """
    marks, newest = [], 0
    for name in names:
        try:
            status = os.stat(f"{directory}/{name}")  # noqa: PTH116 (a Path takes three times as long)
        except OSError as error:
            marks.append(f"error {error.errno}")
            continue
        marks.append(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}")
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
    return ", ".join(marks), newest


def _stored(path: Path, part: str) -> Iterator[tuple[str, tuple[str, Value]]]:
    """Yield each run with a stored value of `part`, the stamp of its files, and the value; end early at any damage."""
    with suppress(sqlite3.Error, OSError, ValueError, TypeError, RecursionError):
        check_regular(path)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as index:
            if not _is_own(index):
                return
            keys = {
                d: tuple(json.loads(text))
                for d, text in index.execute("SELECT * FROM keys")
                if short_hash(text.encode()) == d
            }
            rows = index.execute("SELECT run, stamp, keys, content, digest FROM parts WHERE part = ?", (part,))
            for run, stamp, keys_digest, content, digest in rows:
                if digest == _digest(part, run, stamp, keys_digest, content) and keys_digest in keys:
                    yield run, (stamp, dict(zip(keys[keys_digest], json.loads(content), strict=True)))


def _is_own(index: sqlite3.Connection) -> bool:
    """Return whether this version of the code has made the index; its tables must not be views, which could never end."""
    schema = index.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    return schema == [(sql,) for sql in SCHEMA] and index.execute("PRAGMA user_version").fetchone() == (code_version(),)


def _store(path: Path, part: str, values: dict[str, tuple[str, Value]], removed: Iterable[str]) -> None:
    """Write values to the index; make the index anew if it is damaged or another version of the code has made it.

    Args:
        values: stamp of the files and the value, by run.
        removed: runs whose stored values are removed.
    """
    with suppress(FileNotFoundError):
        check_regular(path)
    try:
        _write(path, part, values, removed)
    except sqlite3.OperationalError:  # in use, or not writable
        raise
    except sqlite3.DatabaseError:
        path.unlink()
        _write(path, part, values, removed)


def _write(path: Path, part: str, values: dict[str, tuple[str, Value]], removed: Iterable[str]) -> None:
    with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as index:
        index.execute("PRAGMA synchronous = OFF")  # a power loss may damage the index, which is noticed
        index.execute("BEGIN IMMEDIATE")
        if not index.execute("SELECT 1 FROM sqlite_master").fetchone():
            for sql in SCHEMA:
                index.execute(sql)
            index.execute(f"PRAGMA user_version = {code_version()}")
        if not _is_own(index):
            raise sqlite3.DatabaseError("made by other code")
        index.executemany("DELETE FROM parts WHERE part = ? AND run = ?", [(part, run) for run in removed])
        kind = part.partition("/")[0]
        index.execute("DELETE FROM parts WHERE part LIKE ? AND part != ?", (f"{kind}/%", part))
        for run, (stamp, value) in values.items():
            keys, content = json.dumps(list(value)), json.dumps(list(value.values()), separators=(",", ":"))
            digest = short_hash(keys.encode())
            index.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (digest, keys))
            record = part, run, stamp, digest, content
            index.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", (*record, _digest(*record)))
        index.execute("COMMIT")


def _digest(*texts: str) -> str:
    return short_hash("\0".join(texts).encode())


def runs_stamp(folder: Path, names: Sequence[str]) -> tuple[str, int]:
    """Return a digest that changes with any file of a run under `folder`, and the time of the last change in nanoseconds.

    Args:
        names: names of files of a run directory.
    """
    sha256, newest = hashlib.sha256(), 0
    for run in run_directories(folder):
        stamp, changed = file_stamp(folder / run, names)
        sha256.update(f"{run}\0{stamp}\n".encode(errors="surrogateescape"))
        newest = max(newest, changed)
    return sha256.hexdigest()[:16], newest


def run_directories(work_dir: Path) -> list[str]:
    """Return the paths of the run directories under `work_dir`, relative to it and sorted.

    The runs of first stages (folders `first`), and the folders of wandb inside runs, are left out.
    """
    directories = []
    for folder, folders, files in os.walk(work_dir):
        is_run = "config.json" in files or "config.json" in folders  # a folder of this name is reported as damaged
        if is_run and not folder.endswith(f"{os.sep}first"):
            directories.append(os.path.relpath(folder, work_dir))
        folders[:] = [name for name in folders if name != "wandb" and not (is_run and name in INNER_FOLDERS)]
    return sorted(directories, key=lambda directory: Path(directory).parts)


@cache
def code_version() -> int:
    """Return a number that identifies the code that reads and shows runs; what other code has read is out of date."""
    root, number = Path(__file__).parent.parent, zlib.crc32(__version__.encode())
    for path in sorted(path for name in SOURCES for path in (root / name).rglob("*.*") if path.suffix != ".pyc"):
        number = zlib.crc32(path.read_bytes(), number)
    return number >> 1  # SQLite has 31 bits for it
