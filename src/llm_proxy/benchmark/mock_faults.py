"""What a request asks the mock to do wrong, in its `X-Mock-*` headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_options import LONGEST_WAIT_S
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.quantities import parse_duration

Encoding = Literal["gzip", "br", "deflate"]

_MOST_TOKENS = 1_000_000
_MOST_BYTES = 2**40
_ENCODINGS: dict[str, Encoding] = {"gzip": "gzip", "br": "br", "deflate": "deflate"}
_PREFIX = b"x-mock-"
_KNOWN = {
    b"x-mock-status",
    b"x-mock-retry-after",
    b"x-mock-delay",
    b"x-mock-cut",
    b"x-mock-encoding",
    b"x-mock-tokens",
    b"x-mock-stall",
    b"x-mock-corrupt",
    b"x-mock-share",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    status: int | None = None
    retry_after: str | None = None
    delay_s: float | None = None
    cut: int | None = None  # body bytes of a plain answer, events of a stream
    cut_head: bool = False  # close before the head
    encoding: Encoding | None = None
    tokens: int | None = None
    stall_after: int | None = None  # events of a stream, which then pauses once
    stall_s: float = 0.0
    corrupt: int | None = None  # a byte of a plain answer, an event of a stream; from 1
    share: float = 1.0  # of the requests, to which the others happen

    @property
    def spared(self) -> Faults:
        """For the rest of the requests: what isn't trouble stays."""
        return Faults(encoding=self.encoding, tokens=self.tokens)


NO_FAULTS = Faults()


def read_faults(request: Request) -> Faults:
    """Raises Refused for a header that can't be obeyed."""
    asked = [name for name in request.fields if name.startswith(_PREFIX)]
    if not asked:
        return NO_FAULTS
    for name in asked:
        if name not in _KNOWN:
            known = ", ".join(sorted(_title(name) for name in _KNOWN))
            raise Refused(400, f"{_title(name)} isn't a header of the mock; there are {known}.")
    cut = request.header(b"x-mock-cut")
    stall_after, stall_s = _stall(request)
    return Faults(
        status=_number(request, b"x-mock-status", least=200, most=599),
        retry_after=request.header(b"x-mock-retry-after"),
        delay_s=_delay(request),
        cut=None if cut == "head" else _number(request, b"x-mock-cut", least=0, most=_MOST_BYTES),
        cut_head=cut == "head",
        encoding=_encoding(request),
        tokens=_number(request, b"x-mock-tokens", least=1, most=_MOST_TOKENS),
        stall_after=stall_after,
        stall_s=stall_s,
        corrupt=_number(request, b"x-mock-corrupt", least=1, most=_MOST_BYTES),
        share=_share(request),
    )


def _title(name: bytes) -> str:
    return name.decode("latin-1").title()


def _number(request: Request, name: bytes, *, least: int, most: int) -> int | None:
    text = request.header(name)
    if text is None:
        return None
    return _whole(text, name, least=least, most=most)


def _whole(text: str, name: bytes, *, least: int, most: int) -> int:
    # isdecimal alone would let other scripts' digits and numbers of any length through.
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        rule = f"a whole number from {least} to {most}"
        raise Refused(400, f"{_title(name)} must be {rule}, not {text[:40]!r}.")
    return int(text)


def _delay(request: Request) -> float | None:
    text = request.header(b"x-mock-delay")
    return None if text is None else _seconds(text, b"x-mock-delay")


def _seconds(text: str, name: bytes) -> float:
    try:
        seconds = parse_duration(text, bare_unit="s")
    except ValueError as exc:
        raise Refused(400, f"{_title(name)}: {exc}.") from exc
    if seconds > LONGEST_WAIT_S:
        raise Refused(
            400, f"{_title(name)} must be at most {LONGEST_WAIT_S:.0f}s, not {text[:40]!r}."
        )
    return seconds


def _stall(request: Request) -> tuple[int | None, float]:
    """After how many events, and for how many seconds."""
    text = request.header(b"x-mock-stall")
    if text is None:
        return None, 0.0
    events, colon, wait = text.partition(":")
    if not colon:
        rule = "a number of events and a wait, such as 5:300ms"
        raise Refused(400, f"X-Mock-Stall must be {rule}, not {text[:40]!r}.")
    after = _whole(events, b"x-mock-stall", least=0, most=_MOST_BYTES)
    return after, _seconds(wait, b"x-mock-stall")


def _share(request: Request) -> float:
    text = request.header(b"x-mock-share")
    if text is None:
        return 1.0
    number, percent, rest = text.partition("%")
    if not percent or rest:
        raise Refused(400, f"X-Mock-Share must be a percentage, such as 10%, not {text[:40]!r}.")
    return _whole(number, b"x-mock-share", least=1, most=100) / 100


def _encoding(request: Request) -> Encoding | None:
    text = request.header(b"x-mock-encoding")
    if text is None:
        return None
    if text not in _ENCODINGS:
        raise Refused(400, f"X-Mock-Encoding must be gzip, br or deflate, not {text[:40]!r}.")
    return _ENCODINGS[text]
