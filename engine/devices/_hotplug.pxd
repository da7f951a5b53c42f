"""The hot-plug registers that PC virtual machines have beside power management: PCI slots, CPUs, memory modules.

They have no data sheet; their maps are in QEMU's docs/specs (acpi_pci_hotplug, acpi_cpu_hotplug, acpi_mem_hotplug).
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:                    # PCI slots: 4 bytes each, of the bus that PCI_SELECT names
    PCI_UP = 0x00             # RO  slots in which something has been put; cleared by reading
    PCI_DOWN = 0x04           # RO  slots whose function is to go
    PCI_EJECT = 0x08          # WO  empties the lowest slot named
    PCI_REMOVABLE = 0x0C      # RO
    PCI_SELECT = 0x10         # RW
    PCI_INDEX = 0x14          # RW  asks for the index that the host gave a slot's function, and gives it once
    PCI_HOTPLUG_SIZE = 0x18
    PCI_BUSES = 256
    PCI_SLOTS = 32

cdef enum:                    # CPUs
    CPU_SELECT = 0            # WO 4 bytes
    CPU_DATA2 = 0             # RO 4 bytes
    CPU_FLAGS = 4             # RW 1 byte
    CPU_COMMAND = 5           # WO 1 byte
    CPU_DATA = 8              # RW 4 bytes
    CPU_MODERN_SIZE = 12
    CPU_LEGACY_SIZE = 32
    CPU_PRESENT = 0x01        # CPU_FLAGS
    CPU_INSERTING = 0x02      #   an event; cleared by writing 1
    CPU_REMOVING = 0x04       #   an event; cleared by writing 1
    CPU_EJECT = 0x08          #   WO
    CPU_FW_REMOVE = 0x10      #   left to the firmware; set by writing 1
    CMD_NEXT_EVENT = 0        # CPU_COMMAND
    CMD_OST_EVENT = 1
    CMD_OST_STATUS = 2
    CMD_CPU_ID = 3
    MAX_CPUS = 255

cdef enum:                    # memory modules: 4 bytes each, of the slot that MEM_SELECT names
    MEM_SELECT = 0x00         # WO
    MEM_ADDR = 0x00           # RO 8 bytes
    MEM_OST_EVENT = 0x04      # WO
    MEM_SIZE = 0x08           # RO 8 bytes
    MEM_OST_STATUS = 0x08     # WO
    MEM_NODE = 0x10           # RO
    MEM_FLAGS = 0x14          # RW
    MEM_HOTPLUG_SIZE = 0x18

cdef enum:                    # blocks, in the order of a part's three regions
    HOTPLUG_PCI = 0
    HOTPLUG_CPU = 1
    HOTPLUG_MEMORY = 2

cdef enum:                    # general purpose events
    GPE_PCI = 0x02
    GPE_CPU = 0x04

# In device state: HOTPLUG_STATE describes the fields.
cdef struct acpi_hotplug:
    uint32_t pci_select
    uint32_t pci_index        # what PCI_INDEX gives next
    uint32_t pci_up[256]      # bit n: slot n
    uint32_t pci_down[256]
    uint32_t pci_gone[256]    # slots that software or a reset has emptied and the host has not heard of
    uint32_t cpu_select
    uint32_t mem_select
    uint8_t cpu_modern        # the CPU registers have been switched from the bitmap to the selector interface
    uint8_t cpu_command
    uint8_t cpu_events[255]   # CPU_INSERTING, CPU_REMOVING, CPU_FW_REMOVE
    uint8_t cpu_gone[255]     # CPUs that software has ejected and the host has not heard of
    uint8_t pad[4]

# What the machine is, fixed when it is built; made by hotplug_facts_of.
cdef struct hotplug_facts:
    uint32_t max_cpus
    uint32_t modules          # slots for memory modules
    uint32_t buses            # that functions can be put on and taken from
    uint32_t cpu_ids[255]
    uint8_t cpu_there[255]
    uint8_t cpu_bits[32]      # bitmap of the IDs of CPUs that are there
    uint32_t fixed[256]       # bit n: what is in slot n of the bus cannot be removed
    uint32_t index[8192]      # of each slot of each bus

cdef int hotplug_facts_of(hotplug_facts *f, str id, dict config) except -1
cdef list hotplug_taken(acpi_hotplug *h, const hotplug_facts *f)
cdef uint8_t hotplug_input(acpi_hotplug *h, const hotplug_facts *f, uint32_t pin, uint64_t addr) noexcept nogil
cdef bint hotplug_reset(acpi_hotplug *h, const hotplug_facts *f) noexcept nogil
cdef int hotplug_read(acpi_hotplug *h, const hotplug_facts *f, uint32_t block, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil
cdef int hotplug_write(acpi_hotplug *h, const hotplug_facts *f, uint32_t block, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil
