"""Discovery, on real folders."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scanomaly.models.errors import SourceError, UsageError
from scanomaly.producer.discover.folders import Folder, PathList
from scanomaly.producer.discover.names import HIDDEN, MASK
from scanomaly.producer.discover.scans import Files
from tests.sources import scans_of


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def scans(files: Files) -> tuple[str, ...]:
    return tuple(scan.path for scan in scans_of(files).walk() if scan.reason is None)


def ignored(files: Files) -> dict[str, str]:
    return {scan.path: scan.reason for scan in scans_of(files).walk() if scan.reason is not None}


def test_images_of_all_formats_in_a_stable_order(tmp_path: Path) -> None:
    names = ["b/2.PNG", "a.jpg", "b/10.tiff", "Z.JPeG", "ü/ä ö.webp", "c.bmp", "b/x.tif", "b/x.png", "b.jpeg"]
    touch(tmp_path, *names)
    source = Folder(tmp_path)
    assert scans(source) == (
        "Z.JPeG",
        "a.jpg",
        "b/10.tiff",
        "b/2.PNG",
        "b/x.png",
        "b/x.tif",
        "b.jpeg",
        "c.bmp",
        "ü/ä ö.webp",
    )
    assert ignored(source) == {}
    assert list(source.walk()) == list(Folder(tmp_path).walk())


def test_what_is_no_scan_is_listed_with_its_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", ".hidden.png", ".git/b.png", "notes.txt", "README", "c.png.part", "x.gz")
    source = Folder(tmp_path)
    assert scans(source) == ("a.png",)
    assert ignored(source) == {
        ".git": "hidden",
        ".hidden.png": "hidden",
        "README": "not an image by its content",
        "c.png.part": "not an image by its content",
        "notes.txt": "not an image by its ending",
        "x.gz": "not an image by its ending",
    }


NOT_UTF8 = ("b\\udcff.png", "c\\udcff/b\\udcff.png", "c\\udcff/d.png")


def test_a_name_that_is_not_utf8_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    for folder in (b"/", b"/c\xff/"):
        Path(os.fsdecode(os.fsencode(tmp_path) + folder)).mkdir(exist_ok=True)
        with open(os.fsencode(tmp_path) + folder + b"b\xff.png", "wb"):
            pass
    touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/c\xff")), "d.png")
    source = Folder(tmp_path)
    assert scans(source) == ("a.png",)
    assert ignored(source) == dict.fromkeys(NOT_UTF8, "its name is not valid UTF-8")
    paths = [str(path) for path in sorted(tmp_path.rglob("*.png"))]
    assert ignored(PathList(paths)) == ignored(source)


def test_link_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    source = Folder(tmp_path)
    assert scans(source) == ("a/1.png", "b/2.png")
    assert set(ignored(source)) == {"a/up", "b/a", "self"}


LEADS_OUT = "a link that leads out of the folder: --follow-links takes it"


def test_links_that_lead_out_are_followed_on_demand_only(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.png", "elsewhere/deep/3.png", "root/2.png", "root/a/4.png")
    root = tmp_path / "root"
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up.png").symlink_to("../../elsewhere/1.png")
    (root / "a" / "gone.png").symlink_to("../../elsewhere/gone.png")
    (root / "a" / "text.txt").symlink_to("../../elsewhere/1.png")
    source = Folder(root)
    assert scans(source) == ("2.png", "a/4.png")
    assert ignored(source) == dict.fromkeys(("more", "a/up.png", "a/gone.png", "a/text.txt"), LEADS_OUT)
    assert scans(Folder(root, follow_links=True)) == (
        "2.png",
        "a/4.png",
        "a/gone.png",
        "a/up.png",
        "more/1.png",
        "more/deep/3.png",
    )


def test_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "root/a/1.png")
    root = tmp_path / "root"
    (root / "b").symlink_to("a")
    (root / "c.png").symlink_to(root / "a" / "1.png")
    (root / "gone.png").symlink_to("a/gone.png")
    (tmp_path / "alias").symlink_to("root")
    for folder in (root, tmp_path / "alias"):
        source = Folder(folder)
        assert source.root == str(folder)
        assert scans(source) == ("a/1.png", "c.png", "gone.png")
        assert ignored(source) == {"b": "a folder that was walked already (symbolic link)"}


def test_folders_come_before_links_that_lead_to_them(tmp_path: Path) -> None:
    """A link's name may be no label, or a wrong one."""
    touch(tmp_path, "a/x/y.png", "no/1.png", "no/deep/2.png", "yes/3.png", ".cache/scans/4.png")
    for link, target in {
        "Latest": "no",  # before all folders by its name
        "a/again": "../no",
        "a/deepest": "../no/deep",
        "deep": "no/deep",
        "kept": ".cache/scans",  # what nothing else leads to
        "loop": ".",
        "no/self": "../no",
        "no/to-yes": "../yes",
        "zz": "yes",
    }.items():
        (tmp_path / link).symlink_to(target)
    source = Folder(tmp_path)
    assert scans(source) == ("a/x/y.png", "no/1.png", "no/deep/2.png", "yes/3.png", "kept/4.png")
    again = ("Latest", "a/again", "a/deepest", "deep", "loop", "no/self", "no/to-yes", "zz")
    walked = "a folder that was walked already (symbolic link)"
    assert ignored(source) == dict.fromkeys(again, walked) | {".cache": "hidden"}


