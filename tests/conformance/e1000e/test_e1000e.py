"""Intel 82574L.  Section numbers: Intel 82574 GbE Controller Family Datasheet, 317694, revision 3.4."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest

from engine._device import PACKET, Dma
from engine.devices._net import read_pcap
from engine.devices.e1000e import E1000E
from engine.errors import MachineError, StateError
from engine.testing import FakeBus

CTRL, STATUS, EERD, CTRL_EXT, MDIC, VET = 0x0, 0x8, 0x14, 0x18, 0x20, 0x38
ICR, ITR, ICS, IMS, IMC, EIAC, IAM, IVAR, EITR = 0xC0, 0xC4, 0xC8, 0xD0, 0xD8, 0xDC, 0xE0, 0xE4, 0xE8
RCTL, TCTL, EEWR, PSRCTL = 0x100, 0x400, 0x102C, 0x2170
RDBAL, RDLEN, RDH, RDT, RDTR, RADV, RSRPD, RAID = 0x2800, 0x2808, 0x2810, 0x2818, 0x2820, 0x282C, 0x2C00, 0x2C08
TDBAL, TDLEN, TDH, TDT, TIDV, TADV, TARC0 = 0x3800, 0x3808, 0x3810, 0x3818, 0x3820, 0x382C, 0x3840
PRC64, PRC127, GPRC, BPRC, MPRC, GPTC, GORCL, GOTCL, RUC, ROC = (
    *(0x405C, 0x4060, 0x4074, 0x4078, 0x407C),
    *(0x4080, 0x4088, 0x4090, 0x40A4, 0x40AC),
)
TORL, TORH, TOTL, TOTH, TPR, TPT, PTC64, BPTC, TSCTC, IAC = (
    *(0x40C0, 0x40C4, 0x40C8, 0x40CC, 0x40D0),
    *(0x40D4, 0x40D8, 0x40F4, 0x40F8, 0x4100),
)
RXCSUM, RFCTL, MTA, RA, VFTA, MRQC, SWSM, PBACLR, RETA, RSSRK = (
    *(0x5000, 0x5008, 0x5200, 0x5400, 0x5600),
    *(0x5818, 0x5B50, 0x5B68, 0x5C00, 0x5C80),
)
QUEUE1 = 0x100
TXDW, TXQE, LSC, RXDMT0, RXO, RXT0, MDAC, SRPD, ACK = 0x1, 0x2, 0x4, 0x10, 0x40, 0x80, 0x200, 0x10000, 0x20000
RXQ0, RXQ1, TXQ0, TXQ1, OTHER, ASSERTED = 1 << 20, 1 << 21, 1 << 22, 1 << 23, 1 << 24, 1 << 31
EN, SBP, UPE, MPE, LPE, LBM, BAM, VFE, SECRC = 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x8000, 0x40000, 0x4000000
DTYP_PS, EXTEN, PCSD, IPOFLD, TUOFLD = 0x400, 0x8000, 0x2000, 0x100, 0x200
EOP, RS, DEXT, VLE, IDE, DATA, TSE, TCP, IP = (
    *(1 << 24, 1 << 27, 1 << 29, 1 << 30, 1 << 31),
    *(1 << 29 | 1 << 20, 1 << 26, 1 << 24, 1 << 25),
)
DD, RX_EOP, VP, IPCS, TCPCS, IPE, TCPE = 1, 2, 8, 0x40, 0x20, 0x40000000, 0x20000000
MSIX_CAP, PM_CAP, MSI_CAP, EXPRESS_CAP, AER_CAP, SERIAL_CAP = 0xA0, 0xC8, 0xD0, 0xE0, 0x100, 0x140
TX_RING, RX_RING, TX_BUFFER, RX_BUFFER = 0x1000, 0x3000, 0x10000, 0x40000
ME = bytes.fromhex("525400123456020000000001")
EVERYONE = bytes.fromhex("ffffffffffff020000000001")
MS, S = 10**6, 10**9
ITR_NS, DELAY_NS = 256, 1024


class Nic(FakeBus):
    """A controller with RAM, rings of eight descriptors and what it sent."""

    def __init__(self, folder: Path | None = None, **config):
        self.ram = bytearray(1 << 20)
        self.file = folder / "wire.pcap" if folder else None
        if self.file:
            config["capture"] = str(self.file)
        super().__init__(E1000E(dma=Dma(self.ram), **config))
        self.write(7, 4, 7, 2)
        for q in (0, QUEUE1):
            self.put(RDBAL + q, RX_RING + 16 * q)
            self.put(RDLEN + q, 128)
            self.put(TDBAL + q, TX_RING + 16 * q)
            self.put(TDLEN + q, 128)
        self.take()

    def get(self, offset: int) -> int:
        return self.read(0, offset, 4)

    def put(self, offset: int, value: int) -> None:
        self.write(0, offset, value, 4)

    def config(self, offset: int, size: int = 4) -> int:
        return self.read(7, offset, size)

    def listen(self, rctl: int = EN | BAM | SECRC, q: int = 0) -> None:
        for n in range(8):
            struct.pack_into("<QQ", self.ram, RX_RING + 16 * q + 16 * n, self.buffer(n), 0)
        self.put(RCTL, rctl)
        self.put(RDT + q, 7)

    @staticmethod
    def buffer(n: int) -> int:
        return RX_BUFFER + n * 0x4000

    def packet(self, data: bytes) -> int:
        held = ctypes.create_string_buffer(data, len(data))
        return self.input(PACKET, 0, ctypes.addressof(held), len(data))

    def descriptor(self, n: int, q: int = 0) -> tuple[int, int]:
        return struct.unpack_from("<QQ", self.ram, RX_RING + 16 * q + 16 * n)

    def data(self, n: int, size: int) -> bytes:
        return bytes(self.ram[self.buffer(n) :][:size])

    def send(self, *descriptors: tuple[int, int, int], q: int = 0) -> None:
        """Put (address, lower, upper) into the ring, and ring."""
        tail = self.get(TDT + q)
        for d in descriptors:
            struct.pack_into("<QII", self.ram, TX_RING + 16 * q + 16 * tail, *d)
            tail = (tail + 1) % 8
        self.put(TCTL, EN)
        self.put(TDT + q, tail)

    def hold(self, data: bytes, at: int = TX_BUFFER) -> int:
        self.ram[at : at + len(data)] = data
        return at

    def sent(self) -> list[bytes]:
        return [data for _, data in read_pcap(self.file)] if self.file and self.file.exists() else []

    def messages(self) -> list[tuple[int, int]]:
        return [(e.addr, e.value) for e in self.take() if e.kind == "message"]

    def enable_msix(self) -> None:
        for n in range(5):
            for at, value in ((0, 0xFEE00000), (4, 0), (8, 0x40 + n), (12, 0)):
                self.write(3, 16 * n + at, value, 4)
        self.write(7, MSIX_CAP + 2, 0x8000, 2)
        self.put(IVAR, 0xCBA98)  # RXQ0, RXQ1, TXQ0, TXQ1, OTHER to vectors 0 to 4
        self.take()


@pytest.fixture
def nic() -> Nic:
    return Nic()


@pytest.fixture
def wire(tmp_path) -> Nic:
    return Nic(tmp_path)


def ones_sum(data: bytes) -> int:
    """The Internet checksum's sum of 16-bit words (RFC 1071), folded."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ip4(protocol: int, payload: bytes, ident: int = 0x1234, fragment: int = 0) -> bytes:
    head = struct.pack(">BBHHHBBH8s", 0x45, 0, 20 + len(payload), ident, fragment, 64, protocol, 0, bytes(range(1, 9)))
    return head[:10] + struct.pack(">H", ones_sum(head) ^ 0xFFFF) + head[12:] + payload


