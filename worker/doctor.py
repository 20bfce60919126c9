"""`python -m scanomaly.worker.doctor`: what this machine's worker can do, as one JSON document on stdout.

The producer's side runs it as a subprocess, because it never imports the worker. The exit code is 0 even when
something is wrong: the document says so.
"""

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from ..models.encoders import DEFAULT_ENCODER, EncoderSpec, parse_encoder
from ..models.errors import EncoderError, ScanomalyError
from ..models.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the document. Its keys:

    torch, open_clip: versions, or null
    device: `cpu`, or `cuda:0` and the product's name, or null
    precision: what suits the device, or null
    encoder_key: or null
    weights: `ok` (they are on this machine), `path` (or null), `detail` (one sentence)
    remarks: sentences for who chose the encoder
    ok: a worker here can embed; if the weights are still to be fetched, the hub answers
    error, error_type: one line and the name of its class in models/errors.py, or null
    """
    options = parser().parse_args(arguments)
    with _only_this_on_stdout() as stdout:
        document = examine(options)
        stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        stdout.flush()
    return 0


def examine(options: argparse.Namespace) -> dict[str, Any]:
    """The document of `main`."""
    document: dict[str, Any] = {
        "torch": _version("torch"),
        "open_clip": _version("open_clip_torch"),
        "device": None,
        "precision": None,
        "encoder_key": None,
        "weights": {"ok": False, "path": None, "detail": "Not looked at."},
        "remarks": [],
        "ok": False,
        "error": None,
        "error_type": None,
    }
    try:
        _fill(document, options)
        document["ok"] = True
    except ScanomalyError as error:
        document["error"], document["error_type"] = str(error), type(error).__name__
        if not document["weights"]["ok"]:
            document["weights"]["detail"] = str(error)
    except Exception as error:  # a fault of this program: whoever called still gets a document
        traceback.print_exc()
        reason = " ".join(str(error).split())[:200]
        document["error"], document["error_type"] = f"unexpected {type(error).__name__}: {reason}", "ScanomalyError"
    return document


def _fill(document: dict[str, Any], options: argparse.Namespace) -> None:
    settings = Settings.from_environment()
    spec = parse_encoder(options.encoder, options.weights, options.precision)
    document["encoder_key"] = spec.key
    encoder = _import_encoder()
    device = options.device or settings.device
    document["device"] = encoder.describe_device(device)
    document["precision"] = encoder.best_precision(device)
    document["remarks"] = [note for note in [encoder.remark(spec)] if note]
    document["weights"] = _weights(spec, encoder, options.fetch, settings.hub_seconds)
    if options.load:
        encoder.load_encoder(spec, device, settings.hub_seconds)


def _weights(spec: EncoderSpec, encoder: Any, download: bool, hub_seconds: float) -> dict[str, Any]:
    from .encoding import weights

    if spec.offline:
        path = encoder.offline_weights(spec)
        return {"ok": True, "path": str(path), "detail": "They come with an installed package."}
    if spec.weights_file:
        encoder.check_weights_file(spec)
        return {"ok": True, "path": spec.weights_file, "detail": "A file of this machine."}
    repo, filename = encoder.hub_source(spec)
    path = weights.cached(repo, filename)
    if path is not None:
        return {"ok": True, "path": str(path), "detail": f"{repo} is in the local cache."}
    if download:
        path = weights.fetch(repo, filename, hub_seconds)
        return {"ok": True, "path": str(path), "detail": f"{repo} was fetched from the hub."}
    weights.available(repo, filename, hub_seconds)
    return {"ok": False, "path": None, "detail": f"{repo} is not in the local cache; the hub answers and has it."}


def _import_encoder() -> Any:
    """The module that imports torch.

    Raises:
        EncoderError: torch and its companions are absent, or do not fit together.
    """
    try:
        from .encoding import encoder
    except ModuleNotFoundError as error:
        raise EncoderError(f"the package {error.name} is missing: pip install 'scanomaly[worker]'") from error
    except Exception as error:  # versions of torch and torchvision that do not match raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(f"torch and open_clip cannot be imported here ({reason}): install them anew") from error
    return encoder


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def _only_this_on_stdout() -> Iterator[IO[str]]:
    """Yield the real stdout while whatever else writes there, C code too, reaches stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(kept, "w", encoding="utf-8", closefd=False) as stdout:
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def parser() -> argparse.ArgumentParser:
    """The command line of `main`."""
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker.doctor", description=__doc__)
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, metavar="NAME")
    parser.add_argument("--weights", type=Path, metavar="FILE")
    parser.add_argument("--precision", default="fp32", metavar="P")
    parser.add_argument("--device", metavar="D", help="default: SCANOMALY_DEVICE, else auto")
    parser.add_argument("--fetch", action="store_true", help="download weights that are missing")
    parser.add_argument("--load", action="store_true", help="also load the encoder and embed a grey picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
