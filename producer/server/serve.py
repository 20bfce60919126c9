"""Runs the service until it is told to stop."""

import gc
import logging
import os
import resource
import signal
import socket

import uvicorn

from ...models.errors import UsageError
from ...models.interrupts import when_told_to_stop
from ...models.settings import Settings
from .access import is_loopback
from .app import make_app
from .protocol import BoundedProtocol

logger = logging.getLogger(__name__)

_MOST_CONNECTIONS = 2000
_OTHER_FILES = 100
"""Open at one time beside connections: the store, reports, submissions."""
_STOP_SECONDS = 5


def serve_forever(
    settings: Settings, host: str, port: int, tls_cert: str | None = None, tls_key: str | None = None
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP.

    Args:
        settings: the settings.
        host: the address to listen on.
        port: 0 takes a free one.
        tls_cert: a certificate's file, for HTTPS.
        tls_key: its key's file.

    Raises:
        UsageError: it would be open to other machines without a token, or cannot listen there.
        StoreUnreachableError, SchemaError: the store cannot be used.
    """
    if not is_loopback(host) and settings.api_token is None:
        raise UsageError(
            f"{host} can be reached from other machines, which needs a token: set SCANOMALY_API_TOKEN "
            "(`openssl rand -hex 32` makes one), or leave out --host"
        )
    app = make_app(settings)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    listening = _listen(host, port)
    connections = _connections()
    BoundedProtocol.idle.most = connections // 2
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.api_proxies),
        forwarded_allow_ips=list(settings.api_proxies),
        limit_concurrency=connections,
        timeout_graceful_shutdown=_STOP_SECONDS,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
    )
    server = _Server(config)
    when_told_to_stop(server.handle_exit)  # uvicorn sets two of them, and not before it has started
    scheme = "https" if tls_cert else "http"
    shown = f"[{host}]" if ":" in host else host
    logger.info("serving on %s://%s:%d", scheme, shown, listening.getsockname()[1])
    if not settings.api_roots:
        logger.info("it takes no jobs: name folders with --root or SCANOMALY_API_ROOTS")
    gc.freeze()  # what is loaded by now stays: the collector need not look at it again and again
    server.run(sockets=[listening])
    logger.info("stopped")
    logging.shutdown()
    os._exit(0)  # Python would wait for a thread that waits for a database, for as long as that does not answer


class _Server(uvicorn.Server):
    """Ends the streams before it waits for them, and ends well when it is told to stop."""

    def handle_exit(self, sig: int, frame: object) -> None:
        # Not uvicorn's own, which raises the signal again at the end.
        service = getattr(self.config.app.state, "service", None)  # type: ignore[union-attr]
        if service is not None:
            service.stop()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _connections() -> int:
    """How many there may be, with the number of open files that the system lets this process have."""
    wanted = 2 * _MOST_CONNECTIONS + _OTHER_FILES  # those that are being closed count too
    soft, hard = (
        wanted if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if soft < wanted:
        soft = max(soft, min(hard, wanted))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return max(2, min(_MOST_CONNECTIONS, (soft - _OTHER_FILES) // 2))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        # Python's own text of some repeats the address.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UsageError(f"cannot listen on {host}:{port} ({reason}): name another --host or --port") from None
