"""What a peer's kernel has not acknowledged: bytes that its program can't have seen."""

from __future__ import annotations

import socket
import struct
from typing import Final

_TCP_INFO_SIZE: Final = 216
_BYTES_ACKED: Final = 120  # offsets in Linux's struct tcp_info, all of 64 bits
_BYTES_SENT: Final = 200  # since Linux 4.19
_BYTES_RETRANSMITTED: Final = 208


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Of all that was sent over this TCP connection, also when it has failed since; 0 where the
    system doesn't tell. Over TLS these are bytes of ciphertext, more than was to be sent."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:  # not TCP
        return 0
    if len(info) < _TCP_INFO_SIZE:
        return 0
    acked: int = struct.unpack_from("=Q", info, _BYTES_ACKED)[0] - 1  # the SYN counts as a byte
    sent: int = struct.unpack_from("=Q", info, _BYTES_SENT)[0]
    again: int = struct.unpack_from("=Q", info, _BYTES_RETRANSMITTED)[0]
    return max(0, sent - again - acked)
