"""The words of the mock's answers, and how tokens are counted: a token is a word."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

_ECHOED_WORDS = 12
_LONGEST_ECHOED_WORD = 40

_SENTENCES = tuple(
    tuple(" " + word for word in sentence.split())
    for sentence in (
        "This answer comes from a mock upstream and costs nothing.",
        "The same request always gets the same words back.",
        "No model has read your question, yet here is a sensible reply.",
        "Each word counts as one token, in the prompt and in the answer.",
        "A proxy in between should change none of these bytes.",
        "Ask again with other words and the sentences will change.",
        "Streams arrive word by word, at the pace that was asked for.",
        "Errors, delays and broken streams can be had on demand.",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """An answer as a model would stream it: joined, the pieces are the text."""

    pieces: list[str]
    was_cut: bool  # by the limit that the request set

    def __str__(self) -> str:
        return "".join(self.pieces)


def count_tokens(text: str) -> int:
    return len(text.split())


def compose(prompt: str, *, limit: int | None = None, wanted: int | None = None) -> Text:
    """Echoes the prompt, then says a few sentences that depend on it; `wanted` tokens exactly."""
    seed = zlib.crc32(prompt.encode())
    pieces = _echo(prompt)
    sentence = seed % len(_SENTENCES)
    last = sentence + 2 + (seed >> 8) % 3
    while len(pieces) < wanted if wanted is not None else sentence < last:
        pieces += _SENTENCES[sentence % len(_SENTENCES)]
        sentence += 1
    if wanted is not None:
        del pieces[wanted:]
    was_cut = limit is not None and len(pieces) > limit
    if was_cut:
        del pieces[limit:]
    return Text(pieces=pieces, was_cut=was_cut)


def _echo(prompt: str) -> list[str]:
    words = prompt.split(maxsplit=_ECHOED_WORDS)
    if not words:
        return ["You", " said", " nothing."]
    echoed = [" " + word[:_LONGEST_ECHOED_WORD] for word in words[:_ECHOED_WORDS]]
    echoed[0] = ' "' + echoed[0].lstrip()
    echoed[-1] += '".' if len(words) <= _ECHOED_WORDS else '…".'
    return ["You", " said:", *echoed]
