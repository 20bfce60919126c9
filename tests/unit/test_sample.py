"""The built-in sample: the same bytes every time, whole or not there at all."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanomaly.models.errors import DatasetError
from scanomaly.models.settings import Settings
from scanomaly.producer import sample
from scanomaly.producer.datasets import resolve
from scanomaly.producer.sample import NAME, built_in_sample, draw_sample, draw_slice


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        whole.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of four slices, so that a test need not wait for 120."""
    monkeypatch.setattr(sample, "draw_sample", lambda folder: draw_sample(folder, normals=2, anomalies=2))


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        draw_sample(tmp_path / name, normals=3, anomalies=3, seed=seed)
    assert digest(tmp_path / "first") == digest(tmp_path / "second")
    assert digest(tmp_path / "first") != digest(tmp_path / "other")


def test_a_larger_sample_starts_with_a_smaller_one(tmp_path: Path) -> None:
    draw_sample(tmp_path / "large", normals=2, anomalies=2)
    draw_sample(tmp_path / "small", normals=1, anomalies=1)
    for name in ("no/001.png", "yes/001.png"):
        assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "large" / name).read_bytes()


def test_every_slice_is_a_grey_image_of_its_own(tmp_path: Path) -> None:
    draw_sample(tmp_path, normals=4, anomalies=3)
    assert [path.name for path in sorted((tmp_path / "no").iterdir())] == [f"00{n}.png" for n in (1, 2, 3, 4)]
    assert [path.name for path in sorted((tmp_path / "yes").iterdir())] == [f"00{n}.png" for n in (1, 2, 3)]
    contents = set()
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "L"
            assert all(224 <= side <= 256 for side in image.size)
            contents.add(image.tobytes())
    assert len(contents) == 7


def test_a_lesion_changes_the_brain_and_nothing_around_it() -> None:
    plain, ill = (draw_slice(np.random.SeedSequence(5), lesion).astype(int) for lesion in (False, True))
    changed = np.abs(plain - ill) > 12
    assert changed.sum() > 100
    border = np.ones_like(changed)
    border[20:-20, 35:-35] = False
    assert not changed[border].any()


def test_the_folder_says_whether_there_is_a_lesion(tmp_path: Path) -> None:
    draw_sample(tmp_path, normals=1, anomalies=1, seed=3)
    for kind, (name, lesion) in enumerate((("no", False), ("yes", True))):
        with Image.open(tmp_path / name / "001.png") as image:
            drawn = draw_slice(np.random.SeedSequence([3, kind, 0]), lesion)
            assert np.array_equal(np.asarray(image), drawn)


def test_the_sample_is_drawn_once(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path / "deep" / "home")
    taken = resolve("sample:", settings)
    assert (taken.name, taken.note) == ("sample:", None)
    assert taken.folder == settings.home / NAME
    assert len(list(taken.folder.rglob("*.png"))) == 4
    monkeypatch.setattr(sample, "draw_sample", lambda folder: pytest.fail("drawn again"))
    assert built_in_sample(settings) == taken.folder
    assert [path.name for path in settings.home.iterdir()] == [NAME]


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> None:
        draw_sample(folder, normals=1, anomalies=0)
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "draw_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        built_in_sample(Settings(home=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_faster_of_two_processes_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(folder: Path) -> None:
        for target in (tmp_path / NAME, folder):
            draw_sample(target, normals=1, anomalies=1)

    monkeypatch.setattr(sample, "draw_sample", overtaken)
    assert built_in_sample(Settings(home=tmp_path)) == tmp_path / NAME
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_home_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("no folder")
    with pytest.raises(DatasetError, match=r"^The built-in sample cannot be written to .* SCANOMALY_HOME"):
        built_in_sample(Settings(home=home))
