"""The accesses of a study: synthetic mixes on the i440FX board, or a recorded guest.

A synthetic mix repeats what one kind of guest code does.  Writes and reads are spread evenly by the mix's write share,
the n-th access being a write when n * share passes a whole number, so that every machine and every run sees the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import data
from engine._abi import ACC
from engine.frontends import replay, trace
from engine.types import Space

Array = npt.NDArray[Any]
STEP_NS = 100  # virtual time between two accesses of a synthetic mix

# i440FX board: configuration mechanism #1, the VGA function's command register, its sequencer and graphics controller.
CONFIG_ADDRESS, CONFIG_DATA, VGA_COMMAND = 0xCF8, 0xCFC, 0x80001004
VGA_SEQ, VGA_GC, VGA_TEXT = 0x3C4, 0x3CE, 0xB8000
TEXT_BYTES = 0x8000
UART_THR, UART_LSR = 0x3F8, 0x3FD
KBC_STATUS, POST = 0x64, 0x80


@dataclass(frozen=True, slots=True)
class Mix:
    """One kind of guest code: where it writes and reads, how wide, and its own share of writes."""

    what: str
    write_share: float
    space: Space
    write: int
    read: int
    size: int
    window: int = 0  # bytes over which the writes advance; 0: always the same place
    setup: tuple[tuple[Space, int, int, int], ...] = ()  # writes that come before: space, address, size, value


MIXES = {
    "vga": Mix(
        "text written into the VGA window, 4 bytes at a time, with a look back now and then",
        0.95,
        Space.MMIO,
        VGA_TEXT,
        VGA_TEXT,
        4,
        TEXT_BYTES,
        (
            (Space.PIO, CONFIG_ADDRESS, 4, VGA_COMMAND),
            (Space.PIO, CONFIG_DATA, 2, 3),  # answer ports and memory
            (Space.PIO, VGA_SEQ, 2, 0x0302),  # planes 0 and 1, odd/even: text
            (Space.PIO, VGA_SEQ, 2, 0x0204),
            (Space.PIO, VGA_GC, 2, 0x1005),
            (Space.PIO, VGA_GC, 2, 0x0E06),  # window at B8000h
        ),
    ),
    "uart": Mix(
        "characters for a serial port: its line status is read before each one", 0.5, Space.PIO, UART_THR, UART_LSR, 1
    ),
    "doorbell": Mix(
        "a register that is rung and has nothing to say (port 80h), looked at every 32nd time",
        31 / 32,
        Space.PIO,
        POST,
        POST,
        1,
    ),
    "polling": Mix(
        "the keyboard controller's status read again and again, a POST code written now and then",
        0.02,
        Space.PIO,
        POST,
        KBC_STATUS,
        1,
    ),
}


def synthetic(name: str, n: int, write_share: float) -> Array:
    """n accesses of a mix, STEP_NS of virtual time apart."""
    mix = MIXES[name]
    acc = np.zeros(n, ACC)
    at = np.arange(n)
    write = np.floor((at + 1) * write_share + 1e-9) > np.floor(at * write_share + 1e-9)
    acc["t_ns"] = at * STEP_NS
    acc["space"], acc["size"], acc["dir"] = mix.space, mix.size, write
    acc["addr"] = np.where(write, mix.write, mix.read)
    if mix.window:
        acc["addr"] += (at * mix.size % mix.window).astype(np.uint64)
    acc["value"] = np.where(write, at & 0xFF, 0)
    return acc


def setup(name: str) -> Array:
    """The accesses that make the machine ready for a mix."""
    rows = MIXES[name].setup
    acc = np.zeros(len(rows), ACC)
    for a, (space, addr, size, value) in zip(acc, rows, strict=True):
        a["space"], a["addr"], a["size"], a["value"], a["dir"] = space, addr, size, value, 1
    return acc


@cache
def recorded(name: str) -> replay.Job:
    """A recorded guest with its machine and content."""
    path = data.trace(name) if name in data.traces() else Path(name)
    job = replay.open_job(trace.load(path), None, "auto", {})
    replay.learn(job)
    return job
