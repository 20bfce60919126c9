"""What pictures take of memory: what is announced is an upper bound, and hostile strips and tiles take nothing."""

import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from scanomaly.models.settings import Settings
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.images import ImageFailure
from tests.formats.making import raw_tiff, tiff
from tests.pictures import decode

BOMBS = {
    "deflate": (8, lambda: zlib.compress(bytes(60_000_000), 1)),
    "zstd": (50000, lambda: imagecodecs.zstd_encode(bytes(60_000_000))),
    "png": (34933, lambda: imagecodecs.png_encode(np.zeros((5_000, 5_000), np.uint16), level=1)),
    "jpeg": (7, lambda: imagecodecs.jpeg8_encode(np.zeros((5_000, 5_000), np.uint16), bitspersample=12)),
    "jpeg2000": (34712, lambda: imagecodecs.jpeg2k_encode(np.zeros((4_000, 4_000), np.uint16))),
    "jpegxl": (50002, lambda: imagecodecs.jpegxl_encode(np.zeros((4_000, 4_000), np.uint16), effort=1)),
    "lerc": (34887, lambda: imagecodecs.lerc_encode(np.zeros((5_000, 5_000), np.uint16))),
}

PROGRAM = """
    import re, sys
    from pathlib import Path
    from scanomaly.models.intensity import Intensity
    from scanomaly.worker.encoding.formats.opening import open_content
    from scanomaly.worker.encoding.images import ImageFailure

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

    for path in map(Path, sys.argv[1:]):
        data, said = path.read_bytes(), []
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = peak()
        try:
            content = open_content(data, Intensity("auto"), 100_000_000, lambda size: None, False)
            content.picture(None, lambda size, need: said.append(need))
        except ImageFailure:
            said.append(0)
        print(path.name, said[-1], peak() - before)
"""


def measured(folder: Path, files: dict[str, bytes]) -> dict[str, tuple[int, int]]:
    """By name: what was announced, 0 where it failed; and what was taken, in a process of its own."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), *(str(folder / name) for name in files)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = (line.split() for line in result.stdout.splitlines())
    return {name: (int(said), int(taken)) for name, said, taken in lines}


def png_of_grey_and_alpha(grey: np.ndarray) -> bytes:
    return imagecodecs.png_encode(np.dstack([grey, grey]))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is measured by /proc")
class TestMemory:
    def test_a_bomb_costs_no_more_than_its_page(self, tmp_path: Path) -> None:
        files = {
            name: raw_tiff(make(), [16], {262: (3, [1]), 259: (3, [codec])})
            for name, (codec, make) in BOMBS.items()
        }
        for name, (_, taken) in measured(tmp_path, files).items():
            assert taken < 20_000_000, name

    def test_is_announced(self, tmp_path: Path) -> None:
        """An upper bound, at 1.5 million pixels."""
        grey = np.tile(np.random.default_rng(0).integers(0, 4096, (50, 50), np.uint16), (20, 30))
        colours = np.dstack([grey] * 3)
        files = {
            "plain": tiff(grey, photometric="minisblack"),
            "big-endian": tiff(grey, photometric="minisblack", byteorder=">"),
            "doubles": tiff(
                grey.astype(np.float64),
                photometric="miniswhite",
                compression="zstd",
                compressionargs={"level": 1},
                predictor=3,
            ),
            "packed": tiff(grey, photometric="minisblack", bitspersample=12),
            "channels": tiff(np.dstack([colours, colours]), photometric="minisblack", planarconfig="contig"),
            "colours": tiff(colours, photometric="rgb", compression="lzw", predictor=2),
            "wide-colours": tiff(colours.astype(np.float32), photometric="rgb"),
            "turned": tiff(grey, photometric="minisblack", extratags=[(274, 3, 1, 6, True)]),
            "jpeg2000": tiff(grey, photometric="minisblack", compression="jpeg2000"),
            "jpegxl": tiff(grey, photometric="minisblack", compression="jpegxl", compressionargs={"effort": 1}),
            "alpha.png": png_of_grey_and_alpha(grey),
            "grey-12.jpg": imagecodecs.jpeg8_encode(grey, bitspersample=12),
            "colours-12.jpg": imagecodecs.jpeg8_encode(colours, bitspersample=12),
            "lossless.jpg": imagecodecs.jpeg8_encode(colours, bitspersample=16, lossless=True),
            "ls.jpg": imagecodecs.jpegls_encode(grey),
            "tiles": tiff(grey, photometric="minisblack", tile=(256, 256), compression="deflate"),
        }
        for name, (said, taken) in measured(tmp_path, files).items():
            assert taken <= said, (name, said, taken)

    def test_the_largest_page_of_16_bits_fits_into_the_default_memory(self) -> None:
        settings = Settings()
        width, height = 10_000, settings.max_pixels // 10_000
        tags = {256: (4, [width]), 257: (4, [height]), 262: (3, [1])}
        told: list[int] = []

        def tell(size: tuple[int, int], need: int) -> None:
            told.append(need)
            raise ImageFailure(FailureKind.TOO_LARGE, "No.")

        with pytest.raises(ImageFailure):
            decode(raw_tiff(b"", [16], tags), settings.max_pixels, tell)
        assert told[0] + 2 * width * height < settings.batch_memory
