"""What a server needs before it starts a process: acquired in order, given back in reverse."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from llm_proxy.errors import StoreError, StoreUnavailable, StoreUnreachable
from llm_proxy.secrets import Cipher
from llm_proxy.server.configuration import Configuration, read_configuration
from llm_proxy.server.descriptors import descriptor_warning, raise_descriptor_limit
from llm_proxy.server.host_identity import host_identity
from llm_proxy.server.pidfile import PidFile
from llm_proxy.server.runtime_folder import (
    CONTROL_SOCKET,
    make_runtime_folder,
    remove_runtime_folder,
)
from llm_proxy.server.self_reference import check_self_reference
from llm_proxy.server.socket_file import remove_socket_file
from llm_proxy.server.sockets import backlog_warning, bind_public, bind_tcp, bind_unix
from llm_proxy.server.state import ServerState, read_state
from llm_proxy.settings import Settings, UnixAddress, load_or_create_secrets
from llm_proxy.store.database import Store

logger = logging.getLogger(__name__)

# How long the workers of a server that was killed may still hold the port.
_SUCCESSION_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    configuration: Configuration  # of the start
    created_secrets: list[Path]
    listeners: list[socket.socket]  # public, one for each worker
    control_sockets: list[socket.socket]  # private, and that of `--manage-addr`
    store: Store
    runtime_folder: Path
    host: str  # to others on the same database
    predecessor: ServerState | None  # of a server that did not end in order

    @property
    def settings(self) -> Settings:
        return self.configuration.settings


async def lay_foundation(settings: Settings, stack: AsyncExitStack) -> Foundation:
    """What fails raises one clear sentence, and leaves nothing once the stack is unwound."""
    predecessor = _claim_home(settings, stack)
    configuration = read_configuration(settings)
    for warning in (descriptor_warning(raise_descriptor_limit()), backlog_warning()):
        if warning is not None:
            logger.warning("%s", warning)
    listeners = await bind_public(
        settings.listen_addr,
        slots=settings.workers,
        patience_s=_SUCCESSION_S if predecessor is not None else 0.0,
    )
    if isinstance(settings.listen_addr, UnixAddress):
        stack.callback(remove_socket_file, settings.listen_addr.path)
    for listener in listeners:
        stack.callback(listener.close)
    control_sockets = _bind_management(settings, stack)
    apis = configuration.providers.apis.values()
    await check_self_reference(apis, [*listeners, *control_sockets])
    settings, created_secrets = load_or_create_secrets(settings)
    store = await _open_store(settings, created_secrets, stack)
    host = host_identity(settings.home)
    runtime_folder = make_runtime_folder(os.environ)
    stack.callback(remove_runtime_folder, runtime_folder)
    private = bind_unix(runtime_folder / CONTROL_SOCKET)
    stack.callback(private.close)
    return Foundation(
        configuration=replace(configuration, settings=settings),
        created_secrets=created_secrets,
        listeners=listeners,
        control_sockets=[private, *control_sockets],
        store=store,
        runtime_folder=runtime_folder,
        host=host,
        predecessor=predecessor,
    )


def _claim_home(settings: Settings, stack: AsyncExitStack) -> ServerState | None:
    """One home, one server. Gives the state of a server that could not clean up after itself."""
    settings.home.ensure()
    # The home's own PID file is the lock of the home, also when another one is wanted.
    for path in dict.fromkeys((settings.home.pid_file, settings.pid_file)):
        pid_file = PidFile(path)
        pid_file.claim()
        stack.callback(pid_file.release)
    predecessor = read_state(settings.home.state_file)
    if predecessor is not None:
        logger.warning("the server with pid %d did not end in order", predecessor.pid)
        if predecessor.runtime_folder is not None:
            remove_runtime_folder(Path(predecessor.runtime_folder))
    return predecessor


def _bind_management(settings: Settings, stack: AsyncExitStack) -> list[socket.socket]:
    if (address := settings.manage_addr) is None:
        return []
    sock = bind_tcp(address.host, address.port, flag="--manage-addr")
    stack.callback(sock.close)
    return [sock]


async def _open_store(
    settings: Settings, created_secrets: list[Path], stack: AsyncExitStack
) -> Store:
    assert settings.encryption_key is not None  # load_or_create_secrets made it
    store = Store(
        settings.database,
        cipher=Cipher(settings.encryption_key),
        pool_size=settings.database_pool_size,
    )
    try:
        applied = await asyncio.to_thread(store.open, migrate=True)
    except StoreError as exc:
        # A key made just now that is not the database's must not pass for the right one.
        for path in created_secrets:
            with suppress(OSError):
                path.unlink()
        if isinstance(exc, StoreUnreachable):
            # It is the start that failed: the same exit code as in the background.
            raise StoreUnavailable(str(exc)) from exc
        raise
    stack.callback(store.close)
    if store.cipher.is_rotating:
        logger.warning(
            "the old encryption key still opens %s; once every server has the new one: "
            "llm-proxy db rotate-key --finish",
            settings.database,
        )
    for name in applied:
        logger.info("migration %s applied to %s", name, settings.database)
    return store
