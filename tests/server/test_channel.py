from __future__ import annotations

import msgspec
import pytest

from llm_proxy.providers import Api, Providers
from llm_proxy.secrets import Secret
from llm_proxy.server.channel import (
    Acknowledge,
    Change,
    Configure,
    Drain,
    Failed,
    FromWorker,
    Invalidate,
    Ready,
    ToWorker,
    WorkerConfig,
    decode_from_worker,
    decode_to_worker,
    encode,
)

CONFIG = WorkerConfig(
    database="/tmp/a b.db",
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
    max_request_size=100,
    debug_headers=False,
)


@pytest.mark.parametrize(
    "message",
    [
        Configure(CONFIG),
        Invalidate(3, [Change("token", "id\nwith a line break")]),
        Drain(1.5),
    ],
)
def test_messages_to_a_worker_arrive_as_they_were_sent(message: ToWorker) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode_to_worker(line) == message


@pytest.mark.parametrize("message", [Ready(7), Failed("why: é"), Acknowledge(3)])
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
