"""28F128J3A (290667) and JESD68.01, a test for each section; then images, boards and command lines."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from engine.devices.pflash_cfi01 import PflashCfi01
from engine.errors import MachineError, StateError
from engine.machine import Machine
from engine.machine.memory import BUS, ROM, Memory
from engine.machine.qemu_args import from_qemu
from engine.testing.bus import FakeBus

SIZE = 0x10000
BLOCK = 0x1000
READY, ERASE_ERROR, PROGRAM_ERROR = 0x80, 0x20, 0x10


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "flash.bin"
    path.write_bytes(bytes(n >> 8 & 0xFF for n in range(SIZE)))
    return path


@pytest.fixture
def bus(image: Path) -> FakeBus:
    return FakeBus(PflashCfi01(image=str(image)))


def cycles(bus: FakeBus, *writes: tuple[int, int]) -> None:
    for offset, value in writes:
        bus.write(0, offset, value)


# ---------------------------------------------------------------------- 290667, command by command


def test_read_array_is_the_state_after_reset(bus: FakeBus) -> None:
    assert bus.read(0, 0x1234) == 0x12
    assert bus.read(0, 0x12FC, 8) == 0x1313131312121212
    bus.write(0, 0, 0x70)
    bus.reset(1)
    assert bus.read(0, 0x1234) == 0x12


def test_read_status_is_at_every_address_until_read_array(bus: FakeBus) -> None:
    bus.write(0, 0x4000, 0x70)
    assert [bus.read(0, at) for at in (0, 0x1234, SIZE - 1)] == [READY] * 3
    assert bus.read(0, 0, 2) == READY
    assert bus.read(0, 0, 4) == READY << 16 | READY
    bus.write(0, 0, 0xFF)
    assert bus.read(0, 0x1234) == 0x12


def test_clear_status_register(bus: FakeBus) -> None:
    cycles(bus, (0, 0x50), (0, 0x70))
    assert bus.read(0, 0) == 0
    bus.reset(1)
    bus.write(0, 0, 0x70)
    assert bus.read(0, 0) == READY


@pytest.mark.parametrize("command", [0x40, 0x10])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_word_byte_program(bus: FakeBus, command: int, size: int) -> None:
    value = 0x55AA1234 & (1 << 8 * size) - 1
    bus.write(0, 0x2000, command)
    bus.write(0, 0x2000, value, size)
    assert bus.read(0, 0x2000) == READY
    bus.write(0, 0, 0xFF)
    assert bus.read(0, 0x2000, size) == value
    assert bus.read(0, 0x2000 + size) == 0x20


def test_block_erase_takes_the_whole_block(bus: FakeBus) -> None:
    cycles(bus, (0x3456, 0x20), (0x3456, 0xD0))
    assert bus.read(0, 0) == READY
    bus.write(0, 0, 0xFF)
    assert {bus.read(0, at) for at in range(0x3000, 0x4000, 64)} == {0xFF}
    assert (bus.read(0, 0x2FFF), bus.read(0, 0x4000)) == (0x2F, 0x40)


def test_write_to_buffer(bus: FakeBus) -> None:
    cycles(bus, (0x5000, 0xE8))
    assert bus.read(0, 0x5000) & READY
    cycles(bus, (0x5000, 2), (0x5010, 1), (0x5011, 2), (0x50FF, 3))
    cycles(bus, (0x5000, 0xD0), (0, 0xFF))
    assert [bus.read(0, at) for at in (0x500F, 0x5010, 0x5011, 0x5012, 0x50FF, 0x5100)] == [0x50, 1, 2, 0x50, 3, 0x51]


def test_write_to_buffer_needs_its_confirmation(bus: FakeBus) -> None:
    cycles(bus, (0x5000, 0xE8), (0x5000, 0), (0x5010, 0x77), (0x5000, 0xFF))
    assert bus.read(0, 0x5010) == 0x50


def test_write_to_buffer_stays_in_its_block(bus: FakeBus) -> None:
    cycles(bus, (0x5000, 0xE8), (0x5000, 1), (0x5010, 0x77), (0x5100, 0x77))
    assert bus.read(0, 0) == READY | PROGRAM_ERROR
    cycles(bus, (0x5000, 0xD0))
    assert [bus.read(0, at) for at in (0x5010, 0x5100)] == [0x50, 0x51]


def test_lock_commands_are_taken(bus: FakeBus) -> None:
    for second in (0x01, 0xD0):
        cycles(bus, (0x1000, 0x60), (0x1000, second))
        assert bus.read(0, 0x1000) == READY
    cycles(bus, (0x1000, 0x60), (0x1000, 0xFF))
    assert bus.read(0, 0x1234) == 0x12


def test_unknown_commands_go_back_to_the_array(bus: FakeBus) -> None:
    for command in (0xF0, 0x28, 0xD0, 0x80):
        cycles(bus, (0, 0x70), (0, command))
        assert bus.read(0, 0x1234) == 0x12
    cycles(bus, (0x1000, 0x20), (0x1000, 0x55))  # no confirmation
    assert bus.read(0, 0x2345) == 0x23


def test_read_only_parts_report_errors(image: Path) -> None:
    bus = FakeBus(PflashCfi01(image=str(image), readonly=True))
    cycles(bus, (0x1000, 0x40), (0x1000, 0))
    assert bus.read(0, 0) == READY | PROGRAM_ERROR
    cycles(bus, (0x1000, 0x20), (0x1000, 0xD0))
    assert bus.read(0, 0) == READY | PROGRAM_ERROR | ERASE_ERROR
    cycles(bus, (0, 0x50), (0x1000, 0xE8), (0x1000, 0), (0x1000, 9))
    assert bus.read(0, 0) == READY | PROGRAM_ERROR
    cycles(bus, (0x1000, 0xD0))
    assert bus.read(0, 0x1000) == 0x10


# ---------------------------------------------------------------------- JESD68.01


def test_query_structure(bus: FakeBus) -> None:
    bus.write(0, 0, 0x98)
    assert bytes(bus.read(0, at) for at in range(0x10, 0x13)) == b"QRY"
    word = [bus.read(0, at) | bus.read(0, at + 1) << 8 for at in range(0x31)]
    assert word[0x13] == 1  # Intel/Sharp extended command set
    assert bytes(bus.read(0, word[0x15] + n) for n in range(5)) == b"PRI10"
    assert 1 << bus.read(0, 0x27) == SIZE
    assert 1 << word[0x2A] == 256
    assert bus.read(0, 0x2C) == 1
    assert (word[0x2D] + 1) * (word[0x2F] << 8) == SIZE
    assert word[0x2F] << 8 == BLOCK
    assert bus.read(0, 0x110) == bus.read(0, 0x10)  # decodes eight address lines
    bus.write(0, 0, 0xFF)
    assert bus.read(0, 0x10) == 0


def test_identifier(bus: FakeBus) -> None:
    bus.write(0, 0, 0x90)
    assert bus.read(0, 0, 4) == 0
    bus.write(0, 0, 0x70)  # another command may follow at once
    assert bus.read(0, 0) == READY


# ---------------------------------------------------------------------- images


def test_an_overlay_keeps_the_file_and_is_state(image: Path) -> None:
    before = image.read_bytes()
    bus = FakeBus(PflashCfi01(image=str(image)))
    cycles(bus, (0x2345, 0x40), (0x2345, 0x99), (0, 0xFF))
    assert image.read_bytes() == before
    state, written = bus.dut.save(), bus.dut.written_sectors()
    other = FakeBus(PflashCfi01(image=str(image)))
    other.dut.restore(state)
    other.dut.set_written_sectors(written)
    assert (other.read(0, 0x2345), other.read(0, 0x2346)) == (0x99, 0x23)
    with pytest.raises(StateError):
        other.dut.set_written_sectors({1 << 20: bytes(512)})


def test_variables_persist_in_a_file_that_is_written(image: Path) -> None:
    bus = FakeBus(PflashCfi01(image=str(image), write=True))
    cycles(bus, (0x2345, 0x40), (0x2345, 0x99), (0x4000, 0x20), (0x4000, 0xD0))
    cycles(bus, (0x5000, 0xE8), (0x5000, 0), (0x50FF, 0x66), (0x5000, 0xD0))
    data = image.read_bytes()
    assert (data[0x2345], data[0x2346], data[0x50FF], data[0x5100]) == (0x99, 0x23, 0x66, 0x51)
    assert data[0x4000:0x5000] == b"\xff" * BLOCK
    assert len(data) == SIZE
    assert FakeBus(PflashCfi01(image=str(image))).read(0, 0x2345) == 0x99


def test_a_medium_that_fails_is_a_program_error(image: Path) -> None:
    bus = FakeBus(PflashCfi01(image=str(image), write=True))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0x2000, hard))  # as on a file system that is full from there on
    try:
        cycles(bus, (0x1345, 0x40), (0x1345, 0x99))
        assert bus.read(0, 0) == READY
        cycles(bus, (0x2345, 0x40), (0x2345, 0x99))
        assert bus.read(0, 0) == READY | PROGRAM_ERROR
        cycles(bus, (0, 0x50), (0x3000, 0x20), (0x3000, 0xD0))
        assert bus.read(0, 0) == READY | ERASE_ERROR
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert image.read_bytes()[0x2345] == 0x23


def test_save_in_the_middle_of_a_buffered_program(image: Path) -> None:
    bus = FakeBus(PflashCfi01(image=str(image)))
    cycles(bus, (0x5000, 0xE8), (0x5000, 1), (0x5010, 1))
    state = bus.dut.save()
    other = FakeBus(PflashCfi01(image=str(image)))
    other.dut.restore(state)
    cycles(other, (0x5011, 2), (0x5000, 0xD0), (0, 0xFF))
    assert other.read(0, 0x5010, 2) == 0x0201


def test_contents_are_learnt_where_there_is_no_image() -> None:
    bus = FakeBus(PflashCfi01(size=SIZE))
    bus.learn(0, 0x1000, 0xAB)
    assert (bus.read(0, 0x1000), bus.content) == (0xAB, True)
    other = FakeBus(PflashCfi01(size=SIZE))
    other.dut.set_contents(bus.dut.contents())
    assert other.read(0, 0x1000) == 0xAB
    cycles(other, (0x1000, 0x20), (0x1000, 0xD0), (0, 0xFF))
    assert (other.read(0, 0x1000), other.content) == (0xFF, False)  # the guest itself has said what is there


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "is empty"), (4095, "whole blocks"), ((8 << 20) + 4096, "bytes at most"), (None, "No such file")],
)
def test_images_that_do_not_fit(tmp_path: Path, size: int | None, text: str) -> None:
    path = tmp_path / "bad.bin"
    if size is not None:
        with path.open("wb") as f:
            f.truncate(size)
    with pytest.raises(MachineError, match=text):
        PflashCfi01(image=str(path))


# ---------------------------------------------------------------------- boards


@pytest.mark.parametrize("board", ["pc", "q35"])
def test_two_parts_end_at_four_gigabytes(board: str, image: Path, tmp_path: Path) -> None:
    variables = tmp_path / "vars.bin"
    variables.write_bytes(b"\xee" * 0x2000)
    args = [
        "-machine",
        board,
        "-m",
        "16",
        "-nodefaults",
        "-drive",
        f"if=pflash,format=raw,unit=0,readonly=on,file={image}",
    ]
    got = from_qemu([*args, "-drive", f"if=pflash,format=raw,unit=1,file={variables}"])
    assert got.firmware == str(image)
    assert not got.unmodelled
    base = (1 << 32) - SIZE
    with Machine(got.spec()) as machine:
        assert machine.read("mmio", base + 0x1234) == 0x12
        assert machine.read("mmio", (1 << 32) - 16) == 0xFF
        at = base - 0x2000
        assert machine.read("mmio", at, 4) == 0xEEEEEEEE
        for value in (0x40, 0x12, 0xFF):
            machine.write("mmio", at + 5, 1, value)
        assert machine.read("mmio", at + 4, 4) == 0xEEEE12EE
        memory = Memory(machine, image.read_bytes())
        assert next(memory.pieces((1 << 32) - 16, 16))[0] == BUS
        assert next(memory.pieces(0xFFFF0, 16))[0] == ROM  # the copy below 1 MiB is no flash
        state = machine.save()
        machine.write("mmio", at + 5, 1, 0x70)
        assert machine.read("mmio", at) == READY
        machine.load(state)
        assert machine.read("mmio", at + 4, 4) == 0xEEEE12EE
    assert variables.read_bytes()[5] == 0x12


def test_block_nodes_of_the_machine_option(image: Path) -> None:
    got = from_qemu(
        ["-machine", "q35,pflash0=code", "-nodefaults", "-blockdev", f"driver=file,filename={image},node-name=f",
         "-blockdev", "driver=raw,file=f,node-name=code,read-only=on"]
    )  # fmt: skip
    flash = got.spec().device("pflash0")
    assert flash.at == {"system.flash0": (1 << 32) - SIZE}
    assert flash.config == {"size": SIZE, "name": "system.flash0", "image": str(image), "readonly": True}


def test_only_files_that_the_command_line_names_are_written(image: Path) -> None:
    def written(drive: str, *more: str) -> bool:
        args = ["-machine", "pc", "-nodefaults", "-drive", f"if=pflash,format=raw,file={drive}", *more]
        config = from_qemu(args, {"vars": str(image)}).spec().device("pflash0").config
        return bool(config.get("write", False))

    assert written(str(image))
    assert not written(f"{image},readonly=on")
    assert not written(f"{image},snapshot=on")
    assert not written(str(image), "-snapshot")
    assert not written("{vars}")  # of a recording


def test_units_come_in_order(image: Path) -> None:
    with pytest.raises(MachineError, match="unit 1 without the one before it"):
        from_qemu(["-drive", f"if=pflash,unit=1,format=raw,file={image}"])
    with pytest.raises(MachineError, match="no block node of that name"):
        from_qemu(["-machine", "pc,pflash0=x"])
