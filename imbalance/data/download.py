"""Fetching files: from several mirrors, going on where the last attempt ended, checked before they are used."""

import gzip
import hashlib
import http.client
import lzma
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from imbalance.data.sources import SOURCES, File
from imbalance.errors import BadInput

BLOCK = 1 << 20
TIMEOUT = 30  # seconds without a byte


def download(name: str, data_dir: str) -> None:
    """Fetch and unpack the data set `name` of `SOURCES` into `data_dir`, saying under which licence first."""
    source, root = SOURCES[name], Path(data_dir)
    print(f"{name}: licence: {source.licence}", flush=True)
    if not source.files:
        raise BadInput(f"{name}: cannot be fetched: {source.by_hand}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        for file in source.files:
            if file.unpacked and (root / file.unpacked).exists():
                print(f"{root / file.unpacked}: there already")
                continue
            fetch(file, root, source.by_hand)
            if file.unpacked:
                unpack(root / file.path, root, file.unpacked)
    except OSError as error:
        raise BadInput(f"--data_dir: {error.filename or root}: {error.strerror or error}") from None


def fetch(file: File, root: Path, by_hand: str) -> None:
    """Bring `file` to its place from the first mirror that has it whole.

    Raises:
        BadInput: none has; the message says what each answered.
    """
    path = root / file.path
    if path.exists() and file.md5 in ("", md5(path)):
        print(f"{path}: there already")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in file.urls:
        # What one mirror began another may end only if a checksum shows whether that went well.
        mark = "" if file.md5 else f".{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        part = path.with_name(f"{path.name}{mark}.part")
        for _ in range(2):  # a second time from the start, if what was there before spoilt it
            resumed = part.exists()
            try:
                transfer(url, part)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reasons.append(f"{url}: {error}")
                break
            if file.md5 in ("", md5(part)):
                part.replace(path)
                return
            part.unlink()
            if not resumed:
                reasons.append(f"{url}: md5 is not {file.md5}")
                break
    raise BadInput(f"{path.name}: {'; '.join(reasons)}; run the same command to go on, or {by_hand}")


def transfer(url: str, part: Path) -> None:
    """Append to `part` what it lacks of the file at `url`."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # it was whole already
        if error.code == 416:
            part.unlink()
            raise urllib.error.URLError("the file there is shorter than what was fetched before") from None
        raise
    with response, open(part, "ab" if response.status == 206 else "wb") as out:
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise urllib.error.URLError("the server resumed at another place than asked")
        length = response.headers.get("Content-Length")
        expected = out.tell() + int(length) if length else None
        shown = time.monotonic()
        while block := response.read(BLOCK):
            out.write(block)
            if sys.stderr.isatty() and time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                of = f" of {expected / 1e6:,.0f}" if expected else ""
                print(f"\r\x1b[K{part.name}: {out.tell() / 1e6:,.0f}{of} MB", end="\r", file=sys.stderr, flush=True)
        if expected is not None and out.tell() != expected:
            raise urllib.error.URLError(f"ended after {out.tell():,} of {expected:,} bytes")


def unpack(archive: Path, root: Path, made: str) -> None:
    """Unpack into `root` what is `made`: beside its place first, so that a killed unpacking leaves nothing in it.

    Raises:
        BadInput: the archive is damaged, or would write outside of the folder that it is unpacked in.
    """
    temporary = root / f".unpacking-{made}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            unpack_zip(archive, temporary)
        else:
            unpack_tar(archive, temporary)
        if not (temporary / made).exists():
            raise BadInput(f"{archive}: has no folder {made}")
        (temporary / made).rename(root / made)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise BadInput(f"{archive}: not whole ({reason}); remove it and fetch it again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def unpack_tar(archive: Path, folder: Path) -> None:
    """Refuses absolute names and `..`, and by tarfile's "data" filter devices and links that leave the folder."""
    with tarfile.open(archive) as tar:
        for member in tar:
            check_name(archive, member.name)
            try:
                tar.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise BadInput(f"{archive}: {error}") from None


def unpack_zip(archive: Path, folder: Path) -> None:
    """Refuses absolute names and `..`, which zipfile would quietly rewrite, and links."""
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            check_name(archive, member.filename)
            if (member.external_attr >> 28) == 0o12:
                raise BadInput(f"{archive}: {member.filename!r} is a link")
            content.extract(member, folder)


def check_name(archive: Path, name: str) -> None:
    """Raise `BadInput` for a name that leaves the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise BadInput(f"{archive}: {name!r} leads out of the folder that it is unpacked in; nothing is kept")


def md5(path: Path) -> str:
    """The checksum that these data sets are published with; it detects damage, not malice."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
