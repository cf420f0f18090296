"""The certificate of the public address: checked at the start, and renewed while it serves."""

from __future__ import annotations

import logging
import os
import ssl
from datetime import datetime
from pathlib import Path
from typing import Final

from llm_proxy.errors import ConfigError

logger = logging.getLogger(__name__)

CHECK_EVERY_S: Final = 2.0

_Stamp = tuple[tuple[int, int, int], ...]  # empty: the files can't be looked at


class Certificate:
    """Watched by the timers. `context` stays the same object, and serves what the files held last.

    A new context for each renewal, chosen when a client says hello: one that is loaded twice
    would go on serving an old certificate of another key type beside the new one.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises ConfigError when the files can't be used."""
        self._files = (certificate, key)
        self._loaded = _stamp(self._files)
        self._doubted: _Stamp | None = None  # what could not be used once
        self._refused: _Stamp | None = None  # and what has been complained about
        self._check_at = float("-inf")
        self.context = self._current = load_context(certificate, key)
        self.context.sni_callback = self._choose

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        if self._current is not self.context:
            connection.context = self._current

    def check(self, now: float) -> None:
        if now < self._check_at:
            return
        self._check_at = now + CHECK_EVERY_S
        stamp = _stamp(self._files)
        if stamp not in (self._loaded, self._refused):
            self._renew(stamp)

    def _renew(self, stamp: _Stamp) -> None:
        try:
            self._current = load_context(*self._files)
        except ConfigError as exc:
            if stamp == self._doubted:
                self._refused = stamp
                logger.error("the new certificate is not used, the old one still is: %s", exc)
            self._doubted = stamp  # one file may have been written, and the other not yet
        else:
            self._loaded, self._doubted, self._refused = stamp, None, None
            logger.info("new connections get the certificate that is in %s now", self._files[0])


def _stamp(files: tuple[Path, ...]) -> _Stamp:
    """What changes with the files."""
    try:
        found = [path.stat() for path in files]
    except OSError:
        return ()
    return tuple((file.st_ino, file.st_mtime_ns, file.st_size) for file in found)


def load_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises ConfigError with what is wrong with which file."""
    _check_pem(certificate, b"CERTIFICATE-----", "TLS_CERT", "certificate")
    _check_pem(key, b"PRIVATE KEY-----", "TLS_KEY", "private key")

    def ask_passphrase() -> str:
        raise ConfigError(f"TLS_KEY: {key} needs a passphrase; give one that is stored without")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, ask_passphrase)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"TLS_KEY: {key} is not the private key of the certificate in {certificate}; "
                "give the pair that was issued together"
            ) from exc
        reason = (exc.reason or "unreadable").replace("_", " ").lower()
        raise ConfigError(
            f"TLS_CERT: {certificate} and TLS_KEY: {key} can't be used ({reason}); "
            "give PEM files, the server's own certificate first"
        ) from exc
    return context


def _check_pem(path: Path, mark: bytes, name: str, what: str) -> None:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"{name}: {path} can't be read ({exc.strerror}); give a PEM file that the user "
            f"{os.geteuid()} may read"
        ) from exc
    if mark not in content:
        raise ConfigError(f"{name}: {path} holds no {what} in PEM form")


def validity_warning(certificate: Path, now: datetime) -> str | None:
    """Of a certificate that clients will refuse for its dates."""
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    if now > found.not_valid_after_utc:
        problem = f"has expired on {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    elif now < found.not_valid_before_utc:
        problem = f"is not valid before {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    else:
        return None
    return f"TLS_CERT: the certificate in {certificate} {problem}; clients will refuse it"
