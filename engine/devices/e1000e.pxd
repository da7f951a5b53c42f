"""Intel 82574L gigabit Ethernet controller.

Names and section numbers: Intel 82574 GbE Controller Family Datasheet, 317694, revision 3.4 ("DS").  What the 82540EM
has, too, is in _e1000_common.pxd.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices._e1000_common cimport *
from engine.devices._net cimport net_state
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                  # regions
    MMIO = 0                # BAR0
    FLASH = 1               # BAR1
    IO = 2                  # BAR2
    MSIX = 3                # BAR3

cdef enum:                  # BAR3
    MSIX_TABLE_AT = 0x0000
    MSIX_PENDING_AT = 0x2000
    VECTORS = 5

cdef enum:                  # configuration space
    MSIX_AT = 0xA0
    PM_AT = 0xC8
    MSI_AT = 0xD0
    EXPRESS_AT = 0xE0
    AER_AT = 0x100
    SERIAL_AT = 0x140

cdef enum:                  # registers, DS 10.2
    CTRL_DUP = 0x0004
    CTRL_EXT = 0x0018
    FLA = 0x001C
    FCAL = 0x0028
    FCAH = 0x002C
    FCT = 0x0030
    EIAC = 0x00DC
    IAM = 0x00E0
    IVAR = 0x00E4
    EITR = 0x00E8           # five
    FCTTV = 0x0170
    TIPG = 0x0410
    EXTCNF_CTRL = 0x0F00
    EXTCNF_SIZE = 0x0F08
    POEMB = 0x0F10
    PBS = 0x1008
    EEMNGCTL = 0x1010
    FLASHT = 0x1028
    EEWR = 0x102C
    FLSWCTL = 0x1030
    FLSWDATA = 0x1034
    FLSWCNT = 0x1038
    FLOP = 0x103C
    FLOL = 0x1050
    FCRTL = 0x2160
    FCRTH = 0x2168
    PSRCTL = 0x2170
    RXDCTL = 0x2828
    RXDCTL1 = 0x2928
    RDT1 = 0x2918
    RSRPD = 0x2C00
    RAID = 0x2C08
    TIDV = 0x3820
    TARC = 0x3840
    TDT1 = 0x3918
    QUEUE = 0x100           # from a register of the first queue to that of the second
    IAC = 0x4100
    RXCSUM = 0x5000
    RFCTL = 0x5008
    MAVTV = 0x5010          # four
    MRQC = 0x5818
    MFVAL = 0x5824
    MFUTP01 = 0x5828
    MFUTP23 = 0x5830
    MANC2H = 0x5860
    MDEF = 0x5890
    GCR = 0x5B00
    FUNCTAG = 0x5B08
    GSCL = 0x5B10
    GSCN = 0x5B20
    FACTPS = 0x5B30
    GCR2 = 0x5B64
    PBACLR = 0x5B68
    RETA = 0x5C00           # 32 words
    RSSRK = 0x5C80          # 10 words, and 22 that only hold values
    FCRTV = 0x5F40
    FTFT = 0x9400
    SYSTIML = 0xB600
    RXCFGL = 0xB634
    RXUDP = 0xB638
    MAC_END = 0xC000
    PBM_END = 0x1A000

cdef enum:                  # CTRL: DS 10.2.2.1
    CTRL_FD = 0x00000001
    CTRL_GIO_MASTER_DISABLE = 0x00000004
    CTRL_SPEED = 0x00000300
    CTRL_FRCSPD = 0x00000800
    CTRL_FRCDPX = 0x00001000
    CTRL_RFCE = 0x08000000
    CTRL_TFCE = 0x10000000
    CTRL_PHY_RST = 0x80000000
    CTRL_RESET = 0x00140241

cdef enum:                  # STATUS: DS 10.2.2.2
    STATUS_FD = 0x00000001
    STATUS_SPEED_100 = 0x00000040
    STATUS_SPEED_1000 = 0x00000080
    STATUS_ASDV_1000 = 0x00000200
    STATUS_PHYRA = 0x00000400
    STATUS_GIO_MASTER = 0x00080000

cdef enum:                  # CTRL_EXT: DS 10.2.2.5
    CTRL_EXT_SPD_BYPS = 0x00008000
    CTRL_EXT_EIAME = 0x01000000
    CTRL_EXT_IAME = 0x08000000
    CTRL_EXT_INT_TIMERS_CLEAR = 0x20000000
    CTRL_EXT_PBA_CLR = 0x80000000
    CTRL_EXT_WMASK = 0xFFFFCFFF     # ASDCHK and EE_RST clear themselves

cdef enum:                  # EERD, EEWR: DS 10.2.2.4
    EERW_START = 0x1
    EERW_DONE = 0x2
    EERW_ADDR_SHIFT = 2
    EERW_ADDR = 0x3FFF
    EERW_DATA_SHIFT = 16

cdef enum:                  # PHY registers: DS 9
    PHY_PAGES = 7
    PPAGE = 22
    POEM = 25
    POEM_RESTART = 0x0400
    PPAGE_MASK = 0x007F

cdef enum:                  # ICR, ICS, IMS, IMC: DS 10.2.4.1
    ICR_TXD_LOW = 0x00008000
    ICR_SRPD = 0x00010000
    ICR_ACK = 0x00020000
    ICR_MNG = 0x00040000
    ICR_RXQ0 = 0x00100000
    ICR_RXQ1 = 0x00200000
    ICR_TXQ0 = 0x00400000
    ICR_TXQ1 = 0x00800000
    ICR_OTHER = 0x01000000
    ICR_ASSERTED = 0x80000000
    OTHER_CAUSES = ICR_LSC | ICR_RXO | ICR_MDAC | ICR_SRPD | ICR_ACK | ICR_MNG
    QUEUE_CAUSES = ICR_RXQ0 | ICR_RXQ1 | ICR_TXQ0 | ICR_TXQ1 | ICR_OTHER
    IMS_WMASK = (ICR_TXDW | ICR_TXQE | ICR_RXDMT0 | ICR_RXT0 | ICR_TXD_LOW | OTHER_CAUSES | QUEUE_CAUSES)

cdef enum:                  # IVAR: DS 10.2.4.9
    IVAR_VECTOR = 0x7
    IVAR_VALID = 0x8
    IVAR_EVERY_WB = 0x80000000

cdef enum:                  # RCTL: DS 10.2.5.1
    RCTL_LBM_MAC = 0x00000040
    RCTL_DTYP = 0x00000C00
    RCTL_DTYP_PS = 0x00000400
    PSRCTL_BSIZE0 = 0x0000007F
    PSRCTL_BSIZE1 = 0x00003F00
    RCTL_FLXBUF_SHIFT = 27

cdef enum:                  # RXCSUM, RFCTL, MRQC
    RXCSUM_IPOFLD = 0x0100
    RXCSUM_TUOFLD = 0x0200
    RXCSUM_PCSD = 0x2000
    RFCTL_IPV6_DIS = 0x00000400
    RFCTL_IPV6_XSUM_DIS = 0x00000800
    RFCTL_ACK_DIS = 0x00001000
    RFCTL_ACK_DATA_DIS = 0x00002000
    RFCTL_IPFRSP_DIS = 0x00004000
    RFCTL_EXTEN = 0x00008000
    RFCTL_IPV6_EX_DIS = 0x00010000
    RFCTL_NEW_IPV6_EXT_DIS = 0x00020000
    MRQC_MODE = 0x00000003
    MRQC_RSS = 0x00000001
    MRQC_TCPIPV4 = 0x00010000
    MRQC_IPV4 = 0x00020000
    MRQC_TCPIPV6 = 0x00040000
    MRQC_IPV6EX = 0x00080000
    MRQC_IPV6 = 0x00100000

cdef enum:                  # RSS types in a receive descriptor: DS 7.1.11
    RSS_NONE, RSS_IPV4TCP, RSS_IPV4, RSS_IPV6TCP, RSS_IPV6EX, RSS_IPV6

cdef enum:                  # other bits
    TARC_ENABLE = 0x00000400
    DELAY_FPD = 0x80000000  # RDTR, TIDV: flush what waits
    SWSM_SMBI = 0x1

cdef enum:                  # receive descriptor status and errors: DS 7.1.4 to 7.1.6
    RXD_UDPCS = 0x00000010
    RXD_TCPCS = 0x00000020
    RXD_IPCS = 0x00000040
    RXD_IPIDV = 0x00000200
    RXD_ACK = 0x00008000
    RXD_TYPE_SHIFT = 16
    RXD_TYPE_IP4 = 1
    RXD_TYPE_IP4_L4 = 2
    RXD_TYPE_IP6 = 5
    RXD_TYPE_IP6_L4 = 6
    RXD_TCPE = 0x20000000
    RXD_IPE = 0x40000000
    RXD_HDRSP = 0x8000

cdef enum:
    QUEUES = 2
    FRAGMENTS = 64          # descriptors of one packet
    FRAME_MAX = 66560       # a packet to be segmented: 64 KiB and its headers

cdef enum:                  # timers
    T_RDTR, T_RADV, T_RAID, T_TIDV, T_TADV, T_ITR, T_EITR
    TIMERS = T_EITR + VECTORS

# Where a frame's headers are, and what they say.
cdef struct frame_info:
    uint32_t l3
    uint32_t l4
    uint32_t l5
    uint32_t ip6_source     # where the addresses that RSS hashes are: those of the header, or of extensions
    uint32_t ip6_destination
    uint16_t ip_id
    uint8_t l4_protocol
    bint cut                # a header does not end within the frame
    bint ip4
    bint ip6
    bint tcp
    bint udp
    bint fragment
    bint extensions         # of an IPv6 header
    bint ex_source
    bint ex_destination
    bint ack
    bint tcp_data

# One transmit queue: what a context descriptor has said (DS 7.2.10.2), and the packet that is being put together.
cdef struct tx_queue:
    uint64_t again_at       # when a queue that had too much at once goes on; NEVER
    uint64_t addr[64]
    uint16_t length[64]
    tx_context context
    uint8_t skip            # too many fragments: the packet is not sent
    uint8_t n               # fragments
    uint8_t ide
    uint8_t pad

cdef struct e1000e_state:
    pci_state pci
    net_state net
    uint64_t autoneg_at     # when the PHY has negotiated; NEVER
    uint64_t timer_at[11]   # NEVER: does not run
    uint32_t mac[0x3000]    # registers below MAC_END, one word each
    uint64_t packet_buffer[5120]
    uint16_t phy[224]
    uint16_t nvm[64]
    uint32_t io_addr
    uint32_t delayed        # causes that wait for a timer
    uint32_t sent_causes    # causes for which a message is out
    uint32_t rx_size[4]     # sizes of a descriptor's buffers, as of the last write of RCTL
    uint32_t rx_desc_len
    uint32_t rx_min_shift
    uint8_t throttled       # bit 0: ITR has held an interrupt back, bits 1 to 5: EITR
    uint8_t link            # level of the input pin: the cable is in
    uint8_t last_tcp        # of the last TCP header received: bit 0 ACK, bit 1: data followed
    uint8_t full            # a packet found no room: the reference offers none until descriptors come
    tx_queue tx[2]
    uint8_t table[80]
    uint8_t pending[8]
    uint8_t extended[3840]

cdef class E1000E(E1000Common):
    cdef e1000e_state *s
    cdef uint8_t *gathered          # a packet to be sent, behind room for a tag
    cdef uint8_t *segment           # and one cut off it
    cdef void fill(self, uint32_t at, uint64_t value, uint32_t size, uint8_t *where=*)
    cdef uint32_t mmio_read(self, uint32_t offset) noexcept nogil
    cdef void mmio_write(self, uint32_t offset, uint32_t value) noexcept nogil
    cdef uint32_t read_status(self) noexcept nogil
    cdef bint itr_counts(self) noexcept nogil
    cdef uint64_t period(self, uint32_t timer) noexcept nogil
    cdef void start(self, uint32_t timer) noexcept nogil
    cdef bint throttle(self, uint32_t timer) noexcept nogil
    cdef void flush_timers(self) noexcept nogil
    cdef void throttle_over(self, uint32_t timer) noexcept nogil
    cdef void update_interrupt(self) noexcept nogil
    cdef void send_messages(self, bint msix) noexcept nogil
    cdef bint delay_rx(self, uint32_t *causes) noexcept nogil
    cdef bint delay_tx(self, uint32_t *causes) noexcept nogil
    cdef void write_ims(self, uint32_t value) noexcept nogil
    cdef uint32_t read_icr(self) noexcept nogil
    cdef void write_icr(self, uint32_t value) noexcept nogil
    cdef void clear_pending(self, uint32_t vectors) noexcept nogil
    cdef void write_nvm_command(self, uint32_t value, bint write) noexcept nogil
    cdef void write_mdic(self, uint32_t value) noexcept nogil
    cdef void start_transmit(self, uint32_t q) noexcept nogil
    cdef void run_transmit(self, uint32_t q) noexcept nogil
    cdef void transmit_descriptor(self, uint32_t q, tx_desc *d) noexcept nogil
    cdef void transmit_packet(self, tx_queue *t, tx_desc *last) noexcept nogil
    cdef void send(self, const uint8_t *p, uint32_t n) noexcept nogil
    cdef bint transmit_segments(self, tx_queue *t, uint8_t *data, uint32_t n, bint tagged, uint32_t tag) noexcept nogil
    cdef uint32_t tag(self, uint8_t *data, uint32_t n, uint32_t tag) noexcept nogil
    cdef void write_rctl(self, uint32_t value) noexcept nogil
    cdef uint32_t free_descriptors(self, uint32_t q) noexcept nogil
    cdef bint has_buffers(self, uint32_t q, uint64_t n) noexcept nogil
    cdef bint accepts(self, const uint8_t *p) noexcept nogil
    cdef uint32_t rss(self, const uint8_t *p, const frame_info *f, uint32_t *type) noexcept nogil
    cdef void store(self, uint32_t q, const uint8_t *p, uint32_t n, const frame_info *f, bint stripped, uint32_t tag,
                    bint hashed, uint32_t type, uint32_t hash) noexcept nogil
    cdef uint32_t rx_status(self, const uint8_t *p, uint32_t n, const frame_info *f) noexcept nogil
    cdef uint32_t header_length(self, const frame_info *f, uint32_t n) noexcept nogil
