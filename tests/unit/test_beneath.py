"""What was checked is what is read: links that take the place of files and folders lead nowhere."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import EncoderError, ScanomalyError, UsageError
from scanomaly.models.settings import Settings
from scanomaly.models.sources.beneath import (
    OutsideRootError,
    RootFolder,
    RootLinkError,
    open_regular,
    open_resolved,
    open_resolved_folder,
)
from scanomaly.models.states import FailureKind
from scanomaly.producer.discover.folders import Folder, PathList
from scanomaly.producer.named_files import NamedFiles
from scanomaly.producer.server.report_files import list_report, open_report_file
from scanomaly.producer.server.submissions import resolve_below
from scanomaly.producer.submit import Prepared, make_request, prepare
from scanomaly.worker.encoding.files import open_files
from scanomaly.worker.encoding.images import ImageFailure
from scanomaly.worker.encoding.weights_file import checked_weights_file

from ..swapping import PLANTED, Swap, descriptors, draw_folders, swapping, swaps_of

FILE = "middle/0.png"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return draw_folders(tmp_path)


@pytest.fixture
def root(folders: tuple[Path, Path]) -> Path:
    return folders[0]


@pytest.fixture
def outside(folders: tuple[Path, Path]) -> Path:
    return folders[1]


def content(root: Path, path: str, follow_links: bool = False) -> bytes:
    with RootFolder(root, follow_links).open_file(path) as file:
        return file.read()


# Links


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("job/a.png", "middle/0.png", "job/a.png"),
        ("job/a.png", "{root}/job/middle/0.png", "job/a.png"),
        ("job/a.png", "{root}/../alias/job/middle/0.png", "job/a.png"),
        ("job/a.png", "b.png", "job/a.png"),
        ("again", "job", "again/middle/0.png"),
        ("job/up", "..", "job/up/job/middle/0.png"),
        ("job/up", "middle/../../job/./middle", "job/up/0.png"),
        ("job/up", "{root}", "job/up/job/up/job/middle/0.png"),
    ],
)
def test_links_that_stay_inside_are_followed(root: Path, link: str, target: str, path: str) -> None:
    (root.parent / "alias").symlink_to(root)
    (root / "job" / "b.png").symlink_to("middle/0.png")
    (root / link).symlink_to(target.format(root=root))
    assert content(root, path) == b"inside"
    assert RootFolder(root).status(path).st_size == len(b"inside")
    folder = RootFolder(root).open_folder(path.rpartition("/")[0])
    assert os.fstat(folder).st_nlink > 1
    os.close(folder)


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("job/a.png", "{outside}/job/middle/0.png", "job/a.png"),
        ("job/a.png", "../../outside/job/middle/0.png", "job/a.png"),
        ("job/a.png", "/dev/zero", "job/a.png"),
        ("job/a.png", "{outside}/none", "job/a.png"),
        ("job/up", "../..", "job/up/outside/job/middle/0.png"),
        ("job/up", "{outside}/job", "job/up/middle/0.png"),
        ("job/up", "{outside}/../outside/job", "job/up/middle/0.png"),
        ("job/up", "/proc/self/root{outside}", "job/up/job/middle/0.png"),
        ("job/up", "/proc/self/cwd", "job/up/job/middle/0.png"),
    ],
)
def test_links_that_lead_out_are_not(
    root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, link: str, target: str, path: str
) -> None:
    monkeypatch.chdir(outside)
    (root / link).symlink_to(target.format(root=root, outside=outside))
    before = descriptors()
    for act in (RootFolder(root).open_file, RootFolder(root).open_folder, RootFolder(root).status):
        with pytest.raises(OutsideRootError):
            act(path)
    assert descriptors() == before
    if outside.name in target + path and "none" not in target:
        assert content(root, path, follow_links=True) == PLANTED


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize(
    "path", ["..", "../outside/job/middle/0.png", "job/../job/middle/0.png", "/etc/passwd", "/"]
)
def test_paths_that_lead_out_are_refused(root: Path, path: str, follow_links: bool) -> None:
    with pytest.raises(OutsideRootError):
        RootFolder(root, follow_links).open_file(path)


def test_a_root_that_is_a_link_by_now_is_refused(root: Path, outside: Path) -> None:
    for path in (root, root / "job"):
        swap = Swap(path, outside / path.relative_to(root))
        swap()
        for act in (RootFolder(root / "job").open_file, lambda path: open_resolved(root / "job" / path)):
            with pytest.raises(RootLinkError):
                act(FILE)
        with pytest.raises(RootLinkError):
            open_resolved_folder(root / "job" / "middle")
        assert content(root / "job", FILE, follow_links=True) == PLANTED  # it was asked for
        swap()
    assert content(root / "job", FILE) == b"inside"


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        before = descriptors()
        for name in ("pipe", "socket", ".", "none", "nul\0"):
            for act in (RootFolder(tmp_path).open_file, lambda name: open_resolved(tmp_path / name)):
                with pytest.raises((OSError, ValueError)):
                    act(name)
            with pytest.raises(OSError):  # noqa: PT011
                open_regular(tmp_path / name)
        assert descriptors() == before


def test_a_folder_above_need_not_be_readable(root: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (root / "job").chmod(0o100)
    try:
        assert content(root, "job/middle/0.png") == b"inside"
    finally:
        (root / "job").chmod(0o700)


# Swaps, before each system call


def reads(root: Path) -> bytes:
    """All that a worker sees of a job that was submitted from `root/job`."""
    seen = b""
    files = open_files(str(root / "job"), False, Settings(home=root / "home"))
    for name in (FILE, "middle/1.png", "again.png", "more/1.png"):
        with suppress(ImageFailure):
            seen += files.read(files.find(name))
    return seen


def lists(root: Path) -> bytes:
    """All that who submits sees of `root/job`: names, and what it reads of files."""
    seen = ""
    with suppress(ScanomalyError):
        folder = Folder(root / "job", real_root=root / "job")
        paths = [path for path, _ in folder.walk()]
        seen += " ".join(paths)
        for path in (*paths, "middle/series", "more/series"):
            with suppress(OSError), folder.open(path) as file:
                seen += file.read().decode()
        listed = PathList([str(root / "job" / FILE)], real_root=root / "job")
        with suppress(OSError), listed.open(FILE) as file:
            seen += file.read().decode()
    return seen.encode()


def shows(root: Path) -> bytes:
    """A file of a report in `root/job/middle`."""
    folder = root / "job" / "middle"
    seen = str(sorted(list_report(folder).values())).encode()
    file = open_report_file(folder, "scores.csv")
    if file is not None:
        with file:
            seen += file.read()
    return seen


def submits(root: Path) -> bytes:
    """What becomes of a submission to a service whose root is `root`."""
    roots = {str(root): str(root)}
    try:
        names = [str(root / "job"), str(root / "job" / "middle" / "labels.csv")]
        files = NamedFiles({path: resolve_below(roots, "source", path) for path in names})
        settings = Settings(home=root.parent / "home")
        prepared = prepare(
            make_request(names[0], settings, files=files, labels_file=names[1], encoder="efficientnet_lite0"),
            settings,
        )
        return str([scan.path for scan in prepared.source.walk()]).encode()
    except (ScanomalyError, OSError) as error:  # the same to who submits
        return str(error).encode()


@pytest.fixture
def with_report(folders: tuple[Path, Path]) -> tuple[Path, Path]:
    """Also with a file of reports, which is longer outside, and a labels file."""
    root, outside = folders
    for where, content in ((root, b"inside"), (outside, PLANTED)):
        (where / "job" / "middle" / "scores.csv").write_bytes(content)
    rows = "".join(f"middle/{number}.png,normal\n" for number in range(2))
    (root / "job" / "middle" / "labels.csv").write_text(f"path,label\n{rows}")
    (outside / "job" / "middle" / "labels.csv").write_text(f"path,label\n{PLANTED.decode()},{PLANTED.decode()}\n")
    return root, outside


LOOKS = {reads: "0.png", lists: "series", shows: "scores.csv", submits: "labels.csv"}
"""And the file that is swapped beside each."""


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("back", [False, True], ids=["", "and back"])
def test_a_link_before_any_system_call_shows_nothing(
    with_report: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], bytes], back: bool
) -> None:
    root, outside = with_report
    undisturbed = look(root)
    assert b"inside" in undisturbed or b"middle/0.png" in undisturbed
    planted = (PLANTED, str(len(PLANTED)).encode())
    before = descriptors()
    seen_undisturbed = 0
    for swap in swaps_of(root, outside, LOOKS[look]):
        step, calls = 0, 1
        while step < calls:
            calls = 0

            def disturbed(call: Callable[..., Any], swap: Swap = swap, step: int = step) -> Callable[..., Any]:
                def act(*arguments: Any, **named: Any) -> Any:
                    nonlocal calls
                    calls += 1
                    if calls == step + 1 or (back and calls == step + 2):
                        swap()
                    return call(*arguments, **named)

                return act

            with monkeypatch.context() as patch:
                for name in ("open", "stat", "lstat", "readlink", "scandir"):
                    patch.setattr(os, name, disturbed(getattr(os, name)))
                seen = look(root)
            swap.undo()
            assert not [mark for mark in planted if mark in seen], (step, seen)
            seen_undisturbed += seen == undisturbed
            step += 1
    assert seen_undisturbed, "nothing was ever seen"
    assert descriptors() == before


# Swaps, as fast as they go


@pytest.mark.parametrize("look", LOOKS)
def test_a_thousand_swaps_beside_it_show_nothing(
    with_report: tuple[Path, Path], look: Callable[[Path], bytes]
) -> None:
    root, outside = with_report
    undisturbed = look(root)
    with swapping(*swaps_of(root, outside, *LOOKS.values())) as enough:
        seen = {look(root)}
        while not enough():
            seen.add(look(root))
    assert not [found for found in seen if PLANTED in found]
    assert look(root) == undisturbed


# What is stored


def test_a_root_that_is_named_by_a_link_is_stored_as_what_it_leads_to(root: Path, outside: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    settings = Settings(home=root.parent / "home")
    request = make_request(str(root.parent / "alias" / "job"), settings, normal=["0.png"])
    source = prepare(request, settings).source
    assert (source.root, source.real_root) == (str(root.parent / "alias" / "job"), str(root / "job"))
    (root.parent / "alias").unlink()
    (root.parent / "alias").symlink_to(outside)
    files = open_files(source.real_root, False, settings)
    assert files.read(files.find(FILE)) == b"inside"


@pytest.mark.parametrize("replaced", ["", "job", "job/middle"])
def test_a_worker_says_what_is_wrong(root: Path, outside: Path, replaced: str) -> None:
    Swap(root / replaced, outside / replaced)()
    files = open_files(str(root / "job"), False, Settings(home=root.parent / "home"))
    with pytest.raises(ImageFailure) as caught:
        files.find(FILE)
    assert caught.value.kind is FailureKind.OUTSIDE_ROOT
    says = "--follow-links" if replaced == "job/middle" else "SCANOMALY_ROOTS"
    assert says in caught.value.detail


def test_a_root_of_this_machine_may_be_a_link(root: Path, outside: Path) -> None:
    """Whoever runs a worker says where its folders are; links below them may be anybody's."""
    (root.parent / "here").symlink_to(root)
    settings = Settings(home=root.parent / "home", roots=((Path("/there"), root.parent / "here"),))
    files = open_files("/there/job", False, settings)
    assert files.read(files.find(FILE)) == b"inside"
    Swap(root / "job", outside / "job")()
    with pytest.raises(ImageFailure, match="SCANOMALY_ROOTS"):
        files.find(FILE)