def tcp(data: bytes, flags: int = 0x18, sequence: int = 1000, right: bool = True) -> bytes:
    head = struct.pack(">HHIIBBHHH", 80, 1024, sequence, 0, 0x50, flags, 512, 0, 0)
    total = ones_sum(bytes(range(1, 9)) + struct.pack(">HH", 6, len(head) + len(data)) + head + data)
    return head[:16] + struct.pack(">H", total ^ 0xFFFF if right else 0x1111) + head[18:] + data


# ---------------------------------------------------------------------- 9 configuration space


def test_9_identity_and_capabilities(nic):
    assert nic.config(0) == 0x10D38086 and nic.config(8) == 0x02000000 and nic.config(0x2C) == 0x00008086
    assert nic.config(0x3C) == 0x100
    found, at = [], nic.config(0x34, 1)
    while at:
        found.append((at, nic.config(at, 1)))
        at = nic.config(at + 1, 1)
    assert found == [(PM_CAP, 1), (MSI_CAP, 5), (EXPRESS_CAP, 16), (MSIX_CAP, 17)]
    assert nic.config(AER_CAP) == 0x14020001 and nic.config(SERIAL_CAP) == 0x00010003


def test_9_base_address_registers_have_their_sizes(nic):
    for at, mask in ((0x10, 0xFFFE0000), (0x14, 0xFFFE0000), (0x18, 0xFFFFFFE1), (0x1C, 0xFFFFC000), (0x20, 0)):
        nic.write(7, at, 0xFFFFFFFF, 4)
        assert nic.config(at) == mask


def test_9_the_serial_number_is_the_address():
    nic = Nic(mac="02:11:22:33:44:55")
    assert (nic.config(SERIAL_CAP + 8) << 32 | nic.config(SERIAL_CAP + 4)) == 0x021122FFFF334455


def test_9_a_bus_reset_keeps_power_management_and_error_masks(nic):
    nic.write(7, PM_CAP + 4, 0x100, 2)
    nic.write(7, AER_CAP + 0x14, 0x1000, 4)
    nic.write(7, MSI_CAP + 4, 0xFEE00000, 4)
    nic.reset(1)
    assert nic.config(PM_CAP + 4, 2) == 0x100 and nic.config(AER_CAP + 0x14) == 0x1000
    assert nic.config(MSI_CAP + 4) == 0 and nic.config(4, 2) == 0


def test_the_flash_is_empty_and_the_io_window_reaches_registers(nic):
    assert nic.read(1, 0, 4) == 0
    nic.write(2, 0, ITR, 4)
    nic.write(2, 4, 0x1234, 4)
    assert nic.read(2, 0, 4) == ITR and nic.read(2, 4, 4) == 0x1234 == nic.get(ITR)
    nic.write(2, 0, 0x20000, 4)
    assert nic.read(2, 4, 4) == 0


# ---------------------------------------------------------------------- 10.2 registers


def test_10_2_2_1_ctrl_has_a_second_place_and_rst_puts_the_address_back(nic):
    nic.put(RA, 0x11111111)
    nic.put(4, 0x04140241)
    assert nic.get(CTRL) == 0x00140241 and nic.get(RA) == 0x12005452 and nic.get(RA + 4) == 0x80005634


@pytest.mark.parametrize(
    "ctrl,status", [(0x241, 0x83), (0xA41, 0x83), (0x941, 0x43), (0x841, 0x03), (0x1240, 0x82), (0x1241, 0x83)]
)
def test_10_2_2_2_status_follows_forced_speed_and_duplex(nic, ctrl, status):
    nic.put(CTRL, ctrl)
    assert nic.get(STATUS) & 0xC3 == status


