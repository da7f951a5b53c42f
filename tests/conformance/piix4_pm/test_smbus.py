"""SMBus host controller, 290562-001 7.3 and 316972-004 20.2, with the protocols of SMBus 2.0 5.5 on serial EEPROMs."""

import pytest

from engine.devices.piix4_pm import Piix4Pm
from engine.testing.bus import FakeBus

SMBUS = 13
STS, CNT, CMD, ADD, DAT0, DAT1, BLK, AUX = 0, 2, 3, 4, 5, 6, 7, 13
BUSY, INTR, DEV_ERR, FAILED, BYTE_DONE = 0x01, 0x02, 0x04, 0x10, 0x80
QUICK, BYTE, BYTE_DATA, WORD_DATA, PROC_CALL, BLOCK, I2C_READ = (n << 2 for n in range(7))
INTREN, KILL, LAST_BYTE, START = 0x01, 0x02, 0x20, 0x40
SPD = bytes(range(0x80, 0x100)) + bytes(0x80) + bytes([0xE1, 0xE2])


@pytest.fixture
def bus():
    return FakeBus(Piix4Pm(spd=SPD.hex(), eeproms=2))


def go(bus, protocol, addr, **registers):
    """Fill registers, run a transaction, give the status, which is then cleared."""
    bus.write(SMBUS, ADD, addr)
    for name, value in registers.items():
        bus.write(SMBUS, {"cmd": CMD, "dat0": DAT0, "dat1": DAT1}[name], value)
    bus.write(SMBUS, CNT, START | INTREN | protocol)
    sts = bus.read(SMBUS, STS)
    bus.write(SMBUS, STS, 0x7E)
    return sts


@pytest.mark.parametrize("protocol", [QUICK, BYTE, BYTE_DATA, WORD_DATA, BLOCK])
def test_nobody_acknowledges_an_empty_address(bus, protocol):
    assert go(bus, protocol, 0xA5) == DEV_ERR
    assert go(bus, protocol, 0x31) == DEV_ERR


def test_5_5_1_quick_command(bus):
    assert go(bus, QUICK, 0xA0) == INTR and go(bus, QUICK, 0xA1) == INTR


def test_5_5_2_send_byte_sets_the_address_counter_and_5_5_3_receive_byte_moves_it(bus):
    assert go(bus, BYTE, 0xA0, cmd=0x10) == INTR
    for n in range(3):
        assert go(bus, BYTE, 0xA1) == INTR and bus.read(SMBUS, DAT0) == 0x90 + n


def test_5_5_4_write_byte_and_5_5_5_read_byte(bus):
    assert go(bus, BYTE_DATA, 0xA3, cmd=1) == INTR and bus.read(SMBUS, DAT0) == 0xE2
    assert go(bus, BYTE_DATA, 0xA2, cmd=1, dat0=0x5A) == INTR
    bus.write(SMBUS, DAT0, 0)
    assert go(bus, BYTE_DATA, 0xA3, cmd=1) == INTR and bus.read(SMBUS, DAT0) == 0x5A


def test_5_5_4_write_word_and_5_5_5_read_word(bus):
    assert go(bus, WORD_DATA, 0xA0, cmd=0xFF, dat0=0x11, dat1=0x22) == INTR  # the counter wraps
    assert go(bus, WORD_DATA, 0xA1, cmd=0xFF) == INTR
    assert (bus.read(SMBUS, DAT0), bus.read(SMBUS, DAT1)) == (0x11, 0x22)
    assert go(bus, BYTE_DATA, 0xA1, cmd=0x00) == INTR and bus.read(SMBUS, DAT0) == 0x22


def test_5_5_6_process_call_is_refused(bus):
    assert go(bus, PROC_CALL, 0xA0) == DEV_ERR


def test_5_5_7_block_write_and_read_by_the_32_byte_buffer(bus):
    assert bus.read(SMBUS, AUX) == 0x02
    bus.write(SMBUS, DAT0, 4)
    for value in (1, 2, 3, 4):
        bus.write(SMBUS, BLK, value)
    assert go(bus, BLOCK, 0xA0, cmd=0x40) == INTR
    assert go(bus, BLOCK, 0xA1, cmd=0x40) == INTR  # the count, 4, was stored before the bytes
    assert bus.read(SMBUS, DAT0) == 4 and [bus.read(SMBUS, BLK) for _ in range(4)] == [1, 2, 3, 4]


def test_5_5_7_block_write_needs_as_many_bytes_as_it_counts(bus):
    bus.write(SMBUS, DAT0, 4)
    bus.write(SMBUS, BLK, 1)
    assert go(bus, BLOCK, 0xA0, cmd=0x40) == DEV_ERR


