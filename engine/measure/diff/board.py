"""What a differential run knows: boards, parts where the guest sees them, the entries of data/differences.toml."""

from __future__ import annotations

import atexit
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data import FOLDER
from engine.errors import UsageError
from engine.machine.build import Plan, PlannedDevice, plan
from engine.machine.derive import derive
from engine.machine.qemu_args import from_qemu
from engine.machine.spec import MachineSpec
from engine.measure.diff.swtpm import bare_socket
from engine.types import RW, Register, Space

Array = npt.NDArray[Any]

COMMON = """
    -m 128 -nodefaults -vga std -serial null -parallel null -rtc base=2024-01-01T00:00:00,clock=vm
    -chardev null,id=debug -device isa-debugcon,iobase=0x402,chardev=debug
"""
TPM = "-chardev socket,id=tpm,path={tpm} -tpmdev emulator,id=tpm,chardev=tpm"
BOARDS = {
    "i440fx": f"-M pc {COMMON} -device e1000,romfile=,mac=52:54:00:12:34:56,addr=3".split(),
    "q35": f"-M q35 {COMMON}".split(),
    # the same with drives, cards and bridges; of these the parts of TESTED alone
    "i440fx-full": f"""-M pc {COMMON} -action watchdog=none,panic=none
        -drive if=ide,index=0,format=raw,cache=unsafe,file={{disk}}
        -drive if=ide,index=1,format=raw,cache=unsafe,file={{small}}
        -drive if=ide,index=2,format=raw,media=cdrom,readonly=on,file={{disc}}
        -drive if=floppy,index=0,format=raw,cache=unsafe,file={{floppy}}
        -device edu -device pci-testdev -device pvpanic-pci -device i6300esb -device pci-bridge,id=bridge,chassis_nr=1
        -device pvpanic -device ib700 -device isa-debug-exit -device pc-testdev""".split(),
    "q35-full": f"""-M q35 {COMMON} -action watchdog=none,panic=none
        -drive if=none,id=disk,format=raw,cache=unsafe,file={{disk}} -device ide-hd,drive=disk,bus=ide.0
        -drive if=none,id=small,format=raw,cache=unsafe,file={{small}} -device ide-hd,drive=small,bus=ide.1
        -drive if=none,id=disc,format=raw,media=cdrom,readonly=on,file={{disc}} -device ide-cd,drive=disc,bus=ide.2
        -netdev hubport,id=hub,hubid=0 -device e1000e,netdev=hub,romfile=,mac=52:54:00:12:34:56
        -device e1000,romfile=,mac=52:54:00:12:34:57
        -device pcie-root-port,id=root,chassis=1,slot=1 -device ioh3420,id=ioh,chassis=2,slot=2
        -device i82801b11-bridge,id=dmi""".split(),
    "i440fx-more": f"""-M pc {COMMON}
        -drive if=pflash,unit=0,format=raw,readonly=on,file={{firmware}}
        -drive if=pflash,unit=1,format=raw,cache=unsafe,file={{variables}}
        -device pci-bridge,id=outer,chassis_nr=1 -device pci-bridge,id=inner,bus=outer,chassis_nr=2,addr=2
        -device edu,bus=outer,addr=3 -device pci-testdev,bus=inner,addr=4""".split(),
    "q35-more": f"""-M q35 {COMMON} -action watchdog=none,panic=none -device pcie-root-port,id=root,chassis=1,slot=1
        -device e1000,romfile=,mac=52:54:00:12:34:56,bus=root -device i82801b11-bridge,id=dmi
        -device pci-bridge,id=inner,bus=dmi,chassis_nr=3,addr=1 -device i6300esb,bus=dmi,addr=2
        -device pvpanic-pci,bus=inner,addr=3""".split(),
    "i440fx-tpm": f"-M pc {COMMON} {TPM} -device tpm-tis,tpmdev=tpm".split(),
    "q35-tpm": f"-M q35 {COMMON} {TPM} -device tpm-crb,tpmdev=tpm".split(),
}
TESTED = {
    "i440fx-full": ("piix3-ide", "fdc", "edu", "pci-testdev", "pvpanic-pci", "i6300esb", "pci-bridge", "pvpanic",
                    "ib700", "isa-debug-exit", "pc-testdev"),
    "q35-full": ("ich9-ahci", "e1000e", "e1000", "pcie-root-port", "ioh3420", "i82801b11"),
    "i440fx-more": ("pflash", "edu", "pci-testdev"),
    "q35-more": ("e1000", "i6300esb", "pvpanic-pci"),
    "i440fx-tpm": ("tpm-tis",),
    "q35-tpm": ("tpm-crb",),
}  # fmt: skip
MEDIA = {"disk": 3 << 20, "small": 300_032, "disc": 1 << 19, "floppy": 1_474_560, "firmware": 1 << 16,
         "variables": 1 << 17}  # fmt: skip  # bytes