def test_10_2_2_2_phyra_is_set_by_a_phy_reset_and_cleared_by_writing_zero(nic):
    nic.put(CTRL, 0x80140241)
    assert nic.get(STATUS) & 0x400
    nic.put(STATUS, 0x400)
    assert nic.get(STATUS) & 0x400
    nic.put(STATUS, 0)
    assert not nic.get(STATUS) & 0x400


def test_10_2_2_4_nvm_words_and_their_sum(nic):
    words = []
    for n in range(64):
        nic.put(EERD, n << 2 | 1)
        assert nic.get(EERD) & 0xFFFF == n << 2 | 2
        words.append(nic.get(EERD) >> 16)
    assert struct.pack("<3H", *words[:3]) == ME[:6] and words[11] == 0x10D3
    assert sum(words) & 0xFFFF == 0xBABA


def test_10_2_2_4_nvm_can_be_written_and_keeps_it(nic):
    nic.put(EEWR, 0xBEEF << 16 | 20 << 2 | 1)
    for kind in (0, 1):
        nic.reset(kind)
        nic.put(EERD, 20 << 2 | 1)
        assert nic.get(EERD) >> 16 == 0xBEEF
    nic.put(EERD, 64 << 2 | 1)  # there is no such word
    assert nic.get(EERD) == 64 << 2


def test_10_2_2_7_phy_registers_have_pages(nic):
    def phy(n, value=None):
        nic.put(MDIC, 1 << 21 | n << 16 | (1 << 27 if value is None else 1 << 26 | value))
        return nic.get(MDIC)

    assert phy(2) & 0xFFFF == 0x0141 and phy(3) & 0xFFFF == 0x0CB1
    phy(22, 2)
    assert phy(2) & 0xFFFF == 0x0141 and phy(16) & 0xFFFF == 0x0088
    phy(16, 0x1234)
    phy(22, 0)
    assert phy(16) & 0xFFFF == 0x3360
    phy(22, 2)
    assert phy(16) & 0xFFFF == 0x1234
    assert phy(25) & 1 << 30  # not on this page
    phy(22, 9)
    assert phy(16) & 1 << 30  # there is no such page
    assert phy(2, 0) & 1 << 30  # read only


def test_10_2_2_7_another_phy_is_an_error_and_mdi_can_interrupt(nic):
    nic.put(MDIC, 2 << 21 | 1 << 27)
    assert nic.get(MDIC) >> 28 == 0x5
    nic.put(MDIC, 1 << 21 | 2 << 16 | 1 << 27 | 1 << 29)
    assert nic.get(ICS) & MDAC


def test_9_negotiation_takes_half_a_second(nic):
    nic.goto(5 * MS + 7)
    nic.put(MDIC, 1 << 21 | 1 << 26 | 0x1340)
    assert not nic.get(STATUS) & 2
    nic.goto(505 * MS - 1)
    assert not nic.get(STATUS) & 2 and nic.get(ICS) == 0
    nic.step(1)
    assert nic.get(STATUS) & 2 and nic.get(ICS) == LSC | ASSERTED
    assert nic.get(CTRL) & 0x18000000 == 0x18000000  # flow control, as agreed


def test_the_cable(nic):
    nic.set("link", 0)
    assert not nic.get(STATUS) & 2 and nic.get(ICR) & LSC
    nic.set("link", 1)
    nic.step(S)
    assert nic.get(STATUS) & 2 and nic.get(ICR) & LSC


@pytest.mark.parametrize(
    "alias,offset", [(0x40, RA), (0x108, RDTR), (0x118, RDLEN), (0x420, TDBAL), (0x600, VFTA), (0x8010, 0x3410)]
)
def test_registers_seen_at_a_second_place(nic, alias, offset):
    nic.put(alias, 0x780)
    assert nic.get(offset) == nic.get(alias) == 0x780


def test_10_2_3_the_semaphore_is_taken_by_reading(nic):
    assert nic.get(SWSM) == 1
    nic.put(SWSM, 0)
    assert (nic.get(SWSM), nic.get(SWSM)) == (0, 1)


# ---------------------------------------------------------------------- 7.4, 10.2.4 interrupts


def test_10_2_4_1_reading_icr_clears_it(nic):
    nic.put(IMS, LSC)
    nic.put(ICS, LSC | TXDW)
    assert nic.level("inta") and nic.get(ICS) == LSC | TXDW | ASSERTED
    assert nic.get(ICR) == LSC | TXDW | ASSERTED
    assert nic.get(ICR) == 0 and not nic.level("inta")


def test_10_2_4_1_writing_ones_clears_bits_and_other_its_causes(nic):
    nic.put(ICS, LSC | MDAC | TXDW | OTHER)
    nic.put(ICR, TXDW)
    assert nic.get(ICS) == LSC | MDAC | OTHER | ASSERTED
    nic.put(ICR, OTHER)
    assert nic.get(ICS) == 0


def test_10_2_4_5_ims_takes_known_causes(nic):
    nic.put(IMS, 0xFFFFFFFF)
    assert nic.get(IMS) == 0x01F782D7
    nic.put(IMC, 0x97)
    assert nic.get(IMS) == 0x01F78240


def test_10_2_4_8_acknowledging_masks_what_iam_says(nic):
    nic.put(CTRL_EXT, 1 << 27)
    nic.put(IAM, LSC)
    nic.put(IMS, LSC | TXDW)
    nic.put(ICS, LSC)
    nic.put(ICR, LSC)
    assert nic.get(IMS) == TXDW


