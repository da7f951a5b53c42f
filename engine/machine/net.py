"""Descriptors of the networks that controllers are plugged into: opened here, before any worker starts.

Each is handed to the process that owns the controller; nothing else of the host's network reaches a device.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterable

from engine.errors import MachineError
from engine.machine.spec import DeviceSpec

TUN = "/dev/net/tun"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h


def open_tap(name: str) -> int:
    """The descriptor of a TAP interface, which is made if there is none of that name.  Raises OSError."""
    fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(d: DeviceSpec) -> int | None:
    match d.config.get("backend"):
        case "tap":
            name = d.config.get("tap", "")
            try:
                return open_tap(name)
            except OSError as e:
                hint = (
                    f"`ip tuntap add dev {name} mode tap user $USER` as root makes one for you"
                    if isinstance(e, PermissionError)
                    else f"this host has no {TUN}"
                    if isinstance(e, FileNotFoundError)
                    else "is another process using it?"
                )
                raise MachineError(
                    f"{d.source}: device {d.id!r}: TAP interface {name!r}: {e.strerror}; {hint}"
                ) from None
        case "stream":
            fd = d.config.get("fd", -1)
            try:
                return os.dup(fd)
            except OSError as e:
                raise MachineError(f"{d.source}: device {d.id!r}: descriptor {fd}: {e.strerror}") from None
    return None


def open_all(devices: Iterable[DeviceSpec]) -> dict[str, int]:
    """Device id -> descriptor, for each controller with a back end that has one.

    Raises MachineError, and leaves none open, for the first that cannot be opened.
    """
    out: dict[str, int] = {}
    try:
        for d in devices:
            fd = _open(d)
            if fd is not None:
                out[d.id] = fd
    except BaseException:
        close_all(out)
        raise
    return out


def close_all(descriptors: dict[str, int]) -> None:
    """Close them, and forget them."""
    while descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptors.popitem()[1])
