"""Intel 82540EM gigabit Ethernet controller.

Names and section numbers: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, 317453 ("SDM").
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices._net cimport NetController, net_state
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                  # regions
    MMIO = 0                # BAR0
    IO = 1                  # BAR1

cdef enum:                  # I/O window, SDM 13.2.2
    IOADDR = 0
    IODATA = 4

cdef enum:                  # registers, SDM table 13-2
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
    RDFT = 0x2418
    RDFHS = 0x2420
    RDFTS = 0x2428
    RDFPC = 0x2430
    RDBAL = 0x2800
    RDBAH = 0x2804
    RDLEN = 0x2808
    RDH = 0x2810
    RDT = 0x2818
    RDTR = 0x2820
    RADV = 0x282C
    TDFH = 0x3410
    TDFT = 0x3418
    TDFHS = 0x3420
    TDFTS = 0x3428
    TDFPC = 0x3430
    TDBAL = 0x3800
    TDBAH = 0x3804
    TDLEN = 0x3808
    TDH = 0x3810
    TDT = 0x3818
    TXDCTL = 0x3828
    TADV = 0x382C
    CRCERRS = 0x4000        # statistics, SDM 13.7
    MPC = 0x4010
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
    RNBC = 0x40A0
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
    MAC_END = 0x6000
    FFMT = 0x9000
    FFVT = 0x9800
    FILTERS_END = 0x9C00
    PBM = 0x10000           # packet buffer memory, 64 KiB

cdef enum:                  # CTRL
    CTRL_RST = 0x04000000
    CTRL_VME = 0x40000000
    CTRL_RESET = 0x00140240 # SWDPIN 0 and 2, 1000 Mb/s, SLU
    CTRL_WMASK = 0xFBFFFFFF # all but RST

cdef enum:                  # STATUS
    STATUS_LU = 0x00000002
    STATUS_RESET = 0x80080783

cdef enum:                  # EECD
    EECD_SK = 0x001
    EECD_CS = 0x002
    EECD_DI = 0x004
    EECD_DO = 0x008
    EECD_WMASK = 0x077      # SK, CS, DI, FWE, REQ
    EECD_FIXED = 0x180      # GNT, PRES

cdef enum:                  # EERD
    EERD_START = 0x01
    EERD_DONE = 0x10
    EERD_ADDR_SHIFT = 8
    EERD_DATA_SHIFT = 16

cdef enum:                  # serial EEPROM: SDM 5.6
    EEPROM_WORDS = 64
    EEPROM_READ = 6         # start bit and operation of READ
    EEPROM_FRAME = 9        # start bit, operation, six bits of address
    EEPROM_SUM = 0xBABA     # of all words

cdef enum:                  # MDIC
    MDIC_DATA = 0x0000FFFF
    MDIC_REG_SHIFT = 16
    MDIC_PHY_SHIFT = 21
    MDIC_OP_WRITE = 0x04000000
    MDIC_OP_READ = 0x08000000
    MDIC_READY = 0x10000000
    MDIC_INT_EN = 0x20000000
    MDIC_ERROR = 0x40000000
    PHY_ADDRESS = 1

cdef enum:                  # PHY registers: SDM 13.4.7.1
    PHY_N = 32
    PCTRL = 0
    PSTATUS = 1
    ANA = 4
    LPA = 5
    PCTRL_LOOPBACK = 0x4000
    PCTRL_AUTONEG = 0x1000
    PCTRL_RESTART = 0x0200
    PCTRL_SELF_CLEARING = 0x823F    # RESET, RESTART, and reserved bits
    PSTATUS_LINK = 0x0004
    PSTATUS_AUTONEG_DONE = 0x0020
    LPA_ACK = 0x4000

cdef enum:                  # ICR, ICS, IMS, IMC: SDM 13.4.17
    ICR_TXDW = 0x0001
    ICR_TXQE = 0x0002
    ICR_LSC = 0x0004
    ICR_RXDMT0 = 0x0010
    ICR_RXO = 0x0040
    ICR_RXT0 = 0x0080
    ICR_MDAC = 0x0200

cdef enum:                  # RCTL
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

cdef enum:                  # TCTL
    TCTL_EN = 0x00000002

cdef enum:                  # RAH
    RAH_AV = 0x80000000

cdef enum:                  # transmit descriptors, second doubleword: SDM 3.3
    TXD_LENGTH = 0x0000FFFF
    TXD_DTYP_DATA = 0x00100000
    TXD_EOP = 0x01000000
    TXD_RS = 0x08000000
    TXD_RPS = 0x10000000
    TXD_DEXT = 0x20000000
    TXD_VLE = 0x40000000
    TXD_IDE = 0x80000000
    TXD_TCP = 0x01000000    # of a context descriptor
    TXD_IP = 0x02000000
    TXD_TSE = 0x04000000    # and of a data descriptor
    TXD_PAYLEN = 0x000FFFFF
    TXD_DD = 0x1            # status, in the last doubleword
    TXD_EC_LC_TU = 0xE
    POPTS_IXSM = 0x01
    POPTS_TXSM = 0x02

cdef enum:                  # receive descriptor status: SDM 3.2.3.1
    RXD_DD = 0x01
    RXD_EOP = 0x02
    RXD_IXSM = 0x04
    RXD_VP = 0x08

cdef enum:
    DESCRIPTOR = 16
    MIN_FRAME = 60
    FCS = 4
    VLAN_TAG = 4
    FRAME_MAX = 65536       # what the transmitter assembles
    OVERSIZE = 1522
    OVERSIZE_LPE = 16384
    FILTER_WORDS = 512      # FFMT and FFVT

cdef struct tx_desc:
    uint64_t addr
    uint32_t lower
    uint32_t upper

cdef struct rx_desc:
    uint64_t addr
    uint16_t length
    uint16_t checksum
    uint8_t status
    uint8_t errors
    uint16_t special

# What a context descriptor has said: SDM 3.3.6.
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
    uint8_t pad

cdef struct e1000_state:
    pci_state pci
    net_state net
    uint64_t autoneg_at     # when the PHY has negotiated; NEVER
    uint64_t mit_at         # end of the pause after an interrupt; NEVER
    uint64_t tx_at          # when a transmitter that had too much at once goes on; NEVER
    uint64_t rx_at          # the receiver takes no packet before
    uint32_t mac[0x1800]    # registers below MAC_END, one word each
    uint32_t filters[512]   # FFMT, then FFVT
    uint64_t packet_buffer[8192]
    uint16_t phy[32]
    uint32_t io_addr
    uint32_t eecd
    uint32_t eeprom_in      # bits shifted in
    uint16_t eeprom_n       # how many
    uint16_t eeprom_out     # bit that DO shows
    uint8_t eeprom_reading
    uint8_t link            # level of the input pin: the cable is in
    uint8_t mit_level       # interrupt request as of the last change of its causes
    uint8_t mit_ide         # a descriptor with IDE has gone since the last pause
    uint32_t tx_start       # head of the ring when the transmitter started
    uint32_t tx_size        # bytes in tx_data
    uint16_t tx_frames      # segments made of the current payload
    uint8_t tx_popts
    uint8_t tx_tse
    uint8_t tx_vlan         # a tag is to be inserted
    uint8_t pad[3]
    tx_context tx[2]        # without and with segmentation
    uint8_t tx_header[256]  # prototype header of a segmented payload
    uint8_t vlan_tag[4]
    uint64_t tx_room        # its last four bytes: where a frame begins that has got a tag
    uint64_t tx_data[8192]

cdef class E1000(NetController):
    cdef e1000_state *s
    cdef uint16_t eeprom[64]
    cdef bint io_window
    cdef uint64_t wire              # bytes sent since the transmitter was started
    cdef uint8_t *frame             # the packet being received
    cdef void put_mac(self) noexcept nogil
    cdef uint32_t *word(self, uint32_t offset) noexcept nogil
    cdef uint32_t mmio_read(self, uint32_t offset) noexcept nogil
    cdef void mmio_write(self, uint32_t offset, uint32_t value) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef void set_causes(self, uint32_t causes) noexcept nogil
    cdef void add_causes(self, uint32_t causes) noexcept nogil
    cdef uint64_t mitigation(self, uint32_t pending) noexcept nogil
    cdef uint32_t read_eecd(self) noexcept nogil
    cdef void write_eecd(self, uint32_t value) noexcept nogil
    cdef uint32_t read_eerd(self) noexcept nogil
    cdef void write_mdic(self, uint32_t value) noexcept nogil
    cdef void write_phy_control(self, uint32_t value) noexcept nogil
    cdef void link_up(self) noexcept nogil
    cdef void link_down(self) noexcept nogil
    cdef void negotiate(self) noexcept nogil
    cdef void set_link(self, bint up) noexcept nogil
    cdef void count(self, uint32_t offset) noexcept nogil
    cdef void count_octets(self, uint32_t offset, uint64_t n) noexcept nogil
    cdef void count_size(self, uint32_t offset, uint64_t n) noexcept nogil
    cdef void start_transmit(self) noexcept nogil
    cdef void run_transmit(self) noexcept nogil
    cdef void transmit_descriptor(self, tx_desc *d) noexcept nogil
    cdef void transmit_segment(self) noexcept nogil
    cdef void send(self, const uint8_t *p, uint32_t n) noexcept nogil
    cdef uint32_t buffer_size(self) noexcept nogil
    cdef bint has_buffers(self, uint64_t n) noexcept nogil
    cdef bint accepts(self, const uint8_t *p) noexcept nogil
    cdef void overrun(self) noexcept nogil
    cdef bint arrive(self, const uint8_t *p, uint64_t n) noexcept nogil
    cdef bint receive_packet(self, const uint8_t *p, uint64_t n) noexcept nogil
    cdef bint ready(self) noexcept nogil
    cdef uint64_t ready_at(self) noexcept nogil
    cdef void hear(self) noexcept nogil
