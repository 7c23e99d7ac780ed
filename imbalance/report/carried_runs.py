"""Carry the results of runs from one machine to another, in compressed files that are small enough for slow transfers.

`imbalance keep --to=<folder>` writes the files runs-<i>-of-<n>.tar.gz, and `imbalance keep --from=<folder>` reads them.
The files hold the config, summary, metrics, log and predictions of every run, and the output of `imbalance pack`. They hold
no model of a finished run. An unfinished run is carried whole, so that another machine can resume it, if it fits into one file.
"""

import gzip
import io
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from imbalance.data.download import unpack_tar
from imbalance.errors import BadInput, Damaged
from imbalance.report.run_index import run_directories
from imbalance.utils.files import write_atomic
from imbalance.utils.read import check_regular, parse_json, read_bytes, read_json

FILES = ("config.json", "summary.json", "metrics.jsonl", "log.txt", "predictions/*.npz", "first/*.json")
LIMIT = 16 << 20  # most bytes of a file
FINISHED = ("done", "diverged")
QUEUE = "pack"  # folder under work_dir with the output of `imbalance pack`
NAME = "runs-{}-of-{}.tar.gz"


def write_runs(work_dir: Path, folder: Path, limit: int = LIMIT) -> list[Path]:
    """Write all runs under `work_dir` to files in `folder`, and return the files; files of an earlier call are replaced.

    Files with a run that `work_dir` lacks may be the only copy of this run, so they are never replaced.

    A file has at most `limit` bytes, unless a single run takes more.

    Raises:
        BadInput: there are no runs, the files cannot be written, or earlier files have a run that `work_dir` lacks.
    """
    runs = run_directories(work_dir)
    units = [_files(work_dir / run, limit) for run in runs]
    units += [[path] for path in sorted((work_dir / QUEUE).glob("*")) if path.is_file()]
    if not units:
        raise BadInput(f"--work_dir={work_dir} has no runs; type a folder of run directories, as --work_dir=runs")
    parts = _parts(work_dir, units, limit)
    old = set(folder.glob(NAME.format("*", "*")))
    for path in sorted(old):
        check_replaceable(path, work_dir)
    paths = [folder / NAME.format(i + 1, len(parts)) for i in range(len(parts))]
    try:
        for path, content in zip(paths, parts):
            write_atomic(path, content)
        for path in old - set(paths):
            path.unlink()
    except OSError as error:
        raise BadInput(f"--to={folder}: {error.strerror or error}; name a folder that can be written") from None
    return paths


def _files(directory: Path, limit: int) -> list[Path]:
    """Return the files of a run to carry: of an unfinished run all that it needs to resume, if they have `limit` bytes at most."""
    files = [path for name in FILES for path in sorted(directory.glob(name))]
    if _finished(directory):
        return files
    needed = [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.match(".*")]
    needed = [path for path in needed if not path.match("*.previous.*")]  # the checkpoint before the last one
    return needed if sum(path.stat().st_size for path in needed) <= limit else files


def check_replaceable(old: Path, work_dir: Path) -> None:
    """Raise `BadInput` if `old`, a file of `write_runs`, has a run or an output that `work_dir` lacks or has with another result.

    A damaged file can be replaced. So can a file with an unfinished run, because the run may have gone on since.
    """
    with suppress(OSError, tarfile.TarError, zlib.error, EOFError, Damaged), tarfile.open(old) as tar:
        for member in tar:
            path = Path(member.name)
            if path.name != "summary.json" and path.parent.name != QUEUE:
                continue
            saved, current = tar.extractfile(member), work_dir / path
            content = saved.read() if saved else b""
            same = current.is_file() and read_bytes(current) == content
            may_change = path.name != "summary.json" or parse_json(content, path).get("status") not in FINISHED
            if not same and not (current.is_file() and may_change):
                name = path.parent if path.name == "summary.json" else path
                lacks = "has with another result" if current.is_file() else "lacks"
                raise BadInput(
                    f"--to={old.parent}: {old.name} has {name}, which --work_dir={work_dir} {lacks}; name another folder, or "
                    "remove this file if its runs are not needed"
                )


def _parts(work_dir: Path, units: Sequence[Sequence[Path]], limit: int) -> list[bytes]:
    """Return the bytes of compressed archives, each of at most `limit` bytes, that together hold all files.

    Args:
        work_dir: folder of the run directories, to which the paths in the archives are relative.
        units: lists of files; the files of a list stay in one archive.
    """
    content = _archive(work_dir, units)
    if len(content) <= limit or len(units) == 1:
        return [content]
    half = len(units) // 2
    return [*_parts(work_dir, units[:half], limit), *_parts(work_dir, units[half:], limit)]


def _archive(work_dir: Path, units: Sequence[Sequence[Path]]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for path in (path for paths in units for path in paths):
            tar.add(path, str(path.relative_to(work_dir)), recursive=False)
    return content.getvalue()


def read_runs(source: Path, work_dir: Path) -> int:
    """Put the runs in files of `write_runs` under `work_dir`, and return the number of run directories that were written.

    A run that is finished under `work_dir` stays as it is. A run that is unfinished under `work_dir` is replaced only if
    it is finished in the files.

    Args:
        source: a file that `write_runs` wrote, or a folder with such files.

    Raises:
        BadInput: there is no such file, or a file is damaged.
    """
    files = sorted(source.glob(NAME.format("*", "*"))) if source.is_dir() else [source]
    if not files or not all(file.exists() for file in files):
        raise BadInput(
            f"--from={source}: no file runs-<i>-of-<n>.tar.gz; type the folder that `imbalance keep --to` wrote"
        )
    if source.is_dir():
        check_complete(source, files)
    written = 0
    work_dir.mkdir(parents=True, exist_ok=True)
    for file in files:
        with tempfile.TemporaryDirectory(dir=work_dir, prefix=".from-") as temporary:
            unpacked = Path(temporary)
            try:
                check_regular(file)
                unpack_tar(file, unpacked)
            except (OSError, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise BadInput(f"--from={source}: {file.name} is damaged ({error}); copy it again") from None
            for run in run_directories(unpacked):
                target = work_dir / run
                if not target.exists() or _finished(unpacked / run) > _finished(target):
                    shutil.rmtree(target, ignore_errors=True)
                    shutil.copytree(unpacked / run, target)
                    written += 1
            for path in sorted((unpacked / QUEUE).glob("*")):
                if path.is_file() and not (work_dir / QUEUE / path.name).exists():
                    (work_dir / QUEUE).mkdir(exist_ok=True)
                    shutil.copy(path, work_dir / QUEUE / path.name)
    return written


def check_complete(source: Path, files: Sequence[Path]) -> None:
    """Raise `BadInput` if a file of a set runs-1-of-n.tar.gz to runs-n-of-n.tar.gz is missing.

    Args:
        source: the folder of the files.
        files: all files of this kind in the folder.
    """
    names = {file.name for file in files}
    totals = {int(number) for name in names if (number := name.partition("-of-")[2].partition(".")[0]).isdecimal()}
    needed = [NAME.format(i + 1, total) for total in sorted(totals) for i in range(total)]
    if missing := [name for name in needed if name not in names]:
        raise BadInput(f"--from={source}: {missing[0]} is missing; copy all files that `imbalance keep --to` wrote")


def _finished(directory: Path) -> bool:
    """Return whether the run in `directory` is done or diverged."""
    try:
        return read_json(directory / "summary.json").get("status") in FINISHED
    except (OSError, Damaged):
        return False
