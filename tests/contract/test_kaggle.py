"""The real kagglehub, with its real cache, against a server that speaks Kaggle's calls."""

import contextlib
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from scanomaly.models.errors import DatasetError, UsageError
from scanomaly.models.settings import Settings
from scanomaly.producer import datasets
from scanomaly.producer.datasets import KaggleUnreachableError, is_dataset, resolve
from tests.servers.kaggle import DOWNLOAD_DATASET, GET_DATASET, PORT, KaggleServer, port_to_oneself
from tests.waiting import HANGS

SOURCE = "kaggle:owner/brain"
SCANS = ["no/1.png", "no/2 ü.png", "yes/1.png"]


def an_archive(names: list[str] = SCANS, padding: int = 0) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number, name in enumerate(names):
            drawn = io.BytesIO()
            Image.new("L", (8, 8), 40 * number).save(drawn, format="png")
            archive.writestr(name, drawn.getvalue())
        if padding:
            archive.writestr("notes.bin", os.urandom(padding))
    return content.getvalue()


@pytest.fixture(autouse=True)
def kaggle_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client goes to the local port and finds neither this user's credentials nor their cache."""
    for name in list(os.environ):
        if name.upper().startswith("KAGGLE") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home" / ".kaggle"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with port_to_oneself():
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "scanomaly", hub_seconds=1.0)


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def error_line(settings: Settings, source: str = SOURCE) -> str:
    with pytest.raises(DatasetError) as caught:
        resolve(source, settings)
    line = str(caught.value)
    assert line
    assert "\n" not in line
    return line


def archive_path(tmp_path: Path, version: int = 1) -> Path:
    return tmp_path / "cache" / "datasets" / "owner" / "brain" / f"{version}.archive"


