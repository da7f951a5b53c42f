"""A machine spec -> a plan: ranks, regions, wires, units and their order; every conflict is refused here, by name.

Nothing is started and no worker is needed to make a plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from engine._device import Arena, Device, Dma, PyDevice
from engine.errors import MachineError, blame
from engine.machine.spec import DeviceSpec, MachineSpec
from engine.registry import device_class
from engine.types import Region, Space

LINE, MESSAGE = 0, 1
CONFIG_REGION = 7  # PciFunction's CONFIG region
PIO_END, MMIO_END = 1 << 16, 1 << 52


@dataclass(slots=True)
class PlannedDevice:
    """One device of the plan; `rank` is its place in the board's order and its name in records and effects."""

    rank: int
    spec: DeviceSpec
    cls: type[Device]
    regions: tuple[Region, ...]
    unit: int = 0
    levels: int = 0  # of its output pins at power-on, bit n = pin n

    @property
    def id(self) -> str:
        """The machine file's id."""
        return self.spec.id

    @property
    def python(self) -> bool:
        """Whether its class is written in Python."""
        return issubclass(self.cls, PyDevice)


@dataclass(frozen=True, slots=True)
class Placed:
    """A region at an address from the start (BARs come later, from the guest)."""

    region: int
    rank: int
    index: int
    space: Space
    base: int
    size: int


@dataclass(slots=True)
class Net:
    """One wire: its level is the OR of its sources'.

    The router delivers to `sinks`, the source's executor to `inner`.
    """

    name: str
    sources: list[tuple[int, int]] = field(default_factory=list)  # (rank, output pin)
    sinks: list[tuple[int, int]] = field(default_factory=list)  # (rank, input pin), in other units than the sources
    inner: list[tuple[int, int]] = field(default_factory=list)  # (rank, input pin), in the one source's unit
    level: int = 0  # place in the order of units: after every source's unit
    line: int = -1  # number of the observed line, or -1


@dataclass(slots=True)
class Plan:
    """Everything a router and its workers need to be made."""

    spec: MachineSpec
    devices: list[PlannedDevice]
    units: list[list[int]]
    unit_names: list[str]
    unit_level: list[int]
    nets: list[Net]
    placed: list[Placed]
    vcpu_regions: dict[int, dict[int, int]]  # region of vCPU 0 -> {vcpu: region}
    message_sinks: list[int]
    observed: list[str]

    def rank(self, id: str) -> int:
        """Rank of a device id; KeyError if there is none."""
        for d in self.devices:
            if d.id == id:
                return d.rank
        raise KeyError(id)

    def inner_wires(self) -> list[tuple[int, int, int, int, int]]:
        """Wires the executor follows itself: (source rank, kind, pin, sink rank, sink pin)."""
        out = [(s, LINE, pin, k, kp) for n in self.nets for s, pin in n.sources for k, kp in n.inner]
        for unit in self.units:
            sinks = [r for r in unit if r in self.message_sinks]
            out += [(r, MESSAGE, 0, k, 0) for r in unit for k in sinks if len(unit) > 1]
        return out


def make_device(
    cls: type[Device], rank: int, spec: DeviceSpec, arena: Arena | None = None, dma: Dma | None = None
) -> Device:
    """A device from its spec.  Raises MachineError naming the machine file's line."""
    try:
        with blame(f"device {spec.id!r}: a setting cannot be used"):
            return cls(spec.id, rank, arena, dma, **spec.config)
    except MachineError as e:
        raise MachineError(f"{spec.source}: {e}" if spec.source else str(e)) from None


def connect(spec: MachineSpec, devices: Mapping[str, Device]) -> None:
    """Give each device its peers.  Raises MachineError for one that it does not know."""
    for d in spec.devices:
        if d.id not in devices:
            continue
        for name, other in d.peers.items():
            try:
                devices[d.id].connect(name, devices[other])
            except MachineError as e:
                raise MachineError(f"{d.source}: {e}" if d.source else str(e)) from None
        if d.bus and d.bdf is not None:
            devices[d.bus].connect(f"{d.bdf.device:02x}.{d.bdf.function}", devices[d.id])
            devices[d.id].stands_behind(devices[d.bus], dict(d.at))  # type: ignore[attr-defined]


def bus_path(spec: MachineSpec, d: DeviceSpec) -> list[DeviceSpec]:
    """The bridges above a function, the nearest first.  Raises MachineError for one that is none, and for a circle."""
    by_id = {other.id: other for other in spec.devices}
    out: list[DeviceSpec] = []
    at = d
    while at.bus:
        if at.bus not in by_id or not hasattr(device_class(by_id[at.bus].type), "secondary_bus"):
            raise MachineError(f"{at.source}: device {at.id!r}: bus = {at.bus!r} is no bridge of this machine")
        if at.bdf is None or at.bdf.bus:
            raise MachineError(
                f"{at.source}: device {at.id!r} is behind {at.bus!r}: give its number there as bdf, with bus 00"
            )
        at = by_id[at.bus]
        if at in out or at is d:
            raise MachineError(f"{at.source}: device {at.id!r} is behind itself")
        out.append(at)
    return out


