"""Machine: a board with its devices, in this process or spread over workers.

    with engine.Machine.from_file("i440fx", workers=3) as pc:
        values = pc.submit(batch)

Importing starts nothing; start() or the `with` block does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from engine._abi import ACC
from engine._device import Arena, Device, Dma
from engine._executor import Executor
from engine._shm import Segment
from engine.errors import EngineError, StateError, UsageError
from engine.machine._single import NOT_RUNNING, SPACES, SingleAccess
from engine.machine.build import Plan, connect, make_device, plan
from engine.machine.derive import derive
from engine.machine.net import close_all, open_all
from engine.machine.spec import MachineSpec, check_workers, load
from engine.machine.state import (
    FORMAT,
    has_media,
    in_arena,
    restore_device,
    restore_ram,
    save_device,
    save_ram,
    save_rest,
)
from engine.screen import Picture
from engine.sequencer import INPUT, RAM, STAMPS, Sequencer, vet
from engine.types import Space
from engine.workers import placement

if TYPE_CHECKING:
    from engine.workers.pool import Pool

PATHS = ("local", "sync", "buffered", "batched")
ARENA_SIZE = 4 << 20  # bytes for the state of the devices of one owner
MOST = 1 << 24  # accesses of one read_string
TIME_END = 1 << 63  # ns; later deadlines cannot be told from none


def build_devices(
    planned: Plan,
    ranks: list[int],
    ram: Any = None,
    contents: Mapping[str, Any] | None = None,
    descriptors: dict[str, int] | None = None,
    arena: Arena | None = None,
) -> tuple[dict[str, Device], Arena]:
    """The devices of some ranks, wired to their peers, in one arena (a new one unless given), over guest RAM.

    descriptors: what engine.machine.net opened for them; those attached are taken out.
    """
    arena = arena if arena is not None else Arena(ARENA_SIZE)
    made: dict[str, Device] = {}
    for p in planned.devices:
        if p.rank not in ranks:
            continue
        dma = Dma(ram, planned.spec.board.low_ram)
        made[p.id] = make_device(p.cls, p.rank, p.spec, arena, dma)
        if contents and p.id in contents:
            made[p.id].set_contents(contents[p.id])  # type: ignore[attr-defined]
        if descriptors and p.id in descriptors:
            made[p.id].attach(descriptors.pop(p.id))  # type: ignore[attr-defined]
    connect(planned.spec, made)
    for d in made.values():
        if hasattr(d, "open_backend"):  # what only a device that runs has: a socket's other end, an image's lock
            d.open_backend()
    return made, arena


def _count(n: Any) -> int:
    """A number of accesses.  Raises UsageError."""
    if not isinstance(n, (int, np.integer)) or not 0 <= n <= MOST:
        raise UsageError(f"read_string: {n!r} accesses; give a number of 0 to {MOST}")
    return int(n)


class Clock:
    """The machine's virtual clock; it moves only when told, or by the times of the accesses."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def now(self) -> int:
        """Virtual time in ns."""
        self._machine._running()
        return self._machine.sequencer.clock

    def step(self, ns: int) -> None:
        """Move time forward by ns; everything due happens."""
        if not 0 <= ns < TIME_END - self.now:
            raise UsageError(f"clock.step({ns}): time does not go back, and ends after 2^63 ns, in 292 years")
        self._machine._alone(self._machine.sequencer.settle, self.now + ns)

    def next(self) -> int | None:
        """When a device wants the clock next, in ns of virtual time; None if none does."""
        self._machine._running()
        when: int | None = self._machine._alone(self._machine.sequencer.next_event)
        return when


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What Machine.snapshot gave: for this process and build, the same spec and the same placement."""

    spec: MachineSpec
    owners: list[int]
    router: tuple[Any, ...]
    arenas: list[bytes]
    rest: dict[str, Any]  # of the devices that keep something outside the arenas
    ram: dict[int, bytes] | None  # None: without RAM, memory and media


class Machine(SingleAccess):
    """A machine; make it with from_file or from_spec.  One thread uses it; the child of a fork does not.

    path: how accesses are carried (local, sync, buffered, batched); local without workers, else batched unless given.
    owners: the worker of each unit, from 0.
    contents: device id -> what set_contents of that device takes.
    stamps: what is timed of an access; see the property.
    """

    def __init__(
        self,
        spec: MachineSpec,
        *,
        workers: int | None = None,
        owners: list[int] | None = None,
        path: str | None = None,
        contents: Mapping[str, Any] | None = None,
        stamps: str = "ends",
    ) -> None:
        self.spec = derive(spec)
        self.plan = plan(self.spec)
        n = spec.placement.workers if workers is None else workers
        self.path = path or ("batched" if n else "local")
        if self.path not in PATHS:
            raise UsageError(f"path {self.path!r}: choose one of {', '.join(PATHS)}")
        self.workers = 0 if self.path == "local" else check_workers(n, spec.path or "machine")
        self.contents = dict(contents or {})
        for id in self.contents:
            if not hasattr(self.plan.devices[self._rank(id)].cls, "set_contents"):
                raise UsageError(f"device {id!r} takes no contents")
        self.owners: list[int] = []
        if self.workers:
            if owners is not None:
                if len(owners) != len(self.plan.units) or not all(0 <= w < self.workers for w in owners):
                    raise UsageError(
                        f"owners = {owners!r:.80}: give the worker, from 0 to {self.workers - 1}, of each of the "
                        f"{len(self.plan.units)} units"
                    )
                self.owners = owners
            elif workers is None or workers == spec.placement.workers:
                self.owners = placement.from_spec(self.plan, spec.placement)
            else:
                self.owners = placement.spread(self.plan, self.workers)
        if stamps not in STAMPS:
            raise UsageError(f"stamps {stamps!r}: choose one of {', '.join(STAMPS)}")
        self._stamps = stamps
        value = {d.id for d in self.plan.devices if not in_arena(d.cls)}
        self._outside = (value, value | {d.id for d in self.plan.devices if has_media(d.cls)})  # of a snapshot's arenas
        self._started = self._starting = False
        self.clock = Clock(self)

    @classmethod
    def from_file(cls, source: str | Path, **options: Any) -> Machine:
        """A machine from a TOML file or a shipped board's name.  Raises MachineError."""
        return cls(load(source), **options)

    @classmethod
    def from_spec(cls, spec: MachineSpec, **options: Any) -> Machine:
        """A machine from a spec in memory."""
        return cls(spec, **options)

    # ------------------------------------------------------------------ life

    def start(self) -> Machine:
        """Make RAM, devices and workers.  On failure, or when stop() comes in between, nothing is left running."""
        if self._started or self._starting:
            raise EngineError("the machine is running already")
        self._starting = True
        self.pool: Pool | None = None
        self.devices: dict[str, Device] = {}
        descriptors: dict[str, int] = {}
        try:
            descriptors |= open_all(self.spec.devices)
            self.ram = Segment.create("guest-ram", self.spec.board.ram)
            if self.workers:
                from engine.workers.pool import Pool

                place = self.spec.placement
                self.pool = Pool(
                    self.plan, self.owners, self.ram, self.contents, place.wait, place.pin, descriptors=descriptors
                )
                self.pool.start()
                self.arenas = self.pool.arenas
                self.sequencer = Sequencer(
                    self.plan,
                    memoryview(self.ram),
                    None,
                    self.pool.links,
                    self.owners,
                    place.wait,
                    self.pool.crowded,
                    self.pool.check,
                    self.pool.states,
                )
            else:
                self.devices, arena = build_devices(
                    self.plan, list(range(len(self.plan.devices))), self.ram, self.contents, descriptors
                )
                self.arenas = [arena]
                self.executor = Executor(self.devices.values(), self.plan.units, self.plan.inner_wires())
                self.sequencer = Sequencer(self.plan, memoryview(self.ram), self.executor)
            self._attach(self.sequencer)
            self._started = True
            _running_here.add(self)
            self.stamps = self._stamps
        except BaseException:
            self._release()
            raise
        finally:
            close_all(descriptors)  # of workers, which have copies
            self._starting = False
        return self

    def stop(self) -> None:
        """End the workers and free what was shared.  At any moment, and twice."""
        self._release()

    def _forget(self) -> None:
        """Refuse all accesses from now on."""
        self._started = False
        self._attach(None)

    def _release(self) -> None:
        self._forget()
        pool, self.pool = getattr(self, "pool", None), None
        if pool is not None:
            pool.stop()
        for d in getattr(self, "devices", {}).values():
            if hasattr(d, "detach"):
                d.detach()
        self.devices = {}  # these, and what follows, hold descriptors and memory
        for name in ("sequencer", "executor", "arenas", "ram"):
            self.__dict__.pop(name, None)

    def _rank(self, id: str) -> int:
        try:
            return self.plan.rank(id)
        except KeyError:
            raise UsageError(
                f"no device {id!r} in this machine; it has {', '.join(d.id for d in self.plan.devices)}"
            ) from None

    def _running(self) -> None:
        if not self._started:
            raise EngineError(NOT_RUNNING)

    def __enter__(self) -> Machine:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def reset(self, cold: bool = False) -> None:
        """Pull the board's reset line: every device as after a bus reset.  cold: as after switching on.

        RAM and the clock stay as they are.
        """
        self._running()
        self._alone(self.sequencer.reset, cold)

    @property
    def stamps(self) -> str:
        """What is timed of an access, from now on; Sequencer.histogram has the times.

        "none"; "ends": when it was produced and when its answer was seen; "all": with workers also when it was taken
        and when it was done.
        """
        return self._stamps

    @stamps.setter
    def stamps(self, which: str) -> None:
        self._settle()
        changes = (which == "all") != (self.sequencer.stamps == "all")
        self.sequencer.stamps = which
        if self.pool is not None and changes:
            for w in self.pool.workers:
                self.pool.command(w.number, "stamp", which == "all")
        self._stamps = which

    def call(self, device: str, method: str, *args: Any) -> Any:
        """A method of a device between two accesses, wherever the device is (to swap a disk, to see its output)."""
        self._settle()
        self._rank(device)
        if self.pool is not None:
            return self.pool.call(device, method, *args)
        got = getattr(self.devices[device], method)(*args)
        self.executor.refresh()
        return got

    def screen(self, device: str = "", *, cursor: bool = True, blink: bool | None = None) -> Picture:
        """What a monitor on the machine's display adapter shows now; cursor and blink as for engine.screen.draw.

        device: the adapter's id, if there is more than one.  Raises UsageError if there is none of that name.
        """
        adapters = [p.id for p in self.plan.devices if hasattr(p.cls, "picture") and device in ("", p.id)]
        if not adapters:
            raise UsageError(f"{device!r} is no display adapter" if device else "the machine has no display adapter")
        return Picture(*self.call(adapters[0], "picture", cursor, blink))

    def inspect(self) -> dict[str, dict[str, Any]]:
        """Device id -> its fields and the levels of its output pins, for people and logs."""
        return {d.id: self.call(d.id, "inspect") for d in self.plan.devices}

    # ------------------------------------------------------------------ state

    def _settle(self) -> None:
        """Nothing is on the way, and everything due has happened."""
        self._running()
        self._alone(self.sequencer.settle, self.clock.now)

    def save(self) -> dict[str, Any]:
        """The whole machine as plain values: every device with its memory and media, guest RAM, clock, mappings.

        It does not depend on the placement: load() takes it on any other, and in another build that has the same parts.
        """
        self._settle()
        router = self._alone(self.sequencer.state)
        devices = self.plan.devices
        router["mapped"] = [(devices[rank].id, index, base) for rank, index, base in router["mapped"]]
        if self.pool is not None:
            out = self._ask("save", {d.id for d in devices})
        else:
            out = {id: save_device(d) for id, d in self.devices.items()}
        return {
            "format": FORMAT,
            "board": self.spec.board.name,
            "router": router,
            "ram": save_ram(self.ram),
            "devices": {d.id: {"type": d.spec.type, **out[d.id]} for d in devices},
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Put back what save() gave.

        Raises StateError, and changes nothing, if it is for another machine or not a state at all.
        """
        self._settle()
        if not isinstance(saved, Mapping) or saved.get("format") != FORMAT:
            raise StateError(f"not the state of a machine in format {FORMAT}")
        theirs = saved.get("devices")
        if not isinstance(theirs, Mapping) or not all(isinstance(d, Mapping) for d in theirs.values()):
            raise StateError("not the state of a machine: its devices are missing or none")
        mine = {d.id: d.spec.type for d in self.plan.devices}
        odd = sorted(str(id) for id in {*mine, *theirs} if id not in mine or theirs.get(id, {}).get("type") != mine[id])
        if odd:
            raise StateError(
                f"the state is of another machine ({saved.get('board')!r:.40}): "
                f"its devices differ at {', '.join(odd)[:200]!r}"
            )
        before = self.save()
        try:
            self._load(saved)
        except (StateError, LookupError, TypeError, ValueError, OverflowError, AttributeError) as e:
            self._load(before)
            if isinstance(e, StateError):
                raise
            raise StateError(f"not the state of a machine ({type(e).__name__}: {str(e)[:100]!r})") from None

    def _load(self, saved: Mapping[str, Any]) -> None:
        devices, router = saved["devices"], dict(saved["router"])
        router["mapped"] = [self._region(*row) for row in router["mapped"]]
        for name, bits in (("now", 63), ("latch", 32)):
            if not (isinstance(router[name], int) and 0 <= router[name] < 1 << bits):
                raise StateError(f"{name} = {router[name]!r:.40} is no number of {bits} bits")
        for id in devices:
            state = devices[id]["state"]
            if not state["now"] <= router["now"] < state["deadline"]:
                raise StateError(
                    f"{id}: now {state['now']!r:.40} and deadline {state['deadline']!r:.40} "
                    f"do not lie around the clock, {router['now']}"
                )
        restore_ram(self.ram, saved["ram"])
        self._restore_devices({d.id: devices[d.id] for d in self.plan.devices})
        self._alone(self.sequencer.set_state, router, [devices[d.id]["state"]["levels"] for d in self.plan.devices])

    def _ask(self, command: str, ids: set[str], *args: Any) -> dict[str, Any]:
        """A command to the owners of some devices, about them; what all of them answered."""
        assert self.pool is not None
        out: dict[str, Any] = {}
        for w in self.pool.workers:
            if mine := [id for id in w.devices if id in ids]:
                out |= self.pool.command(w.number, command, mine, *args)
        return out

    def _restore_devices(self, states: dict[str, Any]) -> None:
        """Put back what save_device or save_rest gave of some devices."""
        if self.pool is not None:
            for w in self.pool.workers:
                if mine := {id: states[id] for id in w.devices if id in states}:
                    self.pool.command(w.number, "restore", mine)
        else:
            for id, state in states.items():
                restore_device(self.devices[id], state)

    def _region(self, id: str, index: int, base: int) -> tuple[int, int, int]:
        """A mapping of a saved state, checked."""
        try:
            rank = self.plan.rank(id)
            region = dict(enumerate(self.plan.devices[rank].regions))[index]
        except KeyError:
            raise StateError(
                f"the state maps region {index!r:.40} of {id!r:.40}, which this machine does not have"
            ) from None
        end = {Space.PIO: 1 << 16, Space.MMIO: 1 << 52}.get(region.space, 1 << 64)
        if not isinstance(base, int) or not 0 < region.size <= end - base or base < 0:
            raise StateError(f"the state maps region {region.name!r} of {id!r} at {base!r:.40}, where it cannot be")
        return rank, index, base

    def snapshot(self, ram: bool = True) -> Snapshot:
        """The machine at this moment, for restore() in this process: fast, for the same build and placement only.

        The devices' state is copied where it lies, without asking their owners; only of devices written in Python it is
        asked for.  ram: also guest RAM, video memory and media; without, restore() leaves them as they then are, and a
        snapshot takes microseconds.
        """
        self._settle()
        rest: dict[str, Any] = {}
        if ids := self._outside[ram]:
            if self.pool is not None:
                rest = self._ask("save_rest", ids, ram)
            else:
                rest = {id: save_rest(self.devices[id], ram) for id in ids}
        return Snapshot(
            self.spec,
            self.owners,
            self._alone(self.sequencer.snapshot),
            [arena.copy() for arena in self.arenas],
            rest,
            save_ram(self.ram) if ram else None,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Put back what snapshot() gave, as often as wanted.  Raises StateError if it is of another machine."""
        self._settle()
        if (snapshot.spec, snapshot.owners) != (self.spec, self.owners):
            raise StateError("the snapshot is of another machine or placement; use save() and load()")
        if snapshot.rest:
            self._restore_devices(snapshot.rest)
        if snapshot.ram is not None:
            restore_ram(self.ram, snapshot.ram)
        for arena, state in zip(self.arenas, snapshot.arenas, strict=True):
            arena.restore(state)
        self._alone(self.sequencer.restore, snapshot.router)

    # ------------------------------------------------------------------ accesses

    def run(
        self, acc: npt.NDArray[Any], inputs: npt.NDArray[Any] | None = None, ram_bytes: Any = None
    ) -> tuple[Any, Any, Any]:
        """A batch with the inputs between its accesses; see Sequencer.run.

        Times are raised so that they never decrease.
        """
        self._running()
        check_records(acc, ACC, "a batch needs records of engine.ACC (32 bytes)")
        now = self.clock.now
        if inputs is not None and not len(inputs):
            inputs = None
        if inputs is not None:
            check_inputs(inputs, len(acc))
        bad, ordered = vet(acc, inputs, now)
        if bad >= 0:
            raise impossible(acc, bad)
        if not ordered and inputs is not None:
            acc, inputs = in_order(acc, inputs, now)
        elif not ordered:
            acc = acc.copy()
            acc["t_ns"] = np.maximum(np.maximum.accumulate(acc["t_ns"]), np.uint64(now))
        return self._alone(self.sequencer.run, acc, inputs, self.path, ram_bytes)

    def submit(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """Execute a batch of ACC records in order; the values read (for writes: written).

        Raises UsageError for a wrong dtype or an impossible record, before anything is executed.
        """
        return self.run(batch)[0]  # type: ignore[no-any-return]

    def read_string(self, space: Space | int | str, addr: int, size: int, count: int) -> npt.NDArray[Any]:
        """What `rep ins` reads: one address `count` times, now.  An array of unsigned integers of `size` bytes."""
        return self._string(space, addr, size, np.zeros(_count(count), np.uint64), False)

    def write_string(self, space: Space | int | str, addr: int, size: int, values: Any) -> None:
        """What `rep outs` writes: each value in turn to one address, now.  values: bytes, or integers."""
        if isinstance(values, (bytes, bytearray, memoryview)):
            if size not in (1, 2, 4, 8) or len(values) % size:
                raise UsageError(f"write_string: {len(values)} bytes are no whole number of accesses of size {size!r}")
            values = np.frombuffer(values, f"<u{size}")
        values = np.asarray(values).reshape(-1)
        if len(values) and (values.dtype.kind not in "iu" or int(values.min()) < 0):
            raise UsageError("write_string: values are bytes, or integers that are not negative and fit 64 bits")
        self._string(space, addr, size, values.astype(np.uint64), True)

    def _string(
        self, space: Space | int | str, addr: int, size: int, values: npt.NDArray[Any], write: bool
    ) -> npt.NDArray[Any]:
        self._running()
        batch = np.zeros(len(values), ACC)
        try:
            batch["space"], batch["addr"], batch["size"] = SPACES[space], addr, size
        except (KeyError, OverflowError, TypeError, ValueError):
            raise UsageError(
                f"a string at {space!r}, {addr!r}, {size!r}: spaces are pio, mmio and config; addresses and sizes are "
                f"numbers that are not negative"
            ) from None
        batch["t_ns"], batch["dir"], batch["value"] = self.clock.now, write, values
        return self.submit(batch).astype(f"<u{size}")

    def input(self, kind: int, target: str, value: int = 0, pin: str | None = None, addr: int = 0) -> int:
        """Something from outside for one device: a key, a line, a message (see engine._device's kinds).  Its answer."""
        rank = self._rank(target)
        pins = self.plan.devices[rank].cls.IN
        if pin is not None and pin not in pins:
            raise UsageError(f"device {target!r} has no input pin {pin!r}; it has {', '.join(pins) or 'none'}")
        number = pins.index(pin) if pin is not None else 0
        one = np.zeros(1, INPUT)
        try:
            one[0] = (self.clock.now, 0, addr, value, kind, rank << 8 | number)
        except (OverflowError, TypeError, ValueError):
            raise UsageError(
                f"input({kind!r}, {target!r}, {value!r}, addr={addr!r}): numbers are not negative and fit 64 bits"
            ) from None
        return int(self.run(np.zeros(0, ACC), one)[2][0])

    def lines(self) -> npt.NDArray[Any]:
        """Observed line changes since the last call, the last two million at least; see Sequencer.take_lines."""
        self._running()
        return self._alone(self.sequencer.take_lines)


def in_order(acc: npt.NDArray[Any], inputs: npt.NDArray[Any], now: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The same with times that never decrease over both, copied where they did.

    Raises UsageError for impossible times.
    """
    index = inputs["index"].astype(np.int64)
    where = index + np.arange(len(index))  # of each input in the whole sequence
    rest = np.ones(len(acc) + len(index), bool)
    rest[where] = False
    t = np.empty(len(rest), np.uint64)
    t[where], t[rest] = inputs["t_ns"], acc["t_ns"]
    ram = where[inputs["kind"] == RAM]
    t[ram] = 0  # bytes appear without a time of their own
    if int(t.max()) >= TIME_END:
        raise UsageError(f"an input at {int(t.max())} ns: times end at 2^63")
    raised = np.maximum(np.maximum.accumulate(t), np.uint64(now))
    if (raised[rest] != acc["t_ns"]).any():
        acc = acc.copy()
        acc["t_ns"] = raised[rest]
    if (raised[where] != inputs["t_ns"]).any():
        inputs = inputs.copy()
        inputs["t_ns"] = raised[where]
    return acc, inputs


def check_records(given: Any, dtype: np.dtype[Any], wanted: str) -> None:
    """Raises UsageError for what is no row of such records."""
    if not isinstance(given, np.ndarray) or given.dtype != dtype or given.ndim != 1:
        what = f"{given.ndim} dimensions of {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise UsageError(f"{wanted} in one row, not {what}")


def check_inputs(inputs: npt.NDArray[Any], n: int) -> None:
    """Raises UsageError for inputs that are none, or have no place among n accesses."""
    check_records(inputs, INPUT, "inputs need records of engine.sequencer.INPUT")
    index = inputs["index"]
    if (index[1:] < index[:-1]).any() or index[-1] > n:
        raise UsageError(f"inputs are not sorted by index, or one comes before an access behind the last, {n - 1}")


def impossible(acc: npt.NDArray[Any], i: int) -> UsageError:
    """The error for record i, which has an impossible size, space, direction or time."""
    a = acc[i]
    return UsageError(
        f"access {i} is impossible: space {a['space']}, address {int(a['addr']):#x}, size {a['size']}, dir {a['dir']}, "
        f"at {a['t_ns']} ns; sizes are 1, 2, 4 (and 8 on MMIO), spaces 0 to 2, ports up to 0xffff, times below 2^63"
    )


# The rings and the memory of a machine have one user: the process that started it.
_running_here: WeakSet[Machine] = WeakSet()


def _after_fork() -> None:
    for machine in _running_here:
        machine._forget()
    _running_here.clear()


os.register_at_fork(after_in_child=_after_fork)
