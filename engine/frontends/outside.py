"""What devices that are not modelled do to those that are: their interrupt lines and messages, from the recording.

A line of the I/O APIC that changes inside an access to such a device is driven by it.  Its changes there, those on the
same line that no modelled device makes, and the messages that the guest programmed into such devices (MSI, MSI-X) come
to the interrupt controllers as inputs: the vectors that the guest takes for them are then as in the recording, and so
is the state of the controllers.  Such lines are not compared, as what is on them comes from the reference itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine._device import LINE, MESSAGE
from engine.frontends.trace import Golden, Trace
from engine.machine.build import Plan
from engine.sequencer import INPUT

Array = npt.NDArray[Any]

EV_MSI = 3
MESSAGE_BASE = 0xFEE00000  # of a message's address; the recording keeps bits 12 to 19 of it
MSIX_ENTRY, MSIX_DATA = 16, 8  # bytes of a table entry, and where its data is; its address is at 0


@dataclass(slots=True)
class Outside:
    """Line changes (index, GSI, level, phase) and messages (t_ns, index, address, data) of devices not modelled."""

    lines: list[tuple[int, int, int, int]]
    messages: list[tuple[int, int, int, int]]

    @property
    def gsis(self) -> list[int]:
        """The lines that they drive."""
        return sorted({gsi for _, gsi, _, _ in self.lines})


def gsi(wire: str) -> int:
    """The number of an interrupt line of the board."""
    return int(wire.removeprefix("isa").removeprefix("gsi"))


def of_recording(
    trace: Trace, golden: Golden | None, foreign: Array, config: tuple[Array, Array, Array], own: set[tuple[int, ...]]
) -> Outside:
    """foreign: which accesses reach what is not modelled.  config: config_accesses().  own: the line changes that the
    machine makes without them, (index, GSI, level, phase)."""
    rows = [] if golden is None else [tuple(int(r[k]) for k in ("index", "line", "level", "phase")) for r in golden.irq]
    driven = {line for i, line, _, phase in rows if phase and i < len(foreign) and foreign[i]}
    lines = [r for r in rows if r[1] in driven and (r not in own or foreign[min(r[0], len(foreign) - 1)])]
    return Outside(lines, _messages(trace, foreign, config))  # type: ignore[arg-type]


def _messages(trace: Trace, foreign: Array, config: tuple[Array, Array, Array]) -> list[tuple[int, int, int, int]]:
    """Messages that the recording saw and that were programmed into a device that is not modelled."""
    acc = trace.acc
    number, names = trace.region_names()
    table = np.isin(number, [i for i, n in enumerate(names) if n.startswith("msix-table|")])
    address: dict[tuple[str, int], int] = {}
    programmed: dict[int, int] = {}  # data -> address
    for i in np.flatnonzero(table & foreign & (acc["dir"] == 1)):
        at, value = int(acc["addr"][i]), int(acc["value"][i])
        entry, part = ("table", at // MSIX_ENTRY), at % MSIX_ENTRY
        if part == 0:
            address[entry] = value & 0xFFFFFFFF
        elif part == MSIX_DATA and entry in address:
            programmed[value & 0xFFFF] = address[entry]
    index, target, register = config
    last: dict[int, tuple[int, int]] = {}  # function -> register and value of the last address
    for k in np.flatnonzero(foreign[index] & (acc["dir"][index] == 1) & (register >= 0x40)):
        at, value, who = int(register[k]), int(acc["value"][index[k]]), int(target[k])
        if value >> 20 == MESSAGE_BASE >> 20:
            last[who] = at, value
        elif who in last and 4 <= at - last[who][0] <= 8 and value & 0xFF >= 0x10:
            programmed[value & 0xFFFF] = last[who][1]
    out = []
    for e in trace.evt[trace.evt["kind"] == EV_MSI] if programmed else ():
        data = int(e["data"]) & 0xFFFF
        if data in programmed:
            out.append((int(e["t_ns"]), int(e["index"]), programmed[data], data))
    return out


def records(outside: Outside, trace: Trace, plan: Plan, given: Array) -> Array:
    """`given` inputs with those of `outside` among them.

    A change in an access comes before the next access, a change before an access before all else that comes there.
    """
    times = trace.acc["t_ns"]
    n = len(times)
    sinks: dict[int, list[int]] = {}
    for p in plan.devices:
        if p.spec.type in ("i8259", "ioapic"):
            for pin, wire in p.spec.inputs.items():
                if wire.startswith(("isa", "gsi")):
                    sinks.setdefault(gsi(wire), []).append(p.rank << 8 | p.cls.IN.index(pin))
    rows = []
    for i, line, level, phase in outside.lines:
        at = i + phase
        rows += [(int(times[at - 1]) if at else 0, at, 0, level, LINE, target) for target in sinks.get(line, ())]
    for t, at, addr, data in outside.messages:
        t = min(max(t, int(times[at - 1]) if at else 0), int(times[at]) if at < n else t)
        rows += [(t, at, addr, data, MESSAGE, rank << 8) for rank in plan.message_sinks]
    if not rows:
        return given
    both = np.concatenate((np.array(rows, INPUT), given))
    return both[np.lexsort((both["t_ns"], both["index"]))]
