"""Read files. Every file that the package reads goes through this module, which checks kind, size, format and digest.

A file of a run directory or of a store can be cut by a full disk, damaged by a copy, edited by hand, or be a pipe. Each
function here returns the content of an undamaged file, or raises an error at once:

- `OSError` if the file is missing, cannot be read, or is no regular file;
- `Damaged` if the file is too large, has another format, or has another digest than the one that was recorded.

Digests are recorded at different places. A JSON file of a run or a store holds the digest of its own content (`seal`),
a summary.json also holds those of the other files of its run, and the members of .npz and .pt files have checksums.
"""

import hashlib
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from errno import EINVAL
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from imbalance.errors import BadInput, Damaged
from imbalance.utils.memory import check_fits

if TYPE_CHECKING:
    import numpy as np

MOST_TEXT = 2**30  # bytes of the largest text file that is read; the largest known metrics.jsonl has a tenth of it
BLOCK = 2**22  # bytes that are read at a time
OTHER_CONTENT = "its content is not the one that was written"
DIGEST = "digest"  # key of a sealed JSON file that holds the digest of all other keys


def short_hash(content: bytes | memoryview) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()[:16]


def check_regular(path: str | Path) -> None:
    """Raise `OSError` unless `path` is a regular file or a link to one, since opening a pipe or device may never end."""
    try:
        mode = Path(path).stat().st_mode
    except ValueError as error:  # the name has a NUL
        raise OSError(EINVAL, f"{error} in the name", str(path)) from None
    _check_kind(mode, path)


def _check_kind(mode: int, path: Any) -> None:
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise OSError(EINVAL, f"{kind}, not a file", str(path))


def regular_opener(path: str, flags: int) -> int:
    """Open a regular file and return its descriptor; made for the argument `opener` of `open`.

    Raises:
        OSError: the file is a directory, pipe or device. The call does not wait for the other end of a pipe.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        _check_kind(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises:
        OSError: the file is missing, or is a directory, pipe or device.
    """
    try:
        return open(path, "rb", opener=regular_opener)
    except ValueError as error:  # the name has a NUL
        raise OSError(EINVAL, f"{error} in the name", str(path)) from None


def read_bytes(path: str | Path, digest: str | None = None, most: int | None = None) -> bytes:
    """Return the content of a file.

    Args:
        digest: digest that the content must have, see `short_hash`; None if none was recorded.
        most: largest size in bytes that is read; None for the size of the free memory.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is None:
            check_fits(size, str(path))
        elif size > most:
            raise Damaged(path, f"{size:,} bytes, and at most {most:,} are read")
        content = file.read()
    if digest is not None and short_hash(content) != digest:
        raise Damaged(path, OTHER_CONTENT)
    return content


def hash_file(file: BinaryIO) -> str:
    """Return the `short_hash` of the content of an open file; read one block at a time, to save memory."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()[:16]


def check_digest(file: BinaryIO, path: str | Path, digest: str | None) -> None:
    """Raise `Damaged` if `digest` is not the `hash_file` of the open file at `path`; do nothing if `digest` is None."""
    if digest is not None and hash_file(file) != digest:
        raise Damaged(path, OTHER_CONTENT)


def read_text(path: str | Path, digest: str | None = None) -> str:
    """Return the text of a UTF-8 file; `digest` as for `read_bytes`."""
    try:
        return read_bytes(path, digest, MOST_TEXT).decode()
    except UnicodeDecodeError as error:
        raise Damaged(path, f"not UTF-8 text: {error.reason}") from None


def read_json(path: str | Path, digest: str | None = None, unique_keys: bool = False) -> dict[str, Any]:
    """Return the object in a JSON file, without the digest that `seal` added.

    Args:
        digest: as for `read_bytes`.
        unique_keys: whether to raise `Damaged` for an object with the same key twice, as after an edit by hand.
    """
    values = parse_json(read_text(path, digest), path, without_repeats if unique_keys else None)
    if values.pop(DIGEST, None) not in (None, _digest_of(values)):
        raise Damaged(path, OTHER_CONTENT)
    return values


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object as a dictionary; raise `ValueError` if two have the same key."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return values


def parse_json(
    text: str | bytes, path: str | Path, object_of: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the object that `text`, read from the file `path`, holds as JSON.

    Args:
        object_of: function from the members of a JSON object to the value that stands for it; None for `dict`.
    """
    try:
        values = json.loads(text, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"no JSON: {error}") from None
    if not isinstance(values, dict):
        raise Damaged(path, "no JSON object")
    return values


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with the digest of their JSON under the key `DIGEST`, which `read_json` compares."""
    saved = json.loads(json.dumps(values))  # the keys as text, whose order can differ from that of numbers
    return {**saved, DIGEST: _digest_of(saved)}


def _digest_of(values: Mapping[str, Any]) -> str:
    return short_hash(json.dumps(values, sort_keys=True).encode())


def read_array(path: str | Path, digest: str | None = None) -> "np.ndarray":
    """Return the array of an .npy file; `digest` as for `read_bytes`."""
    array = read_arrays(path, digest)
    if isinstance(array, dict):
        raise Damaged(path, "several arrays, and one is needed")
    return array


def read_npz(path: str | Path, digest: str | None = None) -> dict[str, "np.ndarray"]:
    """Return the arrays of an .npz file by name; `digest` as for `read_bytes`."""
    arrays = read_arrays(path, digest)
    if not isinstance(arrays, dict):
        raise Damaged(path, "a single array, and arrays by name are needed")
    return arrays


def read_arrays(path: str | Path, digest: str | None = None) -> "np.ndarray | dict[str, np.ndarray]":
    """Return the array of an .npy file, or the arrays of an .npz file by name; `digest` as for `read_bytes`.

    The checksum of every array of an .npz file is compared. Pickled objects are refused.
    """
    import numpy as np

    def load() -> Any:
        with open_regular(path) as file:
            check_digest(file, path, digest)
            if zipfile.is_zipfile(file):  # a small archive may unpack to more than the memory, so check first
                with zipfile.ZipFile(file) as archive:
                    check_fits(sum(member.file_size for member in archive.infolist()), str(path))
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}

    return checked_format(path, load)


