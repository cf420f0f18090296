from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trustme

from llm_proxy.errors import ConfigError
from llm_proxy.server.local_server import LocalServer, control_url, local_url
from llm_proxy.server.state import ServerState
from llm_proxy.settings import load_settings

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
LIMIT_S = 30.0


class Listener:
    """Answers one connection, and keeps what came before the end of its head."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self._sock = sock
        self._context = context
        self.received = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self._sock.settimeout(LIMIT_S)
        with self._sock, suppress(OSError):
            connection, _ = self._sock.accept()
            connection.settimeout(LIMIT_S)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                while b"\r\n\r\n" not in self.received and (piece := connection.recv(1000)):
                    self.received += piece
                connection.sendall(ANSWER)

    def wait(self) -> bytes:
        self._thread.join()
        return self.received


Start = Callable[..., Listener]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Listener] = []

    def listen(sock: socket.socket, context: ssl.SSLContext | None = None) -> Listener:
        made.append(Listener(sock, context))
        return made[-1]

    yield listen
    for listener in made:
        listener.wait()


def bind() -> tuple[socket.socket, str]:
    sock = socket.create_server(("127.0.0.1", 0))
    return sock, f"127.0.0.1:{sock.getsockname()[1]}"


def ask(server: LocalServer) -> int:
    connection = server.connection(timeout_s=LIMIT_S)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:80", "http://[::1]:80"),
        ("[::1]:80", "http://[::1]:80"),
        ("unix:/run/s", "unix:/run/s"),
    ],
)
def test_url_on_this_machine(address: str, url: str) -> None:
    assert local_url(address) == url
    assert local_url(address, has_tls=True) == url.replace("http:", "https:")


def test_plain_server(start: Start) -> None:
    sock, address = bind()
    listener = start(sock)
    assert ask(LocalServer(address=address)) == 200
    assert listener.wait().startswith(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n")


def test_unix_socket(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("s")
    sock.listen()
    start(sock)
    assert ask(LocalServer(address="unix:s")) == 200


@pytest.mark.parametrize(
    ("trusted", "introduces"), [((), True), (("127.0.0.0/8",), True), (("10.0.0.0/8",), False)]
)
def test_proxy_protocol_is_spoken_where_it_is_expected(
    start: Start, trusted: tuple[str, ...], introduces: bool
) -> None:
    sock, address = bind()
    listener = start(sock)
    server = LocalServer(address=address, proxy_protocol=True, trusted_proxies=trusted)
    assert ask(server) == 200
    assert listener.wait().startswith(b"PROXY UNKNOWN\r\n" if introduces else b"GET ")


def write_certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """Issued for another name by an authority that nobody knows."""
    issued = trustme.CA().issue_cert(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    path = folder / f"{name}.pem"
    path.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return path, context


def test_own_certificate_is_trusted_whoever_issued_it(start: Start, tmp_path: Path) -> None:
    path, context = write_certificate(tmp_path, "llm.example.com")
    sock, address = bind()
    start(sock, context)
    server = LocalServer(address=address, tls_cert=path)
    assert server.url == f"https://{address}"
    assert ask(server) == 200


def test_other_clients_can_trust_it_too(start: Start, tmp_path: Path) -> None:
    path, context = write_certificate(tmp_path, "llm.example.com")
    sock, address = bind()
    start(sock, context)
    server = LocalServer(address=address, tls_cert=path)
    trust = server.tls_context()
    assert trust is not None
    assert httpx.get(f"{server.url}/ready", verify=trust, trust_env=False).status_code == 200
    assert LocalServer(address=address).tls_context() is None


def test_another_certificate_is_not(start: Start, tmp_path: Path) -> None:
    path, _ = write_certificate(tmp_path, "llm.example.com")
    _, context = write_certificate(tmp_path, "other.example.com")
    sock, address = bind()
    start(sock, context)
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(LocalServer(address=address, tls_cert=path))


def test_certificate_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    sock, address = bind()
    problem = f"certificate {tmp_path}/missing.pem can't be read"
    with sock, pytest.raises(ConfigError, match=problem):
        ask(LocalServer(address=address, tls_cert=tmp_path / "missing.pem"))


def test_what_is_known_of_a_server_that_runs_or_will() -> None:
    state = ServerState(
        pid=1,
        address="127.0.0.1:8443",
        manage_address=None,
        tls_cert="/etc/cert.pem",
        proxy_protocol=True,
        trusted_proxies=("10.0.0.0/8",),
        version="1",
        started_at=0,
        runtime_folder="/run/x",
        workers=[],
        flags={},
    )
    running = LocalServer.running(state)
    assert running == LocalServer(
        address="127.0.0.1:8443",
        tls_cert=Path("/etc/cert.pem"),
        proxy_protocol=True,
        trusted_proxies=("10.0.0.0/8",),
    )
    assert control_url(state) == "unix:/run/x/control.sock"
    settings = load_settings({"listen_addr": "127.0.0.1:8443"}, environ={"TRUSTED_PROXIES": "unix"})
    planned = LocalServer.to_be_started(settings)
    assert planned == LocalServer(address="127.0.0.1:8443", trusted_proxies=("unix",))
