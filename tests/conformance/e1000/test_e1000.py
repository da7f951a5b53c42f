"""Intel 82540EM.  Section numbers: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual,
317453."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest

from engine._device import PACKET, Dma
from engine.devices.e1000 import E1000
from engine.errors import MachineError, StateError
from engine.testing import FakeBus

CTRL, STATUS, EECD, EERD, MDIC, VET = 0x0, 0x8, 0x10, 0x14, 0x20, 0x38
ICR, ITR, ICS, IMS, IMC, RCTL, TCTL = 0xC0, 0xC4, 0xC8, 0xD0, 0xD8, 0x100, 0x400
RDBAL, RDLEN, RDH, RDT, RDTR, RADV = 0x2800, 0x2808, 0x2810, 0x2818, 0x2820, 0x282C
TDBAL, TDLEN, TDH, TDT, TADV = 0x3800, 0x3808, 0x3810, 0x3818, 0x382C
MPC, PRC64, PRC127, GPRC, BPRC, MPRC, GPTC, RNBC, ROC = (
    0x4010,
    0x405C,
    0x4060,
    0x4074,
    0x4078,
    0x407C,
    0x4080,
    0x40A0,
    0x40AC,
)
GORCL, TORL, TORH, TOTL, TOTH, TPR, TPT, PTC64, MPTC, BPTC, TSCTC = (
    0x4088,
    0x40C0,
    0x40C4,
    0x40C8,
    0x40CC,
    0x40D0,
    0x40D4,
    0x40D8,
    0x40F0,
    0x40F4,
    0x40F8,
)
MTA, RA, VFTA = 0x5200, 0x5400, 0x5600
TXDW, TXQE, LSC, RXDMT0, RXO, RXT0, MDAC = 0x1, 0x2, 0x4, 0x10, 0x40, 0x80, 0x200
EN, UPE, MPE, LPE, BAM, VFE, BSEX, SECRC = 0x2, 0x8, 0x10, 0x20, 0x8000, 0x40000, 0x2000000, 0x4000000
EOP, RS, DEXT, VLE, IDE, DATA, TSE, TCP, IP = (
    1 << 24,
    1 << 27,
    1 << 29,
    1 << 30,
    1 << 31,
    1 << 29 | 1 << 20,
    1 << 26,
    1 << 24,
    1 << 25,
)
DD, RX_EOP, IXSM, VP = 1, 2, 4, 8
TX_RING, RX_RING, TX_BUFFER, RX_BUFFER = 0x1000, 0x2000, 0x10000, 0x40000
STATION = bytes.fromhex("525400123456")
ME, MS, S = STATION + b"\x02\0\0\0\0\x01", 10**6, 10**9
PAUSE = 500 * 256  # the shortest between two interrupts


class Nic(FakeBus):
    """A controller with RAM, bus mastering on, and both rings of eight descriptors set up."""

    def __init__(self, ring: int = 8, **config):
        self.ram = bytearray(1 << 20)
        super().__init__(E1000("nic", dma=Dma(self.ram), **config))
        self.write(7, 4, 7, 2)
        self.ring = ring
        for base, at in ((RDBAL, RX_RING), (TDBAL, TX_RING)):
            self.put(base, at)
            self.put(base + 8, ring * 16)
        for n in range(ring):
            self.rx_descriptor(n, RX_BUFFER + n * 0x4000)

    def get(self, offset: int) -> int:
        return self.read(0, offset, 4)

    def put(self, offset: int, value: int) -> None:
        assert self.write(0, offset, value, 4) == 0

    def phy(self, n: int, value: int | None = None) -> int:
        self.put(MDIC, 1 << 21 | n << 16 | (2 << 26 if value is None else 1 << 26 | value))
        return self.get(MDIC) & 0xFFFF

    def packet(self, data: bytes) -> int:
        held = ctypes.create_string_buffer(data, len(data))
        return self.input(PACKET, 0, ctypes.addressof(held), len(data))

    def listen(self, rctl: int = EN | BAM, tail: int | None = None) -> None:
        """Enable reception, and wait until it begins."""
        self.put(RCTL, rctl)
        self.put(RDT, self.ring - 1 if tail is None else tail)
        self.step(S)

    def rx_descriptor(self, n: int, addr: int | None = None) -> tuple[int, int, int, int]:
        """Set its buffer, or tell (length, status, errors, special)."""
        at = RX_RING + 16 * n
        if addr is not None:
            self.ram[at : at + 16] = struct.pack("<QQ", addr, 0)
        return struct.unpack_from("<H2xBBH", self.ram, at + 8)

    def rx_data(self, n: int, size: int) -> bytes:
        at = RX_BUFFER + n * 0x4000
        return bytes(self.ram[at : at + size])

    def tx(self, *descriptors: tuple[int, int, int], at: int = 0) -> None:
        """Put (address, lower, upper) into the ring."""
        for n, d in enumerate(descriptors):
            struct.pack_into("<QII", self.ram, TX_RING + 16 * ((at + n) % self.ring), *d)

    def buffer(self, data: bytes, at: int = TX_BUFFER) -> int:
        self.ram[at : at + len(data)] = data
        return at

    def pending(self) -> bool:
        return self.level("inta")


@pytest.fixture
def nic() -> Nic:
    return Nic()


class Wire(Nic):
    """A controller whose packets are kept."""

    def __init__(self, folder: Path, **config):
        self.file = folder / "sent.pcap"
        super().__init__(backend="capture", capture=str(self.file), **config)

    def rows(self) -> list[tuple[int, bytes]]:
        raw = (
            self.file.read_bytes()
            if self.file.exists()
            else struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 1)
        )
        assert struct.unpack_from("<IHHIIII", raw) == (0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 1)
        out, at = [], 24
        while at < len(raw):
            seconds, ns, kept, whole = struct.unpack_from("<IIII", raw, at)
            assert kept == whole
            out.append((seconds * S + ns, raw[at + 16 : at + 16 + kept]))
            at += 16 + kept
        return out

    def sent(self) -> list[bytes]:
        return [data for _, data in self.rows()]


@pytest.fixture
def wire(tmp_path) -> Wire:
    return Wire(tmp_path)


def ones_sum(data: bytes) -> int:
    """The Internet checksum's sum of 16-bit words (RFC 1071), folded."""
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


