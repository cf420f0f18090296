"""A real process in place of the record writer, behaving as its first argument says.

good: ready, ends on SIGTERM or when its parent is gone; crash: exits; silent: never ready;
losing: good, but loses two records and then one more.
"""

from __future__ import annotations

import os
import signal
import socket
import sys


def main() -> None:
    behaviour = sys.argv[1]
    parent = socket.socket(fileno=int(sys.argv[sys.argv.index("--parent-fd") + 1]))
    if behaviour == "crash":
        os._exit(4)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    if behaviour == "good":
        parent.sendall(b"R")
    if behaviour == "losing":
        parent.sendall(b"R" + (2).to_bytes(8, "big") + (3).to_bytes(8, "big"))
    parent.recv(1)


if __name__ == "__main__":
    main()
