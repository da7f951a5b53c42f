"""The 82574L against recordings of QEMU 7.2.22: random programs for registers, interrupts, rings, packets and time.

Three programs of traffic (INTA#, MSI, MSI-X) and three of registers.
"""

from __future__ import annotations

import ctypes
import gzip
import struct
from hashlib import sha256
from pathlib import Path

import pytest

from engine._device import PACKET, Dma
from engine.devices._net import read_pcap
from engine.devices.e1000e import E1000E
from engine.testing import FakeBus

DATA = Path(__file__).parent / "data" / "e1000e.txt.gz"
WINDOW = slice(0x100000, 0x160000)  # the part of RAM in which rings, buffers and the target of messages lie
MESSAGES = 0x104000


def programs() -> dict[str, list[str]]:
    """Name -> lines of each program."""
    out: dict[str, list[str]] = {}
    for line in gzip.decompress(DATA.read_bytes()).decode().splitlines():
        if line.startswith("program "):
            out[line[8:]] = []
        else:
            out[list(out)[-1]].append(line)
    return out


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(programs()))
def test_answers_memory_packets_and_messages_are_the_references(name: str, tmp_path: Path) -> None:
    """Lines: w, r region offset size value; t ns; m address bytes; z: no message is there; p bytes of a packet that
    comes in; s number and digest of the packets sent since the last; d digest of RAM.  Messages are writes to RAM."""
    ram = bytearray(64 << 20)
    capture = tmp_path / "packets.pcap"
    bus = FakeBus(E1000E(dma=Dma(ram), capture=str(capture)))
    for at, value in ((0x10, 0xE0000000), (0x14, 0xE0020000), (0x18, 0xC000), (0x1C, 0xE0040000)):
        bus.write(7, at, value, 4)
    bus.write(7, 4, 7, 2)
    seen = came = reads = 0  # of the capture; what came in is in it, too
    lines = programs()[name]
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}: {line[:60]}"
        match line.split():
            case ["w", region, offset, size, value]:
                bus.write(int(region), int(offset, 16), int(value, 16), int(size))
            case ["r", region, offset, size, value]:
                got = bus.read(int(region), int(offset, 16), int(size))
                assert got == int(value, 16), f"{where}: {got:x}"
                reads += 1
            case ["t", ns]:
                bus.step(int(ns))
            case ["m", at, data]:
                ram[int(at, 16) : int(at, 16) + len(data) // 2] = bytes.fromhex(data)
            case ["z"]:
                ram[MESSAGES : MESSAGES + 64] = bytes(64)
            case ["p", data]:
                held = ctypes.create_string_buffer(bytes.fromhex(data), len(data) // 2)
                before = bus.dut.received
                assert bus.input(PACKET, 0, ctypes.addressof(held), len(data) // 2) == 1, where
                came += bus.dut.received - before
                seen = bus.dut.sent + bus.dut.received
            case ["s", count, want]:
                out = [data for _, data in read_pcap(capture)[seen:]] if capture.exists() else []
                seen += len(out)
                assert len(out) == int(count), where
                assert digest(b"".join(struct.pack("<I", len(p)) + p for p in out)) == want, where
            case ["d", want]:
                assert digest(ram[WINDOW]) == want, where
            case _:
                raise AssertionError(f"{where}: not understood")
    assert reads > 500
    assert not name.startswith("t") or (bus.dut.sent > 20 and came >= 10)
