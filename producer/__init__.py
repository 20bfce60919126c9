"""The producer's wing: finds scans, submits jobs, tells their status. Never imports torch.

`from scanomaly.producer import Client` is for other Python programs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    # When it is asked for: the command line's `--help` does not wait for the database's libraries.
    if name == "Client":
        from .client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
