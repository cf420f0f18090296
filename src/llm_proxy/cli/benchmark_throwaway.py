"""A server and the built-in mock behind it, for one benchmark: no key and no cost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_proxy.benchmark.presets import Preset
    from llm_proxy.cli.benchmark_target import Targets
    from llm_proxy.cli.demo_servers import DemoServers
    from llm_proxy.secrets import Secret

_UPSTREAM_KEY: Final = "sk-benchmark-upstream-key-0000000000"
_DIRECT_KEY: Final = "sk-benchmark-direct-key-0000000000"  # so that the mock can tell who hung up
_HANG_UP_PACE: Final = 100.0  # tokens a second: else a stream is out before one can hang up on it
_TOKEN_MINUTES: Final = 60 * 24 * 2  # longer than the longest run


@contextmanager
def throwaway_targets(
    preset: Preset, *, tokens: int = 1, has_hang_ups: bool = False
) -> Iterator[Targets]:
    """The mock is the direct target, too. Raises LLMProxyError when one doesn't start."""
    from llm_proxy.cli.demo_servers import demo_servers

    pace = _HANG_UP_PACE if has_hang_ups else 0
    with (
        tempfile.TemporaryDirectory(prefix="llm-proxy-benchmark-") as folder,
        demo_servers(Path(folder), tokens_per_second=pace, has_event_log=False) as servers,
    ):
        yield _targets(servers, preset, _new_tokens(servers, tokens))


def _targets(servers: DemoServers, preset: Preset, tokens: tuple[Secret, ...]) -> Targets:
    from llm_proxy.benchmark.plan import Target
    from llm_proxy.cli.benchmark_target import Targets
    from llm_proxy.secrets import Secret

    prefix = "" if preset.api == "openai" else f"/{preset.api}"
    proxied = Target(
        base_url=f"{servers.proxy_url}{prefix}",
        keys=tokens,
        key_header=preset.key_header,
        key_scheme=preset.key_scheme,
    )
    direct = Target(
        base_url=servers.mock_url,
        keys=(Secret(_DIRECT_KEY),),
        key_header=preset.key_header,
        key_scheme=preset.key_scheme,
    )
    return Targets(
        proxied=proxied,
        direct=direct,
        pid=servers.server_pid,
        is_throwaway=True,
        mock_pid=servers.mock_pid,
        mock_key=Secret(_UPSTREAM_KEY),
    )


def _new_tokens(servers: DemoServers, count: int) -> tuple[Secret, ...]:
    from llm_proxy.home import Home
    from llm_proxy.manage.client import ManagementClient
    from llm_proxy.secrets import Secret

    management_token = Home(servers.home).read_secret("management_token") or Secret("")
    keys = {"openai": _UPSTREAM_KEY, "anthropic": _UPSTREAM_KEY}
    with ManagementClient(servers.proxy_url, management_token) as client:
        project = client.create_project({"name": "benchmark", "api_keys": keys})
        fields = {"project_id": project.id, "duration_minutes": _TOKEN_MINUTES}
        return tuple(Secret(client.create_token(fields).token) for _ in range(count))
