"""Packet commands of the CD-ROM drive: ATA/ATAPI-6 9.8, MMC-5."""

import pytest

from engine.devices.piix3_ide import Piix3Ide
from engine.testing.bus import FakeBus

CMD, CTL = 10, 11
DATA, ERROR, REASON, LOW, MID, HIGH, DEVICE, STATUS = range(8)
TOTAL = 300  # sectors of 2048 bytes


@pytest.fixture
def bus(tmp_path):
    image = tmp_path / "disc.iso"
    image.write_bytes(b"".join(bytes([n & 0xFF]) * 2048 for n in range(TOTAL)))
    return FakeBus(
        Piix3Ide(
            drives=[{"channel": 1, "kind": "cdrom", "image": str(image)}, {"channel": 1, "unit": 1, "kind": "cdrom"}]
        )
    )


def packet(bus, cdb, limit=0xFFFE, *, device=0xA0, features=0):
    bus.write(CMD, DEVICE, device)
    bus.write(CMD, ERROR, features)
    bus.write(CMD, MID, limit & 0xFF)
    bus.write(CMD, HIGH, limit >> 8)
    bus.write(CMD, STATUS, 0xA0)
    for i in range(0, 12, 2):
        bus.write(CMD, DATA, int.from_bytes(bytes(cdb).ljust(12, b"\0")[i : i + 2], "little"), 2)
    return bus.read(CTL, 0)


def announced(bus):
    return bus.read(CMD, MID) | bus.read(CMD, HIGH) << 8


