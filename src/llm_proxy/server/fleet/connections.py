"""Scripts sent to Redis, several in one message; what fails is one kind of error."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm_proxy.errors import ConfigError, LLMProxyError
from llm_proxy.redis_address import RedisAddress
from llm_proxy.server.fleet.scripts import PREFIX, Script

if TYPE_CHECKING:
    from redis.asyncio import Redis

_CLIENT_NAME: Final = "llm-proxy"
_CLOSE_S: Final = 1.0


class RedisUnavailable(LLMProxyError):
    def __init__(self, message: str, *, is_refusal: bool = False, was_sent: bool = True) -> None:
        """`is_refusal`: Redis answered that these settings will never do."""
        super().__init__(message)
        self.is_refusal = is_refusal
        self.was_sent = was_sent  # False: Redis has surely not heard of it


@dataclass(frozen=True, slots=True)
class ScriptCall:
    script: Script
    key: str
    arguments: Sequence[str | int | float]


class RedisConnections:
    def __init__(
        self,
        address: RedisAddress,
        *,
        most: int,
        timeout_s: float,
        on_blank: Callable[[], None] = lambda: None,
    ) -> None:
        """At most as many as that; the time limit is of connecting and asking together.

        `on_blank` is called when Redis doesn't know a script, as one that was started anew.
        """
        self._on_blank = on_blank
        self._address = address
        self._most = most
        self._timeout_s = timeout_s
        self._redis: Redis | None = None

    async def open(self) -> None:
        """Raises ConfigError. Importing the client and reading certificates take a while: off the
        loop."""
        self._redis = await asyncio.to_thread(_client, self._address, self._most)

    async def run(
        self, calls: Sequence[ScriptCall], *, timeout_s: float | None = None
    ) -> list[Any]:
        """The answers in order. One may be RedisUnavailable itself, of a key that is something
        else; raises it when Redis as a whole can't be used."""
        assert self._redis is not None, "not opened"
        with _translating():
            async with asyncio.timeout(timeout_s or self._timeout_s):
                return await self._run(self._redis, calls)

    async def _run(self, redis: Redis, calls: Sequence[ScriptCall]) -> list[Any]:
        from redis.exceptions import NoScriptError

        answers = await _send(redis, [("EVALSHA", call.script.digest, call) for call in calls])
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            self._on_blank()
            texts = [("EVAL", calls[at].script.text, calls[at]) for at in unknown]
            for at, answer in zip(unknown, await _send(redis, texts), strict=True):
                answers[at] = answer
        return [_checked(answer) for answer in answers]

    async def close(self) -> None:
        if self._redis is None:
            return
        with suppress(RedisUnavailable), _translating():  # of no interest any more
            async with asyncio.timeout(_CLOSE_S):
                await self._redis.aclose()


def _client(address: RedisAddress, most: int) -> Redis:
    # Only who uses Redis pays for the import: it takes 0.2 s.
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {}
    if address.uses_tls:
        options = {"ssl": True, "ssl_ca_certs": _checked_file(address.ca_file)}
    return Redis(
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.username,
        password=address.password.reveal() if address.password is not None else None,
        max_connections=most,
        socket_timeout=None,  # there is one for all of it
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),  # who asks knows better what to do
        protocol=2,
        client_name=_CLIENT_NAME,
        **options,
    )


def _checked_file(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        ssl.create_default_context(cafile=str(path))
    except OSError as exc:
        reason = exc.strerror or "it holds no certificate in PEM form"
        raise ConfigError(f"REDIS_CA_FILE {path} can't be used: {reason}") from exc
    return str(path)


async def _send(redis: Redis, commands: Sequence[tuple[str, str, ScriptCall]]) -> list[Any]:
    pipeline = redis.pipeline(transaction=False)
    for command, script, call in commands:
        pipeline.execute_command(command, script, 1, PREFIX + call.key, *call.arguments)
    return await pipeline.execute(raise_on_error=False)


def _checked(answer: Any) -> Any:
    from redis.exceptions import RedisError

    if not isinstance(answer, RedisError):
        return answer
    if "WRONGTYPE" in str(answer):  # what another program keeps there is in nobody else's way
        return _unavailable(answer)
    raise answer


@contextmanager
def _translating() -> Iterator[None]:
    """Foreign errors become ours."""
    from redis.exceptions import RedisError

    try:
        yield
    except TimeoutError as exc:
        raise RedisUnavailable("no answer in time") from exc
    except (RedisError, OSError) as exc:
        raise _unavailable(exc) from exc


def _unavailable(error: Exception) -> RedisUnavailable:
    from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

    wrong = (AuthenticationError, AuthorizationError, NoPermissionError)
    causes = list(_causes(error))
    is_refusal = any(isinstance(one, (*wrong, ssl.SSLCertVerificationError)) for one in causes)
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return RedisUnavailable(
        text.rstrip("."), is_refusal=is_refusal or "DB index is out of range" in text
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
