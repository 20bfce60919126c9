"""Sources as `submit` makes them."""

from scanomaly.models.sources.members import Limits
from scanomaly.producer.discover.pseudonyms import Pseudonyms
from scanomaly.producer.discover.scans import Files, Scans
from scanomaly.producer.discover.slices import Slices


def scans_of(files: Files, slices: Slices | None = None, limits: Limits | None = None) -> Scans:
    """What the files hold, all slices of volumes unless said otherwise."""
    limits = limits or Limits(member_bytes=1 << 30)
    return Scans(files, slices or Slices(), Pseudonyms(b"a key of the tests"), limits)