COMMANDED = ("pflash",)  # whose registers a command shows, and no index register
# Spaces of records that are no accesses: an interrupt taken, a key typed, an input line driven, guest RAM written or
# looked at, a write of a port that resets the machine.
ACK, KEY, LINE, MEM, RESET = range(8, 13)
CONTROL, CONTROL_BYTES = 0xFE00, 16  # ports of the reference's control registers: tools/accel_qtest.c
ROUNDS = 4
SPACE_SHIFT = 60  # above every address
LATCH, DATA = 0xCF8, 0xCFC
PIO_BARS, MMIO_BARS = 0xC000, 0xE0000000
PORTS_STEP, MEMORY_STEP = 1 << 12, 1 << 20  # what the ranges behind bridges are made of
SHUT = 0xFFF0  # such a range without anything: its base is above its limit


def _holds(rule: Mapping[str, Any], value: int, present: int) -> bool:
    """The condition of an [[excluded]] entry for the bytes of its register that a write has: see docs/diff.md."""
    bits = int(rule.get("bits", 0))
    if "only" in rule and present != int(rule["only"]):
        return False
    if value & int(rule.get("clear", 0)):
        return False
    if "below" in rule:
        return value & (bits or -1) < int(rule["below"])
    if "value" in rule:
        return bits & present == bits and value & bits == int(rule["value"])
    return not bits or value & bits & present != 0


@dataclass(slots=True)
class Entry:
    """One [[difference]] or [[excluded]] entry, and how often it was met."""

    raw: Mapping[str, Any]
    part: str
    register: str
    condition: str
    section: str
    reason: str
    count: int = 0

    @property
    def bits(self) -> int:
        """Bits of the register that may differ."""
        return int(self.raw.get("bits", -1))


