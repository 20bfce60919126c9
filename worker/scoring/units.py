"""Which scans belong together: one that is left out takes its twins along, lest it is compared with itself."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]

NEAR_BITS = 4
"""In how many bits the perceptual hashes of two near-identical pictures may differ.

Measured on 253 brain MRI slices: all that were saved again as JPEG of quality 60 or at half the size differ in at
most 2 bits from what they were, and those made brighter by a tenth in at most 4. All pairs of different files at 2
and 4 bits show one slice; at 6 bits two of six pairs show two patients. Distances are even: see `have_structure`.
"""

_SET_BITS = 32
_BANDS = NEAR_BITS + 2
_MOST_COMPARED = 256


def units(
    contents: NDArray[np.uint64], hashes: Hashes, groups: Numbers, has_hash: NDArray[np.bool_] | None = None
) -> Numbers:
    """The unit of each scan: (n,) int64, numbered from 0. Scans are in one unit that share a content, look nearly
    identical or are of one group, or that other scans connect in such steps.

    Args:
        contents: (n,), a number for each content: the first 8 bytes of its SHA-256.
        hashes: (n,) perceptual hashes.
        groups: (n,), a number for each group (a patient, say), and -1 for a scan of none.
        has_hash: (n,), False where a scan has no perceptual hash; None where all have one.
    """
    grouped = np.flatnonzero(groups >= 0)
    here, first = _to_the_first(groups[grouped])
    links = [_to_the_first(contents), _to_the_first(near_groups(hashes, has_hash)), (grouped[here], grouped[first])]
    return _components(len(contents), links)


def near_groups(hashes: Hashes, has_hash: NDArray[np.bool_] | None = None) -> Numbers:
    """The group of each scan: (n,) int64, numbered from 0. Scans are in one group whose hashes differ in at most
    `NEAR_BITS` bits, or that other scans connect in such steps. One whose hash is not there, or tells nothing (see
    `have_structure`), is alone.

    The hashes are cut into `NEAR_BITS` + 2 bands. Two near ones are equal in two bands at least, so only those are
    compared that are (Manku, Jain & Das Sarma, Detecting Near-Duplicates for Web Crawling, WWW 2007). Where more
    than 257 different hashes are equal in the same two bands, each is compared there with the next 256 in ascending
    order only: a pair may be missed among that many look-alikes, but time and memory stay linear in n.

    Args:
        hashes: (n,) perceptual hashes.
        has_hash: (n,), False where a scan has none; None where all have one.
    """
    telling = have_structure(hashes) if has_hash is None else has_hash & have_structure(hashes)
    scans = np.flatnonzero(telling)
    different, number = np.unique(hashes[scans], return_inverse=True)
    groups = np.arange(len(hashes))
    groups[scans] = len(hashes) + _groups_of_different(different)[number]
    return np.unique(groups, return_inverse=True)[1]


def have_structure(hashes: Hashes) -> NDArray[np.bool_]:
    """Whether a hash tells what its picture shows: (n,) bool.

    Half of its bits stand for frequencies above the median, so 32 are set unless frequencies tie. They do so only
    in a picture of one colour, or of plain stripes: of such, most have the same few hashes, whatever they show.
    """
    return np.asarray(np.bitwise_count(hashes) == _SET_BITS)


def _groups_of_different(hashes: Hashes) -> Numbers:
    """(k,) from k different hashes in ascending order."""
    groups = np.arange(len(hashes))
    pending: list[tuple[Numbers, Numbers]] = []
    for one, other in _near_pairs(hashes):
        new = groups[one] != groups[other]
        pending.append((one[new], other[new]))
        if sum(len(ones) for ones, _ in pending) > len(hashes):  # so that memory does not grow with the pairs
            groups, pending = _components(len(hashes), [*pending, _to_the_first(groups)]), []
    return _components(len(hashes), [*pending, _to_the_first(groups)])


def _near_pairs(hashes: Hashes) -> Iterator[tuple[Numbers, Numbers]]:
    """Positions of near-identical hashes, in blocks of at most k pairs; a pair may come more than once."""
    bands = [sum(1 << bit for bit in range(band, 64, _BANDS)) for band in range(_BANDS)]
    for one, other in combinations(bands, 2):
        keys = hashes & np.uint64(one | other)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        left = np.arange(len(hashes))
        for step in range(1, _MOST_COMPARED + 1):
            left = left[left < len(hashes) - step]
            left = left[keys[left] == keys[left + step]]
            if not len(left):
                break
            here, there = order[left], order[left + step]
            near = np.bitwise_count(hashes[here] ^ hashes[there]) <= NEAR_BITS
            yield here[near], there[near]


def _to_the_first(numbers: NDArray[np.integer]) -> tuple[Numbers, Numbers]:
    """Links from each position to the first that holds the same number."""
    _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
    return np.arange(len(numbers)), first[which]


def _components(count: int, links: list[tuple[Numbers, Numbers]]) -> Numbers:
    """The number of the connected component of each of `count` nodes: (count,)."""
    if not count:
        return np.empty(0, dtype=np.int64)
    here, there = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(len(here), dtype=bool), (here, there)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
