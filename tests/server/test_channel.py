from __future__ import annotations

import msgspec
import pytest

from llm_proxy.http1.egress import read_egress
from llm_proxy.measurements import Series, Snapshot
from llm_proxy.providers import Api, Providers
from llm_proxy.secrets import Secret
from llm_proxy.server.channel import (
    Acknowledge,
    Change,
    Collect,
    Configure,
    Drain,
    Failed,
    FromWorker,
    Invalidate,
    Measured,
    Ready,
    ToWorker,
    WorkerConfig,
    decode_from_worker,
    decode_to_worker,
    encode,
)

CONFIG = WorkerConfig(
    database=Secret("/tmp/a b.db"),
    encryption_key=Secret("key"),
    providers=Providers(
        default_api="openai",
        apis={
            "openai": Api(
                name="openai",
                base_url="https://api.openai.com",
                allowed_endpoints=("/v1/*",),
                allowed_methods=("GET",),
                param_whitelist={"model": ("gpt-*",)},
            )
        },
    ),
    control_socket="/tmp/control.sock",
    events_socket=None,
    management_is_public=True,
    egress=read_egress({"HTTPS_PROXY": "http://u:p@p.test:3128", "NO_PROXY": "a.test"}),
    max_request_size=100,
    debug_headers=False,
)
SNAPSHOT = Snapshot(counters=(Series("requests", ("openai", "200"), 3),))


@pytest.mark.parametrize(
    "message",
    [
        Configure(CONFIG),
        Invalidate(3, [Change("token", "id\nwith a line break")]),
        Drain(1.5, 5.0),
        Collect(4),
    ],
)
def test_messages_to_a_worker_arrive_as_they_were_sent(message: ToWorker) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode_to_worker(line) == message


@pytest.mark.parametrize(
    "message", [Ready(7), Failed("why: é"), Acknowledge(3), Measured(4, SNAPSHOT)]
)
def test_messages_from_a_worker_arrive_as_they_were_sent(message: FromWorker) -> None:
    assert decode_from_worker(encode(message)) == message


def test_a_configuration_shows_no_key() -> None:
    assert "key='key'" not in repr(CONFIG)
    assert "***" in repr(CONFIG)


@pytest.mark.parametrize("line", [b"{}\n", b"nonsense\n", b'{"type":"ready"}\n'])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_to_worker(line)


def test_only_known_types_are_encoded() -> None:
    with pytest.raises(NotImplementedError):
        encode(Failed(object()))  # type: ignore[arg-type]
