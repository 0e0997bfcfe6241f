"""Refuse every network connection that leaves this machine: tests prove that nothing needs one."""

from __future__ import annotations

import socket
from typing import Any

_connect = socket.socket.connect


def _is_local(address: Any) -> bool:
    host = address[0] if isinstance(address, tuple) else ""
    return host in ("", "localhost", "::1") or str(host).startswith("127.")


def guarded_connect(self: socket.socket, address: Any) -> None:
    """`socket.connect` that lets only this machine through; raises OSError naming the address otherwise."""
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address):
        raise OSError(f"a test tried to reach {address!r}; tests never use the network")
    _connect(self, address)
