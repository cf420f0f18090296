from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError, LLMProxyError
from llm_proxy.server.fleet.start import start_fleet
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.settings import Settings, load_settings
from tests.redis_server import RedisServer, StartRedis

pytestmark = pytest.mark.anyio


def _settings(tmp_path: Path, **environ: str) -> Settings:
    return load_settings({}, environ={"LLM_PROXY_HOME": str(tmp_path), **environ})


async def test_fleet_is_what_the_settings_say(tmp_path: Path, redis_server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        settings = _settings(tmp_path, REDIS_ADDR=redis_server.address, REDIS_DB="3")
        fleet = await start_fleet(settings, HostAuthority(), stack)
        assert fleet.status == "ok"
        assert fleet.lasts_without_redis
        await fleet.take_slots("total", 5, 1, "worker")
        assert b"db3:" in redis_server.command("INFO", "keyspace")


async def test_missing_redis_is_no_obstacle_when_limits_fail_open(
    tmp_path: Path, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.kill()
    async with AsyncExitStack() as stack:
        settings = _settings(tmp_path, REDIS_ADDR=redis_server.address)
        fleet = await start_fleet(settings, HostAuthority(), stack)
        assert fleet.status == "unavailable"
    assert "limits are kept on this host alone" in caplog.text


async def test_missing_redis_ends_the_start_when_limits_fail_closed(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    redis_server.kill()
    async with AsyncExitStack() as stack:
        settings = _settings(tmp_path, REDIS_ADDR=redis_server.address, REDIS_FAIL="closed")
        with pytest.raises(LLMProxyError, match="REDIS_FAIL=open"):
            await start_fleet(settings, HostAuthority(), stack)


@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_wrong_password_ends_every_start(
    tmp_path: Path, start_redis: StartRedis, policy: str
) -> None:
    server = start_redis("--requirepass", "right")
    async with AsyncExitStack() as stack:
        settings = _settings(
            tmp_path, REDIS_URL=f"redis://:wrong@{server.address}", REDIS_FAIL=policy
        )
        with pytest.raises(ConfigError) as caught:
            await start_fleet(settings, HostAuthority(), stack)
        assert "REDIS_PASSWORD" in str(caught.value)
        assert "wrong" not in str(caught.value)
