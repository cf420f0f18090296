from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from llm_proxy.chat.http_client import Call, HttpClient, Refused
from llm_proxy.chat.target import Target
from llm_proxy.errors import ConfigError, LLMProxyError, Unreachable
from llm_proxy.secrets import Secret
from tests.chat.serving import answering, plain, playing
from tests.end_to_end.raw_upstream import Peer, RawUpstream

pytestmark = pytest.mark.anyio
NOT_HERE = plain(b"404 Not Found", b'{"error":{"message":"no such url"}}')
NO_MODEL = plain(b"404 Not Found", b'{"error":{"message":"no model gpt-x"}}')


def _call(target: Target) -> Call:
    headers = {"Authorization": f"Bearer {target.token.reveal()}"}
    return Call(method="POST", urls=target.urls("/x"), headers=headers, model="gpt-x", body={})


async def _ask(target: Target, *, idle_s: float = 10.0) -> bytes:
    async with HttpClient(target, idle_s=idle_s) as http, http.answer_to(_call(target)) as answer:
        return await http.read_all(answer)


async def test_request_presents_token_and_program(
    upstream: RawUpstream, raw_target: Target
) -> None:
    with answering(upstream, plain(b"200 OK", b"yes")) as requests:
        assert await _ask(raw_target) == b"yes"
    assert requests[0].start == b"POST /v1/x HTTP/1.1"
    assert requests[0].value(b"authorization") == b"Bearer sk-token-of-tests-0123"
    assert (requests[0].value(b"user-agent") or b"").startswith(b"llm-proxy/")
    assert requests[0].body == b"{}"


async def test_second_place_is_tried_and_remembered(
    upstream: RawUpstream, raw_target: Target
) -> None:
    yes = plain(b"200 OK", b"yes")
    with answering(upstream, NOT_HERE, yes, yes) as requests:
        async with HttpClient(raw_target) as http:
            for _ in range(2):
                async with http.answer_to(_call(raw_target)) as answer:
                    assert await http.read_all(answer) == b"yes"
    paths = [request.start.split()[1] for request in requests]
    assert paths == [b"/v1/x", b"/openai/v1/x", b"/openai/v1/x"]


async def test_missing_model_is_not_looked_for_elsewhere(
    upstream: RawUpstream, raw_target: Target
) -> None:
    with (
        answering(upstream, NO_MODEL),
        pytest.raises(Refused) as caught,
    ):
        await _ask(raw_target)
    assert "the model gpt-x can't be used" in str(caught.value.explained)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((NOT_HERE, plain(b"404 Not Found", b"other")), "no such url"),
        ((NOT_HERE, NO_MODEL), "no model gpt-x"),
        ((NOT_HERE, plain(b"401 Unauthorized", b"bad key")), "the token was refused: bad key"),
        ((NOT_HERE, plain(b"500 Oh", b"")), "failed with 500"),
    ],
)
async def test_of_two_refusals_the_telling_one_is_told(
    upstream: RawUpstream, raw_target: Target, answers: tuple[bytes, bytes], words: str
) -> None:
    with (
        answering(upstream, *answers),
        pytest.raises(Refused, match=words),
    ):
        await _ask(raw_target)


async def test_token_in_a_refusal_is_masked(upstream: RawUpstream, raw_target: Target) -> None:
    with (
        answering(upstream, plain(b"401 Unauthorized", b"bad key sk-token-of-tests-0123")),
        pytest.raises(Refused) as caught,
    ):
        await _ask(raw_target)
    assert "bad key sk-toke…0123" in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        plain(b"400 Bad", b"x" * 280 + b" sk-token-of-tests-0123"),
        plain(b"302 Found", b"", b"Location: http://else.where/?key=sk-token-of-tests-0123\r\n"),
    ],
)
async def test_no_part_of_the_token_is_told(
    upstream: RawUpstream, raw_target: Target, answer: bytes
) -> None:
    with answering(upstream, answer), pytest.raises(Refused) as caught:
        await _ask(raw_target)
    assert "sk-token" not in str(caught.value)


async def test_status_counts_when_its_body_is_cut(
    upstream: RawUpstream, raw_target: Target
) -> None:
    cut = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 99\r\n\r\nhalf"
    with answering(upstream, cut), pytest.raises(Refused, match="the token was refused"):
        await _ask(raw_target)