def take(bus, n):
    return b"".join(bus.read(CMD, DATA, 2).to_bytes(2, "little") for _ in range(n // 2))


def reply(bus, cdb, limit=0xFFFE, **kw):
    assert packet(bus, cdb, limit, **kw) == 0x58
    out = b""
    while bus.read(CMD, STATUS) & 8:
        assert bus.read(CMD, REASON) & 7 == 2
        out += take(bus, announced(bus))
    assert bus.read(CTL, 0) == 0x50 and bus.read(CMD, REASON) & 7 == 3
    return out


def sense(bus, device=0xA0):
    block = reply(bus, [3, 0, 0, 0, 18], device=device)
    return block[2], block[12]


def test_9_8_packet_is_asked_for_without_an_interrupt(bus):
    bus.write(CMD, STATUS, 0xA0)
    assert bus.read(CTL, 0) == 0x58 and bus.read(CMD, REASON) & 7 == 1 and not bus.level("irq15")


def test_overlap_is_refused(bus):
    bus.write(CMD, ERROR, 2)
    bus.write(CMD, STATUS, 0xA0)
    assert bus.read(CTL, 0) == 0x41


def test_9_8_byte_count_limit_cuts_the_reply(bus):
    packet(bus, [0x28, 0, 0, 0, 0, 2, 0, 0, 2], 1000)
    sizes = []
    out = b""
    while bus.read(CTL, 0) & 8:
        assert bus.level("irq15")
        assert bus.read(CMD, STATUS) == 0x58 and not bus.level("irq15")
        sizes.append(announced(bus))
        out += take(bus, sizes[-1])
        assert bus.content
    assert sizes == [1000] * 4 + [96]
    assert out == b"\x02" * 2048 + b"\x03" * 2048
    assert bus.level("irq15")


def test_9_8_odd_limit_is_made_even_and_ffff_is_fffe(bus):
    packet(bus, [0x28, 0, 0, 0, 0, 0, 0, 0, 40], 0x0801)
    assert announced(bus) == 0x800
    bus.write(CMD, STATUS, 0x08)
    packet(bus, [0x28, 0, 0, 0, 0, 0, 0, 0, 40], 0xFFFF)
    assert announced(bus) == 0xFFFE


def test_no_limit_ends_a_data_command_but_no_other(bus):
    assert packet(bus, [0x12, 0, 0, 0, 36], 0) == 0x41 and bus.read(CMD, ERROR) == 4
    assert packet(bus, [0x00], 0) == 0x50


def test_device_reset_works_in_the_middle(bus):
    packet(bus, [0x28, 0, 0, 0, 0, 0, 0, 0, 1])
    bus.write(CMD, STATUS, 0x08)
    assert [bus.read(CMD, r) for r in range(1, 8)] == [0, 1, 1, 0x14, 0xEB, 0xA0, 0]
    assert packet(bus, [0x00]) == 0x50


def test_identify_packet_device(bus):
    bus.write(CMD, STATUS, 0xA1)
    block = take(bus, 512)
    assert block[:2] == b"\xc0\x85" and block[54:66] == b"EQUMD DVR-MO" and not bus.content


def test_drive_without_a_medium_says_so(bus):
    for op in (0x00, 0x25, 0x28, 0x2B, 0x43, 0x51, 0xA8, 0xAD, 0xBE):
        assert packet(bus, [op], device=0xB0) == 0x41
        assert bus.read(CMD, ERROR) == 0x20
    assert sense(bus, 0xB0) == (2, 0x3A)
    assert reply(bus, [0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8], device=0xB0) == bytes([0, 4, 4, 0x10, 0, 0, 0, 0])


def test_inquiry_and_capacity(bus):
    assert reply(bus, [0x12, 0, 0, 0, 36]) == b"\x05\x80\x00\x21\x1f\0\0\0QEMU    QEMU DVD-ROM    2.5+"
    assert reply(bus, [0x12, 0, 0, 0, 8]) == b"\x05\x80\x00\x21\x1f\0\0\0"
    assert reply(bus, [0x25]) == (TOTAL - 1).to_bytes(4, "big") + bytes([0, 0, 8, 0])


def test_vital_product_data_pages_are_listed_and_others_refused(bus):  # SPC-3, 6.4.1, 7.6
    assert reply(bus, [0x12, 1, 0, 0, 36]) == bytes([5, 0, 0, 2, 0, 0x83])
    assert reply(bus, [0x12, 1, 0, 0, 4]) == bytes([5, 0, 0, 2])
    for page in (0x80, 0xB0, 0xB1):
        assert packet(bus, [0x12, 1, page, 0, 36]) == 0x41 and sense(bus) == (5, 0x24)
    assert (
        reply(bus, [0x12, 0, 0x83, 0, 4]) == b"\x05\x80\x00\x21"
    )  # a page without the bit: the reference's standard data


def test_device_identification_page_has_the_designators_there_is_room_for():  # SPC-3, 7.6.3
    drive = {"channel": 1, "kind": "cdrom", "serial": "S/N 42", "model": "A DRIVE", "wwn": 0x5000_1234_5678_9ABC}
    bus = FakeBus(Piix3Ide(drives=[drive, {"channel": 1, "unit": 1, "kind": "cdrom"}]))
    serial = b"\x02\0\0\x14" + b"S/N 42".ljust(20)
    both = b"\x02\x01\0\x44" + b"ATA".ljust(8) + b"A DRIVE".ljust(40) + b"S/N 42".ljust(20)
    wwn = b"\x01\x03\0\x08" + bytes.fromhex("5000123456789abc")
    assert packet(bus, [0x12, 1, 0x83, 0, 27]) == 0x41 and sense(bus) == (5, 0x4B)
    assert reply(bus, [0x12, 1, 0x83, 0, 99]) == b"\x05\x83\0\x18" + serial
    assert reply(bus, [0x12, 1, 0x83, 0, 111]) == b"\x05\x83\0\x60" + serial + both
    assert reply(bus, [0x12, 1, 0x83, 0, 255]) == b"\x05\x83\0\x6c" + serial + both + wwn
    assert len(reply(bus, [0x12, 1, 0x83, 0, 255], device=0xB0)) == 100  # a drive without such a name


def test_read_addresses_are_checked(bus):
    for cdb in (
        [0x28, 0, 0, 0, 1, 44, 0, 0, 1],
        [0xA8, 0, 0, 0, 1, 43, 0, 0, 0, 2],
        [0xA8, 0, 0, 0, 0, 1, 255, 255, 255, 255],
        [0x2B, 0, 0, 0, 1, 44],
    ):
        assert packet(bus, cdb) == 0x41
        assert sense(bus) == (5, 0x21)
    assert packet(bus, [0x28, 0, 0, 0, 9, 9, 0, 0, 0]) == 0x50  # no sectors: nothing to check


def test_read_cd_with_all_fields(bus):
    block = reply(bus, [0xBE, 0, 0, 0, 0, 7, 0, 0, 1, 0xF8])
    assert len(block) == 2352
    assert block[:16] == b"\0" + b"\xff" * 10 + b"\0" + bytes([0, 2, 7, 1])
    assert block[16:2064] == b"\x07" * 2048 and block[2064:] == bytes(288)
    assert packet(bus, [0xBE, 0, 0, 0, 0, 7, 0, 0, 1, 0]) == 0x50
    assert packet(bus, [0xBE, 0, 0, 0, 0, 7, 0, 0, 1, 0x20]) == 0x41


def test_only_data_of_a_raw_sector_is_content(bus):
    packet(bus, [0xBE, 0, 0, 0, 0, 7, 0, 0, 1, 0xF8])
    flags = []
    for _ in range(1176):
        bus.read(CMD, DATA, 2)
        flags.append(bus.content)
    assert flags == [False] * 8 + [True] * 1024 + [False] * 144


def test_toc_in_three_formats(bus):
    assert reply(bus, [0x43, 0, 0, 0, 0, 0, 0, 0, 20]) == bytes(
        [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x16, 0xAA, 0, 0, 0, 1, 44]
    )
    assert reply(bus, [0x43, 2, 0, 0, 0, 0, 0xAA, 0, 12]) == bytes([0, 10, 1, 1, 0, 0x16, 0xAA, 0, 0, 0, 6, 0])
    assert reply(bus, [0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40]) == bytes([0, 10, 1, 1]) + bytes(8)
    assert len(reply(bus, [0x43, 0, 0, 0, 0, 0, 0, 0, 254, 0x80])) == 48
    assert packet(bus, [0x43, 0, 0, 0, 0, 0, 2, 0, 20]) == 0x41
    assert packet(bus, [0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0xC0]) == 0x41


def test_lock_eject_and_load(bus):
    packet(bus, [0x1E, 0, 0, 0, 1])
    assert reply(bus, [0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 30])[14] == 0x2B
    assert packet(bus, [0x1B, 0, 0, 0, 2]) == 0x41 and sense(bus) == (2, 0x53)
    packet(bus, [0x1E])
    assert packet(bus, [0x1B, 0, 0, 0, 2]) == 0x50
    assert packet(bus, [0x00]) == 0x41 and sense(bus) == (2, 0x3A)
    assert reply(bus, [0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8])[5] == 1
    assert packet(bus, [0x1B, 0, 0, 0, 3]) == 0x50 and packet(bus, [0x00]) == 0x50


def test_mode_sense_pages_and_refusals(bus):
    assert reply(bus, [0x5A, 0, 0x01, 0, 0, 0, 0, 0, 16]) == bytes([0, 14, 0x70, 0, 0, 0, 0, 0, 1, 6, 0, 5, 0, 0, 0, 0])
    assert packet(bus, [0x5A, 0, 0xC1, 0, 0, 0, 0, 0, 16]) == 0x41 and sense(bus) == (5, 0x39)
    assert packet(bus, [0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 16]) == 0x41 and sense(bus) == (5, 0x24)


def test_other_replies(bus):
    conf = reply(bus, [0x46, 0, 0, 0, 0, 0, 0, 0, 20])
    assert conf[:12] == bytes([0, 0, 0, 16, 0, 0, 0, 8, 0, 0, 3, 8]) and conf[16:19] == b"\x00\x08\x01"
    assert reply(bus, [0x51, 0, 0, 0, 0, 0, 0, 0, 34])[:8] == bytes([0, 32, 0x0E, 1, 1, 1, 1, 0x20])
    assert reply(bus, [0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 8]) == bytes([0, 0, 0, 0, 0, 1, 0, 0])
    assert packet(bus, [0xAD]) == 0x41 and sense(bus) == (5, 0x30)
    assert packet(bus, [0x55]) == 0x41 and sense(bus) == (5, 0x20)


def test_disc_whose_image_is_learnt():
    drive = {"channel": 1, "kind": "cdrom", "size": TOTAL * 2048}
    bus = FakeBus(Piix3Ide(drives=[drive]))
    packet(bus, [0x28, 0, 0, 0, 0, 9, 0, 0, 1], 2048)
    for n in range(1024):
        assert bus.learn(CMD, DATA, n, 2) == n
    contents = bus.dut.contents()
    assert list(contents) == ["1:0 36"] and len(contents["1:0 36"]) == 2048
    again = FakeBus(Piix3Ide(drives=[drive]))
    again.dut.set_contents(contents)
    assert reply(again, [0x28, 0, 0, 0, 0, 9, 0, 0, 1], 2048) == contents["1:0 36"]
    assert reply(again, [0x28, 0, 0, 0, 0, 10, 0, 0, 1], 2048) == bytes(2048)
