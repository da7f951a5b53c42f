"""A recorded guest as a program: its accesses, the interrupts it took, what was typed, what devices found in its RAM.

The board is the machine of the recording's side file.  What the machine of the engine does not model is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine._abi import ACC
from engine._device import INTACK
from engine._device import KEY as KEY_INPUT
from engine.errors import UsageError
from engine.frontends.replay import device_type, doorbells, open_job, unmodelled_functions
from engine.frontends.trace import Trace, inputs, load
from engine.measure.diff.board import ACK, KEY, MEM, RESET, ROUNDS, SPACE_SHIFT, Array, Board, Deferred
from engine.sequencer import RAM
from engine.types import Space

LATER = re.compile(r"ide\||.*bmdma|ahci\||ich9-ahci|fdc\||.*\|(ide|piix3-ide|ich9-ahci|isa-fdc)$")  # regions of drives
DATA_PORTS = (0x1F0, 0x170)
LONG = 64  # parts of a transfer, at most
SIZES = (8, 4, 2, 1)


def recorded(path: Path, files: Mapping[str, str], needed: bool) -> tuple[Board, Array]:
    """A trace's machine and its program.  needed: the other side cannot do without the files that the trace names.

    Raises TraceError, UsageError.
    """
    trace = load(path)
    given = dict(files)
    for name, want in trace.side.get("files", {}).items():
        beside = path.with_name(want["name"])
        if name not in given and beside.is_file():
            given[name] = str(beside)
    job = open_job(trace, None, "auto", given)
    missing = [n for n in trace.side.get("files", {}) if n not in job.files]
    if missing and needed:
        raise UsageError(f"{trace.stem}: give --file {missing[0]}=PATH, {trace.side['files'][missing[0]]['name']}")
    args = ["-serial", "null"]  # which the recorder adds
    args += [re.sub(r"\{(\w+)\}", lambda m: job.files.get(m[1], m[0]), str(a)) for a in trace.side["machine_args"]]
    board = Board(trace.stem, machine=(job.spec, args))
    later = np.array([bool(LATER.match(r)) for r in trace.regions] or [False])[trace.acc["region"]]
    for space, addr in {(int(a["space"]), int(a["addr"])) for a in trace.acc[later]}:
        data = addr in DATA_PORTS and space == Space.PIO
        board.deferred[space << SPACE_SHIFT | addr] = Deferred(data, ROUNDS if data else LONG, None)
    board.media = board.bursts = True
    return board, program(trace, job.unmodelled)


def program(trace: Trace, unmodelled: list[tuple[str, str]]) -> Array:
    """The records of a trace."""
    acc = trace.acc
    known = np.array([device_type(r) is not None for r in trace.regions] or [False])[acc["region"]]
    known &= ~unmodelled_functions(trace, unmodelled)
    out = acc.copy()
    out["value"][out["dir"] == 0] = 0
    port = (out["space"] == Space.PIO) & (out["dir"] == 1)
    for at, bits, value in ((0xCF9, 0x04, 0x04), (0x92, 0x01, 0x01), (0x64, 0xF1, 0xF0)):
        out["space"][port & (out["addr"] == at) & (out["value"] & np.uint64(bits) == value)] = RESET
    given = inputs(trace, {v: v for v in range(1 << 16)}, 0, doorbells(trace))
    rows: list[tuple[int, Any]] = []
    for e in given.records:
        at, kind, t = int(e["index"]), int(e["kind"]), int(e["t_ns"])
        if kind == INTACK:
            rows.append((at, (t, int(e["value"]), 0, 0, 4, ACK, 0)))
        elif kind == KEY_INPUT:
            rows.append((at, (t, 0, int(e["value"]), 0, 4, KEY, 0)))
        elif kind == RAM:
            gpa, off, left = int(e["addr"]), int(e["value"]) >> 32, int(e["value"]) & 0xFFFFFFFF
            while left:
                size = next(s for s in SIZES if s <= left)
                value = int.from_bytes(given.ram_bytes[off : off + size].tobytes(), "little")
                rows.append((at, (t, gpa, value, 0, size, MEM, 1)))
                gpa, off, left = gpa + size, off + size, left - size
    events = np.zeros(len(rows), ACC)
    for n, (_, row) in enumerate(rows):
        for name, x in zip(("t_ns", "addr", "value", "vcpu", "size", "space", "dir"), row, strict=True):
            events[name][n] = x
    index = np.array([at for at, _ in rows], np.int64)
    keep = np.insert(known, index, True)
    whole: Array = np.insert(out, index, events)[keep]
    return whole
