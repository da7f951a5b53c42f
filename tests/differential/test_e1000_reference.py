"""The 82540EM against a recording of QEMU 7.2.22: a random program for registers, rings, packets and time."""

from __future__ import annotations

import ctypes
import random
import struct
from hashlib import sha256
from pathlib import Path

from engine._device import PACKET, Dma
from engine.devices.e1000 import E1000
from engine.testing import FakeBus

DATA = Path(__file__).parent / "data" / "e1000.txt"
WINDOW = slice(0x100000, 0x140000)  # the part of RAM in which rings and buffers lie


def packets(capture: Path) -> list[tuple[int, bytes]]:
    """(time, bytes) of each packet of a pcap file with nanoseconds."""
    raw, at, out = capture.read_bytes(), 24, []
    while at < len(raw):
        seconds, ns, kept, _ = struct.unpack_from("<IIII", raw, at)
        out.append((seconds * 10**9 + ns, raw[at + 16 : at + 16 + kept]))
        at += 16 + kept
    return out


def test_answers_memory_packets_and_interrupts_are_the_references(tmp_path: Path) -> None:
    """Lines: w, r offset size value; t time; m address bytes; f address length seed; p length head seed taken; i level
    of the interrupt line, after what changed it; d digest of RAM; s number and digest of the packets sent."""
    ram = bytearray(64 << 20)
    capture = tmp_path / "packets.pcap"
    bus = FakeBus(E1000(dma=Dma(ram), backend="capture", capture=str(capture)))
    bus.write(7, 4, 7, 2)
    received: list[int] = []  # places in the capture of packets that came in
    levels: list[str] = []
    lines = DATA.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        where = f"{DATA.name}:{number}: {line}"
        if not line.startswith("i "):
            assert levels == [], f"{where}: interrupt {levels} before it"
        match line.split():
            case ["w", offset, size, value]:
                bus.write(0, int(offset, 16), int(value, 16), int(size))
            case ["r", offset, size, value]:
                got = bus.read(0, int(offset, 16), int(size))
                assert got == int(value, 16), f"{where}: {got:x}"
            case ["t", when]:
                bus.goto(int(when))
            case ["m", at, data]:
                ram[int(at, 16) : int(at, 16) + len(data) // 2] = bytes.fromhex(data)
            case ["f", at, size, seed]:
                ram[int(at, 16) : int(at, 16) + int(size)] = random.Random(int(seed)).randbytes(int(size))
            case ["p", size, head, seed, taken]:
                data = bytes.fromhex(head)
                data += random.Random(int(seed)).randbytes(int(size) - len(data))
                held = ctypes.create_string_buffer(data, len(data))
                before = bus.dut.sent + bus.dut.received
                assert bus.input(PACKET, 0, ctypes.addressof(held), len(data)) == int(taken), where
                if int(taken):
                    received.append(before)
            case ["i", level]:
                assert levels.pop(0) == level, where
            case ["d", digest]:
                assert sha256(ram[WINDOW]).hexdigest() == digest, where
            case ["s", count, digest]:
                out = [data for place, (_, data) in enumerate(packets(capture)) if place not in set(received)]
                assert len(out) == int(count), where
                assert sha256(b"".join(struct.pack("<I", len(p)) + p for p in out)).hexdigest() == digest, where
            case _:
                raise AssertionError(f"{where}: not understood")
        levels += [str(e.value) for e in bus.take() if e.kind == "line"]
    assert levels == []
    assert len(lines) > 1000 and bus.dut.sent > 100 and len(received) > 20
