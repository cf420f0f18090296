"""TLS towards upstreams: verified, always."""

from __future__ import annotations

import ssl

from llm_proxy.errors import ConfigError


def client_context(ca_file: str | None) -> ssl.SSLContext:
    """Trusts the PEM roots of `ca_file`, else the system's, else certifi's. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # ssl.SSLError is one
        reason = exc.strerror if not isinstance(exc, ssl.SSLError) else "it holds no certificate"
        raise ConfigError(
            f"ca_file {ca_file}: {reason}; give a PEM file of root certificates"
        ) from exc
    if ca_file is None and not _has_roots(context):
        import certifi

        context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_roots(context: ssl.SSLContext) -> bool:
    """Whether any root is there; a folder of hashed roots is only read when one is needed."""
    if context.cert_store_stats()["x509_ca"]:
        return True
    from pathlib import Path

    folder = ssl.get_default_verify_paths().capath
    return folder is not None and any(Path(folder).iterdir())
