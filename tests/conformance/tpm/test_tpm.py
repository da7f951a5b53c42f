"""TCG PC Client Platform TPM Profile 1.05 (PTP), rule by rule, in front of a stand-in for swtpm; then swtpm itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_swtpm import FakeSwtpm

from engine._device import Dma
from engine.devices.tpm import TpmCrb, TpmTis
from engine.errors import MachineError
from engine.machine import Machine
from engine.machine.qemu_args import from_qemu
from engine.testing.bus import FakeBus

ACCESS, INT_ENABLE, INT_STATUS, STS, FIFO, XFIFO, INTERFACE_ID = 0x00, 0x08, 0x10, 0x18, 0x24, 0x80, 0x30
REQUEST, PENDING, SEIZE, BEEN_SEIZED, ACTIVE, VALID = 0x02, 0x04, 0x08, 0x10, 0x20, 0x80
RETRY, EXPECT, AVAILABLE, GO, READY, STS_VALID = 0x02, 0x08, 0x10, 0x20, 0x40, 0x80
LATENCY = 1_000_000
COMMAND = bytes.fromhex("8001 0000000e 00000144 cafe0102")
RESPONSE = bytes.fromhex("8001 0000000e 00000000 cafe0102")
FATAL = bytes.fromhex("00c4 0000000a 00000009")
LOC_STATE, LOC_CTRL, LOC_STS, CTRL_REQ, CTRL_STS, CTRL_CANCEL, CTRL_START, BUFFER = (
    0,
    8,
    0xC,
    0x40,
    0x44,
    0x48,
    0x4C,
    0x80,
)


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[FakeSwtpm]:
    fake = FakeSwtpm(tmp_path)
    yield fake
    fake.close()


@pytest.fixture
def tis(tpm: FakeSwtpm) -> Iterator[FakeBus]:
    bus = FakeBus(TpmTis(swtpm=tpm.path))
    bus.dut.open_backend()
    yield bus
    bus.dut.close_backend()


@pytest.fixture
def crb(tpm: FakeSwtpm) -> Iterator[FakeBus]:
    bus = FakeBus(TpmCrb(swtpm=tpm.path))
    bus.dut.open_backend()
    yield bus
    bus.dut.close_backend()


def at(locality: int, register: int) -> int:
    return locality << 12 | register


def activate(bus: FakeBus, locality: int = 0) -> None:
    bus.write(0, at(locality, ACCESS), REQUEST)
    assert bus.read(0, at(locality, ACCESS)) & ACTIVE


def send(bus: FakeBus, command: bytes, locality: int = 0, size: int = 1) -> None:
    bus.write(0, at(locality, STS), READY)
    for n in range(0, len(command), size):
        bus.write(0, at(locality, FIFO), int.from_bytes(command[n : n + size], "little"), size)
    bus.write(0, at(locality, STS), GO)


def fetch(bus: FakeBus, n: int, locality: int = 0) -> bytes:
    return bytes(bus.read(0, at(locality, FIFO)) for _ in range(n))


# ---------------------------------------------------------------------- the FIFO: localities


def test_no_locality_is_active_after_reset(tis: FakeBus) -> None:
    for locality in range(5):
        assert tis.read(0, at(locality, ACCESS)) == VALID  # established: the flag reads inverted
        assert tis.read(0, at(locality, STS), 4) == 0xFFFFFFFF
        assert tis.read(0, at(locality, FIFO), 4) == 0xFFFFFFFF


def test_request_use_and_relinquish(tis: FakeBus) -> None:
    activate(tis, 2)
    tis.write(0, at(0, ACCESS), REQUEST)
    assert tis.read(0, at(0, ACCESS)) == VALID | REQUEST
    assert tis.read(0, at(2, ACCESS)) == VALID | ACTIVE | PENDING
    tis.write(0, at(1, ACCESS), REQUEST)
    tis.write(0, at(2, ACCESS), ACTIVE)
    assert tis.read(0, at(1, ACCESS)) == VALID | ACTIVE | PENDING  # the higher one of those that wait
    tis.write(0, at(0, ACCESS), ACTIVE)  # not its own: takes the request back
    assert tis.read(0, at(1, ACCESS)) == VALID | ACTIVE


def test_seize_is_for_higher_localities(tis: FakeBus) -> None:
    activate(tis, 1)
    tis.write(0, at(0, ACCESS), SEIZE)
    assert tis.read(0, at(1, ACCESS)) == VALID | ACTIVE
    tis.write(0, at(3, ACCESS), SEIZE)
    assert tis.read(0, at(3, ACCESS)) == VALID | ACTIVE
    assert tis.read(0, at(1, ACCESS)) == VALID | BEEN_SEIZED
    tis.write(0, at(1, ACCESS), BEEN_SEIZED)
    assert tis.read(0, at(1, ACCESS)) == VALID


def test_locality_4_is_not_software_s(tis: FakeBus) -> None:
    tis.write(0, at(4, ACCESS), REQUEST)
    assert tis.read(0, at(4, ACCESS)) == VALID


def test_only_the_active_locality_has_status_data_and_interrupts(tis: FakeBus) -> None:
    activate(tis, 1)
    tis.write(0, at(0, STS), READY)
    tis.write(0, at(0, INT_ENABLE), 0x80000087, 4)
    assert tis.read(0, at(0, INT_ENABLE), 4) == 0x08
    assert tis.read(0, at(1, STS), 4) & READY == 0


# ---------------------------------------------------------------------- the FIFO: commands


def test_a_command_goes_through_the_states(tis: FakeBus, tpm: FakeSwtpm) -> None:
    activate(tis)
    assert tis.read(0, STS, 4) & 0xFF == 0
    tis.write(0, STS, READY)
    assert tis.read(0, STS, 4) >> 8 & 0xFFFF == 4096  # burst count
    assert tis.read(0, STS) & READY
    for n, byte in enumerate(COMMAND):
        tis.write(0, FIFO, byte)
        assert bool(tis.read(0, STS) & EXPECT) == (n < len(COMMAND) - 1)
    tis.write(0, STS, GO)
    tis.step(LATENCY - 1)
    assert not tis.read(0, STS) & AVAILABLE
    tis.step(1)
    assert tis.read(0, STS, 4) & 0xFFFFFF == len(RESPONSE) << 8 | STS_VALID | AVAILABLE
    assert fetch(tis, len(RESPONSE)) == RESPONSE
    assert tis.read(0, STS) == STS_VALID
    assert tis.read(0, FIFO) == 0xFF
    assert tpm.seen == [COMMAND]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("register", [FIFO, XFIFO])
def test_bytes_go_in_any_width_and_by_either_register(tis: FakeBus, tpm: FakeSwtpm, size: int, register: int) -> None:
    activate(tis)
    tis.write(0, STS, READY)
    for n in range(0, len(COMMAND), size):
        part = COMMAND[n : n + size]
        tis.write(0, register, int.from_bytes(part, "little"), len(part))
    tis.write(0, STS, GO)
    tis.step(LATENCY)
    got = b""
    while len(got) < len(RESPONSE):
        n = min(size, len(RESPONSE) - len(got))
        got += tis.read(0, register, n).to_bytes(n, "little")
    assert got == RESPONSE
    assert tpm.seen == [COMMAND]


def test_response_retry_starts_the_response_again(tis: FakeBus) -> None:
    activate(tis)
    send(tis, COMMAND)
    tis.step(LATENCY)
    assert fetch(tis, 5) == RESPONSE[:5]
    tis.write(0, STS, RETRY)
    assert fetch(tis, len(RESPONSE)) == RESPONSE
    tis.write(0, STS, READY)
    assert tis.read(0, STS) == READY


def test_command_ready_aborts_a_command(tis: FakeBus, tpm: FakeSwtpm) -> None:
    activate(tis)
    send(tis, COMMAND)
    tis.write(0, STS, READY)
    assert 9 in tpm.log  # cancel
    tis.step(LATENCY)
    assert tis.read(0, STS) == READY  # aborted: ready for the next one
    send(tis, COMMAND)
    tis.step(LATENCY)
    assert fetch(tis, len(RESPONSE)) == RESPONSE


def test_the_tpm_hears_of_the_locality(tis: FakeBus, tpm: FakeSwtpm) -> None:
    for locality in (0, 0, 3):
        activate(tis, locality)
        send(tis, COMMAND, locality)
        tis.step(LATENCY)
        assert fetch(tis, len(RESPONSE), locality) == RESPONSE
        tis.write(0, at(locality, ACCESS), ACTIVE)
    assert tpm.localities == [0, 3]


def test_interrupts(tis: FakeBus) -> None:
    activate(tis)
    tis.write(0, INT_ENABLE, 0x80000081, 4)  # data available, command ready
    tis.write(0, STS, READY)
    assert tis.level("irq")
    assert tis.read(0, INT_STATUS, 4) == 0x80
    tis.write(0, INT_STATUS, 0x80, 4)
    assert not tis.level("irq")
    send(tis, COMMAND)
    tis.write(0, INT_STATUS, 0x87, 4)
    tis.step(LATENCY)
    assert tis.level("irq")
    assert tis.read(0, INT_STATUS, 4) == 0x03
    tis.write(0, INT_STATUS, 0x01, 4)
    assert tis.level("irq")
    tis.write(0, INT_STATUS, 0x02, 4)
    assert not tis.level("irq")


def test_reset_establishment_is_for_locality_3(tis: FakeBus, tpm: FakeSwtpm) -> None:
    activate(tis, 3)
    tis.write(0, at(3, STS), 1 << 25, 4)
    assert tpm.log[-1] == 11
    assert tis.read(0, at(3, ACCESS)) == VALID | ACTIVE | 0x01


def test_tpm_init_starts_the_tpm_anew(tis: FakeBus, tpm: FakeSwtpm) -> None:
    assert tpm.log == [16, 14, 17, 2, 4]
    activate(tis, 1)
    send(tis, COMMAND, 1)
    tis.reset(1)
    assert tpm.log[-4:] == [14, 17, 2, 4]
    assert tis.read(0, at(1, ACCESS)) == VALID
    activate(tis, 0)
    send(tis, COMMAND)
    tis.step(LATENCY)
    assert fetch(tis, len(RESPONSE)) == RESPONSE  # not the one from before the reset


# ---------------------------------------------------------------------- the command response buffer


def run(bus: FakeBus, command: bytes) -> None:
    bus.write(0, LOC_CTRL, 1, 4)
    bus.write(0, CTRL_REQ, 1, 4)
    for n, byte in enumerate(command):
        bus.write(0, BUFFER + n, byte)
    bus.write(0, CTRL_START, 1, 4)


def test_crb_runs_a_command(crb: FakeBus, tpm: FakeSwtpm) -> None:
    assert crb.read(0, CTRL_STS, 4) == 2  # idle
    run(crb, COMMAND)
    assert crb.read(0, CTRL_STS, 4) == 0
    assert crb.read(0, LOC_STS, 4) == 1
    crb.step(LATENCY - 1)
    assert crb.read(0, CTRL_START, 4) == 1
    crb.step(1)
    assert crb.read(0, CTRL_START, 4) == 0
    assert bytes(crb.read(0, BUFFER + n) for n in range(len(RESPONSE))) == RESPONSE
    assert tpm.seen == [COMMAND]
    crb.write(0, CTRL_REQ, 2, 4)
    assert crb.read(0, CTRL_STS, 4) == 2


@pytest.mark.parametrize("cls", [TpmTis, TpmCrb])
def test_without_a_latency_the_response_is_there_when_the_command_starts(
    cls: type[TpmTis] | type[TpmCrb], tpm: FakeSwtpm
) -> None:
    bus = FakeBus(cls(swtpm=tpm.path, latency_us=0))
    bus.dut.open_backend()
    if cls is TpmTis:
        activate(bus)
        send(bus, COMMAND)
        assert bus.read(0, at(0, STS)) == 0x90 and fetch(bus, len(RESPONSE)) == RESPONSE
    else:
        run(bus, COMMAND)
        assert bus.read(0, CTRL_START, 4) == 0
        assert bytes(bus.read(0, BUFFER + n) for n in range(len(RESPONSE))) == RESPONSE
    bus.dut.close_backend()


def test_crb_needs_the_locality(crb: FakeBus, tpm: FakeSwtpm) -> None:
    crb.write(0, CTRL_START, 1, 4)
    assert crb.read(0, CTRL_START, 4) == 0
    crb.write(0, LOC_CTRL, 1, 4)
    assert crb.read(0, LOC_STATE, 4) == 0x82
    crb.write(0, LOC_CTRL, 2, 4)
    assert crb.read(0, LOC_STATE, 4) == 0x80
    assert tpm.seen == []


def test_crb_cancels(crb: FakeBus, tpm: FakeSwtpm) -> None:
    crb.write(0, CTRL_CANCEL, 1, 4)
    assert 9 not in tpm.log
    run(crb, COMMAND)
    crb.write(0, CTRL_CANCEL, 1, 4)
    assert 9 in tpm.log


# ---------------------------------------------------------------------- without a TPM, and with one that fails


def test_without_swtpm_every_command_fails() -> None:
    tis = FakeBus(TpmTis())
    activate(tis)
    send(tis, COMMAND)
    tis.step(LATENCY)
    assert fetch(tis, 10) == FATAL
    crb = FakeBus(TpmCrb())
    run(crb, COMMAND)
    crb.step(LATENCY)
    assert bytes(crb.read(0, BUFFER + n) for n in range(10)) == FATAL
    assert crb.read(0, CTRL_STS, 4) == 1


def test_a_tpm_that_does_not_answer_fails_at_the_same_virtual_time(tmp_path: Path) -> None:
    fake = FakeSwtpm(tmp_path, mute=True)
    bus = FakeBus(TpmTis(swtpm=fake.path, patience_ms=300))
    bus.dut.open_backend()
    activate(bus)
    send(bus, COMMAND)
    bus.step(LATENCY)
    assert bus.read(0, STS) & AVAILABLE
    assert fetch(bus, 10) == FATAL
    fake.close()


WRONG = [({"swtpm": "/nonexistent"}, "start swtpm with"), ({"swtpm": "/dev/null"}, "is no socket")]


@pytest.mark.parametrize(("config", "text"), [*WRONG, ({"latency_us": -1}, "latency_us = -1")])
def test_settings_that_cannot_be(config: dict[str, Any], text: str) -> None:
    for kind in (TpmTis, TpmCrb):
        with pytest.raises(MachineError, match=text):
            kind(**config)


def test_save_and_restore_in_the_middle_of_a_command(tis: FakeBus) -> None:
    activate(tis, 1)
    tis.write(0, at(1, STS), READY)
    for byte in COMMAND[:7]:
        tis.write(0, at(1, FIFO), byte)
    other = FakeBus(TpmTis())
    other.dut.restore(tis.dut.save())
    for byte in COMMAND[7:]:
        other.write(0, at(1, FIFO), byte)
    assert other.read(0, at(1, STS)) == STS_VALID
    assert other.dut.save() != tis.dut.save()


# ---------------------------------------------------------------------- command lines, and swtpm itself


def qemu_args(kind: str, path: str) -> list[str]:
    return ["-M", "q35", "-m", "64", "-nodefaults", "-chardev", f"socket,id=c,path={path}", "-tpmdev",
            "emulator,id=t,chardev=c", "-device", f"{kind},tpmdev=t"]  # fmt: skip


@pytest.mark.parametrize("part", [TpmTis, TpmCrb])
@pytest.mark.parametrize("asked", [0x00, 0x01, 0x10, 0x11])
def test_a_reset_overwrites_memory_if_that_was_asked_for(part: Any, asked: int) -> None:
    """TCG Platform Reset Attack Mitigation: the memory overwrite variable of the physical presence interface."""
    ram = bytearray(b"secret" * 100)
    bus = FakeBus(part(dma=Dma(ram)))
    bus.write(1, 0x15A, asked)
    bus.reset(1)
    assert ram == (bytes(600) if asked & 1 else b"secret" * 100)
    assert bus.read(1, 0x15A) == asked  # and it is asked for the next time, too, until software takes it back


def test_the_command_buffer_is_memory_that_is_overwritten() -> None:
    bus = FakeBus(TpmCrb())
    for asked in (0, 1):
        bus.write(0, BUFFER, 0x5A)
        bus.write(1, 0x15A, asked)
        bus.reset(1)
        assert bus.read(0, BUFFER) == (0 if asked else 0x5A)


def test_a_command_line_names_the_socket() -> None:
    got = from_qemu(qemu_args("tpm-tis", "/run/tpm"))
    assert not got.unmodelled
    d = got.spec().device("tpm")
    assert (d.type, d.config, d.lines) == ("tpm-tis", {"swtpm": "/run/tpm"}, {"irq": "isa5"})
    assert d.at == {"tpm-tis-mmio": 0xFED40000, "tpm-ppi": 0xFED45000}
    same = [a.replace("id=t", "id=c").replace("tpmdev=t", "tpmdev=c") for a in qemu_args("tpm-tis", "/run/tpm")]
    assert from_qemu(same).spec().device("tpm").config == {"swtpm": "/run/tpm"}  # names of one kind and of the other
    with pytest.raises(MachineError, match="needs -tpmdev emulator"):
        from_qemu(["-device", "tpm-crb,tpmdev=t"])
    with pytest.raises(MachineError, match="start swtpm with"):
        Machine(from_qemu(qemu_args("tpm-crb", "/nonexistent/tpm")).spec())


@pytest.mark.skipif(not shutil.which("swtpm"), reason="swtpm is not installed")
@pytest.mark.parametrize("workers", [None, 1])
def test_a_machine_talks_to_swtpm(tmp_path: Path, workers: int | None) -> None:
    """TPM 2.0 Part 3: TPM2_Startup succeeds once, TPM2_GetCapability tells the family."""
    path = tmp_path / "ctrl"
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={tmp_path}", "--ctrl", f"type=unixio,path={path}"]
    swtpm = subprocess.Popen(command)
    try:
        while not path.exists():
            time.sleep(0.01)
        options = {} if workers is None else {"workers": workers}
        with Machine(from_qemu(qemu_args("tpm-crb", str(path))).spec(), **options) as machine:
            base = 0xFED40000

            def ask(text: str) -> bytes:
                machine.write("mmio", base + LOC_CTRL, 4, 1)
                for n, byte in enumerate(bytes.fromhex(text)):
                    machine.write("mmio", base + BUFFER + n, 1, byte)
                machine.write("mmio", base + CTRL_START, 4, 1)
                machine.clock.step(LATENCY)
                assert machine.read("mmio", base + CTRL_START, 4) == 0
                head = bytes(machine.read("mmio", base + BUFFER + n) for n in range(10))
                return bytes(machine.read("mmio", base + BUFFER + n) for n in range(int.from_bytes(head[2:6], "big")))

            startup = "8001 0000000c 00000144 0000"
            assert ask(startup) == bytes.fromhex("8001 0000000a 00000000")
            assert ask(startup) == bytes.fromhex("8001 0000000a 00000100")  # TPM_RC_INITIALIZE
            family = ask("8001 00000016 0000017a 00000006 00000100 00000001")
            assert family[6:10] == bytes(4)
            assert family.endswith(b"2.0\0")
            machine.reset()
            assert ask(startup) == bytes.fromhex("8001 0000000a 00000000")
    finally:
        swtpm.kill()
        swtpm.wait()