# ---------------------------------------------------------------------- 3.2 reception


def test_3_2_3_a_packet_goes_to_the_next_buffer(nic):
    nic.listen()
    p = ME + b"\x08\x00" + bytes(range(100))
    assert nic.packet(p) == 1
    assert nic.rx_data(0, len(p)) == p
    assert nic.rx_descriptor(0) == (len(p) + 4, DD | RX_EOP | IXSM, 0, 0)  # the length counts the FCS
    assert nic.get(RDH) == 1 and nic.rx_descriptor(1)[1] == 0


def test_3_2_3_short_packets_are_padded_and_fcs_may_be_stripped(nic):
    nic.listen(EN | SECRC)
    nic.packet(ME + b"\x08\x00ab")
    assert nic.rx_data(0, 60) == ME + b"\x08\x00ab" + bytes(44)
    assert nic.rx_descriptor(0)[0] == 60


@pytest.mark.parametrize(
    "bsize,bsex,size", [(0, 0, 2048), (1, 0, 1024), (2, 0, 512), (3, 0, 256), (1, 1, 16384), (2, 1, 8192), (3, 1, 4096)]
)
def test_13_4_22_buffer_sizes(bsize, bsex, size):
    nic = Nic(ring=32)
    nic.listen(EN | LPE | bsize << 16 | bsex * BSEX)
    p = ME + bytes(n & 0xFF for n in range(size - 12))
    nic.packet(p)  # fills the first buffer; the FCS needs the second
    assert nic.rx_data(0, size) == p
    assert nic.rx_descriptor(0)[:2] == (size, DD)
    assert nic.rx_descriptor(1)[:2] == (4, DD | RX_EOP | IXSM)
    assert nic.get(RDH) == 2


def test_3_2_3_descriptors_without_a_buffer_are_skipped(nic):
    nic.rx_descriptor(0, 0)
    nic.listen()
    nic.packet(ME + bytes(60))
    assert nic.rx_descriptor(0)[:2] == (0, DD)
    assert nic.rx_descriptor(1)[:2] == (76, DD | RX_EOP | IXSM)


def test_3_2_6_the_ring_wraps_and_ends_at_the_tail(nic):
    nic.listen()
    assert [nic.packet(ME + bytes(60)) for _ in range(9)] == [1] * 7 + [0, 0]
    assert nic.get(RDH) == 7
    nic.put(RDT, 2)
    assert [nic.packet(ME + bytes(60)) for _ in range(9)] == [1] * 3 + [0] * 6
    assert nic.get(RDH) == 2


def test_13_4_17_overrun_where_a_long_packet_meets_too_few_buffers(nic):
    nic.listen(EN | LPE, tail=1)
    nic.put(IMS, RXO)
    assert nic.packet(ME + bytes(3000)) == 1
    assert (nic.get(RNBC), nic.get(MPC), nic.get(TPR)) == (1, 1, 0)
    assert nic.pending() and nic.get(ICR) & (RXO | RXT0) == RXO
    assert nic.get(RDH) == 0 and nic.rx_descriptor(0)[1] == 0


def test_13_4_17_receive_interrupts_and_the_threshold(nic):
    nic.listen(EN)  # RDMTS: half of the ring
    causes = []
    for _ in range(5):
        nic.packet(ME + bytes(60))
        causes.append(nic.get(ICR))
    assert causes == [RXT0, RXT0, RXT0 | RXDMT0, RXT0 | RXDMT0, RXT0 | RXDMT0]  # 6, 5, 4, 3, 2 of 8 left


def test_13_4_22_nothing_is_received_while_off(nic):
    nic.put(RDT, 7)
    assert nic.packet(ME + bytes(60)) == 0  # RCTL.EN
    nic.listen()
    nic.write(7, 4, 3, 2)
    assert nic.packet(ME + bytes(60)) == 0  # bus mastering
    nic.write(7, 4, 7, 2)
    nic.set("link", 0)
    assert nic.packet(ME + bytes(60)) == 0
    nic.set("link", 1)
    nic.step(S)
    assert nic.packet(ME + bytes(60)) == 1


def test_13_4_22_reception_begins_a_second_after_rctl_is_written(nic):
    nic.step(123_456)
    nic.put(RCTL, EN | BAM)
    nic.put(RDT, 7)
    nic.goto(S - 1)
    assert nic.packet(ME + bytes(60)) == 0
    nic.goto(S)
    assert nic.packet(ME + bytes(60)) == 1


