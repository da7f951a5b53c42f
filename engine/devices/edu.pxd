"""edu: a PCI device to learn with.  Names and offsets: QEMU 7.2, docs/specs/edu.txt."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:
    EDU_BAR = 0
    EDU_SIZE = 0x100000
    BUFFER_AT = 0x40000       # the DMA buffer: an address of transfers, not of accesses
    BUFFER_SIZE = 4096
    WIDE_AT = 0x80            # from here on accesses of 8 bytes too

cdef enum:                    # registers, "MMIO area spec"
    IDENTIFICATION = 0x00
    LIVENESS = 0x04
    FACTORIAL = 0x08
    EDU_STATUS = 0x20
    IRQ_STATUS = 0x24
    IRQ_RAISE = 0x60
    IRQ_ACKNOWLEDGE = 0x64
    DMA_SOURCE = 0x80
    DMA_DESTINATION = 0x88
    DMA_COUNT = 0x90
    DMA_COMMAND = 0x98

cdef enum:
    EDU_ID = 0x010000ED       # version 1.0
    COMPUTING = 0x01          # EDU_STATUS
    IRQ_FACT = 0x80
    DMA_RUN = 0x01            # DMA_COMMAND
    DMA_TO_RAM = 0x02
    DMA_IRQ = 0x04
    FACT_INTERRUPT = 0x001    # IRQ_STATUS
    DMA_INTERRUPT = 0x100

cdef enum:
    MS = 1000000              # ns; a transfer ends at a whole millisecond, 100 after that of its start
    DMA_MS = 100
    FACT_MAX = 33             # 34! and more are 0 in 32 bits

cdef struct edu_state:
    pci_state pci
    uint64_t fact_at          # when the factorial is there; NEVER
    uint64_t dma_at           # when the transfer is made; NEVER
    uint64_t dma_source, dma_destination, dma_count, dma_command
    uint32_t liveness, fact, status, irq_status
    uint32_t refused          # transfers that did not fit the buffer
    uint8_t pad[4]
    uint8_t buffer[4096]

cdef class Edu(PciFunction):
    cdef edu_state *s
    cdef uint32_t msi
    cdef uint64_t dma_mask, fact_ns
    cdef void raise_irq(self, uint32_t bits) noexcept nogil
    cdef void lower_irq(self, uint32_t bits) noexcept nogil
    cdef void compute(self) noexcept nogil
    cdef void transfer(self) noexcept nogil
    cdef void update_deadline(self) noexcept nogil
