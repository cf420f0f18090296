"""`llm-proxy openai chat` in a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping

_LIMIT_S = 60.0
_LAUNCH = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'llm_proxy', *sys.argv[1:]])\n"
)
_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|.)")


class OpenAITerminal:
    def __init__(self, *arguments: str, environ: Mapping[str, str]) -> None:
        self._terminal, end = os.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, "openai", "chat", *arguments],
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            env={**environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(end)
        self._deadline = time.monotonic() + _LIMIT_S
        self._raw = b""
        self._seen = 0

    def read_until(self, text: str) -> str:
        """What is shown from here to `text`, without colours; a later call goes on behind it."""
        while (at := self.shown.find(text, self._seen)) < 0:
            assert self._read(), self.shown
        found = self.shown[self._seen : at + len(text)]
        self._seen = at + len(text)
        return found

    def send(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait(self) -> int:
        while self._read():
            pass
        return self.process.wait(max(0.1, self._deadline - time.monotonic()))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)

    @property
    def shown(self) -> str:
        return _SEQUENCE.sub("", self._raw.decode("utf-8", "ignore")).replace("\r", "")

    @property
    def shows_cursor(self) -> bool:
        return self._raw.rfind(b"\x1b[?25h") > self._raw.rfind(b"\x1b[?25l")

    def _read(self) -> bool:
        """False at the end, and when the time is over."""
        left = self._deadline - time.monotonic()
        if left <= 0 or not select.select([self._terminal], [], [], left)[0]:
            return False
        with contextlib.suppress(OSError):  # how Linux tells the end
            piece = os.read(self._terminal, 65536)
            self._raw += piece
            return bool(piece)
        return False
