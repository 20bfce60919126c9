"""What else one could write: loops over the files of a folder, in a process of their own that stays warm.

`python -m bench.loops MODEL WEIGHTS PRECISION DEVICE` reads lines `LOOP<TAB>FOLDER` and answers with seconds.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scanomaly.models.settings import usable_cores

FORWARD_BATCHES = (8, 32, 64, 128, 256, 512)
EXPERT_BATCH = 64


class Loops:
    """The process with the loops: `with Loops(...) as loops: loops.time("expert", folder)`."""

    def __init__(self, model: str, weights: Path, precision: str, device: str) -> None:
        command = [sys.executable, "-m", "bench.loops", model, str(weights), precision, device]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def time(self, loop: str, folder: Path) -> float:
        """Seconds that a loop takes over all files below a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(loop, folder, sep="\t", file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def main(name: str, weights: str, precision: str, device: str) -> None:
    import open_clip
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model: Any = open_clip.create_model(name, pretrained=weights).to(device, dtype).eval()
    preprocess = open_clip.transform.image_transform(224, is_train=False)
    loops: dict[str, Callable[[list[Path]], Callable[[], None]]] = {
        "notebook": partial(_notebook, model, preprocess),
        "expert": partial(_expert, model, preprocess),
        **{f"forward {size}": partial(_forward, model, preprocess, size) for size in FORWARD_BATCHES},
        "decode": partial(_decode, preprocess),
        "read": _read,
    }
    for line in sys.stdin:
        wanted, folder = line.rstrip("\n").split("\t")
        loop = loops[wanted](sorted(path for path in Path(folder).rglob("*") if path.is_file()))
        with torch.inference_mode():
            begun = time.perf_counter()
            loop()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            print(time.perf_counter() - begun, flush=True)


def _notebook(model: Any, preprocess: Any, files: list[Path]) -> Callable[[], None]:
    """One image after the other, in float32, as the notebook has it."""
    from PIL import Image

    parameter = next(model.parameters())

    def loop() -> None:
        for file in files:
            pixels = preprocess(Image.open(file).convert("RGB")).unsqueeze(0)
            features = model.encode_image(pixels.to(parameter.device, parameter.dtype))
            (features / features.norm(dim=-1, keepdim=True)).float().cpu().numpy()

    return loop


def _expert(model: Any, preprocess: Any, files: list[Path]) -> Callable[[], None]:
    """A DataLoader whose processes decode, and batches."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    parameter = next(model.parameters())
    on_cuda = parameter.device.type == "cuda"

    class Files(Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> Any:
            return preprocess(Image.open(files[index]).convert("RGB"))

    def loop() -> None:
        workers = usable_cores()
        for pixels in DataLoader(Files(), EXPERT_BATCH, num_workers=workers, pin_memory=on_cuda):
            features = model.encode_image(pixels.to(parameter.device, parameter.dtype, non_blocking=True))
            (features / features.norm(dim=-1, keepdim=True)).float().cpu().numpy()

    return loop


def _forward(model: Any, preprocess: Any, size: int, files: list[Path]) -> Callable[[], None]:
    """The model alone: the pixels are on the device before the clock starts."""
    import torch
    from PIL import Image

    parameter = next(model.parameters())
    pixels = [preprocess(Image.open(file).convert("RGB")) for file in files]
    batches = [torch.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    ready = [batch.to(parameter.device, parameter.dtype) for batch in batches]

    def loop() -> None:
        for batch in ready:
            model.encode_image(batch)

    return loop


def _decode(preprocess: Any, files: list[Path]) -> Callable[[], None]:
    """Read, decode and resize, on all cores."""
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    def decode(file: Path) -> None:
        preprocess(Image.open(file).convert("RGB"))

    def loop() -> None:
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(decode, files))

    return loop


def _read(files: list[Path]) -> Callable[[], None]:
    """Read the bytes."""

    def loop() -> None:
        for file in files:
            file.read_bytes()

    return loop


if __name__ == "__main__":
    main(*sys.argv[1:])
