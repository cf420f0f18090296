"""What clients and the command line meet on every kind of public address."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from llm_proxy.manage.client import ManagementClient
from llm_proxy.server.local_server import control_url
from tests.end_to_end.conftest import UPSTREAM_KEY, Launch
from tests.end_to_end.server_process import ServerProcess, run_command
from tests.end_to_end.waiting import eventually

V1 = b"PROXY TCP4 198.51.100.7 192.0.2.9 4711 443\r\n"
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(tmp_path: Path, authority: trustme.CA) -> tuple[Path, Path]:
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    issue(authority, *files)
    return files


def issue(authority: trustme.CA, certificate: Path, key: Path) -> bytes:
    """Replaces both files, as renewals do; the certificate in DER."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    for path, content in ((certificate, chain), (key, issued.private_key_pem.bytes())):
        draft = path.with_suffix(".tmp")
        draft.write_bytes(content)
        draft.replace(path)
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def command(server: ServerProcess, *arguments: str) -> tuple[int, str]:
    found = run_command(server.environ, *arguments)
    return found.returncode, found.stdout + found.stderr


def new_token(server: ServerProcess) -> str:
    url = control_url(server.state)
    assert url is not None
    with ManagementClient(url, server.management_token) as manage:
        keys = {"openai": UPSTREAM_KEY.format(api="openai")}
        project = manage.create_project({"name": "p", "api_keys": keys})
        made = manage.create_token({"project_id": project.id, "duration_minutes": 60})
    return made.token


def exchange(sock: socket.socket, request: bytes) -> bytes:
    """The answer to a request that closes its connection."""
    sock.settimeout(10)
    sock.sendall(request)
    answer = b""
    while piece := sock.recv(65536):
        answer += piece
    return answer


def chat_request(token: str, *lines: str) -> bytes:
    body = json.dumps(CHAT).encode()
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: a",
        "Connection: close",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def test_tls_from_start_to_renewal(
    launch: Launch, pair: tuple[Path, Path], authority: trustme.CA
) -> None:
    certificate, key = pair
    server = launch(arguments=["--tls-cert", str(certificate), "--tls-key", str(key)])
    server.start()
    url = f"https://{server.address}"
    assert f"is ready on {url}" in server.stderr
    token = new_token(server)
    with httpx.Client(verify=trusting(authority), trust_env=False) as client:
        headers = {"Authorization": f"Bearer {token}"}
        answer = client.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers)
        assert answer.status_code == 200, answer.text
        with client.stream(
            "POST", f"{url}/v1/chat/completions", json=CHAT | {"stream": True}, headers=headers
        ) as stream:
            assert "data: [DONE]" in stream.read().decode()
    assert command(server, "manage", "project", "list")[0] == 0
    code, shown = command(server, "server", "health")
    assert (code, url in shown) == (0, True), shown  # it trusts the server's own certificate
    code, shown = command(server, "server", "status", "--json")
    assert json.loads(shown)["url"] == url

    renewed = issue(authority, certificate, key)
    eventually(lambda: shown_certificate(server, authority) == renewed)
    assert server.stop() == 0


def shown_certificate(server: ServerProcess, authority: trustme.CA) -> bytes | None:
    host, _, port = server.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        trusting(authority).wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        return sock.getpeercert(binary_form=True)


def test_unusable_certificate_is_a_clear_error_at_the_start(
    launch: Launch, pair: tuple[Path, Path]
) -> None:
    certificate, key = pair
    issue(trustme.CA(), certificate, key.with_name("other.pem"))
    options = ("--tls-cert", str(certificate), "--tls-key", str(key))
    code, shown = command(launch(), "server", "start", "--addr", "127.0.0.1:0", *options)
    assert code == 1
    assert f"TLS_KEY: {key} is not the private key of the certificate in {certificate}" in shown


def test_certificate_without_a_key_is_refused(launch: Launch, pair: tuple[Path, Path]) -> None:
    code, shown = command(launch(), "server", "start", "--tls-cert", str(pair[0]))
    assert (code, "TLS_KEY is missing" in shown) == (1, True)


@pytest.fixture
def short_folder(launch: Launch) -> Iterator[Path]:
    """Short enough for the path of a socket; it goes with the server's runtime folder."""
    folder = launch().runtime / "public"
    folder.mkdir()
    yield folder


def test_unix_socket_serves_clients_and_commands(launch: Launch, short_folder: Path) -> None:
    path = short_folder / "s"
    server = launch(arguments=["--addr", f"unix:{path}", "--workers", "2"])
    server.start()
    assert server.address == f"unix:{path}"
    token = new_token(server)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), trust_env=False) as client:
        headers = {"Authorization": f"Bearer {token}"}
        for _ in range(3):
            answer = client.post("http://localhost/v1/chat/completions", json=CHAT, headers=headers)
            assert answer.status_code == 200, answer.text
    code, shown = command(server, "server", "health")
    assert (code, f"unix:{path}/ready   ready" in shown) == (0, True), shown
    base = ("--manage-api-base-url", f"unix:{path}")
    assert command(server, "manage", "project", "list", *base)[0] == 0
    eventually(lambda: len(server.records()) >= 3)
    assert {record["client_ip"] for record in server.records()} == {"unix"}
    assert server.stop() == 0
    assert not path.exists()


def test_unix_socket_of_a_killed_server_is_taken_over(launch: Launch, short_folder: Path) -> None:
    path = short_folder / "s"
    first = launch(arguments=["--addr", f"unix:{path}"])
    first.start()
    second = launch(arguments=["--addr", f"unix:{path}"])
    code, shown = command(second, "server", "start", "--addr", f"unix:{path}")
    assert (code, f"unix:{path} is in use" in shown) == (1, True), shown
    first.signal(signal.SIGKILL)
    first.process.wait()
    first.wait_until_all_gone()
    assert path.exists()
    first.start()
    assert command(first, "server", "health")[0] == 0
    assert first.stop() == 0


def test_proxy_protocol_names_the_client(launch: Launch) -> None:
    server = launch(arguments=["--proxy-protocol"])
    server.start()
    token = new_token(server)
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        assert exchange(sock, V1 + chat_request(token)).startswith(b"HTTP/1.1 200 OK\r\n")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(chat_request(token))
        with pytest.raises(ConnectionResetError):  # or the end, when nothing was left unread
            assert sock.recv(1) == b""
            raise ConnectionResetError
    assert command(server, "server", "health")[0] == 0  # which speaks for itself
    eventually(lambda: bool(server.records()))
    assert server.records()[0]["client_ip"] == "198.51.100.7"


def test_trusted_proxies_name_the_client(launch: Launch) -> None:
    server = launch(environ={"TRUSTED_PROXIES": "127.0.0.1,10.0.0.0/8"})
    server.start()
    token = new_token(server)
    host, _, port = server.address.rpartition(":")
    forwarded = "X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.1.2.3"
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        answer = exchange(sock, chat_request(token, forwarded))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    eventually(lambda: bool(server.records()))
    assert server.records()[0]["client_ip"] == "198.51.100.7"
