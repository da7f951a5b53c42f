"""What Intel's 82540EM and 82574L have alike: registers, descriptors, PHY and link, address filters, statistics.

Names and section numbers: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, 317453 ("SDM"), and
Intel 82574 GbE Controller Family Datasheet, 317694, revision 3.4 ("DS").
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine.devices._net cimport NetController, be16, is_broadcast

cdef enum:                  # I/O window
    IOADDR = 0
    IODATA = 4

cdef enum:                  # registers: SDM table 13-2, DS 10.2
    CTRL = 0x0000
    STATUS = 0x0008
    EECD = 0x0010
    EERD = 0x0014
    MDIC = 0x0020
    VET = 0x0038
    ICR = 0x00C0
    ITR = 0x00C4
    ICS = 0x00C8
    IMS = 0x00D0
    IMC = 0x00D8
    RCTL = 0x0100
    TCTL = 0x0400
    AIT = 0x0458
    LEDCTL = 0x0E00
    PBA = 0x1000
    RDFH = 0x2410
    RDBAL = 0x2800
    RDBAH = 0x2804
    RDLEN = 0x2808
    RDH = 0x2810
    RDT = 0x2818
    RDTR = 0x2820
    RADV = 0x282C
    TDFH = 0x3410
    TDBAL = 0x3800
    TDBAH = 0x3804
    TDLEN = 0x3808
    TDH = 0x3810
    TDT = 0x3818
    TXDCTL = 0x3828
    TADV = 0x382C
    CRCERRS = 0x4000        # statistics: SDM 13.7, DS 10.2.7
    MPC = 0x4010
    FCRUC = 0x4058
    PRC64 = 0x405C          # and five more sizes, up to PRC1522
    GPRC = 0x4074
    BPRC = 0x4078
    MPRC = 0x407C
    GPTC = 0x4080
    GORCL = 0x4088
    GORCH = 0x408C
    GOTCL = 0x4090
    GOTCH = 0x4094
    RUC = 0x40A4
    ROC = 0x40AC
    TORL = 0x40C0
    TORH = 0x40C4
    TOTL = 0x40C8
    TOTH = 0x40CC
    TPR = 0x40D0
    TPT = 0x40D4
    PTC64 = 0x40D8          # and five more sizes, up to PTC1522
    MPTC = 0x40F0
    BPTC = 0x40F4
    TSCTC = 0x40F8
    MTA = 0x5200            # 128 words
    RA = 0x5400             # 16 pairs RAL, RAH
    VFTA = 0x5600           # 128 words
    WUC = 0x5800
    WUFC = 0x5808
    WUS = 0x5810
    MANC = 0x5820
    IPAV = 0x5838
    IP4AT = 0x5840
    IP6AT = 0x5880
    WUPM = 0x5A00
    SWSM = 0x5B50
    FFLT = 0x5F00
    FFMT = 0x9000
    FFVT = 0x9800
    PBM = 0x10000           # packet buffer memory

cdef enum:                  # CTRL, STATUS: SDM 13.4.1, 13.4.2; DS 10.2.2.1, 10.2.2.2
    CTRL_RST = 0x04000000
    CTRL_VME = 0x40000000
    CTRL_WMASK = 0xFBFFFFFF # all but RST
    STATUS_LU = 0x00000002

cdef enum:                  # EEPROM, NVM: SDM 5.6, DS 6.1
    ROM_WORDS = 64
    ROM_SUM = 0xBABA        # of all words

cdef enum:                  # MDIC: SDM 13.4.7, DS 10.2.2.7
    MDIC_DATA = 0x0000FFFF
    MDIC_REG_SHIFT = 16
    MDIC_PHY_SHIFT = 21
    MDIC_OP_WRITE = 0x04000000
    MDIC_OP_READ = 0x08000000
    MDIC_READY = 0x10000000
    MDIC_INT_EN = 0x20000000
    MDIC_ERROR = 0x40000000
    PHY_ADDRESS = 1

cdef enum:                  # PHY registers: SDM 13.4.7.1, DS 9
    PHY_REGS = 32
    PCTRL = 0
    PSTATUS = 1
    LPA = 5
    PCTRL_LOOPBACK = 0x4000
    PCTRL_AUTONEG = 0x1000
    PCTRL_RESTART = 0x0200
    PCTRL_SELF_CLEARING = 0x823F    # RESET, RESTART, and reserved bits
    PSTATUS_LINK = 0x0004
    PSTATUS_AUTONEG_DONE = 0x0020
    LPA_ACK = 0x4000

cdef enum:                  # ICR, ICS, IMS, IMC: SDM 13.4.17, DS 10.2.4.1
    ICR_TXDW = 0x00000001
    ICR_TXQE = 0x00000002
    ICR_LSC = 0x00000004
    ICR_RXDMT0 = 0x00000010
    ICR_RXO = 0x00000040
    ICR_RXT0 = 0x00000080
    ICR_MDAC = 0x00000200

cdef enum:                  # RCTL: SDM 13.4.22, DS 10.2.5.1
    RCTL_EN = 0x00000002
    RCTL_SBP = 0x00000004
    RCTL_UPE = 0x00000008
    RCTL_MPE = 0x00000010
    RCTL_LPE = 0x00000020
    RCTL_RDMTS_SHIFT = 8
    RCTL_MO_SHIFT = 12
    RCTL_BAM = 0x00008000
    RCTL_BSIZE_SHIFT = 16
    RCTL_VFE = 0x00040000
    RCTL_BSEX = 0x02000000
    RCTL_SECRC = 0x04000000

cdef enum:                  # other bits
    TCTL_EN = 0x00000002
    RAH_AV = 0x80000000

cdef enum:                  # transmit descriptors, second doubleword: SDM 3.3, DS 7.2.10, 7.2.11
    TXD_LENGTH = 0x0000FFFF
    TXD_DTYP_DATA = 0x00100000
    TXD_EOP = 0x01000000
    TXD_RS = 0x08000000
    TXD_DEXT = 0x20000000
    TXD_VLE = 0x40000000
    TXD_IDE = 0x80000000
    TXD_TCP = 0x01000000    # of a context descriptor
    TXD_IP = 0x02000000
    TXD_TSE = 0x04000000    # and of a data descriptor
    TXD_PAYLEN = 0x000FFFFF
    TXD_DD = 0x1            # status, in the last doubleword
    POPTS_IXSM = 0x01
    POPTS_TXSM = 0x02

cdef enum:                  # receive descriptors, status: SDM 3.2.3.1, DS 7.1.4
    RXD_DD = 0x01
    RXD_EOP = 0x02
    RXD_VP = 0x08

cdef enum:
    DESCRIPTOR = 16
    MIN_FRAME = 60
    FCS = 4
    VLAN_TAG = 4
    OVERSIZE = 1522
    OVERSIZE_LPE = 16384

cdef enum:
    VENDOR_INTEL = 0x8086
    MS = 1000000
    INTERRUPT_UNIT = 256    # ns: SDM 13.4.18, DS 10.2.4.2
    MIN_PAUSE = 500         # of them: at most 7813 interrupts a second
    BURST = 16 << 20        # bytes that leave in no time; what is more waits as long as the wire is busy with them
    ROUNDS = 64 << 20       # of frames and descriptors in one burst, after which frames that turn around are lost: a ring
                            # of descriptors without buffers is walked once for each of them
    BYTE_NS = 8             # at 1 Gb/s

cdef enum:                  # what a read does, by register
    ABSENT, PLAIN, CLEARS, CLEARS_PAIR

cdef struct tx_desc:
    uint64_t addr
    uint32_t lower
    uint32_t upper

# What a context descriptor has said: SDM 3.3.6, DS 7.2.10.2.
cdef struct tx_context:
    uint32_t paylen
    uint16_t ipcse
    uint16_t tucse
    uint16_t mss
    uint8_t ipcss
    uint8_t ipcso
    uint8_t tucss
    uint8_t tucso
    uint8_t hdr_len
    uint8_t ip
    uint8_t tcp
    uint8_t tse             # of the 82574L, which has one for both kinds of packet
    uint8_t popts           # and what its last data descriptor has said
    uint8_t segment         # TSE

cdef class E1000Common(NetController):
    # In the state of the part, which sets them before it powers on.
    cdef uint32_t *m                # registers, one word each
    cdef uint16_t *phy
    cdef uint64_t *autoneg_at       # when the PHY has negotiated; NEVER
    cdef uint8_t *link              # level of the input pin: the cable is in
    cdef uint8_t *frame             # the packet being received
    cdef uint8_t address[6]         # the station's
    cdef uint64_t wire              # bytes sent since the transmitter was started
    # What a part does for these.
    cdef void publish(self) noexcept nogil
    cdef void catch_up(self) noexcept nogil
    cdef void add_causes(self, uint32_t causes) noexcept nogil
    cdef bint ready(self) noexcept nogil
    cdef bint receive_packet(self, const uint8_t *p, uint64_t n) noexcept nogil
    # What these do for a part.
    cdef bytes station(self)
    cdef void put_address(self) noexcept nogil
    cdef void link_up(self) noexcept nogil
    cdef void link_down(self) noexcept nogil
    cdef void negotiate(self) noexcept nogil
    cdef void negotiated(self) noexcept nogil
    cdef void set_link(self, bint up) noexcept nogil
    cdef bint in_vlan(self, const uint8_t *p) noexcept nogil
    cdef bint has_address(self, const uint8_t *p) noexcept nogil
    cdef bint in_multicast_table(self, const uint8_t *p) noexcept nogil
    cdef const uint8_t *padded(self, const uint8_t *p, uint64_t n) noexcept nogil
    cdef const uint8_t *untagged(self, const uint8_t *p, uint64_t n) noexcept nogil
    cdef void leave(self, const uint8_t *p, uint32_t n, bint turns) noexcept nogil
    cdef bint arrive(self, const uint8_t *p, uint64_t n) noexcept nogil
    cdef void hear(self) noexcept nogil


cdef inline void count(uint32_t *m, uint32_t offset) noexcept nogil:
    """A counter goes up, and sticks at its end."""
    if m[offset >> 2] != 0xFFFFFFFFu:
        m[offset >> 2] += 1


cdef inline void count_octets(uint32_t *m, uint32_t offset, uint64_t n) noexcept nogil:
    """Add to a 64-bit counter, which sticks at its end."""
    cdef uint32_t *r = &m[offset >> 2]
    cdef uint64_t before = <uint64_t>r[1] << 32 | r[0], after = before + n
    if after < before:
        after = ~<uint64_t>0
    r[0] = <uint32_t>after
    r[1] = <uint32_t>(after >> 32)


cdef inline void count_size(uint32_t *m, uint32_t offset, uint64_t n) noexcept nogil:
    """One packet more in the class of packets of n bytes."""
    if n >= 64:
        count(m, offset + 4 * ((n > 64) + (n > 127) + (n > 255) + (n > 511) + (n > 1023)))


cdef inline void count_cast(uint32_t *m, const uint8_t *p, uint32_t broadcast, uint32_t multicast) noexcept nogil:
    """One packet more for one of two counters, or for none."""
    if is_broadcast(p):
        count(m, broadcast)
    elif p[0] & 1:
        count(m, multicast)


cdef inline void count_sent(uint32_t *m, uint64_t n) noexcept nogil:
    """A packet of n bytes has left."""
    count(m, TPT)
    count_octets(m, TOTL, n)
    count(m, GPTC)
    count_octets(m, GOTCL, n)


cdef inline void count_received(uint32_t *m, uint64_t whole, uint64_t n) noexcept nogil:
    """A packet has come in: `whole` bytes of it were stored, n are counted."""
    count_size(m, PRC64, whole)
    count(m, TPR)
    count(m, GPRC)
    count_octets(m, TORL, n)
    count_octets(m, GORCL, n)


cdef inline void advance(uint32_t *head, uint32_t by, uint32_t length) noexcept nogil:
    """The head of a ring of `length` bytes moves on."""
    head[0] += by
    if <uint64_t>head[0] * DESCRIPTOR >= length:
        head[0] = 0


cdef inline uint32_t buffer_size(uint32_t rctl) noexcept nogil:
    """BSIZE and BSEX of RCTL."""
    cdef uint32_t n = rctl >> RCTL_BSIZE_SHIFT & 3
    return (<uint32_t>32768 if rctl & RCTL_BSEX and n else <uint32_t>2048) >> n


cdef inline bint too_long(uint32_t rctl, uint64_t n) noexcept nogil:
    """Is a packet refused for its length?"""
    return not rctl & RCTL_SBP and (n > OVERSIZE_LPE or n > OVERSIZE and not rctl & RCTL_LPE)


cdef inline bint is_tagged(uint32_t *m, const uint8_t *p) noexcept nogil:
    """Does a packet carry a VLAN tag?"""
    return be16(p + 12) == (m[VET >> 2] & 0xFFFF)


cdef inline void set_context(tx_context *c, const tx_desc *d) noexcept nogil:
    """A context descriptor is taken, but for its TSE."""
    c.ipcss = <uint8_t>d.addr
    c.ipcso = <uint8_t>(d.addr >> 8)
    c.ipcse = <uint16_t>(d.addr >> 16)
    c.tucss = <uint8_t>(d.addr >> 32)
    c.tucso = <uint8_t>(d.addr >> 40)
    c.tucse = <uint16_t>(d.addr >> 48)
    c.paylen = d.lower & TXD_PAYLEN
    c.hdr_len = <uint8_t>(d.upper >> 8)
    c.mss = <uint16_t>(d.upper >> 16)
    c.ip = d.lower & TXD_IP != 0
    c.tcp = d.lower & TXD_TCP != 0
