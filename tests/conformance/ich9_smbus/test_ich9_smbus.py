"""ICH9 data sheet 316972-004, chapter 20: what differs from PIIX4, which has the tests of transactions."""

import pytest

from engine.devices.ich9_smbus import Ich9Smbus
from engine.errors import MachineError
from engine.testing.bus import FakeBus

CONFIG, SMB = 7, 4
HOSTC, SMB_BASE = 0x40, 0x20
STS, CNT, CMD, ADDR, D0, D1, BLOCK, AUX = 0, 2, 3, 4, 5, 6, 7, 0x0D
START, INTREN, BYTE_DATA, BLOCK_DATA = 0x40, 0x01, 0x08, 0x14


@pytest.fixture
def bus():
    return FakeBus(Ich9Smbus(spd="00112233445566778899aabbccddeeff" * 2))


def maps(bus):
    return [(e.pin, e.addr, e.value) for e in bus.take() if e.kind == "map"]


def read_byte(bus, address, control=0):
    bus.write(SMB, ADDR, 0xA1)
    bus.write(SMB, CMD, address)
    bus.write(SMB, CNT, START | BYTE_DATA | control)
    bus.read(SMB, STS)
    return bus.read(SMB, D0)


def test_identity(bus):
    assert bus.dut.identity() == (0x8086, 0x2930, 0x02, 0x0C0500, 0x1AF4, 0x1100)
    assert bus.read(CONFIG, 0x3D) == 1 and bus.read(CONFIG, 0x0E) == 0x80


def test_20_1_hst_en_gates_the_base_address(bus):
    bus.write(CONFIG, 4, 1, 2)
    bus.write(CONFIG, SMB_BASE, 0xB101, 4)
    assert maps(bus) == [(SMB, 1, 0xB100)]  # before HOSTC is first written the registers answer
    bus.write(CONFIG, HOSTC, 0x00)
    assert maps(bus) == [(SMB, 0, 0)]
    bus.write(CONFIG, HOSTC, 0x01)
    assert maps(bus) == [(SMB, 1, 0xB100)]


def test_20_1_ssreset_reads_as_zero_and_clears_the_status(bus):
    read_byte(bus, 0)
    assert bus.read(SMB, STS) == 0x02
    bus.write(CONFIG, HOSTC, 0x09)
    assert bus.read(CONFIG, HOSTC) == 0x01 and bus.read(SMB, STS) == 0


def test_20_2_byte_data_from_an_eeprom(bus):
    assert [read_byte(bus, n) for n in (0x01, 0x0F, 0x20)] == [0x11, 0xFF, 0x00]


def test_20_2_interrupt_is_inta(bus):
    read_byte(bus, 1, INTREN)
    assert bus.level("inta") and bus.read(CONFIG, 6) & 0x08
    bus.write(SMB, STS, 0xFF)
    assert not bus.level("inta")
    bus.write(SMB, STS, 0xFF)
    assert len(bus.edges("inta")) == 2


def test_20_2_interrupt_falls_with_the_next_access_after_ssreset(bus):
    read_byte(bus, 1, INTREN)
    bus.write(CONFIG, HOSTC, 0x09)
    assert bus.level("inta")
    bus.read(SMB, AUX)
    assert not bus.level("inta")


def test_20_2_12_the_buffer_is_off_after_power_on(bus):
    assert bus.read(SMB, AUX) == 0


def test_20_1_i2c_en_block_reads_go_without_command_and_count(bus):
    bus.write(CONFIG, HOSTC, 0x05)
    read_byte(bus, 0x03)  # the EEPROM's address counter is at 4 now
    bus.write(SMB, STS, 0xFF)
    bus.write(SMB, AUX, 0x02)
    bus.write(SMB, ADDR, 0xA1)
    bus.write(SMB, CNT, START | BLOCK_DATA)
    bus.read(SMB, STS)
    assert bus.read(SMB, D0) == 32
    assert [bus.read(SMB, BLOCK) for _ in range(4)] == [0x44, 0x55, 0x66, 0x77]


def test_20_1_i2c_en_block_writes_go_without_count(bus):
    def write_block():
        bus.write(SMB, STS, 0xFF)
        bus.write(SMB, AUX, 0x02)
        bus.read(SMB, CNT)
        bus.write(SMB, ADDR, 0xA0)
        bus.write(SMB, CMD, 0x40)
        bus.write(SMB, D0, 2)
        bus.write(SMB, BLOCK, 0xAB)
        bus.write(SMB, BLOCK, 0xCD)
        bus.write(SMB, CNT, START | BLOCK_DATA)
        bus.read(SMB, STS)
        bus.write(SMB, STS, 0xFF)
        return [read_byte(bus, 0x40 + n) for n in range(3)]

    assert write_block() == [0x02, 0xAB, 0xCD]
    bus.write(CONFIG, HOSTC, 0x05)
    assert write_block() == [0xAB, 0xCD, 0xCD]


def test_reset_keeps_hostc_and_the_registers(bus):
    bus.write(CONFIG, 4, 1, 2)
    bus.write(CONFIG, SMB_BASE, 0xB101, 4)
    bus.write(CONFIG, HOSTC, 0x01)
    read_byte(bus, 1, INTREN)
    bus.take()
    bus.reset(1)
    assert not bus.level("inta") and (SMB, 0, 0) in maps(bus)
    assert bus.read(CONFIG, HOSTC) == 1 and bus.read(SMB, ADDR) == 0xA1
    bus.reset(0)
    assert bus.read(CONFIG, HOSTC) == 0 and bus.read(SMB, ADDR) == 0


def test_restore_makes_no_effect(bus):
    read_byte(bus, 1, INTREN)
    other = FakeBus(Ich9Smbus())
    other.dut.restore(bus.dut.save())
    assert other.take() == [] and other.level("inta") and other.read(SMB, D0) == 0x11


@pytest.mark.parametrize(
    ("config", "message"),
    [({"eeproms": 9}, "room for 8"), ({"spd": "xy"}, "spd"), ({"eeproms": 0, "spd": "00"}, "do not fit")],
)
def test_settings_are_checked(config, message):
    with pytest.raises(MachineError, match=message):
        Ich9Smbus(**config)