def test_of_two_links_the_one_that_leads_to_more_comes_first(tmp_path: Path) -> None:
    touch(tmp_path, "data/no/1.png", "data/yes/2.png", "root/a.png")
    (tmp_path / "root" / "latest").symlink_to(tmp_path / "data" / "no")
    (tmp_path / "root" / "links").mkdir()
    (tmp_path / "root" / "links" / "all").symlink_to(tmp_path / "data")
    source = Folder(tmp_path / "root", follow_links=True)
    assert scans(source) == ("a.png", "links/all/no/1.png", "links/all/yes/2.png")
    assert set(ignored(source)) == {"latest"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_link_in_an_archive_takes_no_place(tmp_path: Path, kind: str) -> None:
    touch(tmp_path / "in", "no/1.png", "yes/2.png")
    (tmp_path / "in" / "latest").symlink_to("no")
    (tmp_path / "in" / "a.png").symlink_to("no/1.png")
    (tmp_path / "out").mkdir()
    program = ["zip", "-qry"] if kind == "zip" else ["tar", "-cf" if kind == "tar" else "-czf"]
    if shutil.which(program[0]) is None:
        pytest.skip(f"needs {program[0]}")
    names = ["latest", "a.png", "no", "yes"]
    subprocess.run([*program, tmp_path / "out" / f"a.{kind}", *names], cwd=tmp_path / "in", check=True)
    source = Folder(tmp_path / "out")
    assert scans(source) == (f"a.{kind}/no/1.png", f"a.{kind}/yes/2.png")
    assert set(ignored(source)) == {f"a.{kind}/latest", f"a.{kind}/a.png"}


def test_the_order_of_a_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "b/1.png", "b/c/2.png", "d.png")
    for link, target in {"a": "b", "b/z": "../b/c", "y": "b/c", "e.png": "d.png"}.items():
        (tmp_path / link).symlink_to(target)
    expected = list(Folder(tmp_path).walk())
    scan = os.scandir

    class Reversed:
        def __init__(self, path: Path) -> None:
            with scan(path) as entries:
                self._entries = list(entries)[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self._entries

        def __exit__(self, *_: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(os, "scandir", Reversed)
    assert list(Folder(tmp_path).walk()) == expected
    assert [path for path, reason in expected if reason is None] == ["b/1.png", "b/c/2.png", "d.png", "e.png"]


SYSTEM = "what an operating system or a file server keeps for itself"
NO_SCANS = {
    "$RECYCLE.BIN/a.png": SYSTEM,
    "#recycle/a.png": SYSTEM,
    "System Volume Information/a.png": SYSTEM,
    "lost+found/a.png": SYSTEM,
    "no/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg": SYSTEM,
    "no/__MACOSX/1.png": SYSTEM,
    "no/._1.png": HIDDEN,
    "no/.DS_Store": HIDDEN,
    ".snapshot/hourly/no/1.png": HIDDEN,
    ".Trash-1000/files/1.png": HIDDEN,
    "no/~$1.png": "what an office program keeps while a file is open",
    "no/Thumbs.db": "not an image by its ending",
    "bottle/ground_truth/broken/000_mask.png": MASK,
    "Masks/Anomaly/000.png": MASK,
    "labelsTr/la_003.nii.gz": MASK,
    "no/1_mask.png": MASK,
    "no/1_mask_1.png": MASK,
    "no/TCGA_1_Mask.TIF": MASK,
    "no/BraTS20_001_seg.nii.gz": MASK,
    "no/sub-01_dseg.nii": MASK,
    "no/ISIC_1_segmentation.png": MASK,
}
LIKE_THEM = (
    "no/unmasked.png",
    "no/mask1.png",
    "no/damask.png",
    "no/1_seg_2.png",
    "masked/1.png",
    "maskstudy/1.png",
    "found/1.png",
    "no/a~$b.png",
    "no/labels/1.png",
)


def first_ignored(path: str, entries: dict[str, str]) -> str | None:
    """Why a path or a folder above it is ignored."""
    return next((reason for name, reason in entries.items() if f"{path}/".startswith(f"{name}/")), None)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_what_is_no_scan_by_its_name(tmp_path: Path, kind: str) -> None:
    names = [*NO_SCANS, *LIKE_THEM]
    touch(tmp_path / "in", *names)
    before = ""
    if kind != "folder":
        shutil.make_archive(str(tmp_path / "out" / "a"), {"tar.gz": "gztar"}.get(kind, kind), tmp_path / "in")
        before = f"a.{kind}/"
    source = Folder(tmp_path / ("in" if kind == "folder" else "out"))
    assert sorted(scans(source)) == sorted(before + name for name in LIKE_THEM)
    found = ignored(source)
    assert {name: first_ignored(before + name, found) for name in NO_SCANS} == NO_SCANS


def test_masks_that_are_named_as_the_source_are_scans(tmp_path: Path) -> None:
    touch(tmp_path, "ground_truth/bad/000.png", "ground_truth/bad/1_mask.png", "test/bad/000.png")
    for folder in ("ground_truth", "ground_truth/bad"):
        assert len(scans(Folder(tmp_path / folder))) == 2
    assert scans(Folder(tmp_path)) == ("test/bad/000.png",)
    paths = [str(path) for path in sorted(tmp_path.rglob("*.png"))]
    assert len(scans(PathList(paths))) == 3


def test_only_links_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of files on a file server: resolving a path costs a system call for each of its parts."""
    touch(tmp_path, *(f"{folder}/{number}.png" for folder in "abc" for number in range(20)))
    (tmp_path / "link.png").symlink_to("a/1.png")
    asked: list[str] = []
    resolve = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: asked.append(str(path)) or resolve(path))
    assert len(scans(Folder(tmp_path))) == 61
    assert asked == [str(tmp_path), str(tmp_path / "link.png")]
    asked.clear()
    assert len(scans(PathList(str(path) for path in tmp_path.rglob("*.png")))) == 61
    assert len(asked) == 5  # the root, its three folders, the link


def test_reports_of_earlier_jobs_are_no_scans(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/report.json", "out/scores.csv", "out/histogram.png")
    source = Folder(tmp_path)
    assert scans(source) == ("a.png",)
    assert ignored(source) == {"out": "a report of an earlier job"}


def test_a_folder_that_cannot_be_a_source(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match="is not there"):
        Folder(tmp_path / "none")
    with pytest.raises(UsageError, match="is a file"):
        Folder(tmp_path / "a.png")


def test_a_list_keeps_its_order_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "s/b.png", "s/a.png", "t/c.jpg")
    monkeypatch.chdir(tmp_path)
    lines = ["s/b.png\n", "\n", f"{tmp_path}/s/a.png\n", "t/c.jpg\r\n", "t/gone.png\n", "s/b.png\n", "t/x.txt"]
    source = PathList(lines)
    assert source.root == str(tmp_path)
    assert scans(source) == ("s/b.png", "s/a.png", "t/c.jpg", "t/gone.png")
    assert ignored(source) == {"t/x.txt": "not an image by its ending"}
    with pytest.raises(SourceError, match="is empty"):
        PathList(["\n"])


def test_links_of_a_list_that_lead_out(tmp_path: Path) -> None:
    touch(tmp_path, "outside/1.png", "s/a.png", "s/t/b.png")
    (tmp_path / "s" / "link.png").symlink_to("../outside/1.png")
    (tmp_path / "s" / "folder").symlink_to("../outside")
    (tmp_path / "s" / "gone.png").symlink_to("t/gone.png")
    names = ["a.png", "t/b.png", "link.png", "folder/1.png", "gone.png"]
    lines = [f"{tmp_path}/s/{name}" for name in names]
    source = PathList(lines)
    assert source.root == str(tmp_path / "s")
    assert scans(source) == ("a.png", "t/b.png", "gone.png")
    assert ignored(source) == dict.fromkeys(("link.png", "folder/1.png"), LEADS_OUT)
    assert scans(PathList(lines, follow_links=True)) == tuple(names)


def test_a_list_stores_no_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "s/a.png", "t/b.png")
    monkeypatch.chdir(tmp_path / "s")
    source = PathList(["a.png", "../t/b.png", "./../s/c.png", "nul\0/d.png"])
    assert scans(source) == ("s/a.png", "t/b.png", "s/c.png", "s/nul\0/d.png")


def test_a_source_is_looked_at_anew_each_time(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png")
    folder = Folder(tmp_path)
    paths = PathList([f"{tmp_path}/a/{number}.png" for number in (2, 1, 2)])
    assert scans(folder) == ("a/1.png", "a/2.png")
    touch(tmp_path, "a/0.png")
    (tmp_path / "a" / "1.png").unlink()
    assert scans(folder) == ("a/0.png", "a/2.png")
    for _ in range(2):
        assert scans(paths) == ("2.png", "1.png")


def test_a_list_from_everywhere(tmp_path: Path) -> None:
    source = PathList(["/a.png", f"{tmp_path}/b.png", "/c/d.png"])
    assert source.root == "/"
    assert scans(source) == ("a.png", f"{tmp_path}/b.png"[1:], "c/d.png")
