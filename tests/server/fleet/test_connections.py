from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_proxy.redis_address import RedisAddress
from llm_proxy.secrets import Secret
from llm_proxy.server.fleet.connections import RedisConnections, RedisUnavailable, ScriptCall
from llm_proxy.server.fleet.scripts import GIVE_RATE, PREFIX, TAKE_RATE, TAKE_SLOTS
from tests.redis_server import RedisServer, StartRedis

DOCUMENT = Path(__file__).parents[3] / "docs" / "redis.md"
pytestmark = pytest.mark.anyio


def _call(key: str = "total", *, wanted: int = 1) -> ScriptCall:
    return ScriptCall(TAKE_RATE, key, (1_000_000, 60, 0, wanted))


def _permits(answers: list[Any]) -> list[int]:
    return [permits for permits, _, _ in answers]


async def _open(server: RedisServer, *, most: int = 1, timeout_s: float = 5.0) -> RedisConnections:
    connections = RedisConnections(
        RedisAddress(host="127.0.0.1", port=server.port), most=most, timeout_s=timeout_s
    )
    await connections.open()
    return connections


async def test_answers_come_in_the_order_of_the_calls(redis_server: RedisServer) -> None:
    connections = await _open(redis_server)
    answers = await connections.run([_call("a", wanted=3), _call("b", wanted=5), _call("a")])
    assert _permits(answers) == [3, 5, 1]
    await connections.close()


async def test_forgotten_scripts_are_sent_again(redis_server: RedisServer) -> None:
    connections = await _open(redis_server)
    await connections.run([_call()])
    redis_server.command("SCRIPT", "FLUSH")
    assert _permits(await connections.run([_call(), _call("other")])) == [1, 1]
    await connections.close()


async def test_time_limit_leaves_a_connection_that_can_be_used_again(
    redis_server: RedisServer,
) -> None:
    connections = await _open(redis_server, timeout_s=0.1)
    for _ in range(3):
        redis_server.pause()
        with pytest.raises(RedisUnavailable, match="no answer in time"):
            await connections.run([_call("late", wanted=7)])
        redis_server.resume()
        assert _permits(await connections.run([_call("other")], timeout_s=5)) == [1]
    await connections.close()


async def test_server_that_comes_back_is_used_at_once(redis_server: RedisServer) -> None:
    connections = await _open(redis_server)
    await connections.run([_call()])
    redis_server.kill()
    with pytest.raises(RedisUnavailable):
        await connections.run([_call()])
    redis_server.start()
    assert _permits(await connections.run([_call()])) == [1]
    await connections.close()


async def test_key_of_another_program_fails_alone(redis_server: RedisServer) -> None:
    redis_server.command("LPUSH", PREFIX + "total", "x")
    connections = await _open(redis_server)
    failed, answered = await connections.run([_call(), _call("other")])
    assert isinstance(failed, RedisUnavailable)
    assert _permits([answered]) == [1]
    await connections.close()


@pytest.mark.parametrize("given", [None, Secret("wrong")])
async def test_wrong_password_is_a_refusal_that_does_not_show_it(
    start_redis: StartRedis, given: Secret | None
) -> None:
    server = start_redis("--requirepass", "right")
    connections = RedisConnections(
        RedisAddress(host="127.0.0.1", port=server.port, password=given), most=1, timeout_s=5
    )
    await connections.open()
    with pytest.raises(RedisUnavailable) as caught:
        await connections.run([_call()])
    assert caught.value.is_refusal
    assert "right" not in str(caught.value)
    await connections.close()


async def test_password_is_given(start_redis: StartRedis) -> None:
    server = start_redis("--requirepass", "right")
    address = RedisAddress(host="127.0.0.1", port=server.port, password=Secret("right"))
    connections = RedisConnections(address, most=1, timeout_s=5)
    await connections.open()
    assert _permits(await connections.run([_call()])) == [1]
    await connections.close()


async def test_database_that_does_not_exist_is_a_refusal(redis_server: RedisServer) -> None:
    address = RedisAddress(host="127.0.0.1", port=redis_server.port, database=999)
    connections = RedisConnections(address, most=1, timeout_s=5)
    await connections.open()
    with pytest.raises(RedisUnavailable) as caught:
        await connections.run([_call()])
    assert caught.value.is_refusal
    await connections.close()


async def test_nobody_there_is_no_refusal(redis_server: RedisServer) -> None:
    redis_server.kill()
    connections = await _open(redis_server)
    with pytest.raises(RedisUnavailable) as caught:
        await connections.run([_call()])
    assert not caught.value.is_refusal
    await connections.close()


@pytest.mark.parametrize(
    "command",
    [
        ("CONFIG", "SET", "maxmemory", "1"),
        ("REPLICAOF", "127.0.0.1", "1"),
    ],
    ids=["full", "read-only"],
)
async def test_server_that_takes_no_writes_is_unavailable(
    redis_server: RedisServer, command: tuple[str, ...]
) -> None:
    connections = await _open(redis_server)
    await connections.run([_call()])
    redis_server.command(*command)
    with pytest.raises(RedisUnavailable) as caught:
        await connections.run([_call("another")])
    assert not caught.value.is_refusal
    await connections.close()


async def test_user_needs_no_more_rights_than_documented(redis_server: RedisServer) -> None:
    text = DOCUMENT.read_text()
    _, rights, _, keys, *_ = text.partition("A user of its own needs ")[2].split("`")
    redis_server.command("ACL", "SETUSER", "proxy", "on", ">pass", *rights.split(), keys)
    connections = RedisConnections(
        RedisAddress(
            host="127.0.0.1",
            port=redis_server.port,
            database=1,
            username="proxy",
            password=Secret("pass"),
        ),
        most=1,
        timeout_s=5,
    )
    await connections.open()
    taken, given, slots, told = await connections.run(
        [
            _call(),
            ScriptCall(GIVE_RATE, "total", (1_000_000, 60, 0, 1, 0)),
            ScriptCall(TAKE_SLOTS, "slots", ("host", 0, 1, 1, 1000, 1)),
            ScriptCall(TAKE_SLOTS, "slots", ("other", 0, 0, 1, 1000, 1)),
        ]
    )
    assert (taken[0], slots, told) == (1, 1, 0)
    assert given > 0
    await connections.close()
