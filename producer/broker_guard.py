"""`python broker_guard.py LOCK SERVER ARGUMENT...`: run a server until nobody holds a shared lock on a file.

A program of its own, of the standard library alone: it is still there when all users of the embedded broker were
killed, and so the server does not outlive them.
"""

import fcntl
import signal
import subprocess
import sys


def main(lock: str, command: list[str]) -> None:
    # The last user stops the server itself where it can: then there is nothing left to do here.
    signal.signal(signal.SIGCHLD, lambda _number, _frame: sys.exit())
    with open(lock, "rb") as users:
        server = subprocess.Popen(command)
        fcntl.flock(users, fcntl.LOCK_EX)
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
