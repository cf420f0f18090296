"""Server-sent events on their way to metadata: cut anywhere, they are the same events."""

from __future__ import annotations

import zlib

from fuzz.target import Target, must
from llm_proxy.dispatcher.decoding import Decoder
from llm_proxy.dispatcher.metadata import (
    JsonMetadata,
    Metadata,
    StreamMetadata,
    metadata_of_json,
)
from llm_proxy.dispatcher.sse import EventBlocks, event_data, events_with


def run(data: bytes) -> None:
    step, body = (data[0] % 9 + 1 if data else 1), data[1:]
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    events = _events(pieces)
    must(_events([body]) == events, "cut elsewhere they are other events")
    must(events == _by_the_book(body), "another reader sees other events")
    must(_stream_metadata([body]) == _stream_metadata(pieces), "metadata depends on the cuts")
    _read_json(pieces)
    _decode(body, pieces)


def _events(pieces: list[bytes]) -> list[bytes]:
    blocks = EventBlocks()
    text = b"".join(blocks.feed(piece) for piece in pieces) + blocks.finish()
    events = [event for part in text.split(b"\n\n") if (event := part.strip(b"\n"))]
    with_data = [event for event in events if b"data" in event]
    found = [event.strip(b"\n") for event in events_with(text, b"data")]
    must(found == with_data, "events are found otherwise")
    return events


def _by_the_book(body: bytes) -> list[bytes]:
    """The standard's line ends, one line after the other; an event is lines without a blank."""
    text = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found: list[bytes] = []
    lines: list[bytes] = []
    for line in [*text.split(b"\n"), b""]:
        if line:
            lines.append(line)
        elif lines:
            found.append(b"\n".join(lines))
            lines = []
    return found


def _stream_metadata(pieces: list[bytes]) -> Metadata:
    reader = StreamMetadata()
    for piece in pieces:
        reader.feed(piece)
    for event in _by_the_book(b"".join(pieces)):
        event_data(event)
    return reader.finish()


def _read_json(pieces: list[bytes]) -> None:
    reader = JsonMetadata()
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    metadata_of_json(b"".join(pieces))


def _decode(body: bytes, pieces: list[bytes]) -> None:
    for coding in ("gzip", "deflate", "br", "gzip, br"):
        b"".join(Decoder(coding).decode(body))  # whatever it is, nothing is raised
    packed = zlib.compress(body)
    decoder = Decoder("deflate")
    half = len(packed) // 2
    unpacked = b"".join((*decoder.decode(packed[:half]), *decoder.decode(packed[half:])))
    must(unpacked == body == b"".join(pieces), "decoded it is another body")


TARGET = Target(
    covers=("llm_proxy.dispatcher.sse", "llm_proxy.dispatcher.metadata"),
    run=run,
    words=(
        *(b"data: ", b"\n\n", b"\r\n\r\n", b"\r\r", b"\r", b"event: ", b"[DONE]", b"\xef\xbb\xbf"),
        *(b'"usage":', b'"model":"m"', b'"prompt_tokens":1', b'"usage":null', b'"message":{'),
        *(b'"completion_tokens":2', b'"input_tokens":3', b'"output_tokens":4', b'"created":1'),
        *(b'"response":{', b'"type":"message_delta"', b"\x1f\x8b\x08\x00", b"\x78\x9c"),
    ),
    seeds=(
        b'\x00data: {"model":"m","usage":null}\n\n'
        b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
        b'\x03event: message_start\r\ndata: {"type":"message_start","message":{"model":"m",'
        b'"usage":{"input_tokens":3}}}\r\n\r\nevent: message_delta\r\n'
        b'data: {"type":"message_delta","usage":{"output_tokens":4}}\r\n\r\n',
        b'\x05data: {"response":{"model":"m","usage":{"input_tokens":3,"output_tokens":4}}}\r\r',
        b'\x02{"model":"m","created":1,"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    ),
)
