"""edu: a PCI device to learn with: registers, a factorial that takes time, an interrupt as INTA# or MSI, DMA through a buffer.

Document: QEMU 7.2, docs/specs/edu.txt.  Modelled: all of it.  Called by the owning worker only.
"""
cimport cython
from libc.string cimport memset

from engine._device cimport IO_NO_REGISTER, IO_OK, NEVER, RESET_POWER_ON, io_status, reset_kind
from engine.pci._config cimport CONFIG_REGION
from engine.pci._msi cimport msi_enabled, msi_notify, msi_written
from engine.pci.regs cimport *

from engine.errors import MachineError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.pci._msi import add_msi
from engine.types import RO, RW, RW1C, WO, Register, Space

_S = "docs/specs/edu.txt "


def _mmio(name, offset, width, access, reset, wmask, effect=""):
    return Register(name, offset, width, access, reset, wmask, effect, f"{_S}{offset:#04x}", EDU_BAR)


REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x1234, section=_S + "PCI specs", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x11E8, section=_S + "PCI specs", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates", "PCI 3.0 6.2.2", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, STATUS_CAP_LIST, section="PCI 3.0 6.2.3", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("RID", REVISION_ID, 8, RO, 0x10, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
    Register("CLASS", CLASS_CODE + 1, 16, RO, 0x00FF, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
    Register("BAR0", BAR0, 32, RW, 0, 0xFFF00000, "base of the registers", _S + "PCI specs", CONFIG_REGION),
    Register("INT_LN", INTERRUPT_LINE, 8, RW, 0, 0xFF, "none", "PCI 3.0 6.2.4", CONFIG_REGION),
    Register("INT_PN", INTERRUPT_PIN, 8, RO, 0x01, section="PCI 3.0 6.2.4", region=CONFIG_REGION),
    _mmio("IDENTIFICATION", IDENTIFICATION, 32, RO, EDU_ID, 0),
    _mmio("LIVENESS", LIVENESS, 32, RW, 0, 0, "holds the inverse of what is written"),
    _mmio("FACTORIAL", FACTORIAL, 32, RW, 0, 0, "computes the factorial of what is written"),
    _mmio("STATUS", EDU_STATUS, 32, RW, 0, IRQ_FACT, "none"),
    _mmio("IRQ_STATUS", IRQ_STATUS, 32, RO, 0, 0),
    _mmio("IRQ_RAISE", IRQ_RAISE, 32, WO, None, 0, "sets bits of IRQ_STATUS and interrupts"),
    _mmio("IRQ_ACKNOWLEDGE", IRQ_ACKNOWLEDGE, 32, WO, None, 0, "clears bits of IRQ_STATUS"),
    _mmio("DMA_SOURCE", DMA_SOURCE, 64, RW, 0, 0xFFFFFFFFFFFFFFFF, "none"),
    _mmio("DMA_DESTINATION", DMA_DESTINATION, 64, RW, 0, 0xFFFFFFFFFFFFFFFF, "none"),
    _mmio("DMA_COUNT", DMA_COUNT, 64, RW, 0, 0xFFFFFFFFFFFFFFFF, "none"),
    _mmio("DMA_COMMAND", DMA_COMMAND, 64, RW, 0, 0, "with DMA_RUN starts a transfer, without it is ignored"),
)


