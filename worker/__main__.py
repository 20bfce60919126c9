"""`python -m scanomaly.worker`: a Celery worker with the options that Scanomaly needs.

With --until-stdin-ends it stops when its standard input does: whoever started it holds the other end, so it
never outlives them, however they die.
"""

import argparse
import os
import signal
import sys
import threading


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker")
    parser.add_argument("--until-stdin-ends", action="store_true")
    parser.add_argument("--loglevel", default="INFO")
    options, rest = parser.parse_known_args()
    if options.until_stdin_ends:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()

    # SIGTERM then means: finish the running batch within the soft shutdown's time, or give it back. Celery reads
    # this when it is imported.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    from .app import app

    # A name of its own, so that two workers on one machine are two to `celery inspect`.
    name = f"--hostname=scanomaly-{os.getpid()}@%h"
    app.worker_main(
        ["worker", name, f"--loglevel={options.loglevel}", "--without-gossip", "--without-mingle", *rest]
    )


def _stop_with_stdin() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
