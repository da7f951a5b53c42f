"""FakeBus: devices of one unit, time that moves only when told, and every effect kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine._device import CONTENT, INTACK, KEY, LINE, MESSAGE, Device
from engine._executor import Executor

KINDS = ("line", "message", "map", "reset")
AGAIN = 2  # LINE_AGAIN of engine/_wire.pxd: no change, but told


class Effect(NamedTuple):
    """What a device did to the outside: `kind` is line, message, map or reset; `pin` the output pin's name of a line,
    else its number."""

    t_ns: int
    device: str
    kind: str
    pin: str | int
    addr: int
    value: int


class FakeBus:
    """Drives devices as the engine would, through the same executor.

    `FakeBus(device, ...)`: the first device is the one that read, write, set and key mean.  `wires` are
    (source device, output pin name, sink device, input pin name); messages reach every device that takes them.  Region
    n of device d has base 0, so that addresses are offsets.  A read that the device refuses gives all ones; `status`
    keeps the last access's status without the content flag, `content` the flag.
    """

    def __init__(self, *devices: Device, wires: Sequence[tuple[Device, str, Device, str]] = ()) -> None:
        self.devices = devices
        self.dut = devices[0]
        self.t_ns = 0
        self.status = 0
        self.content = False
        self.effects: list[Effect] = []
        inner = [(a.rank, 0, type(a).OUT.index(out), b.rank, type(b).IN.index(pin)) for a, out, b, pin in wires]
        sinks = [d for d in devices if type(d).MESSAGE_SINK]
        inner += [(a.rank, 1, 0, b.rank, 0) for a in devices for b in sinks]
        self.executor = Executor(devices, [[d.rank for d in devices]] if len(devices) > 1 else None, inner)
        self._ids: dict[tuple[int, int], int] = {}
        for d in devices:
            for n in range(len(d.regions())):
                self._ids[d.rank, n] = len(self._ids)
                self.executor.map_region(self._ids[d.rank, n], d.rank, n, 0)
        self._by_rank = {d.rank: d for d in devices}
        self._collect()

    def _collect(self) -> None:
        for t, rank, kind, pin, addr, value in self.executor.take_effects():
            d = self._by_rank[rank]
            name: str | int = type(d).OUT[pin] if kind == 0 else pin
            self.effects.append(Effect(t, d.id, KINDS[kind], name, addr, value))

    def _access(self, region: int, offset: int, size: int, write: bool, value: int, device: Device | None) -> int:
        d = device or self.dut
        accepts = d.regions()[region].accepts
        if size not in accepts and size > min(accepts):  # the router cuts it
            half, bits = size // 2, size * 4
            low = self._access(region, offset, half, write, value & (1 << bits) - 1, device)
            return low | self._access(region, offset + half, half, write, value >> bits, device) << bits
        status, v = self.executor.run_access(self._ids[d.rank, region], self.t_ns, offset, size, write, value)
        self.status, self.content = status & ~CONTENT, bool(status & CONTENT)
        self._collect()
        return int(v) if self.status == 0 else (1 << size * 8) - 1

    def read(self, region: int, offset: int, size: int = 1, device: Device | None = None) -> int:
        """A guest read; all ones if refused."""
        return self._access(region, offset, size, False, 0, device)

    def write(self, region: int, offset: int, value: int, size: int = 1, device: Device | None = None) -> int:
        """A guest write; the status."""
        self._access(region, offset, size, True, value, device)
        return self.status

    def learn(self, region: int, offset: int, value: int, size: int = 1, device: Device | None = None) -> int:
        """A read during which content is learnt from `value`."""
        d = device or self.dut
        self.executor.set_learning(True)
        status, v = self.executor.run_access(self._ids[d.rank, region], self.t_ns, offset, size, False, value)
        self.executor.set_learning(False)
        self.status, self.content = status & ~CONTENT, bool(status & CONTENT)
        self._collect()
        return int(v)

    def step(self, ns: int) -> None:
        """Move time forward; what is due happens."""
        self.t_ns += ns
        self.executor.run_settle(self.t_ns)
        self._collect()

    def goto(self, t_ns: int) -> None:
        """Move time to t_ns (never backwards); what is due happens."""
        self.step(max(0, t_ns - self.t_ns))

    def set(self, pin: str, level: int, device: Device | None = None) -> None:
        """Drive an input pin of a device."""
        d = device or self.dut
        self.input(LINE, type(d).IN.index(pin), 0, level, d)

    def key(self, byte: int) -> None:
        """The user's keyboard sends a byte."""
        self.input(KEY, 0, 0, byte)

    def acknowledge(self, vcpu: int = 0, device: Device | None = None) -> int:
        """An interrupt acknowledge cycle: the vector, or all 64 ones."""
        return self.input(INTACK, 0, 0, vcpu, device)

    def message(self, addr: int, data: int, device: Device | None = None) -> None:
        """A message-signalled interrupt arrives."""
        self.input(MESSAGE, 0, addr, data, device)

    def input(self, kind: int, pin: int, addr: int, value: int, device: Device | None = None) -> int:
        """Any input of the contract."""
        out = self.executor.run_input((device or self.dut).rank, kind, self.t_ns, pin, addr, value)
        self._collect()
        return int(out)

    def reset(self, kind: int = 1) -> None:
        """Reset every device: 0 power-on, 1 bus."""
        self.executor.run_reset(self.t_ns, kind)
        self._collect()

    def level(self, pin: str, device: Device | None = None) -> bool:
        """Level of an output pin."""
        return bool((device or self.dut).inspect()["pins"][pin])

    def edges(self, pin: str | None = None) -> list[tuple[int, int]]:
        """(t_ns, level) of each change of an output pin so far (of every pin, if None)."""
        lines = [e for e in self.effects if e.kind == "line" and e.value != AGAIN]
        return [(e.t_ns, e.value) for e in lines if pin in (None, e.pin)]

    def take(self) -> list[Any]:
        """The effects so far, which are then forgotten."""
        out, self.effects = self.effects, []
        return out
