"""Intel 82540EM gigabit Ethernet controller.

Names and section numbers: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, 317453 ("SDM").
What the 82574L has, too, is in _e1000_common.pxd.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.devices._e1000_common cimport *
from engine.devices._net cimport net_state
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                  # regions
    MMIO = 0                # BAR0
    IO = 1                  # BAR1

cdef enum:                  # registers, SDM table 13-2
    RDFT = 0x2418
    RDFHS = 0x2420
    RDFTS = 0x2428
    RDFPC = 0x2430
    TDFT = 0x3418
    TDFHS = 0x3420
    TDFTS = 0x3428
    TDFPC = 0x3430
    RNBC = 0x40A0
    MAC_END = 0x6000
    FILTERS_END = 0x9C00

cdef enum:                  # CTRL
    CTRL_RESET = 0x00140240 # SWDPIN 0 and 2, 1000 Mb/s, SLU

cdef enum:                  # STATUS
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
    EEPROM_READ = 6         # start bit and operation of READ
    EEPROM_FRAME = 9        # start bit, operation, six bits of address

cdef enum:                  # PHY registers: SDM 13.4.7.1
    ANA = 4

cdef enum:                  # transmit descriptors, second doubleword: SDM 3.3
    TXD_RPS = 0x10000000
    TXD_EC_LC_TU = 0xE

cdef enum:                  # receive descriptor status: SDM 3.2.3.1
    RXD_IXSM = 0x04

cdef enum:
    FRAME_MAX = 65536       # what the transmitter assembles
    FILTER_WORDS = 512      # FFMT and FFVT

cdef struct rx_desc:
    uint64_t addr
    uint16_t length
    uint16_t checksum
    uint8_t status
    uint8_t errors
    uint16_t special

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

cdef class E1000(E1000Common):
    cdef e1000_state *s
    cdef uint16_t eeprom[64]
    cdef bint io_window
    cdef uint32_t *word(self, uint32_t offset) noexcept nogil
    cdef uint32_t mmio_read(self, uint32_t offset) noexcept nogil
    cdef void mmio_write(self, uint32_t offset, uint32_t value) noexcept nogil
    cdef void set_causes(self, uint32_t causes) noexcept nogil
    cdef uint64_t mitigation(self, uint32_t pending) noexcept nogil
    cdef uint32_t read_eecd(self) noexcept nogil
    cdef void write_eecd(self, uint32_t value) noexcept nogil
    cdef uint32_t read_eerd(self) noexcept nogil
    cdef void write_mdic(self, uint32_t value) noexcept nogil
    cdef void write_phy_control(self, uint32_t value) noexcept nogil
    cdef void start_transmit(self) noexcept nogil
    cdef void run_transmit(self) noexcept nogil
    cdef void transmit_descriptor(self, tx_desc *d) noexcept nogil
    cdef void transmit_segment(self) noexcept nogil
    cdef void send(self, const uint8_t *p, uint32_t n) noexcept nogil
    cdef bint has_buffers(self, uint64_t n) noexcept nogil
    cdef bint accepts(self, const uint8_t *p) noexcept nogil
    cdef void overrun(self) noexcept nogil
    cdef uint64_t ready_at(self) noexcept nogil
