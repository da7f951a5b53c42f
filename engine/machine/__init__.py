"""Machine: a board with its devices, in this process or spread over workers.

    with engine.Machine.from_file("i440fx", workers=3) as pc:
        values = pc.submit(batch)

Importing starts nothing; start() or the `with` block does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from engine._abi import ACC, first_bad, first_earlier
from engine._device import Arena, Device, Dma
from engine._executor import Executor
from engine._shm import Segment
from engine.errors import EngineError, UsageError
from engine.machine.build import Plan, connect, make_device, plan
from engine.machine.derive import derive
from engine.machine.spec import MachineSpec, check_workers, load
from engine.sequencer import INPUT, Sequencer
from engine.types import Space
from engine.workers import placement

PATHS = ("local", "sync", "buffered", "batched")
SPACES: dict[int | str, int] = {key: int(s) for s in Space for key in (int(s), s.name, s.name.lower())}
ARENA = 4 << 20


def build_devices(planned: Plan, ranks: list[int], ram: Any = None, contents: Mapping[str, Any] | None = None) -> tuple[dict[str, Device], Arena]:
    """The devices of some ranks, wired to their peers, in one arena, over guest RAM."""
    arena = Arena(ARENA)
    made: dict[str, Device] = {}
    for p in planned.devices:
        if p.rank not in ranks:
            continue
        dma = Dma(ram, planned.spec.board.low_ram)
        made[p.id] = make_device(p.cls, p.rank, p.spec, arena, dma)
        if contents and p.id in contents:
            made[p.id].set_contents(contents[p.id])  # type: ignore[attr-defined]
    connect(planned.spec, made)
    return made, arena


class Clock:
    """The machine's virtual clock; it moves only when told, or by the times of the accesses."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def now(self) -> int:
        """Virtual time in ns."""
        return max(self._machine._now, self._machine.sequencer.clock)

    def step(self, ns: int) -> None:
        """Move time forward by ns; everything due happens."""
        if ns < 0:
            raise UsageError(f"clock.step({ns}): time does not go back")
        self._machine._now = self.now + ns
        self._machine.sequencer.settle(self._machine._now)

    def next(self) -> int | None:
        """When a device wants the clock next, in ns of virtual time; None if none does."""
        when: int | None = self._machine.sequencer.next_event()
        return when


