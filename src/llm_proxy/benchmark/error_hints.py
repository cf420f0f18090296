"""What each kind of error means, and what to do about it."""

from __future__ import annotations

from typing import Final

_KINDS: Final = {
    "connect": "no connection: is the target up, are backlog and file limits, also ours, enough?",
    "timeout": "no byte within --timeout, no end within --max-time or long after the run's",
    "reset": "the connection broke before an answer: look for restarts in the target's log",
    "cut": "the answer broke off half-way: the target or its upstream hung up",
    "4xx": "refused: the answer says why, try it once with curl",
    "5xx": "the target or its upstream failed: see the target's log",
    "broken stream": "the stream ended without its last event, or with an error event",
    "unsent": "due, but not sent before the end: the rate was more than could be kept up",
}
_CODES: Final = {
    "400": "the request isn't understood: try it once with curl, check --data and --endpoint",
    "401": "the token isn't accepted: check --token",
    "403": "the token may not do this: check its project and its key for this API",
    "404": "no such endpoint, or it isn't allowed: check --endpoint",
    "405": "the endpoint doesn't take this method: check --method",
    "413": "the body is too large for the target: see MAX_REQUEST_SIZE",
    "429": "a rate limit or a quota, of the target or its upstream: send less, or lift it",
    "502": "the target couldn't reach its upstream, or got a broken answer",
    "503": "the target is overloaded, draining, or keeps a broken upstream out",
    "504": "the target waited too long for its upstream",
}


def error_hint(name: str) -> str:
    """Of a kind of error, or of a status code; "" of what is no error."""
    is_code = name.isdigit()
    return _CODES.get(name) or _KINDS.get(f"{name[:1]}xx" if is_code else name, "")
