"""What a machine is at one moment, as plain values: devices, their memory and media, guest RAM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine._device import Device
from engine._shm import Segment
from engine.errors import StateError

FORMAT = 1
PAGE = 4096


def save_pages(memory: Any, at: int = 0, size: int | None = None) -> dict[int, bytes]:
    """The pages of a buffer that are not all zero, as runs: {offset: bytes}."""
    data = np.frombuffer(memory, np.uint8)[at : None if size is None else at + size]
    whole = len(data) // PAGE * PAGE
    used = data[:whole].reshape(-1, PAGE).view(np.uint64).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], used, [False])).astype(np.int8)))
    out = {at + int(a) * PAGE: data[a * PAGE : b * PAGE].tobytes() for a, b in edges.reshape(-1, 2)}
    if data[whole:].any():
        out[at + whole] = data[whole:].tobytes()
    return out


def restore_pages(memory: Any, pages: Mapping[int, bytes], what: str) -> None:
    """Put back what save_pages gave; all else is zero.  Raises StateError."""
    data = np.frombuffer(memory, np.uint8)
    for at, run in pages.items():
        if not (isinstance(at, int) and isinstance(run, bytes) and at >= 0 and at + len(run) <= len(data)):
            raise StateError(f"{what}: pages at {at!r:.40} do not fit {len(data):#x} bytes")
    for at, old in save_pages(memory).items():
        data[at : at + len(old)] = 0
    for at, run in pages.items():
        data[at : at + len(run)] = np.frombuffer(run, np.uint8)


def save_ram(ram: Segment) -> dict[int, bytes]:
    """Guest RAM; pages that were never touched are not even looked at."""
    out: dict[int, bytes] = {}
    view, fd, at, end = memoryview(ram), ram.fileno(), 0, len(ram)
    while at < end:
        try:
            first = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = min(end, os.lseek(fd, first, os.SEEK_HOLE))
        out |= save_pages(view, first, at - first)
    return out


def restore_ram(ram: Segment, pages: Mapping[int, bytes]) -> None:
    """Put back what save_ram gave; all else is zero.  Raises StateError."""
    view = memoryview(ram)
    for at, run in pages.items():
        if not (isinstance(at, int) and isinstance(run, bytes) and at >= 0 and at + len(run) <= len(view)):
            raise StateError(f"guest RAM: bytes at {at!r:.40} do not fit a machine with {len(view):#x}")
    for at, old in save_ram(ram).items():
        view[at : at + len(old)] = bytes(len(old))
    for at, run in pages.items():
        view[at : at + len(run)] = run


def in_arena(cls: type[Device]) -> bool:
    """Whether a copy of their owner's arena holds all state of such devices, but for memory and media."""
    return cls.save is Device.save


def has_media(cls: type[Device]) -> bool:
    """Whether such devices have memory or media of their own."""
    return any(hasattr(cls, name) for name in ("memory", "written_sectors", "image"))


def save_device(d: Device) -> dict[str, Any]:
    """One device: its state, and where it has them, memory, written sectors and disks."""
    return {"state": d.save(), **save_media(d)}


def save_rest(d: Device, media: bool) -> dict[str, Any]:
    """What a copy of its owner's arena lacks of one device, for restore_device before the copy is put back."""
    out = {} if in_arena(type(d)) else {"state": d.save()}
    return out | save_media(d) if media else out


def save_media(d: Device) -> dict[str, Any]:
    """A device's memory, written sectors and disks, as far as it has them."""
    part: Any = d
    out: dict[str, Any] = {}
    if hasattr(part, "memory"):
        out["memory"] = save_pages(part.memory())
    if hasattr(part, "written_sectors"):
        out["written"] = part.written_sectors()
    if hasattr(part, "image"):
        out["disks"] = [part.image(0), part.image(1)]
    return out


def restore_device(d: Device, saved: Mapping[str, Any]) -> None:
    """Put back what save_device or save_rest gave.  Raises StateError."""
    part: Any = d
    try:
        if "disks" in saved:
            for drive, image in enumerate(saved["disks"]):
                if image != part.image(drive):
                    part.eject(drive) if image is None else part.insert(drive, image, d.config["readonly"])
        if "state" in saved:
            d.restore(saved["state"])
        if "memory" in saved:
            restore_pages(part.memory(), saved["memory"], d.id)
        if "written" in saved:
            part.set_written_sectors(saved["written"])
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as e:
        raise StateError(f"{d.id}: not the state of this device ({type(e).__name__}: {str(e)[:100]!r})") from None