def test_10_2_4_2_the_second_interrupt_waits_for_itr(nic):
    nic.put(ITR, 1000)
    nic.put(IMS, LSC)
    nic.put(ICS, LSC)
    nic.get(ICR)
    nic.put(ICS, LSC)
    assert not nic.level("inta")
    nic.step(1000 * ITR_NS - 1)
    assert not nic.level("inta")
    nic.step(1)
    assert nic.level("inta") and nic.get(IAC) == 2


def test_10_2_4_2_there_are_at_most_7813_interrupts_a_second(nic):
    assert nic.get(ITR) == 0
    nic.put(IMS, LSC)
    for _ in range(2):
        nic.put(ICS, LSC)
        nic.get(ICR)
    nic.put(ICS, LSC)
    nic.step(500 * ITR_NS - 1)
    assert not nic.level("inta")
    nic.step(1)
    assert nic.level("inta")


def test_assertions_of_a_request_that_stays_are_counted_without_looking(nic):
    nic.put(IMS, LSC)
    nic.put(ICS, LSC)
    nic.put(ICS, LSC)  # held back once: from now on each end of the throttle asserts again
    nic.step(500 * ITR_NS * 10**9)
    assert nic.dut.deadline is None
    assert nic.get(IAC) == 10**9 + 1


def test_7_4_a_message_instead_of_the_pin(nic):
    nic.write(7, MSI_CAP + 4, 0xFEE01000, 4)
    nic.write(7, MSI_CAP + 12, 0x4055, 2)
    nic.write(7, MSI_CAP + 2, 1, 2)
    nic.put(IMS, LSC | MDAC)
    nic.put(ICS, LSC)
    assert nic.messages() == [(0xFEE01000, 0x4055)] and not nic.level("inta")
    nic.put(ICS, LSC)  # it is out already
    nic.put(ICS, MDAC)  # waits for ITR
    assert nic.messages() == []
    nic.step(500 * ITR_NS)
    assert nic.messages() == [(0xFEE01000, 0x4055)]


def test_10_2_4_9_each_cause_has_a_vector(nic):
    nic.enable_msix()
    nic.put(IMS, 0xFFFFFFFF)
    for n, cause in enumerate((RXQ0, RXQ1, TXQ0, TXQ1)):
        nic.put(ICS, cause)
        assert nic.messages() == [(0xFEE00000, 0x40 + n)]
    nic.put(ICS, LSC)
    assert nic.messages() == [(0xFEE00000, 0x44)] and nic.get(ICS) & OTHER
    nic.put(IVAR, 0)  # no vector is valid
    nic.put(ICR, 0xFFFFFFFF)
    nic.put(ICS, RXQ0)
    assert nic.messages() == []


def test_10_2_4_7_eiac_clears_causes_as_the_message_goes(nic):
    nic.enable_msix()
    nic.put(EIAC, RXQ0)
    nic.put(IMS, RXQ0 | RXQ1)
    nic.put(ICS, RXQ0 | RXQ1)
    assert nic.get(ICR) == RXQ1 | ASSERTED and nic.get(IMS) == RXQ1
    nic.put(CTRL_EXT, 1 << 27)  # with IAME the mask stays
    nic.put(IMS, RXQ0)
    nic.put(ICS, RXQ0)
    assert nic.get(IMS) == RXQ0 | RXQ1


def test_10_2_4_3_each_vector_has_a_throttle(nic):
    nic.enable_msix()
    nic.put(EITR, 2000)
    nic.put(EIAC, RXQ0 | RXQ1)
    nic.put(CTRL_EXT, 1 << 27)
    nic.put(IMS, RXQ0 | RXQ1)
    nic.put(ICS, RXQ0)
    nic.put(ICS, RXQ0)
    nic.put(ICS, RXQ1)
    assert nic.messages() == [(0xFEE00000, 0x40), (0xFEE00000, 0x41)]
    nic.step(2000 * ITR_NS - 1)
    assert nic.messages() == []
    nic.step(1)
    assert nic.messages() == [(0xFEE00000, 0x40)]


def test_a_masked_vector_is_pending_and_pbaclr_forgets_it(nic):
    nic.enable_msix()
    nic.write(3, 16 + 12, 1, 4)
    nic.put(IMS, RXQ1)
    nic.put(ICS, RXQ1)
    assert nic.messages() == [] and nic.read(3, 0x2000, 4) == 2
    nic.put(PBACLR, 2)
    assert nic.read(3, 0x2000, 4) == 0


def test_7_4_4_receive_delay_timers(nic):
    nic.listen()
    nic.put(RDTR, 10)
    nic.put(RADV, 15)
    nic.put(IMS, RXT0)
    p = ME + b"\x08\x06" + bytes(50)
    nic.packet(p)
    nic.step(9 * DELAY_NS)
    nic.packet(p)  # RDTR begins again, RADV does not
    nic.step(6 * DELAY_NS - 1)
    assert not nic.level("inta") and nic.get(ICS) == 0
    nic.step(1)
    assert nic.level("inta") and nic.get(ICS) == RXT0 | ASSERTED
    nic.packet(p)
    nic.put(RDTR, 1 << 31 | 10)  # FPD
    assert nic.get(ICR) & RXT0


def test_7_4_4_transmit_delay_timer(nic):
    nic.put(TIDV, 20)
    nic.hold(ME + bytes(60))
    nic.send((TX_BUFFER, 72 | EOP | RS | IDE, 0))
    nic.step(20 * DELAY_NS - 1)
    assert nic.get(ICS) & (TXDW | TXQE) == TXQE  # of the write of TCTL
    nic.step(1)
    assert nic.get(ICS) & TXDW


