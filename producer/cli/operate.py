"""Commands for whoever runs the machines: worker, serve, store, doctor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import cloup

from ...models.errors import UsageError
from ...models.settings import Settings
from .options import AS_JSON, DEBUG, DEVICE, encoder_options, examples
from .output import open_store, print_json
from .terminal import plain


@cloup.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "scanomaly worker",
        "scanomaly worker --devices all",
        "scanomaly worker --device cpu",
        more="docs/deployment.md",
    ),
)
@DEVICE
@click.option(
    "--devices", metavar="LIST", help="Be a worker on each: all (of CUDA's), or a list such as cuda:0,cuda:1."
)
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
@DEBUG
def worker(device: str | None, devices: str | None, celery_options: Sequence[str]) -> int:
    """Be a worker until stopped: on a GPU when there is one.

    CELERY_OPTIONS go to `celery worker` as they are.
    """
    import os

    from ..local import serve

    if device is not None and devices is not None:
        raise click.UsageError("--device and --devices exclude each other: give one or the other")
    if device is not None:
        os.environ["SCANOMALY_DEVICE"] = device
    settings = Settings.from_environment()
    arguments = [*celery_options] if devices is None else ["--devices", devices, *celery_options]
    with open_store(settings) as store:
        return serve(settings, store, arguments)


@cloup.command(epilog=examples("scanomaly serve --root /data/scans", more="docs/service.md"))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8321, show_default=True, help="0 takes a free one.")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder below which jobs may take scans from; SCANOMALY_API_ROOTS.",
)
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="A certificate: speak HTTPS.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its private key.")
@DEBUG
def serve(host: str, port: int, roots: tuple[Path, ...], tls_cert: str | None, tls_key: str | None) -> int:
    """Let other programs and browsers submit and follow jobs, by HTTP.

    Beyond this machine (--host) it asks for the token SCANOMALY_API_TOKEN, and does not start without one.
    """
    from dataclasses import replace

    settings = Settings.from_environment()
    if roots:
        settings = replace(settings, api_roots=tuple(root.absolute() for root in roots))
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    try:
        from ..server.serve import serve_forever
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'scanomaly[server]'") from None
    serve_forever(settings, host, port, tls_cert, tls_key)
    return 0


@cloup.group(epilog=examples("scanomaly store check", "scanomaly store upgrade", more="docs/deployment.md"))
def store() -> None:
    """Look after the store's schema."""


@store.command("check")
@AS_JSON
@DEBUG
def store_check(as_json: bool) -> int:
    """Tell whether the store's schema is this program's."""
    return _store_schema(upgrade=False, as_json=as_json)


@store.command("upgrade")
@AS_JSON
@DEBUG
def store_upgrade(as_json: bool) -> int:
    """Bring an older schema to this program's version. Stop the workers first, and keep a copy of the database."""
    return _store_schema(upgrade=True, as_json=as_json)


def _store_schema(upgrade: bool, as_json: bool) -> int:
    from ...models.database import SCHEMA_VERSION
    from ...models.store import Store

    opened = Store.open(Settings.from_environment(), upgrade, read_only=not upgrade)
    before, name = opened.schema_before, opened.name
    opened.close()
    made = upgrade or before is not None
    if as_json:
        print_json({"store": name, "schema_before": before, "schema": SCHEMA_VERSION if made else None})
    elif not made:
        click.echo(f"there is no store {name} yet: the first job makes it")
    elif before == SCHEMA_VERSION:
        click.echo(f"the store {name} has schema {SCHEMA_VERSION}, as this program needs it")
    else:
        done = "was made" if before is None else f"was upgraded from schema {before}"
        click.echo(f"the store {name} {done}: it has schema {SCHEMA_VERSION}")
    return 0


@cloup.command(
    epilog=examples("scanomaly doctor", "scanomaly doctor --encoder efficientnet_lite0", more="docs/settings.md")
)
@encoder_options
@AS_JSON
@DEBUG
def doctor(as_json: bool, **options: Any) -> int:
    """Tell what works here: disk, store, broker, worker, device, encoder."""
    from ..doctor import run_checks
    from ..submit import make_request

    settings = Settings.from_environment()
    checks = run_checks(settings, make_request("", settings, **options).encoder)
    if as_json:
        print_json({"ok": all(c.ok for c in checks), "checks": [vars(check) for check in checks]})
    else:
        for check in checks:
            click.echo(plain(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<8}  {check.detail}"))
    return 0 if all(check.ok for check in checks) else 1
