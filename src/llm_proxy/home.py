"""The folder that holds what this machine's llm-proxy must remember: state, logs and secrets."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llm_proxy.errors import ConfigError
from llm_proxy.secrets import Secret


@dataclass(frozen=True, slots=True)
class Home:
    path: Path

    @classmethod
    def default(cls, environ: Mapping[str, str]) -> Home:
        """`LLM_PROXY_HOME`, else the platform's folder for a user's data."""
        if chosen := environ.get("LLM_PROXY_HOME"):
            return cls(Path(chosen).expanduser().absolute())
        import platformdirs

        return cls(platformdirs.user_data_path("llm-proxy", appauthor=False))

    @property
    def database(self) -> Path:
        return self.path / "llm-proxy.db"

    @property
    def pid_file(self) -> Path:
        return self.path / "server.pid"

    @property
    def state_file(self) -> Path:
        return self.path / "server.json"

    @property
    def log_file(self) -> Path:
        """Where a daemon logs to unless told otherwise."""
        return self.path / "server.log"

    @property
    def ledgers(self) -> Path:
        """The folder of the workers' ledgers."""
        return self.path / "ledgers"

    @property
    def env_file(self) -> Path:
        return self.path / "llm-proxy.env"

    def has_env_file(self) -> bool:
        try:
            return self.env_file.is_file()
        except PermissionError as exc:  # somebody else's folder
            raise self._unusable(exc.strerror or str(exc)) from exc

    @property
    def providers_file(self) -> Path:
        """What `setup` writes; read only when `API_CONFIG_PATH` says so."""
        return self.path / "providers.yaml"

    def secret_file(self, name: str) -> Path:
        return self.path / name

    def ensure(self) -> None:
        """Creates the folder for its owner alone, or says why it can't be used."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not any(self.path.iterdir()):
                self.path.chmod(0o700)
        except (FileExistsError, NotADirectoryError) as exc:
            raise ConfigError(
                f"the home folder {self.path} can't be made because a file is in its way; "
                "set LLM_PROXY_HOME to a folder"
            ) from exc
        except OSError as exc:
            raise self._unusable(exc.strerror or str(exc)) from exc
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise self._unusable("no permission to write there")

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(
            f"the home folder {self.path} can't be used: {reason}; "
            "set LLM_PROXY_HOME to a folder that you can write to"
        )

    def read_secret(self, name: str) -> Secret | None:
        path = self.secret_file(name)
        try:
            text = path.read_text("utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None  # `ensure` says what is wrong with the folder
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it isn't text"
            raise ConfigError(f"the secret in {path} can't be read: {reason}") from exc
        if not text:
            raise ConfigError(f"{path} is empty; restore it, or delete it to have a new one made")
        return Secret(text)

    def write_secret(self, name: str, secret: Secret) -> Path:
        path = self.secret_file(name)
        write_private(path, secret.reveal() + "\n")
        return path

    def create_secret(self, name: str, secret: Secret) -> Secret:
        """Stores `secret` unless there is one already; the one that is stored then."""
        path = self.secret_file(name)
        with contextlib.suppress(FileExistsError):
            write_private(path, secret.reveal() + "\n", replace=False)
        return self.read_secret(name) or secret


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Writes a 0600 file in one step, so that nobody ever sees a part of it or reads it in between.

    Without `replace` an existing file stays and FileExistsError is raised.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as exc:
        raise ConfigError(f"{path} can't be written: {exc.strerror or exc}") from exc
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
