"""Write a report again, here and now, without a queue: with more scorers, where they are named."""

import argparse
import sys
from pathlib import Path

from ..models.settings import Settings
from ..models.store import Store
from .aggregate import Aggregator
from .answer import answer, say


def main() -> int:
    """Write the report. Returns the exit code: see `answer`."""
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker.rebuild")
    parser.add_argument("job")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--scorer", nargs="*", default=[])
    parser.add_argument("--headline")
    options = parser.parse_args()

    def work() -> None:
        settings = Settings.from_environment()
        aggregator = Aggregator(Store.open(settings), settings, begins=lambda _job, stage: say(stage))
        if options.scorer:
            aggregator.add_scorers(options.job, options.scorer, options.headline)
        else:
            aggregator.rebuild(options.job, options.folder)

    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
