"""What is compared: one mock, direct and behind each proxy, and what is switched on in each."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench_runs import ANY_KEY, BARE, kept_environ
from bench_server import Server

from llm_proxy import __version__

START_S, STOP_S = 90.0, 15.0
MODEL = "gpt-4o-mini"
PROVIDERS = """\
default_api: openai
apis:
  openai:
    base_url: {url}
    allowed_endpoints: [/v1/chat/completions]
    allowed_methods: [POST]
"""
NGINX = """\
pid {folder}/pid; error_log {folder}/error.log; daemon off; worker_processes 1;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {http}
}}
"""
FORWARDING = """\
upstream mock {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen {address} backlog=4096; location / {{
    proxy_pass http://mock; proxy_http_version 1.1; proxy_buffering off;
    proxy_set_header Connection ""; proxy_set_header Authorization "Bearer sk-upstream"; }} }}
"""
# Production settings of its documentation; one worker is what it recommends for each container.
LITELLM = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{url}/v1", api_key: sk-upstream}}
litellm_settings: {{request_timeout: 600, set_verbose: false, json_logs: true, num_retries: 0}}
general_settings: {{master_key: {key}}}
"""
LITELLM_ENVIRON = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the table of prices that it ships, not one fetched
}
FEATURES = (
    "authentication",
    "usage and cost",
    "records",
    "limits",
    "answers",
    "workers",
    "logging",
)
SWITCHED_ON = {
    "direct": dict.fromkeys(FEATURES, "–"),
    "nginx": {
        "authentication": "no; a fixed upstream key is set",
        "usage and cost": "no",
        "records": "no",
        "limits": "no",
        "answers": "passed on, unbuffered",
        "workers": "1",
        "logging": "access log off",
    },
    "llm-proxy": {
        "authentication": "token of a project, from the database; upstream key set",
        "usage and cost": "requests counted for each token; tokens used read from answers",
        "records": "one a request, with model and tokens used, to the file event log",
        "limits": "checked, none set",
        "answers": "passed on byte by byte",
        "workers": "1, a supervisor and a writer of records",
        "logging": "warnings",
    },
    "LiteLLM": {
        "authentication": "master key, no database",
        "usage and cost": "cost worked out, put into headers",
        "records": "no",
        "limits": "no",
        "answers": "parsed and written anew",
        "workers": "1",
        "logging": "errors",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    name: str
    version: str
    url: str
    token: str = field(default=ANY_KEY, repr=False)
    pid: int | None = None  # of its first process; None: nothing runs but the mock

    @property
    def switched_on(self) -> dict[str, str]:
        return SWITCHED_ON[self.name]


@contextlib.contextmanager
def llm_proxy_side(mock: str) -> Iterator[Side]:
    with Server(PROVIDERS.format(url=mock)) as server:
        token = server.new_token("openai")
        url = f"http://{server.host}:{server.port}"
        pid = server.pids["supervisor"]
        yield Side(name="llm-proxy", version=__version__, url=url, token=token, pid=pid)


@contextlib.contextmanager
def nginx_side(mock: str) -> Iterator[Side]:
    address = f"127.0.0.1:{free_port()}"
    http = FORWARDING.format(upstream=urlsplit(mock).netloc, address=address)
    with nginx(http, address) as pid:
        said = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
        version = said.strip().rpartition("/")[2]
        yield Side(name="nginx", version=version, url=f"http://{address}", pid=pid)


@contextlib.contextmanager
def litellm_side(mock: str, environment: Path) -> Iterator[Side]:
    """Of a virtual environment, which is made when there is none."""
    if not (environment / "bin" / "litellm").exists():
        install_litellm(environment)
    python = environment / "bin" / "python"
    ask = "import importlib.metadata as m; print(m.version('litellm'))"
    version = subprocess.check_output([python, "-c", ask], text=True).strip()
    key, port = f"sk-{secrets.token_hex(16)}", free_port()
    with tempfile.TemporaryDirectory(prefix="llmp-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(LITELLM.format(model=MODEL, url=mock, key=key))
        command = [environment / "bin" / "litellm", "--config", config, "--host", "127.0.0.1"]
        command += ["--port", port, "--num_workers", 1, "--telemetry", False]
        with running(*command, environ=LITELLM_ENVIRON, folder=Path(folder)) as process:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health/liveliness", process, Path(folder))
            yield Side(name="LiteLLM", version=version, url=url, token=key, pid=process.pid)


def install_litellm(environment: Path) -> None:
    print(f"  installing LiteLLM into {environment}", file=sys.stderr)
    venv.create(environment, with_pip=True)
    pip = environment / "bin" / "pip"
    subprocess.run([pip, "install", "--quiet", "litellm[proxy]"], check=True)


@contextlib.contextmanager
def nginx(http: str, address: str, *, before: tuple[str, ...] = ()) -> Iterator[int]:
    """The pid of an nginx that serves this http block on that address."""
    with tempfile.TemporaryDirectory(prefix="llmp-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # its worker may be another user
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, http=http))
        command = [*before, shutil.which("nginx") or "/usr/sbin/nginx", "-c", config]
        with running(*command, folder=folder) as process:
            wait_for(f"http://{address}/", process, folder)
            yield process.pid


@contextlib.contextmanager
def running(
    *command: object, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Until the end of the block; what it says goes to a file in the folder."""
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=kept_environ(str(folder)) | dict(environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until it answers, whatever it answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            BARE.open(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{url} did not answer:\n{(folder / 'said').read_text()[-2000:]}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def check_answers(side: Side) -> None:
    """That it forwards at all, before anything is measured."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {side.token}", "Content-Type": "application/json"}
    url = f"{side.url}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with BARE.open(request, timeout=30) as answer:
        json.loads(answer.read())["choices"][0]["message"]["content"]