# ---------------------------------------------------------------------- 3.2.1, 13.5 filters


def taken(nic: Nic, to: bytes, rest: bytes = b"") -> bool:
    """Is a packet for this address put into memory?"""
    before = nic.get(RDH)
    assert nic.packet(to + ME[6:] + (rest or b"\x08\x00") + bytes(60)) == 1
    nic.put(RDT, (nic.get(RDH) - 1) % 8)
    return nic.get(RDH) != before


def test_13_5_2_receive_addresses(nic):
    other = bytes.fromhex("0A0B0C0D0E0F")
    nic.listen(EN)
    assert taken(nic, STATION) and not taken(nic, other)
    nic.put(RA + 8 * 15, int.from_bytes(other[:4], "little"))
    nic.put(RA + 8 * 15 + 4, int.from_bytes(other[4:], "little"))
    assert not taken(nic, other)  # not valid yet
    nic.put(RA + 8 * 15 + 4, int.from_bytes(other[4:], "little") | 1 << 31)
    assert taken(nic, other)
    nic.put(RA + 4, 0)
    assert not taken(nic, STATION)


def test_13_4_22_promiscuous_bits(nic):
    unicast, multicast, broadcast = b"\x02\0\0\0\0\x77", b"\x01\0\x5e\0\0\x01", b"\xff" * 6
    want = {0: (0, 0, 0), UPE: (1, 0, 0), MPE: (0, 1, 1), BAM: (0, 0, 1), UPE | BAM: (1, 0, 1)}
    for bits, answers in want.items():
        nic.listen(EN | bits)
        assert tuple(taken(nic, a) for a in (unicast, multicast, broadcast)) == answers
    assert (nic.get(MPRC), nic.get(BPRC)) == (2, 2)  # with MPE, broadcasts count as multicasts


@pytest.mark.parametrize("mo,shift", [(0, 4), (1, 3), (2, 2), (3, 0)])
def test_13_5_1_multicast_table(nic, mo, shift):
    to = bytes.fromhex("01005E7F12A5")
    index = (to[5] << 8 | to[4]) >> shift & 0xFFF
    nic.listen(EN | mo << 12)
    assert not taken(nic, to)
    nic.put(MTA + 4 * (index >> 5), 1 << (index & 31))
    assert taken(nic, to)
    assert not taken(nic, bytes.fromhex("01005E7F1243"))


def test_13_5_4_vlan_filter(nic):
    nic.listen(EN | VFE)
    tag = struct.pack(">HHH", 0x8100, 0x6123, 0x0800)
    assert not taken(nic, STATION, tag)
    nic.put(VFTA + 4 * (0x123 >> 5), 1 << (0x123 & 31))
    assert taken(nic, STATION, tag)
    assert not taken(nic, b"\x02\0\0\0\0\x77", tag)  # the address still counts
    nic.put(VFTA + 4 * (0x123 >> 5), 0)
    nic.put(VET, 0x9100)
    assert taken(nic, STATION, tag)  # no longer a tag


def test_9_3_1_tags_are_stripped(nic):
    nic.put(CTRL, nic.get(CTRL) | 1 << 30)
    nic.listen()
    nic.packet(ME + struct.pack(">HHH", 0x8100, 0x6123, 0x0800) + bytes(range(70)))
    length, status, _, special = nic.rx_descriptor(0)
    assert (length, status, special) == (12 + 2 + 70 + 4, DD | RX_EOP | IXSM | VP, 0x6123)
    assert nic.rx_data(0, 84) == ME + b"\x08\x00" + bytes(range(70))


def test_13_7_36_oversized_packets_are_counted_and_dropped(nic):
    nic.listen()
    nic.packet(ME + bytes(1510))
    nic.packet(ME + bytes(1511))
    assert (nic.get(TPR), nic.get(ROC), nic.get(ROC)) == (1, 1, 0)
    nic.listen(EN | LPE)
    nic.packet(ME + bytes(1511))
    assert (nic.get(TPR), nic.get(ROC)) == (1, 0)


# ---------------------------------------------------------------------- 3.3 transmission


def test_3_3_3_legacy_descriptors(wire):
    one, two = bytes(range(80)), bytes(range(100, 150))
    a, b = wire.buffer(one), wire.buffer(two, TX_BUFFER + 0x1000)
    wire.tx((a, 80, 0), (b, 50 | EOP | RS, 0xFE00000E))
    wire.put(TDT, 2)
    assert wire.sent() == [] and wire.get(TDH) == 0  # TCTL.EN
    wire.step(5)
    wire.put(TCTL, EN)
    assert wire.rows() == [(5, one + two)]
    assert wire.get(TDH) == 2 and wire.get(ICR) == TXDW | TXQE
    assert struct.unpack_from("<I", wire.ram, TX_RING + 28)[0] == 0xFE000001  # DD; EC, LC and TU are cleared
    assert struct.unpack_from("<I", wire.ram, TX_RING + 12)[0] == 0  # without RS, nothing is written back


def test_3_3_3_without_rs_there_is_no_txdw(wire):
    wire.tx((wire.buffer(bytes(60)), 60 | EOP, 0))
    wire.put(TCTL, EN)
    wire.put(TDT, 1)
    assert len(wire.sent()) == 1 and wire.get(ICR) == TXQE


