"""Names for patients and series, the key they are made with, and ids for paths."""

import hashlib
import hmac
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from scanomaly.models.errors import UsageError
from scanomaly.models.hiding import Hiding
from scanomaly.models.settings import Settings
from scanomaly.producer.discover.pseudonyms import KEY_FILE, Pseudonyms, load_key, path_key

from ..waiting import HANGS

KEY = b"a key of the tests"
SECRET = "0123456789abcdef"


class TestNames:
    def test_a_name_is_a_keyed_hash(self) -> None:
        """By its definition, with each value after its length: a name must not change between releases."""
        message = b"".join(len(part).to_bytes(8, "big") + part for part in (b"patient", b"4711", "Köln".encode()))
        digest = hmac.new(KEY, message, hashlib.sha256).hexdigest()
        assert Pseudonyms(KEY).name("patient", "4711", "Köln") == f"patient-{digest[:12]}"
        assert Pseudonyms(KEY).name("patient", "4711") == "patient-4e41fbf18179"

    def test_names_differ(self) -> None:
        names = [
            Pseudonyms(KEY).name("patient", "4711"),
            Pseudonyms(b"another key").name("patient", "4711"),
            Pseudonyms(KEY).name("series", "4711"),
            Pseudonyms(KEY).name("patient", "4711", ""),
            Pseudonyms(KEY).name("patient", "4712"),
            Pseudonyms(KEY).name("patient", "47 11"),
            Pseudonyms(KEY).name("patient", "ab", "c"),
            Pseudonyms(KEY).name("patient", "a", "bc"),
            Pseudonyms(KEY).name("patient", ""),
        ]
        assert len({name.partition("-")[2] for name in names}) == len(names)
        for name in names:
            assert re.fullmatch("(patient|series)-[0-9a-f]{12}", name)

    @pytest.mark.parametrize("padded", ["4711 ", "4711\0", " 4711\0\0", "\t4711\r\n"])
    def test_padding_does_not_count(self, padded: str) -> None:
        assert Pseudonyms(KEY).name("patient", padded) == Pseudonyms(KEY).name("patient", "4711")

    def test_any_text_has_a_name(self) -> None:
        assert Pseudonyms(KEY).name("patient", "\udcff") != Pseudonyms(KEY).name("patient", "?")

    def test_the_key_is_loaded_once_and_only_when_needed(self) -> None:
        loaded = []
        names = Pseudonyms(lambda: loaded.append(1) or KEY)
        assert not loaded
        assert names.name("series", "1") == names.name("series", "1") == Pseudonyms(KEY).name("series", "1")
        assert loaded == [1]