# ---------------------------------------------------------------------- 7.2 transmission


def test_7_2_a_legacy_descriptor_is_sent_and_written_back(wire):
    p = ME + b"\x88\xb5" + bytes(range(60))
    wire.hold(p)
    wire.send((TX_BUFFER, len(p) | EOP | RS, 0))
    assert wire.sent() == [p]
    assert struct.unpack_from("<QII", wire.ram, TX_RING) == (TX_BUFFER, len(p) | EOP | RS, DD)
    assert wire.get(TDH) == 1 and wire.get(ICS) & (TXDW | TXQE) == TXDW | TXQE
    assert (wire.get(TPT), wire.get(GPTC), wire.get(TOTL), wire.get(TOTH)) == (1, 1, len(p), 0)


def test_7_2_fragments_make_one_packet_and_the_ring_wraps(wire):
    p = ME + b"\x88\xb5" + bytes(range(100))
    wire.hold(p)
    for _ in range(5):
        wire.send((TX_BUFFER, 10, 0), (TX_BUFFER + 10, 0, 0), (TX_BUFFER + 10, len(p) - 10 | EOP, 0))
    assert wire.sent() == [p] * 5 and wire.get(TDH) == 15 % 8


def test_7_2_both_queues_have_rings_of_their_own(wire):
    wire.hold(ME + b"\x88\xb5" + bytes(60))
    wire.send((TX_BUFFER, 60 | EOP | RS, 0), q=QUEUE1)
    assert len(wire.sent()) == 1 and wire.get(TDH + QUEUE1) == 1 and wire.get(TDH) == 0
    wire.put(TARC0 + QUEUE1, 0x3)  # the queue is off
    wire.send((TX_BUFFER, 60 | EOP, 0), q=QUEUE1)
    assert len(wire.sent()) == 1


def test_7_2_10_checksums_where_the_context_says(wire):
    segment = tcp(b"data!", right=False)
    bad = bytearray(ip4(6, segment))
    bad[10:12] = b"\0\0"
    bad[36:38] = struct.pack(">H", ones_sum(bytes(range(1, 9)) + struct.pack(">HH", 6, len(segment))))
    p = ME + b"\x08\x00" + bytes(bad)
    wire.hold(p)
    context = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40
    wire.send((context, DEXT | TCP | IP, 0), (TX_BUFFER, len(p) | DATA | EOP, 0x300))
    assert wire.sent() == [ME + b"\x08\x00" + ip4(6, tcp(b"data!"))]


def test_7_2_10_a_checksum_of_zero_is_written_so_by_ip_and_as_ones_by_udp(wire):
    head = bytearray(ip4(17, bytes(8)))  # a UDP header of zeros
    head[4:6] = head[10:12] = b"\0\0"
    head[4:6] = struct.pack(">H", ones_sum(bytes(head[:20])) ^ 0xFFFF)  # the identification
    head[26:28] = b"\xff\xff"  # what is to be summed up with 0
    p = ME + b"\x08\x00" + bytes(head)
    wire.hold(p)
    context = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 40 << 40
    wire.send((context, DEXT | IP, 0), (TX_BUFFER, len(p) | DATA | EOP, 0x300))
    (sent,) = wire.sent()
    assert sent[24:26] == b"\0\0" and sent[40:42] == b"\xff\xff"


def test_7_2_10_the_packet_in_memory_stays(wire):
    p = ME + b"\x08\x00" + ip4(6, tcp(b"data!", right=False))
    wire.hold(p)
    context = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40
    wire.send((context, DEXT | TCP | IP, 0), (TX_BUFFER, len(p) | DATA | EOP, 0x300))
    assert wire.sent() != [p] and wire.ram[TX_BUFFER : TX_BUFFER + len(p)] == p


def test_7_2_4_segmentation(wire):
    data = bytes(n & 0xFF for n in range(2500))
    pseudo = ones_sum(bytes(range(1, 9)) + struct.pack(">H", 6))
    head = bytearray(ME + b"\x08\x00" + ip4(6, tcp(b"", 0x19, right=False)))
    head[16:18] = head[24:26] = b"\0\0"
    head[50:52] = struct.pack(">H", pseudo)
    wire.hold(bytes(head) + data)
    context = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40
    wire.send(
        (context, DEXT | TCP | IP | TSE | len(data), 54 << 8 | 1000 << 16),
        (TX_BUFFER, 54 + len(data) | DATA | TSE | EOP | RS, 0x300),
    )
    want = [
        ME + b"\x08\x00" + ip4(6, tcp(data[at : at + 1000], flags, 1000 + at), 0x1234 + n)
        for n, (at, flags) in enumerate(((0, 0x10), (1000, 0x10), (2000, 0x19)))
    ]
    assert wire.sent() == want
    assert wire.get(TSCTC) == 1 and wire.get(TPT) == 1  # counted as one, as in the reference


@pytest.mark.parametrize("header,mss", [(54, 0), (200, 100), (13, 100), (20, 100)])
def test_7_2_4_a_segmentation_that_makes_no_sense_sends_nothing(wire, header, mss):
    wire.hold(ME + b"\x08\x00" + ip4(6, tcp(bytes(80))))
    wire.send(
        (14 | 34 << 32, DEXT | TCP | IP | TSE, header << 8 | mss << 16), (TX_BUFFER, 134 | DATA | TSE | EOP | RS, 0)
    )
    assert wire.sent() == [] and wire.get(TPT) == 0
    assert wire.ram[TX_RING + 28] & DD  # but the descriptor is done


