"""The hot-plug registers of PC virtual machines.

No data sheet; maps: QEMU's docs/specs (acpi_pci_hotplug, acpi_cpu_hotplug, acpi_mem_hotplug).  What is in the slots is the
board's business: the host tells the part of functions and CPUs that come and are to go (hotplug_input), and hears from it
which ones software has let go (a pulse of the part's output `eject`, then its `taken`).  Memory modules: slots, all empty.
Functions over structs, called by the worker that owns them only.
"""
from libc.string cimport memset

from engine.errors import MachineError
from engine.types import RO, RW, WO, Register

HOTPLUG_STATE = (("pci_select", "u4"), ("pci_index", "u4"), ("pci_up", "u4", PCI_BUSES), ("pci_down", "u4", PCI_BUSES),
                 ("pci_gone", "u4", PCI_BUSES), ("cpu_select", "u4"), ("mem_select", "u4"), ("cpu_modern", "u1"), ("cpu_command", "u1"),
                 ("cpu_events", "u1", MAX_CPUS), ("cpu_gone", "u1", MAX_CPUS), ("hp_pad", "u1", 4))
# Settings.  hotplug_buses: [name, slots whose function cannot be removed, a bit each] of each bus, in PCI_SELECT's order; the
# root bus's name is "", and staying_slots are more such slots of it; slot_index: [bus name, slot, index]; cpu_ids: APIC IDs of all CPUs that there can be, if they are not 0, 1, 2, ...;
# plugged_cpus: numbers of those there beside the first `cpus`; memory_slots: for memory modules.
HOTPLUG_CONFIG = {"cpus": 1, "max_cpus": 1, "cpu_ids": [], "plugged_cpus": [], "hotplug_buses": [], "staying_slots": 0,
                  "slot_index": [], "memory_slots": 0}
# Input pins of a part: `addr` of such an input is bus << 5 | slot, or the CPU's number.
HOTPLUG_PINS = ("pci_plug", "pci_unplug", "cpu_plug", "cpu_unplug")

cdef extern from *:
    int __builtin_ctz(unsigned int) nogil

cdef enum:                    # places in HOTPLUG_PINS
    PIN_PCI_PLUG = 0
    PIN_PCI_UNPLUG = 1
    PIN_CPU_PLUG = 2
    PIN_CPU_UNPLUG = 3


cdef int hotplug_facts_of(hotplug_facts *f, str id, dict config) except -1:
    """The settings, checked.  Raises MachineError."""
    cdef uint32_t n, cpu
    ids = config["cpu_ids"] or range(config["max_cpus"])
    plugged, buses = config["plugged_cpus"], config["hotplug_buses"]
    if not 1 <= config["cpus"] <= config["max_cpus"] <= MAX_CPUS:
        raise MachineError(f"{id}: {config['cpus']} of {config['max_cpus']} CPUs cannot be; there are 1 to {MAX_CPUS}")
    if len(ids) != config["max_cpus"] or any(not 0 <= i < 1 << 32 for i in ids):
        raise MachineError(f"{id}: cpu_ids: {config['max_cpus']} numbers are wanted")
    if any(not config["cpus"] <= i < config["max_cpus"] for i in plugged):
        raise MachineError(f"{id}: plugged_cpus: numbers from {config['cpus']} to {config['max_cpus'] - 1}")
    if len(buses) > PCI_BUSES or not 0 <= config["memory_slots"] <= 256:
        raise MachineError(f"{id}: there can be {PCI_BUSES} buses and 256 memory slots")
    memset(f, 0, sizeof(hotplug_facts))
    f.max_cpus, f.modules, f.buses = config["max_cpus"], config["memory_slots"], len(buses)
    for n, i in enumerate(ids):
        f.cpu_ids[n] = i
    for cpu in (*range(config["cpus"]), *plugged):
        f.cpu_there[cpu] = 1
        if f.cpu_ids[cpu] >> 3 < CPU_LEGACY_SIZE:
            f.cpu_bits[f.cpu_ids[cpu] >> 3] |= <uint8_t>(1 << (f.cpu_ids[cpu] & 7))
    numbers = {}
    for n, (name, fixed) in enumerate(buses):
        f.fixed[n] = fixed | (config["staying_slots"] if not name else 0)
        numbers[name] = n
    for name, slot, index in config["slot_index"]:
        if name not in numbers or not 0 <= slot < PCI_SLOTS or not 0 <= index < 1 << 14:
            raise MachineError(f"{id}: slot_index: slot {slot} of bus {name!r} cannot have the index {index}")
        f.index[numbers[name] << 5 | <uint32_t>slot] = index
    return 0