def test_3_3_a_full_transmitter_begins_again(wire):
    """As the reference, whose count of the packet's bytes has 16 bits."""
    p = bytes(range(100))
    a = wire.buffer(p)
    wire.tx((a, 0xC000, 0), (a, 0xC000, 0), (a, 100 | EOP, 0), (a, 0xFFFF, 0), (a, 1 | EOP, 0))
    wire.put(TCTL, EN)
    wire.put(TDT, 5)
    assert wire.sent() == [p, b""] and wire.get(TPT) == 2


def test_3_5_a_full_transmitter_begins_again(wire):
    """A segment that would be longer: its size is not reached at 65,536, and the next bytes are its first."""
    p = tcp_header(0) + bytes(range(100))
    a = wire.buffer(p)
    wire.tx(
        context(paylen=65535, command=TSE | TCP | IP, hdr=54, mss=65535),
        (TX_RING + 0x8000, DATA | TSE | 0x8000, 0),
        (TX_RING + 0x8000, DATA | TSE | 0x8000, 0),
        (a, DATA | TSE | EOP | len(p), 0),
    )
    wire.put(TCTL, EN)
    wire.put(TDT, 4)
    assert [len(p) for p in wire.sent()] == [154]


def test_3_4_the_ring_wraps(wire):
    wire.put(TCTL, EN)
    for n in range(20):
        wire.tx((wire.buffer(bytes([n]) * 60), 60 | EOP, 0), at=n)
        wire.put(TDT, (n + 1) % 8)
    assert [p[0] for p in wire.sent()] == list(range(20))


def test_9_2_tags_are_inserted(wire):
    wire.put(CTRL, wire.get(CTRL) | 1 << 30)
    p = ME + b"\x08\x00" + bytes(range(50))
    wire.tx((wire.buffer(p), len(p) | EOP | VLE, 0x61230000), (TX_BUFFER, len(p) | EOP, 0x61230000))
    wire.put(TCTL, EN)
    wire.put(TDT, 2)
    assert wire.sent() == [ME + struct.pack(">HH", 0x8100, 0x6123) + p[12:], p]


def context(
    ipcss=14, ipcso=24, ipcse=33, tucss=34, tucso=50, tucse=0, paylen=0, command=0, hdr=0, mss=0
) -> tuple[int, int, int]:
    return struct.unpack(
        "<QII",
        struct.pack("<BBHBBHIBBH", ipcss, ipcso, ipcse, tucss, tucso, tucse, DEXT | command | paylen, 0, hdr, mss),
    )


def tcp_header(payload: int, flags: int = 0x19) -> bytes:
    """Ethernet, IPv4 and TCP headers as a driver leaves them for segmentation: without lengths, in the sum too."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 0x1234, 0x4000, 64, 6, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
    pseudo = ones_sum(b"\x0a\0\0\x01\x0a\0\0\x02\0\x06")
    tcp = struct.pack(">HHIIBBHHH", 1000, 80, 0xFFFFFF00, 7, 0x50, flags, 512, pseudo, 0)
    return ME + b"\x08\x00" + ip + tcp


def check_tcp(p: bytes) -> None:
    ip, tcp = p[14:34], p[34:]
    assert ones_sum(ip) == 0xFFFF
    assert ones_sum(ip[12:20] + struct.pack(">HH", 6, len(tcp)) + tcp) == 0xFFFF
    assert struct.unpack_from(">H", ip, 2)[0] == len(p) - 14


def test_3_5_tcp_segmentation(wire):
    payload = bytes(n * 7 & 0xFF for n in range(2500))
    at = wire.buffer(tcp_header(2500) + payload)
    wire.tx(
        context(paylen=2500, command=TSE | TCP | IP, hdr=54, mss=1000),
        (at, DATA | TSE | 54, 0x300),
        (at + 54, DATA | TSE | 1300, 0),
        (at + 1354, DATA | TSE | EOP | RS | 1200, 0),
    )
    wire.put(TCTL, EN)
    wire.put(TDT, 4)
    sent = wire.sent()
    assert [len(p) - 54 for p in sent] == [1000, 1000, 500]
    assert b"".join(p[54:] for p in sent) == payload
    for n, p in enumerate(sent):
        check_tcp(p)
        assert struct.unpack_from(">H", p, 18)[0] == 0x1234 + n  # identification
        assert struct.unpack_from(">I", p, 38)[0] == (0xFFFFFF00 + 1000 * n) & 0xFFFFFFFF  # sequence number
        assert p[47] == (0x19 if n == 2 else 0x10)  # FIN and PSH in the last one
    assert wire.get(TSCTC) == 1 and wire.get(TPT) == 3


def test_3_5_a_saved_transmitter_goes_on_where_it_was(tmp_path):
    """In the middle of a payload."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = Wire(tmp_path / "a"), Wire(tmp_path / "b")
    at = a.buffer(tcp_header(1500) + bytes(1500))
    a.tx(
        context(paylen=1500, command=TSE | TCP | IP, hdr=54, mss=1000),
        (at, DATA | TSE | 700, 0x300),
        (at + 700, DATA | TSE | EOP | 854, 0),
    )
    a.put(TCTL, EN)
    a.put(TDT, 2)
    assert a.sent() == []
    b.dut.restore(a.dut.save())
    b.ram[:] = a.ram
    for w in (a, b):
        w.put(TDT, 3)
    assert a.sent() == b.sent() and [len(p) for p in a.sent()] == [1054, 554]


