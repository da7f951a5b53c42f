"""pvpanic, on the ISA bus and as a PCI function: one register by which a guest tells its host that it has crashed.

Document: QEMU 7.2, docs/specs/pvpanic.txt.  Modelled: all of it.  What the host makes of a crash is not the part's: it gives a
pulse on `panicked` or on `crash_loaded`.  Called by the owning worker only.
"""
cimport cython

from engine._device cimport IO_NO_REGISTER, IO_OK, io_status
from engine.pci._config cimport CONFIG_REGION
from engine.pci.regs cimport *

from engine.errors import MachineError
from engine.pci._config import PCI_CONFIG
from engine.types import RO, RW, RW1C, Region, Register, Space

_S = "docs/specs/pvpanic.txt, "
_EVENT = "writing tells the host: PANICKED, else CRASH_LOADED; nothing is kept"


cdef inline void told(Device d, uint32_t first, uint64_t value) noexcept nogil:
    """One event a write: a panic that the host should handle goes before one that the guest does."""
    cdef uint32_t pin
    if value & PANICKED:
        pin = first + PANICKED_PIN
    elif value & CRASH_LOADED:
        pin = first + CRASH_LOADED_PIN
    else:
        return
    d.set_line(pin, 1)
    d.set_line(pin, 0)


def _events(device):
    events = device.config["events"]
    if not 0 <= events <= 0xFF:
        raise MachineError(f"device {device.id!r}: events = {events} is no byte")
    return events


@cython.final
cdef class Pvpanic(Device):
    """The ISA part.  Setting: events, what reading gives: the events that the host knows."""
    TITLE = "pvpanic: guest crash notification, ISA"
    REGISTERS = (Register("EVENTS", 0, 8, RW, PANICKED | CRASH_LOADED, 0, _EVENT, _S + "ISA Interface"),)
    CONFIG = {"events": PANICKED | CRASH_LOADED}
    OUT = ("panicked", "crash_loaded")

    def __init__(self, str id="pvpanic", uint32_t rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.events = _events(self)
        self.power_on()

    def regions(self):
        """The port."""
        return (Region("pvpanic", Space.PIO, 1, accepts=(1,), implements=(1, 1)),)

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        value[0] = self.events
        return IO_OK

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        told(self, 0, value)
        return IO_OK


@cython.final
cdef class PvpanicPci(PciFunction):
    """The PCI part; both bytes of its range are the register.  Setting: events, as of the ISA part."""
    TITLE = "pvpanic: guest crash notification, PCI"
    REGISTERS = (
        Register("VID", VENDOR_ID, 16, RO, 0x1B36, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
        Register("DID", DEVICE_ID, 16, RO, 0x0011, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
        Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates", "PCI 3.0 6.2.2", CONFIG_REGION),
        Register("PCISTS", STATUS, 16, RW1C, 0, section="PCI 3.0 6.2.3", region=CONFIG_REGION, w1c=STATUS_W1C),
        Register("RID", REVISION_ID, 8, RO, 0x01, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
        Register("CLASS", CLASS_CODE + 1, 16, RO, 0x0880, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
        Register("BAR0", BAR0, 32, RW, 0, 0xFFFFFFFE, "base of the register", _S + "PCI Interface", CONFIG_REGION),
        Register("EVENTS", 0, 8, RW, PANICKED | CRASH_LOADED, 0, _EVENT, _S + "PCI Interface", PVPANIC_BAR),
    )
    CONFIG = {**PCI_CONFIG, "events": PANICKED | CRASH_LOADED}
    OUT = ("inta", "panicked", "crash_loaded")

    def __init__(self, str id="pvpanic-pci", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.events = _events(self)
        self.pci_alloc(self.state_dtype().itemsize)
        self.identify(0x1B36, 0x0011, 0x01, 0x088000)
        self.add_bar(PVPANIC_BAR, Space.MMIO, 16)
        # the reference has a range of two bytes, though PCI 3.0, 6.2.5.1, asks for sixteen
        self.bars[PVPANIC_BAR].size = PVPANIC_SIZE
        self.wmask[BAR0] = 0xff & ~(PVPANIC_SIZE - 1)
        self.bar_regions[PVPANIC_BAR] = Region("pvpanic-pci", Space.MMIO, PVPANIC_SIZE, (1, 2, 4), (1, 1), priority=-1)
        self.power_on()

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        if region != PVPANIC_BAR:
            return IO_NO_REGISTER
        value[0] = self.events
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region != PVPANIC_BAR:
            return IO_NO_REGISTER
        told(self, 1, value)
        return IO_OK
