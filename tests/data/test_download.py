"""Downloads from a server of our own: mirrors, resuming, checksums, and archives that want to write elsewhere."""

import hashlib
import io
import socket
import struct
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers.archives import unpacks

from imbalance.data.download import download, fetch, unpack
from imbalance.data.sources import SOURCES, File, Source
from imbalance.errors import BadInput

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/whole serves CONTENT from where it is asked to; other paths answer as badly as their names say."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        if self.path == "/gone":
            self.send_error(404)
            return
        if self.path == "/garbled":
            self.wfile.write(b"220 ftp.example.org\r\n\r\n")
            return
        body = b"<html>Quota exceeded</html>" if self.path == "/other" else CONTENT
        start = int(asked.split("=")[1].rstrip("-")) if asked and self.path not in ("/norange", "/elsewhere") else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        partial = start or (asked and self.path == "/elsewhere")
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if self.path == "/silent":
            self.server.go_on.wait(10)
        if self.path == "/reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        self.wfile.write(body[start : len(body) // 2] if self.path == "/cut" and not start else body[start:])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.go_on = [], threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


def file_of(server, *names: str, md5: str = MD5) -> File:
    return File("some.bin", tuple(f"http://127.0.0.1:{server.server_port}/{name}" for name in names), md5, "")


def test_mirrors_are_tried_in_order_until_one_has_it_whole(tmp_path, server):
    fetch(file_of(server, "gone", "other", "whole", "never"), tmp_path, "ask")
    assert (tmp_path / "some.bin").read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/gone", "/other", "/whole"]
    fetch(file_of(server, "never"), tmp_path, "ask")  # it is there
    assert len(server.asked) == 3


@pytest.mark.parametrize("broken", ["garbled", "reset", "silent"])
def test_a_mirror_that_breaks_off_is_followed_by_the_next(tmp_path, server, monkeypatch, broken):
    monkeypatch.setattr("imbalance.data.download.TIMEOUT", 0.5)
    fetch(file_of(server, broken, "whole"), tmp_path, "ask")
    assert (tmp_path / "some.bin").read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == [f"/{broken}", "/whole"]


def test_without_a_checksum_no_mirror_ends_what_another_began(tmp_path, server):
    fetch(file_of(server, "cut", "whole", md5=""), tmp_path, "ask")
    assert (tmp_path / "some.bin").read_bytes() == CONTENT
    assert server.asked == [("/cut", None), ("/whole", None)]