def unit_name(spec: MachineSpec, d: DeviceSpec) -> str:
    """The unit a device belongs to: its own, or that of the outermost bridge above it."""
    top = (bus_path(spec, d) or [d])[-1]
    if d.unit and d.unit != top.unit:
        raise MachineError(f"{d.source}: device {d.id!r} is behind {top.id!r}, so both must stand in one `unit`")
    return top.unit or f"\0{top.id}"


def _pins(spec: DeviceSpec, pins: Mapping[str, str], names: Sequence[str], what: str) -> Iterable[tuple[int, str]]:
    for pin, net in pins.items():
        if pin not in names:
            raise MachineError(
                f"{spec.source}: device {spec.id!r} ({spec.type}) has no {what} pin {pin!r}; it has "
                f"{', '.join(names) or 'none'}"
            )
        yield list(names).index(pin), net


def _order(units: list[list[int]], names: list[str], nets: list[Net], unit_of: Mapping[int, int]) -> list[int]:
    """Level of each unit: 0 without upstream, else one more than the highest upstream.

    Raises MachineError on a cycle.
    """
    up: list[set[int]] = [set() for _ in units]
    for n in nets:
        for s, _ in n.sources:
            for k, _ in n.sinks:
                if unit_of[s] != unit_of[k]:
                    up[unit_of[k]].add(unit_of[s])
    level = [-1] * len(units)
    while -1 in level:
        ready = [u for u in range(len(units)) if level[u] < 0 and all(level[v] >= 0 for v in up[u])]
        if not ready:
            left = [names[u] for u in range(len(units)) if level[u] < 0]
            raise MachineError(f"wires run in a circle through {', '.join(left)}; give these devices one `unit`")
        for u in ready:
            level[u] = 1 + max((level[v] for v in up[u]), default=-1)
    return level


def plan(spec: MachineSpec, probes: dict[str, Device] | None = None) -> Plan:
    """Check the whole spec and lay it out.

    `probes` collects the device objects made on the way (state at power-on).
    """
    devices: list[PlannedDevice] = []
    made: dict[str, Device] = {} if probes is None else probes
    for rank, d in enumerate(spec.devices):
        try:
            cls = device_class(d.type)
        except MachineError as e:
            raise MachineError(f"{d.source}: device {d.id!r}: {e}") from None
        dev = make_device(cls, rank, d)
        made[d.id] = dev
        devices.append(PlannedDevice(rank, d, cls, tuple(dev.regions()), levels=int(dev.save()["levels"])))
    rank_of = {p.id: p.rank for p in devices}

    groups: dict[str, list[int]] = {}
    for p in devices:
        groups.setdefault(unit_name(spec, p.spec), []).append(p.rank)
    units = list(groups.values())
    unit_names = [name.lstrip("\0") for name in groups]
    unit_of = {r: u for u, ranks in enumerate(units) for r in ranks}
    for p in devices:
        p.unit = unit_of[p.rank]
        for name, other in p.spec.peers.items():
            if other not in rank_of:
                raise MachineError(
                    f"{p.spec.source}: device {p.id!r}: peer {name} = {other!r} is no device of this machine"
                )
            if unit_of[rank_of[other]] != p.unit:
                raise MachineError(
                    f"{p.spec.source}: device {p.id!r} pulls from its peer {other!r}, so both must stand in one `unit`"
                )

    nets = _nets(spec, devices, unit_of)
    sinks = [p.rank for p in devices if p.cls.MESSAGE_SINK]
    heard = [Net("messages", [(p.rank, 0) for p in devices if p.cls.MESSAGE_SOURCE], [(r, 0) for r in sinks])]
    levels = _order(units, unit_names, nets + heard, unit_of)
    for n in nets:
        n.level = 1 + max((levels[unit_of[s]] for s, _ in n.sources), default=-1)
    placed, vcpu_regions = _place(devices, made)
    observed = list(spec.board.observe)
    by_name = {n.name: n for n in nets}
    for number, name in enumerate(observed):
        if name not in by_name:
            by_name[name] = Net(name)
            nets.append(by_name[name])
        by_name[name].line = number
    return Plan(spec, devices, units, unit_names, levels, nets, placed, vcpu_regions, sinks, observed)


