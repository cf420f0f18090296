"""What the clients of the soak do: one function for each behaviour, and a table of how often.

A function that returns has seen what a correct gateway does; else it raises.
"""

from __future__ import annotations

import asyncio
import random

from soak_client import Answer, Client, Unexpected
from soak_ledger import Expected
from soak_traffic import CHAT, Behaviour, Traffic, check_echo

from llm_proxy.secrets import new_token

PIPELINED = 5
MIB = 1 << 20

# ---- what goes well ----


async def json_kept(traffic: Traffic) -> None:
    client = await traffic.kept()
    size = traffic.random.choice((0, 400, 2000, 20_000))
    traffic.keep(client, await traffic.ask(client, f"kind=json size={size}"))


async def json_new(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        await traffic.ask(client, "kind=json")


async def pipelined(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        sent = [traffic.head("kind=json", f"Content-Length: {len(CHAT)}") for _ in range(PIPELINED)]
        await client.send(b"".join(head + CHAT for _, head in sent))
        for request_id, _ in sent:
            answer = await client.answer()
            traffic.check(answer, request_id, 200)


async def stream(traffic: Traffic) -> None:
    count = traffic.random.randint(5, 100)
    client = await traffic.kept()
    answer = await traffic.ask(client, f"kind=stream events={count} gap=0.02")
    if answer.body.count(b"data: ") != count + 1 or not answer.body.endswith(b"[DONE]\n\n"):
        raise Unexpected(f"not the {count} events that were sent")
    traffic.keep(client, answer)


async def chunked_upload(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        body = traffic.body(1, 200_000)
        request_id, head = traffic.head("kind=json", "Transfer-Encoding: chunked")
        await client.send(head)
        at = 0
        while at < len(body):
            piece = body[at : at + traffic.random.randint(1, 30_000)]
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            at += len(piece)
        await client.send(b"0\r\n\r\n")
        answer = await client.answer()
        traffic.check(answer, request_id, 200)
        check_echo(answer, body)


async def continued(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        line = f"Content-Length: {len(CHAT)}"
        request_id, head = traffic.head("kind=json", line, "Expect: 100-continue")
        await client.send(head)
        if not (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100"):
            raise Unexpected("no 100 Continue")
        await client.send(CHAT)
        answer = await client.answer()
        traffic.check(answer, request_id, 200)


async def large_upload(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        await traffic.ask(client, "kind=json", traffic.body(2 * MIB, 2 * MIB))


async def large_download(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        await traffic.ask(client, f"kind=json size={2 * MIB}")


async def slow_reader(traffic: Traffic) -> None:
    async with traffic.connection(receive_buffer=16384) as client:
        line = f"Content-Length: {len(CHAT)}"
        request_id, head = traffic.head(f"kind=json size={MIB // 2}", line)
        await client.send(head + CHAT)
        answer = await client.head()
        await client.body(answer, slowly_s=0.03, keep=False)
        traffic.check(answer, request_id, 200)


async def control(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        await client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.answer()
        if answer.status != 200:
            raise Unexpected(f"/health answered {answer.status}")


# ---- what is refused ----


async def refused(traffic: Traffic) -> None:
    method, path, token, *statuses = traffic.random.choice(REFUSALS)
    client = await traffic.kept()
    given = new_token().reveal() if token == "unknown" else token
    request_id, head = traffic.head("kind=json", f"Content-Length: {len(CHAT)}",
        path=path, method=method, token=given)  # fmt: skip
    await client.send(head + CHAT)
    answer = await client.answer()
    traffic.check(answer, request_id, *statuses)
    traffic.keep(client, answer)


async def malformed(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        await client.send(traffic.random.choice(MALFORMED))
        answer = await client.answer()
        if answer.status != 400 or not answer.is_whole:
            raise Unexpected(f"a malformed head was answered with {answer.status}")
        traffic.ledger.expect_given(answer.request_id)


async def slow_head(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        _, head = traffic.head("kind=json", expected=Expected.NONE)
        await client.send(head[: traffic.random.randint(1, len(head) - 4)])
        async with asyncio.timeout(60):
            first = await client.reader.readuntil(b"\r\n\r\n")
        if not first.startswith(b"HTTP/1.1 408 "):
            raise Unexpected(f"a head that never ends was answered with {first[:40]!r}")
        given = first.partition(b"LLM-Proxy-Request-ID: ")[2].partition(b"\r\n")[0]
        traffic.ledger.expect_given(given.decode())


# ---- upstreams in trouble ----


async def upstream_status(traffic: Traffic) -> None:
    client = await traffic.kept()
    code = traffic.random.choice((400, 401, 404, 429, 500, 502, 503, 529))
    answer = await traffic.ask(client, f"kind=status code={code}", api="/faulty", status=code)
    if answer.headers.get("retry-after") != "7":
        raise Unexpected("Retry-After was lost")
    traffic.keep(client, answer)


async def upstream_broken(traffic: Traffic) -> None:
    client = await traffic.kept()
    wanted = traffic.random.choice(("reset at=head", "reset at=in_head", "garbage"))
    answer = await traffic.ask(client, f"kind={wanted}", api="/faulty", status=502)
    traffic.keep(client, answer)


async def upstream_gone(traffic: Traffic) -> None:
    client = await traffic.kept()
    traffic.keep(client, await traffic.ask(client, "kind=json", api="/gone", status=502))


async def upstream_tripping(traffic: Traffic) -> None:
    """Its circuit breaker may be open."""
    client = await traffic.kept()
    wanted = "kind=json" if traffic.random.random() < 0.3 else "kind=status code=500"
    request_id, head = traffic.head(wanted, "Content-Length: 0", api="/tripping")
    await client.send(head)
    answer = await client.answer()
    traffic.check(answer, request_id, 200, 500, 503)
    if answer.status == 503 and "retry-after" not in answer.headers:
        raise Unexpected("an open circuit without Retry-After")
    traffic.keep(client, answer)


async def upstream_slow(traffic: Traffic) -> None:
    client = await traffic.kept()
    answer = await traffic.ask(client, "kind=json delay=3", api="/impatient", status=504)
    traffic.keep(client, answer)


async def upstream_closes(traffic: Traffic) -> None:
    """A kept connection may end just as it is used: only what says so may be sent twice."""
    client = await traffic.kept()
    is_idempotent = traffic.random.random() < 0.5
    line = f"Idempotency-Key: {traffic.random.random()}" if is_idempotent else "X-Key: none"
    request_id, head = traffic.head(
        "kind=closes", line, f"Content-Length: {len(CHAT)}", api="/closing"
    )
    await client.send(head + CHAT)
    answer = await client.answer()
    traffic.check(answer, request_id, *((200,) if is_idempotent else (200, 502)))
    traffic.keep(client, answer)


async def upstream_early(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        request_id, head = traffic.head("kind=early", "Content-Length: 50000", api="/faulty")
        await client.send(head + b"{" * 20000)
        answer = await client.answer()
        traffic.check(answer, request_id, 413)


async def tunnel(traffic: Traffic) -> None:
    """A WebSocket, as far as a gateway is concerned; either side ends it."""
    leaves = traffic.random.random() < 0.3
    async with traffic.connection() as client:
        lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        wanted = "kind=tunnel leaves=1" if leaves else "kind=tunnel"
        request_id, head = traffic.head(wanted, *lines, method="GET")
        await client.send(head)
        answer = await client.head()
        if (answer.status, answer.request_id) != (101, request_id):
            raise Unexpected(f"status {answer.status} instead of 101")
        for _ in range(traffic.random.randint(1, 10)):
            piece = traffic.body(1, 30 if leaves else 30_000)
            await client.send(piece)
            if await client.reader.readexactly(len(piece)) != piece:
                raise Unexpected("the tunnel altered what went through")
            if leaves:
                if await client.reader.read(1):
                    raise Unexpected("the tunnel added something")
                break
            await asyncio.sleep(traffic.random.random() * 0.1)
        traffic.ledger.expect(request_id, Expected.WHOLE)
        hang_up(traffic.random, client)


async def body_cut(traffic: Traffic) -> None:
    request_id, _ = await ask_for_cut(traffic, "kind=reset at=body", "/faulty")
    traffic.ledger.expect(request_id, Expected.CUT)


async def stream_cut(traffic: Traffic) -> None:
    count = traffic.random.randint(1, 20)
    request_id, answer = await ask_for_cut(traffic, f"kind=stream events={count} cut=1", "/faulty")
    check_error_event(traffic, request_id, answer)


async def stream_stalled(traffic: Traffic) -> None:
    wanted = f"kind=stream events={traffic.random.randint(1, 5)} stall=1"
    request_id, answer = await ask_for_cut(traffic, wanted, "/impatient")
    check_error_event(traffic, request_id, answer)


async def ask_for_cut(traffic: Traffic, wanted: str, api: str) -> tuple[str, Answer]:
    async with traffic.connection() as client:
        request_id, head = traffic.head(wanted, f"Content-Length: {len(CHAT)}", api=api)
        await client.send(head + CHAT)
        answer = await client.answer()
    if answer.is_whole:
        raise Unexpected("an answer that was cut looks whole")
    return request_id, answer


def check_error_event(traffic: Traffic, request_id: str, answer: Answer) -> None:
    if b"event: error\n" not in answer.body or b"[DONE]" in answer.body:
        raise Unexpected(f"no error event at the end: {bytes(answer.body[-100:])!r}")
    traffic.ledger.expect(request_id, Expected.CUT)


# ---- clients that hang up ----


async def gone_in_head(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        _, head = traffic.head("kind=json", expected=Expected.NONE)
        await client.send(head[: traffic.random.randint(0, len(head) - 4)])
        await asyncio.sleep(traffic.random.random() * 0.05)
        hang_up(traffic.random, client)


async def gone_in_body(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        size = traffic.random.choice((2000, 1_000_000))
        framing = traffic.random.choice((f"Content-Length: {size}", "Transfer-Encoding: chunked"))
        request_id, head = traffic.head("kind=json", framing, expected=Expected.PERHAPS)
        part = b"x" * traffic.random.randint(0, size - 1)
        is_chunked = framing.startswith("T")
        await client.send(head + (b"%x\r\n%b" % (size, part) if is_chunked else part))
        if hang_up(traffic.random, client):
            traffic.ledger.expect(request_id, Expected.ONE)


async def gone_while_waiting(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        line = f"Content-Length: {len(CHAT)}"
        request_id, head = traffic.head("kind=json delay=2", line, expected=Expected.PERHAPS)
        await client.send(head + CHAT)
        await asyncio.sleep(traffic.random.random() * 0.2)
        if hang_up(traffic.random, client):
            traffic.ledger.expect(request_id, Expected.ONE)


async def gone_in_stream(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        line = f"Content-Length: {len(CHAT)}"
        request_id, head = traffic.head("kind=stream events=5000 gap=0.01", line)
        await client.send(head + CHAT)
        await client.head()
        for _ in range(traffic.random.randint(1, 20)):
            await client.reader.readuntil(b"\n\n")
        traffic.ledger.expect(request_id, Expected.CUT)
        hang_up(traffic.random, client)


async def gone_while_paused(traffic: Traffic) -> None:
    """Reads nothing, so that the gateway has stopped reading too, and leaves."""
    async with traffic.connection(receive_buffer=16384) as client:
        line = f"Content-Length: {len(CHAT)}"
        request_id, head = traffic.head(f"kind=json size={2 * MIB}", line)
        await client.send(head + CHAT)
        await client.head()
        await asyncio.sleep(traffic.random.random())
        traffic.ledger.expect(request_id, Expected.CUT)
        hang_up(traffic.random, client)


async def gone_while_pipelining(traffic: Traffic) -> None:
    async with traffic.connection() as client:
        for _ in range(PIPELINED):
            line = f"Content-Length: {len(CHAT)}"
            _, head = traffic.head("kind=json delay=0.1", line, expected=Expected.PERHAPS)
            await client.send(head + CHAT)
        await asyncio.sleep(traffic.random.random() * 0.3)
        hang_up(traffic.random, client)


def hang_up(chance: random.Random, client: Client) -> bool:
    """By FIN or by RST; whether it was FIN, behind which everything sent arrives."""
    if chance.random() < 0.5:
        client.close()
        return True
    client.reset()
    return False


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
        (json_kept, 520, 40),
        (json_new, 120, 40),
        (pipelined, 20, 20),
        (stream, 50, 60),
        (chunked_upload, 15, 10),
        (continued, 5, 10),
        (large_upload, 4, 1),
        (large_download, 4, 1),
        (slow_reader, 4, 3),
        (control, 2, 1),
        (refused, 60, 20),
        (malformed, 20, 20),
        (slow_head, 1, 10),
        (upstream_status, 40, 20),
        (upstream_broken, 20, 20),
        (upstream_gone, 10, 20),
        (upstream_tripping, 15, 20),
        (upstream_slow, 10, 20),
        (upstream_closes, 20, 20),
        (upstream_early, 5, 10),
        (tunnel, 10, 20),
        (body_cut, 10, 20),
        (stream_cut, 20, 20),
        (stream_stalled, 5, 20),
        (gone_in_head, 20, 20),
        (gone_in_body, 20, 20),
        (gone_while_waiting, 20, 20),
        (gone_in_stream, 20, 20),
        (gone_while_paused, 3, 2),
        (gone_while_pipelining, 5, 10),
    )
}
