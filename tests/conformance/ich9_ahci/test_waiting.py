"""Commands that meet a failure of their image and wait for the host: on_error "stop"."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine._device import Dma
from engine.devices.ich9_ahci import Ich9Ahci
from engine.devices.piix3_ide import Piix3Ide
from engine.errors import MachineError
from engine.testing.bus import FakeBus

sys.path.insert(0, str(Path(__file__).parent))

from test_ich9_ahci import CI, DATA, DHRS, PXIS, RAM, SACT, SDBS, SECTORS, TFD, WRITE, Hba, h2d, queued

FLUSH_CACHE = 0xE7


class Waiting(Hba):
    """An adapter whose only disk fails once in what `fail` names."""

    def __init__(self, *fail: str, on_error: str = "stop", ram: bytearray | None = None) -> None:
        self.ram = bytearray(RAM) if ram is None else ram
        drive = {"channel": 0, "size": SECTORS * 512, "on_error": on_error, "fail": list(fail)}
        self.dut = Ich9Ahci(dma=Dma(self.ram), drives=[drive])
        self.bus = FakeBus(self.dut)
        self.bus.write(7, 4, 6, 2)
        self.bus.write(5, 4, 0x80000002, 4)

    def stops(self) -> int:
        return sum(level for _, level in self.bus.edges("io_error"))

    def resume(self) -> None:
        self.bus.set("resume", 1)
        self.bus.set("resume", 0)


@pytest.mark.parametrize(
    ("what", "command"), [("write", 0x35), ("read", 0x25), ("write", 0x34), ("read", 0x24), ("flush", 0xE7)]
)
def test_a_command_that_waits_has_not_happened(what, command):
    hba = Waiting(what)
    hba.start()
    hba.ram[DATA : DATA + 8 * 512] = bytes(range(256)) * 16
    regions = [] if what == "flush" else [(DATA, 8 * 512)]
    hba.command(h2d(command, 100, 8), regions, WRITE if what == "write" else 0)
    assert hba.port(0, CI) == 1 and not hba.port(0, TFD) & 1 and not hba.port(0, PXIS) & DHRS
    assert hba.stops() == 1
    hba.set(0, CI, 2)  # the next one has to wait, too
    hba.fill(1, h2d(0xEC), [(DATA + 0x10000, 512)])
    hba.resume()
    assert hba.port(0, CI) == 0 and hba.port(0, TFD) & 0x89 == 0 and hba.port(0, PXIS) & DHRS
    assert hba.stops() == 1 and any(hba.ram[DATA + 0x10000 : DATA + 0x10200])
    if what == "write":
        assert hba.dut.written_sectors() == {"0:0 100": bytes(range(256)) * 16}
    elif what == "read":
        assert hba.ram[DATA : DATA + 8 * 512] == bytes(8 * 512)


def test_a_queued_command_that_waits_keeps_its_bit():
    hba = Waiting("write")
    hba.start(enable=SDBS)
    hba.ram[DATA : DATA + 1024] = b"\x5a" * 1024
    hba.fill(4, queued(True, 4, 300, 1), [(DATA, 512)], WRITE)
    hba.fill(5, queued(True, 5, 400, 1), [(DATA, 512)], WRITE)
    hba.set(0, SACT, 0x30)
    hba.set(0, CI, 0x30)
    assert hba.port(0, SACT) == 0x10 and hba.stops() == 1
    assert hba.dut.written_sectors() == {"0:0 400": b"\x5a" * 512}
    hba.resume()
    assert hba.port(0, SACT) == 0 and hba.stops() == 1
    assert hba.dut.written_sectors() == {"0:0 300": b"\x5a" * 512, "0:0 400": b"\x5a" * 512}


def test_a_failure_that_stays_makes_it_wait_again():
    hba = Waiting()
    hba.dut.medium(0).fail("write", 3)
    hba.start()
    hba.command(h2d(0x35, 100, 1), [(DATA, 512)], WRITE)
    for n in (1, 2, 3):
        assert hba.stops() == n and hba.port(0, CI) == 1
        hba.resume()
    assert hba.stops() == 3 and hba.port(0, CI) == 0 and hba.dut.medium(0).failures == 3


def test_addresses_past_the_end_are_the_guest_s_mistake_and_wait_for_nobody():
    hba = Waiting()
    hba.start()
    hba.command(h2d(0x25, SECTORS, 1), [(DATA, 512)])
    assert hba.stops() == 0 and hba.port(0, TFD) & 0x81 == 1


def test_without_it_a_failure_is_the_command_s_error():
    hba = Waiting("write", on_error="report")
    hba.start()
    hba.command(h2d(0x35, 100, 1), [(DATA, 512)], WRITE)
    assert hba.stops() == 0 and hba.port(0, TFD) & 0x81 == 1


@pytest.mark.parametrize("again", ["port", "bus", "software"])
def test_a_reset_ends_the_waiting(again):
    hba = Waiting("write")
    hba.start()
    hba.command(h2d(0x35, 100, 1), [(DATA, 512)], WRITE)
    if again == "port":
        hba.set(0, 44, 1)
        hba.set(0, 44, 0)
    elif again == "bus":
        hba.bus.reset(1)
    else:
        hba.bus.write(5, 4, 0x80000001, 4)
    hba.resume()
    assert hba.dut.written_sectors() == {}


def test_a_command_that_waits_is_saved_and_goes_on_elsewhere():
    first = Waiting("write")
    first.start()
    first.ram[DATA : DATA + 512] = b"\x77" * 512
    first.command(h2d(0x35, 100, 1), [(DATA, 512)], WRITE)
    second = Waiting(ram=bytearray(first.ram))
    second.dut.restore(first.dut.save())
    assert second.port(0, CI) == 1
    second.resume()
    assert second.dut.written_sectors() == {"0:0 100": b"\x77" * 512} and second.port(0, CI) == 0


def test_flushes_are_held_by_the_host():
    hba = Waiting()
    hba.start()
    hba.dut.hold(0, 0, True)
    hba.command(h2d(FLUSH_CACHE))
    assert hba.port(0, CI) == 1 and hba.stops() == 0
    hba.resume()
    assert hba.port(0, CI) == 1  # still held
    hba.dut.hold(0, 0, False)
    hba.resume()
    assert hba.port(0, CI) == 0


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("unit", [0, 1])
def test_a_flush_of_an_ide_drive_waits(unit, held):
    drives = [{"channel": 0, "unit": u, "size": 1 << 20, "on_error": "stop"} for u in range(2)]
    bus = FakeBus(Piix3Ide(drives=drives))
    if held:
        bus.dut.hold(0, unit, True)
    else:
        bus.dut.medium(0, unit).fail("flush")
    bus.write(8, 6, 0xA0 | unit << 4)
    bus.write(8, 7, FLUSH_CACHE)
    assert bus.read(8, 7) == 0xD0 and not bus.level("irq14")
    bus.write(8, 7, 0xEC)  # not taken
    assert bus.read(8, 7) == 0xD0
    assert sum(level for _, level in bus.edges("io_error")) == (not held)
    if held:
        bus.dut.hold(0, unit, False)
    bus.set("resume", 1)
    assert bus.level("irq14") and bus.read(8, 7) == 0x50


def test_a_soft_reset_ends_the_waiting_of_an_ide_drive():
    bus = FakeBus(Piix3Ide(drives=[{"size": 1 << 20, "on_error": "stop", "fail": ["flush"]}]))
    bus.write(8, 7, FLUSH_CACHE)
    bus.write(9, 0, 4)
    bus.write(9, 0, 0)
    status = bus.read(8, 7)
    bus.set("resume", 1)
    assert bus.read(8, 7) == status and not status & 0x80


@pytest.mark.parametrize("odd", [{"on_error": "panic"}, {"fail": ["seek"]}, {"fail": "write"}, {"on_error": 1}])
def test_settings_are_checked(odd):
    for kind in (Ich9Ahci, Piix3Ide):
        with pytest.raises(MachineError):
            kind(drives=[{"size": 1 << 20, **odd}])
