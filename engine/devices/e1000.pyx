"""Intel 82540EM: one gigabit Ethernet port as a PCI function, with MAC, serial EEPROM and internal PHY.

Document: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, 317453 ("SDM").  Modelled: the
registers below, EEPROM by EERD and by bits, PHY, auto-negotiation and link, the descriptor rings with checksums,
segmentation and VLAN tags, address and VLAN filters, statistics, interrupt causes and the pause between interrupts.
Not modelled, and deviations, as in the reference: docs/devices/e1000.md.  Called by the owning worker only.
"""
cimport cython
from libc.string cimport memcpy, memmove, memset

from engine._device cimport IO_OK, NEVER, RESET_POWER_ON
from engine.devices._net cimport add16, add32, be16, is_broadcast, put16, put_checksum
from engine.pci._config cimport ROM_BAR
from engine.pci.regs cimport COMMAND, COMMAND_MASTER

from engine.devices._e1000_common import (ALL, CONTEXT_STATE, E1000_CONFIG, ERRORS, FIFO, READ_CLEARS, READ_CLEARS_PAIR, SIZES,
                                          how_read, rom)
from engine.devices._net import NET_STATE
from engine.errors import StateError
from engine.pci._config import PCI_STATE
from engine.types import RC, RO, RW, WO, Register, Space

cdef enum:
    DEVICE_82540EM = 0x100E
    RX_START_MS = 1000          # the reference lets a guest finish its set-up after each write of RCTL
    DELAY_UNITS = 4             # INTERRUPT_UNITs in one of RADV and TADV, SDM 13.4.31

cdef enum:
    TX_PLAIN = 0                # tx_context without segmentation
    TX_TSO = 1

# ---------------------------------------------------------------------- what the registers are


def _sdm(section, *rows):
    """(name, offset, access, reset, wmask, side effects) with consecutive sections."""
    chapter, _, number = section.rpartition(".")
    return tuple(Register(name, offset, 32, access, reset, wmask, effects, f"SDM {chapter}.{int(number) + i}")
                 for i, (name, offset, access, reset, wmask, effects) in enumerate(rows))


def _words(section, name, offset, n, wmask=ALL, reset=0):
    return tuple(Register(f"{name}{i}", offset + 4 * i, 32, RW, reset, wmask, "", f"SDM {section}") for i in range(n))


def _stat(name, offset, access=RO, wmask=0, effects=""):
    return (name, offset, access, 0, wmask, effects)