def test_7_5_tags_go_in_and_come_out(tmp_path):
    nic = Nic(tmp_path, backend="loopback")
    nic.put(CTRL, 0x40140241)
    nic.listen(EN | UPE | SECRC)
    p = ME + b"\x88\xb5" + bytes(range(60))
    nic.hold(p)
    nic.send((TX_BUFFER, len(p) | EOP | VLE, 0x2005 << 16))
    assert nic.sent()[0] == p[:12] + b"\x81\x00\x20\x05" + p[12:]
    assert nic.data(0, len(p)) == p
    assert nic.descriptor(0)[1] == len(p) | (DD | RX_EOP | VP) << 32 | 0x2005 << 48


@pytest.mark.parametrize("mac", [True, False])
def test_10_2_5_1_loopback_in_the_mac_and_in_the_phy(wire, mac):
    wire.listen(EN | SECRC | (LBM if mac else 0))
    if not mac:
        wire.put(MDIC, 1 << 21 | 1 << 26 | 0x5140)
    p = ME + b"\x88\xb5" + bytes(60)
    wire.hold(p)
    wire.send((TX_BUFFER, len(p) | EOP, 0))
    assert wire.sent() == [] and wire.data(0, len(p)) == p and wire.get(GPRC) == 1


def test_10_2_5_1_what_turns_around_is_no_overrun_where_nothing_is_received(wire):
    wire.listen(EN | SECRC | LBM | 3 << 16)
    p = ME + b"\x88\xb5" + bytes(600)
    wire.hold(p)
    wire.put(RDT, wire.get(RDH))  # no descriptor: not ready
    wire.send((TX_BUFFER, len(p) | EOP, 0))
    assert not wire.get(ICR) & (RXO | RXT0) and wire.get(GPTC) == 1
    wire.put(RDT, wire.get(RDH) + 1)  # one, which is too little
    wire.send((TX_BUFFER, len(p) | EOP, 0))
    assert wire.get(ICR) & (RXO | RXT0) == RXO
    wire.send((TX_BUFFER, len(p) | EOP, 0))  # after an overrun nothing is tried ...
    assert not wire.get(ICR) & (RXO | RXT0)
    wire.put(RDT, wire.get(RDH) + 1)  # ... until descriptors come
    wire.send((TX_BUFFER, len(p) | EOP, 0))
    assert wire.get(ICR) & (RXO | RXT0) == RXO


@pytest.mark.parametrize(
    "data", [ME[:10], ME + b"\x08\x00" + bytes(10), ME + b"\x08\x00\x4f" + bytes(40), ME + b"\x86\xdd" + bytes(20)]
)
def test_packets_whose_headers_do_not_end_are_not_sent(wire, data):
    wire.hold(data)
    wire.send((TX_BUFFER, len(data) | EOP | RS, 0))
    assert wire.sent() == [] and wire.get(TPT) == 0 and wire.get(TDH) == 1


def test_a_packet_of_more_than_64_fragments_is_not_sent(wire):
    wire.hold(ME + b"\x88\xb5" + bytes(500))
    for _ in range(65):
        wire.send((TX_BUFFER, 16, 0))
    wire.send((TX_BUFFER, 16 | EOP, 0))
    wire.send((TX_BUFFER, 60 | EOP, 0))
    assert [len(p) for p in wire.sent()] == [60]


def test_addresses_outside_ram_read_as_zeros(wire):
    wire.send((1 << 40, 60 | EOP | RS, 0))
    assert wire.sent() == [bytes(60)]


def test_a_tail_outside_the_ring_stops_the_queue(wire):
    wire.hold(ME + bytes(60))
    wire.put(TCTL, EN)
    wire.put(TDT, 8)
    assert wire.get(TDH) == 0 and wire.sent() == []


def test_more_than_16_mib_at_once_leave_at_the_pace_of_the_wire(nic):
    nic.put(TDLEN, 0xFFF80)
    nic.put(TDBAL, 0)  # every descriptor is what lies there: zeros and buffers
    for n in range(0, 1 << 20, 16):
        struct.pack_into("<QII", nic.ram, n, 0x1000, 0x8000 | EOP, 0)
    nic.put(TCTL, EN)
    nic.put(TDT, 4000)
    assert 500 < nic.get(TDH) < 600 and nic.get(ICS) & TXQE  # TXQE is of TCTL
    nic.get(ICR)
    nic.step(S)
    assert nic.get(TDH) == 4000 and nic.get(ICS) & TXQE


def test_packets_that_are_not_sent_take_their_time_too(nic):
    nic.put(TDLEN, 0xFFF80)
    nic.put(TDBAL, 0)
    for n in range(0, 1 << 20, 32):
        struct.pack_into("<QIIQII", nic.ram, n, 0x1000, 0xF000, 0, 0x1000, 0xF000 | EOP, 0)
    nic.put(TCTL, EN)
    nic.put(TDT, 4000)
    assert 500 < nic.get(TDH) < 600 and nic.get(TPT) == 0


# ---------------------------------------------------------------------- 7.1 reception


def test_7_1_4_a_packet_goes_to_the_next_buffer(nic):
    nic.listen(EN)
    p = ME + b"\x88\xb5" + bytes(range(100))
    assert nic.packet(p) == 1
    assert nic.data(0, len(p) + 5) == p + bytes(5)
    assert nic.descriptor(0)[1] == len(p) + 4 | (DD | RX_EOP) << 32  # the FCS counts, as zeros
    assert (nic.get(RDH), nic.get(TPR), nic.get(TORL), nic.get(ICS)) == (1, 1, len(p) + 4, RXT0 | ASSERTED)


