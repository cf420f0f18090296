"""From what went wrong to one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil

from llm_proxy.chat.plain_text import clean_line
from llm_proxy.chat.problem import Problem
from llm_proxy.errors import LLMProxyError, NotAuthorised, NotFound, Unreachable

_NEW_TOKEN = "make a new one with `llm-proxy manage token generate`"
_LONGEST_WAIT_S = 7 * 86400
_LONGEST_QUOTE = 300  # characters of what others say


def refused(
    status: int, problem: Problem, headers: Mapping[str, str], *, url: str, model: str | None
) -> LLMProxyError:
    """An answer that is an error.

    1. 401, 403: the token   2. 404: the model or the path   3. 429: too much
    4. 3xx: elsewhere        5. what was sent is wrong       6. the other side failed
    """
    said = _quoted(_without_advice(problem.message))
    if status == 401:
        return NotAuthorised(
            f"the token was refused{said}; {_NEW_TOKEN} and pass it with --token or PROXY_TOKEN"
        )
    if status == 403:
        return NotAuthorised(
            f"the token may not do this{said}; "
            "look at it with `llm-proxy manage token get`, or use another one"
        )
    if status == 404:
        return _not_found(said, problem, url=url, model=model)
    if status == 429:
        return LLMProxyError(_too_much(said, problem, headers))
    if status < 400:
        where = _shortened(problem.message or clean_line(headers.get("location", "elsewhere")))
        return LLMProxyError(
            f"{url} answered {status} and points to {where}, where the token isn't sent; "
            "check --base-url"
        )
    if status < 500:
        return LLMProxyError(f"the request was refused with {status}{said}{_remedy(status)}")
    kind = Unreachable if problem.code in _UNREACHABLE else LLMProxyError
    wait = retry_after_s(headers)
    when = "in a moment" if wait is None else f"in {wait} s"
    return kind(f"the other side failed with {status}{said}; try again {when}")


def _without_advice(message: str) -> str:
    """What llm-proxy tells a client to do is said here with the command that does it."""
    return message.removesuffix("; ask for a new one")


def _quoted(message: str) -> str:
    return f": {_shortened(message)}" if message else ""


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


_UNREACHABLE = {"upstream_unreachable", "upstream_timeout", "circuit_open"}


def _not_found(said: str, problem: Problem, *, url: str, model: str | None) -> LLMProxyError:
    if model is None or problem.is_of_the_path or model not in problem.message:
        return NotFound(f"{url} isn't served there{said}; check --base-url and --api")
    return NotFound(
        f"the model {model} can't be used{said}; `llm-proxy openai models` lists those there are, "
        "and --model or /model chooses one"
    )


def _too_much(said: str, problem: Problem, headers: Mapping[str, str]) -> str:
    if problem.code == "token_quota_exhausted":
        return f"the token is used up{said}; {_NEW_TOKEN}"
    if problem.code == "insufficient_quota":
        return f"the account behind it is used up{said}; look at its plan and billing"
    wait = retry_after_s(headers)
    when = "a little later" if wait is None else f"in {wait} s"
    return f"too many requests{said}; try again {when}"


def _remedy(status: int) -> str:
    if status == 413:
        return "; the conversation is too long for it: shorten it, or begin anew with /clear"
    return "; check the options, or see what was sent with --verbose"


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> int | None:
    """Whole seconds to wait (RFC 9110 10.2.3); None when it isn't told or makes no sense."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        seconds = int(text[:9])
    else:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        seconds = max(0, ceil((at - (now or datetime.now(UTC))).total_seconds()))
    return seconds if seconds <= _LONGEST_WAIT_S else None


def unreachable(base_url: str, reason: str) -> Unreachable:
    return Unreachable(
        f"no server can be reached at {base_url} ({reason}); start one with "
        "`llm-proxy server start`, or name another with --base-url or PROXY_URL"
    )


def untrusted(base_url: str, reason: str) -> Unreachable:
    return Unreachable(
        f"the certificate of {base_url} can't be trusted ({reason}); if the server is yours, "
        "name the file of its authority in SSL_CERT_FILE"
    )


def no_way(base_url: str, reason: str) -> Unreachable:
    return Unreachable(
        f"{base_url} can't be asked the way the environment says ({reason}); "
        "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
    )


def no_answer(base_url: str, reason: str) -> LLMProxyError:
    return LLMProxyError(
        f"{base_url} closed the connection or doesn't speak HTTP ({reason}); "
        "check --base-url, or try again"
    )


def silent(base_url: str, limit_s: float) -> Unreachable:
    return Unreachable(f"nothing came from {base_url} for {limit_s:.0f} s; try again")


def broken_off() -> LLMProxyError:
    return LLMProxyError("the answer broke off before its end; try again")


def gave_up(message: str) -> LLMProxyError:
    return LLMProxyError(
        f"the other side gave up in the middle of the answer{_quoted(message)}; try again"
    )


def not_understood(url: str, reason: str) -> LLMProxyError:
    return LLMProxyError(
        f"{url} answered with something that can't be understood ({reason}); "
        "check --base-url and --api"
    )