def map_npz(path: str | Path, digest: str | None = None) -> "dict[str, np.ndarray]":
    """Return the arrays of an uncompressed .npz file by name, as memory maps; processes that map it share its memory.

    The arrays can be changed, but changes stay in this process. Memory holds only the parts that are in use. Digest and
    checksums are compared as by `read_npz`.
    """
    import numpy as np

    def load() -> Any:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            check_digest(file, path, digest)
            check_members(archive)
            return {member.filename.removesuffix(".npy"): mapped(file, member) for member in archive.infolist()}

    def mapped(file: BinaryIO, member: zipfile.ZipInfo) -> Any:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed")
        file.seek(member.header_offset)
        header = file.read(30)
        # The lengths of the name and of the extra field are the last two numbers of the header.
        file.seek(sum(int.from_bytes(header[place : place + 2], "little") for place in (26, 28)), os.SEEK_CUR)
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{member.filename} has another format")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError("pickled objects")
        if not math.prod(shape):  # no bytes, which cannot be mapped
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "c", file.tell(), shape, "F" if is_fortran else "C")

    return checked_format(path, load)


def map_array(path: str | Path, mode: Any = "r") -> "np.memmap":
    """Return the array of an .npy file as a memory map. No checksum is compared; the caller must do so.

    Args:
        mode: mode of `numpy.memmap`.
    """
    import numpy as np

    check_regular(path)
    array = checked_format(path, lambda: np.load(path, mmap_mode=mode, allow_pickle=False))
    if not isinstance(array, np.memmap):
        raise Damaged(path, "several arrays, and one is needed")
    return array


def read_torch(path: str | Path, digest: str | None = None, stamp: str | None = None) -> Any:
    """Return the object of a file that `torch.save` wrote, on the CPU; `digest` as for `read_bytes`.

    The tensors are memory maps: processes that read the same file share its memory, and memory holds only what is in
    use. Changes of a tensor stay in this process. torch leaves the checksums of its zip archives unread, so they are
    compared here. No pickled code is run.

    Args:
        stamp: result of `archive_stamp` in another process that has compared the checksums. Then only the stamp is
            compared. None to compare the checksums.
    """

    def load() -> Any:
        import torch

        with open_regular(path) as file:
            check_digest(file, path, digest)
            is_archive = zipfile.is_zipfile(file)  # files of torch before 1.6 are no archives
            if not is_archive:
                check_fits(os.fstat(file.fileno()).st_size, str(path))
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=True)
            with zipfile.ZipFile(file) as archive:
                if stamp is None:
                    check_members(archive)
                elif stamp != _stamp_of(archive):
                    raise Damaged(path, "it is not the file that another process has read")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)

    return checked_format(path, load)


def archive_stamp(path: str | Path) -> str:
    """Return a text that differs between zip archives of different content: a hash of their names and checksums."""
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        return _stamp_of(archive)


def _stamp_of(archive: zipfile.ZipFile) -> str:
    members = [(member.filename, member.CRC, member.file_size) for member in archive.infolist()]
    return short_hash(repr(members).encode())


def check_members(archive: zipfile.ZipFile) -> None:
    """Raise `zipfile.BadZipFile` if a file in `archive` does not have its checksum."""
    if damaged := archive.testzip():
        raise zipfile.BadZipFile(f"bad checksum of {damaged}")


def checked_format(path: str | Path, load: Callable[[], Any]) -> Any:
    """Return `load()`, and raise `Damaged` if the format of the file `path` makes it fail.

    An `OSError` passes, with `path` as its file if it names none.
    """
    try:
        return load()
    except BadInput:
        raise
    except OSError as error:
        if error.filename is not None:
            raise
        if error.errno is None:  # a library raised it for the format, as gzip does
            raise Damaged(path, str(error)) from None
        if error.errno == EINVAL:  # a damaged archive can place its content before the start of the file
            raise Damaged(path, "it is cut, or gives a wrong place of its content") from None
        raise OSError(error.errno, error.strerror, str(path)) from None
    except Exception as error:  # a damaged file can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "pickle" in reason and not isinstance(error, zipfile.BadZipFile) and Path(path).suffix in (".npy", ".npz"):
            reason = (
                "it holds Python objects, which are never loaded; save text as fixed-width strings: array.astype(str)"
            )
        raise Damaged(path, reason) from None
