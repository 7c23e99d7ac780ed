"""Download data sets from mirrors, resume partial downloads, and check each file before use."""

import gzip
import hashlib
import http.client
import lzma
import platform
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
TIMEOUT = 30  # seconds without a byte after which a download fails


def download(name: str, data_dir: str) -> None:
    """Print the licence of the data set `name`, then download and unpack its files into `data_dir`."""
    source, root = SOURCES[name], Path(data_dir)
    print(f"{name}: licence: {source.licence}", flush=True)
    if not source.files:
        raise BadInput(f"{name}: cannot be downloaded by this command; {source.by_hand}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        for file in source.files:
            if file.unpacked and (root / file.unpacked).exists():
                print(f"{root / file.unpacked}: exists already")
                continue
            fetch(file, root, source.by_hand)
            if file.unpacked:
                unpack(root / file.path, root, file.unpacked)
    except OSError as error:
        raise BadInput(
            f"--data_dir: {error.filename or root}: {error.strerror or error}; name a folder that can be written"
        ) from None


def fetch(file: File, root: Path, by_hand: str) -> None:
    """Download `file` into the folder `root`, from the first mirror that serves the complete file.

    Args:
        by_hand: how a user can get the file by hand, as the end of the error message.

    Raises:
        BadInput: no mirror serves the file; the message has the error of each mirror.
    """
    path = root / file.path
    if path.exists() and file.md5 in ("", md5(path)):
        print(f"{path}: exists already")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in file.urls:
        # Without a checksum nothing shows whether two mirrors serve the same bytes, so each mirror gets its own part file.
        mark = "" if file.md5 else f".{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        part = path.with_name(f"{path.name}{mark}.part")
        for _ in range(2):  # a resumed part may have been damaged, so a second attempt starts from the beginning
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
    raise BadInput(f"{path.name}: {'; '.join(reasons)}; run the same command again to resume, or {by_hand}")


def transfer(url: str, part: Path) -> None:
    """Download the file at `url` to the path `part`; if `part` holds the beginning of the file, append the rest."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # the download was complete already
        if error.code == 416:
            part.unlink()
            raise urllib.error.URLError("the server's file is shorter than the part downloaded before") from None
        raise
    with response, open(part, "ab" if response.status == 206 else "wb") as out:
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise urllib.error.URLError("the server did not resume at the byte that was requested")
        length = response.headers.get("Content-Length")
        expected = out.tell() + int(length) if length else None
        shown = time.monotonic()
        while block := response.read(BLOCK):
            out.write(block)
            if sys.stderr.isatty() and time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                total = f" of {expected / 1e6:,.0f}" if expected else ""
                print(f"\r\x1b[K{part.name}: {out.tell() / 1e6:,.0f}{total} MB", end="\r", file=sys.stderr, flush=True)
        if expected is not None and out.tell() != expected:
            raise urllib.error.URLError(f"the connection ended after {out.tell():,} of {expected:,} bytes")


def unpack(archive: Path, root: Path, folder_name: str) -> None:
    """Unpack `archive` to get the folder `<root>/<folder_name>`.

    The archive is unpacked into a temporary folder first, so that an interrupted call leaves no incomplete folder.

    Args:
        folder_name: the name of a folder in the archive; nothing else is kept.

    Raises:
        BadInput: the archive is damaged, or a file name in the archive leads out of the temporary folder.
    """
    temporary = root / f".unpacking-{folder_name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            unpack_zip(archive, temporary)
        else:
            unpack_tar(archive, temporary)
        if not (temporary / folder_name).exists():
            raise BadInput(f"{archive}: has no folder {folder_name}; remove {archive} and repeat the command")
        (temporary / folder_name).rename(root / folder_name)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise BadInput(f"{archive}: incomplete or damaged ({reason}); remove {archive} and download it again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack a tar archive into `folder`; refuse devices, and names and links that lead out of `folder`.

    tarfile's filter "data" decides what is refused. If anything is refused, raise `BadInput`. A wrong checksum of a
    compressed archive raises an error only at the end, so `folder` must be a temporary folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise BadInput(
            f"{archive}: Python {platform.python_version()} has no safe way to unpack it; use Python 3.10.12, 3.11.4 or later"
        )
    with tarfile.open(archive) as tar:
        for member in tar:
            check_name(archive, member.name)
            try:
                tar.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise BadInput(f"{archive}: {error}; nothing is unpacked; use another copy of the archive") from None
        content = tar.fileobj
        while content and content.read(BLOCK):  # tarfile stops before the end of the file, where the checksum is
            pass


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into `folder`; raise `BadInput` if it has links, absolute names or names with `..`.

    zipfile would not refuse such names, but change them without a message.
    """
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            check_name(archive, member.filename)
            if (member.external_attr >> 28) == 0o12:
                raise BadInput(
                    f"{archive}: {member.filename!r} is a link, but an archive must hold only files and folders; nothing is unpacked; "
                    "use another copy of the archive"
                )
            content.extract(member, folder)


def check_name(archive: Path, name: str) -> None:
    """Raise `BadInput` if `name`, a file name in `archive`, leads out of the folder that the archive is unpacked in."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise BadInput(
            f"{archive}: {name!r} leads out of the folder that the archive is unpacked in; nothing is unpacked; "
            "use another copy of the archive"
        )


def md5(path: Path) -> str:
    """Return the MD5 of a file, to compare it with the published MD5; it detects damage, but not tampering."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
