"""Images that are missing, short, locked, of another kind, or change while they are in use.

At start one line says what and where; while a guest runs it sees a medium error, and loses nothing else.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engine import data
from engine.devices import _medium
from engine.errors import EngineError, MachineError, TraceError
from engine.frontends import trace as traces
from engine.machine import Machine
from engine.machine.spec import DeviceSpec, MachineSpec, load

SECTOR = bytes(range(256)) * 2
IMAGE = b"".join(bytes([n]) * 512 for n in range(16))  # 8 KiB: sectors, two blocks of flash, four of a disc


def ide(image: Path, **more: object) -> MachineSpec:
    return load("i440fx").with_config("ide", drives=[{"image": str(image), **more}])


def atapi(image: Path) -> MachineSpec:
    return load("i440fx").with_config("ide", drives=[{"kind": "cdrom", "image": str(image)}])


def ahci(image: Path, **more: object) -> MachineSpec:
    return load("q35").with_config("ahci", drives=[{"image": str(image), **more}])


def ahci_disc(image: Path) -> MachineSpec:
    return load("q35").with_config("ahci", drives=[{"kind": "cdrom", "image": str(image)}])


def floppy(image: Path) -> MachineSpec:
    return load("i440fx").with_config("fdc", image_a=str(image))


def flash(image: Path, **more: object) -> MachineSpec:
    spec = load("i440fx")
    part = DeviceSpec("flash", "pflash", at={"system.flash0": 0xFFFFE000}, config={"image": str(image), **more})
    return replace(spec, devices=(*spec.devices, part))


EACH: list[Callable[[Path], MachineSpec]] = [ide, atapi, ahci, ahci_disc, floppy, flash]
WRITERS: list[Callable[..., MachineSpec]] = [ide, ahci, flash]
each = pytest.mark.parametrize("kind", EACH, ids=lambda f: f.__name__)
each_writer = pytest.mark.parametrize("kind", WRITERS, ids=lambda f: f.__name__)
here_and_in_a_worker = pytest.mark.parametrize("workers", [0, 1])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "some.img"
    path.write_bytes(IMAGE)
    return path


def refusal(spec: MachineSpec, workers: int = 0) -> str:
    """The line with which a machine does not start."""
    with pytest.raises(EngineError) as caught:
        Machine.from_spec(spec, workers=workers).start()
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text
    return text


# ---------------------------------------------------------------------- at start


@each
def test_what_is_no_image(kind: Callable[[Path], MachineSpec], tmp_path: Path) -> None:
    """Missing, a folder, a pipe (which would wait for a writer), a device without sectors, empty."""
    pipe, empty = tmp_path / "pipe", tmp_path / "empty"
    os.mkfifo(pipe)
    empty.touch()
    for path, why in (
        (tmp_path / "missing.img", "No such file"),
        (tmp_path, "is no file with sectors"),
        (pipe, "is no file with sectors"),
        (Path("/dev/null"), "is no file with sectors"),
        (empty, "is empty"),
    ):
        text = refusal(kind(path))
        assert why in text and str(path) in text, text


@each_writer
def test_an_image_that_is_shorter_than_the_size_given(kind: Callable[..., MachineSpec], image: Path) -> None:
    text = refusal(kind(image, size=1 << 16))
    assert f"{str(image)!r} has 8192 bytes, size says 65536" in text


def test_a_floppy_disk_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "big.img"
    with path.open("wb") as f:
        f.truncate(1 << 40)
    assert "16777216 at most" in refusal(floppy(path))


@each_writer
def test_an_image_that_cannot_be_written(kind: Callable[..., MachineSpec]) -> None:
    """A program that runs cannot be opened for writing, by nobody."""
    running = Path(sys.executable).resolve()
    with pytest.raises(OSError):
        os.close(os.open(running, os.O_RDWR))
    text = refusal(kind(running, write=True))
    assert str(running) in text and ("busy" in text or "denied" in text.lower() or "Read-only" in text)


@each_writer
def test_a_read_only_image_takes_no_write_setting(kind: Callable[..., MachineSpec], image: Path) -> None:
    assert "read-only" in refusal(kind(image, write=True, readonly=True))


# ---------------------------------------------------------------------- locks

HOLDER = """
import sys
from engine.devices._medium import lock_image, open_image
fd, _ = open_image("holder", sys.argv[1], sys.argv[2] == "write")
lock_image(fd, "holder", sys.argv[1], sys.argv[2] == "write")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(image: Path, how: str) -> Iterator[None]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    p = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(image), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    assert p.stdin and p.stdout
    try:
        assert p.stdout.readline() == b"held\n"
        yield
    finally:
        p.stdin.close()
        p.wait(30)
        p.stdout.close()


