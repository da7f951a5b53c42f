"""PCI 3.0 3.2.2.3.2 (mechanism #1) and PCI Express 3.0 7.2.2 (ECAM), and what the reference does in between."""

from engine.pci import _decode as decode


def test_only_a_4_byte_write_at_cf8_loads_the_latch():
    assert decode.written(0, 0xCF8, 4, 0x80001234) == 0x80001234
    for port, size in ((0xCF8, 1), (0xCF8, 2), (0xCFB, 1), (0xCFA, 2), (0xCFA, 4)):
        assert decode.written(0x80001234, port, size, 0) == 0x80001234


def test_reads_of_the_latch_start_at_bit_0_whatever_the_port():
    assert [decode.read(0x80001234, n) for n in (1, 2, 4)] == [0x34, 0x1234, 0x80001234]


def test_the_enable_bit_gates_the_window():
    assert decode.target(0x7F001234, 0xCFC) is None
    assert decode.target(0x80000000, 0xCFC) == (0, 0)


def test_bits_30_to_24_are_ignored():
    assert decode.target(0xFF0000FC, 0xCFC) == decode.target(0x800000FC, 0xCFC)


def test_bus_device_function_and_register():
    assert decode.target(0x80120B40, 0xCFE) == (0x120B, 0x42)


def test_low_bits_of_latch_and_port_are_ored():
    assert decode.target(0x80000003, 0xCFC) == (0, 3)
    assert decode.target(0x80000001, 0xCFE) == (0, 3)
    assert decode.target(0x80000003, 0xCFE) == (0, 3)


def test_unaligned_accesses_come_in_aligned_parts():
    assert decode.parts(0xCFC, 4) == [(0xCFC, 4)]
    assert decode.parts(0xCFD, 2) == [(0xCFD, 1), (0xCFE, 1)]
    assert decode.parts(0xCFD, 4) == [(0xCFD, 1), (0xCFE, 2), (0xD00, 1)]
    assert decode.parts(0xCFE, 4) == [(0xCFE, 2), (0xD00, 2)]
    assert decode.parts(0xCFF, 2) == [(0xCFF, 1), (0xD00, 1)]


def test_ecam_offset():
    assert decode.ecam(0x12_3 << 20 | 0xFA << 12 | 0xABC) == (0x23FA, 0xABC)
