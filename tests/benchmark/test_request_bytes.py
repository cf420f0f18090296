from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.benchmark.plan import Closed, Load, Plan, Replay, Target, Workload
from llm_proxy.benchmark.request_bytes import RequestBytes, body_order
from llm_proxy.secrets import Secret


def made(target: Target, workload: Workload, number: int = 0, body: int = 0) -> str:
    return RequestBytes(target, workload).request(number, body).decode()


def test_a_request_holds_host_path_key_and_body() -> None:
    target = Target(base_url="http://[::1]:8080/openai", keys=(Secret("sk-one"),))
    request = made(target, Workload(bodies=(b'{"a":1}',), headers=(("X-Mock-Delay", "1s"),)))
    head, _, body = request.partition("\r\n\r\n")
    assert head.startswith("POST /openai/v1/chat/completions HTTP/1.1\r\nHost: [::1]:8080\r\n")
    assert "\r\nAuthorization: Bearer sk-one\r\n" in head
    assert "\r\nX-Mock-Delay: 1s\r\n" in head
    assert "\r\nContent-Type: application/json\r\n" in head
    assert head.endswith("\r\nContent-Length: 7")
    assert body == '{"a":1}'


def test_keys_take_turns() -> None:
    target = Target(base_url="http://a", keys=(Secret("one"), Secret("two")))
    requests = RequestBytes(target, Workload())
    used = [b"Bearer one" in requests.request(number, 0) for number in range(4)]
    assert used == [True, False, True, False]


def test_a_bare_key_has_no_scheme() -> None:
    target = Target(base_url="http://a", keys=(Secret("k"),), key_header="x-api-key", key_scheme="")
    assert "\r\nx-api-key: k\r\n" in made(target, Workload())


def test_without_a_key_none_is_sent() -> None:
    assert "uthorization" not in made(Target(base_url="http://a"), Workload())


def test_given_headers_replace_the_defaults() -> None:
    workload = Workload(bodies=(b"x",), headers=(("content-type", "text/plain"), ("ACCEPT", "a/b")))
    request = made(Target(base_url="http://a"), workload)
    assert request.count("application/json") == 0 and "text/plain" in request
    assert "*/*" not in request


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_request_without_a_body_has_no_length(method: str) -> None:
    request = made(Target(base_url="http://a"), Workload(method=method))
    assert request.endswith("\r\n\r\n")
    assert "Content-" not in request


def test_an_empty_post_says_so() -> None:
    assert made(Target(base_url="http://a"), Workload()).endswith("Content-Length: 0\r\n\r\n")


def test_streams_ask_for_events() -> None:
    request = made(Target(base_url="http://a"), Workload(is_stream=True))
    assert "\r\nAccept: text/event-stream\r\n" in request


def ordered(seed: int = 1, load: Load | None = None, **workload: Any) -> list[int]:
    bodies = tuple(b"%d" % number for number in range(100))
    plan = Plan(
        targets=(Target(base_url="http://a"),),
        workload=Workload(bodies=bodies, **workload),
        load=load or Closed(concurrency=1, requests=1),
        seed=seed,
    )
    return list(body_order(plan))


def test_the_order_of_bodies_is_that_of_the_seed_and_has_each_once() -> None:
    order = ordered()
    assert sorted(order) == list(range(100))
    assert order == ordered(1) != ordered(2)


def test_a_session_is_sent_in_turn() -> None:
    assert ordered(order="in turn") == list(range(100))


def test_a_replay_says_itself_what_comes_when() -> None:
    assert ordered(load=Replay(offsets_s=(0, 1, 2), bodies=(5, 5, 0))) == [5, 5, 0]