def _nets(spec: MachineSpec, devices: list[PlannedDevice], unit_of: Mapping[int, int]) -> list[Net]:
    nets: dict[str, Net] = {}
    for p in devices:
        for pin, name in _pins(p.spec, p.spec.lines, p.cls.OUT, "output"):
            nets.setdefault(name, Net(name)).sources.append((p.rank, pin))
    for p in devices:
        for pin, name in _pins(p.spec, p.spec.inputs, p.cls.IN, "input"):
            if name not in nets and name not in spec.board.external:
                pin_name = p.cls.IN[pin]
                raise MachineError(
                    f"{p.spec.source}: device {p.id!r}: nothing drives wire {name!r} at input {pin_name!r}; name a "
                    f"line of another device {name!r}, or list it in [board] external"
                )
            nets.setdefault(name, Net(name)).sinks.append((p.rank, pin))
    for n in nets.values():
        inside = [(r, pin) for r, pin in n.sinks if any(unit_of[r] == unit_of[s] for s, _ in n.sources)]
        if inside and len(n.sources) > 1:
            names = ", ".join(devices[r].id for r, _ in n.sources)
            raise MachineError(
                f"{spec.path or 'machine'}: wire {n.name!r} is driven by {names} and read within one of their units; "
                f"give it one driver"
            )
        n.inner = inside
        n.sinks = [e for e in n.sinks if e not in inside]
    return list(nets.values())


def _place(devices: list[PlannedDevice], made: Mapping[str, Device]) -> tuple[list[Placed], dict[int, dict[int, int]]]:
    placed: list[Placed] = []
    vcpu_regions: dict[int, dict[int, int]] = {}
    shared: dict[tuple[Space, int], int] = {}
    slots: dict[tuple[str, int], DeviceSpec] = {}
    for p in devices:
        by_name = {r.name: i for i, r in enumerate(p.regions) if r.size}
        bases: dict[int, int] = {}
        for name, base in p.spec.at.items():
            if name not in by_name:
                raise MachineError(
                    f"{p.spec.source}: device {p.id!r} ({p.spec.type}) has no region {name!r}; it has "
                    f"{', '.join(by_name) or 'none'}"
                )
            bases[by_name[name]] = base
        if p.spec.bdf is not None:
            if len(p.regions) <= CONFIG_REGION or p.regions[CONFIG_REGION].space != Space.CONFIG:
                raise MachineError(
                    f"{p.spec.source}: device {p.id!r} ({p.spec.type}) is no PCI function, but has bdf = {p.spec.bdf}"
                )
            other = slots.setdefault((p.spec.bus, p.spec.bdf.number), p.spec)
            if other is not p.spec:
                behind = f" behind {p.spec.bus!r}" if p.spec.bus else ""
                raise MachineError(
                    f"{p.spec.source}: devices {other.id!r} and {p.id!r} both have bdf {p.spec.bdf}{behind}"
                )
            if p.spec.bus:
                bases.clear()  # where they are is the bridges' to say, and those start without bus numbers and windows
            else:
                bases[CONFIG_REGION] = p.spec.bdf.number << 32
        for index, on, base in getattr(made[p.id], "mappings", tuple)():
            if on and p.regions[index].size:
                bases.setdefault(index, base)  # what the part maps by itself at power-on
        for index, base in sorted(bases.items()):
            r = p.regions[index]
            end = PIO_END if r.space == Space.PIO else MMIO_END if r.space == Space.MMIO else 1 << 64
            if not 0 <= base <= end - r.size:
                raise MachineError(
                    f"{p.spec.source}: device {p.id!r}: region {r.name!r} of {r.size:#x} bytes at {base:#x} leaves the "
                    f"{Space(r.space).name} space, which ends at {end:#x}"
                )
            region = len(placed)
            if p.spec.vcpu is not None and (r.space, base) in shared:
                vcpu_regions[shared[r.space, base]][p.spec.vcpu] = region
                placed.append(Placed(region, p.rank, index, Space(r.space), base, 0))
                continue
            if p.spec.vcpu is not None:
                shared[r.space, base] = region
                vcpu_regions[region] = {p.spec.vcpu: region}
            placed.append(Placed(region, p.rank, index, Space(r.space), base, r.size))
    _overlaps(devices, placed)
    return placed, vcpu_regions


def _overlaps(devices: list[PlannedDevice], placed: list[Placed]) -> None:
    def layer(q: Placed) -> int:  # a range of negative priority lies behind what others place
        return min(0, devices[q.rank].regions[q.index].priority)

    ordered = sorted((q for q in placed if q.size), key=lambda q: (q.space, layer(q), q.base))
    for a, b in pairwise(ordered):
        if a.space == b.space and layer(a) == layer(b) and b.base < a.base + a.size:
            da, db = devices[a.rank], devices[b.rank]
            raise MachineError(
                f"{db.spec.source}: device {db.id!r} region {db.regions[b.index].name!r} "
                f"at {b.base:#x}-{b.base + b.size - 1:#x} overlaps "
                f"device {da.id!r} region {da.regions[a.index].name!r} "
                f"at {a.base:#x}-{a.base + a.size - 1:#x} ({da.spec.source}); move or remove one"
            )