class TestWithKaggle:
    @pytest.mark.parametrize("redirect", [True, False])
    def test_downloads_the_newest_version(self, settings: Settings, tmp_path: Path, redirect: bool) -> None:
        with KaggleServer(an_archive(), version=3, redirect=redirect) as kaggle:
            taken = resolve(SOURCE, settings)
        assert files_of(taken.folder) == SCANS
        assert taken.folder.is_relative_to(tmp_path / "cache")
        assert taken.name == "kaggle:owner/brain/versions/3"
        assert taken.note is None
        assert kaggle.paths()[:2] == [GET_DATASET, DOWNLOAD_DATASET]

    def test_takes_the_second_time_from_the_cache(self, settings: Settings) -> None:
        with KaggleServer(an_archive()) as kaggle:
            first = resolve(SOURCE, settings)
            kaggle.requests.clear()
            assert resolve(SOURCE, settings) == first
        assert kaggle.paths() == [GET_DATASET]

    def test_takes_the_version_that_was_asked_for(self, settings: Settings) -> None:
        with KaggleServer(an_archive(), version=2) as kaggle:
            taken = resolve(f"{SOURCE}/versions/2", settings)
            assert taken.name == "kaggle:owner/brain/versions/2"
            assert "no such data set: owner/brain/versions/9" in error_line(settings, f"{SOURCE}/versions/9")
            kaggle.requests.clear()
            assert resolve(f"{SOURCE}/versions/2", settings) == taken
        assert kaggle.requests == []

    def test_sends_the_credentials(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAGGLE_API_TOKEN", "a-token")
        with KaggleServer(an_archive()) as kaggle:
            resolve(SOURCE, settings)
        calls = [request for request in kaggle.requests if request.path.startswith("/api/")]
        assert [call.headers["Authorization"] for call in calls] == ["Bearer a-token"] * 2

    def test_says_nothing_on_stdout_nor_off_a_terminal(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        import kagglehub.clients
        import kagglehub.logger

        # As in a fresh process: the log's handler writes to today's stdout, and the warning of a new version (only
        # for users with credentials) is still to come.
        monkeypatch.setenv("KAGGLE_API_TOKEN", "a-token")
        monkeypatch.setattr(kagglehub.clients, "already_printed_version_warning", False)
        kagglehub.logger._configure_logger()
        with KaggleServer(an_archive(), redirect=False):
            resolve(SOURCE, settings)
        logging.getLogger("kagglehub.clients").warning("a late warning")
        assert kagglehub.clients.already_printed_version_warning
        assert capfd.readouterr() == ("", "")

    def test_shows_progress_on_a_terminal(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = io.StringIO()
        monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stderr", terminal)
        with KaggleServer(an_archive()):
            resolve(SOURCE, settings)
        assert "100%" in terminal.getvalue()
        assert "localhost" not in terminal.getvalue()

    def test_members_stay_in_the_folder(self, settings: Settings, tmp_path: Path) -> None:
        names = ["no/1.png", "../../../../outside.png", "/outside.png"]
        with KaggleServer(an_archive(names)):
            taken = resolve(SOURCE, settings)
        assert "no/1.png" in files_of(taken.folder)
        found = list(tmp_path.rglob("outside.png"))
        assert found
        assert all(path.is_relative_to(taken.folder) for path in found)
        assert not Path("/outside.png").exists()


class TestRefused:
    def test_no_such_data_set(self, settings: Settings) -> None:
        with KaggleServer(an_archive()):
            assert "no such data set: owner/other" in error_line(settings, "kaggle:owner/other")

    @pytest.mark.parametrize("status", [401, 403])
    def test_no_access_says_how_to_give_credentials(self, settings: Settings, status: int) -> None:
        with KaggleServer(an_archive(), status=status):
            line = error_line(settings)
        for word in (str(status), "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "~/.kaggle/kaggle.json"):
            assert word in line

    def test_an_unreadable_credentials_file(self, settings: Settings, tmp_path: Path) -> None:
        file = tmp_path / "home" / ".kaggle" / "kaggle.json"
        file.parent.mkdir(parents=True)
        file.write_text("{")
        with KaggleServer(an_archive()):
            line = error_line(settings)
        assert str(file) in line
        assert "KAGGLE_API_TOKEN" in line

    @pytest.mark.parametrize(
        "source",
        [
            f"kaggle:{handle}"
            for handle in ("", "brain", "a/b/c", "../..", "a/b/versions/0", "a/b/versions/x", "a/b ")
        ]
        + ["sample:x", "folder"],
    )
    def test_a_malformed_name_is_a_usage_error(self, settings: Settings, source: str) -> None:
        with pytest.raises(UsageError, match="kaggle:OWNER/NAME/versions/N"):
            resolve(source, settings)

    def test_a_source_is_known_by_its_prefix(self) -> None:
        sources = ("kaggle:a/b", "sample:", "kaggle/a", "./sample:")
        assert [is_dataset(source) for source in sources] == [True, True, False, False]


class TestDamaged:
    @pytest.mark.parametrize("damage", ["not an archive", "a flipped byte", "an empty file"])
    def test_a_damaged_archive_is_thrown_away(self, settings: Settings, tmp_path: Path, damage: str) -> None:
        good = an_archive()
        middle = good.index(b"IDAT")
        bad = {
            "not an archive": b"<html>" * 100,
            "a flipped byte": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
            "an empty file": b"",
        }[damage]
        with KaggleServer(bad) as kaggle:
            assert "damaged" in error_line(settings)
            assert not archive_path(tmp_path).exists()
            kaggle.archive = good
            assert files_of(resolve(SOURCE, settings).folder) == SCANS

    def test_a_wrong_checksum(self, settings: Settings) -> None:
        with KaggleServer(an_archive(), md5=b"0" * 16) as kaggle:
            assert "checksum" in error_line(settings)
            kaggle.md5 = None
            assert files_of(resolve(SOURCE, settings).folder) == SCANS

    def test_a_broken_connection(self, settings: Settings) -> None:
        with KaggleServer(an_archive(), cut_after=100) as kaggle:
            assert "broke off" in error_line(settings)
            kaggle.cut_after = None
            assert files_of(resolve(SOURCE, settings).folder) == SCANS

    def test_a_download_goes_on_where_it_broke_off(self, settings: Settings, tmp_path: Path) -> None:
        # Put there by hand: the client of KAGGLE_API_ENVIRONMENT=TEST reads an answer whole before it writes it.
        archive = an_archive(padding=5000)
        part = archive_path(tmp_path)
        part.parent.mkdir(parents=True)
        part.write_bytes(archive[:3000])
        with KaggleServer(archive) as kaggle:
            assert files_of(resolve(SOURCE, settings).folder) == sorted([*SCANS, "notes.bin"])
        assert kaggle.requests[-1].headers["Range"] == "bytes=3000-"

    def test_a_download_that_stalls(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(datasets, "STALL_SECONDS", 0.3)
        begun = time.monotonic()
        with KaggleServer(an_archive(), stall_after=100):
            assert "broke off" in error_line(settings)
        assert time.monotonic() - begun < 50  # and not the 60 s that it is in use

    def test_a_full_disk(self, settings: Settings, tmp_path: Path) -> None:
        archive_path(tmp_path).parent.mkdir(parents=True)
        archive_path(tmp_path).symlink_to("/dev/full")
        with KaggleServer(an_archive()):
            line = error_line(settings)
        assert line.startswith("No room for owner/brain")
        assert "KAGGLEHUB_CACHE" in line

    def test_a_cache_that_cannot_be_written(
        self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "file"))
        with KaggleServer(an_archive()):
            assert "KAGGLEHUB_CACHE" in error_line(settings)


class TestWithoutKaggle:
    def test_the_cache_serves(self, settings: Settings) -> None:
        with KaggleServer(an_archive()):
            first = resolve(SOURCE, settings)
        again = resolve(SOURCE, settings)
        assert (again.folder, again.name) == (first.folder, first.name)
        assert again.note == "Kaggle cannot be reached (no connection): using version 1 from the cache"
        assert resolve(f"{SOURCE}/versions/1", settings).note is None

    def test_the_newest_whole_version_is_taken(self, settings: Settings, tmp_path: Path) -> None:
        for version in (9, 10, 11):
            with KaggleServer(an_archive(), version=version):
                resolve(SOURCE, settings)
        (archive_path(tmp_path).parent / "11.complete").unlink()
        shutil.copytree(resolve(SOURCE, settings).folder, archive_path(tmp_path).parent / "versions" / "draft")
        assert resolve(SOURCE, settings).name == "kaggle:owner/brain/versions/10"

    def test_another_version_does_not_stand_in(self, settings: Settings) -> None:
        with KaggleServer(an_archive()):
            resolve(SOURCE, settings)
        assert "owner/brain/versions/2 is not in kagglehub's cache" in error_line(settings, f"{SOURCE}/versions/2")

    def test_no_network_and_no_cache_names_the_ways_out(self, settings: Settings) -> None:
        with pytest.raises(KaggleUnreachableError) as caught:
            resolve(SOURCE, settings)
        for word in ("Kaggle cannot be reached", "give its folder", "scanomaly run sample:", "KAGGLEHUB_CACHE"):
            assert word in str(caught.value)

    @pytest.mark.parametrize("silent", [False, True])
    def test_a_fresh_process_knows_and_ends_in_time(self, tmp_path: Path, silent: bool) -> None:
        program = (
            "import sys, json\n"
            "from scanomaly.models.settings import Settings\n"
            "from scanomaly.producer.datasets import resolve\n"
            "lazy = 'kagglehub' not in sys.modules\n"
            "try:\n    resolve('kaggle:owner/brain', Settings())\n"
            "except Exception as error:\n    message = f'{type(error).__name__}: {error}'\n"
            "print(json.dumps([lazy, message]))\n"
        )
        begun = time.monotonic()
        with KaggleServer(b"", silent=True) if silent else contextlib.nullcontext():
            done = subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                check=True,
                timeout=HANGS,
                cwd=tmp_path,
            )
        assert time.monotonic() - begun < 120  # with the imports, on a busy machine
        lazy, message = json.loads(done.stdout)
        assert lazy
        assert message.startswith("KaggleUnreachableError: Kaggle cannot be reached")
        assert done.stderr == ""

    def test_a_server_that_never_answers(self, settings: Settings) -> None:
        with KaggleServer(an_archive(), silent=True):
            self._is_known_in_time(settings)

    def test_packets_that_vanish(self, settings: Settings) -> None:
        # A full backlog: the system drops what comes next, as a firewall would.
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            deaf.bind(("127.0.0.1", PORT))
            deaf.listen(0)
            waiting = [socket.socket() for _ in range(3)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", PORT))
            try:
                self._is_known_in_time(settings)
            finally:
                for each in waiting:
                    each.close()

    def test_a_resolver_that_hangs(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: time.sleep(30))
        self._is_known_in_time(settings)

    def _is_known_in_time(self, settings: Settings) -> None:
        import kagglehub  # noqa: F401  its import is not what is timed

        begun = time.monotonic()
        assert "no answer within 1 s" in error_line(settings)
        assert 0.9 < time.monotonic() - begun < 25

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_an_ailing_kaggle_counts_as_unreachable(self, settings: Settings, status: int) -> None:
        with KaggleServer(an_archive()) as kaggle:
            resolve(SOURCE, settings)
            kaggle.status = status
            note = resolve(SOURCE, settings).note
        assert note == f"Kaggle cannot be reached (it answers {status}): using version 1 from the cache"
