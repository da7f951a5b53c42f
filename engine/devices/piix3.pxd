"""Intel 82371SB (PIIX3), function 0.  Names: data sheet 290550-001 (May 1996), chapter 2."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                 # configuration registers beside the header, section 2.2
    IORT = 0x4C            # ISA I/O recovery timer
    XBCS = 0x4E            # X-bus chip select, 2 bytes
    PIRQRCA = 0x60         # PIRQ route control, 4 bytes
    PIRQRCD = 0x63
    TOM = 0x69             # top of memory
    MSTAT = 0x6A           # miscellaneous status, 2 bytes
    MBIRQ0 = 0x70          # motherboard device IRQ route control
    MBIRQ1 = 0x71
    MBDMA0 = 0x76          # motherboard device DMA control, 2 bytes
    PCSC = 0x78            # programmable chip select control, 2 bytes
    APICBASE = 0x80        # APIC base address relocation
    DLC = 0x82             # deterministic latency control
    SMICNTL = 0xA0         # SMI control
    SMIEN = 0xA2           # SMI enable, 2 bytes
    SEE = 0xA4             # system event enable, 4 bytes
    FTMR = 0xA8            # fast-off timer
    SMIREQ = 0xAA          # SMI request, 2 bytes
    CTLTMR = 0xAC          # clock scale STPCLK# low timer
    CTHTMR = 0xAE          # clock scale STPCLK# high timer

cdef enum:
    PIRQ_DISABLE = 0x80    # PIRQRCx bit 7: not routed
    RC_SRST = 0x02         # RC, the reset control register at CF9h: type of reset
    RC_RCPU = 0x04         #   begins the reset
    RCR_REGION = 8
    ISA0 = 1               # output pin of ISA interrupt 0
    N_ISA = 16
    LOWER = 17             # output pin, behind those of the interrupts
    N_PIRQ = 4

cdef struct piix3_state:
    pci_state pci
    uint8_t pirq           # levels of the inputs, bit n = PIRQ n
    uint8_t rc
    uint8_t pad[6]

cdef class Piix3(PciFunction):
    cdef piix3_state *s
    cdef void update_irq(self) noexcept nogil
