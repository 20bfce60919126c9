"""What the command line says of options, said for the page."""

import re

import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import ScanomalyError
from scanomaly.producer.discover.slices import parse_slices
from scanomaly.producer.groups import Groups
from scanomaly.producer.labels import make_labels
from scanomaly.producer.server.words import page_words


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "--normal healthy/ matches none of the 20 images",
            "“Normal scans” healthy/ matches none of the 20 images",
        ),
        (
            "none of the 9 images is known to be normal: name them with --normal GLOB-OR-SUBFOLDER or --labels "
            "FILE.csv, or put them into a sub-folder named no or good",
            "none of the 9 images is known to be normal: name them in “Normal scans”, or put them into a "
            "sub-folder named no or good",
        ),
        (
            "no hub answers: give --weights FILE, or --encoder efficientnet_lite0, or a connection to the hub",
            "no hub answers: give the encoder efficientnet_lite0, or a connection to the hub",
        ),
        ("name the model that it belongs to with --encoder", "name the model that it belongs to with “Encoder”"),
        ("leave patch_knn out, or name another --encoder", "leave patch_knn out, or name another encoder"),
        ("take more normals, or a higher --false-alarm-rate", "take more normals, or a higher false alarm rate"),
        ("it is paused: `scanomaly resume 3f0c` takes it up again", "it is paused: “Resume” takes it up again"),
        (
            "no worker is running: `scanomaly worker` starts one",
            "no worker is running: `scanomaly worker` starts one",
        ),
        ("a--b/c--normal.png and -- are names", "a--b/c--normal.png and -- are names"),
    ],
)
def test_fields_and_buttons_stand_for_options_and_commands(said: str, shown: str) -> None:
    assert page_words(said) == shown


def _errors(tmp_path: object) -> list[str]:
    """What a person who fills in the form can be told, by the program's own raising."""
    attempts = [
        lambda: make_labels("/scans").check(0, 9),
        lambda: make_labels("/scans", normal=["x"]).check(3, 9),
        lambda: make_labels("/scans", normal=["x"], labels_file=tmp_path),
        lambda: parse_encoder("RN50"),
        lambda: parse_encoder("no such model"),
        lambda: parse_slices("some", "axial"),
        lambda: Groups("/scans", "(", None),
    ]
    told = []
    for attempt in attempts:
        with pytest.raises(ScanomalyError) as raised:
            attempt()
        told.append(str(raised.value))
    return told


def test_no_option_is_left(tmp_path: object) -> None:
    for said in _errors(tmp_path):
        assert not re.search(r"(^|[\s(])--\w", page_words(said)), page_words(said)
