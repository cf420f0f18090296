"""The bodies of the requests that a trace's lines ask for.

What a line asks for, in the order in which it is looked for:

1. A record of our own event log (`request_id` and `metadata`): a prompt of as many tokens is made
   up. One of another endpoint, or whose tokens aren't known, is left out.
2. `body`: a request, complete where it names its model.
3. `messages`, `prompt` or `input`: as a line of --prompts.
4. `input_length`: a prompt of so many tokens is made up.

`output_length`, or what the record says, becomes max_tokens.
"""

from __future__ import annotations

from typing import Final

from llm_proxy.benchmark.made_text import made_text
from llm_proxy.benchmark.presets import Fields, Preset
from llm_proxy.benchmark.workload_files import request_fields

FORMS: Final = "body, messages, prompt or input_length, or be a record of the event log"
_MOST_TOKENS: Final = 2_000_000
_OF_TRACE: Final = frozenset(("timestamp", "input_length", "output_length", "hash_ids"))


class TraceBodies:
    def __init__(
        self, preset: Preset, *, endpoint: str, model: str | None, stream: bool, seed: int
    ) -> None:
        self._preset = preset
        self._endpoint = endpoint.partition("?")[0]
        self._model = model
        self._stream = stream
        self._seed = seed
        self._made: dict[tuple[object, ...], bytes] = {}

    @property
    def has_made_up(self) -> bool:
        return bool(self._made)

    def body(self, line: Fields) -> bytes | None:
        """None for a record that is left out. Raises ValueError."""
        if _is_record(line):
            return self._of_record(line)
        most = _tokens(line, "output_length")
        if "body" in line:
            if not isinstance(line["body"], dict):
                raise ValueError("body must be an object, the body of a request")
            return self._encoded(self._limited(line["body"], most), self._stream)
        if any(name in line for name in ("messages", "prompt", "input")):
            own = {name: value for name, value in line.items() if name not in _OF_TRACE}
            fields = self._limited(request_fields(own, self._preset), most)
            return self._encoded(fields, self._stream)
        length = _tokens(line, "input_length")
        if length is None:
            raise ValueError(f"it must have {FORMS}")
        return self._made_up(length, most, stream=self._stream)

    def _of_record(self, line: Fields) -> bytes | None:
        endpoint, metadata = line.get("endpoint"), line["metadata"]
        length = _tokens(metadata, "prompt_tokens")
        if length is None or not (endpoint and self._endpoint.endswith(str(endpoint))):
            return None
        model = metadata.get("model")
        return self._made_up(
            length,
            _tokens(metadata, "completion_tokens"),
            stream=self._stream or (line.get("stream") is True and self._preset.can_stream),
            model=model if isinstance(model, str) else None,
        )

    def _made_up(
        self, length: int, most: int | None, *, stream: bool, model: str | None = None
    ) -> bytes:
        """Made once: traces have the same lengths again and again."""
        made = length, most, stream, model
        if made not in self._made:
            own = {"model": model, **self._preset.fields} if model else {}
            asked = self._preset.asking(made_text(max(1, length), f"{self._seed}/{length}/{most}"))
            self._made[made] = self._encoded(self._limited({**own, **asked}, most), stream)
        return self._made[made]

    def _encoded(self, fields: Fields, stream: bool) -> bytes:
        return self._preset.body(fields, model=self._model, stream=stream)

    def _limited(self, fields: Fields, most: int | None) -> Fields:
        """An API that answers with text can be told how long."""
        if most is None or not self._preset.takes_messages:
            return fields
        return {**fields, "max_tokens": max(1, most)}


def _is_record(line: Fields) -> bool:
    return "request_id" in line and isinstance(line.get("metadata"), dict)


def _tokens(fields: Fields, name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
        raise ValueError(f"{name} must be a whole number from 0 to {_MOST_TOKENS}")
    return value
