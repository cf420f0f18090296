"""What a running server consists of, acquired in order; whatever was acquired is given back."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from llm_proxy import __version__
from llm_proxy.errors import LLMProxyError
from llm_proxy.providers import Providers, load_providers
from llm_proxy.secrets import Cipher
from llm_proxy.server.change_feed import ChangeFeed
from llm_proxy.server.channel import Change, WorkerConfig
from llm_proxy.server.child_process import module_command
from llm_proxy.server.control.context import ControlContext, HealthReport
from llm_proxy.server.control_server import ControlServer
from llm_proxy.server.keeper import Keeper
from llm_proxy.server.pidfile import PidFile
from llm_proxy.server.runtime_folder import (
    CONTROL_SOCKET,
    EVENTS_SOCKET,
    make_runtime_folder,
    remove_runtime_folder,
)
from llm_proxy.server.sockets import address_of, bind_public, bind_tcp, bind_unix
from llm_proxy.server.state import ServerState, WorkerState, read_state, write_state
from llm_proxy.server.worker_pool import WorkerPool
from llm_proxy.server.writer_process import WriterProcess, check_event_log
from llm_proxy.settings import Settings, load_or_create_secrets
from llm_proxy.store.changes import changes_after, last_change_id
from llm_proxy.store.database import Store

logger = logging.getLogger(__name__)

WORKER_COMMAND = module_command("llm_proxy.server.worker")
_WRITER_COMMAND = module_command("llm_proxy.dispatcher.writer")
_WRITER_FINISH_S = 10.0
# How long the workers of a server that was killed may hold the port before it counts as in use.
_SUCCESSION_S = 3.0

Flags = Mapping[str, str | int | bool]