class Machine:
    """A machine; make it with from_file or from_spec.  One thread uses it.

    path: how accesses are carried (local, sync, buffered, batched); local without workers, else batched unless given.
    contents: device id -> what set_contents of that device takes.
    """

    def __init__(self, spec: MachineSpec, *, workers: int | None = None, owners: list[int] | None = None, path: str | None = None,
                 contents: Mapping[str, Any] | None = None) -> None:
        self.spec = derive(spec)
        self.plan = plan(self.spec)
        n = spec.placement.workers if workers is None else workers
        self.path = path or ("batched" if n else "local")
        if self.path not in PATHS:
            raise UsageError(f"path {self.path!r}: choose one of {', '.join(PATHS)}")
        self.workers = 0 if self.path == "local" else check_workers(n, spec.path or "machine")
        self.contents = dict(contents or {})
        self.owners: list[int] = []
        if self.workers:
            if owners is not None:
                self.owners = owners
            elif workers is None or workers == spec.placement.workers:
                self.owners = placement.from_spec(self.plan, spec.placement)
            else:
                self.owners = placement.spread(self.plan, self.workers)
        self._now = 0
        self._started = False
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
        """Make RAM, devices and workers.  On failure nothing is left running."""
        if self._started:
            raise EngineError("the machine is running already")
        self.ram = Segment.create("guest-ram", self.spec.board.ram)
        self.pool = None
        self.devices: dict[str, Device] = {}
        try:
            if self.workers:
                from engine.workers.pool import Pool

                self.pool = Pool(self.plan, self.owners, self.ram, self.contents, wait=self.spec.placement.wait, pin=self.spec.placement.pin)
                self.sequencer = Sequencer(self.plan, memoryview(self.ram), None, self.pool.links, self.owners, self.spec.placement.wait,
                                           self.pool.crowded, self.pool.check)
            else:
                self.devices, self.arena = build_devices(self.plan, list(range(len(self.plan.devices))), self.ram, self.contents)
                self.executor = Executor(self.devices.values(), self.plan.units, self.plan.inner_wires())
                self.sequencer = Sequencer(self.plan, memoryview(self.ram), self.executor)
        except BaseException:
            self._release()
            raise
        self._access = self.sequencer.access  # type: ignore[method-assign, assignment]
        self._started = True
        return self

    def stop(self) -> None:
        """End the workers and free what was shared.  Safe to call twice."""
        if self._started:
            self._started = False
            del self._access
            self._release()

    def _release(self) -> None:
        pool = getattr(self, "pool", None)
        if pool is not None:
            pool.stop()

    def __enter__(self) -> Machine:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def reset(self) -> None:
        """Pull the board's reset line: every device as after a bus reset.  RAM and the clock stay as they are."""
        self.sequencer.reset()

    def call(self, device: str, method: str, *args: Any) -> Any:
        """A method of a device between two accesses, wherever the device is (to swap a disk, to see its output)."""
        if self.pool is not None:
            return self.pool.call(device, method, *args)
        return getattr(self.devices[device], method)(*args)

    # ------------------------------------------------------------------ accesses

    def run(self, acc: npt.NDArray[Any], inputs: npt.NDArray[Any] | None = None, ram_bytes: Any = None) -> tuple[Any, Any, Any]:
        """A batch with the inputs between its accesses; see Sequencer.run.  Times are raised so that they never decrease."""
        if not self._started:
            raise EngineError("the machine is not running: use `with machine:` or machine.start()")
        if acc.dtype != ACC:
            raise UsageError(f"a batch needs records of engine.ACC (32 bytes), not {acc.dtype}")
        check_batch(acc)
        now = self.clock.now
        if first_earlier(acc, now) >= 0:
            acc = acc.copy()
            acc["t_ns"] = np.maximum(np.maximum.accumulate(acc["t_ns"]), np.uint64(now))
        return self.sequencer.run(acc, inputs, self.path, ram_bytes)

    def submit(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """Execute a batch of ACC records in order; the values read (for writes: written).

        Raises UsageError for a wrong dtype or an impossible record, before anything is executed.
        """
        return self.run(batch)[0]  # type: ignore[no-any-return]

    def read(self, space: int | str, addr: int, size: int = 1) -> int:
        """One guest read now.  space: Space, or its name.  With workers it goes through the slot of the device's owner."""
        try:
            return self._access(SPACES[space], addr, size, False, 0, self._now)
        except (KeyError, OverflowError):
            raise UsageError(f"read({space!r}, {addr!r}, {size!r}): spaces are pio, mmio and config; addresses and sizes are not negative") from None

    def write(self, space: int | str, addr: int, size: int, value: int) -> None:
        """One guest write now, as read."""
        try:
            self._access(SPACES[space], addr, size, True, value, self._now)
        except (KeyError, OverflowError):
            raise UsageError(f"write({space!r}, {addr!r}, {size!r}, {value!r}): spaces are pio, mmio and config; numbers are not negative and fit "
                             f"64 bits") from None

    def _access(self, *access: int) -> int:
        raise EngineError("the machine is not running: use `with machine:` or machine.start()")

    def input(self, kind: int, target: str, value: int = 0, pin: str | None = None, addr: int = 0) -> int:
        """Something from outside for one device: a key, a line, a message (see engine._device's kinds).  Its answer."""
        rank = self.plan.rank(target)
        number = self.plan.devices[rank].cls.IN.index(pin) if pin is not None else 0
        one = np.zeros(1, INPUT)
        one[0] = (self.clock.now, 0, addr, value, kind, rank << 8 | number)
        return int(self.run(np.zeros(0, ACC), one)[2][0])

    def lines(self) -> npt.NDArray[Any]:
        """Observed line changes since the last call; see Sequencer.take_lines."""
        return self.sequencer.take_lines()


def check_batch(acc: npt.NDArray[Any]) -> None:
    """Raises UsageError for the first record with an impossible size, space or direction."""
    i = first_bad(acc)
    if i >= 0:
        a = acc[i]
        raise UsageError(f"access {i} is impossible: space {a['space']}, address {int(a['addr']):#x}, size {a['size']}, dir {a['dir']}; sizes are 1, "
                         f"2, 4 (and 8 on MMIO), spaces 0 to 2, ports up to 0xffff")