@each
@here_and_in_a_worker
def test_an_image_that_somebody_writes_to(kind: Callable[[Path], MachineSpec], image: Path, workers: int) -> None:
    with held_by_another_process(image, "write"):
        text = refusal(kind(image), workers)
        assert f"image {str(image)!r} is locked: another program writes to it" in text
    with Machine.from_spec(kind(image), workers=workers):
        pass


@each_writer
def test_an_image_that_somebody_reads_cannot_be_written(kind: Callable[..., MachineSpec], image: Path) -> None:
    with held_by_another_process(image, "read"):
        assert "is locked: another program uses it" in refusal(kind(image, write=True))
        with Machine.from_spec(kind(image)), Machine.from_spec(kind(image)):  # any number of readers
            pass


@each_writer
def test_two_machines_of_one_process_do_not_write_to_one_image(kind: Callable[..., MachineSpec], image: Path) -> None:
    with Machine.from_spec(kind(image, write=True)):
        assert "is locked" in refusal(kind(image, write=True))
        assert "is locked" in refusal(kind(image))
    with Machine.from_spec(kind(image, write=True)):  # the lock ends with the machine
        pass


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf], ids=["flock", "lockf"])
def test_whole_files_that_are_locked(lock: Callable[[int, int], None], image: Path) -> None:
    """By flock(1), and by fcntl from another process."""
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+b'); "
        f"fcntl.{lock.__name__}(f.fileno(), fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    p = subprocess.Popen([sys.executable, "-c", code, str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdin and p.stdout
    try:
        assert p.stdout.readline() == b"held\n"
        assert "is locked" in refusal(ide(image))
    finally:
        p.stdin.close()
        p.wait(30)
        p.stdout.close()


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")
def test_qemu_and_the_engine_heed_each_other(image: Path) -> None:
    def qemu(option: str = "") -> subprocess.Popen[bytes]:
        drive = f"file={image},format=raw,if=ide{option}"
        command = ["qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-m", "8", "-drive", drive]
        return subprocess.Popen([*command, "-monitor", "stdio"], stdin=-1, stdout=-1, stderr=-1)

    writer = qemu()
    try:
        end = time.monotonic() + 60
        with image.open("rb") as f:  # QEMU has begun when the image is locked
            while time.monotonic() < end:
                try:
                    _medium.lock_image(f.fileno(), "test", image)
                    _medium.unlock_image(f.fileno())
                    time.sleep(0.02)
                except MachineError:
                    break
        assert "another program writes to it" in refusal(ide(image))
    finally:
        writer.kill()
        writer.communicate()
    with Machine.from_spec(ide(image, write=True)):
        _, err = qemu().communicate(b"quit\n", timeout=60)
        assert b"lock" in err
    _, err = qemu().communicate(b"quit\n", timeout=60)
    assert b"lock" not in err


# ---------------------------------------------------------------------- while the guest runs