def test_5_5_7_block_read_byte_by_byte(bus):
    bus.write(SMBUS, AUX, 0)
    for n, value in enumerate((3, 0xA, 0xB, 0xC)):
        go(bus, BYTE_DATA, 0xA0, cmd=0x40 + n, dat0=value)
    assert go(bus, BLOCK, 0xA1, cmd=0x40) == BUSY | BYTE_DONE and bus.read(SMBUS, DAT0) == 3
    assert bus.read(SMBUS, BLK) == 0xA
    bus.write(SMBUS, STS, BYTE_DONE)
    assert bus.read(SMBUS, STS) == BUSY | BYTE_DONE and bus.read(SMBUS, BLK) == 0xB
    bus.write(SMBUS, CNT, BLOCK | INTREN | LAST_BYTE)
    bus.write(SMBUS, STS, BYTE_DONE)
    assert bus.read(SMBUS, STS) == INTR and bus.read(SMBUS, BLK) == 0xC


def test_5_5_7_block_write_byte_by_byte(bus):
    bus.write(SMBUS, AUX, 0)
    bus.write(SMBUS, BLK, 0x1A)
    assert go(bus, BLOCK, 0xA0, cmd=0x20, dat0=2) == BUSY | BYTE_DONE
    bus.write(SMBUS, BLK, 0x1B)
    bus.write(SMBUS, STS, BYTE_DONE)
    assert bus.read(SMBUS, STS) == BUSY | BYTE_DONE
    bus.write(SMBUS, STS, BYTE_DONE)
    assert bus.read(SMBUS, STS) == INTR
    bus.write(SMBUS, STS, INTR)
    for n, value in enumerate((2, 0x1A, 0x1B)):
        assert go(bus, BYTE_DATA, 0xA1, cmd=0x20 + n) == INTR and bus.read(SMBUS, DAT0) == value


def test_i2c_read_delivers_until_the_last_byte(bus):
    assert go(bus, I2C_READ, 0xA0, dat1=0x20) == BUSY | BYTE_DONE
    assert bus.read(SMBUS, BLK) == 0xA0
    bus.write(SMBUS, STS, BYTE_DONE)
    assert bus.read(SMBUS, BLK) == 0xA1
    bus.write(SMBUS, CNT, I2C_READ | LAST_BYTE)
    bus.write(SMBUS, STS, BYTE_DONE)
    assert bus.read(SMBUS, STS) == INTR
    assert bus.dut.inspect()["smb_i2c_read"] == 0 and bus.dut.inspect()["smb_selected"] == 0


def test_i2c_read_is_abandoned_by_the_next_start(bus):
    go(bus, I2C_READ, 0xA2, dat1=0)
    assert go(bus, BYTE_DATA, 0xA1, cmd=0) & INTR and bus.read(SMBUS, DAT0) == 0x80


def test_general_call_writes_everyone_and_reads_ones(bus):
    assert go(bus, BYTE_DATA, 0x00, cmd=5, dat0=0x77) == INTR
    for addr in (0xA1, 0xA3):
        assert go(bus, BYTE_DATA, addr, cmd=5) == INTR and bus.read(SMBUS, DAT0) == 0x77
    assert go(bus, BYTE, 0x01) == INTR and bus.read(SMBUS, DAT0) == 0xFF


def test_polled_transaction_shows_busy_once(bus):
    bus.write(SMBUS, ADD, 0xA1)
    bus.write(SMBUS, CMD, 3)
    bus.write(SMBUS, CNT, START | BYTE_DATA)
    assert bus.read(SMBUS, DAT0) == 0
    assert bus.read(SMBUS, STS) == BUSY
    assert bus.read(SMBUS, STS) == INTR and bus.read(SMBUS, DAT0) == 0x83


def test_dev_err_stops_transactions_until_it_is_cleared(bus):
    bus.write(SMBUS, ADD, 0x40)
    bus.write(SMBUS, CNT, START | INTREN | QUICK)
    bus.write(SMBUS, ADD, 0xA0)
    bus.write(SMBUS, CNT, START | INTREN | QUICK)
    assert bus.read(SMBUS, STS) == DEV_ERR
    bus.write(SMBUS, STS, DEV_ERR)
    bus.write(SMBUS, CNT, START | INTREN | QUICK)
    assert bus.read(SMBUS, STS) == INTR


def test_kill_ends_a_block(bus):
    bus.write(SMBUS, AUX, 0)
    go(bus, BLOCK, 0xA0, cmd=0, dat0=8)
    bus.write(SMBUS, CNT, KILL)
    assert bus.read(SMBUS, STS) == BYTE_DONE | FAILED and bus.read(SMBUS, CNT) == KILL


def test_start_and_last_byte_read_as_zero(bus):
    bus.write(SMBUS, ADD, 0xA0)
    bus.write(SMBUS, CNT, 0xFF & ~KILL)
    assert bus.read(SMBUS, CNT) == 0x1D


def test_bus_reset_restores_the_eeproms_and_keeps_the_registers(bus):
    go(bus, BYTE_DATA, 0xA2, cmd=0, dat0=0x5A)
    bus.write(SMBUS, CMD, 0x12)
    bus.reset()
    assert bus.read(SMBUS, CMD) == 0x12
    assert go(bus, BYTE_DATA, 0xA3, cmd=0) == INTR and bus.read(SMBUS, DAT0) == 0xE1


def test_reserved_registers_read_zero(bus):
    for n in (1, 8, 9, 0x0C, 0x0E, 0x3F):
        bus.write(SMBUS, n, 0xFF)
        assert bus.read(SMBUS, n) == 0 and bus.status == 0