def test_a_home_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "reports").mkdir(parents=True)
    (tmp_path / "home").symlink_to("real")
    settings = Settings(home=tmp_path / "home")
    assert settings.local_path(tmp_path / "home" / "reports") == tmp_path / "real" / "reports"
    elsewhere = Settings(home=tmp_path / "home", roots=((tmp_path / "home", tmp_path / "mine"),))
    assert elsewhere.local_path(tmp_path / "home" / "reports") == tmp_path / "mine" / "reports"


# Weights and labels


@pytest.mark.parametrize("option", ["weights", "labels_file"])
def test_a_file_of_a_submission_is_read_where_it_was_checked(root: Path, outside: Path, option: str) -> None:
    for where, content in ((root, b"path,label\nmiddle/0.png,normal\n"), (outside, PLANTED)):
        (where / "job" / "file.csv").write_bytes(content)
    names = {name: str(root / "job") + file for name, file in (("source", ""), (option, "/file.csv"))}
    files = NamedFiles({path: resolve_below({str(root): str(root)}, name, path) for name, path in names.items()})
    settings = Settings(home=root.parent / "home")

    others: dict[str, Any] = {
        "weights": {"encoder": "RN50", "normal": ["0.png"]},
        "labels_file": {"encoder": "efficientnet_lite0"},
    }

    def prepared() -> Prepared:
        named = others[option] | {option: names[option]}
        return prepare(make_request(names["source"], settings, files=files, **named), settings)

    assert prepared().counts.labels.total() == 3
    Swap(root / "job" / "file.csv", outside / "job" / "file.csv")()
    with pytest.raises(UsageError, match=r"cannot be read.*symbolic link took its place"):
        prepared()


def test_weights_are_loaded_from_the_file_whose_digest_was_compared(root: Path, outside: Path) -> None:
    for where, content in ((root, b"inside"), (outside, PLANTED)):
        (where / "weights.safetensors").write_bytes(content)
    spec = parse_encoder("RN50", root / "weights.safetensors")
    before = descriptors()
    with checked_weights_file(spec) as path:
        Swap(root / "weights.safetensors", outside / "weights.safetensors")()
        assert path.read_bytes() == b"inside"
        assert path.name == "weights.safetensors"
    assert not path.parent.exists()
    with pytest.raises(EncoderError, match="changed since"), checked_weights_file(spec):
        pass
    (root / "weights.safetensors").unlink()
    os.mkfifo(root / "weights.safetensors")
    with pytest.raises(EncoderError, match="not a regular file"), checked_weights_file(spec):
        pass
    with pytest.raises(UsageError, match="not a regular file"):
        parse_encoder("RN50", root / "weights.safetensors")
    assert descriptors() == before