class TestKey:
    def test_from_the_setting(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path / "home", pseudonym_key=f" {SECRET}\n")
        assert load_key(settings) == SECRET.encode()
        assert not (tmp_path / "home").exists()

    @pytest.mark.parametrize("text", ["", "short", SECRET[1:], SECRET[1:] + " "])
    def test_too_short_a_setting(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(UsageError, match=r"SCANOMALY_PSEUDONYM_KEY must hold .* 16 characters") as caught:
            load_key(Settings(home=tmp_path, pseudonym_key=text))
        assert not text or text not in str(caught.value)

    def test_made_once(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path / "new" / "home")
        key = load_key(settings)
        file = settings.home / KEY_FILE
        assert re.fullmatch(b"[0-9a-f]{64}", key)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert load_key(settings) == key
        assert list(settings.home.iterdir()) == [file]
        assert load_key(Settings(home=tmp_path / "other")) != key
        # What is copied from the file into the setting of another machine makes the same names.
        assert load_key(Settings(home=tmp_path / "third", pseudonym_key=file.read_text())) == key

    def test_threads_that_make_it_at_once_have_the_same(self, tmp_path: Path) -> None:
        count = 8
        together = Barrier(count)

        def load(home: Path) -> bytes:
            together.wait()
            return load_key(Settings(home=home))

        with ThreadPoolExecutor(count) as threads:
            for number in range(20):
                home = tmp_path / str(number)
                assert len(set(threads.map(load, [home] * count))) == 1
                assert [file.name for file in home.iterdir()] == [KEY_FILE]

    def test_processes_that_make_it_at_once_have_the_same(self, tmp_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from scanomaly.models.settings import Settings;"
            "from scanomaly.producer.discover.pseudonyms import load_key; print('ready', flush=True);"
            "sys.stdin.readline(); print(load_key(Settings(home=Path(sys.argv[1]))).decode())"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(tmp_path / "home")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        keys = [process.communicate(timeout=HANGS)[0] for process in processes]
        assert keys[0] == keys[1] == (tmp_path / "home" / KEY_FILE).read_text()

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
    def test_a_file_that_is_open_to_others_is_refused(self, tmp_path: Path, mode: int) -> None:
        file = tmp_path / KEY_FILE
        file.write_text(SECRET)
        file.chmod(mode)
        with pytest.raises(UsageError, match="is open to others, and must be secret: chmod 600") as caught:
            load_key(Settings(home=tmp_path))
        assert SECRET not in str(caught.value)
        file.chmod(0o600)
        assert load_key(Settings(home=tmp_path)) == SECRET.encode()

    @pytest.mark.parametrize("content", [b"", b"short", b" " * 40, SECRET[1:].encode()])
    def test_too_short_a_file(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / KEY_FILE
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(UsageError, match=rf"{KEY_FILE} must hold a key of at least 16 characters"):
            load_key(Settings(home=tmp_path))
        assert file.read_bytes() == content

    def test_a_home_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "home").write_bytes(b"")
        (tmp_path / "other" / KEY_FILE).mkdir(parents=True)
        for home in ("home", "other"):
            with pytest.raises(UsageError, match=r"cannot be read or made .*: set SCANOMALY_PSEUDONYM_KEY"):
                load_key(Settings(home=tmp_path / home))

    def test_settings_do_not_show_it(self) -> None:
        assert SECRET not in repr(Settings(pseudonym_key=SECRET))

    def test_the_key_of_paths_is_another(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path)
        key, paths = load_key(settings), path_key(settings)
        assert re.fullmatch("[0-9a-f]{64}", paths)
        assert paths == path_key(settings)
        assert paths.encode() != key
        assert bytes.fromhex(paths) not in (key, bytes.fromhex(key.decode()))
        assert path_key(Settings(pseudonym_key=SECRET)) != path_key(Settings(pseudonym_key=SECRET + "0"))


class TestHiding:
    def test_without_a_key_all_is_shown(self) -> None:
        hiding = Hiding(None)
        assert not hiding
        assert hiding.path("no/a.png") == hiding.name("no/a.png", "group") == hiding.place("no/a.png") == "no/a.png"

    def test_with_a_key_all_is_hidden(self) -> None:
        hiding = Hiding(SECRET)
        assert hiding
        ids = [
            hiding.path("no/a.png"),
            hiding.name("no/a.png", "group"),
            hiding.name("no/a.png", "volume"),
            hiding.place("no/a.png"),
        ]
        for found, kind in zip(ids, ("scan", "group", "volume", "folder"), strict=True):
            assert re.fullmatch(f"{kind}-[0-9a-f]{{16}}", found)
        others = [hiding.path("no/b.png"), Hiding(SECRET + "0").path("no/a.png")]
        assert len({found.partition("-")[2] for found in ids + others}) == 6

    def test_ids_are_stable(self) -> None:
        digest = hmac.new(SECRET.encode(), b"scan\0no/a.png", hashlib.sha256).hexdigest()
        assert Hiding(SECRET).path("no/a.png") == Hiding(SECRET).path("no/a.png") == f"scan-{digest[:16]}"
        assert Hiding(SECRET).path("no/\udcff.png") == Hiding(SECRET).path("no/\udcff.png")

    @pytest.mark.parametrize("kind", ["patient", "study", "series", "volume"])
    def test_pseudonyms_stay(self, kind: str) -> None:
        name = Pseudonyms(KEY).name(kind, "4711")
        assert Hiding(SECRET).name(name, "group") == name

    @pytest.mark.parametrize(
        "name",
        [
            "patient-anna",
            "patient-0123456789ab.nii",
            "scans/patient-0123456789ab",
            "patient-0123456789abc",
            "PATIENT-0123456789ab",
            "patient-0123456789ab\n",
            "patient-199912310001",  # a day, and no letter: rather hidden once too often
        ],
    )
    def test_what_only_resembles_a_pseudonym_is_hidden(self, name: str) -> None:
        assert re.fullmatch("group-[0-9a-f]{16}", Hiding(SECRET).name(name, "group"))
