from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from llm_proxy.errors import ConfigError
from llm_proxy.http1.tls import client_context


def test_upstreams_are_verified() -> None:
    context = client_context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_roots_of_a_file_are_trusted_alone(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    assert client_context(str(path)).cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), (b"", "it holds no certificate")],
)
def test_unusable_file_is_an_error(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        client_context(str(path))
    assert str(caught.value) == f"ca_file {path}: {reason}; give a PEM file of root certificates"


def test_without_roots_of_the_system_certifis_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    folder = tmp_path / "certs"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    assert client_context(None).cert_store_stats()["x509_ca"] > 50


def test_folder_of_hashed_roots_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "abcdef01.0").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert client_context(None).cert_store_stats()["x509_ca"] == 0
