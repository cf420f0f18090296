"""multipart/form-data read piece by piece (RFC 7578), so that an upload needn't fit in memory."""

from __future__ import annotations

import enum
from email.message import Message
from typing import Protocol

_MOST_HEADER_BYTES = 16 * 1024


class PartConsumer(Protocol):
    def start_part(self, name: str, filename: str | None) -> None: ...

    def part_data(self, data: bytes) -> None: ...


class _State(enum.Enum):
    PREAMBLE = enum.auto()
    DELIMITER = enum.auto()  # the two bytes after one
    HEADERS = enum.auto()
    DATA = enum.auto()
    END = enum.auto()


def boundary_of(content_type: str) -> bytes:
    """Raises ValueError when this isn't the type of a form, or it names no boundary."""
    header = Message()
    header["content-type"] = content_type
    if header.get_content_type() != "multipart/form-data":
        raise ValueError(f"expected multipart/form-data, got {content_type[:80]!r}")
    boundary = header.get_boundary()
    if not boundary:
        raise ValueError("the content type multipart/form-data names no boundary")
    return boundary.encode("latin-1", "replace")


class MultipartParser:
    """Tells `consumer` about the parts; `feed` raises ValueError for what isn't a form."""

    def __init__(self, boundary: bytes, consumer: PartConsumer) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._consumer = consumer
        self._state = _State.PREAMBLE
        self._buffer = bytearray(b"\r\n")  # the first delimiter may stand at the very start

    @property
    def is_complete(self) -> bool:
        return self._state is _State.END

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def _step(self) -> bool:
        """Whether there may be more to do with what is in the buffer."""
        if self._state is _State.DELIMITER:
            return self._read_after_delimiter()
        if self._state is _State.HEADERS:
            return self._read_headers()
        if self._state is _State.END:
            self._buffer.clear()  # the epilogue has no meaning
            return False
        return self._read_data()

    def _read_data(self) -> bool:
        end = self._buffer.find(self._delimiter)
        found = end >= 0
        # What is left over could be the beginning of a delimiter.
        ready = end if found else max(0, len(self._buffer) - len(self._delimiter) + 1)
        if ready and self._state is _State.DATA:
            self._consumer.part_data(bytes(self._buffer[:ready]))
        del self._buffer[: ready + len(self._delimiter) if found else ready]
        if found:
            self._state = _State.DELIMITER
        return found

    def _read_after_delimiter(self) -> bool:
        if len(self._buffer) < 2:
            return False
        mark = bytes(self._buffer[:2])
        if mark not in (b"--", b"\r\n"):
            raise ValueError("a boundary of the form is followed by neither CRLF nor --")
        del self._buffer[:2]
        self._state = _State.END if mark == b"--" else _State.HEADERS
        return True

    def _read_headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > _MOST_HEADER_BYTES or (end < 0 and len(self._buffer) > _MOST_HEADER_BYTES):
            raise ValueError(f"the head of a part is longer than {_MOST_HEADER_BYTES} bytes")
        if end < 0:
            return False
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self._consumer.start_part(*_read_disposition(lines))
        self._state = _State.DATA
        return True


def _read_disposition(lines: list[bytes]) -> tuple[str, str | None]:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            header = Message()
            header["content-disposition"] = value.decode("utf-8", "replace").strip()
            field = header.get_param("name", header="content-disposition")
            if isinstance(field, str) and field:
                return field, header.get_filename()
    raise ValueError("a part of the form has no Content-Disposition with a name")
