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
_TOKEN_MINUTES: Final = 60 * 24 * 2  # longer than the longest run


@contextmanager
def throwaway_targets(preset: Preset) -> Iterator[Targets]:
    """The mock is the direct target, too. Raises LLMProxyError when one doesn't start."""
    from llm_proxy.cli.demo_servers import demo_servers

    with (
        tempfile.TemporaryDirectory(prefix="llm-proxy-benchmark-") as folder,
        demo_servers(Path(folder), tokens_per_second=0, has_event_log=False) as servers,
    ):
        yield _targets(servers, preset, _new_token(servers))


def _targets(servers: DemoServers, preset: Preset, token: Secret) -> Targets:
    from llm_proxy.benchmark.plan import Target
    from llm_proxy.cli.benchmark_target import Targets
    from llm_proxy.secrets import Secret

    prefix = "" if preset.api == "openai" else f"/{preset.api}"
    proxied = Target(
        base_url=f"{servers.proxy_url}{prefix}",
        keys=(token,),
        key_header=preset.key_header,
        key_scheme=preset.key_scheme,
    )
    direct = Target(
        base_url=servers.mock_url,
        keys=(Secret(_UPSTREAM_KEY),),
        key_header=preset.key_header,
        key_scheme=preset.key_scheme,
    )
    return Targets(proxied=proxied, direct=direct, pid=servers.server_pid, is_throwaway=True)


def _new_token(servers: DemoServers) -> Secret:
    from llm_proxy.home import Home
    from llm_proxy.manage.client import ManagementClient
    from llm_proxy.secrets import Secret

    management_token = Home(servers.home).read_secret("management_token") or Secret("")
    keys = {"openai": _UPSTREAM_KEY, "anthropic": _UPSTREAM_KEY}
    with ManagementClient(servers.proxy_url, management_token) as client:
        project = client.create_project({"name": "benchmark", "api_keys": keys})
        fields = {"project_id": project.id, "duration_minutes": _TOKEN_MINUTES}
        return Secret(client.create_token(fields).token)