cdef list hotplug_taken(acpi_hotplug *h, const hotplug_facts *f):
    """("pci", bus, slot) and ("cpu", number) of what has been let go since the last call."""
    cdef uint32_t bus, slot, cpu
    out = []
    for bus in range(f.buses):
        for slot in range(<uint32_t>PCI_SLOTS):
            if h.pci_gone[bus] >> slot & 1:
                out.append(("pci", bus, slot))
        h.pci_gone[bus] = 0
    for cpu in range(f.max_cpus):
        if h.cpu_gone[cpu]:
            out.append(("cpu", cpu))
        h.cpu_gone[cpu] = 0
    return out


cdef uint8_t hotplug_input(acpi_hotplug *h, const hotplug_facts *f, uint32_t pin, uint64_t addr) noexcept nogil:
    """Something has come or is to go; the general purpose event that says so, 0 if there is no such place."""
    cdef uint32_t bus = <uint32_t>addr >> 5, bit = <uint32_t>1 << (addr & 31)
    if pin <= PIN_PCI_UNPLUG:
        if addr >= f.buses << 5:
            return 0
        if pin == PIN_PCI_PLUG:
            h.pci_up[bus] |= bit
        else:
            h.pci_down[bus] |= bit
        return GPE_PCI
    if addr >= f.max_cpus:
        return 0
    if h.cpu_modern:                            # the bitmap has no events
        h.cpu_events[addr] |= <uint8_t>(CPU_INSERTING if pin == PIN_CPU_PLUG else CPU_REMOVING)
    elif pin == PIN_CPU_UNPLUG:
        return 0
    return GPE_CPU


cdef bint hotplug_reset(acpi_hotplug *h, const hotplug_facts *f) noexcept nogil:
    """A reset lets go what was asked to; whether there was something."""
    cdef uint32_t bus
    cdef bint any = False
    for bus in range(f.buses):
        if h.pci_down[bus]:
            h.pci_gone[bus] |= h.pci_down[bus] & ~f.fixed[bus]
            h.pci_up[bus] &= ~h.pci_down[bus]
            h.pci_down[bus] = 0
            any = True
    return any


# ---------------------------------------------------------------------- PCI slots

cdef uint32_t pcihp_read(acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t size) noexcept nogil:
    """Narrow reads give zeros."""
    cdef uint32_t bus = h.pci_select, value
    if bus >= PCI_BUSES or size != 4:
        return 0
    if offset == PCI_UP:
        value = h.pci_up[bus]
        h.pci_up[bus] = 0
        return value
    elif offset == PCI_DOWN:
        return h.pci_down[bus]
    elif offset == PCI_REMOVABLE:
        return ~f.fixed[bus]
    elif offset == PCI_SELECT:
        return bus
    elif offset == PCI_INDEX:
        value = h.pci_index
        h.pci_index = 0
        return value
    return 0


cdef bint pcihp_write(acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t size, uint32_t value) noexcept nogil:
    """Whether a function has been let go."""
    cdef uint32_t bus = h.pci_select, bit = value & (~value + 1)
    if size != 4:
        return False
    h.pci_index = 0
    if offset == PCI_SELECT:
        h.pci_select = value
    elif bus >= f.buses or not value:
        return False
    elif offset == PCI_INDEX:
        h.pci_index = f.index[bus << 5 | <uint32_t>__builtin_ctz(value)]
    elif offset == PCI_EJECT:
        h.pci_up[bus] &= ~bit
        h.pci_down[bus] &= ~bit
        h.pci_gone[bus] |= bit & ~f.fixed[bus]
        return h.pci_gone[bus] != 0
    return False


# ---------------------------------------------------------------------- CPUs

