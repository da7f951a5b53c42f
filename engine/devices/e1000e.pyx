"""Intel 82574L: one gigabit Ethernet port as a PCI Express function, with MAC, NVM and internal PHY.

Document: Intel 82574 GbE Controller Family Datasheet, 317694, revision 3.4 ("DS").  Modelled: configuration space with
power management, MSI, MSI-X, PCI Express, error reporting and serial number; the registers below and their aliases; NVM by
EERD and EEWR, PHY and its pages, auto-negotiation and link; both transmit and both receive queues with legacy, extended
and packet-split descriptors, checksums, segmentation, VLAN tags, receive-side scaling, address and VLAN filters; statistics;
interrupt causes, delay timers, throttling, vectors.
Not modelled, and deviations, as in the reference: docs/devices/e1000e.md.  Called by the owning worker only.
"""
cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from engine._device cimport IO_OK, NEVER, RESET_POWER_ON
from engine.devices._net cimport LONGEST_FRAME, add16, add32, be16, folded, is_broadcast, put16, put_checksum, words_sum
from engine.pci._config cimport ROM_BAR
from engine.pci._msi cimport msi_enabled, msi_notify, msi_written
from engine.pci._msix cimport msix_enabled, msix_load, msix_notify, msix_reset, msix_table_write, msix_written
from engine.pci.regs cimport (CACHE_LINE_SIZE, CAP_EXPRESS, CAP_PM, COMMAND, COMMAND_MASTER, CONFIG_SIZE, EXTENDED_SIZE, HEADER_SIZE)

from engine.devices._e1000_common import (ALL, CONTEXT_STATE, E1000_CONFIG, ERRORS, FIFO, READ_CLEARS, READ_CLEARS_PAIR, SIZES,
                                          how_read, rom)
from engine.devices._net import NET_STATE
from engine.errors import StateError
from engine.pci._config import PCI_STATE
from engine.pci._msi import add_msi
from engine.pci._msix import add_msix
from engine.types import RC, RO, RW, WO, Register, Space

cdef enum:
    DEVICE_82574L = 0x10D3
    DELAY_UNIT = 1024           # ns, of the delay timers
    IP4_HEADER = 20
    IP6_HEADER = 40
    TCP_HEADER = 20
    UDP_HEADER = 8
    ETHERTYPE_IP4 = 0x0800
    ETHERTYPE_IP6 = 0x86DD
    ETHERTYPE_VLAN = 0x8100
    ETHERTYPE_QINQ = 0x88A8

cdef enum:                      # next headers of IPv6
    IP_TCP = 6
    IP_UDP = 17
    IP6_HOP_BY_HOP = 0
    IP6_ROUTING = 43
    IP6_FRAGMENT = 44
    IP6_AUTHENTICATION = 51
    IP6_DESTINATION = 60
    IP6_MOBILITY = 135
    IP6_PAD1 = 0
    IP6_HOME_ADDRESS = 201

# ---------------------------------------------------------------------- what the registers are


def _ds(section, *rows):
    """Registers of one section: (name, offset, reset, wmask[, side effects[, access]])."""
    return tuple(Register(name, offset, 32, rest[1] if len(rest) > 1 else RW if wmask else RO, reset, wmask,
                          rest[0] if rest else "", f"DS {section}") for name, offset, reset, wmask, *rest in rows)


def _words(section, name, offset, n, wmask=ALL, step=4):
    return tuple(Register(f"{name}{i}", offset + step * i, 32, RW, 0, wmask, "", f"DS {section}") for i in range(n))


def _queues(section, *rows):
    """Registers of both queues."""
    return _ds(section, *((f"{name}{'1' if q else ''}", offset + q * QUEUE, *rest) for q in range(2) for name, offset, *rest in rows))


def _counts(*rows):
    """Counters that reading clears."""
    return _ds("10.2.7", *((name, offset, 0, 0, READ_CLEARS, RC) for name, offset in rows))


def _pair(name, offset):
    return _ds("10.2.7", (f"{name}L", offset, 0, 0), (f"{name}H", offset + 4, 0, 0, READ_CLEARS_PAIR, RC))


_REGISTERS = (
    *_ds("10.2.2.1", ("CTRL", CTRL, CTRL_RESET, CTRL_WMASK, "RST puts the address back")),
    *_ds("10.2.2.2", ("STATUS", STATUS, 0x00080283, 0, "writing clears PHYRA where it is zero")),
    *_ds("10.2.2.3", ("EECD", EECD, 0x300, 0xFFFF84FF)),
    *_ds("10.2.2.4", ("EERD", EERD, EERW_DONE, 0, "reads the NVM", RW)),
    *_ds("10.2.2.5", ("CTRL_EXT", CTRL_EXT, 0, CTRL_EXT_WMASK)),
    *_ds("10.2.2.6", ("FLA", FLA, 0, ALL)),
    *_ds("10.2.2.7", ("MDIC", MDIC, 0, 0, "reaches the PHY", RW)),
    *_ds("10.2.2", ("FCAL", FCAL, 0, ALL), ("FCAH", FCAH, 0, 0xFFFF), ("FCT", FCT, 0, 0xFFFF), ("VET", VET, 0x8100, 0xFFFF),
         ("FCTTV", FCTTV, 0, 0xFFFF), ("FCRTV", FCRTV, 0, 0xFFFF), ("LEDCTL", LEDCTL, 0x00068302, ALL),
         ("EXTCNF_CTRL", EXTCNF_CTRL, 0x8, ALL), ("EXTCNF_SIZE", EXTCNF_SIZE, 0, ALL), ("POEMB", POEMB, 0x30D, ALL),
         ("PBA", PBA, 0x00140014, ALL), ("PBS", PBS, 0x28, 0x3F), ("EEMNGCTL", EEMNGCTL, 0x80000000, ALL),
         ("FLASHT", FLASHT, 0x2, 0xFFFF), ("EEWR", EEWR, EERW_DONE, 0, "writes the NVM"), ("FLSWCTL", FLSWCTL, 0xC0000000, ALL),
         ("FLSWDATA", FLSWDATA, 0, ALL), ("FLSWCNT", FLSWCNT, 0, ALL), ("FLOP", FLOP, 0, ALL), ("FLOL", FLOL, 0x1, ALL)),
    *_ds("10.2.3", ("GCR", GCR, 0x06800200, 0xF97FFFFF), ("FUNCTAG", FUNCTAG, 0, ALL),
         *((f"GSCL_{i + 1}", GSCL + 4 * i, 0, ALL) for i in range(4)), *((f"GSCN_{i}", GSCN + 4 * i, 0, ALL) for i in range(4)),
         ("FACTPS", FACTPS, 0x20000004, ALL), ("SWSM", SWSM, SWSM_SMBI, ALL, "reading sets bit 0"), ("GCR2", GCR2, 0, ALL)),
    *_ds("10.2.4.1", ("ICR", ICR, 0, 0, "reading may clear it, writing ones clears bits", RW)),
    *_ds("10.2.4.2", ("ITR", ITR, 0, 0xFFFF)),
    *_ds("10.2.4.3", *((f"EITR{i}", EITR + 4 * i, 0, 0xFFFF) for i in range(VECTORS))),
    *_ds("10.2.4.4", ("ICS", ICS, 0, 0, "sets bits of ICR", RW)),
    *_ds("10.2.4.5", ("IMS", IMS, 0, 0, "ones set bits of the mask", RW)),
    *_ds("10.2.4.6", ("IMC", IMC, None, 0, "ones clear bits of IMS", WO)),
    *_ds("10.2.4.7", ("EIAC", EIAC, 0, ALL)), *_ds("10.2.4.8", ("IAM", IAM, 0, ALL)), *_ds("10.2.4.9", ("IVAR", IVAR, 0, ALL)),
    *_ds("10.2.5.1", ("RCTL", RCTL, 0, ALL)),
    *_ds("10.2.5", ("PSRCTL", PSRCTL, 0x00040402, ALL), ("FCRTL", FCRTL, 0, 0x8000FFF8), ("FCRTH", FCRTH, 0, 0xFFF8),
         ("RDTR", RDTR, 0, 0xFFFF, "FPD ends the delay"), ("RXDCTL", RXDCTL, 0x00010000, ALL, "writes RXDCTL1, too"),
         ("RADV", RADV, 0, 0xFFFF), ("RXDCTL1", RXDCTL1, 0x00010000, ALL), ("RSRPD", RSRPD, 0, 0xFFF), ("RAID", RAID, 0, 0xFFFF),
         ("RXCSUM", RXCSUM, 0x300, ALL), ("RFCTL", RFCTL, 0, ALL), ("MRQC", MRQC, 0, ALL)),
    *_queues("10.2.5", ("RDBAL", RDBAL, 0, 0xFFFFFFF0), ("RDBAH", RDBAH, 0, ALL), ("RDLEN", RDLEN, 0, 0xFFF80),
             ("RDH", RDH, 0, 0xFFFF), ("RDT", RDT, 0, 0xFFFF)),
    *_words("10.2.5.21", "MTA", MTA, 128),
    *(r for i in range(16) for r in (
        Register(f"RAL{i}", RA + 8 * i, 32, RW, None if i == 0 else 0, ALL, "", "DS 10.2.5.22"),
        Register(f"RAH{i}", RA + 8 * i + 4, 32, RW, None if i == 0 else 0, ALL, "", "DS 10.2.5.23"))),
    *_words("10.2.5", "VFTA", VFTA, 128), *_words("10.2.5", "RETA", RETA, 32), *_words("10.2.5", "RSSRK", RSSRK, 32),
    *_ds("10.2.6", ("TCTL", TCTL, 0, ALL, "transmits"), ("TIPG", TIPG, 0x00602008, ALL), ("AIT", AIT, 0, 0xFFFF),
         ("TIDV", TIDV, None, 0xFFFF, "FPD ends the delay", WO), ("TADV", TADV, 0, 0xFFFF)),
    *_queues("10.2.6", ("TDBAL", TDBAL, 0, 0xFFFFFFF0), ("TDBAH", TDBAH, 0, ALL), ("TDLEN", TDLEN, 0, 0xFFF80),
             ("TDH", TDH, 0, 0xFFFF), ("TDT", TDT, 0, 0xFFFF, "transmits"), ("TXDCTL", TXDCTL, 0, ALL),
             ("TARC", TARC, 0x403, 0x780007FF)),
    *_ds("10.2.7", *((name, CRCERRS + 4 * i, 0, 0) for i, name in enumerate(ERRORS)), ("FCRUC", FCRUC, 0, ALL)),
    *_counts(*((f"PRC{n}", PRC64 + 4 * i) for i, n in enumerate(SIZES)),
             *((n, GPRC + 4 * i) for i, n in enumerate(("GPRC", "BPRC", "MPRC", "GPTC"))), ("RUC", RUC), ("ROC", ROC), ("TPR", TPR),
             ("TPT", TPT), *((f"PTC{n}", PTC64 + 4 * i) for i, n in enumerate(SIZES)),
             *((n, MPTC + 4 * i) for i, n in enumerate(("MPTC", "BPTC", "TSCTC"))), ("IAC", IAC)),
    *_pair("GORC", GORCL), *_pair("GOTC", GOTCL), *_pair("TOR", TORL), *_pair("TOT", TOTL),
    *_ds("10.2", ("WUC", WUC, 0, ALL), ("WUFC", WUFC, 0, ALL), ("WUS", WUS, 0, ALL), ("IPAV", IPAV, 0, ALL)),
    *_words("10.2", "IP4AT", IP4AT, 7), *_words("10.2", "IP6AT", IP6AT, 4), *_words("10.2", "WUPM", WUPM, 32),
    *_words("10.2", "FFLT", FFLT, 11, 0x7FF), *_words("10.2", "FFMT", FFMT, 255, 0xF), *_words("10.2", "FFVT", FFVT, 255),
    *_ds("10.2", ("MANC", MANC, 0x10000000, ALL), ("MFVAL", MFVAL, 0, ALL), ("MFUTP01", MFUTP01, 0, ALL),
         ("MFUTP23", MFUTP23, 0, ALL), ("MANC2H", MANC2H, 0, ALL)),
    *_words("10.2", "MAVTV", MAVTV, 4), *_words("10.2", "MDEF", MDEF, 8), *_words("10.2", "FTFT", FTFT, 255),
    *_ds("10.2", *((name, SYSTIML + 4 * i, 0, ALL) for i, name in enumerate(
        ("SYSTIML", "SYSTIMH", "TIMINCA", "TIMADJL", "TIMADJH", "TSYNCTXCTL", "TXSTMPL", "TXSTMPH", "TSYNCRXCTL", "RXSTMPL",
         "RXSTMPH", "RXSATRL", "RXSATRH"))), ("RXCFGL", RXCFGL, 0x88F7, ALL), ("RXUDP", RXUDP, 0x319, ALL)),
    *_ds("10.2", ("PBACLR", PBACLR, 0, 0x1F, "clears pending bits")),
    *_ds("10.2", *((f"RDF{n}", RDFH + 8 * i, 0, 0x1FFF) for i, n in enumerate(FIFO)),
         *((f"TDF{n}", TDFH + 8 * i, 0x600 if i < 4 else 0, 0x1FFF) for i, n in enumerate(FIFO)),
         ("PBM", PBM, 0, ALL, "first of 10,240 words")),
)