def test_3_6_checksums_without_segmentation(wire):
    p = bytearray(tcp_header(101) + bytes(range(101)))
    pseudo = ones_sum(b"\x0a\0\0\x01\x0a\0\0\x02\0\x06" + struct.pack(">H", 121))
    p[16:18] = struct.pack(">H", len(p) - 14)
    p[50:52] = struct.pack(">H", pseudo)
    at = wire.buffer(bytes(p))
    wire.tx(
        context(command=TCP | IP),
        (at, DATA | EOP | len(p), 0x300),
        (at, DATA | EOP | len(p), 0x100),
        (at, DATA | EOP | len(p), 0),
    )
    wire.put(TCTL, EN)
    wire.put(TDT, 4)
    both, ip_only, neither = wire.sent()
    check_tcp(both)
    assert ones_sum(ip_only[14:34]) == 0xFFFF and ip_only[34:] == p[34:]
    assert neither == p


def test_3_6_a_sum_of_zero_is_sent_as_ones(wire):
    wire.tx(context(tucss=14, tucso=20, tucse=0), (wire.buffer(ME + b"\x08\x00" + bytes(46)), DATA | EOP | 60, 0x200))
    wire.put(TCTL, EN)
    wire.put(TDT, 2)
    assert wire.sent()[0][20:22] == b"\xff\xff"


# ---------------------------------------------------------------------- rings that no driver makes


def test_a_ring_of_length_zero_ends_after_one_descriptor(wire):
    wire.tx((wire.buffer(bytes(60)), 60 | EOP, 0))
    wire.put(TDLEN, 0)
    wire.put(TCTL, EN)
    wire.put(TDT, 100)
    assert len(wire.sent()) == 1 and wire.get(TDH) == 0
    wire.listen()
    wire.put(RDLEN, 0)
    assert wire.packet(ME + bytes(60)) == 1
    assert wire.get(ICR) & RXO and wire.get(TPR) == 0


def test_a_tail_outside_the_ring_ends_after_one_turn(wire):
    for n in range(8):
        wire.tx((wire.buffer(bytes(60)), 60 | EOP, 0), at=n)
    wire.put(TCTL, EN)
    wire.put(TDT, 0xFFFF)
    assert len(wire.sent()) == 8 and wire.get(TDH) == 0


def test_descriptors_and_buffers_outside_memory_read_as_zeros(wire):
    wire.tx((1 << 40, 60 | EOP, 0), ((1 << 20) - 30, 60 | EOP, 0))
    wire.ram[-30:] = b"\xee" * 30
    wire.put(TCTL, EN)
    wire.put(TDT, 2)
    assert wire.sent() == [bytes(60), b"\xee" * 30 + bytes(30)]
    wire.put(TDBAL, 0xFFF00000)
    wire.put(TDT, 4)
    assert wire.get(TDH) == 4 and len(wire.sent()) == 2


def test_a_ring_with_more_than_a_burst_goes_on_at_the_speed_of_the_wire():
    """Each descriptor asks for 65,535 segments of one byte.  None of it is lost, but no write takes for ever."""
    nic = Nic(ring=512)
    nic.put(RDLEN, 0)
    nic.tx(context(command=TSE, hdr=255, mss=1), *[(TX_BUFFER, DATA | TSE | 0xFFFF, 0)] * 8)
    nic.put(TCTL, EN)
    nic.get(ICR)
    nic.put(TDT, 9)
    head, first = nic.get(TDH), nic.dut.sent
    assert 1 < head < 9
    assert nic.get(ICR) & TXQE == 0
    nic.put(TDT, 9)  # it is busy
    assert nic.dut.sent == first
    nic.step(10 * S)
    assert nic.get(TDH) == 9 and nic.get(ICR) & TXQE
    assert nic.dut.sent == 8 * 0xFFFF - 255


# ---------------------------------------------------------------------- 5 EEPROM


def test_5_6_contents():
    nic = Nic(mac="02:11:22:33:44:55")
    words = []
    for n in range(64):
        nic.put(EERD, n << 8 | 1)
        value = nic.get(EERD)
        assert value & 0xFFFF == n << 8 | 0x10  # DONE, and START has gone
        words.append(value >> 16)
    assert words[:3] == [0x1102, 0x3322, 0x5544]
    assert sum(words) & 0xFFFF == 0xBABA
    assert (words[0x0B], words[0x0D], words[0x0C], words[0x0E]) == (0x100E, 0x100E, 0x8086, 0x8086)
    assert (nic.get(RA), nic.get(RA + 4)) == (0x33221102, 0x80005544)
    nic.put(EERD, 64 << 8 | 1)
    assert nic.get(EERD) == 64 << 8 | 0x10


def microwire(nic: Nic, bits: list[int], then: int = 16) -> int:
    """Select the EEPROM, clock bits in and `then` bits out."""
    nic.put(EECD, 0)
    for b in bits:
        nic.put(EECD, 2 | b << 2)
        nic.put(EECD, 3 | b << 2)
    value = 0
    for _ in range(then):
        nic.put(EECD, 2)
        value = value << 1 | nic.get(EECD) >> 3 & 1
        nic.put(EECD, 3)
    return value