def test_a_server_that_resumes_at_another_place_is_refused(tmp_path, server):
    (tmp_path / "some.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(BadInput, match="/elsewhere: .*did not resume at the byte that was requested"):
        fetch(file_of(server, "elsewhere"), tmp_path, "ask")
    assert (tmp_path / "some.bin.part").read_bytes() == CONTENT[:1000]


def test_a_file_whose_checksum_is_wrong_is_fetched_anew(tmp_path, server):
    (tmp_path / "some.bin").write_bytes(CONTENT[:-1])
    fetch(file_of(server, "whole"), tmp_path, "ask")
    assert (tmp_path / "some.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("md5", [MD5, ""])
def test_a_broken_transfer_is_resumed(tmp_path, server, md5):
    file = file_of(server, "cut", md5=md5)
    with pytest.raises(
        BadInput, match=r"some.bin: .*/cut: .*ended after 640,000 of 1,280,000 bytes.*run the same command"
    ):
        fetch(file, tmp_path, "ask")
    assert not (tmp_path / "some.bin").exists()
    fetch(file, tmp_path, "ask")
    assert (tmp_path / "some.bin").read_bytes() == CONTENT
    assert server.asked == [("/cut", None), ("/cut", "bytes=640000-")]


def test_a_server_without_ranges_starts_over(tmp_path, server):
    (tmp_path / "some.bin.part").write_bytes(CONTENT[:1000])
    fetch(file_of(server, "norange"), tmp_path, "ask")
    assert (tmp_path / "some.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_what_was_whole_but_for_its_name_is_not_fetched_again(tmp_path, server):
    (tmp_path / "some.bin.part").write_bytes(CONTENT)
    fetch(file_of(server, "whole"), tmp_path, "ask")
    assert (tmp_path / "some.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("before", "mirrors"), [(b"spoilt" * 100, ["whole"]), (CONTENT + b"too long", ["whole", "whole"])]
)
def test_a_spoilt_beginning_is_thrown_away(tmp_path, server, before, mirrors):
    (tmp_path / "some.bin.part").write_bytes(before)
    fetch(file_of(server, *mirrors), tmp_path, "ask")
    assert (tmp_path / "some.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_everywhere_is_one_line_and_leaves_nothing(tmp_path, server):
    with pytest.raises(BadInput, match=rf"/other: md5 is not {MD5}; .*/gone: .*404.* or ask by hand") as error:
        fetch(file_of(server, "other", "gone"), tmp_path, "ask by hand")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@unpacks
def test_the_licence_comes_first_and_a_dead_source_says_what_to_do(tmp_path, server, monkeypatch, capsys):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("birds/metadata.csv"))
    monkeypatch.setattr(f"{__name__}.CONTENT", archive.getvalue())
    file = File("birds.tar.gz", (f"http://127.0.0.1:{server.server_port}/whole",), "", "birds")
    monkeypatch.setitem(SOURCES, "birds", Source("only on Sundays", (file,), "ask"))
    download("birds", str(tmp_path / "data"))
    assert capsys.readouterr().out.startswith("birds: licence: only on Sundays")
    assert (tmp_path / "data" / "birds" / "metadata.csv").is_file()
    download("birds", str(tmp_path / "data"))
    assert len(server.asked) == 1
    with pytest.raises(BadInput, match=r"^--data_dir: .*metadata.csv: "):
        download("birds", str(tmp_path / "data" / "birds" / "metadata.csv"))
    with pytest.raises(
        BadInput, match=r"celeba: cannot be downloaded by this command; .*Google Drive.*img_align_celeba"
    ):
        download("celeba", str(tmp_path))


def tar_with(path, *members: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@unpacks
@pytest.mark.parametrize(
    "evil",
    [
        member("/tmp/evil"),
        member("birds/../../evil"),
        member("birds/link", tarfile.SYMTYPE, "/etc"),
        member("birds/link", tarfile.SYMTYPE, "../../outside"),
        member("birds/link", tarfile.LNKTYPE, "../outside"),
        member("birds/link", tarfile.LNKTYPE, "/etc/passwd"),
        member("birds/device", tarfile.CHRTYPE),
        member("birds/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name} {info.linkname}",
)
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path, evil):
    (tmp_path / "outside").write_text("before")
    root = tmp_path / "data"
    root.mkdir()
    tar_with(root / "birds.tar", member("birds/metadata.csv"), evil)
    with pytest.raises(
        BadInput, match=r"birds.tar: (?!incomplete).*(leads out of|absolute path|outside the destination|special file)"
    ):
        unpack(root / "birds.tar", root, "birds")
    assert [path.name for path in root.iterdir()] == ["birds.tar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "outside"]


@unpacks
def test_links_that_stay_inside_are_kept(tmp_path):
    tar_with(tmp_path / "birds.tar", member("birds/a/b"), member("birds/c/link", tarfile.SYMTYPE, "../a/b"))
    unpack(tmp_path / "birds.tar", tmp_path, "birds")
    assert (tmp_path / "birds" / "c" / "link").resolve() == tmp_path / "birds" / "a" / "b"


@pytest.mark.parametrize("name", ["/evil", "birds/../../evil", "..\\evil", "link"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as archive:
        archive.writestr("birds/metadata.csv", "")
        info = zipfile.ZipInfo(name)
        if name == "link":
            info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BadInput, match=r"birds.zip: .*(leads out of|is a link)"):
        unpack(tmp_path / "birds.zip", tmp_path, "birds")
    assert [path.name for path in tmp_path.iterdir()] == ["birds.zip"]


@unpacks
def test_an_archive_of_something_else_is_refused(tmp_path):
    tar_with(tmp_path / "birds.tar", member("fish/metadata.csv"))
    with pytest.raises(BadInput, match="birds.tar: has no folder birds"):
        unpack(tmp_path / "birds.tar", tmp_path, "birds")


@unpacks
def test_what_a_killed_unpacking_left_is_cleared_away(tmp_path):
    left = tmp_path / ".unpacking-birds" / "birds" / "half.jpg"
    left.parent.mkdir(parents=True)
    left.touch()
    tar_with(tmp_path / "birds.tar", member("birds/metadata.csv"))
    unpack(tmp_path / "birds.tar", tmp_path, "birds")
    assert [path.name for path in (tmp_path / "birds").iterdir()] == ["metadata.csv"]


def test_a_python_that_cannot_unpack_safely_says_which_can(tmp_path, monkeypatch):
    """Python 3.10.0 to 3.10.11 and 3.11.0 to 3.11.3 have no filters."""
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "birds.tar", "w") as tar:
        tar.addfile(member("birds/image.jpg"), io.BytesIO(b""))
    with pytest.raises(
        BadInput, match=r"birds\.tar: Python .* has no safe way to unpack it; use Python 3\.10\.12, 3\.11\.4"
    ):
        unpack(tmp_path / "birds.tar", tmp_path, "birds")
    assert [path.name for path in tmp_path.iterdir()] == ["birds.tar"]


@unpacks
@pytest.mark.parametrize("kind", ["tar.gz", "tar", "html", "zip"])
def test_half_an_archive_is_refused_and_leaves_nothing(tmp_path, kind):
    path = tmp_path / f"birds.{kind}"
    info = member("birds/image.jpg")
    info.size = len(CONTENT)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("birds/image.jpg", CONTENT)
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)
    elif kind == "html":
        path.write_text("<html>")
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.addfile(info, io.BytesIO(CONTENT))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"birds.*: incomplete or damaged .*; remove .*birds.* and download it again"):
        unpack(path, tmp_path, "birds")
    assert [path] == list(tmp_path.iterdir())


def test_every_source_says_its_licence_and_what_to_do_by_hand():
    for name, source in SOURCES.items():
        assert source.licence and source.by_hand, name
        for file in source.files:
            counted = file.path == "multinli/metadata_random.csv"  # has no checksum: its counts and labels are checked
            assert file.urls and (len(file.md5) == 32 or file.unpacked or counted), name
