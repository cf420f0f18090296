"""After everything was done to a server, no secret is found where it doesn't belong."""

from __future__ import annotations

import base64
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.secrets import new_encryption_key
from tests.end_to_end.exercise import FIRST_KEY, Exercise, files_under
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.raw_upstream import RawUpstream
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually

ECHO = """\
  echo:
    base_url: http://{upstream}
    allowed_endpoints: ["/v1/*"]
    allowed_methods: [GET]
"""


class Seen:
    """What there was to see of an exercised server."""

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        self.server = exercise.server
        self.command_lines: dict[str, bytes] = {}  # by the process's part
        self.environments: dict[str, bytes] = {}

    def look_at_processes(self) -> None:
        state = self.server.state
        parts = {"supervisor": self.server.process.pid, "worker": state.workers[0].pid}
        assert state.writer_pid is not None
        for part, pid in {**parts, "writer": state.writer_pid}.items():
            if (folder := Path(f"/proc/{pid}")).exists():
                self.command_lines[part] = (folder / "cmdline").read_bytes()
                self.environments[part] = (folder / "environ").read_bytes()


@pytest.fixture(scope="module", params=["generated", "given"])
def seen(
    mock: MockThread,
    raw_upstream: RawUpstream,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Seen]:
    """With secrets that the server made, or that were given to it in the environment."""
    folder = tmp_path_factory.mktemp("canaries")
    environ = {"DEBUG_HEADERS": "true"}
    if request.param == "given":
        environ |= {
            "MANAGEMENT_TOKEN": "canary-management-token-0123456789",
            "ENCRYPTION_KEY": new_encryption_key().reveal(),
            "OPENAI_API_KEY": FIRST_KEY,  # a user's own, and no setting of ours
        }
    arguments = ["--log-level", "debug", "--log-file", str(folder / "home" / "server.log")]
    server = ServerProcess(folder, upstream=mock.address, arguments=arguments, environ=environ)
    with server.providers_file.open("a") as providers:
        providers.write(ECHO.format(upstream=raw_upstream.address))
    exercise = Exercise(server=server, upstream=raw_upstream)
    seen = Seen(exercise)
    try:
        server.start()
        exercise.run()
        seen.look_at_processes()
        (killed,) = server.worker_pids
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: server.worker_pids not in ([], [killed]))
        assert server.stop() == 0
        yield seen
    finally:
        server.destroy()


def forms(secret: str) -> list[bytes]:
    """How it could be written down: plain, or barely hidden."""
    raw = secret.encode()
    return [raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode()]


def found_in(content: bytes, secrets: dict[str, str]) -> list[str]:
    """What of the secrets is there."""
    return [
        what for what, secret in secrets.items() if any(form in content for form in forms(secret))
    ]


def test_the_exercise_reached_what_it_should(seen: Seen) -> None:
    """Else the other tests would find nothing in nothing."""
    exercise, home = seen.exercise, seen.server.home.path
    assert len(exercise.secrets) == 11
    codes = {record["error_code"] for record in seen.server.records()}
    assert codes >= {
        *(None, "invalid_token", "token_revoked", "endpoint_not_allowed", "upstream_broken"),
        *("upstream_unreachable", "no_upstream_key", "method_not_allowed", "param_not_allowed"),
    }
    assert (home / "server.log").read_text().count("\n") > 3
    assert found_in(b"prefix sk-canary-upstream-first-0123456789 suffix", exercise.secrets) == [
        "first upstream key"
    ]


def test_no_file_has_a_secret_in_clear(seen: Seen) -> None:
    home = seen.server.home.path
    belongs = {"management_token": ["management token"], "encryption_key": ["encryption key"]}
    for path in files_under(home):
        found = found_in(path.read_bytes(), seen.exercise.secrets)
        assert found == belongs.get(path.name, []), path


def test_database_has_the_keys_encrypted(seen: Seen) -> None:
    assert b"enc:v1:" in seen.server.home.database.read_bytes()


def test_no_answer_has_a_secret_but_the_one_that_issues_it(seen: Seen) -> None:
    for answer in seen.exercise.answers:
        assert found_in(answer, seen.exercise.secrets) == [], answer


def test_no_command_prints_a_secret_but_the_one_that_issues_it(seen: Seen) -> None:
    for output in seen.exercise.outputs:
        assert found_in(output.encode(), seen.exercise.secrets) == [], output


def test_nothing_said_on_stderr_is_secret(seen: Seen) -> None:
    assert "is ready on" in seen.server.stderr
    assert found_in(seen.server.stderr.encode(), seen.exercise.secrets) == []


def test_no_process_shows_a_secret(seen: Seen) -> None:
    if not seen.command_lines:
        pytest.skip("there is no /proc here")
    for part, command_line in seen.command_lines.items():
        assert b"llm_proxy" in command_line
        assert found_in(command_line, seen.exercise.secrets) == [], part
    given = {"MANAGEMENT_TOKEN", "ENCRYPTION_KEY", "OPENAI_API_KEY"} & set(seen.server.environ)
    for part, environment in seen.environments.items():
        assert b"LLM_PROXY_HOME=" in environment
        found = found_in(environment, seen.exercise.secrets)
        # The supervisor has what its user gave it; those that it starts have nothing of it.
        assert len(found) == (len(given) if part == "supervisor" else 0), (part, found)


def test_everything_in_the_home_is_for_its_owner_alone(seen: Seen) -> None:
    home = seen.server.home.path
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files_under(home)}
    assert len(modes) >= 3
    assert set(modes.values()) == {"0o600"}, modes