_REGISTERS = (
    *_sdm("13.4.1", ("CTRL", CTRL, RW, CTRL_RESET, CTRL_WMASK, "")),
    *_sdm("13.4.2", ("STATUS", STATUS, RO, STATUS_RESET, 0, "")),
    *_sdm("13.4.3", ("EECD", EECD, RW, EECD_FIXED | EECD_DO, EECD_WMASK, "clocks the EEPROM"),
          ("EERD", EERD, RW, 0, ALL ^ EERD_START, "reads the EEPROM")),
    *_sdm("13.4.7", ("MDIC", MDIC, RW, 0, 0, "reaches the PHY")),
    *_sdm("13.4.11", ("VET", VET, RW, 0x8100, ALL, "")),
    *_sdm("13.4.15", ("LEDCTL", LEDCTL, RW, 0x602, ALL, ""), ("PBA", PBA, RW, 0x00100030, ALL, ""),
          ("ICR", ICR, RC, 0, 0, "reading clears it, writing ones clears bits"),
          ("ITR", ITR, RW, 0, 0xFFFF, ""), ("ICS", ICS, RW, 0, 0, "sets bits of ICR"),
          ("IMS", IMS, RW, 0, 0, "ones set bits of the mask"), ("IMC", IMC, WO, None, 0, "ones clear bits of IMS"),
          ("RCTL", RCTL, RW, 0, ALL, "")),
    *_sdm("13.4.25", ("RDBAL", RDBAL, RW, 0, ALL, ""), ("RDBAH", RDBAH, RW, 0, ALL, ""),
          ("RDLEN", RDLEN, RW, 0, 0xFFF80, ""), ("RDH", RDH, RW, 0, 0xFFFF, ""), ("RDT", RDT, RW, 0, 0xFFFF, ""), 
          ("RDTR", RDTR, RW, 0, 0xFFFF, ""), ("RADV", RADV, RW, 0, 0xFFFF, "")),
    *_sdm("13.4.33", ("TCTL", TCTL, RW, 0, ALL, "transmits")),
    *_sdm("13.4.35", ("AIT", AIT, RW, 0, 0xFFFF, ""), ("TDBAL", TDBAL, RW, 0, ALL, ""),
          ("TDBAH", TDBAH, RW, 0, ALL, ""), ("TDLEN", TDLEN, RW, 0, 0xFFF80, ""), ("TDH", TDH, RW, 0, 0xFFFF, ""),
          ("TDT", TDT, RW, 0, 0xFFFF, "transmits")),
    *_sdm("13.4.43", ("TXDCTL", TXDCTL, RW, 0, ALL, ""), ("TADV", TADV, RW, 0, 0xFFFF, "")),
    *_words("13.5.1", "MTA", MTA, 128),
    *(r for i in range(16) for r in (
        Register(f"RAL{i}", RA + 8 * i, 32, RW, None if i == 0 else 0, ALL, "", "SDM 13.5.2"),
        Register(f"RAH{i}", RA + 8 * i + 4, 32, RW, None if i == 0 else 0, ALL, "", "SDM 13.5.3"))),
    *_words("13.5.4", "VFTA", VFTA, 128),
    *_sdm("13.6.1", ("WUC", WUC, RW, 0, ALL, ""), ("WUFC", WUFC, RW, 0, ALL, ""), ("WUS", WUS, RW, 0, ALL, ""),
          ("IPAV", IPAV, RW, 0, ALL, "")),
    *_words("13.6.5", "IP4AT", IP4AT, 7), *_words("13.6.6", "IP6AT", IP6AT, 4),
    *_words("13.6.8", "WUPM", WUPM, 32), *_words("13.6.9", "FFLT", FFLT, 7, 0x7FF),
    *_words("13.6.10", "FFMT", FFMT, 255, 0xF), *_words("13.6.11", "FFVT", FFVT, 255),
    *_sdm("13.7.1", *(_stat(n, CRCERRS + 4 * i) for i, n in enumerate(ERRORS))),
    *_sdm("13.7.20", _stat("FCRUC", FCRUC, RW, ALL),
          *(_stat(f"PRC{n}", PRC64 + 4 * i, RC, effects=READ_CLEARS) for i, n in enumerate(SIZES)),
          *(_stat(n, GPRC + 4 * i, RC, effects=READ_CLEARS) for i, n in enumerate(("GPRC", "BPRC", "MPRC", "GPTC")))),
    *_sdm("13.7.31", _stat("GORCL", GORCL)), *_sdm("13.7.31", _stat("GORCH", GORCH, RC, effects=READ_CLEARS_PAIR)),
    *_sdm("13.7.32", _stat("GOTCL", GOTCL)),
    *_sdm("13.7.32", _stat("GOTCH", GOTCH, RC, effects=READ_CLEARS_PAIR), _stat("RNBC", RNBC), _stat("RUC", RUC, RC, effects=READ_CLEARS)),
    *_sdm("13.7.36", _stat("ROC", ROC, RC, effects=READ_CLEARS)),
    *_sdm("13.7.41", _stat("TORL", TORL)), *_sdm("13.7.41", _stat("TORH", TORH, RC, effects=READ_CLEARS_PAIR)),
    *_sdm("13.7.42", _stat("TOTL", TOTL)), *_sdm("13.7.42", _stat("TOTH", TOTH, RC, effects=READ_CLEARS_PAIR),
          _stat("TPR", TPR, RC, effects=READ_CLEARS), _stat("TPT", TPT, RC, effects=READ_CLEARS),
          *(_stat(f"PTC{n}", PTC64 + 4 * i, RC, effects=READ_CLEARS) for i, n in enumerate(SIZES)),
          *(_stat(n, MPTC + 4 * i, RC, effects=READ_CLEARS) for i, n in enumerate(("MPTC", "BPTC", "TSCTC")))),
    *_sdm("13.8.1", *((f"RDF{n}", RDFH + 8 * i, RW, 0, 0x1FFF, "") for i, n in enumerate(FIFO)),
          *((f"TDF{n}", TDFH + 8 * i, RW, 0, 0x7FF if i < 2 else 0x1FFF, "") for i, n in enumerate(FIFO)),
          ("PBM", PBM, RW, 0, ALL, "first of 16,384 words")),
    Register("MANC", MANC, 32, RO, 0x00222300, 0, "", "82540EM: management control; not in the SDM"),
    Register("SWSM", SWSM, 32, RW, 0, ALL, "", "8257x: software semaphore; not in the SDM"),
)

cdef uint8_t HOW[0x2700]
cdef uint32_t WMASK[0x2700]
for _r in _REGISTERS:
    if _r.offset < FILTERS_END:
        HOW[_r.offset >> 2] = how_read(_r)
        WMASK[_r.offset >> 2] = _r.wmask