def pio_read(m: Machine, lba: int) -> tuple[int, bytes]:
    """READ SECTORS of the first disk: status, and the sector if there is one."""
    for port, value in ((0x1F6, 0xE0), (0x1F2, 1), (0x1F3, lba), (0x1F4, lba >> 8), (0x1F5, 0), (0x1F7, 0x20)):
        m.write("pio", port, 1, value & 0xFF)
    status = m.read("pio", 0x3F6, 1)
    if not status & 8:
        return status, b""
    return status, b"".join(m.read("pio", 0x1F0, 2).to_bytes(2, "little") for _ in range(256))


def pio_write(m: Machine, lba: int, data: bytes) -> int:
    """WRITE SECTORS, and the status after it."""
    for port, value in ((0x1F6, 0xE0), (0x1F2, 1), (0x1F3, lba), (0x1F4, lba >> 8), (0x1F5, 0), (0x1F7, 0x30)):
        m.write("pio", port, 1, value & 0xFF)
    for i in range(0, 512, 2):
        m.write("pio", 0x1F0, 2, int.from_bytes(data[i : i + 2], "little"))
    return int(m.read("pio", 0x3F6, 1))


@here_and_in_a_worker
def test_a_disk_whose_image_becomes_shorter(image: Path, workers: int) -> None:
    """ATA/ATAPI-6, 9.7: ERR for what is gone; what is left, and what the guest wrote, is there."""
    with Machine.from_spec(ide(image), workers=workers) as m:
        assert pio_write(m, 12, SECTOR) & 1 == 0
        os.truncate(image, 4096)
        assert pio_read(m, 9)[0] & 0x09 == 0x01
        assert pio_read(m, 7)[1] == bytes([7]) * 512
        assert pio_read(m, 12)[1] == SECTOR  # in memory, not in the image
        os.truncate(image, 0)
        assert pio_read(m, 7)[0] & 0x09 == 0x01
        assert pio_read(m, 12)[1] == SECTOR
        image.write_bytes(IMAGE)
        assert pio_read(m, 9)[1] == bytes([9]) * 512  # it is whole again
        assert m.read("pio", 0x71, 1) >= 0 and m.inspect()["ide"]


@here_and_in_a_worker
def test_a_disk_whose_image_becomes_longer(image: Path, workers: int) -> None:
    """The disk keeps the size it had: a sector behind its end is none."""
    with Machine.from_spec(ide(image), workers=workers) as m:
        os.truncate(image, 1 << 20)
        assert pio_read(m, 15)[1] == bytes([15]) * 512
        assert pio_read(m, 16)[0] & 0x09 == 0x01


def test_an_image_that_is_removed_or_replaced(image: Path, tmp_path: Path) -> None:
    """The file that was opened stays."""
    with Machine.from_spec(ide(image)) as m:
        other = tmp_path / "other"
        other.write_bytes(bytes(100))
        other.replace(image)
        assert pio_read(m, 9)[1] == bytes([9]) * 512
        image.unlink()
        assert pio_read(m, 10)[1] == bytes([10]) * 512


