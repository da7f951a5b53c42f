"""PCI-to-PCI bridges and PCI Express root ports.

Names and section numbers: PCI-to-PCI Bridge Architecture Specification 1.2 (Bridge); PCI Express Base Specification 3.0 (PCIe);
PCI Standard Hot-Plug Controller and Subsystem Specification 1.0 (SHPC).
"""
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport io_status, reset_kind
from engine.pci._config cimport PciFunction, pci_state

cdef enum:                 # PCI Express capability, PCIe 7.8, offsets within it
    EXP_FLAGS = 0x02
    EXP_DEVCAP = 0x04
    EXP_DEVCTL = 0x08
    EXP_LNKCAP = 0x0C
    EXP_LNKCTL = 0x10
    EXP_LNKSTA = 0x12
    EXP_SLTCAP = 0x14
    EXP_SLTCTL = 0x18
    EXP_SLTSTA = 0x1A
    EXP_RTCTL = 0x1C
    EXP_DEVCAP2 = 0x24
    EXP_DEVCTL2 = 0x28
    EXP_LNKCAP2 = 0x2C
    EXP_LNKCTL2 = 0x30
    EXP_LENGTH = 0x3C
    EXP_TYPE_ROOT_PORT = 4
    EXP_SLOT_IMPLEMENTED = 0x0100

cdef enum:                 # Link Capabilities and Link Status, PCIe 7.8.6, 7.8.8
    LINK_SPEED = 0x000F
    LINK_SLOWEST = 0x0001  # 2.5 GT/s
    LINK_WIDTH = 0x03F0
    LINK_ONE_LANE = 0x0010

cdef enum:                 # Slot Control and Slot Status, PCIe 7.8.10, 7.8.11
    SLTCTL_INDICATORS_OFF = 0x03C0
    SLTCTL_POWER_INDICATOR_ON = 0x0100
    SLTCTL_ATTENTION_OFF = 0x00C0
    SLTCTL_POWER_OFF = 0x0400
    SLTCTL_INTERLOCK = 0x0800
    SLTSTA_COMPLETED = 0x0010
    SLTSTA_INTERLOCK = 0x0080

cdef enum:                 # advanced error reporting, PCIe 7.10, offsets within it
    AER_SEVERITY = 0x0C
    AER_CORRECTABLE_MASK = 0x14
    AER_CONTROL = 0x18
    AER_ROOT_COMMAND = 0x2C
    AER_ROOT_STATUS = 0x30
    AER_LENGTH = 0x48
    EXT_CAP_AER = 0x0001
    EXT_CAP_ACS = 0x000D
    ACS_CAPABILITY = 4
    ACS_CONTROL = 6
    ACS_BITS = 0x5F

cdef enum:                 # SHPC capability, SHPC 4.3 to 4.6
    SHPC_SELECT = 2
    SHPC_PENDING = 3
    SHPC_DATA = 4
    SHPC_LENGTH = 8

cdef enum:                 # SHPC working register set, SHPC 4.8 to 4.17
    SHPC_SLOTS_33 = 0x04
    SHPC_CONFIGURATION = 0x0C
    SHPC_BUS = 0x10
    SHPC_COMMAND = 0x14
    SHPC_TARGET = 0x15
    SHPC_STATUS = 0x16
    SHPC_INTERRUPTS = 0x18
    SHPC_CONTROL = 0x20
    SHPC_SLOT0 = 0x24
    SHPC_SLOT_EVENTS = 2   # of a slot: what has happened, and which of it interrupts
    SHPC_SLOT_MASK = 3
    SHPC_SLOTS = 31
    SHPC_BYTES = 0xA0
    SHPC_SIZE = 0x100

cdef enum:                 # their bits
    SHPC_BUS_MODE = 0x07
    SHPC_TARGET_MASK = 0x1F
    SHPC_MRL_OPEN = 0x02
    SHPC_INVALID_COMMAND = 0x04
    SHPC_INVALID_MODE = 0x08
    SHPC_INTERRUPT_OFF = 0x01
    SHPC_COMMAND_OFF = 0x04
    SHPC_CONTROL_WMASK = 0x0F
    SHPC_COMPLETED = 0x01  # byte 2 of SHPC_CONTROL
    SHPC_CONTROL_W1C = 0x03
    SHPC_EVENTS = 0x1F
    SHPC_MASK_WMASK = 0x7F
    SHPC_STATE = 0x03
    SHPC_POWERED = 1
    SHPC_ENABLED = 2
    SHPC_DISABLED = 3
    SHPC_MISSING = 0x0D    # byte 1 of a slot: its latch is open, presence reads empty
    SHPC_LATCH = 0x01
    SHPC_POWER_LED = 0x0C
    SHPC_ATTENTION_LED = 0x30
    SHPC_LED_ON = 0x04
    SHPC_LED_OFF = 0x0C
    SHPC_WENT = 0x09       # presence, latch: a card was taken out

cdef enum:                 # the ranges that CONTROL_VGA forwards, Bridge 3.2.5.18
    VGA_MEMORY = 0xA0000
    VGA_MEMORY_LAST = 0xBFFFF
    VGA_PORTS_LOW = 0x3B0
    VGA_PORTS_LOW_LAST = 0x3BB
    VGA_PORTS_HIGH = 0x3C0
    VGA_PORTS_HIGH_LAST = 0x3DF

cdef enum:
    CHILDREN = 256         # functions that one bus can have

cdef struct bridge_state:
    pci_state pci
    uint8_t extended[3840] # of PCI Express; a hot-plug controller's registers
    uint8_t table[16]      # MSI-X
    uint8_t pending[8]
    uint8_t bus            # the number under which the functions behind answer; 0: they do not
    uint8_t control        # BRIDGE_CONTROL, as last acted on
    uint8_t wanted         # the hot-plug controller's interrupt
    uint8_t pad[5]

cdef class PciBridge(PciFunction):
    cdef bridge_state *s
    cdef PyObject *children[CHILDREN]     # by device and function number
    cdef list held                        # the same, owned
    cdef uint32_t window_first(self, uint32_t at) noexcept nogil
    cdef void update_bus(self) noexcept nogil

cdef class PciPciBridge(PciBridge):
    cdef uint8_t shpc_wmask[SHPC_SIZE]
    cdef uint8_t shpc_w1c[SHPC_SIZE]
    cdef uint32_t shpc_at
    cdef uint32_t msi
    cdef bint occupied(self, uint32_t slot) noexcept nogil
    cdef void shpc_reset(self) noexcept nogil
    cdef void let_go(self, uint32_t slot) noexcept nogil
    cdef void shpc_store(self, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
    cdef void shpc_command(self) noexcept nogil
    cdef bint slot_command(self, uint32_t slot, uint8_t command) noexcept nogil
    cdef void shpc_interrupt(self) noexcept nogil
    cdef void shpc_show(self) noexcept nogil

cdef class I82801b11(PciBridge):
    pass

cdef class RootPort(PciBridge):
    cdef uint32_t express
    cdef uint32_t msi                     # where MSI is, or 0
    cdef uint32_t msix                    # where MSI-X is, or 0
    cdef uint16_t link(self) noexcept nogil
    cdef void express_written(self, uint32_t offset, uint32_t size) noexcept nogil
    cdef void number_message(self) noexcept nogil
