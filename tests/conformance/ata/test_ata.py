"""ATA/ATAPI-6 on one IDE channel: registers, resets, identification, disk commands by PIO, SMART."""

import pytest

from engine.devices.piix3_ide import Piix3Ide
from engine.errors import MachineError, StateError
from engine.testing.bus import FakeBus

CMD, CTL = 8, 9
DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS = range(8)
FEATURES, COMMAND = ERROR, STATUS
SIZE = 1 << 20  # 2048 sectors


def ide(*drives):
    return FakeBus(Piix3Ide(drives=list(drives)))


@pytest.fixture
def bus():
    return ide({"size": SIZE}, {"unit": 1, "size": 2 * SIZE}, {"channel": 1, "kind": "cdrom"})


def command(bus, cmd, lba=0, count=1, *, device=0xE0, features=0, lba48=False):
    bus.write(CMD, DEVICE, device | (0 if lba48 else lba >> 24))
    if lba48:
        for reg, value in ((COUNT, count >> 8), (LOW, lba >> 24), (MID, lba >> 32), (HIGH, lba >> 40)):
            bus.write(CMD, reg, value & 0xFF)
    bus.write(CMD, FEATURES, features)
    for reg, value in ((COUNT, count), (LOW, lba), (MID, lba >> 8), (HIGH, lba >> 16)):
        bus.write(CMD, reg, value & 0xFF)
    bus.write(CMD, COMMAND, cmd)
    return bus.read(CTL, 0)


def take(bus, n=512):
    return b"".join(bus.read(CMD, DATA, 2).to_bytes(2, "little") for _ in range(n // 2))


def give(bus, data):
    for i in range(0, len(data), 2):
        bus.write(CMD, DATA, int.from_bytes(data[i : i + 2], "little"), 2)


def words(block):
    return [int.from_bytes(block[i : i + 2], "little") for i in range(0, 512, 2)]


def text(block, word, n):
    raw = block[2 * word : 2 * (word + n)]
    return b"".join(raw[i + 1 : i + 2] + raw[i : i + 1] for i in range(0, len(raw), 2)).decode()


def test_7_both_drives_hear_register_writes_and_the_selected_one_answers(bus):
    bus.write(CMD, LOW, 0x5A)
    bus.write(CMD, DEVICE, 0xB0)
    assert bus.read(CMD, LOW) == 0x5A and bus.read(CMD, DEVICE) == 0xB0
    command(bus, 0x00, device=0xA0)  # aborted by drive 0 alone
    assert bus.read(CMD, ERROR) == 0x04
    bus.write(CMD, DEVICE, 0xB0)
    assert bus.read(CMD, ERROR) == 0


def test_7_word_access_is_two_registers_and_dword_none(bus):
    bus.write(CMD, LOW, 0x3412, 2)
    assert bus.read(CMD, LOW) == 0x12 and bus.read(CMD, MID) == 0x34 and bus.read(CMD, LOW, 2) == 0x3412
    assert bus.read(CMD, LOW, 4) == 0xFFFFFFFF
    assert bus.read(CMD, STATUS, 2) == 0xFF50


def test_7_8_hob_shows_previous_content_until_the_next_write(bus):
    bus.write(CMD, MID, 0x11)
    bus.write(CMD, MID, 0x22)
    bus.write(CTL, 0, 0x80)
    assert bus.read(CMD, MID) == 0x11
    bus.write(CMD, LOW, 0)
    assert bus.read(CMD, MID) == 0x22


def test_7_8_nien_keeps_intrq_negated(bus):
    bus.write(CTL, 0, 0x02)
    command(bus, 0xEC)
    assert not bus.level("irq14")
    bus.write(CTL, 0, 0x08)
    take(bus)
    command(bus, 0xEC)
    assert bus.level("irq14")


def test_7_15_status_acknowledges_alternate_status_does_not(bus):
    command(bus, 0x10)
    assert bus.read(CTL, 0) == 0x50 and bus.level("irq14")
    assert bus.read(CMD, STATUS) == 0x50 and not bus.level("irq14")
    assert [v for _, v in bus.edges("irq14")] == [1, 0]


def test_7_command_block_is_closed_while_drq(bus):
    command(bus, 0xEC)
    bus.write(CMD, DEVICE, 0xB0)
    bus.write(CMD, COMMAND, 0x10)
    assert bus.read(CMD, DEVICE) == 0xE0 and bus.read(CTL, 0) == 0x58


def test_9_2_software_reset_ends_a_transfer_and_leaves_the_signature(bus):
    command(bus, 0xEC, device=0xF0)
    bus.write(CTL, 0, 0x0C)
    bus.write(CTL, 0, 0x08)
    assert [bus.read(CMD, r) for r in range(1, 8)] == [1, 1, 1, 0, 0, 0xA0, 0x50]
    assert bus.read(CMD, DATA, 2) == 0


def test_9_12_signature_of_a_packet_device(bus):
    bus.write(CTL + 2, 0, 0x04)
    assert [bus.read(CMD + 2, r) for r in range(1, 8)] == [1, 1, 1, 0x14, 0xEB, 0xA0, 0]


def test_9_16_absent_drives_read_as_zero():
    bus = ide({"unit": 0, "size": SIZE})
    bus.write(CMD, DEVICE, 0xB0)
    assert bus.read(CMD, STATUS) == 0 and bus.read(CMD, ERROR) == 0
    bus.write(CMD, COMMAND, 0xEC)
    assert bus.read(CTL, 0) == 0 and bus.edges() == []
    assert [bus.read(CMD + 2, r) for r in range(1, 8)] == [0] * 7


def test_8_identify_device_says_what_the_drive_is(bus):
    assert command(bus, 0xEC, device=0xB0) == 0x58
    block = take(bus)
    w = words(block)
    assert bus.read(CMD, STATUS) == 0x50
    assert (text(block, 10, 10), text(block, 23, 4), text(block, 27, 20)) == (
        "QM00002".ljust(20),
        "2.5+    ",
        "QEMU HARDDISK".ljust(40),
    )
    assert w[60] | w[61] << 16 == w[100] | w[101] << 16 == 4096
    assert (w[1], w[3], w[6], w[47], w[59]) == (4, 16, 63, 0x8010, 0x0110)


def test_8_identify_device_has_the_name_rate_and_block_size_that_the_settings_give():
    drive = {"size": SIZE, "wwn": 0x5000_1234_5678_9ABC, "rotation_rate": 7200, "physical_block": 4096}
    plain, named = ide({"size": SIZE}), ide(drive)
    assert command(plain, 0xEC) == command(named, 0xEC) == 0x58
    was, w = words(take(plain)), words(take(named))
    assert [(n, was[n], w[n]) for n in range(256) if was[n] != w[n]] == [
        (84, 0x4000, 0x4100), (87, 0x4000, 0x4100), (106, 0x6000, 0x6003),
        (108, 0, 0x5000), (109, 0, 0x1234), (110, 0, 0x5678), (111, 0, 0x9ABC), (217, 0, 7200),
    ]  # fmt: skip
    for wrong in ({"wwn": 1 << 64}, {"rotation_rate": 65536}, {"physical_block": 1000}):
        with pytest.raises(MachineError):
            ide(drive | wrong)


def test_8_identify_device_is_refused_by_a_packet_device_with_its_signature(bus):
    bus.write(CMD + 2, COMMAND, 0xEC)
    assert [bus.read(CMD + 2, r) for r in (1, 4, 5, 7)] == [0x04, 0x14, 0xEB, 0x41]


def test_8_set_features_transfer_mode_and_write_cache_show_in_identify(bus):
    command(bus, 0xEC)
    take(bus)
    command(bus, 0xEF, features=0x03, count=0x45)
    command(bus, 0xEF, features=0x82)
    command(bus, 0xEC)
    w = words(take(bus))
    assert w[88] == 0x3F | 0x2000 and w[63] == 7 and w[85] == 0x4001
    assert command(bus, 0xEF, features=0x03, count=0x99) == 0x41


def test_8_initialize_device_parameters_changes_the_translation_until_reverted(bus):
    command(bus, 0x91, count=16, device=0xA3)  # 4 heads, 16 sectors
    command(bus, 0xF8, device=0xA0)
    assert [bus.read(CMD, r) for r in (LOW, MID, HIGH, DEVICE)] == [16, 31, 0, 0xA3]
    bus.write(CTL, 0, 4)
    command(bus, 0xF8, device=0xA0)
    assert bus.read(CMD, LOW) == 16
    command(bus, 0xEF, features=0xCC)
    bus.write(CTL, 0, 4)
    command(bus, 0xF8, device=0xA0)
    assert bus.read(CMD, LOW) == 2047 % 63 + 1
    assert command(bus, 0x91, count=0) == 0x41


@pytest.mark.parametrize(("cmd", "lba48"), [(0x30, False), (0x34, True), (0x3C, False)])
def test_9_6_write_sectors_by_pio_and_9_5_read_back(bus, cmd, lba48):
    data = bytes(range(256)) * 4
    assert command(bus, cmd, 2046, 2, device=0x40 if lba48 else 0xE0, lba48=lba48) == 0x58
    assert not bus.level("irq14")  # no interrupt asks for the first block
    give(bus, data[:512])
    assert bus.level("irq14") and bus.read(CMD, STATUS) == 0x58
    give(bus, data[512:])
    assert bus.read(CMD, STATUS) == 0x50 and bus.read(CMD, COUNT) == 0
    assert command(bus, 0x20, 2046, 2) == 0x58
    assert take(bus) == data[:512] and bus.content
    assert bus.read(CMD, STATUS) == 0x58
    assert take(bus) == data[512:] and bus.read(CMD, STATUS) == 0x50
    assert bus.dut.written_sectors() == {"0:0 2046": data}


def test_6_chs_and_lba_name_the_same_sector(bus):
    command(bus, 0x30, 1 * 16 * 63 + 2 * 63 + 4)
    give(bus, b"\xa5" * 512)
    bus.write(CMD, DEVICE, 0xA2)
    for reg, value in ((COUNT, 1), (LOW, 5), (MID, 1), (HIGH, 0)):
        bus.write(CMD, reg, value)
    bus.write(CMD, COMMAND, 0x20)
    assert take(bus) == b"\xa5" * 512


def test_8_read_multiple_moves_a_block_for_one_interrupt(bus):
    assert command(bus, 0xC6, count=3) == 0x41
    command(bus, 0xC6, count=4)
    bus.read(CMD, STATUS)
    bus.take()
    command(bus, 0xC4, 0, 6)
    for n in (4, 2):
        assert bus.read(CMD, STATUS) == 0x58
        take(bus, 512 * n)
    assert bus.read(CMD, STATUS) == 0x50
    assert [v for _, v in bus.edges("irq14")] == [1, 0, 1, 0]


def test_8_addresses_beyond_the_end_are_refused(bus):
    assert command(bus, 0x20, 2048) == 0x41 and bus.read(CMD, ERROR) == 0x04
    assert command(bus, 0xC4, 2047, 2) == 0x41
    command(bus, 0x30, 2048)
    give(bus, bytes(512))
    assert bus.read(CMD, STATUS) == 0x41 and bus.dut.written_sectors() == {}


def test_8_count_zero_is_256_sectors(bus):
    command(bus, 0x20, 0, 0)
    blocks = 0
    while bus.read(CMD, STATUS) & 8:
        take(bus)
        blocks += 1
    assert blocks == 256


def test_7_6_data_port_widths(bus):
    command(bus, 0xEC)
    first = bus.read(CMD, DATA, 1)  # a byte access takes a word
    assert (first, bus.read(CMD, DATA, 2)) == (0x40, 2)
    assert bus.read(CMD, DATA, 4) == 16 << 16
    assert not bus.content
    take(bus, 512 - 8 - 2)
    assert bus.read(CMD, DATA, 4) == 0 and bus.read(CTL, 0) == 0x58  # half of it is left: nothing moves
    bus.read(CMD, DATA, 2)
    assert bus.read(CTL, 0) == 0x50


@pytest.mark.parametrize("cmd", [0x00, 0x03, 0x08, 0x11, 0x38, 0x87, 0xA0, 0xA1, 0xC0, 0xF1])
def test_8_commands_a_disk_has_not_are_aborted(bus, cmd):
    assert command(bus, cmd) == 0x41 and bus.read(CMD, ERROR) == 0x04 and bus.level("irq14")


@pytest.mark.parametrize(
    ("cmd", "status"), [(0xE0, 0x40), (0xE1, 0x40), (0xE6, 0x40), (0xE7, 0x50), (0xEA, 0x50), (0x70, 0x50)]
)
def test_8_non_data_commands(bus, cmd, status):
    assert command(bus, cmd) == status


def test_8_smart_data_sums_to_zero_and_counts_self_tests(bus):
    key = 0xC24F00
    assert command(bus, 0xB0, features=0xD0) == 0x41  # without the key
    command(bus, 0xB0, key | 1, features=0xD4)
    for features, low in ((0xD0, 0), (0xD1, 0), (0xD5, 1), (0xD5, 6)):
        assert command(bus, 0xB0, key | low, features=features) == 0x58
        block = take(bus)
        assert sum(block) % 256 == 0 and block[0] == 1
    assert block[508] == 1 and block[2:6] == b"\x01\x00\x34\x12"
    command(bus, 0xB0, key, features=0xD9)
    assert command(bus, 0xB0, key, features=0xDA) == 0x41


def test_learning_keeps_sectors_and_only_sectors(bus):
    command(bus, 0xEC)
    bus.learn(CMD, DATA, 0x1234, 2)
    take(bus, 510)
    command(bus, 0x20, 7)
    got = [bus.learn(CMD, DATA, n, 2) for n in range(256)]
    assert got == list(range(256)) and bus.content
    contents = bus.dut.contents()
    assert list(contents) == ["0:0 7"] and contents["0:0 7"][2:4] == b"\x01\x00"
    other = ide({"size": SIZE})
    other.dut.set_contents(contents)
    command(other, 0x20, 7)
    assert take(other) == contents["0:0 7"]
    with pytest.raises(StateError):
        other.dut.set_contents({"1:1 0": bytes(512)})
    with pytest.raises(StateError):
        other.dut.set_contents({"0:0 2048": bytes(512)})


def test_what_the_guest_wrote_is_not_learnt(bus):
    command(bus, 0x30, 3)
    give(bus, b"\x11" * 512)
    command(bus, 0x20, 3)
    assert bus.learn(CMD, DATA, 0x2222, 2) == 0x1111
    assert bus.dut.contents() == {}


def test_image_is_read_and_left_alone(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes([1]) * 512 + bytes([2]) * 700)
    bus = ide({"image": str(image)})
    command(bus, 0x20, 2)
    assert take(bus) == bytes([2]) * 188 + bytes(324)  # the last sector is filled up
    command(bus, 0x30, 0)
    give(bus, b"\x77" * 512)
    command(bus, 0x20, 0)
    assert take(bus) == b"\x77" * 512
    assert image.read_bytes()[:512] == bytes([1]) * 512
    with pytest.raises(StateError):
        bus.dut.set_contents({"0:0 0": bytes(512)})


def test_image_opened_for_writing_is_written(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1024))
    bus = ide({"image": str(image), "write": True})
    command(bus, 0x30, 1)
    give(bus, b"\x77" * 512)
    assert command(bus, 0xE7) == 0x50
    assert image.read_bytes() == bytes(512) + b"\x77" * 512


def test_medium_error_while_running_reaches_the_guest(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    bus = ide({"image": str(image)})
    with image.open("r+b") as f:
        f.truncate(1024)
    assert command(bus, 0x20, 1) == 0x58
    take(bus)
    assert command(bus, 0x20, 4) == 0x41 and bus.read(CMD, ERROR) == 0x04
    readonly = ide({"image": str(image), "readonly": True})
    command(readonly, 0x30, 0)
    give(readonly, bytes(512))
    assert readonly.read(CMD, STATUS) == 0x41


def test_partition_table_gives_the_default_translation(tmp_path):
    sector = bytearray(512)
    sector[510:] = b"\x55\xaa"
    sector[446:462] = bytes([0x80, 1, 1, 0, 0x83, 7, 17, 2, 17, 0, 0, 0, 100, 0, 0, 0])
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(sector) + bytes(512 * 999))
    bus = ide({"image": str(image)})
    command(bus, 0xEC)
    w = words(take(bus))
    assert [w[i] for i in (1, 3, 6)] == [7, 8, 17]


@pytest.mark.parametrize(
    "drive",
    [
        {},
        {"size": 0},
        {"size": -512},
        {"size": SIZE, "kind": "tape"},
        {"size": SIZE, "unit": 2},
        {"size": "1M"},
        {"image": "/no/such"},
        {"image": "/"},
        {"size": SIZE, "write": True},
        {"size": SIZE, "serial": "x" * 21},
        {"size": SIZE, "speed": 3},
        {"size": SIZE, "chs": [1, 17, 63]},
        {"kind": "cdrom", "image": "/dev/null"},
    ],
)
def test_drives_that_cannot_be_are_refused_with_one_line(drive):
    with pytest.raises(MachineError) as e:
        Piix3Ide(drives=[drive])
    assert "\n" not in str(e.value) and "'ide'" in str(e.value)


def test_short_image_and_two_drives_in_one_place(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(512))
    with pytest.raises(MachineError, match="has 512 bytes, size says 1024"):
        Piix3Ide(drives=[{"image": str(image), "size": 1024}])
    with pytest.raises(MachineError, match="two drives"):
        Piix3Ide(drives=[{"size": SIZE}, {"size": SIZE}])


def test_save_in_the_middle_of_a_sector_and_restore(bus):
    command(bus, 0x30, 5)
    give(bus, bytes(range(256)) * 2)
    command(bus, 0x20, 5, 2)
    head = take(bus, 100)
    state, written = bus.dut.save(), bus.dut.written_sectors()
    other = ide({"size": SIZE}, {"unit": 1, "size": 2 * SIZE}, {"channel": 1, "kind": "cdrom"})
    other.dut.restore(state)
    other.dut.set_written_sectors(written)
    assert head + take(other, 412) == bytes(range(256)) * 2
    assert other.read(CTL, 0) == 0x58 and take(other) == bytes(512) and other.read(CMD, STATUS) == 0x50
    assert other.level("irq14") is False and bus.dut.save() == state


def test_9_1_bus_reset_returns_the_registers_and_keeps_the_medium(bus):
    command(bus, 0x30, 5)
    give(bus, b"\x01" * 512)
    command(bus, 0xC6, count=2)
    bus.reset(1)
    assert [bus.read(CMD, r) for r in range(1, 8)] == [0, 1, 1, 0, 0, 0xA0, 0x50]
    assert not bus.level("irq14")
    assert bus.dut.written_sectors() == {"0:0 5": b"\x01" * 512}