# Places at which a register is seen a second time: (from, how many words, to).
_ALIASES = ((0x0040, 32, RA), (0x0108, 1, RDTR), (0x0110, 3, RDBAL), (0x0120, 1, RDH), (0x0128, 1, RDT), (0x0160, 1, FCRTH),
            (0x0168, 1, FCRTL), (0x0420, 3, TDBAL), (0x0430, 1, TDH), (0x0438, 1, TDT), (0x0440, 1, TIDV), (0x0600, 128, VFTA),
            (0x8000, 1, RDFH), (0x8008, 1, RDFH + 8), (0x8010, 1, TDFH), (0x8018, 1, TDFH + 8))

cdef uint8_t HOW[0x3000]
cdef uint32_t WMASK[0x3000]
cdef uint32_t RESET[0x3000]
cdef uint16_t CANONICAL[0x3000]     # word -> the word that it is an alias of, or itself
for _i in range(MAC_END // 4):
    CANONICAL[_i] = _i
for _at, _n, _to in _ALIASES:
    for _i in range(_n):
        CANONICAL[_at // 4 + _i] = _to // 4 + _i
for _r in _REGISTERS:
    if _r.offset < MAC_END:
        HOW[_r.offset >> 2] = how_read(_r)
        WMASK[_r.offset >> 2] = _r.wmask
        RESET[_r.offset >> 2] = _r.reset or 0

# NVM image but for the address, the device and the checksum: DS 6.1.
_NVM = (
    0, 0, 0, 0x0420, 0xF746, 0x2010, 0xFFFF, 0xFFFF,
    0x0000, 0x0000, 0x026B, DEVICE_82574L, VENDOR_INTEL, DEVICE_82574L, 0x0000, 0x8058,
    0x0000, 0x2001, 0x7E7C, 0xFFFF, 0x1000, 0x00C8, 0x0000, 0x2704,
    0x6CC9, 0x3150, 0x070E, 0x460B, 0x2D84, 0x0100, 0xF000, 0x0706,
    0x6000, 0x0080, 0x0F04, 0x7FFF, 0x4F01, 0xC600, 0x0000, 0x20FF,
    0x0028, 0x0003, 0x0000, 0x0000, 0x0000, 0x0003, 0x0000, 0xFFFF,
    0x0100, 0xC000, 0x121C, 0xC007, *8 * (0xFFFF,), 0x0000, 0x0120, 0xFFFF)

# PHY registers, DS 9: page -> number -> (reset value, writable).  The first group is seen on every page.
_EVERY_PAGE = {PCTRL: (0x1140, 1), PSTATUS: (0x794D, 0), 2: (0x0141, 0), 3: (0x0CB1, 0), 4: (0x0DE1, 1), LPA: (0x07E0, 0), 6: (0x0004, 0),
               7: (0x2001, 1), 8: (0, 0), 9: (0x0F00, 1), 10: (0x3C00, 0), 15: (0x3000, 0), PPAGE: (0, 1)}
_PHY = {0: {**_EVERY_PAGE, 16: (0x3360, 1), 17: (0xAC08, 0), 18: (0, 1), 19: (0, 0), 20: (0, 1), 21: (0, 0), POEM: (0, 1), 26: (0, 1),
            29: (0, 1), 30: (0, 1)},
        2: {16: (0x0088, 1), 18: (0, 1), 19: (0, 0), 21: (0x1046, 1)}, 3: {16: (0, 1), 17: (0, 1), 18: (0x4005, 1), 19: (0, 1)},
        5: {20: (0, 0), 21: (0, 0)}, 6: {17: (0, 0)}}
cdef enum:
    PHY_READ = 1
    PHY_WRITE = 2
    PHY_EVERY_PAGE = 4
cdef uint16_t PHY_RESET[224]
cdef uint8_t PHY_MAY[224]
for _page, _rows in _PHY.items():
    for _n, (_value, _writable) in _rows.items():
        PHY_RESET[_page * PHY_REGS + _n] = _value
        PHY_MAY[_page * PHY_REGS + _n] = PHY_READ | PHY_WRITE * _writable | PHY_EVERY_PAGE * (_page == 0 and _n in _EVERY_PAGE)

cdef uint32_t TIMER_REG[11]                     # register of each timer
TIMER_REG[:] = [RDTR, RADV, RAID, TIDV, TADV, ITR, EITR, EITR + 4, EITR + 8, EITR + 12, EITR + 16]
cdef uint32_t VECTOR_CAUSE[5]                   # causes in the order of the fields of IVAR
VECTOR_CAUSE[:] = [ICR_RXQ0, ICR_RXQ1, ICR_TXQ0, ICR_TXQ1, ICR_OTHER]

_QUEUE = (("again_at", "u8"), ("addr", "u8", FRAGMENTS), ("length", "u2", FRAGMENTS), *CONTEXT_STATE,
          *((n, "u1") for n in ("tse", "popts", "segment", "skip", "n", "ide", "pad")))
_QUEUES = tuple((f"tx{q}_{f[0]}", *f[1:]) for q in range(2) for f in _QUEUE)


cdef bint ip6_extension(uint32_t header) noexcept nogil:
    return (header == IP6_HOP_BY_HOP or header == IP6_ROUTING or header == IP6_FRAGMENT or header == IP6_AUTHENTICATION
            or header == IP6_DESTINATION or header == IP6_MOBILITY)


cdef uint32_t home_address(const uint8_t *p, uint32_t n, uint32_t at) noexcept nogil:
    """Where the home address of a destination options header at `at` is; 0 if there is none."""
    cdef uint32_t left = (p[at + 1] + 1) * 8 - 2, size
    at += 2
    while left > 2 and at + 2 <= n:
        size = 1 if p[at] == IP6_PAD1 else p[at + 1] + 2
        if size > left:
            return 0
        if p[at] == IP6_HOME_ADDRESS:
            return at + 2 if at + 18 <= n else 0
        at += size
        left -= size
    return 0


cdef bint parse_ip6(const uint8_t *p, uint32_t n, frame_info *f) noexcept nogil:
    """The IPv6 header at f.l3 and its extensions; False if they do not end within the frame."""
    cdef uint32_t at = f.l3 + IP6_HEADER, next, here
    if n < at:
        return False
    f.ip6_source = f.l3 + 8
    f.ip6_destination = f.l3 + 24
    next = p[f.l3 + 6]
    f.extensions = ip6_extension(next)
    while ip6_extension(next):
        if n < at + 2:
            return False
        here = 0
        if next == IP6_ROUTING and p[at + 1] == 2:             # type 2, one segment left: RFC 6275, 6.4
            f.ex_destination = n >= at + 24 and p[at + 2] == 2 and p[at + 3] == 1
            if f.ex_destination:
                f.ip6_destination = at + 8
        elif next == IP6_DESTINATION:
            here = home_address(p, n, at)
            f.ex_source = here != 0
            if here:
                f.ip6_source = here
        elif next == IP6_FRAGMENT:
            f.fragment = True
        next = p[at]
        at += (p[at + 1] + 1) * 8
    f.l4_protocol = <uint8_t>next
    f.l4 = at
    return True


cdef void parse(const uint8_t *p, uint32_t n, frame_info *f) noexcept nogil:
    """What is in a frame of at least 14 bytes."""
    cdef uint32_t type = be16(p + 12), length = 0
    memset(f, 0, sizeof(f[0]))
    f.l3 = 14
    if type == ETHERTYPE_VLAN or type == ETHERTYPE_QINQ:
        f.l3 = 22 if type == ETHERTYPE_QINQ and n >= 18 and be16(p + 16) == ETHERTYPE_VLAN else 18
        type = be16(p + f.l3 - 2) if n >= f.l3 else 0
    f.l4 = f.l5 = f.l3
    f.cut = n < f.l3 or be16(p + 12) == ETHERTYPE_QINQ and n < 22
    if type == ETHERTYPE_IP4:
        f.ip4 = True
        f.cut |= n < f.l3 + IP4_HEADER
        if f.cut:
            return
        f.ip_id = <uint16_t>be16(p + f.l3 + 4)
        f.fragment = be16(p + f.l3 + 6) & 0x3FFF != 0
        f.l4_protocol = p[f.l3 + 9]
        f.l4 = f.l3 + (p[f.l3] & 15) * 4
        f.cut |= f.l4 < f.l3 + IP4_HEADER or n < f.l4
        length = be16(p + f.l3 + 2) - (f.l4 - f.l3)
        if p[f.l3] >> 4 != 4:
            f.l4_protocol = 0
    elif type == ETHERTYPE_IP6:
        f.ip6 = True
        f.cut |= not parse_ip6(p, n, f) or n < f.l4
        if f.l4 == f.l3:
            f.l4_protocol = 0
            return
        length = be16(p + f.l3 + 4) - (f.l4 - f.l3 - IP6_HEADER)
    else:
        return
    f.tcp = f.l4_protocol == IP_TCP
    f.udp = f.l4_protocol == IP_UDP
    if f.fragment:
        return
    if f.tcp:
        f.tcp = n >= f.l4 + TCP_HEADER
        if f.tcp:
            f.l5 = f.l4 + (p[f.l4 + 12] >> 4) * 4
            f.ack = p[f.l4 + 13] & 0x10 != 0
            f.tcp_data = length > f.l5 - f.l4
    elif f.udp:
        f.udp = n >= f.l4 + UDP_HEADER
        f.l5 = f.l4 + UDP_HEADER


cdef uint64_t part_sum(const uint8_t *p, uint32_t n, uint32_t at, uint32_t length) noexcept nogil:
    """Sum of `length` bytes from `at` on, as far as the frame has them."""
    return words_sum(p + at, min(length, n - at)) if at < n else 0


cdef bint l4_checksum_holds(const uint8_t *p, uint32_t n, const frame_info *f) noexcept nogil:
    """Is the TCP or UDP checksum right?"""
    cdef uint32_t length
    cdef uint64_t total
    if f.udp:
        length = be16(p + f.l4 + 4)
    elif f.ip4:
        length = <uint16_t>(be16(p + f.l3 + 2) - (f.l4 - f.l3))
    else:
        length = <uint16_t>(be16(p + f.l3 + 4) - (f.l4 - f.l3 - IP6_HEADER))
    total = length + f.l4_protocol + part_sum(p, n, f.l4, length)
    total += words_sum(p + f.l3 + 12, 8) if f.ip4 else words_sum(p + f.l3 + 8, 32)
    return folded(total) == 0xFFFF or folded(total) == 0


@cython.final
cdef class E1000E(E1000Common):
    """The function.

    mac       the station's address, kept in the NVM
    and what the cable is plugged into: engine.devices._net

    INPUT_PACKET answers 1 if the packet was taken or filtered out, and 0 if the receiver is not ready or has no room (RXO)
    and the packet may be offered again.
    """
    TITLE = "Intel 82574L gigabit Ethernet controller"
    MESSAGE_SOURCE = True
    REGISTERS = _REGISTERS
    UNSEEN = ("packet_buffer", "extended", "phy", "nvm", "tx0_addr", "tx0_length", "tx1_addr", "tx1_length")
    # integrated: into the root complex, as a function on a PCI Express root bus is
    CONFIG = {**E1000_CONFIG, "subsystem_vendor_id": VENDOR_INTEL, "subsystem_id": 0, "integrated": True}
    STATE = PCI_STATE + NET_STATE + (
        ("autoneg_at", "u8"), ("timer_at", "u8", TIMERS), ("mac", "u4", MAC_END // 4), ("packet_buffer", "u8", (PBM_END - PBM) // 8),
        ("phy", "u2", PHY_PAGES * PHY_REGS), ("nvm", "u2", ROM_WORDS), ("io_addr", "u4"), ("delayed", "u4"), ("sent_causes", "u4"),
        ("rx_size", "u4", 4), ("rx_desc_len", "u4"), ("rx_min_shift", "u4"), ("throttled", "u1"), ("link", "u1"),
        ("last_tcp", "u1"), ("full", "u1"),
        *_QUEUES,
        ("table", "u1", 16 * VECTORS), ("pending", "u1", 8), ("extended", "u1", EXTENDED_SIZE - CONFIG_SIZE))

    def __init__(self, str id="e1000e", uint32_t rank=0, arena=None, dma=None, **config):
        E1000Common.__init__(self, id, rank, arena, dma, **config)
        self.gathered = <uint8_t *>malloc(VLAN_TAG + FRAME_MAX)
        self.segment = <uint8_t *>malloc(VLAN_TAG + FRAME_MAX)
        if self.gathered == NULL or self.segment == NULL:
            raise MemoryError("no memory for a packet")
        self.s = <e1000e_state *>self.pci_alloc(sizeof(e1000e_state))
        self.m, self.phy, self.autoneg_at, self.link = self.s.mac, self.s.phy, &self.s.autoneg_at, &self.s.link
        self.net.keep_in(&self.s.net)
        address = self.station()
        for n, w in enumerate(rom(_NVM, address)):
            self.s.nvm[n] = w
        self.build_config(address)
        self.power_on()

    def __dealloc__(self):
        free(self.gathered)
        free(self.segment)

    def build_config(self, address):
        """Configuration space: DS 9.1 to 9.4, with the offsets and the writable bits of the reference."""
        cdef uint32_t at
        self.identify(VENDOR_INTEL, DEVICE_82574L, 0, 0x020000, 1)
        self.extend(self.s.extended)
        memset(self.wmask + CONFIG_SIZE, 0xFF, EXTENDED_SIZE - CONFIG_SIZE)     # what is no capability holds what is written
        self.add_bar(MMIO, Space.MMIO, 0x20000, name="e1000e-mmio", implements=(4, 4))
        self.add_bar(FLASH, Space.MMIO, 0x20000, name="e1000e-flash")
        self.add_bar(IO, Space.PIO, 32, name="e1000e-io", implements=(4, 4))
        self.add_bar(MSIX, Space.MMIO, 0x4000, name="e1000e-msix", accepts=(4, 8), implements=(4, 4))
        self.plug_rom()
        self.cap_next = MSIX_AT
        add_msix(self, VECTORS, MSIX, MSIX_TABLE_AT, MSIX, MSIX_PENDING_AT)
        self.add_capability(CAP_EXPRESS, 0x14, EXPRESS_AT)
        self.fill(EXPRESS_AT + 2, 0x0091 if self.config["integrated"] else 0x0001, 2)   # version 1; PCIe 7.8.2: the kind of endpoint
        self.fill(EXPRESS_AT + 4, 0x00008000, 4)        # role-based error reporting
        self.fill(EXPRESS_AT + 12, 0x00000411, 4)       # 2.5 GT/s, one lane
        self.fill(EXPRESS_AT + 16, 0x00110000, 4)
        add_msi(self, 1, True, False, MSI_AT)
        self.add_capability(CAP_PM, 8, PM_AT)
        self.fill(PM_AT + 2, 0x0022, 2)                 # version 1.1, device-specific initialization
        self.fill(PM_AT + 4, 0x1F03, 2, self.wmask)
        self.fill(PM_AT + 4, 0x8000, 2, self.w1c)
        self.add_extended_capability(0x0001, 2, AER_AT, 0x48)
        memset(self.wmask + AER_AT, 0, 0x48)
        self.fill(AER_AT + 0x0C, 0x00462030, 4)         # severities
        self.fill(AER_AT + 0x0C, 0x03FFF030, 4, self.wmask)
        self.fill(AER_AT + 0x14, 0x0000E000, 4)         # mask of correctable errors
        self.fill(AER_AT + 0x14, 0x0000F1C1, 4, self.wmask)
        self.fill(AER_AT + 0x18, 0x000000A0, 4)
        self.fill(AER_AT + 0x18, 0x00000140, 4, self.wmask)
        at = self.add_extended_capability(0x0003, 1, SERIAL_AT, 12)
        memset(self.wmask + at, 0, 12)
        serial = address[:3] + b"\xff\xff" + address[3:]
        self.fill(at + 4, int.from_bytes(serial, "big"), 8)
        # A bus reset touches the header and the message capabilities only, as in the reference.
        memset(self.keep + HEADER_SIZE, 1, EXTENDED_SIZE - HEADER_SIZE)
        memset(self.keep + MSIX_AT, 0, 12)
        memset(self.keep + MSI_AT, 0, 14)

    cdef void fill(self, uint32_t at, uint64_t value, uint32_t size, uint8_t *where=NULL):
        """Put a value into what configuration space holds after reset, or into a mask."""
        cdef uint32_t i
        if where == NULL:
            where = self.initial
        for i in range(size):
            where[at + i] = <uint8_t>(value >> 8 * i)

    # ------------------------------------------------------------------ reset

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """DS 4.2.  The NVM and the network keep what they have, and the cable stays where it is."""
        cdef e1000e_state *s = self.s
        cdef uint32_t i
        PciFunction.on_reset(self, kind)
        msix_reset(self, MSIX_AT, s.table, s.pending)
        if kind == RESET_POWER_ON:
            s.link = 1
            s.io_addr = 0
            s.sent_causes = s.throttled = s.last_tcp = s.full = 0
            memset(s.packet_buffer, 0, sizeof(s.packet_buffer))
        s.autoneg_at = NEVER
        for i in range(<uint32_t>TIMERS):
            s.timer_at[i] = NEVER
        memcpy(s.mac, RESET, sizeof(s.mac))
        memset(s.packet_buffer, 0, sizeof(s.packet_buffer))
        self.m[STATUS >> 2] = STATUS_ASDV_1000 | STATUS_LU
        memcpy(s.phy, PHY_RESET, sizeof(s.phy))
        s.delayed = 0
        memset(s.rx_size, 0, sizeof(s.rx_size))
        s.rx_desc_len = 0
        s.rx_min_shift = 5
        memset(s.tx, 0, sizeof(s.tx))
        for i in range(<uint32_t>QUEUES):
            s.tx[i].again_at = NEVER
        self.put_address()
        if not s.link:
            self.link_down()
        self.publish()

    def restore(self, dict state not None):
        """As Device.restore.  Raises StateError, too, for a packet of more fragments than there can be, and for buffers or
        descriptors that no register asks for."""
        for q in range(QUEUES):
            n = state.get(f"tx{q}_n")
            if isinstance(n, int) and n > FRAGMENTS:
                raise StateError(f"{self.id}: field tx{q}_n: {n} fragments of a packet that has {FRAGMENTS}")
        if state.get("rx_desc_len") not in (0, 16, 32):
            raise StateError(f"{self.id}: field rx_desc_len: there are no descriptors of {state.get('rx_desc_len')} bytes")
        PciFunction.restore(self, state)

    # ------------------------------------------------------------------ accesses

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = 0
        if region == MMIO:
            self.catch_up()
            value[0] = self.mmio_read(offset)
        elif region == IO:
            self.catch_up()
            if offset == IOADDR:
                value[0] = self.s.io_addr
            elif offset == IODATA and self.s.io_addr < 0x1FFFF:
                value[0] = self.mmio_read(self.s.io_addr)
        elif region == MSIX:
            if offset < MSIX_TABLE_AT + sizeof(self.s.table):
                value[0] = msix_load(self.s.table, sizeof(self.s.table), offset - MSIX_TABLE_AT, size)
            elif offset >= MSIX_PENDING_AT:
                value[0] = msix_load(self.s.pending, sizeof(self.s.pending), offset - MSIX_PENDING_AT, size)
        elif region == ROM_BAR:
            return self.rom_read(offset, size, value)
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == MMIO:
            self.catch_up()
            self.mmio_write(offset, <uint32_t>value)
        elif region == IO:
            self.catch_up()
            if offset == IOADDR:
                self.s.io_addr = <uint32_t>value
            elif offset == IODATA and self.s.io_addr < 0x1FFFF:
                self.mmio_write(self.s.io_addr, <uint32_t>value)
        elif region == MSIX and offset < MSIX_TABLE_AT + sizeof(self.s.table):
            msix_table_write(self, MSIX_AT, self.s.table, self.s.pending, offset - MSIX_TABLE_AT, size, value)
        return IO_OK

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        self.catch_up()
        msi_written(self, MSI_AT, offset, size)
        msix_written(self, MSIX_AT, self.s.table, self.s.pending, offset, size)
        self.publish()

    cdef uint32_t mmio_read(self, uint32_t offset) noexcept nogil:
        cdef uint32_t *r
        cdef uint32_t value, i
        cdef uint8_t how
        offset &= 0x1FFFC
        if offset >= MAC_END:
            if PBM <= offset < PBM_END:
                return (<uint32_t *>self.s.packet_buffer)[(offset - PBM) >> 2]
            return 0
        i = CANONICAL[offset >> 2]
        how = HOW[i]
        if how == ABSENT:
            return 0
        r = &self.m[i]
        value = r[0]
        if how == PLAIN:
            if i == STATUS >> 2:
                return self.read_status()
            if i == ICR >> 2:
                return self.read_icr()
            if i == SWSM >> 2:
                r[0] |= SWSM_SMBI
            return value
        r[0] = 0
        if how == CLEARS_PAIR:
            (r - 1)[0] = 0
        return value

    cdef void mmio_write(self, uint32_t offset, uint32_t value) noexcept nogil:
        cdef uint32_t *m = self.m
        cdef uint32_t i, q
        cdef bint was_ready
        offset &= 0x1FFFC
        if offset >= MAC_END:
            if PBM <= offset < PBM_END:
                (<uint32_t *>self.s.packet_buffer)[(offset - PBM) >> 2] = value
            return
        if self.net.outside:
            self.net.busy(self.core.now)
        i = CANONICAL[offset >> 2]
        offset = i << 2
        if offset == CTRL or offset == CTRL_DUP:
            m[CTRL >> 2] = value & ~<uint32_t>CTRL_RST
            if value & CTRL_RST:
                self.put_address()
            if value & <uint32_t>CTRL_PHY_RST:
                m[STATUS >> 2] |= STATUS_PHYRA
        elif offset == STATUS:
            m[i] &= value | ~<uint32_t>STATUS_PHYRA
        elif offset == EERD:
            self.write_nvm_command(value, False)
        elif offset == EEWR:
            self.write_nvm_command(value, True)
        elif offset == MDIC:
            self.write_mdic(value)
        elif offset == ICR:
            self.write_icr(value)
        elif offset == ICS:
            self.add_causes(value)
        elif offset == IMS:
            self.write_ims(value)
        elif offset == IMC:
            m[IMS >> 2] &= ~value
            self.update_interrupt()
        elif offset == RCTL:
            self.write_rctl(value)
        elif offset == RDT or offset == RDT1:
            was_ready = not self.net.outside or self.ready()
            m[i] = value & 0xFFFF
            self.s.full = 0
            if not was_ready:
                self.hear()
        elif offset == PSRCTL:
            if not m[RCTL >> 2] & RCTL_DTYP or value & PSRCTL_BSIZE0 and value & PSRCTL_BSIZE1:
                m[i] = value
        elif offset == RXDCTL:
            m[RXDCTL >> 2] = m[RXDCTL1 >> 2] = value
        elif offset == RDTR or offset == TIDV:
            m[i] = value & 0xFFFF
            if value & <uint32_t>DELAY_FPD and self.s.timer_at[T_RDTR if offset == RDTR else T_TIDV] != NEVER:
                self.add_causes(0)
        elif offset == TCTL:
            m[i] = value
            for q in range(<uint32_t>QUEUES):
                self.start_transmit(q)
        elif offset == TDT or offset == TDT1:
            m[i] = value & 0xFFFF
            self.start_transmit(offset == TDT1)
        elif offset == PBACLR:
            m[i] = value & 0x1F
            if msix_enabled(self, MSIX_AT):
                self.clear_pending(m[i])
        elif WMASK[i]:
            m[i] = m[i] & ~WMASK[i] | value & WMASK[i]

    cdef uint32_t read_status(self) noexcept nogil:
        """DS 10.2.2.2: speed and duplex as CTRL forces them."""
        cdef uint32_t ctrl = self.m[CTRL >> 2], value = self.m[STATUS >> 2]
        if not ctrl & CTRL_GIO_MASTER_DISABLE:
            value |= STATUS_GIO_MASTER
        if not ctrl & CTRL_FRCDPX or ctrl & CTRL_FD:
            value |= STATUS_FD
        if ctrl & CTRL_FRCSPD or self.m[CTRL_EXT >> 2] & CTRL_EXT_SPD_BYPS:
            if ctrl & CTRL_SPEED == 0:
                return value
            if ctrl & CTRL_SPEED == 0x100:
                return value | STATUS_SPEED_100
        return value | STATUS_SPEED_1000

    # ------------------------------------------------------------------ time

    cdef void publish(self) noexcept nogil:
        cdef e1000e_state *s = self.s
        cdef uint64_t at = s.autoneg_at
        cdef uint32_t i
        for i in range(<uint32_t>TIMERS):
            if i != T_ITR or not self.itr_counts():
                at = min(at, s.timer_at[i])
        for i in range(<uint32_t>QUEUES):
            at = min(at, s.tx[i].again_at)
        if self.net.outside:
            at = min(at, self.net.deadline(self.core.now, self.core.now + 1 if self.ready() else NEVER))
        self.set_deadline(at)

    cdef bint itr_counts(self) noexcept nogil:
        """Does ITR's expiry nothing but count another assertion of INTA#?  Then nobody needs to look at it."""
        return (self.s.throttled & 1 and self.s.delayed == 0 and self.p.intx and self.m[ICR >> 2] & self.m[IMS >> 2]
                and not msix_enabled(self, MSIX_AT) and not msi_enabled(self, MSI_AT))

    cdef void catch_up(self) noexcept nogil:
        """Do what itr_counts() has put off."""
        cdef uint64_t *at = &self.s.timer_at[T_ITR]
        cdef uint64_t n, period
        if at[0] > self.core.now or not self.itr_counts():
            return
        period = self.period(T_ITR)
        n = (self.core.now - at[0]) // period + 1
        at[0] += n * period
        self.m[IAC >> 2] = <uint32_t>min(<uint64_t>0xFFFFFFFFu, self.m[IAC >> 2] + n)

    cdef void on_time(self) noexcept nogil:
        cdef e1000e_state *s = self.s
        cdef uint64_t now = self.core.now
        cdef uint32_t i
        self.catch_up()
        if s.autoneg_at <= now:
            s.autoneg_at = NEVER
            if s.link:
                s.full = 0
                self.negotiated()
                if s.phy[PCTRL] & PCTRL_AUTONEG:
                    self.m[CTRL >> 2] |= CTRL_TFCE | CTRL_RFCE
                self.add_causes(ICR_LSC)
        for i in range(<uint32_t>QUEUES):
            if s.tx[i].again_at <= now:
                s.tx[i].again_at = NEVER
                if self.m[TCTL >> 2] & TCTL_EN:
                    self.run_transmit(i)
        for i in range(<uint32_t>TIMERS):
            if s.timer_at[i] <= now:
                s.timer_at[i] = NEVER
                if i < T_ITR:
                    self.add_causes(0)
                else:
                    self.throttle_over(i)
        if self.net.outside and self.net.due(now):
            self.hear()
        self.publish()

    cdef uint64_t period(self, uint32_t timer) noexcept nogil:
        cdef uint64_t n = self.m[TIMER_REG[timer] >> 2]
        if timer < T_ITR:
            return n * DELAY_UNIT
        return max(n, <uint64_t>MIN_PAUSE) * INTERRUPT_UNIT

    cdef void start(self, uint32_t timer) noexcept nogil:
        self.s.timer_at[timer] = max(self.core.now + self.period(timer), self.core.now + 1)

    # ------------------------------------------------------------------ interrupts: DS 7.4, 10.2.4

    cdef bint throttle(self, uint32_t timer) noexcept nogil:
        """An interrupt is to be sent: True if its throttle holds it back, else the throttle runs from now on."""
        if self.s.timer_at[timer] != NEVER:
            self.s.throttled |= <uint8_t>(1 << (timer - T_ITR))
            return True
        self.start(timer)
        return False

    cdef void throttle_over(self, uint32_t timer) noexcept nogil:
        """A throttle ends.  What it has held back once is sent at each end, as in the reference."""
        if not self.s.throttled >> (timer - T_ITR) & 1:
            return
        if timer == T_ITR:
            if msi_enabled(self, MSI_AT):
                self.s.sent_causes = 0
            self.add_causes(0)
        else:
            msix_notify(self, MSIX_AT, self.s.table, self.s.pending, timer - T_EITR)

    cdef void flush_timers(self) noexcept nogil:
        """Every timer is over at once."""
        cdef uint32_t i
        if not msix_enabled(self, MSIX_AT):
            self.m[ICR >> 2] |= self.s.delayed
            self.s.delayed = 0
            for i in range(<uint32_t>T_ITR):
                self.s.timer_at[i] = NEVER
        for i in range(<uint32_t>T_ITR, <uint32_t>TIMERS):
            if self.s.timer_at[i] != NEVER:
                self.s.timer_at[i] = NEVER
                self.throttle_over(i)

    cdef void add_causes(self, uint32_t causes) noexcept nogil:
        """Causes arise, and with them those that wait."""
        cdef uint32_t i
        if not msix_enabled(self, MSIX_AT):
            causes |= self.s.delayed
            self.s.delayed = 0
            for i in range(<uint32_t>T_ITR):
                self.s.timer_at[i] = NEVER
        self.m[ICR >> 2] |= causes
        self.update_interrupt()

    cdef void update_interrupt(self) noexcept nogil:
        """The one place that decides on INTA# and messages, after a change of ICR or IMS."""
        cdef uint32_t *m = self.m
        cdef bint msix = msix_enabled(self, MSIX_AT), pending
        if msix and m[ICR >> 2] & OTHER_CAUSES:
            m[ICR >> 2] |= ICR_OTHER
        m[ICR >> 2] &= ~<uint32_t>ICR_ASSERTED
        if m[ICR >> 2]:
            m[ICR >> 2] |= <uint32_t>ICR_ASSERTED
        m[ICS >> 2] = m[ICR >> 2]
        pending = m[ICR >> 2] & m[IMS >> 2] != 0
        if not pending:
            self.s.sent_causes = 0
        if msix or msi_enabled(self, MSI_AT):
            if pending:
                self.send_messages(msix)
        elif not pending:
            self.set_intx(False)
        elif not self.throttle(T_ITR):
            count(self.m, IAC)
            self.set_intx(True)
        self.publish()

    cdef void send_messages(self, bint msix) noexcept nogil:
        """A message for each cause that has none out."""
        cdef uint32_t *m = self.m
        cdef uint32_t causes = m[ICR >> 2] & m[IMS >> 2] & ~<uint32_t>ICR_ASSERTED, cause, field, clear, i
        self.s.sent_causes &= causes
        causes ^= self.s.sent_causes
        if not causes:
            return
        self.s.sent_causes |= causes
        if not msix:
            if not self.throttle(T_ITR):
                msi_notify(self, MSI_AT, 0)
            return
        for i in range(<uint32_t>VECTORS):
            cause = VECTOR_CAUSE[i]
            if not causes & cause:
                continue
            field = m[IVAR >> 2] >> 4 * i & 0xF
            if field & IVAR_VALID and field & IVAR_VECTOR < VECTORS and not self.throttle(T_EITR + (field & IVAR_VECTOR)):
                msix_notify(self, MSIX_AT, self.s.table, self.s.pending, field & IVAR_VECTOR)
            if m[CTRL_EXT >> 2] & CTRL_EXT_EIAME:
                m[IAM >> 2] &= ~cause
            clear = m[EIAC >> 2] & cause                    # DS 10.2.4.7
            m[ICR >> 2] &= ~clear
            self.s.sent_causes &= ~clear
            if not m[CTRL_EXT >> 2] & CTRL_EXT_IAME:
                m[IMS >> 2] &= ~clear

    cdef bint delay_rx(self, uint32_t *causes) noexcept nogil:
        """Causes of reception, of which some may wait (DS 7.4.4): True if all do."""
        cdef uint32_t may = ICR_RXQ0 | ICR_RXQ1 | ICR_RXT0
        if msix_enabled(self, MSIX_AT):
            return False
        if not self.m[RFCTL >> 2] & RFCTL_ACK_DIS:
            may |= ICR_ACK
        self.s.delayed |= causes[0] & may
        causes[0] &= ~may
        if causes[0] or self.m[RDTR >> 2] == 0 or self.m[RAID >> 2] == 0 and self.s.delayed & ICR_ACK:
            return False
        self.start(T_RDTR)
        if self.s.timer_at[T_RADV] == NEVER and self.m[RADV >> 2]:
            self.start(T_RADV)
        if self.s.timer_at[T_RAID] == NEVER and self.s.delayed & ICR_ACK:
            self.start(T_RAID)
        self.publish()
        return True

    cdef bint delay_tx(self, uint32_t *causes) noexcept nogil:
        """The same for transmission."""
        cdef uint32_t may = ICR_TXQ0 | ICR_TXQ1 | ICR_TXQE | ICR_TXDW
        if msix_enabled(self, MSIX_AT):
            return False
        self.s.delayed |= causes[0] & may
        causes[0] &= ~may
        if causes[0] or self.m[TIDV >> 2] == 0:
            return False
        self.start(T_TIDV)
        if self.s.timer_at[T_TADV] == NEVER and self.m[TADV >> 2]:
            self.start(T_TADV)
        self.publish()
        return True

    cdef void write_ims(self, uint32_t value) noexcept nogil:
        """DS 10.2.4.5, and what CTRL_EXT lets it do besides."""
        cdef uint32_t *m = self.m
        cdef uint32_t i, field, vectors = 0
        value &= IMS_WMASK
        m[IMS >> 2] |= value
        if value & QUEUE_CAUSES and m[CTRL_EXT >> 2] & <uint32_t>CTRL_EXT_PBA_CLR and msix_enabled(self, MSIX_AT):
            for i in range(<uint32_t>VECTORS):
                field = m[IVAR >> 2] >> 4 * i & 0xF
                if value & VECTOR_CAUSE[i] and field & IVAR_VALID:
                    vectors |= <uint32_t>1 << (field & IVAR_VECTOR)
            self.clear_pending(vectors)
        if value == IMS_WMASK and m[CTRL_EXT >> 2] & CTRL_EXT_INT_TIMERS_CLEAR:
            self.flush_timers()
        self.update_interrupt()

    cdef uint32_t read_icr(self) noexcept nogil:
        """DS 10.2.4.1, 7.4.5: cleared but with MSI-X, where it is while everything is masked, or with IAME."""
        cdef uint32_t *m = self.m
        cdef uint32_t value = m[ICR >> 2]
        if m[IMS >> 2] == 0 or not msix_enabled(self, MSIX_AT):
            m[ICR >> 2] = 0
        if m[ICR >> 2] & <uint32_t>ICR_ASSERTED and m[CTRL_EXT >> 2] & CTRL_EXT_IAME:
            m[ICR >> 2] = 0
            m[IMS >> 2] &= ~m[IAM >> 2]
        self.update_interrupt()
        return value

    cdef void write_icr(self, uint32_t value) noexcept nogil:
        cdef uint32_t *m = self.m
        if m[ICR >> 2] & <uint32_t>ICR_ASSERTED and m[CTRL_EXT >> 2] & CTRL_EXT_IAME:
            m[IMS >> 2] &= ~m[IAM >> 2]
        m[ICR >> 2] &= ~value
        if value & ICR_OTHER:
            m[ICR >> 2] &= ~<uint32_t>OTHER_CAUSES
        self.update_interrupt()

    cdef void clear_pending(self, uint32_t vectors) noexcept nogil:
        self.s.pending[0] &= <uint8_t>~(vectors & 0x1F)

    # ------------------------------------------------------------------ NVM: DS 10.2.2.4

    cdef void write_nvm_command(self, uint32_t value, bint write) noexcept nogil:
        """EERD and EEWR: both answer in EERD."""
        cdef uint32_t at = value >> EERW_ADDR_SHIFT & EERW_ADDR, data = value >> EERW_DATA_SHIFT if write else 0, done = 0
        if at < ROM_WORDS and value & EERW_START:
            done = EERW_DONE
            if write:
                self.s.nvm[at] = <uint16_t>data
            else:
                data = self.s.nvm[at]
        self.m[EERD >> 2] = done | <uint32_t>(at << EERW_ADDR_SHIFT) | data << EERW_DATA_SHIFT

    # ------------------------------------------------------------------ PHY: DS 9, 10.2.2.7

    cdef void write_mdic(self, uint32_t value) noexcept nogil:
        cdef e1000e_state *s = self.s
        cdef uint32_t n = value >> MDIC_REG_SHIFT & 31, data = value & MDIC_DATA, page = 0
        cdef uint8_t may
        if not PHY_MAY[n] & PHY_EVERY_PAGE:
            page = s.phy[PPAGE]
        may = PHY_MAY[page * PHY_REGS + n] if page < PHY_PAGES else 0
        if (value >> MDIC_PHY_SHIFT & 31) != PHY_ADDRESS:
            value = self.m[MDIC >> 2] | MDIC_ERROR
        elif value & MDIC_OP_READ:
            if may & PHY_READ:
                value = value ^ data | s.phy[page * PHY_REGS + n]
            else:
                value |= MDIC_ERROR
        elif value & MDIC_OP_WRITE:
            if not may & PHY_WRITE:
                value |= MDIC_ERROR
            elif n == PCTRL:
                s.phy[PCTRL] = <uint16_t>(data & ~<uint32_t>PCTRL_SELF_CLEARING)
                if data & PCTRL_RESTART and data & PCTRL_AUTONEG:
                    self.negotiate()
            elif n == PPAGE:
                s.phy[PPAGE] = data & PPAGE_MASK
            elif n == POEM and page == 0:
                s.phy[POEM] = <uint16_t>(data & ~<uint32_t>POEM_RESTART)
                if data & POEM_RESTART:
                    self.negotiate()
            else:
                s.phy[page * PHY_REGS + n] = <uint16_t>data
        self.m[MDIC >> 2] = value | MDIC_READY
        if value & MDIC_INT_EN:
            self.add_causes(ICR_MDAC)

    # ------------------------------------------------------------------ transmission: DS 7.2

    cdef void start_transmit(self, uint32_t q) noexcept nogil:
        if (self.m[(TARC + q * QUEUE) >> 2] & TARC_ENABLE and self.m[TCTL >> 2] & TCTL_EN and self.s.tx[q].again_at == NEVER):
            self.run_transmit(q)

    cdef void run_transmit(self, uint32_t q) noexcept nogil:
        """Take descriptors until head meets tail.  A queue with more than BURST bytes goes on when the wire would be free,
        so that no guest keeps the engine busy in no time."""
        cdef uint32_t *r = self.m + (q * QUEUE >> 2)
        cdef uint32_t causes = 0, length = r[TDLEN >> 2], upper
        cdef uint64_t base = (<uint64_t>r[TDBAH >> 2] << 32) + r[TDBAL >> 2], at
        cdef tx_queue *t = &self.s.tx[q]
        cdef tx_desc d
        self.wire = 0
        t.ide = 0
        while r[TDH >> 2] != r[TDT >> 2] and r[TDT >> 2] < length // DESCRIPTOR:
            if self.wire > BURST:
                t.again_at = self.core.now + self.wire * BYTE_NS
                break
            at = base + <uint64_t>DESCRIPTOR * r[TDH >> 2]
            self.dma.read(at, &d, DESCRIPTOR)
            self.wire += DESCRIPTOR
            self.transmit_descriptor(q, &d)
            if d.lower & TXD_RS or self.m[IVAR >> 2] & <uint32_t>IVAR_EVERY_WB:
                t.ide = d.lower & <uint32_t>TXD_IDE != 0
                upper = d.upper | TXD_DD
                self.dma.write(at + 12, &upper, 4)
                causes |= (ICR_TXQ1 if q else ICR_TXQ0) if msix_enabled(self, MSIX_AT) else ICR_TXDW
            advance(&r[TDH >> 2], 1, length)
        if t.again_at == NEVER:
            causes |= ICR_TXQE
        if not t.ide or not self.delay_tx(&causes):
            self.add_causes(causes)

    cdef void transmit_descriptor(self, uint32_t q, tx_desc *d) noexcept nogil:
        cdef tx_queue *t = &self.s.tx[q]
        cdef uint32_t kind = d.lower & (TXD_DEXT | TXD_DTYP_DATA), length = d.lower & TXD_LENGTH
        if kind == TXD_DEXT:                                # context: DS 7.2.10.2
            set_context(&t.context, d)
            t.context.tse = d.lower & TXD_TSE != 0
            return
        t.context.segment = 0
        if kind == (TXD_DEXT | TXD_DTYP_DATA):              # data: DS 7.2.10.3
            t.context.popts = <uint8_t>(d.upper >> 8)
            t.context.segment = d.lower & TXD_TSE != 0
        if not t.skip and t.n == FRAGMENTS:
            t.skip = 1
        elif not t.skip and length:
            t.addr[t.n] = d.addr
            t.length[t.n] = <uint16_t>length
            t.n += 1
        if d.lower & TXD_EOP:
            if not t.skip:
                self.transmit_packet(t, d)
            t.skip = t.n = t.context.popts = t.context.segment = 0

    cdef void transmit_packet(self, tx_queue *t, tx_desc *last) noexcept nogil:
        """Fetch the fragments, finish the packet and send it."""
        cdef uint8_t *data = self.gathered + VLAN_TAG
        cdef uint32_t n = 0, i, whole
        cdef bint tagged = self.m[CTRL >> 2] & CTRL_VME and last.lower & TXD_VLE, done
        cdef const tx_context *c = &t.context
        cdef frame_info f
        for i in range(t.n):
            if n + t.length[i] > FRAME_MAX:
                self.wire += n                              # as if it had left, for BURST
                return
            self.dma.read(t.addr[i], data + n, t.length[i])
            n += t.length[i]
        if n < 14:                                          # not even a header
            return
        parse(data, n, &f)
        if f.cut:
            self.wire += n
            return
        whole = n
        if tagged and be16(data + 12) != ETHERTYPE_VLAN and be16(data + 12) != ETHERTYPE_QINQ:
            whole += VLAN_TAG
        if c.tse and c.segment:
            done = self.transmit_segments(t, data, n, tagged, last.upper >> 16)
        else:
            if c.popts & POPTS_TXSM:
                put_checksum(data, n, c.tucso, c.tucss, c.tucse)
            if c.popts & POPTS_IXSM:
                put_checksum(data, n, c.ipcso, c.ipcss, c.ipcse, zero=0)
            done = True
            if tagged:
                self.tag(data, n, last.upper >> 16)
            self.send(data - (whole - n), whole)
        if not done:
            self.wire += n
            return
        count_size(self.m, PTC64, whole)
        count_sent(self.m, whole)
        count_cast(self.m, data - (whole - n), BPTC, MPTC)

    cdef uint32_t tag(self, uint8_t *data, uint32_t n, uint32_t tag) noexcept nogil:
        """Give a packet a VLAN tag: DS 7.5.  Both addresses move down four bytes; a tag that is there is changed.  How
        many bytes came before it."""
        if be16(data + 12) == ETHERTYPE_VLAN or be16(data + 12) == ETHERTYPE_QINQ:
            if n >= 16:
                put16(data + 14, tag)
            return 0
        memmove(data - VLAN_TAG, data, 12)
        put16(data + 12 - VLAN_TAG, self.m[VET >> 2])
        put16(data + 14 - VLAN_TAG, tag)
        return VLAN_TAG

    cdef bint transmit_segments(self, tx_queue *t, uint8_t *data, uint32_t n, bint tagged, uint32_t tag) noexcept nogil:
        """Cut a packet into segments of `mss` bytes, each with the packet's first `hdr_len` bytes, whose lengths, numbers
        and checksums go on: DS 7.2.4, 7.2.6.  False if its descriptors do not describe one."""
        cdef const tx_context *c = &t.context
        cdef uint8_t *p = self.segment + VLAN_TAG
        cdef uint32_t at = c.hdr_len, part, length, frames = 0, sum, before
        if c.mss == 0 or c.hdr_len >= n or c.hdr_len < 14 or c.tucss + (20 if c.tcp else 8) > c.hdr_len or c.ipcss + 8 > c.hdr_len:
            return False
        count(self.m, TSCTC)
        while at < n:
            part = min(<uint32_t>c.mss, n - at)
            memcpy(p, data, c.hdr_len)
            memcpy(p + c.hdr_len, data + at, part)
            length = c.hdr_len + part
            if c.ip:
                put16(p + c.ipcss + 2, length - c.ipcss)
                add16(p + c.ipcss + 4, frames)
            else:
                put16(p + c.ipcss + 4, length - c.ipcss - IP6_HEADER)
            if c.tcp:
                add32(p + c.tucss + 4, at - c.hdr_len)
                if at + part < n:
                    p[c.tucss + 13] &= 0xF6                 # PSH and FIN belong to the last one
            else:
                put16(p + c.tucss + 4, length - c.tucss)
            if c.popts & POPTS_TXSM:                        # the pseudo-header's sum is there, without a length
                sum = be16(p + c.tucso) + length - c.tucss
                put16(p + c.tucso, folded(sum))
                put_checksum(p, length, c.tucso, c.tucss, c.tucse)
            if c.popts & POPTS_IXSM:
                put_checksum(p, length, c.ipcso, c.ipcss, c.ipcse, zero=0)
            before = self.tag(p, length, tag) if tagged else 0
            self.send(p - before, length + before)
            frames += 1
            at += part
        return True

    cdef void send(self, const uint8_t *p, uint32_t n) noexcept nogil:
        """A packet leaves, or turns around in the PHY or the MAC."""
        self.leave(p, n, self.s.phy[PCTRL] & PCTRL_LOOPBACK != 0 or self.m[RCTL >> 2] & RCTL_LBM_MAC != 0)

    # ------------------------------------------------------------------ reception: DS 7.1

    cdef void write_rctl(self, uint32_t value) noexcept nogil:
        """DS 10.2.5.1: with EN, sizes of buffers and descriptors are as the registers say now."""
        cdef e1000e_state *s = self.s
        cdef uint32_t psrctl = self.m[PSRCTL >> 2], i
        cdef bint was_ready = not self.net.outside or self.ready()
        self.m[RCTL >> 2] = value
        if not value & RCTL_EN:
            return
        memset(s.rx_size, 0, sizeof(s.rx_size))
        if value & RCTL_DTYP:
            s.rx_size[0] = (psrctl & 0x7F) * 128
            for i in range(1, 4):
                s.rx_size[i] = (psrctl >> 8 * i & 0x3F) * 1024
        elif value >> RCTL_FLXBUF_SHIFT & 0xF:
            s.rx_size[0] = (value >> RCTL_FLXBUF_SHIFT & 0xF) * 1024
        else:
            s.rx_size[0] = buffer_size(value)
        s.rx_desc_len = 32 if self.m[RFCTL >> 2] & RFCTL_EXTEN and value & RCTL_DTYP_PS else 16
        s.rx_min_shift = (value >> RCTL_RDMTS_SHIFT & 3) + 5
        s.full = 0
        if not was_ready:
            self.hear()

    cdef uint32_t free_descriptors(self, uint32_t q) noexcept nogil:
        cdef uint32_t *r = self.m + (q * QUEUE >> 2)
        if r[RDH >> 2] <= r[RDT >> 2]:
            return r[RDT >> 2] - r[RDH >> 2]
        return r[RDLEN >> 2] // DESCRIPTOR + r[RDT >> 2] - r[RDH >> 2]

    cdef bint has_buffers(self, uint32_t q, uint64_t n) noexcept nogil:
        """May n bytes fit the descriptors that software has given?"""
        cdef uint32_t *size = self.s.rx_size
        cdef uint32_t each = max(self.s.rx_desc_len, <uint32_t>DESCRIPTOR) // DESCRIPTOR
        return n <= <uint64_t>(self.free_descriptors(q) // each) * (size[0] + size[1] + size[2] + size[3])

    cdef bint ready(self) noexcept nogil:
        """Does the receiver take packets from outside, or such as turn around?"""
        if self.s.full or not (self.m[STATUS >> 2] & STATUS_LU and self.m[RCTL >> 2] & RCTL_EN and self.config16(COMMAND) & COMMAND_MASTER):
            return False
        return (self.m[RDLEN >> 2] and self.has_buffers(0, 1)) or (self.m[(RDLEN + QUEUE) >> 2] and self.has_buffers(1, 1))

    cdef bint accepts(self, const uint8_t *p) noexcept nogil:
        """VLAN and address filters: DS 7.1.1, 7.5."""
        cdef uint32_t *m = self.m
        cdef uint32_t rctl = m[RCTL >> 2]
        if not self.in_vlan(p):
            return False
        if not p[0] & 1:
            if rctl & RCTL_UPE:
                return True
        elif is_broadcast(p):
            if rctl & RCTL_BAM:
                return True
        elif rctl & RCTL_MPE:
            return True
        if self.has_address(p):
            return True
        if not self.in_multicast_table(p):
            return False
        count(m, MPRC)                          # and once more in store(), as in the reference
        return True

    cdef uint32_t rss(self, const uint8_t *p, const frame_info *f, uint32_t *type) noexcept nogil:
        """Receive-side scaling (DS 7.1.11): the type of hash, and the Toeplitz hash."""
        cdef uint32_t *m = self.m
        cdef uint32_t mrqc = m[MRQC >> 2], rfctl = m[RFCTL >> 2], hash = 0, i, n = 0, bits
        cdef const uint8_t *key = <const uint8_t *>&m[RSSRK >> 2]
        cdef uint8_t input[36]
        type[0] = RSS_NONE
        if f.ip4:
            if not f.fragment and f.tcp and mrqc & MRQC_TCPIPV4:
                type[0] = RSS_IPV4TCP
            elif mrqc & MRQC_IPV4:
                type[0] = RSS_IPV4
        elif f.ip6:
            if (not (rfctl & RFCTL_IPV6_EX_DIS and f.extensions)
                    and not (rfctl & RFCTL_NEW_IPV6_EXT_DIS and (f.ex_source or f.ex_destination))):
                if f.tcp and not f.fragment and mrqc & MRQC_TCPIPV6:
                    type[0] = RSS_IPV6TCP
                elif mrqc & MRQC_IPV6EX:
                    type[0] = RSS_IPV6EX
            if type[0] == RSS_NONE and mrqc & MRQC_IPV6:
                type[0] = RSS_IPV6
        if type[0] == RSS_NONE or f.ip6 and f.ip6_source == 0:
            return 0
        if f.ip4:
            memcpy(input, p + f.l3 + 12, 8)
            n = 8
        else:
            memcpy(input, p + (f.l3 + 8 if type[0] == RSS_IPV6 else f.ip6_source), 16)
            memcpy(input + 16, p + (f.l3 + 24 if type[0] == RSS_IPV6 else f.ip6_destination), 16)
            n = 32
        if type[0] == RSS_IPV4TCP or type[0] == RSS_IPV6TCP:
            memcpy(input + n, p + f.l4, 4)
            n += 4
        bits = <uint32_t>key[0] << 24 | <uint32_t>key[1] << 16 | <uint32_t>key[2] << 8 | key[3]
        for i in range(8 * n):
            if input[i >> 3] >> (7 - (i & 7)) & 1:
                hash ^= bits
            bits = bits << 1 | (key[4 + (i >> 3)] >> (7 - (i & 7)) & 1)
        return hash

    cdef bint receive_packet(self, const uint8_t *p, uint64_t n) noexcept nogil:
        """A packet without FCS.  False if there is no receiver, or no room."""
        cdef uint32_t *m = self.m
        cdef uint32_t rctl = m[RCTL >> 2], tag = 0, hash = 0, type = 0, q = 0, causes = 0
        cdef bint stripped = False, hashed, stored
        cdef uint64_t whole
        cdef frame_info f
        if not (m[STATUS >> 2] & STATUS_LU and rctl & RCTL_EN):
            return False
        if n < MIN_FRAME:
            p = self.padded(p, n)
            n = MIN_FRAME
            count(m, RUC)
        if too_long(rctl, n):
            count(m, ROC)
            return True
        if n > LONGEST_FRAME or not self.accepts(p):
            return True
        if m[CTRL >> 2] & CTRL_VME and is_tagged(m, p):
            stripped = True
            tag = be16(p + 14)
            n -= VLAN_TAG
            p = self.untagged(p, n)
        parse(p, <uint32_t>n, &f)
        if f.tcp and f.fragment:            # no header: the reference goes by the last one that there was
            f.ack, f.tcp_data = self.s.last_tcp & 1, self.s.last_tcp >> 1
        elif f.tcp:
            self.s.last_tcp = f.ack | f.tcp_data << 1
        hashed = m[MRQC >> 2] & MRQC_MODE == MRQC_RSS and m[RXCSUM >> 2] & RXCSUM_PCSD and m[RFCTL >> 2] & RFCTL_EXTEN
        if hashed:
            hash = self.rss(p, &f, &type)
            if type != RSS_NONE:
                q = m[(RETA >> 2) + (hash >> 2 & 31)] >> (8 * (hash & 3) + 7) & 1
        whole = n + (0 if rctl & RCTL_SECRC else FCS)
        if self.has_buffers(q, whole):
            self.store(q, p, <uint32_t>n, &f, stripped, tag, hashed, type, hash)
            if whole < m[RSRPD >> 2]:
                causes |= ICR_SRPD
            if not m[RFCTL >> 2] & RFCTL_ACK_DIS and f.ack and not (m[RFCTL >> 2] & RFCTL_ACK_DATA_DIS and f.tcp_data):
                causes |= ICR_ACK
            if msix_enabled(self, MSIX_AT):
                causes |= ICR_RXQ1 if q else ICR_RXQ0
            else:
                causes |= ICR_RXT0
                if self.free_descriptors(q) == m[(RDLEN + q * QUEUE) >> 2] >> self.s.rx_min_shift:
                    causes |= ICR_RXDMT0
        else:
            causes = ICR_RXO
        stored = causes != ICR_RXO
        self.s.full = not stored
        if not self.delay_rx(&causes):
            self.add_causes(causes)
        return stored

    cdef uint32_t header_length(self, const frame_info *f, uint32_t n) noexcept nogil:
        """How much of a packet goes to the header buffer of a packet-split descriptor (DS 7.1.10); 0: it is not split."""
        cdef uint32_t length
        if not (self.m[RFCTL >> 2] & RFCTL_EXTEN and self.m[RCTL >> 2] & RCTL_DTYP_PS and (f.ip4 or f.ip6)):
            return 0
        if f.fragment and self.m[RFCTL >> 2] & RFCTL_IPFRSP_DIS:
            return 0
        length = f.l5 if not f.fragment and (f.udp or f.tcp) else f.l4
        return 0 if length > self.s.rx_size[0] or length > n else length

    cdef void store(self, uint32_t q, const uint8_t *p, uint32_t n, const frame_info *f, bint stripped, uint32_t tag,
                    bint hashed, uint32_t type, uint32_t hash) noexcept nogil:
        """Write a packet into the buffers of the next descriptors, once around the ring at most: software may have put the
        tail where a head that moves by two descriptors never comes."""
        cdef e1000e_state *s = self.s
        cdef uint32_t *r = self.m + (q * QUEUE >> 2)
        cdef uint32_t rfctl = self.m[RFCTL >> 2], rctl = self.m[RCTL >> 2], length = r[RDLEN >> 2], fcs = 0 if rctl & RCTL_SECRC else FCS
        cdef uint32_t whole = n + fcs, header, at = 0, copy, status, which, rounds = 0
        cdef uint32_t written[4]
        cdef uint64_t base = (<uint64_t>r[RDBAH >> 2] << 32) + r[RDBAL >> 2], where
        cdef uint64_t d[4]
        cdef uint64_t buffers[4]
        cdef bint split = rfctl & RFCTL_EXTEN and rctl & RCTL_DTYP_PS, last = False
        cdef uint8_t zeros[4]
        memset(zeros, 0, 4)
        header = self.header_length(f, n)
        while not last:
            if r[RDH >> 2] == r[RDT >> 2] or r[RDT >> 2] >= length // DESCRIPTOR or rounds > length // DESCRIPTOR:
                return
            rounds += 1
            where = base + <uint64_t>DESCRIPTOR * r[RDH >> 2]
            memset(d, 0, sizeof(d))
            self.dma.read(where, d, s.rx_desc_len)
            self.wire += DESCRIPTOR
            memset(buffers, 0, sizeof(buffers))
            memcpy(buffers, d, 32 if split else 8)
            memset(written, 0, sizeof(written))
            if buffers[0]:                                  # one without a buffer is skipped: DS 7.1.7.2
                which = 1 if header else 0
                if header and at == 0:
                    self.dma.write(buffers[0], p, header)
                    written[0] = at = header
                while at < whole and which < 4:             # the FCS is there, as zeros
                    copy = min((n if at < n else whole) - at, s.rx_size[which] - written[which])
                    self.dma.write(buffers[which] + written[which], p + at if at < n else zeros, copy)
                    written[which] += copy
                    at += copy
                    if written[which] == s.rx_size[which]:
                        which += 1
                last = at >= whole
            status = self.rx_status(p, n, f) | (RXD_VP if stripped else 0) if last else RXD_DD
            if not rfctl & RFCTL_EXTEN:                     # legacy: DS 7.1.4
                d[1] = (written[0] | <uint64_t>(status & 0xFF) << 32 | <uint64_t>(status >> 24) << 40
                        | (<uint64_t>tag << 48 if last and stripped else 0))
            else:                                           # extended, packet split: DS 7.1.5, 7.1.10
                memset(d, 0, sizeof(d))
                if last and self.m[RXCSUM >> 2] & RXCSUM_PCSD:
                    if hashed:
                        d[0] = type | q << 8 | <uint64_t>hash << 32
                elif last and f.ip4:
                    d[0] = <uint64_t>f.ip_id << 32
                d[1] = status | <uint64_t>written[0] << 32 | (<uint64_t>tag << 48 if last and stripped else 0)
                d[2] = (header | (RXD_HDRSP if header else 0) | <uint64_t>written[1] << 16 | <uint64_t>written[2] << 32
                        | <uint64_t>written[3] << 48)
            self.dma.write(where, d, s.rx_desc_len)
            advance(&r[RDH >> 2], s.rx_desc_len // DESCRIPTOR, length)
        count_received(self.m, whole, n + FCS)
        count_cast(self.m, p, BPRC, MPRC)

    cdef uint32_t rx_status(self, const uint8_t *p, uint32_t n, const frame_info *f) noexcept nogil:
        """Status and errors of a packet's last descriptor, but for its tag: DS 7.1.4, 7.1.5, 7.1.9."""
        cdef uint32_t rxcsum = self.m[RXCSUM >> 2], rfctl = self.m[RFCTL >> 2], status = RXD_DD | RXD_EOP
        if not rxcsum & RXCSUM_PCSD and f.ip4:
            status |= RXD_IPIDV
        if f.tcp and f.ack and not (rfctl & RFCTL_ACK_DATA_DIS and f.tcp_data):
            status |= RXD_ACK
        if f.ip4:
            status |= <uint32_t>(RXD_TYPE_IP4_L4 if f.tcp or f.udp else RXD_TYPE_IP4) << RXD_TYPE_SHIFT
        elif f.ip6 and not rfctl & RFCTL_IPV6_DIS:
            status |= <uint32_t>(RXD_TYPE_IP6_L4 if f.tcp or f.udp else RXD_TYPE_IP6) << RXD_TYPE_SHIFT
        if f.ip6 and rfctl & RFCTL_IPV6_XSUM_DIS:
            return status
        if rxcsum & RXCSUM_IPOFLD and f.ip4:
            status |= RXD_IPCS
            if folded(part_sum(p, n, f.l3, f.l4 - f.l3)) != 0xFFFF:
                status |= RXD_IPE
        if not rxcsum & RXCSUM_TUOFLD or not (f.tcp or f.udp) or f.ip4 and f.fragment or f.udp and be16(p + f.l4 + 6) == 0:
            return status
        status |= RXD_TCPCS
        if f.udp:
            status |= RXD_UDPCS
        if not l4_checksum_holds(p, n, f):
            status |= RXD_TCPE
        return status