async def test_huge_refusal_is_not_read_to_its_end(
    upstream: RawUpstream, raw_target: Target
) -> None:
    def flood(peer: Peer) -> None:
        peer.read_message()
        peer.send(b"HTTP/1.1 500 Oh\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000)
        with pytest.raises(ConnectionError):
            while True:
                peer.send(b"x" * 100_000)

    with (
        playing(upstream, flood),
        pytest.raises(Refused, match="failed with 500"),
    ):
        await _ask(raw_target)


async def test_redirect_is_not_followed(upstream: RawUpstream, raw_target: Target) -> None:
    away = plain(b"302 Found", b"", b"Location: http://127.0.0.1:1/\r\n")
    with (
        answering(upstream, away),
        pytest.raises(Refused, match="points to http://127.0.0.1:1/"),
    ):
        await _ask(raw_target)


async def test_place_of_a_redirect_has_no_control_characters(
    upstream: RawUpstream, raw_target: Target
) -> None:
    away = plain(b"302 Found", b"", b"Location: http://else.where/\xc2\x9b31m\r\n")
    with (
        answering(upstream, away),
        pytest.raises(Refused, match="points to http://else.where/,"),
    ):
        await _ask(raw_target)


async def test_nobody_there_says_how_to_start_somebody(deaf_address: str) -> None:
    url = f"http://{deaf_address}"
    with pytest.raises(
        Unreachable, match=r"no server can be reached .* \(Connection refused\); start one with"
    ):
        await _ask(Target(base_url=url, token=Secret("t")))


async def test_silence_has_a_limit(upstream: RawUpstream, raw_target: Target) -> None:
    def say_nothing(peer: Peer) -> None:
        peer.read_rest()

    with (
        playing(upstream, say_nothing),
        pytest.raises(Unreachable, match="nothing came from"),
    ):
        await _ask(raw_target, idle_s=0.1)


async def test_answer_without_its_end_broke_off(upstream: RawUpstream, raw_target: Target) -> None:
    with (
        answering(upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        pytest.raises(LLMProxyError, match="broke off"),
    ):
        await _ask(raw_target)


@pytest.mark.parametrize("data", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nConte"])
async def test_what_is_no_answer_did_not_break_off(
    upstream: RawUpstream, raw_target: Target, data: bytes
) -> None:
    with (
        answering(upstream, data),
        pytest.raises(LLMProxyError, match="doesn't speak HTTP"),
    ):
        await _ask(raw_target)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1"])
async def test_proxy_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(Unreachable, match="check HTTP_PROXY"):
        await _ask(Target(base_url="http://some.example", token=Secret("t")))


async def test_proxy_that_refuses_is_told(
    upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{upstream.address}")
    refusal = plain(b"407 Proxy Authentication Required", b"")
    with (
        answering(upstream, refusal),
        pytest.raises(Unreachable, match="407 .*check HTTP_PROXY"),
    ):
        await _ask(Target(base_url="https://some.example", token=Secret("t")))


async def test_certificate_of_a_stranger_is_told(upstream: RawUpstream, raw_target: Target) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def shake_hands(peer: Peer) -> None:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(peer.sock, server_side=True)

    target = replace(raw_target, base_url=f"https://{upstream.address}")
    with (
        playing(upstream, shake_hands),
        pytest.raises(Unreachable, match=r"can't be trusted \(.*issuer.*\); .*SSL_CERT_FILE"),
    ):
        await _ask(target)


async def test_missing_roots_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        await _ask(Target(base_url="https://some.example", token=Secret("t")))


async def test_answer_that_cannot_be_decoded_is_not_understood(
    upstream: RawUpstream, raw_target: Target
) -> None:
    with (
        answering(upstream, plain(b"200 OK", b"not gzip", b"Content-Encoding: gzip\r\n")),
        pytest.raises(LLMProxyError, match="can't be understood"),
    ):
        await _ask(raw_target)


async def test_body_has_a_limit(upstream: RawUpstream, raw_target: Target) -> None:
    with answering(upstream, plain(b"200 OK", b"x" * 100)):
        async with HttpClient(raw_target) as http, http.answer_to(_call(raw_target)) as answer:
            with pytest.raises(LLMProxyError, match="is larger than"):
                await http.read_all(answer, 99)


async def test_unix_socket_is_spoken_to(tmp_path: Path) -> None:
    path = tmp_path / "s"
    target = Target(base_url=f"unix:{path}", token=Secret("t"))
    with pytest.raises(Unreachable, match="no server can be reached at unix:"):
        await _ask(target)


async def test_https_verifies_whom_it_speaks_to(upstream: RawUpstream, raw_target: Target) -> None:
    def plain_text(peer: Peer) -> None:
        peer.sock.recv(1)
        peer.send(plain(b"400 Bad Request", b"this is HTTP"))

    target = replace(raw_target, base_url=f"https://{upstream.address}")
    with (
        playing(upstream, plain_text),
        pytest.raises(Unreachable, match="no server can be reached at https:"),
    ):
        await _ask(target)
