"""The units of scans, against all pairs compared one by one."""

import numpy as np
import pytest
from numpy.typing import NDArray

from scanomaly.worker.scoring import units as module
from scanomaly.worker.scoring.units import NEAR_BITS, have_structure, near_groups, units

Hashes = NDArray[np.uint64]


def number(bits: NDArray[np.integer]) -> int:
    return sum(1 << int(bit) for bit in bits)


def draw(count: int, seed: int = 0) -> Hashes:
    """Hashes as pictures have them: half of the bits are set."""
    random = np.random.default_rng(seed)
    return np.array([number(random.choice(64, 32, replace=False)) for _ in range(count)], dtype=np.uint64)


def moved(value: np.uint64, swaps: int, random: np.random.Generator) -> np.uint64:
    """The hash with so many bits set less and as many more: 2 · swaps bits away."""
    bits = np.array([int(value) >> bit & 1 for bit in range(64)])
    flipped = [random.choice(np.flatnonzero(bits == bit), swaps, replace=False) for bit in (0, 1)]
    return value ^ np.uint64(number(np.concatenate(flipped)))


def planted(seed: int) -> Hashes:
    """Chains of hashes, each 2 to 6 bits away from another."""
    random = np.random.default_rng(seed)
    hashes = list(draw(60, seed))
    for _ in range(240):
        hashes.append(moved(hashes[random.integers(len(hashes))], int(random.integers(0, 4)), random))
    return np.array(hashes, dtype=np.uint64)[random.permutation(len(hashes))]


def joined(together: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of all pairs (n, n) are connected in any number of steps."""
    reach = together | np.eye(len(together), dtype=bool)
    while True:
        further = reach @ reach
        if (further == reach).all():
            return reach
        reach = further


def near(hashes: Hashes) -> NDArray[np.bool_]:
    return np.asarray(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= NEAR_BITS)


def same(numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
    return np.asarray(numbers[:, None] == numbers[None])


@pytest.mark.parametrize("seed", range(5))
def test_near_groups_are_those_of_all_pairs(seed: int):
    hashes = planted(seed)
    expected = joined(near(hashes))
    assert not (expected == same(hashes)).all()
    assert (same(near_groups(hashes)) == expected).all()


def test_no_two_near_bits_go_unseen():
    random = np.random.default_rng(1)
    hashes = draw(500)
    others = np.array([moved(value, NEAR_BITS // 2, random) for value in hashes])
    groups = near_groups(np.concatenate([hashes, others]))
    assert (groups[:500] == groups[500:]).all()
    assert groups.max() == 499


def test_a_scan_without_a_hash_is_alone():
    hashes = np.repeat(draw(1), 4)
    groups = near_groups(hashes, np.array([True, False, True, False]))
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 3


def test_a_hash_that_tells_nothing_joins_nobody():
    hashes = np.array([0, 0, 1 << 63, 1 << 63, 0x8080808080808080, 0x8080808080808080], dtype=np.uint64)
    assert not have_structure(hashes).any()
    assert sorted(near_groups(hashes)) == list(range(6))


@pytest.mark.parametrize("seed", range(3))
def test_units_are_connected_by_content_picture_and_group(seed: int):
    random = np.random.default_rng(seed)
    hashes = planted(seed)
    count = len(hashes)
    contents = random.integers(0, 2 * count, count).astype(np.uint64) + np.uint64(1 << 63)
    groups = np.where(random.random(count) < 0.5, -1, random.integers(0, count, count))
    has_hash = random.random(count) < 0.5
    alike = near(hashes) & has_hash[:, None] & has_hash[None]
    of_one_group = same(groups) & (groups >= 0)
    expected = joined(same(contents) | alike | of_one_group)
    found = units(contents, hashes, groups, has_hash)
    assert found.dtype == np.int64
    assert (same(found) == expected).all()
    assert set(found.tolist()) == set(range(found.max() + 1))
    assert not (joined(same(contents) | alike) == expected).all()
    assert not (joined(same(contents) | of_one_group) == expected).all()
    assert not (joined(alike | of_one_group) == expected).all()


def test_scans_that_nothing_connects_are_units_of_their_own():
    alone = units(np.arange(50, dtype=np.uint64), draw(50), np.full(50, -1))
    assert sorted(alone) == list(range(50))


def test_no_scans_have_no_units():
    none = np.empty(0, dtype=np.uint64)
    assert units(none, none, np.empty(0, dtype=np.int64)).shape == (0,)


def test_equal_hashes_cost_nothing():
    groups = near_groups(np.repeat(draw(2), 200_000))
    assert len(set(groups.tolist())) == 2


def test_an_overfull_bucket_is_compared_in_part(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(2)
    middle = draw(1)[0]
    hashes = np.unique([moved(middle, 2, random) for _ in range(3000)])
    assert near_groups(hashes).max() == 0
    monkeypatch.setattr(module, "_MOST_COMPARED", 10)
    pairs = sum(len(one) for one, _ in module._near_pairs(hashes))
    assert 0 < pairs <= 15 * 10 * len(hashes)
    assert len(set(near_groups(hashes).tolist())) < len(hashes) // 10