def test_7_1_short_packets_are_padded(nic):
    nic.listen()
    nic.packet(ME + b"\x88\xb5ab")
    assert nic.descriptor(0)[1] & 0xFFFF == 60 and nic.get(RUC) == 1


def test_7_1_7_2_descriptors_without_a_buffer_are_skipped(nic):
    nic.listen()
    struct.pack_into("<QQ", nic.ram, RX_RING, 0, 0)
    nic.packet(ME + b"\x88\xb5" + bytes(60))
    assert nic.descriptor(0)[1] >> 32 & 0xFF == DD
    assert nic.descriptor(1)[1] >> 32 & 0xFF == DD | RX_EOP and nic.get(RDH) == 2


def test_7_1_a_packet_fills_several_buffers(nic):
    nic.listen(EN | SECRC | 3 << 16)
    p = ME + b"\x88\xb5" + bytes(n & 0xFF for n in range(600))
    nic.packet(p)
    assert [nic.descriptor(n)[1] for n in range(3)] == [256 | DD << 32, 256 | DD << 32, 102 | (DD | RX_EOP) << 32]
    assert b"".join(nic.data(n, 256) for n in range(3))[: len(p)] == p


def test_without_room_a_packet_may_be_offered_again(nic):
    nic.listen(EN | SECRC | 3 << 16)
    nic.put(RDT, 1)
    p = ME + b"\x88\xb5" + bytes(600)
    assert nic.packet(p) == 0 and nic.get(ICR) & RXO
    nic.put(RDT, 7)
    assert nic.packet(p) == 1
    nic.put(RDT, nic.get(RDH))
    assert nic.packet(p) == 0 and not nic.get(ICR) & RXO  # the receiver is not ready at all


def test_10_2_5_1_the_threshold_is_seen_as_it_is_reached(nic):
    nic.listen()
    seen = []
    for _ in range(6):
        nic.packet(ME + b"\x88\xb5" + bytes(60))
        seen.append(bool(nic.get(ICR) & RXDMT0))
    assert seen == [False, False, True, False, False, False]  # half of the ring: four


@pytest.mark.parametrize(
    "dest,rctl,taken",
    [
        ("525400123456", 0, 1),
        ("525400123457", 0, 0),
        ("525400123457", UPE, 1),
        ("ffffffffffff", 0, 0),
        ("ffffffffffff", BAM, 1),
        ("01005e000001", 0, 0),
        ("01005e000001", MPE, 1),
        ("020000000007", 0, 1),  # the second address
        ("01005e00abcd", 0, 1),  # the multicast table
    ],
)
def test_7_1_1_address_filters(nic, dest, rctl, taken):
    nic.put(RA + 8, 0x00000002)
    nic.put(RA + 12, 0x80000700)
    nic.put(MTA + 4 * (0xCDA >> 5), 1 << (0xCDA & 31))
    nic.listen(EN | SECRC | rctl)
    nic.packet(bytes.fromhex(dest) + bytes.fromhex("020000000001") + b"\x88\xb5" + bytes(60))
    assert nic.get(TPR) == taken


def test_7_5_the_vlan_filter(nic):
    nic.put(VFTA, 1 << 5)
    nic.listen(EN | SECRC | VFE)
    for vlan in (5, 6, 37):
        nic.packet(ME + b"\x81\x00" + struct.pack(">H", vlan) + b"\x88\xb5" + bytes(60))
    assert nic.get(TPR) == 1
    nic.packet(ME + b"\x88\xb5" + bytes(60))
    assert nic.get(TPR) == 1


@pytest.mark.parametrize(
    "size,rctl,taken", [(1522, 0, 1), (1523, 0, 0), (1523, SBP, 1), (9000, LPE, 1), (16385, LPE, 0)]
)
def test_7_1_long_packets(nic, size, rctl, taken):
    nic.listen(EN | SECRC | rctl)
    nic.packet(ME + b"\x88\xb5" + bytes(size - 14))
    assert (nic.get(TPR), nic.get(ROC)) == (taken, 1 - taken)


@pytest.mark.parametrize(
    "payload,status",
    [
        (tcp(b"x"), IPCS | TCPCS),
        (tcp(b"x", right=False), IPCS | TCPCS | TCPE),
        (struct.pack(">HHHH", 1, 2, 9, 0) + b"x", IPCS),  # a UDP datagram without a checksum
    ],
)
def test_7_1_9_checksums_are_checked(nic, payload, status):
    nic.put(RFCTL, EXTEN)
    nic.listen()
    nic.packet(ME + b"\x08\x00" + ip4(6 if len(payload) > 12 else 17, payload))
    got = nic.descriptor(0)[1] & 0xFFFFFFFF
    assert got & (IPCS | TCPCS | IPE | TCPE) == status
    assert (
        got >> 16 & 0xF == 2 and got & 0x200 and nic.descriptor(0)[0] >> 32 & 0xFFFF == 0x1234
    )  # type, identification


def test_7_1_9_a_wrong_header_checksum(nic):
    nic.put(RFCTL, EXTEN)
    nic.listen()
    p = bytearray(ME + b"\x08\x00" + ip4(1, bytes(40)))
    p[24] ^= 1
    nic.packet(bytes(p))
    assert nic.descriptor(0)[1] & (IPCS | IPE) == IPCS | IPE
    nic.put(RXCSUM, 0)
    nic.packet(bytes(p))
    assert nic.descriptor(1)[1] & (IPCS | IPE) == 0


