from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from llm_proxy.server.child_process import (
    child_environment,
    describe_exit,
    module_command,
    start_process,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


def test_children_inherit_no_secret_but_the_rest() -> None:
    environ = {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy:3128",
        "SSL_CERT_FILE": "/roots.pem",
        "MANAGEMENT_TOKEN": "canary",
        "ENCRYPTION_KEY": "canary",
        "OPENAI_API_KEY": "canary",
        "REDIS_PASSWORD": "canary",
        "DATABASE_URL": "postgres://user:canary@host/db",
        "http_proxy": "http://user:canary@proxy:3128",
        "ALL_PROXY": "user:canary@proxy:3128",
        "BROKER": "amqp://user:canary@broker",
        "Aws_Secret_Access": "canary",
    }
    kept = child_environment(environ)
    assert "canary" not in str(kept)
    assert kept.items() >= {k: v for k, v in environ.items() if "canary" not in v}.items()
    assert kept["MALLOC_TRIM_THRESHOLD_"] == "67108864"


def test_module_is_not_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert os.spawnv(os.P_WAIT, sys.executable, [*module_command("json.tool"), "--help"]) == 0


@pytest.mark.anyio
async def test_child_gets_the_named_descriptors_and_a_session_of_its_own() -> None:
    reading, writing = os.pipe()
    secret_reading, secret_writing = os.pipe()
    code = (
        "import os, sys\n"
        f"os.write({writing}, b'%d' % os.getsid(0))\n"
        f"try: os.fstat({secret_reading})\n"
        "except OSError: sys.exit(7)\n"
    )
    os.set_inheritable(secret_reading, True)
    process = await start_process(
        [sys.executable, "-c", code], environ=os.environ, pass_fds=[writing]
    )
    assert await process.wait() == 7
    assert os.read(reading, 100) == str(process.pid).encode()
    for fd in (reading, writing, secret_reading, secret_writing):
        os.close(fd)


def test_exit_is_described() -> None:
    assert describe_exit(-9) == "was killed by signal 9"
    assert describe_exit(3) == "exited with code 3"
