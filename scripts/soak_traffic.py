"""What the clients of the soak do: one function for each behaviour, and a table of how often.

A function that returns has seen what a correct gateway does. Before a request is sent the ledger is
told what record it must leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable

from soak_client import Answer, Client, Unexpected
from soak_ledger import Expected, Ledger

from llm_proxy.secrets import new_token

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"' + b"Hello! " * 20 + b'"}]}'
KEPT_CONNECTIONS = 48
PIPELINED = 5
MOST_AT_ONCE = 400  # behaviours under way; more would be a load test
MIB = 1 << 20


class Traffic:
    def __init__(self, host: str, port: int, token: str, ledger: Ledger, seed: int) -> None:
        self._address = host, port
        self._token = token
        self._ledger = ledger
        self._random = random.Random(seed)
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
        behaviours = list(BEHAVIOURS)
        weights = [BEHAVIOURS[name].weight for name in behaviours]
        while now < end:
            now += self._random.expovariate(rate)
            name = self._random.choices(behaviours, weights)[0]
            if (wait := now - loop.time()) > 0:
                await asyncio.sleep(wait)
            self._begin(name)

    def _begin(self, name: str) -> None:
        behaviour = BEHAVIOURS[name]
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
            self.errors[f"{name}: {type(exc).__name__}: {exc}"] += 1
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
        request_id = self._ledger.new_id(task.get_name())
        self._ledger.expect(request_id, expected)
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
        answer = await client.head()
        await client.body(answer)
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
        self._ledger.expect(request_id, Expected.WHOLE)

    def events(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def body(self, low: int, high: int) -> bytes:
        """One whose parts can't be mistaken for each other."""
        size = self._random.randint(low, high)
        return self._random.randbytes(4096) * (size // 4096 + 1)

    def hang_up(self, client: Client) -> bool:
        """By FIN or by RST; whether it was FIN, behind which everything sent arrives."""
        if self._random.random() < 0.5:
            client.close()
            return True
        client.reset()
        return False

    # ---- what goes well ----

    async def json_kept(self) -> None:
        client = await self.kept()
        size = self._random.choice((0, 400, 2000, 20_000))
        self.keep(client, await self.ask(client, f"kind=json size={size}"))

    async def json_new(self) -> None:
        async with self.connection() as client:
            await self.ask(client, "kind=json")

    async def pipelined(self) -> None:
        async with self.connection() as client:
            sent = [self.head("kind=json", f"Content-Length: {len(CHAT)}") for _ in range(PIPELINED)]
            await client.send(b"".join(head + CHAT for _, head in sent))
            for request_id, _ in sent:
                answer = await client.head()
                await client.body(answer)
                self.check(answer, request_id, 200)

    async def stream(self) -> None:
        count = self.events(5, 100)
        client = await self.kept()
        answer = await self.ask(client, f"kind=stream events={count} gap=0.02")
        if answer.body.count(b"data: ") != count + 1 or not answer.body.endswith(b"[DONE]\n\n"):
            raise Unexpected(f"not the {count} events that were sent")
        self.keep(client, answer)

    async def chunked_upload(self) -> None:
        async with self.connection() as client:
            body = self.body(1, 200_000)
            request_id, head = self.head("kind=json", "Transfer-Encoding: chunked")
            await client.send(head)
            at = 0
            while at < len(body):
                piece = body[at : at + self._random.randint(1, 30_000)]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                at += len(piece)
            await client.send(b"0\r\n\r\n")
            answer = await client.head()
            await client.body(answer)
            self.check(answer, request_id, 200)
            check_echo(answer, body)

    async def continued(self) -> None:
        async with self.connection() as client:
            line = f"Content-Length: {len(CHAT)}"
            request_id, head = self.head("kind=json", line, "Expect: 100-continue")
            await client.send(head)
            if not (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100"):
                raise Unexpected("no 100 Continue")
            await client.send(CHAT)
            answer = await client.head()
            await client.body(answer)
            self.check(answer, request_id, 200)

    async def large_upload(self) -> None:
        async with self.connection() as client:
            await self.ask(client, "kind=json", self.body(2 * MIB, 2 * MIB))

    async def large_download(self) -> None:
        async with self.connection() as client:
            await self.ask(client, f"kind=json size={2 * MIB}")

    async def slow_reader(self) -> None:
        async with self.connection(receive_buffer=16384) as client:
            line = f"Content-Length: {len(CHAT)}"
            request_id, head = self.head(f"kind=json size={MIB // 2}", line)
            await client.send(head + CHAT)
            answer = await client.head()
            await client.body(answer, slowly_s=0.03, keep=False)
            self.check(answer, request_id, 200)

    async def control(self) -> None:
        async with self.connection() as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await client.head()
            await client.body(answer)
            if answer.status != 200:
                raise Unexpected(f"/health answered {answer.status}")

    # ---- what is refused ----

    async def refused(self) -> None:
        method, path, token, *statuses = self._random.choice(REFUSALS)
        client = await self.kept()
        given = new_token().reveal() if token == "unknown" else token
        request_id, head = self.head("kind=json", f"Content-Length: {len(CHAT)}",
            path=path, method=method, token=given)  # fmt: skip
        await client.send(head + CHAT)
        answer = await client.head()
        await client.body(answer)
        self.check(answer, request_id, *statuses)
        self.keep(client, answer)

    async def malformed(self) -> None:
        async with self.connection() as client:
            await client.send(self._random.choice(MALFORMED))
            answer = await client.head()
            await client.body(answer)
            if answer.status != 400 or not answer.is_whole:
                raise Unexpected(f"a malformed head was answered with {answer.status}")
            self._ledger.expect_given(answer.request_id)

    async def slow_head(self) -> None:
        async with self.connection() as client:
            _, head = self.head("kind=json", expected=Expected.NONE)
            await client.send(head[: self.events(1, len(head) - 4)])
            async with asyncio.timeout(60):
                first = await client.reader.readuntil(b"\r\n\r\n")
            if not first.startswith(b"HTTP/1.1 408 "):
                raise Unexpected(f"a head that never ends was answered with {first[:40]!r}")
            given = first.partition(b"LLM-Proxy-Request-ID: ")[2].partition(b"\r\n")[0]
            self._ledger.expect_given(given.decode())

    # ---- upstreams in trouble ----

    async def upstream_status(self) -> None:
        client = await self.kept()
        code = self._random.choice((400, 401, 404, 429, 500, 502, 503, 529))
        answer = await self.ask(client, f"kind=status code={code}", api="/faulty", status=code)
        if answer.headers.get("retry-after") != "7":
            raise Unexpected("Retry-After was lost")
        self.keep(client, answer)

    async def upstream_broken(self) -> None:
        client = await self.kept()
        wanted = self._random.choice(("reset at=head", "reset at=in_head", "garbage"))
        answer = await self.ask(client, f"kind={wanted}", api="/faulty", status=502)
        self.keep(client, answer)

    async def upstream_gone(self) -> None:
        client = await self.kept()
        self.keep(client, await self.ask(client, "kind=json", api="/gone", status=502))

    async def upstream_tripping(self) -> None:
        """Its circuit breaker may be open."""
        client = await self.kept()
        wanted = "kind=json" if self._random.random() < 0.3 else "kind=status code=500"
        request_id, head = self.head(wanted, "Content-Length: 0", api="/tripping")
        await client.send(head)
        answer = await client.head()
        await client.body(answer)
        self.check(answer, request_id, 200, 500, 503)
        if answer.status == 503 and "retry-after" not in answer.headers:
            raise Unexpected("an open circuit without Retry-After")
        self.keep(client, answer)

    async def upstream_slow(self) -> None:
        client = await self.kept()
        answer = await self.ask(client, "kind=json delay=3", api="/impatient", status=504)
        self.keep(client, answer)

    async def upstream_closes(self) -> None:
        client = await self.kept()
        self.keep(client, await self.ask(client, "kind=closes", api="/closing"))

    async def upstream_early(self) -> None:
        async with self.connection() as client:
            request_id, head = self.head("kind=early", "Content-Length: 50000", api="/faulty")
            await client.send(head + b"{" * 20000)
            answer = await client.head()
            await client.body(answer)
            self.check(answer, request_id, 413)

    async def body_cut(self) -> None:
        request_id, answer = await self.ask_for_cut("kind=reset at=body", "/faulty")
        self._ledger.expect(request_id, Expected.CUT)

    async def stream_cut(self) -> None:
        count = self.events(1, 20)
        request_id, answer = await self.ask_for_cut(f"kind=stream events={count} cut=1", "/faulty")
        self._check_error_event(request_id, answer)

    async def stream_stalled(self) -> None:
        wanted = f"kind=stream events={self.events(1, 5)} stall=1"
        request_id, answer = await self.ask_for_cut(wanted, "/impatient")
        self._check_error_event(request_id, answer)

    async def ask_for_cut(self, wanted: str, api: str) -> tuple[str, Answer]:
        async with self.connection() as client:
            request_id, head = self.head(wanted, f"Content-Length: {len(CHAT)}", api=api)
            await client.send(head + CHAT)
            answer = await client.head()
            await client.body(answer)
        if answer.is_whole:
            raise Unexpected("an answer that was cut looks whole")
        return request_id, answer

    def _check_error_event(self, request_id: str, answer: Answer) -> None:
        if b"event: error\n" not in answer.body or b"[DONE]" in answer.body:
            raise Unexpected(f"no error event at the end: {bytes(answer.body[-100:])!r}")
        self._ledger.expect(request_id, Expected.CUT)

    # ---- clients that hang up ----

    async def gone_in_head(self) -> None:
        async with self.connection() as client:
            _, head = self.head("kind=json", expected=Expected.NONE)
            await client.send(head[: self.events(0, len(head) - 4)])
            await asyncio.sleep(self._random.random() * 0.05)
            self.hang_up(client)

    async def gone_in_body(self) -> None:
        async with self.connection() as client:
            size = self._random.choice((2000, 1_000_000))
            framing = self._random.choice((f"Content-Length: {size}", "Transfer-Encoding: chunked"))
            request_id, head = self.head("kind=json", framing, expected=Expected.PERHAPS)
            part = b"x" * self._random.randint(0, size - 1)
            is_chunked = framing.startswith("T")
            await client.send(head + (b"%x\r\n%b" % (size, part) if is_chunked else part))
            if self.hang_up(client):
                self._ledger.expect(request_id, Expected.ONE)

    async def gone_while_waiting(self) -> None:
        async with self.connection() as client:
            line = f"Content-Length: {len(CHAT)}"
            request_id, head = self.head("kind=json delay=2", line, expected=Expected.PERHAPS)
            await client.send(head + CHAT)
            await asyncio.sleep(self._random.random() * 0.2)
            if self.hang_up(client):
                self._ledger.expect(request_id, Expected.ONE)

    async def gone_in_stream(self) -> None:
        async with self.connection() as client:
            line = f"Content-Length: {len(CHAT)}"
            request_id, head = self.head("kind=stream events=5000 gap=0.01", line)
            await client.send(head + CHAT)
            await client.head()
            for _ in range(self.events(1, 20)):
                await client.reader.readuntil(b"\n\n")
            self._ledger.expect(request_id, Expected.CUT)
            self.hang_up(client)

    async def gone_while_paused(self) -> None:
        """Reads nothing, so that the gateway has stopped reading too, and leaves."""
        async with self.connection(receive_buffer=16384) as client:
            line = f"Content-Length: {len(CHAT)}"
            request_id, head = self.head(f"kind=json size={2 * MIB}", line)
            await client.send(head + CHAT)
            await client.head()
            await asyncio.sleep(self._random.random())
            self._ledger.expect(request_id, Expected.CUT)
            self.hang_up(client)

    async def gone_while_pipelining(self) -> None:
        async with self.connection() as client:
            for _ in range(PIPELINED):
                line = f"Content-Length: {len(CHAT)}"
                _, head = self.head("kind=json delay=0.1", line, expected=Expected.PERHAPS)
                await client.send(head + CHAT)
            await asyncio.sleep(self._random.random() * 0.3)
            self.hang_up(client)


def check_echo(answer: Answer, body: bytes) -> None:
    """That the upstream got the body as it was sent."""
    said = json.loads(answer.body)
    if (said["received"], said["crc"]) != (len(body), zlib.crc32(body)):
        raise Unexpected(f"the upstream got {said['received']} bytes of {len(body)}")


class Behaviour:
    def __init__(self, do: Callable[[Traffic], Awaitable[None]], weight: float, most: int) -> None:
        """`most` is how many of it may be under way: memory's peak must come early, not by luck."""
        self.do, self.weight, self.most = do, weight, most


REFUSALS: list[tuple[str, str, str | None, *tuple[int, ...]]] = [
    ("POST", "/v1/chat/completions", "sk-wrong", 401),
    ("POST", "/v1/chat/completions", "unknown", 401, 429),  # looking it up has a budget
    ("POST", "/v1/chat/completions", "", 401),
    ("POST", "/nowhere", None, 404),
    ("PUT", "/v1/chat/completions", None, 405),
    ("POST", "/v1/../manage/projects", None, 400),
]
MALFORMED = [
    b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
]
BEHAVIOURS = {
    do.__name__: Behaviour(do, weight, most)
    for do, weight, most in (
        (Traffic.json_kept, 520, 40),
        (Traffic.json_new, 120, 40),
        (Traffic.pipelined, 20, 20),
        (Traffic.stream, 50, 60),
        (Traffic.chunked_upload, 15, 10),
        (Traffic.continued, 5, 10),
        (Traffic.large_upload, 4, 1),
        (Traffic.large_download, 4, 1),
        (Traffic.slow_reader, 4, 3),
        (Traffic.control, 2, 1),
        (Traffic.refused, 60, 20),
        (Traffic.malformed, 20, 20),
        (Traffic.slow_head, 1, 10),
        (Traffic.upstream_status, 40, 20),
        (Traffic.upstream_broken, 20, 20),
        (Traffic.upstream_gone, 10, 20),
        (Traffic.upstream_tripping, 15, 20),
        (Traffic.upstream_slow, 10, 20),
        (Traffic.upstream_closes, 20, 20),
        (Traffic.upstream_early, 5, 10),
        (Traffic.body_cut, 10, 20),
        (Traffic.stream_cut, 20, 20),
        (Traffic.stream_stalled, 5, 20),
        (Traffic.gone_in_head, 20, 20),
        (Traffic.gone_in_body, 20, 20),
        (Traffic.gone_while_waiting, 20, 20),
        (Traffic.gone_in_stream, 20, 20),
        (Traffic.gone_while_paused, 3, 2),
        (Traffic.gone_while_pipelining, 5, 10),
    )
}