def test_13_4_3_bits_of_eecd_read_the_same_words(nic):
    for n in (0, 1, 11, 63):
        nic.put(EERD, n << 8 | 1)
        assert microwire(nic, [1, 1, 0] + [n >> b & 1 for b in range(5, -1, -1)]) == nic.get(EERD) >> 16
    assert microwire(nic, [1, 1, 0] + 6 * [0], 32) == 0x54521200  # a read goes on to the next word


def test_13_4_3_other_operations_leave_the_output_high(nic):
    assert microwire(nic, [1, 0, 1] + 6 * [0]) == 0xFFFF
    nic.put(EECD, 0x40)
    assert nic.get(EECD) == 0x1C8  # a request is granted at once


# ---------------------------------------------------------------------- 8, 13.4.7 PHY and link


def test_13_4_7_reads_and_writes(nic):
    assert (nic.phy(2), nic.phy(3)) == (0x0141, 0x0C20)
    nic.phy(4, 0x01E1)
    assert nic.phy(4) == 0x01E1
    nic.phy(1, 0)
    assert nic.get(MDIC) & 0x5000_0000 == 0x5000_0000  # READY, and an error: it is read-only
    assert nic.phy(1) == 0x794D
    nic.phy(7)
    assert nic.get(MDIC) >> 30 & 1
    nic.put(MDIC, 2 << 21 | 2 << 16 | 2 << 26)
    assert nic.get(MDIC) >> 30 & 1  # there is no second PHY


def test_13_4_7_interrupt(nic):
    nic.put(MDIC, 1 << 21 | 2 << 16 | 2 << 26)
    assert nic.get(ICR) == 0
    nic.put(MDIC, 1 << 21 | 2 << 16 | 2 << 26 | 1 << 29)
    assert nic.get(ICR) == MDAC


def test_13_4_7_1_auto_negotiation(nic):
    nic.step(3 * MS + 500)
    nic.put(IMS, LSC)
    nic.phy(0, 0x1340)
    assert nic.phy(0) == 0x1140  # restart clears itself
    assert nic.get(STATUS) & 2 == 0 and nic.phy(1) & 0x24 == 0 and nic.phy(5) & 0x4000 == 0
    nic.goto(503 * MS - 1)
    assert nic.get(STATUS) & 2 == 0 and not nic.pending()
    nic.goto(503 * MS)
    assert nic.get(STATUS) & 2 and nic.phy(1) & 0x24 == 0x24 and nic.phy(5) & 0x4000
    assert nic.pending() and nic.get(ICR) == LSC and not nic.pending()


def test_13_4_2_the_cable(nic):
    nic.set("link", 0)
    assert nic.get(STATUS) & 2 == 0 and nic.phy(1) & 4 == 0 and nic.get(ICR) == LSC
    nic.phy(0, 0x1340)
    nic.step(S)
    assert nic.get(STATUS) & 2 == 0 and nic.get(ICR) == 0  # nobody to negotiate with
    nic.set("link", 1)
    assert nic.get(STATUS) & 2 == 0
    nic.step(S)
    assert nic.get(STATUS) & 2 and nic.get(ICR) == LSC
    nic.phy(0, 0x0140)  # a fixed speed: the link is there at once
    nic.set("link", 0)
    nic.set("link", 1)
    assert nic.get(STATUS) & 2 and nic.get(ICR) == LSC


def test_13_4_7_1_loopback_in_the_phy(tmp_path):
    nic = Wire(tmp_path)
    nic.phy(0, 0x4140)
    nic.listen()
    p = ME + b"\x08\x00" + bytes(range(60))
    nic.tx((nic.buffer(p), len(p) | EOP, 0))
    nic.put(TCTL, EN)
    nic.put(TDT, 1)
    assert nic.rx_data(0, len(p)) == p and nic.get(ICR) == TXQE | RXT0
    assert (nic.dut.sent, nic.dut.received, nic.sent()) == (0, 0, [])  # nothing was on the wire


# ---------------------------------------------------------------------- 13.2 accesses


def test_13_2_2_the_io_window():
    nic = Nic(io_window=True)
    assert nic.write(1, 0, 0xFFF00008, 4) == 0
    assert nic.read(1, 0, 4) == 8  # bits 31 to 20 are zero
    assert nic.read(1, 4, 4) == nic.get(STATUS)
    nic.write(1, 0, 0, 2)
    assert nic.read(1, 0, 4) == 8  # narrow writes are ignored
    nic.write(1, 0, IMS, 4)
    nic.write(1, 4, 0x55, 4)
    assert nic.get(IMS) == 0x55


def test_13_2_2_the_window_is_shut_unless_asked_for(nic):
    nic.write(1, 0, STATUS, 4)
    assert nic.read(1, 0, 4) == 0 and nic.read(1, 4, 4) == 0


def test_13_2_1_narrow_accesses_are_whole_registers(nic):
    assert nic.read(0, STATUS, 1) == 0x83 and nic.read(0, STATUS + 2, 2) == 0x0783
    nic.write(0, VET + 1, 0x12, 1)
    assert nic.get(VET) == 0x12