# EEPROM image but for the address and the checksum: SDM 5.6.
_EEPROM = (
    0, 0, 0, 0, 0xFFFF, 0, 0, 0,
    0x3000, 0x1000, 0x6403, DEVICE_82540EM, VENDOR_INTEL, DEVICE_82540EM, VENDOR_INTEL, 0x3040,
    0x0008, 0x2000, 0x7E14, 0x0048, 0x1000, 0x00D8, 0x0000, 0x2700,
    0x6CC9, 0x3150, 0x0722, 0x040B, 0x0984, 0x0000, 0xC000, 0x0706,
    0x1008, 0x0000, 0x0F04, 0x7FFF, 0x4D01, *11 * (0xFFFF,),
    0x0100, 0x4000, 0x121C, *12 * (0xFFFF,))

# PHY registers: reset value, readable, writable.  SDM 13.4.7.1.
_PHY = {
    PCTRL: (0x1140, 1, 1), PSTATUS: (0x794D, 1, 0), 2: (0x0141, 1, 0), 3: (0x0C20, 1, 0), ANA: (0x0DE1, 1, 1),
    LPA: (0x01E0, 1, 0), 6: (0, 1, 0), 9: (0x0E00, 1, 1), 10: (0x3C00, 1, 0), 16: (0x0360, 1, 1), 17: (0xAC00, 1, 0),
    20: (0x0D60, 1, 1), 21: (0, 1, 0)}
cdef uint16_t PHY_RESET[32]
cdef uint8_t PHY_READABLE[32]
cdef uint8_t PHY_WRITABLE[32]
for _n, (_value, _readable, _writable) in _PHY.items():
    PHY_RESET[_n], PHY_READABLE[_n], PHY_WRITABLE[_n] = _value, _readable, _writable

_CONTEXTS = tuple((f"tx{n}_{f[0]}", *f[1:]) for n in range(2) for f in (*CONTEXT_STATE, ("pad", "u1")))


