from __future__ import annotations

import datetime
import logging
import os
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from llm_proxy.errors import ConfigError
from llm_proxy.server.certificate import (
    CHECK_EVERY_S,
    Certificate,
    load_context,
    validity_warning,
)

AUTHORITY = trustme.CA()


class Pair:
    """Files with a certificate and its key, replaced as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.issued: trustme.LeafCert

    def issue(self, name: str = "localhost", **options: object) -> None:
        self.issued = AUTHORITY.issue_cert(name, **options)  # type: ignore[arg-type]
        self.write_certificate()
        self.write_key()

    def write_certificate(self) -> None:
        draft = self.certificate.with_suffix(".tmp")  # renewals replace files, or write into them
        draft.write_bytes(b"".join(blob.bytes() for blob in self.issued.cert_chain_pems))
        draft.replace(self.certificate)

    def write_key(self) -> None:
        draft = self.key.with_suffix(".tmp")
        draft.write_bytes(self.issued.private_key_pem.bytes())
        draft.replace(self.key)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path)
    pair.issue()
    return pair


def served(context: ssl.SSLContext, client: ssl.SSLContext | None = None) -> bytes | None:
    """The certificate that a client is shown, after a handshake in memory."""
    if client is None:
        client = ssl.create_default_context()
        AUTHORITY.configure_trust(client)
        client.check_hostname = False
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert theirs.version() in ("TLSv1.2", "TLSv1.3")
    assert ours.selected_alpn_protocol() in (None, "http/1.1")
    return theirs.getpeercert(binary_form=True)


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.issued.cert_chain_pems[0].bytes().decode())


def test_certificate_is_served_with_http_1_1_alone(pair: Pair) -> None:
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    client.check_hostname = False
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert served(load_context(pair.certificate, pair.key), client) == der(pair)


def test_older_than_tls_1_2_is_not_spoken(pair: Pair) -> None:
    context = load_context(pair.certificate, pair.key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_renewed_certificate_is_served_to_who_comes_next(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    certificate = Certificate(pair.certificate, pair.key)
    context = certificate.context
    assert served(context) == der(pair)
    pair.issue(key_type=trustme.KeyType.RSA)  # of another type than before
    certificate.check(0.0)
    assert certificate.context is context
    assert served(context) == der(pair)
    assert f"the certificate that is in {pair.certificate} now" in caplog.text
    pair.issue()
    certificate.check(CHECK_EVERY_S - 1)
    assert served(context) != der(pair)  # not every tick looks
    certificate.check(CHECK_EVERY_S)
    assert served(context) == der(pair)


def test_broken_renewal_keeps_the_old_and_is_told_once(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = Certificate(pair.certificate, pair.key)
    before = der(pair)
    pair.issue()
    pair.key.write_text("half a key")
    for number in range(5):
        certificate.check(number * CHECK_EVERY_S)
    assert served(certificate.context) == before
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "the new certificate is not used, the old one still is: "
        f"TLS_KEY: {pair.key} holds no private key in PEM form"
    )
    pair.write_key()
    certificate.check(100.0)
    assert served(certificate.context) == der(pair)
    pair.key.write_text("broken again")
    certificate.check(200.0)
    certificate.check(300.0)
    assert len(caplog.records) == 2


def test_key_that_follows_its_certificate_by_a_moment_is_no_failure(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = Certificate(pair.certificate, pair.key)
    pair.issued = AUTHORITY.issue_cert("localhost")
    pair.write_certificate()
    certificate.check(0.0)
    pair.write_key()
    certificate.check(CHECK_EVERY_S)
    assert served(certificate.context) == der(pair)
    assert caplog.records == []


def test_files_that_are_gone_change_nothing(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    certificate = Certificate(pair.certificate, pair.key)
    pair.certificate.unlink()
    for number in range(3):
        certificate.check(number * CHECK_EVERY_S)
    assert served(certificate.context) == der(pair)
    assert "No such file" in caplog.text


def failure(pair: Pair) -> str:
    with pytest.raises(ConfigError) as caught:
        Certificate(pair.certificate, pair.key)
    return str(caught.value)


def test_missing_file_is_named(pair: Pair) -> None:
    pair.key.unlink()
    assert f"TLS_KEY: {pair.key} can't be read (No such file or directory)" in failure(pair)
    pair.certificate.unlink()
    assert f"TLS_CERT: {pair.certificate} can't be read" in failure(pair)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_key_is_named(pair: Pair) -> None:
    pair.key.chmod(0)
    assert f"TLS_KEY: {pair.key} can't be read (Permission denied)" in failure(pair)


def test_swapped_files_are_noticed(pair: Pair) -> None:
    pair.certificate, pair.key = pair.key, pair.certificate
    assert failure(pair) == f"TLS_CERT: {pair.certificate} holds no certificate in PEM form"


def test_key_of_another_certificate(pair: Pair) -> None:
    pair.issued = AUTHORITY.issue_cert("localhost")
    pair.write_key()
    assert f"{pair.key} is not the private key of the certificate in {pair.certificate}" in (
        failure(pair)
    )


def test_content_that_only_looks_like_pem(pair: Pair) -> None:
    pair.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "can't be used (" in failure(pair)


def test_key_with_a_passphrase_is_refused_instead_of_asking(pair: Pair) -> None:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert (
        failure(pair) == f"TLS_KEY: {pair.key} needs a passphrase; give one that is stored without"
    )


def test_dates_that_clients_will_refuse_are_warned_of(pair: Pair) -> None:
    now = datetime.datetime.now(datetime.UTC)
    assert validity_warning(pair.certificate, now) is None
    pair.issue(not_after=now - datetime.timedelta(days=1))
    assert "has expired on " in (validity_warning(pair.certificate, now) or "")
    pair.issue()
    early = datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)
    assert "is not valid before " in (validity_warning(pair.certificate, early) or "")
