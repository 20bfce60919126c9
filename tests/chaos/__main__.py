"""`python -m tests.chaos --seeds 50 --store both`: many jobs, each disturbed in its own way."""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from .campaign import Outcome, play, table, with_scans
from .servers import DATABASES
from .verdict import Scores


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many for each store")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--store", choices=[*DATABASES, "both"], default="both")
    parser.add_argument("--jobs", type=int, default=1, help="how many worlds at one time")
    parser.add_argument("--events", action="store_true", help="print what happened in each")
    options = parser.parse_args()
    databases = list(DATABASES) if options.store == "both" else [options.store]
    seeds = range(options.first, options.first + options.seeds)
    todo = [(database, seed) for seed in seeds for database in databases]
    return with_scans(lambda scans, expected: _play_all(todo, options, scans, expected))


def _play_all(todo: Sequence[tuple[str, int]], options: argparse.Namespace, scans: Path, expected: Scores) -> int:
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(play, database, seed, scans, expected) for database, seed in todo]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                outcomes.append(outcome)
                print(outcome, *(outcome.events if options.events else []), sep="\n    ", flush=True)
                if outcome.notes:
                    print(outcome.notes, file=sys.stderr, flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            print(f"\n{table(outcomes)}" if outcomes else "nothing was played")
    return 1 if any(outcome.problems for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