@cython.final
cdef class Edu(PciFunction):
    """The function.

    Settings: dma_mask, the address bits of its DMA; fact_ns, how long a factorial takes (0: it is there at once, so that
    STATUS.COMPUTING is never seen).
    """
    TITLE = "Educational PCI device"
    REGISTERS = REGISTERS
    MESSAGE_SOURCE = True
    CONFIG = {**PCI_CONFIG, "dma_mask": (1 << 28) - 1, "fact_ns": 0}
    STATE = PCI_STATE + (("fact_at", "u8"), ("dma_at", "u8"), ("dma_source", "u8"), ("dma_destination", "u8"), ("dma_count", "u8"),
                         ("dma_command", "u8"), ("liveness", "u4"), ("fact", "u4"), ("status", "u4"), ("irq_status", "u4"), ("refused", "u4"),
                         ("pad", "u1", 4), ("buffer", "u1", BUFFER_SIZE))

    def __init__(self, str id="edu", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        for name in ("dma_mask", "fact_ns"):
            if not 0 <= self.config[name] < 1 << 63:
                raise MachineError(f"device {id!r}: {name} = {self.config[name]} is negative or too large")
        self.dma_mask = self.config["dma_mask"]
        self.fact_ns = self.config["fact_ns"]
        self.s = <edu_state *>self.pci_alloc(sizeof(edu_state))
        self.identify(0x1234, 0x11E8, 0x10, 0x00FF00, interrupt_pin=1)
        self.msi = add_msi(self)
        self.add_bar(EDU_BAR, Space.MMIO, EDU_SIZE, name="edu-mmio", accepts=(4, 8), implements=(4, 8))
        self.power_on()

    # ------------------------------------------------------------------ accesses

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """Where no register is, and where one does not take the width, all ones."""
        if region != EDU_BAR:
            return IO_NO_REGISTER
        value[0] = ~<uint64_t>0
        if offset < WIDE_AT and size != 4:
            return IO_OK
        if offset == IDENTIFICATION:
            value[0] = EDU_ID
        elif offset == LIVENESS:
            value[0] = self.s.liveness
        elif offset == FACTORIAL:
            value[0] = self.s.fact
        elif offset == EDU_STATUS:
            value[0] = self.s.status
        elif offset == IRQ_STATUS:
            value[0] = self.s.irq_status
        elif offset == DMA_SOURCE:
            value[0] = self.s.dma_source
        elif offset == DMA_DESTINATION:
            value[0] = self.s.dma_destination
        elif offset == DMA_COUNT:
            value[0] = self.s.dma_count
        elif offset == DMA_COMMAND:
            value[0] = self.s.dma_command
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """A transfer that runs locks its four registers; a write of 4 bytes clears the upper half."""
        if region != EDU_BAR:
            return IO_NO_REGISTER
        if offset < WIDE_AT and size != 4:
            return IO_OK
        if offset == LIVENESS:
            self.s.liveness = ~<uint32_t>value
        elif offset == FACTORIAL:
            if not self.s.status & COMPUTING:
                self.s.fact = <uint32_t>value
                self.s.status |= COMPUTING
                if self.fact_ns:
                    self.s.fact_at = self.core.now + self.fact_ns
                    self.update_deadline()
                else:
                    self.compute()
        elif offset == EDU_STATUS:
            self.s.status = self.s.status & ~<uint32_t>IRQ_FACT | <uint32_t>value & IRQ_FACT
        elif offset == IRQ_RAISE:
            self.raise_irq(<uint32_t>value)
        elif offset == IRQ_ACKNOWLEDGE:
            self.lower_irq(<uint32_t>value)
        elif not self.s.dma_command & DMA_RUN:
            if offset == DMA_SOURCE:
                self.s.dma_source = value
            elif offset == DMA_DESTINATION:
                self.s.dma_destination = value
            elif offset == DMA_COUNT:
                self.s.dma_count = value
            elif offset == DMA_COMMAND and value & DMA_RUN:
                self.s.dma_command = value
                self.s.dma_at = (self.core.now // MS + DMA_MS) * MS
                self.update_deadline()
        return IO_OK

    cdef void config_written(self, uint32_t offset, uint32_t size) noexcept nogil:
        msi_written(self, self.msi, offset, size)

    # ------------------------------------------------------------------ interrupts: "IRQ controller"

    cdef void raise_irq(self, uint32_t bits) noexcept nogil:
        self.s.irq_status |= bits
        if self.s.irq_status:
            if msi_enabled(self, self.msi):
                msi_notify(self, self.msi, 0)
            else:
                self.set_intx(1)

    cdef void lower_irq(self, uint32_t bits) noexcept nogil:
        self.s.irq_status &= ~bits
        if not self.s.irq_status and not msi_enabled(self, self.msi):
            self.set_intx(0)

    # ------------------------------------------------------------------ what takes time

    cdef void compute(self) noexcept nogil:
        """The factorial modulo 2**32."""
        cdef uint32_t n = self.s.fact, product = 1
        self.s.fact_at = NEVER
        if n > FACT_MAX:
            product = 0
        else:
            while n:
                product *= n
                n -= 1
        self.s.fact = product
        self.s.status &= ~<uint32_t>COMPUTING
        if self.s.status & IRQ_FACT:
            self.raise_irq(FACT_INTERRUPT)

    cdef void transfer(self) noexcept nogil:
        """"DMA controller".  One that leaves the buffer moves nothing, and ends like any other."""
        cdef bint out = self.s.dma_command & DMA_TO_RAM != 0
        cdef uint64_t at = (self.s.dma_source if out else self.s.dma_destination) - BUFFER_AT
        self.s.dma_at = NEVER
        if at >= BUFFER_SIZE or self.s.dma_count > BUFFER_SIZE - at:
            self.s.refused += 1
        elif out:
            self.dma.write(self.s.dma_destination & self.dma_mask, self.s.buffer + at, self.s.dma_count)
        else:
            self.dma.read(self.s.dma_source & self.dma_mask, self.s.buffer + at, self.s.dma_count)
        self.s.dma_command &= ~<uint64_t>DMA_RUN
        if self.s.dma_command & DMA_IRQ:
            self.raise_irq(DMA_INTERRUPT)

    cdef void update_deadline(self) noexcept nogil:
        cdef uint64_t first = min(self.s.fact_at, self.s.dma_at)
        if first == NEVER:
            self.core.deadline = NEVER
        else:
            self.set_deadline(first)

    cdef void on_time(self) noexcept nogil:
        if self.s.fact_at <= self.core.now:
            self.compute()
        if self.s.dma_at <= self.core.now:
            self.transfer()
        self.update_deadline()

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """A bus reset touches configuration space alone, as in the reference; what runs goes on."""
        PciFunction.on_reset(self, kind)
        if kind == RESET_POWER_ON:
            self.s.fact_at = self.s.dma_at = NEVER
            self.s.dma_source = self.s.dma_destination = self.s.dma_count = self.s.dma_command = 0
            self.s.liveness = self.s.fact = self.s.status = self.s.irq_status = self.s.refused = 0
            memset(self.s.buffer, 0, BUFFER_SIZE)
        self.update_deadline()
