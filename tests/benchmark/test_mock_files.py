from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.benchmark import mock_files
from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_faults import NO_FAULTS
from llm_proxy.benchmark.mock_files import FileStore, Upload
from llm_proxy.benchmark.mock_request import Request

TYPE = "multipart/form-data; boundary=XX"


def _form(content: bytes, *, purpose: str = "batch", filename: str = "a.jsonl") -> bytes:
    return (
        b'--XX\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n%b\r\n--XX--\r\n'
    ) % (filename.encode(), content, purpose.encode())


def _upload(store: FileStore, body: bytes, content_type: str = TYPE) -> Any:
    request = Request("POST", b"/v1/files", [])
    request.sink = Upload(content_type)
    for start in range(0, len(body), 65_536):
        request.feed(body[start : start + 65_536])
    return json.loads(store.create(request, NO_FAULTS).body)


def _list(store: FileStore, query: str = "") -> Any:
    request = Request("GET", f"/v1/files?{query}".encode(), [])
    return json.loads(store.list(request, NO_FAULTS).body)


def _at(file_id: str) -> Request:
    return Request("GET", f"/v1/files/{file_id}/content".encode(), [])


def test_an_upload_can_be_looked_at_and_read() -> None:
    store = FileStore()
    file = _upload(store, _form(b"line\n"))
    assert (file["bytes"], file["filename"], file["purpose"]) == (5, "a.jsonl", "batch")
    assert json.loads(store.get(_at(file["id"]), NO_FAULTS).body) == file
    assert store.content(_at(file["id"]), NO_FAULTS).body == b"line\n"


def test_the_same_upload_is_the_same_file() -> None:
    one, two = FileStore(), FileStore()
    assert _upload(one, _form(b"x")) == _upload(one, _form(b"x")) == _upload(two, _form(b"x"))
    assert len(_list(one)["data"]) == 1
    assert _upload(one, _form(b"y"))["id"] != _upload(one, _form(b"x"))["id"]


def test_a_deleted_file_is_gone() -> None:
    store = FileStore()
    file_id = _upload(store, _form(b"x"))["id"]
    assert json.loads(store.delete(_at(file_id), NO_FAULTS).body)["deleted"] is True
    for ask in (store.get, store.content, store.delete):
        with pytest.raises(Refused, match="No such File object") as raised:
            ask(_at(file_id), NO_FAULTS)
        assert raised.value.status == 404


def test_a_large_file_is_counted_but_its_content_is_not_kept() -> None:
    store = FileStore()
    size = mock_files.LARGEST_CONTENT + 1
    file = _upload(store, _form(bytes(size)))
    assert file["bytes"] == size
    with pytest.raises(Refused, match="was not kept"):
        store.content(_at(file["id"]), NO_FAULTS)


def test_memory_is_bounded_by_forgetting_the_oldest() -> None:
    store = FileStore()
    ids = [
        _upload(store, _form(b"%d" % number))["id"] for number in range(mock_files.MOST_FILES + 2)
    ]
    listed = [file["id"] for file in _list(store, "order=asc")["data"]]
    assert listed == ids[2:]
    assert store.content(_at(ids[-mock_files.MOST_CONTENTS]), NO_FAULTS).body
    with pytest.raises(Refused, match="was not kept"):
        store.content(_at(ids[-mock_files.MOST_CONTENTS - 1]), NO_FAULTS)


def test_lists_are_newest_first_and_come_in_pages() -> None:
    store = FileStore()
    ids = [_upload(store, _form(b"%d" % number))["id"] for number in range(5)][::-1]
    first = _list(store, "limit=2")
    assert [file["id"] for file in first["data"]] == ids[:2]
    assert first["has_more"] is True
    rest = _list(store, f"limit=3&after={first['last_id']}")
    assert [file["id"] for file in rest["data"]] == ids[2:]
    assert rest["has_more"] is False


def test_lists_can_be_narrowed_to_a_purpose() -> None:
    store = FileStore()
    _upload(store, _form(b"x"))
    vision = _upload(store, _form(b"x", purpose="vision"))
    assert _list(store, "purpose=vision")["data"] == [vision]
    assert _list(store, "purpose=fine-tune")["first_id"] is None


@pytest.mark.parametrize("limit", ["0", "x", "10001", "999999999"])
def test_a_bad_page_size_is_refused(limit: str) -> None:
    with pytest.raises(Refused, match="limit must be from 1 to 10000"):
        _list(FileStore(), f"limit={limit}")


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"{}", "application/json", "expected multipart/form-data"),
        (_form(b"x")[:-8], TYPE, "ends before its last boundary"),
        (b"--XXoops" + bytes(100_000), TYPE, "neither CRLF nor --"),
        (_form(b"x", purpose="fun"), TYPE, "purpose must be one of assistants.* not 'fun'"),
        (_form(b"x", purpose="x" * 100_000), TYPE, "the field 'purpose' is too long"),
        (_form(b"x").replace(b'"file"', b'"data"'), TYPE, "no part 'file'"),
    ],
)
def test_an_upload_that_cannot_be_read_is_400(body: bytes, content_type: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as raised:
        _upload(FileStore(), body, content_type)
    assert raised.value.status == 400
