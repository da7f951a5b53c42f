"""The picture of a VGA against QEMU 7.2.22's screendump of the same state: equal pixels."""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from screens import DATA, MEMORY, palette, recorded, states

from engine.devices.vga import Vga
from engine.testing.bus import FakeBus

RANGES = {0x3B4: (8, 2), 0x3C0: (10, 16), 0x3D4: (11, 2), 0x3DA: (12, 1), 0x1CE: (13, 3)}  # port -> region, ports


def test_every_picture_is_the_references() -> None:
    bus = FakeBus(Vga())
    bus.dut.memory()[: len(MEMORY)] = MEMORY
    where = {base + n: (region, n) for base, (region, size) in RANGES.items() for n in range(size)}

    def play(steps: list[tuple[str, int, int]]) -> None:
        for op, port, value in steps:
            if op == "i":
                bus.read(*where[port])
            else:
                bus.write(*where[port], value, 1 if op == "b" else 2)

    play(palette())
    want, got = recorded(), {}
    for name, steps in states():
        play(steps)
        width, height, rgb = bus.dut.picture()
        got[name] = (width, height, sha256(rgb).hexdigest())
    assert len(want) > 90
    assert [n for n in want if got.get(n) != want[n]] == []
    assert set(got) == set(want), f"{DATA.name} is not of these states"


def test_the_pictures_differ() -> None:
    digests = [digest for _, _, digest in recorded().values()]
    assert len(set(digests)) > 0.9 * len(digests)  # or most of them would be blank


@pytest.mark.parametrize("end", [".ppm", ".png"])
def test_screendump_answers_as_the_reference(end: str, tmp_path: Path) -> None:
    """QMP screendump of an engine behind a monitor: the file holds the machine's picture."""
    from engine.frontends.qmp import Guest, Monitor
    from engine.machine import Machine
    from engine.machine.qemu_args import from_qemu

    file = tmp_path / f"screen{end}"
    said: list[bytes] = []
    with Machine(from_qemu(["-machine", "pc", "-m", "16", "-nodefaults", "-vga", "std"]).spec()) as machine:
        monitor = Monitor(Guest(machine), said.append)
        monitor.feed(b'{"execute": "qmp_capabilities"}')
        monitor.feed(
            b'{"execute": "screendump", "arguments": {"filename": "%s", "format": "%s"}}'
            % (str(file).encode(), end[1:].encode())
        )
        assert b"return" in said[-1]
        picture = machine.screen()
        assert file.read_bytes() == (picture.ppm() if end == ".ppm" else picture.png())
        for arguments, text in (
            (b'{"filename": "/nonexistent/x"}', b"failed to open file '/nonexistent/x': No such file or directory"),
            (b'{"filename": "x", "format": "bmp"}', b"Parameter 'format' does not accept value 'bmp'"),
            (b'{"filename": "x", "head": 1}', b"'head' must be specified together with 'device'"),
            (b'{"filename": "x", "device": "foo"}', b"Device 'foo' not found"),
            (b'{"filename": "x", "device": "rtc"}', b"Device rtc (head 0) is not bound to a QemuConsole"),
            (b"{}", b"Parameter 'filename' is missing"),
        ):
            monitor.feed(b'{"execute": "screendump", "arguments": %s}' % arguments)
            assert text in said[-1]
