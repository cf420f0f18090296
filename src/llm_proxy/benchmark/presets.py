"""Requests that are ready to be sent: an endpoint, a dialect and the body of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from llm_proxy.benchmark.agent_session import agent_session
from llm_proxy.benchmark.plan import Order

_QUESTION: Final = "What does a reverse proxy do? Answer in one sentence."
_LONGER_QUESTION: Final = "What does a reverse proxy do? Answer in five sentences."

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    name: str
    endpoint: str
    model: str
    api: str = "openai"
    prompt: str = _QUESTION
    takes_messages: bool = True
    can_stream: bool = True
    is_stream: bool = False
    key_header: str = "Authorization"
    key_scheme: str = "Bearer"
    headers: tuple[tuple[str, str], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    session: Callable[[int], tuple[Fields, ...]] | None = None  # of a seed; instead of the prompt

    @property
    def order(self) -> Order:
        return "shuffled" if self.session is None else "in turn"

    def bodies(
        self, *, seed: int, model: str | None = None, stream: bool = False
    ) -> tuple[bytes, ...]:
        """Of its own requests."""
        requests = (self.asking(self.prompt),) if self.session is None else self.session(seed)
        return tuple(self.body(fields, model=model, stream=stream) for fields in requests)

    def body(self, given: Fields, *, model: str | None = None, stream: bool = False) -> bytes:
        """`given` are fields of a request; one that names its model is complete."""
        complete = given if "model" in given else {"model": self.model, **self.fields, **given}
        if model is not None:
            complete = {**complete, "model": model}
        return encode_body(asking_for_stream(complete, self.api) if stream else complete)

    def asking(self, prompt: str) -> Fields:
        """The fields that a prompt becomes."""
        if not self.takes_messages:
            return {"input": prompt}
        return {"messages": [{"role": "user", "content": prompt}]}


def asking_for_stream(fields: Fields, api: str) -> Fields:
    """With the usage at its end, that tokens are counted as the model counts them."""
    wanted: Fields = {**fields, "stream": True}
    if api == "openai" and "messages" in fields:
        wanted.setdefault("stream_options", {"include_usage": True})
    return wanted


def encode_body(fields: Fields) -> bytes:
    return msgspec.json.encode(fields)


PRESETS: Final = {
    preset.name: preset
    for preset in (
        Preset(name="chat", endpoint="/v1/chat/completions", model="gpt-4o-mini"),
        Preset(
            name="chat-stream",
            endpoint="/v1/chat/completions",
            model="gpt-4o-mini",
            prompt=_LONGER_QUESTION,
            is_stream=True,
        ),
        Preset(
            name="agent",
            endpoint="/v1/chat/completions",
            model="gpt-4o-mini",
            session=agent_session,
        ),
        Preset(
            name="embeddings",
            endpoint="/v1/embeddings",
            model="text-embedding-3-small",
            takes_messages=False,
            can_stream=False,
        ),
        Preset(
            name="messages",
            endpoint="/v1/messages",
            model="claude-haiku-4-5",
            api="anthropic",
            key_header="x-api-key",
            key_scheme="",
            headers=(("anthropic-version", "2023-06-01"),),
            fields={"max_tokens": 256},  # the API wants to be told
        ),
    )
}