def test_13_8_11_packet_buffer_memory(nic):
    for n, at in enumerate((0x10000, 0x18000, 0x1FFFC)):
        nic.put(at, 0xC0DE0000 + n)
    assert [nic.get(at) for at in (0x10000, 0x18000, 0x1FFFC, 0x10004)] == [0xC0DE0000, 0xC0DE0001, 0xC0DE0002, 0]


def test_13_6_10_filter_tables_do_not_overlap(nic):
    for at, value in ((0x9000, 1), (0x93F8, 2), (0x9800, 3), (0x9BF8, 4)):
        nic.put(at, value)
    assert [nic.get(at) for at in (0x9000, 0x93F8, 0x9800, 0x9BF8, 0x93FC, 0x9400)] == [1, 2, 3, 4, 0, 0]


# ---------------------------------------------------------------------- 13.4.17 to 13.4.21 interrupts


def test_13_4_17_causes_and_mask(nic):
    nic.put(ICS, LSC | RXT0)
    assert nic.get(ICS) == LSC | RXT0 and not nic.pending()
    nic.put(IMS, LSC)
    assert nic.pending() and nic.read(7, 6, 2) & 8
    nic.put(IMC, LSC)
    assert not nic.pending() and nic.get(IMS) == 0
    nic.put(ICR, LSC)
    assert nic.get(ICR) == RXT0
    assert nic.get(ICR) == 0 and nic.get(ICS) == 0


def test_13_4_17_intx_disable_gates_the_pin(nic):
    nic.put(IMS, LSC)
    nic.put(ICS, LSC)
    nic.write(7, 4, 0x407, 2)
    assert not nic.pending() and nic.read(7, 6, 2) & 8
    nic.write(7, 4, 7, 2)
    assert nic.pending()


def pause_after(nic: Nic, cause: int) -> int:
    """ns from an interrupt to the next one, whose cause has come at once."""
    nic.put(IMS, cause)
    nic.put(ICS, cause)
    assert nic.pending()
    nic.get(ICR)
    assert not nic.pending()
    nic.put(ICS, cause)
    start = nic.t_ns
    assert not nic.pending() and nic.get(ICS) == cause
    nic.take()
    nic.step(S)
    ((when, level),) = nic.edges("inta")
    assert level == 1
    return when - start


def test_13_4_18_at_most_7813_interrupts_a_second(nic):
    assert pause_after(nic, LSC) == PAUSE


def test_13_4_18_itr(nic):
    nic.put(ITR, 2000)
    assert pause_after(nic, LSC) == 2000 * 256


def test_13_4_31_radv_counts_with_rdtr_and_a_receive_interrupt():
    for rdtr, cause, want in ((0, RXT0, PAUSE), (1, LSC, PAUSE), (1, RXT0, 600 * 4 * 256)):
        nic = Nic()
        nic.put(RDTR, rdtr)
        nic.put(RADV, 600)
        assert pause_after(nic, cause) == want
    nic = Nic()
    nic.put(RDTR, 1)
    nic.put(RADV, 600)
    nic.put(ITR, 1000)
    assert pause_after(nic, RXT0) == 1000 * 256  # the shortest of those that are set


def test_13_4_44_tadv_counts_with_ide(nic):
    for ide, want in ((0, PAUSE), (IDE, 700 * 4 * 256)):
        nic = Nic()
        nic.put(TADV, 700)
        nic.tx((TX_BUFFER, 60 | EOP | ide, 0))
        nic.put(TCTL, EN)
        nic.put(TDT, 1)
        nic.get(ICR)
        assert pause_after(nic, TXDW) == want


# ---------------------------------------------------------------------- 13.7 statistics


def test_13_7_packets_by_size_and_kind(wire):
    wire.listen(EN | BAM | LPE)
    for n in (60, 61, 123, 124, 251, 252, 507, 508, 1019, 1020, 1600):
        wire.packet(ME + bytes(n - 12))
        wire.put(RDT, (wire.get(RDH) - 1) % 8)
    assert [wire.get(PRC64 + 4 * i) for i in range(6)] == [1, 2, 2, 2, 2, 2]
    assert [wire.get(PRC64 + 4 * i) for i in range(6)] == [0] * 6
    wire.put(TCTL, EN)
    for n, to in enumerate((STATION, b"\xff" * 6, b"\x01\0\x5e\0\0\x01", b"\x01\0\x5e\0\0\x02")):
        wire.tx((wire.buffer(to + bytes(100)), 60 + n | EOP, 0), at=n)
        wire.put(TDT, n + 1)
    assert (wire.get(PTC64), wire.get(PTC64 + 4), wire.get(BPTC), wire.get(MPTC), wire.get(TPT), wire.get(GPTC)) == (
        1,
        3,
        1,
        2,
        4,
        4,
    )
    assert (wire.get(TOTL), wire.get(TOTH)) == (4 * 64 + 6, 0)


def test_13_7_41_octets_are_a_pair_that_its_upper_half_clears(nic):
    nic.listen()
    nic.packet(ME + bytes(48))
    nic.packet(ME + bytes(48))
    assert nic.get(TORL) == 128 and nic.get(TORL) == 128 and nic.get(GORCL) == 128
    assert nic.get(TORH) == 0
    assert nic.get(TORL) == 0 and nic.get(GORCL) == 128


