"""Registers of PCI configuration space.  Names: PCI Local Bus Specification 3.0 (PCI), as its section 6 spells them."""

cdef enum:                        # header type 0, PCI 6.1 figure 6-1
    VENDOR_ID = 0x00
    DEVICE_ID = 0x02
    COMMAND = 0x04
    STATUS = 0x06
    REVISION_ID = 0x08
    CLASS_CODE = 0x09             # programming interface, sub-class, base class
    CACHE_LINE_SIZE = 0x0C
    LATENCY_TIMER = 0x0D
    HEADER_TYPE = 0x0E
    BIST = 0x0F
    BAR0 = 0x10
    CARDBUS_CIS = 0x28
    SUBSYSTEM_VENDOR_ID = 0x2C
    SUBSYSTEM_ID = 0x2E
    EXPANSION_ROM = 0x30
    CAP_POINTER = 0x34
    INTERRUPT_LINE = 0x3C
    INTERRUPT_PIN = 0x3D
    MIN_GNT = 0x3E
    MAX_LAT = 0x3F
    HEADER_SIZE = 0x40
    CONFIG_SIZE = 0x100
    EXTENDED_SIZE = 0x1000        # PCI Express 3.0, 7.2

cdef enum:                        # header type 1, PCI-to-PCI Bridge Architecture 1.2, 3.2
    BAR1 = 0x14
    PRIMARY_BUS = 0x18
    SECONDARY_BUS = 0x19
    SUBORDINATE_BUS = 0x1A
    SECONDARY_LATENCY = 0x1B
    IO_BASE = 0x1C
    IO_LIMIT = 0x1D
    SECONDARY_STATUS = 0x1E
    MEMORY_BASE = 0x20
    MEMORY_LIMIT = 0x22
    PREFETCH_BASE = 0x24
    PREFETCH_LIMIT = 0x26
    PREFETCH_BASE_UPPER = 0x28
    PREFETCH_LIMIT_UPPER = 0x2C
    IO_BASE_UPPER = 0x30
    IO_LIMIT_UPPER = 0x32
    BRIDGE_CONTROL = 0x3E
    HEADER_BRIDGE = 0x01          # HEADER_TYPE

cdef enum:                        # BRIDGE_CONTROL, the same, 3.2.5.18
    CONTROL_PARITY = 0x0001
    CONTROL_SERR = 0x0002
    CONTROL_ISA = 0x0004
    CONTROL_VGA = 0x0008
    CONTROL_VGA_16_BIT = 0x0010
    CONTROL_MASTER_ABORT = 0x0020
    CONTROL_RESET = 0x0040
    CONTROL_FAST_BACK = 0x0080
    CONTROL_TIMERS = 0x0F00       # discard timers

cdef enum:                        # COMMAND, PCI 6.2.2
    COMMAND_IO = 0x0001
    COMMAND_MEMORY = 0x0002
    COMMAND_MASTER = 0x0004
    COMMAND_SPECIAL = 0x0008
    COMMAND_PARITY = 0x0040
    COMMAND_SERR = 0x0100
    COMMAND_FAST_BACK = 0x0200
    COMMAND_INTX_DISABLE = 0x0400
    COMMAND_WMASK = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_SERR | COMMAND_INTX_DISABLE

cdef enum:                        # STATUS, PCI 6.2.3
    STATUS_INTERRUPT = 0x0008
    STATUS_CAP_LIST = 0x0010
    STATUS_FAST_BACK = 0x0080
    STATUS_PARITY = 0x0100        # master data parity error
    STATUS_DEVSEL_MEDIUM = 0x0200
    STATUS_SIG_TARGET_ABORT = 0x0800
    STATUS_REC_TARGET_ABORT = 0x1000
    STATUS_REC_MASTER_ABORT = 0x2000
    STATUS_SIG_SYSTEM_ERROR = 0x4000
    STATUS_DETECTED_PARITY = 0x8000
    STATUS_W1C = (STATUS_PARITY | STATUS_SIG_TARGET_ABORT | STATUS_REC_TARGET_ABORT | STATUS_REC_MASTER_ABORT
                  | STATUS_SIG_SYSTEM_ERROR | STATUS_DETECTED_PARITY)

cdef enum:                        # HEADER_TYPE, PCI 6.2.1
    HEADER_MULTIFUNCTION = 0x80

cdef enum:                        # base address registers, PCI 6.2.5.1
    BAR_IO = 0x1
    BAR_MEM_64 = 0x4
    BAR_MEM_PREFETCH = 0x8
    ROM_ENABLE = 0x1              # PCI 6.2.5.2

cdef enum:                        # capability identifiers, PCI appendix H
    CAP_PM = 0x01
    CAP_SLOT_ID = 0x04
    CAP_MSI = 0x05
    CAP_VENDOR = 0x09
    CAP_HOT_PLUG = 0x0C           # PCI Standard Hot-Plug Controller 1.0
    CAP_SUBSYSTEM = 0x0D          # PCI-to-PCI Bridge Architecture 1.2, 3.2.6
    CAP_EXPRESS = 0x10
    CAP_MSIX = 0x11
    CAP_SATA = 0x12               # Serial ATA AHCI 1.3.1, 2.4.1