@cython.final
cdef class E1000(E1000Common):
    """The function.

    mac         the station's address, kept in the EEPROM
    io_window   IOADDR and IODATA work as SDM 13.2.2 says; the reference's do nothing
    and what the cable is plugged into: engine.devices._net

    INPUT_PACKET answers 1 if the packet was taken, filtered out or lost, and 0 if the receiver is not ready and the packet
    may be offered again.
    """
    TITLE = "Intel 82540EM gigabit Ethernet controller"
    REGISTERS = _REGISTERS
    UNSEEN = ("filters", "packet_buffer", "tx_data", "tx_header")
    VERSION = 2
    CONFIG = {**E1000_CONFIG, "io_window": False}
    STATE = PCI_STATE + NET_STATE + (
        ("autoneg_at", "u8"), ("mit_at", "u8"), ("tx_at", "u8"), ("rx_at", "u8"),
        ("mac", "u4", MAC_END // 4), ("filters", "u4", FILTER_WORDS), ("packet_buffer", "u8", 8192),
        ("phy", "u2", PHY_REGS), ("io_addr", "u4"), ("eecd", "u4"), ("eeprom_in", "u4"), ("eeprom_n", "u2"), ("eeprom_out", "u2"),
        ("eeprom_reading", "u1"), ("link", "u1"), ("mit_level", "u1"), ("mit_ide", "u1"),
        ("tx_start", "u4"), ("tx_size", "u4"), ("tx_frames", "u2"), ("tx_popts", "u1"), ("tx_tse", "u1"),
        ("tx_vlan", "u1"), ("tx_pad", "u1", 3), *_CONTEXTS,
        ("tx_header", "u1", 256), ("vlan_tag", "u1", 4), ("tx_room", "u8"), ("tx_data", "u8", FRAME_MAX // 8))

    def __init__(self, str id="e1000", uint32_t rank=0, arena=None, dma=None, **config):
        E1000Common.__init__(self, id, rank, arena, dma, **config)
        self.io_window = self.config["io_window"]
        for n, w in enumerate(rom(_EEPROM, self.station())):
            self.eeprom[n] = w
        self.s = <e1000_state *>self.pci_alloc(sizeof(e1000_state))
        self.m, self.phy, self.autoneg_at, self.link = self.s.mac, self.s.phy, &self.s.autoneg_at, &self.s.link
        self.net.keep_in(&self.s.net)
        self.identify(VENDOR_INTEL, DEVICE_82540EM, 3, 0x020000, 1)
        self.add_bar(MMIO, Space.MMIO, 0x20000, name="e1000-mmio", implements=(4, 4))
        self.add_bar(IO, Space.PIO, 64, name="e1000-io")
        self.plug_rom()
        self.power_on()

    # ------------------------------------------------------------------ reset

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """SDM 14.2.  The EEPROM's shift register has no reset, and the cable stays where it is."""
        cdef e1000_state *s = self.s
        PciFunction.on_reset(self, kind)
        if kind == RESET_POWER_ON:
            s.link = 1
            s.eecd = s.eeprom_in = s.eeprom_n = s.eeprom_out = s.eeprom_reading = 0
        s.autoneg_at = s.mit_at = s.tx_at = NEVER
        s.rx_at = 0
        memset(s.mac, 0, sizeof(s.mac))
        memset(s.filters, 0, sizeof(s.filters))
        memset(s.packet_buffer, 0, sizeof(s.packet_buffer))
        memcpy(s.phy, PHY_RESET, sizeof(s.phy))
        s.io_addr = 0
        s.mit_level = s.mit_ide = 0
        memset(&s.tx_start, 0, sizeof(e1000_state) - <size_t>(<uint8_t *>&s.tx_start - <uint8_t *>s))
        s.mac[CTRL >> 2] = CTRL_RESET
        s.mac[STATUS >> 2] = <uint32_t>STATUS_RESET
        s.mac[LEDCTL >> 2] = 0x602
        s.mac[PBA >> 2] = 0x00100030
        s.mac[MANC >> 2] = 0x00222300
        s.mac[VET >> 2] = 0x8100
        self.put_address()
        if not s.link:
            self.link_down()
        self.publish()

    def restore(self, dict state not None):
        """As Device.restore.  Raises StateError, too, for more in the transmitter than it can hold."""
        size = state.get("tx_size")
        if isinstance(size, int) and size >= FRAME_MAX:
            raise StateError(f"{self.id}: field tx_size: {size} bytes in a transmitter of {FRAME_MAX}")
        PciFunction.restore(self, state)

    # ------------------------------------------------------------------ accesses

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = 0
        if region == MMIO:
            value[0] = self.mmio_read(offset & ~<uint32_t>3)
        elif region == IO and self.io_window:
            if offset & ~<uint32_t>3 == IOADDR:
                value[0] = self.s.io_addr >> 8 * (offset & 3)
            elif offset == IODATA and size == 4 and self.s.io_addr < 0x20000:
                value[0] = self.mmio_read(self.s.io_addr & ~<uint32_t>3)
        elif region == ROM_BAR:
            return self.rom_read(offset, size, value)
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == MMIO:
            self.mmio_write(offset & ~<uint32_t>3, <uint32_t>value)
        elif region == IO and self.io_window and size == 4:
            if offset == IOADDR:
                self.s.io_addr = value & 0xFFFFF
            elif offset == IODATA and self.s.io_addr < 0x20000:
                self.mmio_write(self.s.io_addr & ~<uint32_t>3, <uint32_t>value)
        return IO_OK

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        if self.net.outside:                    # bus mastering may let frames in
            self.publish()

    cdef uint32_t *word(self, uint32_t offset) noexcept nogil:
        """Where a register's value is kept; `offset` is one that HOW or WMASK knows, or in packet buffer memory."""
        if offset < MAC_END:
            return &self.s.mac[offset >> 2]
        if offset < FILTERS_END:
            return &self.s.filters[(offset - FFMT) >> 3 & 0x100 | offset >> 2 & 0xFF]
        return <uint32_t *>self.s.packet_buffer + ((offset - PBM) >> 2)

    cdef uint32_t mmio_read(self, uint32_t offset) noexcept nogil:
        cdef uint32_t value
        cdef uint32_t *r
        cdef uint8_t how
        if offset >= PBM:
            return self.word(offset)[0]
        how = HOW[offset >> 2] if offset < FILTERS_END else <uint8_t>ABSENT
        if how == ABSENT:
            return 0
        if offset == EECD:
            return self.read_eecd()
        if offset == EERD:
            return self.read_eerd()
        r = self.word(offset)
        value = r[0]
        if how == PLAIN:
            return value
        if offset == ICR:
            self.set_causes(0)
            return value
        r[0] = 0
        if how == CLEARS_PAIR:
            (r - 1)[0] = 0
        return value

    cdef void mmio_write(self, uint32_t offset, uint32_t value) noexcept nogil:
        cdef uint32_t *m = self.s.mac
        cdef bint was_ready
        if self.net.outside:
            self.net.busy(self.core.now)
        if offset == EECD:
            self.write_eecd(value)
        elif offset == EERD:
            m[EERD >> 2] = value
        elif offset == MDIC:
            self.write_mdic(value)
        elif offset == ICR:
            self.set_causes(m[ICR >> 2] & ~value)
        elif offset == ICS:
            self.add_causes(value)
        elif offset == IMS:
            m[IMS >> 2] |= value
            self.add_causes(0)
        elif offset == IMC:
            m[IMS >> 2] &= ~value
            self.add_causes(0)
        elif offset == RCTL:
            m[RCTL >> 2] = value
            self.s.rx_at = (self.core.now // MS + RX_START_MS) * MS
            if self.net.outside:
                self.publish()
        elif offset == RDT and self.net.outside:
            was_ready = self.ready()
            m[RDT >> 2] = value & 0xFFFF
            if not was_ready:
                self.hear()
        elif offset == TCTL:
            m[TCTL >> 2] = value
            self.start_transmit()
        elif offset == TDT:
            m[TDT >> 2] = value & 0xFFFF
            self.start_transmit()
        elif offset >= PBM or offset < FILTERS_END and WMASK[offset >> 2]:
            self.word(offset)[0] = value if offset >= PBM else value & WMASK[offset >> 2]

    # ------------------------------------------------------------------ time

    cdef void publish(self) noexcept nogil:
        cdef uint64_t at = min(self.s.autoneg_at, min(self.s.mit_at, self.s.tx_at))
        if self.net.outside:
            at = min(at, self.net.deadline(self.core.now, self.ready_at()))
        self.set_deadline(at)

    cdef void on_time(self) noexcept nogil:
        cdef uint64_t now = self.core.now
        if self.s.autoneg_at <= now:
            self.s.autoneg_at = NEVER
            if self.s.link:
                self.negotiated()
                self.add_causes(ICR_LSC)
        if self.s.tx_at <= now:
            self.s.tx_at = NEVER
            if self.s.mac[TCTL >> 2] & TCTL_EN:
                self.run_transmit()
        if self.s.mit_at <= now:
            self.s.mit_at = NEVER
            self.add_causes(0)
        if self.net.outside and self.net.due(now):
            self.hear()
        self.publish()

    # ------------------------------------------------------------------ interrupts: SDM 13.4.17 to 13.4.21

    cdef void add_causes(self, uint32_t causes) noexcept nogil:
        self.set_causes(self.s.mac[ICR >> 2] | causes)

    cdef void set_causes(self, uint32_t causes) noexcept nogil:
        """The one place that sets ICR and the interrupt line.  A request that rises within the pause after the last one
        waits for its end."""
        cdef uint32_t pending = causes & self.s.mac[IMS >> 2]
        self.s.mac[ICR >> 2] = causes
        self.s.mac[ICS >> 2] = causes
        if pending and not self.s.mit_level:
            if self.s.mit_at != NEVER:
                return
            self.s.mit_at = self.core.now + self.mitigation(pending)
            self.s.mit_ide = 0
            self.publish()
        self.s.mit_level = pending != 0
        self.set_intx(pending != 0)

    cdef uint64_t mitigation(self, uint32_t pending) noexcept nogil:
        """Length of the pause that an interrupt for `pending` begins: the shortest that TADV, RADV and ITR ask for."""
        cdef uint32_t *m = self.s.mac
        cdef uint32_t delay = 0, other
        if self.s.mit_ide and pending & (ICR_TXQE | ICR_TXDW):
            delay = m[TADV >> 2] * DELAY_UNITS
        if m[RDTR >> 2] and pending & ICR_RXT0:
            other = m[RADV >> 2] * DELAY_UNITS
            if other and (delay == 0 or other < delay):
                delay = other
        other = m[ITR >> 2]
        if other and (delay == 0 or other < delay):
            delay = other
        return <uint64_t>max(delay, <uint32_t>MIN_PAUSE) * INTERRUPT_UNIT

    # ------------------------------------------------------------------ EEPROM: SDM 5.3, 13.4.3, 13.4.4

    cdef uint32_t read_eecd(self) noexcept nogil:
        cdef uint32_t out = self.s.eeprom_out
        cdef bint bit = True
        if self.s.eeprom_reading:
            bit = self.eeprom[out >> 4 & 0x3F] >> (15 - (out & 15)) & 1
        return EECD_FIXED | self.s.eecd | (EECD_DO if bit else 0)

    cdef void write_eecd(self, uint32_t value) noexcept nogil:
        """A Microwire bus: bits are taken where SK rises, given where it falls, and CS begins a command."""
        cdef e1000_state *s = self.s
        cdef uint32_t changed = s.eecd ^ value
        s.eecd = value & EECD_WMASK
        if not value & EECD_CS:
            return
        if changed & EECD_CS:
            s.eeprom_in = s.eeprom_n = s.eeprom_out = s.eeprom_reading = 0
        if not changed & EECD_SK:
            return
        if not value & EECD_SK:
            s.eeprom_out += 1
            return
        s.eeprom_in = s.eeprom_in << 1 | (value & EECD_DI) >> 2
        s.eeprom_n += 1
        if s.eeprom_n == EEPROM_FRAME and not s.eeprom_reading:
            s.eeprom_out = <uint16_t>(((s.eeprom_in & 0x3F) << 4) - 1)
            s.eeprom_reading = (s.eeprom_in >> 6 & 7) == EEPROM_READ

    cdef uint32_t read_eerd(self) noexcept nogil:
        cdef uint32_t r = self.s.mac[EERD >> 2], index
        if not r & EERD_START:
            return r
        r = r & ~<uint32_t>EERD_START
        index = r >> EERD_ADDR_SHIFT
        r |= EERD_DONE
        return r | <uint32_t>self.eeprom[index] << EERD_DATA_SHIFT if index < ROM_WORDS else r

    # ------------------------------------------------------------------ PHY: SDM 8, 13.4.7

    cdef void write_mdic(self, uint32_t value) noexcept nogil:
        cdef uint32_t n = value >> MDIC_REG_SHIFT & 31, data = value & MDIC_DATA
        cdef uint32_t *mdic = &self.s.mac[MDIC >> 2]
        if (value >> MDIC_PHY_SHIFT & 31) != PHY_ADDRESS:
            mdic[0] |= MDIC_ERROR | MDIC_READY
        else:
            mdic[0] = value | MDIC_READY
            if value & MDIC_OP_READ:
                if PHY_READABLE[n]:
                    mdic[0] = mdic[0] ^ data | self.s.phy[n]
                else:
                    mdic[0] |= MDIC_ERROR
            elif value & MDIC_OP_WRITE:
                if not PHY_WRITABLE[n]:
                    mdic[0] |= MDIC_ERROR
                elif n == PCTRL:
                    self.write_phy_control(data)
                else:
                    self.s.phy[n] = <uint16_t>data
        if mdic[0] & MDIC_INT_EN:
            self.add_causes(ICR_MDAC)

    cdef void write_phy_control(self, uint32_t value) noexcept nogil:
        self.s.phy[PCTRL] = <uint16_t>(value & ~<uint32_t>PCTRL_SELF_CLEARING)
        if value & PCTRL_RESTART and value & PCTRL_AUTONEG:
            self.negotiate()

    # ------------------------------------------------------------------ transmission: SDM 3.3 to 3.5

    cdef void start_transmit(self) noexcept nogil:
        if self.s.mac[TCTL >> 2] & TCTL_EN and self.s.tx_at == NEVER:
            self.s.tx_start = self.s.mac[TDH >> 2]
            self.run_transmit()

    cdef void run_transmit(self) noexcept nogil:
        """Take descriptors until head meets tail, once around at most.  A ring with more than BURST bytes goes on when
        the wire would be free, so that no guest keeps the engine busy in no time."""
        cdef uint32_t *m = self.s.mac
        cdef uint32_t causes = 0, upper, length = m[TDLEN >> 2]
        cdef uint64_t base = <uint64_t>m[TDBAH >> 2] << 32 | m[TDBAL >> 2] & ~<uint32_t>15, at
        cdef tx_desc d
        self.wire = 0
        while m[TDH >> 2] != m[TDT >> 2]:
            if self.wire > BURST:
                self.s.tx_at = self.core.now + self.wire * BYTE_NS
                self.publish()
                if causes:
                    self.add_causes(causes)
                return
            at = base + <uint64_t>DESCRIPTOR * m[TDH >> 2]
            self.dma.read(at, &d, DESCRIPTOR)
            self.wire += DESCRIPTOR
            self.transmit_descriptor(&d)
            if d.lower & (TXD_RS | TXD_RPS):
                upper = (d.upper | TXD_DD) & ~<uint32_t>TXD_EC_LC_TU
                self.dma.write(at + 12, &upper, 4)
                causes |= ICR_TXDW
            advance(&m[TDH >> 2], 1, length)
            if m[TDH >> 2] == self.s.tx_start or self.s.tx_start >= length // DESCRIPTOR:
                break
        self.add_causes(causes | ICR_TXQE)

    cdef void transmit_descriptor(self, tx_desc *d) noexcept nogil:
        cdef e1000_state *s = self.s
        cdef uint8_t *data = <uint8_t *>s.tx_data
        cdef uint32_t kind = d.lower & (TXD_DEXT | TXD_DTYP_DATA), left = d.lower & TXD_LENGTH, n, end, whole, header
        cdef uint64_t addr = d.addr
        cdef tx_context *c
        if d.lower & <uint32_t>TXD_IDE:
            s.mit_ide = 1
        if kind == TXD_DEXT:                                # context: SDM 3.3.6
            c = &s.tx[TX_TSO if d.lower & TXD_TSE else TX_PLAIN]
            set_context(c, d)
            if d.lower & TXD_TSE:
                s.tx_frames = 0
            return
        if kind == (TXD_DEXT | TXD_DTYP_DATA):              # data: SDM 3.3.7
            if s.tx_size == 0:
                s.tx_popts = <uint8_t>(d.upper >> 8)
            s.tx_tse = d.lower & TXD_TSE != 0
        else:                                               # legacy: SDM 3.3.3
            s.tx_tse = 0
        if s.mac[CTRL >> 2] & CTRL_VME and d.lower & TXD_VLE and (s.tx_tse or d.lower & TXD_EOP):
            s.tx_vlan = 1
            put16(s.vlan_tag, s.mac[VET >> 2])
            put16(s.vlan_tag + 2, d.upper >> 16)
        if s.tx_tse:
            header = s.tx[TX_TSO].hdr_len
            whole = header + s.tx[TX_TSO].mss
            while s.tx_size < whole:
                n = min(left, min(whole - s.tx_size, <uint32_t>FRAME_MAX - s.tx_size))
                self.dma.read(addr, data + s.tx_size, n)
                end = s.tx_size + n
                if s.tx_size < header and end >= header:
                    memcpy(s.tx_header, data, header)
                s.tx_size = end % FRAME_MAX             # a full buffer begins again, as in the reference
                addr += n
                if end == whole:
                    self.transmit_segment()
                    memmove(data, s.tx_header, header)
                    s.tx_size = header
                left -= n
                if n == 0 or left == 0:
                    break
        else:
            n = min(left, <uint32_t>FRAME_MAX - s.tx_size)
            self.dma.read(addr, data + s.tx_size, n)
            s.tx_size = (s.tx_size + n) % FRAME_MAX
        if not d.lower & TXD_EOP:
            return
        if not s.tx_tse or s.tx_size >= s.tx[TX_TSO].hdr_len:
            self.transmit_segment()
        s.tx_frames = 0
        s.tx_popts = 0
        s.tx_vlan = 0
        s.tx_size = 0
        s.tx_tse = 0

    cdef void transmit_segment(self) noexcept nogil:
        """Finish what tx_data holds, and send it: SDM 3.5 (segmentation), 3.6 (checksums), 9.2 (tags)."""
        cdef e1000_state *s = self.s
        cdef uint8_t *data = <uint8_t *>s.tx_data
        cdef uint32_t n = s.tx_size, length, done, sum
        cdef tx_context *c = &s.tx[TX_TSO if s.tx_tse else TX_PLAIN]
        if s.tx_tse:
            if c.ip:
                put16(data + c.ipcss + 2, n - c.ipcss)
                add16(data + c.ipcss + 4, s.tx_frames)
            else:
                put16(data + c.ipcss + 4, n - c.ipcss)
            length = (n - c.tucss) & 0xFFFF
            if c.tcp:
                done = <uint32_t>s.tx_frames * c.mss
                add32(data + c.tucss + 4, done)
                if c.paylen - done > c.mss:
                    data[c.tucss + 13] &= 0xF6              # PSH and FIN belong to the last one
                elif s.tx_frames:
                    count(self.s.mac, TSCTC)
            else:
                put16(data + c.tucss + 4, length)
            if s.tx_popts & POPTS_TXSM:                     # the pseudo-header's sum is there, without a length
                sum = be16(data + c.tucso) + length
                put16(data + c.tucso, (sum >> 16) + (sum & 0xFFFF))
            s.tx_frames += 1
        if s.tx_popts & POPTS_TXSM:
            put_checksum(data, n, c.tucso, c.tucss, c.tucse)
        if s.tx_popts & POPTS_IXSM:
            put_checksum(data, n, c.ipcso, c.ipcss, c.ipcse)
        if s.tx_vlan:                                       # both addresses move down four bytes
            memmove(data - VLAN_TAG, data, 12)
            memcpy(data + 12 - VLAN_TAG, s.vlan_tag, VLAN_TAG)
            self.send(data - VLAN_TAG, n + VLAN_TAG)
        else:
            self.send(data, n)
        count_sent(s.mac, n + FCS)

    cdef void send(self, const uint8_t *p, uint32_t n) noexcept nogil:
        self.leave(p, n, self.s.phy[PCTRL] & PCTRL_LOOPBACK != 0)
        count_cast(self.s.mac, p, BPTC, MPTC)
        count_size(self.s.mac, PTC64, <uint64_t>n + FCS)

    # ------------------------------------------------------------------ reception: SDM 3.2

    cdef bint has_buffers(self, uint64_t n) noexcept nogil:
        """May a packet of n bytes fit the descriptors that software has given?"""
        cdef uint32_t *m = self.s.mac
        cdef uint32_t head = m[RDH >> 2], tail = m[RDT >> 2], size = buffer_size(m[RCTL >> 2])
        if head == tail:
            return False
        if n <= size:
            return True
        return n <= <uint32_t>((tail - head + (0 if head < tail else m[RDLEN >> 2] // DESCRIPTOR)) * size)

    cdef bint accepts(self, const uint8_t *p) noexcept nogil:
        """VLAN and address filters: SDM 3.2.1, 9.3."""
        cdef uint32_t *m = self.s.mac
        cdef uint32_t rctl = m[RCTL >> 2]
        if not self.in_vlan(p):
            return False
        if not p[0] & 1:
            if rctl & RCTL_UPE:
                return True
        elif rctl & RCTL_MPE:
            count(m, MPRC)
            return True
        elif rctl & RCTL_BAM and is_broadcast(p):
            count(m, BPRC)
            return True
        if self.has_address(p):
            return True
        if not self.in_multicast_table(p):
            return False
        count(m, MPRC)
        return True

    cdef void overrun(self) noexcept nogil:
        count(self.s.mac, RNBC)
        count(self.s.mac, MPC)
        self.add_causes(ICR_RXO)

    cdef bint ready(self) noexcept nogil:
        """Does the receiver take packets?"""
        cdef uint32_t *m = self.s.mac
        return (m[STATUS >> 2] & STATUS_LU and m[RCTL >> 2] & RCTL_EN and self.config16(COMMAND) & COMMAND_MASTER
                and self.has_buffers(1) and self.core.now >= self.s.rx_at)

    cdef uint64_t ready_at(self) noexcept nogil:
        """When a frame that is there may be taken; NEVER if the receiver waits for software."""
        if self.ready():
            return self.core.now + 1
        return self.s.rx_at if self.s.mac[RCTL >> 2] & RCTL_EN and self.core.now < self.s.rx_at else NEVER

    cdef bint receive_packet(self, const uint8_t *p, uint64_t n) noexcept nogil:
        """A packet without FCS.  False if the receiver is not ready."""
        cdef e1000_state *s = self.s
        cdef uint32_t *m = s.mac
        cdef uint32_t rctl = m[RCTL >> 2], length = m[RDLEN >> 2], start, size = buffer_size(rctl), causes, tail, part
        cdef uint64_t base = <uint64_t>m[RDBAH >> 2] << 32 | m[RDBAL >> 2] & ~<uint32_t>15, at, done = 0, whole
        cdef uint8_t vlan_status = 0
        cdef uint16_t special = 0
        cdef rx_desc d
        if not self.ready():
            return False
        if n < MIN_FRAME:
            p = self.padded(p, n)
            n = MIN_FRAME
        if too_long(rctl, n):
            count(m, ROC)
            return True
        if not self.accepts(p):
            return True
        if m[CTRL >> 2] & CTRL_VME and is_tagged(m, p):
            special = <uint16_t>be16(p + 14)
            vlan_status = RXD_VP
            n -= VLAN_TAG
            p = self.untagged(p, n)
        whole = n if rctl & RCTL_SECRC else n + FCS
        if not self.has_buffers(whole):
            self.overrun()
            return True
        start = m[RDH >> 2]
        while done < whole:
            at = base + <uint64_t>DESCRIPTOR * m[RDH >> 2]
            self.dma.read(at, &d, DESCRIPTOR)
            self.wire += DESCRIPTOR
            d.special = special
            d.status &= ~RXD_DD
            if d.addr:                          # one without a buffer is skipped: SDM 3.2.3
                part = size if whole - done > size else <uint32_t>(whole - done)
                if done < n:
                    self.dma.write(d.addr, p + done, min(<uint64_t>part, n - done))
                done += part
                d.length = <uint16_t>part
                if done >= whole:
                    d.status |= RXD_EOP | RXD_IXSM
                else:
                    d.status &= ~RXD_EOP
            d.status |= vlan_status | RXD_DD
            self.dma.write(at, &d, DESCRIPTOR)
            advance(&m[RDH >> 2], 1, length)
            if m[RDH >> 2] == start or start >= length // DESCRIPTOR:
                self.overrun()
                return True
        count_received(m, whole, n + FCS)
        causes = ICR_RXT0
        tail = m[RDT >> 2]
        if tail < m[RDH >> 2]:
            tail += length // DESCRIPTOR
        if <uint64_t>(tail - m[RDH >> 2]) * DESCRIPTOR <= length >> ((rctl >> RCTL_RDMTS_SHIFT & 3) + 1):
            causes |= ICR_RXDMT0
        self.add_causes(causes)
        return True
