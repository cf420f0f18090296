"""OpenAI's files: upload, list, look at, read, delete; kept in bounded memory."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from llm_proxy.benchmark.mock_answer import Answer, Refused
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_multipart import MultipartParser, boundary_of
from llm_proxy.benchmark.mock_prompts import created_at
from llm_proxy.benchmark.mock_request import Request

MOST_FILES = 1000
MOST_CONTENTS = 64
LARGEST_CONTENT = 1024 * 1024
_LONGEST_FIELD = 64 * 1024
_PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
_BINARY = b"application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    id: str
    size: int
    filename: str
    purpose: str

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": created_at(self.id.removeprefix("file-")),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None,
        }


class Upload:
    """The body of an upload while it arrives: keeps the fields and the file if it is small."""

    def __init__(self, content_type: str) -> None:
        self.error: str | None = None
        self.fields: dict[str, bytes] = {}
        self.filename: str | None = None
        self.size = 0
        self.content = bytearray()
        self.digest = hashlib.sha256()
        self._part = ""
        self._parser: MultipartParser | None = None
        try:
            self._parser = MultipartParser(boundary_of(content_type), self)
        except ValueError as exc:
            self.error = str(exc)

    @property
    def is_kept(self) -> bool:
        return self.size <= LARGEST_CONTENT

    def feed(self, data: bytes) -> None:
        if self._parser is None or self.error is not None:
            return
        try:
            self._parser.feed(data)
        except ValueError as exc:
            self.error = str(exc)

    def start_part(self, name: str, filename: str | None) -> None:
        self._part = name
        if name == "file":
            self.filename = (filename or "upload").encode("utf-8", "replace").decode()

    def part_data(self, data: bytes) -> None:
        if self._part != "file":
            field = self.fields.get(self._part, b"") + data
            if len(field) > _LONGEST_FIELD:
                raise ValueError(f"the field {self._part[:40]!r} is too long for a form")
            self.fields[self._part] = field
            return
        self.size += len(data)
        self.digest.update(data)
        if self.is_kept:
            self.content += data
        else:
            self.content.clear()

    def file(self) -> StoredFile:
        """Raises Refused when the form isn't complete."""
        error = self.error
        if error is None and not (self._parser and self._parser.is_complete):
            error = "the form ends before its last boundary"
        if error is not None:
            raise Refused(400, f"The upload can't be read: {error}.")
        if self.filename is None:
            raise Refused(400, "The form has no part 'file'.", param="file")
        purpose = self.fields.get("purpose", b"").decode("utf-8", "replace")
        if purpose not in _PURPOSES:
            rule = f"must be one of {', '.join(_PURPOSES)}"
            raise Refused(400, f"purpose {rule}, not {purpose[:40]!r}.", param="purpose")
        self.digest.update(f"{purpose} {self.filename}".encode())
        return StoredFile(
            id=f"file-{self.digest.hexdigest()[:24]}",
            size=self.size,
            filename=self.filename,
            purpose=purpose,
        )


class FileStore:
    def __init__(self) -> None:
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._contents: OrderedDict[str, bytes] = OrderedDict()

    def create(self, request: Request, faults: Faults) -> Answer:
        upload = request.sink
        assert isinstance(upload, Upload)  # the route says so
        file = upload.file()
        self._files[file.id] = file
        if upload.is_kept:
            self._contents[file.id] = bytes(upload.content)
        while len(self._files) > MOST_FILES:
            oldest, _ = self._files.popitem(last=False)
            self._contents.pop(oldest, None)
        while len(self._contents) > MOST_CONTENTS:
            self._contents.popitem(last=False)
        return _answer(file.as_json())

    def list(self, request: Request, faults: Faults) -> Answer:
        wanted = request.parameters()
        newest_first = wanted.get("order", "desc") == "desc"
        files = [
            file
            for file in (reversed(self._files.values()) if newest_first else self._files.values())
            if wanted.get("purpose", file.purpose) == file.purpose
        ]
        after = [index for index, file in enumerate(files) if file.id == wanted.get("after")]
        files = files[after[0] + 1 :] if after else files
        page = files[: _page_size(wanted.get("limit"))]
        return _answer(
            {
                "object": "list",
                "data": [file.as_json() for file in page],
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
                "has_more": len(page) < len(files),
            }
        )

    def get(self, request: Request, faults: Faults) -> Answer:
        return _answer(self._find(request).as_json())

    def content(self, request: Request, faults: Faults) -> Answer:
        file = self._find(request)
        content = self._contents.get(file.id)
        if content is None:
            raise Refused(
                404,
                f"The content of {file.id} was not kept: the mock keeps the last {MOST_CONTENTS} "
                f"files of at most {LARGEST_CONTENT} bytes.",
            )
        return Answer(content_type=_BINARY, body=content)

    def delete(self, request: Request, faults: Faults) -> Answer:
        file = self._find(request)
        del self._files[file.id]
        self._contents.pop(file.id, None)
        return _answer({"id": file.id, "object": "file", "deleted": True})

    def _find(self, request: Request) -> StoredFile:
        name = request.segment(2)
        file = self._files.get(name)
        if file is None:
            raise Refused(404, f"No such File object: {name[:100]}", param="id")
        return file


def _answer(value: dict[str, Any]) -> Answer:
    return Answer(body=msgspec.json.encode(value))


def _page_size(text: str | None) -> int:
    if text is None:
        return 10_000
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= 10_000):
        raise Refused(400, f"limit must be from 1 to 10000, not {text[:20]!r}.", param="limit")
    return int(text)