def _each(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries that a row with `each` stands for: {n} in its texts is each of those numbers."""

    def filled(value: Any, n: int) -> Any:
        if isinstance(value, Mapping):
            return {k: filled(v, n) for k, v in value.items() if k != "each"}
        return value.format(n=n) if isinstance(value, str) else value

    return [filled(row, n) for n in row["each"]] if "each" in row else [dict(row)]


def load_entries(path: Path = FOLDER / "differences.toml") -> dict[str, Any]:
    """The file's tables, checked.  Raises UsageError for an entry that names no single register and condition."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{path}: cannot be used ({e})") from None
    for table in ("excluded", "register", "deferred"):  # an entry for each of several alike registers
        raw[table] = [one for row in raw.get(table, []) for one in _each(row)]
    for row in raw.get("setup", []):
        row["part"] = [row["part"]] if isinstance(row["part"], str) else row["part"]
    for table in ("difference", "excluded", "deferred"):
        for n, row in enumerate(raw.get(table, [])):
            missing = [
                k
                for k in ("part", "register", "condition", "section", "reason")
                if not isinstance(row.get(k), str) or not row[k].strip("* ")
            ]
            if missing:
                raise UsageError(
                    f"{path}: {table} {n + 1}: {missing[0]} is missing; "
                    "an entry names one part, one register and one condition"
                )
    return raw


@dataclass(frozen=True, slots=True)
class Window:
    """One region of a part where the guest sees it."""

    region: int
    space: int  # a Space; CONFIG: base is the function's number << 32
    base: int
    size: int
    accepts: tuple[int, ...]
    direct: tuple[Register, ...]
    indexed: tuple[tuple[int, int, Register], ...]  # offset and bytes of the index register, and the register


@cache
def media() -> dict[str, str]:
    """Paths of the boards' disks, the same bytes each time, and of a TPM's socket, while this process lives."""
    folder = tempfile.TemporaryDirectory(prefix="engine-diff-media-")
    atexit.register(folder.cleanup)
    random = np.random.default_rng(1)
    out = {}
    for name, size in MEDIA.items():
        content = random.integers(0, 256, size, np.uint8)
        content[510:512] = 0  # no partition table, from which a geometry would be guessed
        out[name] = str(Path(folder.name, name))
        Path(out[name]).write_bytes(content.tobytes())
    out["tpm"] = str(Path(folder.name, "tpm"))
    bare_socket(Path(out["tpm"]))
    return out


@dataclass(slots=True)
class Part:
    """A device under test."""

    id: str
    type: str
    windows: list[Window]
    number: int | None  # PCI function number
    bridge: bool = False  # its header is a bridge's
    above: tuple[Part, ...] = ()  # the bridges that it is behind
    range: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # config writes: buses and ranges behind this bridge
    bases: dict[int, tuple[int, int]] = field(
        default_factory=dict
    )  # config offset of a base address register -> (value, size)


@dataclass(frozen=True, slots=True)
class Deferred:
    """What [[deferred]] says of a register: reads are meant, too; how many parts a transfer may have; the register that
    tells when it is done."""

    reads: bool
    rounds: int
    until: tuple[int, int, int, int] | None  # space, address, bits, value


class Board:
    """The board both sides are: its parts, the entries that concern them, the writes a program begins with."""

    def __init__(
        self, name: str, entries: Mapping[str, Any] | None = None, machine: tuple[MachineSpec, list[str]] | None = None
    ) -> None:
        """name: of BOARDS; machine: another machine, and the QEMU command line that gives the same."""
        if machine is None and name not in BOARDS:
            raise UsageError(f"board {name!r}: choose one of {', '.join(BOARDS)}")
        self.name = name
        self.files: dict[str, str] = {}  # the command line's images, of which each QEMU gets copies
        self.tpm: Path | None = None  # where the engine's side has its swtpm
        if machine is not None:
            spec, self.args = machine
        else:
            self.args = BOARDS[name]
            files = {k: v for k, v in media().items() if f"{{{k}}}" in " ".join(self.args)}
            self.files = {k: v for k, v in files.items() if k in MEDIA}
            self.tpm = Path(files["tpm"]) if "tpm" in files else None
            spec = from_qemu(self.args, files).spec(f"{name} of engine diff")
            spec = spec.with_config("tpm", latency_us=0)  # as the reference's, whose clock stands still meanwhile
        self.own = machine is None
        self.contents: dict[str, Any] = {}  # what parts are given, by device id
        self.spec: MachineSpec = derive(spec)
        self.raw = load_entries() if entries is None else dict(entries)
        probes: dict[str, Any] = {}
        self.plan: Plan = plan(self.spec, probes)
        self.mappings = {id: list(getattr(d, "mappings", tuple)()) for id, d in probes.items()}
        self.parts: dict[str, Part] = {}
        self.ecam = (0, 0)  # the memory window to configuration space: base and size
        self.folds: list[
            tuple[int, int, int, int]
        ] = []  # space, first address, last + 1, bytes: what is there again and again
        self.ports, self.memory = PIO_BARS, MMIO_BARS  # the next ones for a function
        self._number()
        self.differences, self.excluded = (
            [Entry(r, r["part"], r["register"], r["condition"], r["section"], r["reason"]) for r in self.raw.get(t, [])]
            for t in ("difference", "excluded")
        )
        self.moved = Entry(
            {},
            "any PCI function",
            "base address registers",
            "an address that is not one of the part's own",
            "PCI 3.0 6.2.5.1",
            "what answers where two ranges overlap is the board's affair and not the part's",
        )
        self._keys()
        self.media = bool(self.files)  # drives have something in them
        self.bursts = False  # of reads of a data port only the last is waited for
        self.deferred: dict[int, Deferred] = {}  # by space and address
        for part in self.parts.values():
            slow = {e["register"]: e for e in self.raw.get("deferred", []) if e["part"] == part.type}
            for w in part.windows:
                at = {r.name: w.base + r.offset for r in w.direct}
                for name in at.keys() & slow.keys() if w.space != Space.CONFIG else ():
                    until = slow[name].get("until")
                    poll = (w.space, at[until["register"]], until["bits"], until["value"]) if until else None
                    self.deferred[w.space << SPACE_SHIFT | at[name]] = Deferred(
                        "r" in slow[name].get("on", "w"), slow[name].get("rounds", ROUNDS), poll
                    )

    def _number(self, above: tuple[Part, ...] = (), bus: int = 0) -> int:
        """Place what is on the board or behind a bridge, and number the buses as firmware does; the last number."""
        last = bus
        parts = [self._place(p, above, bus) for p in self.plan.devices if p.spec.bus == (above[-1].id if above else "")]
        for part in parts:
            if not any(p.spec.bus == part.id for p in self.plan.devices):
                continue
            ports = self.ports = -(-self.ports // PORTS_STEP) * PORTS_STEP
            memory = self.memory = -(-self.memory // MEMORY_STEP) * MEMORY_STEP
            second, last = last + 1, self._number((*above, part), last + 1)
            self.ports = -(-self.ports // PORTS_STEP) * PORTS_STEP
            self.memory = -(-self.memory // MEMORY_STEP) * MEMORY_STEP
            part.range = [
                (0x18, 4, bus | second << 8 | last << 16),
                (0x1C, 2, ports >> 8 | self.ports - PORTS_STEP & 0xFF00 if ports < self.ports else SHUT & 0xFF),
                (0x20, 4, memory >> 16 | self.memory - MEMORY_STEP & 0xFFF00000 if memory < self.memory else SHUT),
                (0x24, 4, SHUT),
            ]
        return last

    def _place(self, p: PlannedDevice, above: tuple[Part, ...], bus: int) -> Part:
        """A device where the guest is to see it."""
        number = p.spec.bdf.number | bus << 8 if p.spec.bdf else None
        part = Part(p.id, p.spec.type, [], number, hasattr(p.cls, "SLOTS"), above)
        placed = {q.index: q.base for q in self.plan.placed if q.rank == p.rank}
        if number is not None:
            placed |= {n: number << 32 for n, r in enumerate(p.regions) if r.space == Space.CONFIG}
            for n, r in enumerate(p.regions[:6]):
                if not r.size:
                    continue
                if r.space == Space.PIO:
                    self.ports = -(-self.ports // max(r.size, 16)) * max(r.size, 16)
                    placed[n], self.ports = self.ports, self.ports + r.size
                else:
                    self.memory = -(-self.memory // max(r.size, 4096)) * max(r.size, 4096)
                    placed[n], self.memory = self.memory, self.memory + r.size
                part.bases[0x10 + 4 * n] = (placed[n], r.size)
        for s in self.raw.get("setup", []):
            if part.type in s["part"]:
                placed |= {n: s["at"][r.name] for n, r in enumerate(p.regions) if r.name in s.get("at", {})}
        for n in [n for n in placed if p.regions[n].ecam]:
            self.ecam = (placed[n], p.regions[n].size)
        part.windows = [self._window(p, i, base) for i, base in sorted(placed.items())]
        for f in self.raw.get("fold", []):
            if f["part"] == part.type:
                w = next(w for w in part.windows if p.regions[w.region].name == f["region"])
                self.folds.append((w.space, w.base + f["offset"], w.base + w.size, f["bytes"]))
        self.parts[p.id] = part
        return part

    def _setup(self, type: str) -> list[list[int]]:
        return [w for s in self.raw.get("setup", []) if type in s["part"] for w in s.get("config", [])]

    def _window(self, p: PlannedDevice, index: int, base: int) -> Window:
        r = p.regions[index]
        how = {(i["region"], i["data"]): i for i in self.raw.get("index", []) if i["part"] == p.spec.type}
        same = next(
            (
                i["same"]
                for i in self.raw.get("index", [])
                if i["part"] == p.spec.type and i["region"] == r.name and "same" in i
            ),
            r.name,
        )
        source = next(n for n, x in enumerate(p.regions) if x.name == same)
        registers = [x for x in p.cls.REGISTERS if x.region in (index, source)]
        registers += [
            Register(x["name"], x["offset"], x["width"], RW, None, -1 & (1 << x["width"]) - 1)
            for x in self.raw.get("register", [])
            if x["part"] == p.spec.type and x["region"] == r.name
        ]
        return Window(
            index,
            r.space,
            base,
            r.size,
            r.accepts,
            tuple(x for x in registers if x.index is None),
            tuple(
                (i["at"], i.get("width", 8) // 8, x)
                for x in registers
                if x.index is not None and p.spec.type not in COMMANDED
                for i in [how[r.name, x.offset]]
            ),
        )

    def _keys(self) -> None:
        """Byte address -> the entries about it, so that a look at an access is one look at a table."""
        self.rules: dict[
            tuple[int, int], list[tuple[str, Entry, int, int | None]]
        ] = {}  # kind, entry, byte of the register, index
        self.index_ports: dict[tuple[int, int], tuple[int, int]] = {}  # data port -> index port and its bytes
        self.base_bytes: dict[int, tuple[Part, int]] = {}
        self.single: set[tuple[int, int]] = (
            set()
        )  # ranges of one byte, whose register every byte of a wide access meets
        for part in self.parts.values():
            named = {r for b in self.raw.get("base", []) if b["part"] == part.type for r in b["registers"]}
            for w in part.windows:
                mirrors = {r.name: [0, *self._mirrors(part.type, r.name)] for r in w.direct}
                for r in w.direct:
                    if w.space == Space.CONFIG and r.name in named:
                        self.base_bytes |= {w.base + r.offset + n: (part, r.offset) for n in range(r.width // 8)}
                for at, width, r in w.indexed:
                    for n in range(r.width // 8):
                        self.index_ports[w.space, w.base + r.offset + n] = (w.base + at, width)
                for kind, entries in (("difference", self.differences), ("excluded", self.excluded)):
                    for e in entries:
                        if e.part != part.type:
                            continue
                        for r, index in [(r, None) for r in w.direct] + [(r, r.index) for _, _, r in w.indexed]:
                            for name in {e.register, e.raw.get("after", {}).get("register", e.register)}:
                                if r.name == name:
                                    use = kind if name == e.register else "after"
                                    for n in range(r.width // 8):
                                        for away in mirrors[name] if index is None else (0,):
                                            self.rules.setdefault((w.space, w.base + r.offset + away + n), []).append(
                                                (use, e, n, index)
                                            )
                                    if w.size == 1 and index is None:
                                        self.single.add((w.space, w.base))
            if part.number is not None:
                base = part.number << 32
                two = [*range(0x10, 0x18), *range(0x38, 0x3C)]
                bars = two if part.bridge else [*range(0x10, 0x28), *range(0x30, 0x34)]
                self.base_bytes |= {base + n: (part, n & ~3) for n in bars}

    def _mirrors(self, type: str, register: str) -> list[int]:
        return [
            away
            for e in self.raw.get("excluded", [])
            if e["part"] == type and e["register"] == register
            for away in e.get("mirrors", [])
        ]

    def preamble(self, under_test: Part | None = None) -> list[tuple[int, int, int, int, int]]:
        """(space, address, bytes, 1, value) of the writes that place ranges, and of a part's own set-up."""
        out: list[tuple[int, int, int, int, int]] = []
        for s in self.raw.get("setup", []):
            if under_test is not None and under_test.type in s["part"]:
                out += [(Space.PIO, port, size, 1, value) for port, size, value in s.get("ports", [])]
        for part in self.parts.values():
            if part.number is None or (
                under_test not in (None, part)
                and part not in under_test.above
                and not (under_test.number is not None and any(w.base == self.ecam[0] for w in part.windows))
            ):
                continue
            rows = (
                [(reg, 4, base) for reg, (base, _) in part.bases.items()]
                + [tuple(r) for r in self._setup(part.type)]
                + part.range
                + [(4, 2, 7)]
            )
            for reg, size, value in rows:
                out += [
                    (Space.PIO, LATCH, 4, 1, 1 << 31 | part.number << 8 | reg & 0xFC),
                    (Space.PIO, DATA + (reg & 3), size, 1, value),
                ]
        return out

    def late(self, program: Array) -> Array:
        """For each record whether the reference may put off what it does: an access to a register of [[deferred]]."""
        out: Array = program["space"] == RESET
        at = program["addr"] | program["space"].astype(np.uint64) << np.uint64(SPACE_SHIFT)
        writes, reads = list(self.deferred), [k for k, d in self.deferred.items() if d.reads]
        for n in range(8) if writes else ():
            inside = (program["space"] <= Space.MMIO) & (program["size"] > n)
            out |= inside & (program["dir"] == 1) & np.isin(at + np.uint64(n), writes)
            if reads:
                out |= inside & np.isin(at + np.uint64(n), reads)
        if self.bursts and len(out):
            out[:-1] &= (at[1:] != at[:-1]) | (program["dir"][:-1] == 1) | (program["dir"][1:] == 1)
        return out

    def select(self, names: Sequence[str]) -> list[Part]:
        """Parts under test by device id or type; all of them for no names."""
        tested = [p for p in self.parts.values() if p.type in TESTED.get(self.name, (p.type,))]
        return [p for p in tested if not names or p.id in names or p.type in names]


def board_of(name: str, args: list[str]) -> Board:
    """One of BOARDS, or the machine of another QEMU command line."""
    if name in BOARDS:
        return Board(name)
    return Board(name, machine=(from_qemu(args).spec(name), args))


class Filter:
    """Follows a program and says which records may not be made; `count` adds to the entries' counters."""

    def __init__(self, board: Board, count: bool = False) -> None:
        self.board, self.count = board, count
        self.latch = 0
        self.index: dict[int, int] = {}
        self.last: dict[int, int] = {}  # id of an entry -> last value of its `after` register
        self.watched = {at for at, _ in board.index_ports.values()}
        self.touched: list[tuple[str, Entry, int, int | None]] = []

    def reaches(self, space: int, addr: int, size: int) -> Iterable[tuple[int, int]]:
        """What each byte of an access reaches: a space and an address, behind a window that of configuration space."""
        if (space, addr) in self.board.single:  # a range of one byte takes every byte of a wide access
            for _ in range(size):
                yield space, addr
        elif space == Space.PIO and addr < DATA + 4 and addr + size > DATA and self.latch >> 31:
            base = (self.latch >> 8 & 0xFFFF) << 32 | self.latch & 0xFC
            for n in range(size):
                if DATA <= addr + n < DATA + 4:
                    yield Space.CONFIG, base + (addr + n - DATA | self.latch & 3)
                else:
                    yield space, addr + n
        elif space == Space.MMIO and self.board.ecam[0] <= addr < sum(self.board.ecam):
            for n in range(size):
                at = addr + n - self.board.ecam[0]
                yield Space.CONFIG, at >> 12 << 32 | at & 0xFFF
        else:
            fold = next((f for f in self.board.folds if f[0] == space and f[1] < addr + size and addr < f[2]), None)
            for n in range(size):
                at = addr + n
                yield space, at if fold is None or not fold[1] <= at < fold[2] else fold[1] + (at - fold[1]) % fold[3]

    def allow(self, space: int, addr: int, size: int, write: int, value: int) -> bool:
        """May this record be made after those allowed before?"""
        if space == RESET:
            kept = [e for e in self.board.excluded if e.raw.get("reset") and self.holds_after(e)]
            for e in kept:
                e.count += self.count
            if kept:
                return False
            self.latch = 0
            self.index.clear()
            self.last.clear()
        if space > Space.MMIO:
            return True
        b = self.board
        value &= (1 << 8 * size) - 1
        if space == Space.PIO and CONTROL - 8 < addr < CONTROL + CONTROL_BYTES:
            return False
        self.touched = []
        found: dict[
            tuple[int, str, int], list[int]
        ] = {}  # entry, its use, where the register begins in the access -> value, bytes that are there
        entries: dict[int, Entry] = {}
        for n, key in enumerate(self.reaches(space, addr, size)):
            byte = value >> 8 * n & 0xFF
            if (
                write
                and key[0] == Space.CONFIG
                and key[1] in b.base_bytes
                and not self._own(key[1], space, addr, size, value)
            ):
                if self.count:
                    b.moved.count += 1
                return False
            for rule in b.rules.get(key, ()):
                kind, e, at, index = rule
                if index is not None and self.index.get(b.index_ports[key][0]) != index:
                    continue
                self.touched.append(rule)
                entries[id(e)] = e
                has = found.setdefault((id(e), kind, n - at), [0, 0])
                has[0] |= byte << 8 * at
                has[1] |= 0xFF << 8 * at
        if not write:
            return True
        for (which, kind, _), (v, present) in found.items():
            e = entries[which]
            if kind == "excluded" and _holds(e.raw, v, present) and self.holds_after(e):
                if self.count:
                    e.count += 1
                return False
        for (which, kind, _), (v, present) in found.items():
            after = entries[which].raw.get("after", {})
            among = after.get("among")
            if kind == "after" and after["bits"] & ~present == 0 and (among is None or v in among):
                self.last[which] = v
            elif kind == "excluded" and among is not None and not after.get("stays"):
                self.last.pop(which, None)  # this is the write that the other one waited for
        if space == Space.PIO and addr == LATCH and size == 4:
            self.latch = value
        for n in range(size):
            if addr + n in self.watched:
                self.index[addr + n] = value >> 8 * n & (0xFFFF if n + 2 <= size and size < 4 else 0xFF)
        return True

    def holds_after(self, e: Entry) -> bool:
        """Does the register that the entry depends on have the value it needs?"""
        after = e.raw.get("after")
        if after is None:
            return True
        among = after["value"] if isinstance(after["value"], list) else [after["value"]]
        return self.last.get(id(e), 0) & after["bits"] in among

    def _own(self, key: int, space: int, addr: int, size: int, value: int) -> bool:
        """Is this a write of a whole base address register with the part's own address, or one that tells its size?"""
        part, reg = self.board.base_bytes[key]
        if size != 4 or addr & 3 or (space == Space.PIO and self.latch & 3):
            return False
        if value == 0xFFFFFFFF and reg >= 0x10 and reg < 0x34:
            return True
        allowed = (
            {v for v, _ in [part.bases.get(reg, (0, 0))]}
            | {0}
            | {r[2] for r in self.board._setup(part.type) if r[0] == reg}
        )
        return value in allowed


def refused(board: Board, program: Array) -> Array:
    """The times of the records that a program at random may not make."""
    f = Filter(board)
    rows = program[["space", "addr", "size", "dir", "value"]].tolist()
    out: Array = program["t_ns"][np.array([not f.allow(*r) for r in rows], bool)]
    return out