cdef int cpuhp_read(const acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
    """0, or -1 where there is no register."""
    cdef uint32_t i, cpu = h.cpu_select
    value[0] = 0
    if not h.cpu_modern:
        for i in range(size):
            if offset + i < CPU_LEGACY_SIZE:
                value[0] |= <uint64_t>f.cpu_bits[offset + i] << (8 * i)
        return 0
    if offset >= CPU_MODERN_SIZE:
        return -1
    if cpu >= f.max_cpus:
        return 0
    if offset == CPU_FLAGS:
        value[0] = h.cpu_events[cpu] | (CPU_PRESENT if f.cpu_there[cpu] and not h.cpu_gone[cpu] else 0)
    elif offset == CPU_DATA and h.cpu_command == CMD_NEXT_EVENT:
        value[0] = cpu
    elif offset == CPU_DATA and h.cpu_command == CMD_CPU_ID:
        value[0] = f.cpu_ids[cpu]
    return 0


cdef int cpuhp_write(acpi_hotplug *h, const hotplug_facts *f, uint32_t offset, uint32_t value) noexcept nogil:
    """1 if a CPU has been let go, else 0; -1 where there is no register."""
    cdef uint32_t i, n, cpu = h.cpu_select
    cdef bint removable
    if not h.cpu_modern:
        if offset == 0 and not value & 0xff:
            h.cpu_modern = 1                    # a zero where CPU 0 must show: software knows the selector interface
        return 0
    if offset >= CPU_MODERN_SIZE:
        return -1
    if offset == CPU_SELECT:
        h.cpu_select = value
        return 0
    if cpu >= f.max_cpus:
        return 0
    if offset == CPU_FLAGS:
        removable = cpu and f.cpu_there[cpu] and not h.cpu_gone[cpu]
        if value & CPU_INSERTING:
            h.cpu_events[cpu] &= ~<uint8_t>CPU_INSERTING
        elif value & CPU_REMOVING:
            h.cpu_events[cpu] &= ~<uint8_t>CPU_REMOVING
        elif value & CPU_EJECT:
            if removable:
                h.cpu_events[cpu] &= ~<uint8_t>CPU_FW_REMOVE
                h.cpu_gone[cpu] = 1
                return 1
        elif value & CPU_FW_REMOVE and removable:
            h.cpu_events[cpu] |= CPU_FW_REMOVE
    elif offset == CPU_COMMAND and value <= CMD_CPU_ID:
        h.cpu_command = <uint8_t>value
        if value == CMD_NEXT_EVENT:
            for i in range(f.max_cpus):
                n = (cpu + i) % f.max_cpus
                if h.cpu_events[n]:
                    h.cpu_select = n
                    break
    return 0


# ---------------------------------------------------------------------- memory modules

cdef uint32_t memhp_read(const acpi_hotplug *h, const hotplug_facts *f, uint32_t offset) noexcept nogil:
    """Every slot is empty.  Ones where there is no register."""
    if h.mem_select >= f.modules or not offset & 3 and offset <= MEM_FLAGS:
        return 0
    return 0xffffffffu


cdef void memhp_write(acpi_hotplug *h, uint32_t offset, uint32_t value) noexcept nogil:
    if offset == MEM_SELECT:
        h.mem_select = value


# ---------------------------------------------------------------------- the three blocks

cdef int hotplug_read(acpi_hotplug *h, const hotplug_facts *f, uint32_t block, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
    """0, or -1 where there is no register, or no such block."""
    if block == HOTPLUG_PCI:
        value[0] = pcihp_read(h, f, offset, size)
    elif block == HOTPLUG_MEMORY:
        value[0] = memhp_read(h, f, offset)
    else:
        return cpuhp_read(h, f, offset, size, value) if block == HOTPLUG_CPU else -1
    return 0


cdef int hotplug_write(acpi_hotplug *h, const hotplug_facts *f, uint32_t block, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
    """1 if a function or a CPU has been let go, else 0; -1 where there is no register, or no such block."""
    if block == HOTPLUG_PCI:
        return pcihp_write(h, f, offset, size, <uint32_t>value)
    if block == HOTPLUG_CPU:
        return cpuhp_write(h, f, offset, <uint32_t>value)
    if block != HOTPLUG_MEMORY:
        return -1
    memhp_write(h, offset, <uint32_t>value)
    return 0


def hotplug_registers(region, removable):
    """The PCI block's registers.  removable: what PCI_REMOVABLE holds after power-on, None if the board decides."""
    said = "acpi_pci_hotplug"
    return (
        Register("PCI_UP", PCI_UP, 32, RO, 0, 0, "cleared by reading", said, region),
        Register("PCI_DOWN", PCI_DOWN, 32, RO, 0, section=said, region=region),
        Register("PCI_EJECT", PCI_EJECT, 32, WO, 0, 0, "empties the lowest slot named", said, region),
        Register("PCI_REMOVABLE", PCI_REMOVABLE, 32, RO, removable, section=said, region=region),
        Register("PCI_SELECT", PCI_SELECT, 32, RW, 0, 0, "selects bus 0 to 255, else all read zero", said, region),
        Register("PCI_INDEX", PCI_INDEX, 32, RW, 0, 0, "asks for a slot's index", said, region),
    )
