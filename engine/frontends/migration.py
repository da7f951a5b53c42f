"""A machine's state on its way to another process, as `migrate` and `-incoming` have it: one message over a socket.

    8 bytes b"ioreqST1", 8 bytes length (little endian), the state as plain values (a pickle without any class)

The receiver trusts nothing: what is no such message, or names a class, is refused, and the machine checks every field.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from engine.errors import StateError, UsageError

MAGIC = b"ioreqST1"
HEAD = struct.Struct("<8sQ")
MAX_BYTES = 64 << 30
PATIENCE_S = 60


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise StateError(f"the state that came names {module}.{name}: it is broken or hostile")


def _address(uri: str) -> tuple[int, Any]:
    kind, _, rest = uri.partition(":")
    if kind == "unix" and rest:
        return socket.AF_UNIX, rest
    host, _, port = rest.rpartition(":")
    if kind == "tcp" and port.isdecimal() and int(port) < 65536:
        return socket.AF_INET, (host or "0.0.0.0", int(port))
    raise UsageError(f"{uri!r} is no place to migrate to or from; write unix:PATH or tcp:HOST:PORT")


def send(state: Mapping[str, Any], uri: str) -> None:
    """Send a state that Machine.save() gave.  Raises UsageError."""
    family, address = _address(uri)
    body = pickle.dumps(dict(state), pickle.HIGHEST_PROTOCOL)
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(PATIENCE_S)
        try:
            s.connect(address)
            s.sendall(HEAD.pack(MAGIC, len(body)))
            s.sendall(body)
        except OSError as e:
            raise UsageError(f"migration to {uri}: {e.strerror or e}") from None


def listen(uri: str) -> socket.socket:
    """A socket on which a state is awaited.  Raises UsageError."""
    family, address = _address(uri)
    s = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_UNIX:
            with suppress(FileNotFoundError):
                os.unlink(address)
        s.bind(address)
        s.listen(1)
    except OSError as e:
        s.close()
        raise UsageError(f"migration from {uri}: {e.strerror or e}") from None
    return s


class Arrival:
    """A state that comes in pieces."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> dict[str, Any] | None:
        """More bytes (none: the sender has ended); the state once it is whole.  Raises StateError."""
        self._data += data
        if len(self._data) < HEAD.size:
            if not data:
                raise StateError(f"the state that came ends after {len(self._data)} bytes")
            return None
        magic, size = HEAD.unpack_from(self._data)
        if magic != MAGIC or size > MAX_BYTES:
            raise StateError("what came is no state of this engine")
        if len(self._data) < HEAD.size + size:
            if not data:
                raise StateError(f"the state that came ends after {len(self._data)} of {HEAD.size + size} bytes")
            return None
        try:
            state = _Plain(io.BytesIO(bytes(self._data[HEAD.size : HEAD.size + size]))).load()
        except StateError:
            raise
        except Exception as e:
            raise StateError(f"the state that came cannot be read ({type(e).__name__})") from None
        if not isinstance(state, dict):
            raise StateError("what came is no state of this engine")
        return state
