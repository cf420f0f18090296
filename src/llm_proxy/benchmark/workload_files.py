"""Request bodies that are given on the command line, or in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from llm_proxy.benchmark.presets import Fields, Preset, asking_for_stream, encode_body
from llm_proxy.errors import ConfigError

MOST_PROMPTS: Final = 100_000
LARGEST_FILE: Final = 64 * 1024 * 1024  # every generator process holds all of it
_FORMS: Final = 'a string, {"prompt": …}, {"messages": […]} or a whole request body'


def read_stdin(stdin: BinaryIO) -> bytes:
    return _limited(stdin.read(LARGEST_FILE + 1), "--data @-", LARGEST_FILE)


def read_data(text: str) -> bytes:
    """`@FILE`, or the body itself. Raises ConfigError."""
    if text.startswith("@"):
        return read_file(Path(text[1:]), "--data")
    return text.encode()


def streaming_data(data: bytes, api: str) -> bytes:
    """With the field that asks for a stream, when it is a JSON object that doesn't say."""
    fields = _object(data)
    if fields is None or "stream" in fields:
        return data
    return encode_body(asking_for_stream(fields, api))


def asks_for_stream(body: bytes) -> bool:
    fields = _object(body)
    return fields is not None and fields.get("stream") is True


def read_prompts(path: Path) -> list[tuple[int, Any]]:
    """Each line with its number; blank ones are skipped. Raises ConfigError."""
    found = []
    for number, line in enumerate(read_file(path, "--prompts").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append((number, msgspec.json.decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ConfigError(
                f"{path}, line {number}: it isn't JSON ({exc}); give {_FORMS} on each line"
            ) from exc
        if len(found) > MOST_PROMPTS:
            raise ConfigError(f"{path} has more than {MOST_PROMPTS} prompts; give fewer")
    if not found:
        raise ConfigError(f"{path} holds no prompt; give {_FORMS} on each line")
    return found


def prompt_bodies(
    path: Path, preset: Preset, *, model: str | None = None, stream: bool = False
) -> tuple[bytes, ...]:
    """One request body for each line. Raises ConfigError."""
    bodies = []
    for number, line in read_prompts(path):
        try:
            fields = request_fields(line, preset)
        except ValueError as exc:
            raise ConfigError(f"{path}, line {number}: {exc}") from None
        bodies.append(preset.body(fields, model=model, stream=stream))
    return tuple(bodies)


def request_fields(line: Any, preset: Preset) -> Fields:
    """What a line of a file asks for. Raises ValueError."""
    if isinstance(line, str):
        return preset.asking(line)
    if not isinstance(line, dict):
        raise ValueError(f"it must be {_FORMS}, not {_kind(line)}")
    prompt = line.get("prompt")
    if "prompt" in line and "model" not in line:
        if not isinstance(prompt, str):
            raise ValueError(f"prompt must be a string, not {_kind(prompt)}")
        others = {name: value for name, value in line.items() if name != "prompt"}
        return {**preset.asking(prompt), **others}
    content = "messages" if preset.takes_messages else "input"
    if "model" not in line and content not in line:
        raise ValueError(f"for --preset {preset.name} it must have prompt, {content} or model")
    return line


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "true or false", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a string" if isinstance(value, str) else "a number")


def _object(body: bytes) -> Fields | None:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_file(path: Path, option: str, *, most: int = LARGEST_FILE) -> bytes:
    """Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return _limited(file.read(most + 1), f"{option} {path}", most)
    except OSError as exc:
        raise ConfigError(f"{option}: {path} can't be read ({exc.strerror})") from exc


def _limited(data: bytes, what: str, most: int) -> bytes:
    if len(data) > most:
        raise ConfigError(f"{what} is larger than {most >> 20} MiB; give less")
    return data