def test_13_7_counters_stick(nic):
    nic.listen()
    state = nic.dut.save()
    state["mac"][TPR // 4] = 0xFFFFFFFF
    state["mac"][TORL // 4], state["mac"][TORH // 4] = 0xFFFFFFF0, 0xFFFFFFFF
    state["mac"][GORCL // 4] = 0xFFFFFFF0
    nic.dut.restore(state)
    nic.packet(ME + bytes(48))
    assert nic.get(TPR) == 0xFFFFFFFF
    assert (nic.get(TORL), nic.get(TORH)) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert (nic.get(GORCL), nic.get(GORCL + 4)) == (0x30, 1)


# ---------------------------------------------------------------------- 14.2 reset


def test_14_2_bus_reset(nic):
    nic.listen()
    nic.packet(ME + bytes(60))
    nic.put(IMS, 0xFFFF)
    assert nic.pending()
    for b in (1, 1, 0, 0, 0, 0, 0, 0, 1):
        nic.put(EECD, 2 | b << 2)
        nic.put(EECD, 3 | b << 2)
    nic.put(RA, 0)
    nic.set("link", 0)
    nic.reset(1)
    assert not nic.pending() and nic.dut.deadline is None
    for r in E1000.REGISTERS:
        if r.reset is not None and r.name not in ("STATUS", "EECD"):
            assert nic.get(r.offset) == r.reset, r.name
    assert nic.get(RA) == 0x12005452
    assert nic.get(STATUS) == 0x80080781  # no cable
    nic.put(EECD, 0)
    assert nic.get(EECD) == 0x180 | (0x1200 >> 15) << 3  # the shift register was not reset: it shows word 1
    nic.reset(0)
    assert nic.get(EECD) == 0x188 and nic.get(STATUS) == 0x80080783


def test_13_4_1_rst_reads_as_zero_and_resets_nothing(nic):
    nic.put(ITR, 7)
    nic.put(CTRL, 0x04140240)
    assert nic.get(CTRL) == 0x00140240 and nic.get(ITR) == 7


# ---------------------------------------------------------------------- back ends and settings


def test_what_is_sent_comes_back():
    nic = Nic(backend="loopback")
    nic.listen()
    p = ME + b"\x08\x00" + bytes(range(60))
    nic.tx((nic.buffer(p), len(p) | EOP, 0))
    nic.put(TCTL, EN)
    nic.put(TDT, 1)
    assert nic.rx_data(0, len(p)) == p and (nic.dut.sent, nic.dut.received) == (1, 1)


def test_a_capture_holds_both_directions_and_their_times(wire):
    wire.listen()
    wire.packet(ME + bytes(60))
    wire.step(5)
    wire.tx((wire.buffer(bytes(60)), 60 | EOP, 0))
    wire.put(TCTL, EN)
    wire.put(TDT, 1)
    assert wire.rows() == [(S, ME + bytes(60)), (S + 5, bytes(60))]


def test_packets_from_python(nic):
    assert nic.dut.receive(ME + bytes(60)) is False
    nic.listen()
    assert nic.dut.receive(ME + bytes(60), nic.t_ns) is True
    nic.executor.refresh()
    assert nic.get(TPR) == 1


@pytest.mark.parametrize(
    "config,word",
    [
        ({"mac": "52:54:00:12:34"}, "station address"),
        ({"mac": "01:54:00:12:34:56"}, "station address"),
        ({"backend": "user"}, "loopback"),
        ({"backend": "capture"}, "go together"),
        ({"backend": "capture", "capture": "/no/such/folder/x.pcap"}, "no such folder"),
        ({"wires": 2}, "unknown setting"),
    ],
)
def test_settings_are_checked(config, word):
    with pytest.raises(MachineError, match=word):
        E1000("nic", **config)


def test_a_state_with_too_much_in_the_transmitter_is_refused(nic):
    state = nic.dut.save()
    with pytest.raises(StateError, match="tx_size"):
        nic.dut.restore(state | {"tx_size": 65536})
    nic.dut.restore(state | {"tx_size": 65535})


def test_inspect_names_registers(nic):
    nic.put(ITR, 0x1234)
    assert nic.dut.inspect()["registers"]["ITR"] == 0x1234


def test_3_2_3_a_ring_without_buffers_is_not_walked_for_every_frame_of_a_burst():
    """A segmentation into 64,000 frames that turn around, above a ring of 65,528 descriptors that no RAM holds:
    4 * 10^9 descriptors, of which 64 MiB are walked."""
    nic = Nic()
    nic.phy(0, 0x4140)
    nic.put(RDBAL, 0x80000000)
    nic.put(RDBAL + 8, 0xFFF80)
    nic.listen(EN | UPE | MPE, tail=0xFFF7)
    nic.tx(context(command=TSE, hdr=0, mss=1), (TX_BUFFER, DATA | TSE | EOP | 64000, 0))
    nic.ram[TX_BUFFER : TX_BUFFER + 64000] = b"\xff" * 64000
    nic.put(TCTL, EN)
    nic.put(TDT, 2)
    frames = nic.get(GPTC)
    assert frames >= 64000
    walked = (64 << 20) // (0xFFF80 + 84) + 1
    assert nic.get(MPC) == frames and nic.get(RNBC) == walked  # those that came into the ring found no buffer
