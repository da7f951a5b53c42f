"""pci-testdev: a function for tests of accesses: it names an offset, and counts the writes there.

Document: QEMU 7.2, docs/specs/pci-testdev.txt.  Modelled: both header ranges with their tests, among them those whose writes go past the
device as events, and the range without anything.  Called by the owning worker only.
"""
cimport cython
from libc.string cimport memcpy

from engine._device cimport IO_NO_REGISTER, IO_OK, RESET_POWER_ON, io_status, reset_kind
from engine.pci._config cimport CONFIG_REGION
from engine.pci.regs cimport *

from engine.errors import MachineError
from engine.pci._config import PCI_CONFIG, PCI_STATE
from engine.types import RO, RW, RW1C, WO, Register, Space

_S = "docs/specs/pci-testdev.txt"
KINDS = ("no-eventfd", "wildcard-eventfd", "datamatch-eventfd")


def _header(region, prefix):
    return (Register(f"{prefix}TEST", TEST, 8, RW, 0, 0, "starts a test: 0 to 2; others end it", _S + " test", region),
            Register(f"{prefix}WIDTH", WIDTH, 8, RO, 0, section=_S + " width_type", region=region),
            Register(f"{prefix}OFFSET", OFFSET, 32, RO, 0, section=_S + " offset", region=region),
            Register(f"{prefix}DATA", DATA, 32, RO, 0, section=_S + " data", region=region),
            Register(f"{prefix}COUNT", COUNT, 32, RO, 0, section=_S + " count", region=region))


REGISTERS = (
    Register("VID", VENDOR_ID, 16, RO, 0x1B36, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
    Register("DID", DEVICE_ID, 16, RO, 0x0005, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
    Register("PCICMD", COMMAND, 16, RW, 0, COMMAND_WMASK, "gates", "PCI 3.0 6.2.2", CONFIG_REGION),
    Register("PCISTS", STATUS, 16, RW1C, 0, section="PCI 3.0 6.2.3", region=CONFIG_REGION, w1c=STATUS_W1C),
    Register("CLASS", CLASS_CODE + 1, 16, RO, 0x00FF, section="PCI 3.0 6.2.1", region=CONFIG_REGION),
    Register("BAR0", BAR0, 32, RW, 0, 0xFFFFF000, "base of the memory", _S, CONFIG_REGION),
    Register("BAR1", BAR0 + 4, 32, RW, BAR_IO, 0xFFFFFF00, "base of the ports", _S, CONFIG_REGION),
    *_header(MEMORY_BAR, "MEM_"),
    *_header(PORT_BAR, "IO_"),
)


@cython.final
cdef class PciTestdev(PciFunction):
    """The function.  Setting: membar, the size of BAR 2, 0 for none."""
    TITLE = "PCI test device"
    REGISTERS = REGISTERS
    CONFIG = {**PCI_CONFIG, "membar": 0}
    STATE = PCI_STATE + (("counts", "u4", N_TESTS), ("current", "u1"), ("pad", "u1", 7))

    def __init__(self, str id="pci-testdev", uint32_t rank=0, arena=None, dma=None, **config):
        PciFunction.__init__(self, id, rank, arena, dma, **config)
        self.s = <pci_testdev_state *>self.pci_alloc(sizeof(pci_testdev_state))
        self.identify(0x1B36, 0x0005, 0x00, 0x00FF00)
        self.add_bar(MEMORY_BAR, Space.MMIO, MEMORY_SIZE, name="pci-testdev-mmio")
        self.add_bar(PORT_BAR, Space.PIO, PORT_SIZE, name="pci-testdev-portio")
        if self.config["membar"]:
            if not 0 < self.config["membar"] < 1 << 52:
                raise MachineError(f"device {id!r}: membar = {self.config['membar']:#x} is no size of a range")
            self.add_bar(EMPTY_BAR, Space.MMIO, self.config["membar"], True, True, "pci-testdev-membar", (1, 2, 4, 8))
        for n in range(N_TESTS):
            kind = n % N_KINDS
            text = b"%s-%s\0" % (b"portio" if n >= N_KINDS else b"mmio", KINDS[kind].encode())
            head = bytes([n, 1, 0, 0]) + self.offset_of(n).to_bytes(4, "little") + bytes([UNMATCHED if kind == WILDCARD else MATCHED, 0, 0, 0])
            head += bytes(4) + text
            self.lengths[n] = len(head)
            memcpy(self.headers[n], <const char *>head, len(head))
        self.power_on()

    cdef uint32_t offset_of(self, uint32_t test) noexcept nogil:
        """Where a test's writes go: the upper half of its range."""
        return (PORT_SIZE if test >= N_KINDS else MEMORY_SIZE) // 2 + test

    cdef io_status bar_read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """The running test's header, through either range; without a test zeros.  Its last byte is never given."""
        cdef uint32_t i, at, n = self.s.current
        if region > PORT_BAR:
            return IO_NO_REGISTER
        value[0] = 0
        for i in range(size):
            at = offset + i
            if n < N_TESTS and at + 1 < self.lengths[n]:
                if COUNT <= at < COUNT + 4:
                    value[0] |= <uint64_t>(self.s.counts[n] >> (8 * (at - COUNT)) & 0xff) << (8 * i)
                else:
                    value[0] |= <uint64_t>self.headers[n][at] << (8 * i)
        return IO_OK

    cdef io_status bar_write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """A write that is an event (a byte at the offset of a test with events, in its range) never comes to the device."""
        cdef uint32_t i, n = self.s.current
        if region > PORT_BAR:
            return IO_NO_REGISTER
        if size == 1 and n < N_TESTS and n % N_KINDS != NO_EVENT and n // N_KINDS == region and offset == self.offset_of(n):
            if n % N_KINDS == WILDCARD or value == MATCHED:
                return IO_OK
        for i in range(size):
            self.byte_written(region, offset + i, <uint8_t>(value >> (8 * i)))
        return IO_OK

    cdef void byte_written(self, uint32_t region, uint32_t offset, uint8_t value) noexcept nogil:
        cdef uint32_t n
        if offset == TEST:
            self.s.current = NO_TEST
            if value < N_KINDS:
                n = region * N_KINDS + value
                self.s.current = <uint8_t>n
                self.s.counts[n] = 0
            return
        n = self.s.current
        if n < N_TESTS and offset == self.offset_of(n) and (n % N_KINDS == WILDCARD or value == MATCHED):
            self.s.counts[n] += 1

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """Ends the test; the counts stay."""
        cdef uint32_t n
        PciFunction.on_reset(self, kind)
        self.s.current = NO_TEST
        if kind == RESET_POWER_ON:
            for n in range(<uint32_t>N_TESTS):
                self.s.counts[n] = 0
