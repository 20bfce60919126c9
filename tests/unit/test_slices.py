"""Which slices are chosen, and what frames are called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanomaly.models.errors import UsageError
from scanomaly.producer.discover.slices import Slices, frame_names, parse_slices


@pytest.mark.parametrize(
    ("text", "count", "chosen"),
    [
        ("all", 1, [0]),
        ("all", 5, [0, 1, 2, 3, 4]),
        ("middle:1", 1, [0]),
        ("middle:1", 4, [1]),
        ("middle:1", 5, [2]),
        ("middle:2", 5, [1, 2]),
        ("middle:3", 5, [1, 2, 3]),
        ("middle:5", 5, [0, 1, 2, 3, 4]),
        ("middle:40", 5, [0, 1, 2, 3, 4]),
        ("middle:4", 155, [75, 76, 77, 78]),
        ("every:1", 3, [0, 1, 2]),
        ("every:2", 1, [0]),
        ("every:2", 4, [0, 2]),
        ("every:2", 5, [0, 2, 4]),
        ("every:3", 5, [0, 3]),
        ("every:10", 25, [2, 12, 22]),
        ("every:999999999", 101, [50]),
    ],
)
def test_choice(text: str, count: int, chosen: list[int]) -> None:
    assert list(parse_slices(text).choose(count)) == chosen


@given(count=st.integers(1, 10**6), number=st.integers(1, 10**9))
def test_choices_are_inside_and_alike_at_both_ends(count: int, number: int) -> None:
    middle = Slices(which="middle", number=number).choose(count)
    assert len(middle) == min(count, number)
    every = Slices(which="every", number=number).choose(count)
    assert len(every) == (count + number - 1) // number
    for chosen in (middle, every, Slices().choose(count)):
        assert chosen
        before, after = chosen[0], count - 1 - chosen[-1]
        assert before >= 0
        assert 0 <= after - before <= 1


def test_options() -> None:
    assert parse_slices() == Slices("axial", "all", 1)
    assert parse_slices("middle:40", "coronal") == Slices("coronal", "middle", 40)
    assert parse_slices("every:005", "sagittal") == Slices("sagittal", "every", 5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ALL",
        "all:1",
        "all ",
        "all\n",
        "middle",
        "middle:",
        "middle:0",
        "middle:00",
        "middle:-1",
        "middle:1.5",
        "middle: 3",
        "middle:3\n",
        "middle:٣",
        "every:0",
        "every:1_0",
        "every:1000000000",
        "last:3",
        "3",
    ],
)
def test_slices_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match=r"--slices [\s\S]*: give all, middle:K or every:K"):
        parse_slices(text)


@pytest.mark.parametrize("plane", ["", "Axial", "transverse", "axial "])
def test_planes_that_there_are_not(plane: str) -> None:
    with pytest.raises(UsageError, match=r"--plane .*: there are axial, coronal and sagittal$"):
        parse_slices("all", plane)


@pytest.mark.parametrize(
    ("count", "indices", "names"),
    [
        (1, [0], ["page/0"]),
        (10, [0, 9], ["page/0", "page/9"]),
        (11, [0, 9, 10], ["page/00", "page/09", "page/10"]),
        (1000, [7, 999], ["page/007", "page/999"]),
        (1001, [7], ["page/0007"]),
    ],
)
def test_names(count: int, indices: list[int], names: list[str]) -> None:
    assert list(frame_names("page", count, indices)) == names


def test_names_sort_as_their_indices_and_do_not_depend_on_the_choice() -> None:
    count = 155
    all_of_them = list(frame_names("axial", count, range(count)))
    assert all_of_them == sorted(all_of_them)
    assert all_of_them[12] == "axial/012"
    chosen = Slices(which="every", number=7).choose(count)
    assert list(frame_names("axial", count, chosen)) == [all_of_them[index] for index in chosen]