def test_7_1_11_rss_hashes_as_microsoft_does(nic):
    key = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
    for n in range(10):
        nic.put(RSSRK + 4 * n, int.from_bytes(key[4 * n : 4 * n + 4], "little"))
    nic.put(RETA + (0x51CCC178 & 0x7C), 0x80 << 8 * (0x51CCC178 & 3))
    nic.put(MRQC, 1 | 1 << 16)
    nic.put(RXCSUM, PCSD)
    nic.put(RFCTL, EXTEN)
    nic.listen()
    nic.listen(q=QUEUE1)
    head = bytearray(ip4(6, b""))
    head[12:20] = bytes((66, 9, 149, 187, 161, 142, 100, 80))
    nic.packet(ME + b"\x08\x00" + bytes(head) + struct.pack(">HH", 2794, 1766) + tcp(b"")[4:])
    assert nic.get(RDH) == 0 and nic.get(RDH + QUEUE1) == 1
    assert nic.descriptor(0, QUEUE1)[0] == 1 | 1 << 8 | 0x51CCC178 << 32


def test_7_1_10_headers_go_to_a_buffer_of_their_own(nic):
    nic.put(RFCTL, EXTEN)
    nic.put(PSRCTL, 1 | 1 << 8)  # 128 bytes, then 1 KiB
    nic.listen(EN | SECRC | DTYP_PS)
    struct.pack_into("<QQQQ", nic.ram, RX_RING, nic.buffer(0), nic.buffer(1), 0, 0)
    p = ME + b"\x08\x00" + ip4(6, tcp(bytes(range(200))))
    nic.packet(p)
    assert nic.data(0, 54) == p[:54] and nic.data(1, 200) == p[54:]
    words = struct.unpack_from("<8H", nic.ram, RX_RING + 16)
    assert words[:2] == (54 | 0x8000, 200) and nic.get(RDH) == 2
    assert nic.descriptor(0)[1] >> 32 & 0xFFFF == 54


def test_a_head_that_never_meets_the_tail_ends(nic):
    nic.put(RFCTL, EXTEN)
    nic.listen(EN | SECRC | DTYP_PS)
    nic.ram[RX_RING : RX_RING + 128] = bytes(128)  # no buffers, and an odd tail for steps of two
    nic.packet(ME + b"\x88\xb5" + bytes(60))
    assert nic.get(TPR) == 0


def test_10_2_5_small_packets_and_acknowledgements_are_causes(nic):
    nic.put(RSRPD, 100)
    nic.listen()
    nic.packet(ME + b"\x08\x00" + ip4(6, tcp(b"")))
    assert nic.get(ICR) & (SRPD | ACK) == SRPD | ACK
    nic.put(RFCTL, 1 << 12)  # ACK_DIS
    nic.packet(ME + b"\x08\x00" + ip4(6, tcp(bytes(100))))
    assert nic.get(ICR) & (SRPD | ACK) == 0


def test_10_2_4_1_a_fragment_has_the_ack_of_the_last_header(nic):
    nic.listen()
    for flags, ack in ((0x18, ACK), (0x08, 0)):
        nic.packet(ME + b"\x08\x00" + ip4(6, tcp(bytes(20), flags)))
        assert nic.get(ICR) & ACK == ack
        nic.packet(ME + b"\x08\x00" + ip4(17, bytes(40)))
        assert not nic.get(ICR) & ACK
        nic.packet(ME + b"\x08\x00" + ip4(6, bytes(40), fragment=0x2000))
        assert nic.get(ICR) & ACK == ack


def test_10_2_5_2_buffers_of_no_size_are_not_taken(nic):
    nic.put(PSRCTL, 0x040000)
    assert nic.get(PSRCTL) == 0x040000
    nic.put(RCTL, EN | DTYP_PS)
    for value in (0x0400, 0x0004):
        nic.put(PSRCTL, value)
        assert nic.get(PSRCTL) == 0x040000
    nic.put(PSRCTL, 0x0404)
    assert nic.get(PSRCTL) == 0x0404


def test_no_packet_comes_in_while_the_receiver_is_off(nic):
    p = ME + b"\x88\xb5" + bytes(60)
    assert nic.packet(p) == 0
    nic.listen()
    nic.write(7, 4, 3, 2)  # no bus master
    assert nic.packet(p) == 0
    nic.write(7, 4, 7, 2)
    assert nic.packet(p) == 1


# ---------------------------------------------------------------------- 10.2.7 statistics, state, settings


def test_10_2_7_reading_the_upper_half_clears_both(nic):
    nic.listen()
    nic.packet(EVERYONE + b"\x88\xb5" + bytes(86))
    assert (nic.get(PRC127), nic.get(BPRC), nic.get(BPRC), nic.get(TORL)) == (1, 1, 0, 104)
    assert nic.get(TORH) == 0 and nic.get(TORL) == 0 and nic.get(GORCL) == 104


def test_save_and_restore_in_the_middle_of_a_packet(wire, tmp_path):
    p = ME + b"\x88\xb5" + bytes(range(80))
    wire.hold(p)
    wire.send((TX_BUFFER, 20, 0))
    other = Nic(tmp_path)
    other.ram[:] = wire.ram
    other.dut.restore(wire.dut.save())
    other.send((TX_BUFFER + 20, len(p) - 20 | EOP, 0))
    assert other.sent() == [p]


@pytest.mark.parametrize("field,value", [("tx1_n", 65), ("rx_desc_len", 8)])
def test_states_that_no_register_makes_are_refused(nic, field, value):
    with pytest.raises(StateError, match=field):
        nic.dut.restore(nic.dut.save() | {field: value})


def test_settings_are_checked():
    with pytest.raises(MachineError, match="station address"):
        E1000E("nic", mac="01:00:00:00:00:00")
