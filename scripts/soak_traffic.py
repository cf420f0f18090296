"""Starts the behaviours of the soak's clients at random moments, and makes their requests.

Before a request is sent the ledger is told what record it must leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from soak_client import Answer, Client, Unexpected
from soak_ledger import Expected, Ledger

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"' + b"Hello! " * 20 + b'"}]}'
KEPT_CONNECTIONS = 48
MOST_AT_ONCE = 400  # behaviours under way; more would be a load test


class Behaviour:
    def __init__(self, do: Callable[[Traffic], Awaitable[None]], weight: float, most: int) -> None:
        """`most` is how many of it may be under way: memory's peak must come early, not by luck."""
        self.do, self.weight, self.most = do, weight, most


class Traffic:
    def __init__(
        self,
        address: tuple[str, int],
        token: str,
        ledger: Ledger,
        behaviours: Mapping[str, Behaviour],
        *,
        seed: int,
    ) -> None:
        self._address = address
        self._behaviours = behaviours
        self._token = token
        self.ledger = ledger
        self.random = random.Random(seed)
        self._kept: deque[Client] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._running_kinds: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.skipped = 0
        self.errors: Counter[str] = Counter()

    # ---- the drive ----

    async def run(self, rate: float, seconds: float) -> None:
        """Starts `rate` behaviours a second, at random moments."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        end = now + seconds
        names = list(self._behaviours)
        weights = [behaviour.weight for behaviour in self._behaviours.values()]
        while now < end:
            now += self.random.expovariate(rate)
            name = self.random.choices(names, weights)[0]
            if (wait := now - loop.time()) > 0:
                await asyncio.sleep(wait)
            self._begin(name)

    def _begin(self, name: str) -> None:
        behaviour = self._behaviours[name]
        is_full = self._running_kinds[name] >= behaviour.most
        if is_full or len(self._running) >= MOST_AT_ONCE:
            self.skipped += 1
            return
        self._running_kinds[name] += 1
        task = asyncio.create_task(self._behave(name, behaviour.do), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _behave(self, name: str, do: Callable[[Traffic], Awaitable[None]]) -> None:
        try:
            await do(self)
            self.done[name] += 1
        except (Unexpected, OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as exc:
            text = re.sub(r"soak-\d+", "soak-…", f"{name}: {type(exc).__name__}: {exc}")
            self.errors[text] += 1
        finally:
            self._running_kinds[name] -= 1

    async def finish(self) -> None:
        """Waits for what is under way, and closes the kept connections."""
        if self._running:
            await asyncio.wait(self._running)
        while self._kept:
            self._kept.popleft().close()

    # ---- requests ----

    @contextlib.asynccontextmanager
    async def connection(self, *, receive_buffer: int = 0) -> AsyncIterator[Client]:
        client = await Client.connect(*self._address, receive_buffer=receive_buffer)
        try:
            yield client
        finally:
            client.close()

    async def kept(self) -> Client:
        while self._kept:
            client = self._kept.popleft()
            if client.is_usable:
                return client
            client.close()
        return await Client.connect(*self._address)

    def keep(self, client: Client, answer: Answer) -> None:
        if answer.keeps_alive and len(self._kept) < KEPT_CONNECTIONS:
            self._kept.append(client)
        else:
            client.close()

    def head(self, wanted: str, *lines: str, api: str = "", path: str = "/v1/chat/completions",
             method: str = "POST", token: str | None = None,
             expected: Expected = Expected.ONE) -> tuple[str, bytes]:  # fmt: skip
        """An id, which the ledger knows, and the head of a request."""
        task = asyncio.current_task()
        assert task is not None
        request_id = self.ledger.new_id(task.get_name())
        self.ledger.expect(request_id, expected)
        text = [
            f"{method} {api}{path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self._token if token is None else token}",
            "Content-Type: application/json",
            f"X-Request-ID: {request_id}",
            f"X-Soak: {wanted}",
            *lines,
        ]
        return request_id, ("\r\n".join(text) + "\r\n\r\n").encode()

    async def ask(self, client: Client, wanted: str, body: bytes = CHAT, *, api: str = "",
                  status: int = 200) -> Answer:  # fmt: skip
        """One request, and its answer to the end."""
        request_id, head = self.head(wanted, f"Content-Length: {len(body)}", api=api)
        await client.send(head + body)
        answer = await client.answer()
        self.check(answer, request_id, status)
        if status == 200 and answer.headers["content-type"] == "application/json":
            check_echo(answer, body)
        return answer

    def check(self, answer: Answer, request_id: str, *statuses: int) -> None:
        """That it is this answer, one of these, and whole."""
        if answer.status not in statuses:
            text = bytes(answer.body[:200])
            raise Unexpected(f"status {answer.status} instead of {statuses}: {text!r}")
        if answer.request_id != request_id:
            raise Unexpected(f"the answer to {answer.request_id} came to {request_id}")
        if not answer.is_whole:
            raise Unexpected(f"the body broke off after {answer.size} bytes")
        self.ledger.expect(request_id, Expected.WHOLE)

    def body(self, low: int, high: int) -> bytes:
        return self.random.randbytes(self.random.randint(low, high))


def check_echo(answer: Answer, body: bytes) -> None:
    """That the upstream got the body as it was sent."""
    said = json.loads(answer.body)
    if (said["received"], said["crc"]) != (len(body), zlib.crc32(body)):
        raise Unexpected(f"the upstream got {said['received']} bytes of {len(body)}")
