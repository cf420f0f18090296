"""Where questions go, and with which token."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from llm_proxy.chat.question import Api
from llm_proxy.secrets import Secret, mask

_UNIX = "unix:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    base_url: str  # or unix:PATH
    token: Secret
    api: Api = "openai"
    tls: ssl.SSLContext | None = None  # None: the usual roots

    @property
    def socket(self) -> str | None:
        """The path of a Unix socket."""
        return self.base_url[len(_UNIX) :] if self.base_url.startswith(_UNIX) else None

    def hide_token(self, text: str) -> str:
        """What a server says, which may repeat what it was sent."""
        token = self.token.reveal()
        return text.replace(token, mask(token))

    def urls(self, path: str) -> list[str]:
        """Where a path may be, the likelier place first.

        llm-proxy serves OpenAI's usually as its default api and Anthropic's under its name; a
        base URL may also be that of an API itself, or end in what only some clients add.
        """
        base = "http://localhost" if self.socket else self.base_url.rstrip("/").removesuffix("/v1")
        plain, named = f"{base}/v1{path}", f"{base}/{self.api}/v1{path}"
        if base.endswith(f"/{self.api}"):
            return [plain]
        return [named, plain] if self.api == "anthropic" else [plain, named]
