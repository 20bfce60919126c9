"""Write a report again, here and now, without a queue: with more scorers, where they are named."""

import argparse
import sys
from pathlib import Path

from ..models.errors import ScanomalyError
from ..models.settings import Settings
from ..models.store import Store
from .aggregate import Aggregator


def main() -> int:
    """Returns the exit code; the error's one line goes to standard error, for the caller to print."""
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker.rebuild")
    parser.add_argument("job")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--scorer", nargs="*", default=[])
    parser.add_argument("--headline")
    options = parser.parse_args()
    try:
        settings = Settings.from_environment()
        aggregator = Aggregator(Store.open(settings), settings)
        if options.scorer:
            aggregator.add_scorers(options.job, options.scorer, options.headline)
        else:
            aggregator.rebuild(options.job, options.folder)
    except ScanomalyError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