def test_a_disk_whose_image_takes_no_more(image: Path) -> None:
    """A full disk, here a limit to the size of files: the write fails, the rest is as it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Machine.from_spec(ide(image, write=True)) as m:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            assert pio_write(m, 9, SECTOR) & 1 == 1
            assert pio_write(m, 3, SECTOR) & 1 == 0
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert pio_read(m, 9)[1] == bytes([9]) * 512 and pio_read(m, 3)[1] == SECTOR
    assert image.read_bytes() == IMAGE[: 3 * 512] + SECTOR + IMAGE[4 * 512 :]


def test_a_disk_that_is_written_to_while_its_image_becomes_shorter(image: Path) -> None:
    with Machine.from_spec(ide(image, write=True)) as m:
        os.truncate(image, 1024)
        assert pio_write(m, 9, SECTOR) & 1 == 0  # the file grows to there
        assert pio_read(m, 9)[1] == SECTOR and pio_read(m, 8)[1] == bytes(512) and pio_read(m, 12)[0] & 1


def test_a_disc_whose_image_becomes_shorter(image: Path) -> None:
    """MMC: CHECK CONDITION, and REQUEST SENSE says MEDIUM ERROR, or what the reference says."""

    def packet(*cdb: int) -> int:
        for port, value in ((0x1F6, 0xA0), (0x1F1, 0), (0x1F4, 0xFE), (0x1F5, 0xFF), (0x1F7, 0xA0)):
            m.write("pio", port, 1, value)
        raw = bytes(cdb).ljust(12, b"\0")
        for i in range(0, 12, 2):
            m.write("pio", 0x1F0, 2, int.from_bytes(raw[i : i + 2], "little"))
        return int(m.read("pio", 0x3F6, 1))

    def data(n: int) -> bytes:
        return b"".join(m.read("pio", 0x1F0, 2).to_bytes(2, "little") for _ in range(n // 2))

    with Machine.from_spec(atapi(image)) as m:
        packet(0x03, 0, 0, 0, 18)  # the attention of a fresh drive
        data(18)
        os.truncate(image, 4096)
        assert packet(0x28, 0, 0, 0, 0, 1, 0, 0, 1) & 0x09 == 0x08
        assert data(2048) == IMAGE[2048:4096]
        assert packet(0x28, 0, 0, 0, 0, 3, 0, 0, 1) & 0x09 == 0x01
        assert packet(0x03, 0, 0, 0, 18) & 0x08
        assert data(18)[2] & 0x0F != 0
        assert packet(0x28, 0, 0, 0, 0, 0, 0, 0, 1) & 0x09 == 0x08
        assert data(2048) == IMAGE[:2048]


LIST, FIS, TABLE, DATA = 0x10000, 0x11000, 0x12000, 0x20000
BAR = 0xE0000000


def start_ahci(m: Machine) -> None:
    for register, size, value in ((0x24, 4, BAR), (4, 2, 6)):
        m.write("config", 0xFA << 32 | register, size, value)
    for at, value in ((4, 0x80000000), (0x100, LIST), (0x108, FIS), (0x118, 0x16), (0x118, 0x17), (0x130, 0xFFFFFFFF)):
        m.write("mmio", BAR + at, 4, value)


def ahci_read(m: Machine, fis: bytes, n: int, packet: bytes = b"") -> tuple[int, bytes]:
    """One command by DMA: task file, and n bytes of data."""
    ram = memoryview(m.ram)
    ram[LIST : LIST + 16] = struct.pack("<IIQ", 5 | bool(packet) << 5 | 1 << 16, 0, TABLE)
    ram[TABLE : TABLE + 64] = fis.ljust(64, b"\0")
    ram[TABLE + 64 : TABLE + 80] = packet.ljust(16, b"\0")
    ram[TABLE + 128 : TABLE + 144] = struct.pack("<QII", DATA, 0, n - 1)
    ram[DATA : DATA + n] = bytes(n)
    m.write("mmio", BAR + 0x138, 4, 1)
    m.clock.step(10**6)
    got = int(m.read("mmio", BAR + 0x120, 4)), bytes(ram[DATA : DATA + n])
    if got[0] & 1:  # 6.2.2.1: after an error the port is started again
        for value in (0x16, 0x17):
            m.write("mmio", BAR + 0x118, 4, value)
    return got


@here_and_in_a_worker
def test_a_serial_ata_disk_whose_image_becomes_shorter(image: Path, workers: int) -> None:
    def read(lba: int) -> tuple[int, bytes]:
        return ahci_read(m, bytes([0x27, 0x80, 0xC8, 0, lba, 0, 0, 0xE0, 0, 0, 0, 0, 1]), 512)

    with Machine.from_spec(ahci(image), workers=workers) as m:
        start_ahci(m)
        assert read(9) == (0x50, bytes([9]) * 512)
        os.truncate(image, 4096)
        assert read(9)[0] & 0x01
        assert read(7) == (0x50, bytes([7]) * 512)


def test_a_serial_ata_disc_whose_image_becomes_shorter(image: Path) -> None:
    def read(block: int) -> tuple[int, bytes]:
        cdb = struct.pack(">BBIBHB", 0x28, 0, block, 0, 1, 0)
        return ahci_read(m, bytes([0x27, 0x80, 0xA0, 1, 0, 0, 0, 0]), 2048, cdb)

    with Machine.from_spec(ahci_disc(image)) as m:
        start_ahci(m)
        read(0)  # the attention of a fresh drive
        assert read(3) == (0x50, IMAGE[6144:])
        os.truncate(image, 4096)
        assert read(3)[0] & 0x01
        assert read(1) == (0x50, IMAGE[2048:4096])


def test_a_flash_whose_image_becomes_shorter_or_takes_no_more(image: Path) -> None:
    """It is read at start; what cannot be written is told in the status register (290667, SR.4)."""
    base = 0xFFFFE000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Machine.from_spec(flash(image, write=True)) as m:
        os.truncate(image, 4096)
        assert m.read("mmio", base + 0x1200, 4) == 0x09090909
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            m.write("mmio", base + 0x1200, 1, 0x40)
            m.write("mmio", base + 0x1200, 1, 0x55)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        m.write("mmio", base, 1, 0x70)
        assert m.read("mmio", base, 1) & 0x90 == 0x90
        m.write("mmio", base, 1, 0x50)
        m.write("mmio", base, 1, 0xFF)
        assert m.read("mmio", base, 1) == 0


def test_a_floppy_disk_is_read_at_start(image: Path) -> None:
    with Machine.from_spec(floppy(image)) as m:
        os.truncate(image, 0)
        assert m.call("fdc", "image", 0)[: len(IMAGE)] == IMAGE


# ---------------------------------------------------------------------- content that a trace names


def test_files_that_a_recording_names(tmp_path: Path) -> None:
    """--file: missing, a folder, a pipe, one that cannot be read, one that has become shorter."""
    trace = traces.load(data.trace("boot-pc"))
    whole = (data.FOLDER / "traces" / "boot-sector.img").read_bytes()
    good, short, pipe = tmp_path / "good", tmp_path / "short", tmp_path / "pipe"
    good.write_bytes(whole)
    short.write_bytes(whole[:-1])
    os.mkfifo(pipe)
    assert traces.check_file(trace, "disk", good) == good
    for path, why in (
        (tmp_path / "missing", "no such file"),
        (tmp_path, "no such file"),
        (pipe, "no such file"),
        (Path("/proc/self/mem"), "Input/output error"),
        (short, "is not the recorded"),
    ):
        with pytest.raises(TraceError, match=why) as caught:
            traces.check_file(trace, "disk", path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_firmware_is_told_of_a_disk_by_its_image_alone(tmp_path: Path) -> None:
    """CMOS RAM has the geometry, whichever of the drive's settings are left to their defaults."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(64 << 20))
    told = []
    for drive in (
        {"image": str(image)},
        {"kind": "disk", "image": str(image)},
        {"channel": 0, "unit": 0, "kind": "disk", "size": 64 << 20},
    ):
        with Machine.from_spec(load("i440fx").with_config("ide", drives=[drive])) as m:
            cmos = []
            for register in (0x12, 0x19, *range(0x1B, 0x24)):
                m.write("pio", 0x70, 1, register)
                cmos.append(m.read("pio", 0x71))
            told.append(cmos)
    assert told == [[0xF0, 47, 130, 0, 16, 0xFF, 0xFF, 0xC8, 130, 0, 63]] * 3


def test_a_disk_without_size_and_image_is_refused() -> None:
    with pytest.raises(MachineError, match="drive 0:0: give the size in bytes, or an image"):
        Machine.from_spec(load("i440fx").with_config("ide", drives=[{"kind": "disk"}]))
