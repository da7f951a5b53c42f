"""Intel 82574L gigabit Ethernet controller.

Names and section numbers: Intel 82574 GbE Controller Family Datasheet, 317694, revision 3.4 ("DS").
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices._net cimport NetController, net_state
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                  # regions
    MMIO = 0                # BAR0
    FLASH = 1               # BAR1
    IO = 2                  # BAR2
    MSIX = 3                # BAR3

cdef enum:                  # I/O window
    IOADDR = 0
    IODATA = 4

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
    CTRL = 0x0000
    CTRL_DUP = 0x0004
    STATUS = 0x0008
    EECD = 0x0010
    EERD = 0x0014
    CTRL_EXT = 0x0018
    FLA = 0x001C
    MDIC = 0x0020
    FCAL = 0x0028
    FCAH = 0x002C
    FCT = 0x0030
    VET = 0x0038
    ICR = 0x00C0
    ITR = 0x00C4
    ICS = 0x00C8
    IMS = 0x00D0
    IMC = 0x00D8
    EIAC = 0x00DC
    IAM = 0x00E0
    IVAR = 0x00E4
    EITR = 0x00E8           # five
    RCTL = 0x0100
    FCTTV = 0x0170
    TCTL = 0x0400
    TIPG = 0x0410
    AIT = 0x0458
    LEDCTL = 0x0E00
    EXTCNF_CTRL = 0x0F00
    EXTCNF_SIZE = 0x0F08
    POEMB = 0x0F10
    PBA = 0x1000
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
    RDFH = 0x2410
    RDBAL = 0x2800
    RDBAH = 0x2804
    RDLEN = 0x2808
    RDH = 0x2810
    RDT = 0x2818
    RDTR = 0x2820
    RXDCTL = 0x2828
    RADV = 0x282C
    RXDCTL1 = 0x2928
    RDT1 = 0x2918
    RSRPD = 0x2C00
    RAID = 0x2C08
    TDFH = 0x3410
    TDBAL = 0x3800
    TDBAH = 0x3804
    TDLEN = 0x3808
    TDH = 0x3810
    TDT = 0x3818
    TIDV = 0x3820
    TXDCTL = 0x3828
    TADV = 0x382C
    TARC = 0x3840
    TDT1 = 0x3918
    QUEUE = 0x100           # from a register of the first queue to that of the second
    CRCERRS = 0x4000        # statistics, DS 10.2.7
    FCRUC = 0x4058
    PRC64 = 0x405C          # and four more sizes, up to PRC1522
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
    PTC64 = 0x40D8          # and four more sizes, up to PTC1522
    MPTC = 0x40F0
    BPTC = 0x40F4
    TSCTC = 0x40F8
    IAC = 0x4100
    RXCSUM = 0x5000
    RFCTL = 0x5008
    MAVTV = 0x5010          # four
    MTA = 0x5200            # 128 words
    RA = 0x5400             # 16 pairs RAL, RAH
    VFTA = 0x5600           # 128 words
    WUC = 0x5800
    WUFC = 0x5808
    WUS = 0x5810
    MRQC = 0x5818
    MANC = 0x5820
    MFVAL = 0x5824
    MFUTP01 = 0x5828
    MFUTP23 = 0x5830
    IPAV = 0x5838
    IP4AT = 0x5840
    MANC2H = 0x5860
    IP6AT = 0x5880
    MDEF = 0x5890
    WUPM = 0x5A00
    GCR = 0x5B00
    FUNCTAG = 0x5B08
    GSCL = 0x5B10
    GSCN = 0x5B20
    FACTPS = 0x5B30
    SWSM = 0x5B50
    GCR2 = 0x5B64
    PBACLR = 0x5B68
    RETA = 0x5C00           # 32 words
    RSSRK = 0x5C80          # 10 words, and 22 that only hold values
    FFLT = 0x5F00
    FCRTV = 0x5F40
    FFMT = 0x9000
    FTFT = 0x9400
    FFVT = 0x9800
    SYSTIML = 0xB600
    RXCFGL = 0xB634
    RXUDP = 0xB638
    MAC_END = 0xC000
    PBM = 0x10000           # packet buffer memory, 40 KiB
    PBM_END = 0x1A000

cdef enum:                  # CTRL: DS 10.2.2.1
    CTRL_FD = 0x00000001
    CTRL_GIO_MASTER_DISABLE = 0x00000004
    CTRL_SPEED = 0x00000300
    CTRL_FRCSPD = 0x00000800
    CTRL_FRCDPX = 0x00001000
    CTRL_RST = 0x04000000
    CTRL_RFCE = 0x08000000
    CTRL_TFCE = 0x10000000
    CTRL_VME = 0x40000000
    CTRL_PHY_RST = 0x80000000
    CTRL_RESET = 0x00140241

cdef enum:                  # STATUS: DS 10.2.2.2
    STATUS_FD = 0x00000001
    STATUS_LU = 0x00000002
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
    NVM_WORDS = 64
    NVM_SUM = 0xBABA        # of all words

cdef enum:                  # MDIC: DS 10.2.2.7
    MDIC_DATA = 0x0000FFFF
    MDIC_REG_SHIFT = 16
    MDIC_PHY_SHIFT = 21
    MDIC_OP_WRITE = 0x04000000
    MDIC_OP_READ = 0x08000000
    MDIC_READY = 0x10000000
    MDIC_INT_EN = 0x20000000
    MDIC_ERROR = 0x40000000
    PHY_ADDRESS = 1

cdef enum:                  # PHY registers: DS 9
    PHY_PAGES = 7
    PHY_REGS = 32
    PCTRL = 0
    PSTATUS = 1
    LPA = 5
    PPAGE = 22
    POEM = 25
    PCTRL_LOOPBACK = 0x4000
    PCTRL_AUTONEG = 0x1000
    PCTRL_RESTART = 0x0200
    PCTRL_SELF_CLEARING = 0x823F    # RESET, RESTART, and reserved bits
    PSTATUS_LINK = 0x0004
    PSTATUS_AUTONEG_DONE = 0x0020
    LPA_ACK = 0x4000
    POEM_RESTART = 0x0400
    PPAGE_MASK = 0x007F

cdef enum:                  # ICR, ICS, IMS, IMC: DS 10.2.4.1
    ICR_TXDW = 0x00000001
    ICR_TXQE = 0x00000002
    ICR_LSC = 0x00000004
    ICR_RXDMT0 = 0x00000010
    ICR_RXO = 0x00000040
    ICR_RXT0 = 0x00000080
    ICR_MDAC = 0x00000200
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
    RCTL_EN = 0x00000002
    RCTL_SBP = 0x00000004
    RCTL_UPE = 0x00000008
    RCTL_MPE = 0x00000010
    RCTL_LPE = 0x00000020
    RCTL_LBM_MAC = 0x00000040
    RCTL_RDMTS_SHIFT = 8
    RCTL_DTYP = 0x00000C00
    RCTL_DTYP_PS = 0x00000400
    RCTL_MO_SHIFT = 12
    RCTL_BAM = 0x00008000
    RCTL_BSIZE_SHIFT = 16
    RCTL_VFE = 0x00040000
    RCTL_BSEX = 0x02000000
    RCTL_SECRC = 0x04000000
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
    TCTL_EN = 0x00000002
    TARC_ENABLE = 0x00000400
    RAH_AV = 0x80000000
    DELAY_FPD = 0x80000000  # RDTR, TIDV: flush what waits
    SWSM_SMBI = 0x1

cdef enum:                  # transmit descriptors, second doubleword: DS 7.2.10, 7.2.11
    TXD_LENGTH = 0x0000FFFF
    TXD_DTYP_DATA = 0x00100000
    TXD_EOP = 0x01000000
    TXD_TSE = 0x04000000
    TXD_RS = 0x08000000
    TXD_DEXT = 0x20000000
    TXD_VLE = 0x40000000
    TXD_IDE = 0x80000000
    TXD_TCP = 0x01000000    # of a context descriptor
    TXD_IP = 0x02000000
    TXD_PAYLEN = 0x000FFFFF
    TXD_DD = 0x1            # status, in the last doubleword
    POPTS_IXSM = 0x01
    POPTS_TXSM = 0x02

cdef enum:                  # receive descriptor status and errors: DS 7.1.4 to 7.1.6
    RXD_DD = 0x00000001
    RXD_EOP = 0x00000002
    RXD_VP = 0x00000008
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
    DESCRIPTOR = 16
    MIN_FRAME = 60
    FCS = 4
    VLAN_TAG = 4
    QUEUES = 2
    FRAGMENTS = 64          # descriptors of one packet
    FRAME_MAX = 66560       # a packet to be segmented: 64 KiB and its headers
    OVERSIZE = 1522
    OVERSIZE_LPE = 16384

cdef enum:                  # timers
    T_RDTR, T_RADV, T_RAID, T_TIDV, T_TADV, T_ITR, T_EITR
    TIMERS = T_EITR + VECTORS

cdef struct tx_desc:
    uint64_t addr
    uint32_t lower
    uint32_t upper

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
    uint8_t tse
    uint8_t popts
    uint8_t segment         # TSE of the last data descriptor
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
    uint8_t pad[2]
    tx_queue tx[2]
    uint8_t table[80]
    uint8_t pending[8]
    uint8_t extended[3840]

cdef class E1000E(NetController):
    cdef e1000e_state *s
    cdef uint8_t mac_address[6]
    cdef uint64_t wire              # bytes sent since a transmit queue was started
    cdef uint8_t *gathered          # a packet to be sent, behind room for a tag
    cdef uint8_t *segment           # and one cut off it
    cdef uint8_t *frame             # the packet being received
    cdef uint32_t *m                # s.mac
    cdef void fill(self, uint32_t at, uint64_t value, uint32_t size, uint8_t *where=*)
    cdef void put_mac(self) noexcept nogil
    cdef uint32_t mmio_read(self, uint32_t offset) noexcept nogil
    cdef void mmio_write(self, uint32_t offset, uint32_t value) noexcept nogil
    cdef uint32_t read_status(self) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef bint itr_counts(self) noexcept nogil
    cdef void catch_up(self) noexcept nogil
    cdef uint64_t period(self, uint32_t timer) noexcept nogil
    cdef void start(self, uint32_t timer) noexcept nogil
    cdef bint throttle(self, uint32_t timer) noexcept nogil
    cdef void flush_timers(self) noexcept nogil
    cdef void throttle_over(self, uint32_t timer) noexcept nogil
    cdef void add_causes(self, uint32_t causes) noexcept nogil
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
    cdef void link_up(self) noexcept nogil
    cdef void link_down(self) noexcept nogil
    cdef void negotiate(self) noexcept nogil
    cdef void set_link(self, bint up) noexcept nogil
    cdef void count(self, uint32_t offset) noexcept nogil
    cdef void count_octets(self, uint32_t offset, uint64_t n) noexcept nogil
    cdef void count_size(self, uint32_t offset, uint64_t n) noexcept nogil
    cdef void start_transmit(self, uint32_t q) noexcept nogil
    cdef void run_transmit(self, uint32_t q) noexcept nogil
    cdef void transmit_descriptor(self, uint32_t q, tx_desc *d) noexcept nogil
    cdef void transmit_packet(self, tx_queue *t, tx_desc *last) noexcept nogil
    cdef bint transmit_segments(self, tx_queue *t, uint8_t *data, uint32_t n, bint tagged, uint32_t tag) noexcept nogil
    cdef uint32_t tag(self, uint8_t *data, uint32_t n, uint32_t tag) noexcept nogil
    cdef void leave(self, const uint8_t *p, uint32_t n) noexcept nogil
    cdef void write_rctl(self, uint32_t value) noexcept nogil
    cdef uint32_t free_descriptors(self, uint32_t q) noexcept nogil
    cdef bint has_buffers(self, uint32_t q, uint64_t n) noexcept nogil
    cdef bint ready(self) noexcept nogil
    cdef void hear(self) noexcept nogil
    cdef bint accepts(self, const uint8_t *p) noexcept nogil
    cdef uint32_t rss(self, const uint8_t *p, const frame_info *f, uint32_t *type) noexcept nogil
    cdef bint arrive(self, const uint8_t *p, uint64_t n) noexcept nogil
    cdef bint receive_packet(self, const uint8_t *p, uint64_t n) noexcept nogil
    cdef void store(self, uint32_t q, const uint8_t *p, uint32_t n, const frame_info *f, bint stripped, uint32_t tag,
                    bint hashed, uint32_t type, uint32_t hash) noexcept nogil
    cdef uint32_t rx_status(self, const uint8_t *p, uint32_t n, const frame_info *f) noexcept nogil
    cdef uint32_t header_length(self, const frame_info *f, uint32_t n) noexcept nogil
