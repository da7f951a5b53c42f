"""Frozen value types that everything shares: registers, regions, PCI addresses, address spaces."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Space(IntEnum):
    """An address space of the guest."""

    PIO = 0
    MMIO = 1
    CONFIG = 2


# Access kinds of a register, as register maps spell them.
RO = "RO"
WO = "WO"
RW = "RW"
RW1C = "RW1C"  # writing one clears the bit
RC = "RC"  # reading clears the register


@dataclass(frozen=True, slots=True)
class Register:
    """One register of a part: what it is, never what it does.

    `offset` is in bytes within region number `region`; `index` tells how an indexed register (CMOS, CRTC, ...) is
    reached; `width` is in bits; `reset` and `wmask` are values of that width, `reset` None where the data sheet
    leaves it undefined; `w1c` masks the bits that a written one clears; `section` names the document and its section.
    """

    name: str
    offset: int
    width: int
    access: str
    reset: int | None = 0
    wmask: int = 0
    side_effects: str = ""
    section: str = ""
    region: int = 0
    index: int | None = None
    w1c: int = 0

    def __post_init__(self) -> None:
        for name in ("reset", "wmask", "w1c"):
            value = getattr(self, name)
            if value is not None and value < 0:  # a C constant with its top bit set comes to Python as a negative int
                value += 1 << self.width
                object.__setattr__(self, name, value)
            if value is not None and not 0 <= value < 1 << self.width:
                raise ValueError(f"register {self.name}: {name} = {value:#x} does not fit {self.width} bits")


@dataclass(frozen=True, slots=True)
class Clock:
    """A register that shows the time t, in ns: the low `bits` of floor(t * `hz` / 10^9).  Reading it changes nothing.

    It is `width` bytes wide, at `offset` of its region.  One that software sets, starts and stops names fields of its
    part's STATE: while `runs`, a field of u4 under a mask, is not 0, it shows the time t + `ahead`, modulo 2^64; else
    the value of `halted`.  Only writes to the region's first `set_by` bytes, resets and restored states change these
    fields.
    """

    hz: int
    bits: int
    offset: int = 0
    runs: tuple[str, int] | None = None
    ahead: str = ""
    halted: str = ""
    set_by: int = 0

    @property
    def width(self) -> int:
        """Of the register, in bytes."""
        return 4 if self.bits <= 32 else 8


@dataclass(frozen=True, slots=True)
class Region:
    """A range of one address space that a device answers.

    `size` is in bytes; `accepts` lists the widths in bytes that the region takes: wider accesses are split, narrower
    ones refused.  `implements` is the narrowest and widest access that the device's code sees: the executor splits
    and widens the rest.  An access that begins in the region may reach past its end
    (docs/decisions/0007-odd-accesses.md).  `ports`: byte ports with a decoder each, where two bytes are two ports,
    the one behind the end is nobody's, and so are more bytes.  `posted`: a write may be buffered (nothing the guest
    can see next depends on it).  `barrier`: a write may change what later accesses reach (mapping, reset), so a batch
    ends behind it.  `unaligned`: an access that is not aligned within the region reaches it whole; else it comes in
    aligned parts.  `priority`: among overlapping ranges the highest is seen.  `hidden_in_smm`: accesses made in
    system management mode pass it by; `only_in_smm`: all others do.  `ecam`: the range is a window to configuration
    space (PCI Express 3.0, 7.2.2), which the router decodes.  `clock`: a register in it shows the time; on its way to a
    worker the router answers it itself (docs/decisions/0009-published-clocks.md).  `strings`: the device's code has
    `string_until`, and perhaps `read_string`, by which accesses to one register in a row are made at once.
    """

    name: str
    space: Space
    size: int
    accepts: tuple[int, ...] = (1, 2, 4)
    implements: tuple[int, int] = (1, 4)
    posted: bool = False
    barrier: bool = False
    unaligned: bool = False
    ports: bool = False
    priority: int = 0
    hidden_in_smm: bool = False
    only_in_smm: bool = False
    ecam: bool = False
    clock: Clock | None = None
    strings: bool = False

    def __post_init__(self) -> None:
        if self.ports:
            object.__setattr__(self, "implements", (1, 1))
            object.__setattr__(self, "unaligned", True)


@dataclass(frozen=True, slots=True, order=True)
class Bdf:
    """A PCI function's address: segment, bus, device, function."""

    bus: int
    device: int
    function: int
    segment: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.bus < 256 and 0 <= self.device < 32 and 0 <= self.function < 8 and 0 <= self.segment < 65536):
            raise ValueError(f"{self.segment:#x}:{self.bus:#x}:{self.device:#x}.{self.function} is no PCI address")

    @property
    def number(self) -> int:
        """The address as one number: segment << 16 | bus << 8 | device << 3 | function."""
        return self.segment << 16 | self.bus << 8 | self.device << 3 | self.function

    @classmethod
    def parse(cls, text: str) -> Bdf:
        """'00:1f.3' or '0000:00:1f.3', hexadecimal as lspci prints it.  Raises ValueError."""
        try:
            head, function = text.rsplit(".", 1)
            *rest, bus, device = head.split(":")
            segment = int(rest[0], 16) if rest else 0
            return cls(int(bus, 16), int(device, 16), int(function, 16), segment)
        except (ValueError, IndexError):
            raise ValueError(f"{text!r} is no PCI address; write it like 00:1f.3") from None

    def __str__(self) -> str:
        return f"{self.bus:02x}:{self.device:02x}.{self.function}"
