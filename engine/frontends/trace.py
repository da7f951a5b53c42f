"""Recorded guests: trace files, their references, and the inputs a replay makes of them.

A trace NAME.npz holds every device access of a guest in order (array `acc`), what happened between them (`evt`), and
what devices read from guest RAM (`dma`, `dma_data`); NAME.json says which machine it ran on; NAME.golden.npz holds a
reference implementation's answers to the same stream.  docs/traces.md describes the arrays.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine._abi import ACC, first_bad, first_earlier
from engine._device import INTACK, KEY
from engine.errors import TraceError, reason
from engine.sequencer import INPUT, RAM

EVT = np.dtype([("t_ns", "<u8"), ("index", "<u8"), ("kind", "<u4"), ("data", "<u4")])
DMA = np.dtype([("index", "<u8"), ("gpa", "<u8"), ("off", "<u8"), ("len", "<u4"), ("sync", "<u4")])
IRQ = np.dtype([("index", "<u8"), ("t_ns", "<u8"), ("line", "<u2"), ("level", "u1"), ("phase", "u1"), ("pad", "<u4")])
EV_VECTOR, EV_PIC_ACK, EV_MSI, EV_PS2 = 1, 2, 3, 4
GOLD_READ, GOLD_MASK = 1, 3
GOLD_AS_RECORDED = 0x80  # the reference's replay answered as the guest was answered
POISON = 0xDEADDEADDEADDEAD

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Trace:
    """One recorded guest.  `side` is the side file (empty if there is none)."""

    path: Path
    acc: Array
    regions: list[str]
    evt: Array
    dma: Array
    dma_data: Array
    side: dict[str, Any] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """File name without folder and ending."""
        return self.path.name.removesuffix(".npz")

    def region_names(self) -> tuple[Array, list[str]]:
        """(number of each access's region name, names); regions of one name are one."""
        names = sorted(set(self.regions))
        number = {n: i for i, n in enumerate(names)}
        lut = np.array([number[r] for r in self.regions] or [0], np.int32)
        return lut[self.acc["region"]], names


@dataclass(slots=True)
class Golden:
    """A reference's answers: value and status per access, vector per kind-1 event, irq line changes."""

    path: Path
    value: Array
    status: Array
    vector: Array
    irq: Array
    side: dict[str, Any] = field(default_factory=dict)

    @property
    def lines_stable(self) -> bool:
        """Whether all runs of the reference had the same line changes, so that they may be compared."""
        return bool(self.side.get("line_changes_identical_in_all_runs", True))

    @property
    def vectors_stable(self) -> bool:
        """Whether all runs of the reference took the same vectors."""
        return bool(self.side.get("vectors_identical_in_all_runs", True))


def _arrays(path: Path) -> dict[str, Array]:
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise TraceError(f"{path}: not a file; a recorded guest is NAME.npz")
    if not path.is_file():
        raise TraceError(f"{path}: no such file")
    try:
        zipfile.ZipFile(path).close()
        with np.load(path, allow_pickle=False) as z:
            return {k: z[k] for k in z.files}
    except OSError as e:
        raise TraceError(f"{path}: cannot be read as a trace ({reason(e)})") from None
    except zipfile.BadZipFile:
        raise TraceError(
            f"{path}: cannot be read as a trace: truncated, or another kind of file; a recorded guest is NAME.npz, an "
            "archive of arrays (docs/traces.md)"
        ) from None
    except (ValueError, EOFError, AttributeError, TypeError, KeyError, MemoryError, NotImplementedError, zlib.error):
        raise TraceError(
            f"{path}: cannot be read as a trace: an array of it is damaged or holds no numbers; copy it again"
        ) from None


def _side(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        got = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise TraceError(f"{path}: not a side file ({e})") from None
    if not isinstance(got, dict):
        raise TraceError(f"{path}: not a side file (an object is wanted)")
    files = got.get("files", {})
    if not isinstance(files, dict) or not all(_named(f) for f in files.values()):
        raise TraceError(
            f"{path}: not a side file (`files` should give each file's name and sha256, and its bytes as a number)"
        )
    return got


def _named(file: Any) -> bool:
    """Whether an entry of a side file's `files` is one."""
    return (
        isinstance(file, dict)
        and all(isinstance(file.get(key), str) for key in ("name", "sha256"))
        and isinstance(file.get("bytes", 0), int)
    )


def _known(path: Path, arrays: Mapping[str, Array], want: Mapping[str, np.dtype[Any] | None]) -> None:
    version = arrays.get("version", np.array(1)).reshape(-1)
    if len(version) != 1 or version.dtype.kind not in "iu" or version[0] < 1:
        raise TraceError(f"{path}: not a trace: its format version is no number from 1 on")
    if version[0] > 1:
        raise TraceError(f"{path}: format version {version[0]} is newer than this engine's 1; update the engine")
    missing = [k for k in want if k not in arrays]
    if missing:
        raise TraceError(f"{path}: not a trace: arrays missing: {', '.join(missing)}")
    for name, dtype in want.items():
        if dtype is not None and arrays[name].dtype != dtype:
            raise TraceError(
                f"{path}: array {name!r} has records {arrays[name].dtype}, "
                f"not the {dtype.itemsize}-byte layout of this format"
            )
        if arrays[name].ndim != 1:
            raise TraceError(f"{path}: array {name!r} has {arrays[name].ndim} dimensions, not 1")


def load(path: str | Path) -> Trace:
    """A trace file, checked whole: layout, sizes, spaces, indices.  Raises TraceError in one line."""
    p = Path(path)
    a = _arrays(p)
    _known(p, a, {"acc": ACC, "regions": None, "evt": EVT, "dma": DMA, "dma_data": np.dtype("u1")})
    acc, regions = a["acc"], [str(r) for r in a["regions"]]
    i = first_bad(acc, 2)
    if i < 0 and len(acc) and int(acc["region"].max()) >= max(1, len(regions)):
        i = int(np.argmax(acc["region"] >= max(1, len(regions))))
    if i >= 0:
        r = acc[i]
        raise TraceError(
            f"{p}: access {i} is impossible: space {r['space']}, address {int(r['addr']):#x}, size {r['size']}, "
            f"dir {r['dir']}, region {r['region']} of {len(regions)}, at {r['t_ns']} ns"
        )
    i = first_earlier(acc)
    if i >= 0:
        raise TraceError(f"{p}: time goes back at access {i}")
    for name in ("evt", "dma"):
        if len(a[name]) and int(a[name]["index"].max()) > len(acc):
            raise TraceError(f"{p}: {name} names access {int(a[name]['index'].max())}, but there are {len(acc)}")
    d = a["dma"]
    if len(d) and bool((np.maximum(d["off"], d["off"] + d["len"]) > len(a["dma_data"])).any()):  # the sum may wrap
        raise TraceError(f"{p}: dma names bytes that dma_data does not have")
    return Trace(p, acc, regions, a["evt"], d, a["dma_data"], _side(p.with_name(p.name.removesuffix(".npz") + ".json")))


def load_golden(path: str | Path, trace: Trace) -> Golden:
    """The reference beside a trace, checked against it.  Raises TraceError."""
    p = Path(path)
    a = _arrays(p)
    _known(p, a, {"value": np.dtype("<u8"), "status": np.dtype("u1"), "vector": np.dtype("<i8"), "irq": IRQ})
    if len(a["value"]) != len(trace.acc) or len(a["status"]) != len(trace.acc):
        raise TraceError(
            f"{p}: reference of {len(a['value'])} accesses does not fit {trace.path} with {len(trace.acc)}"
        )
    vectors = int((trace.evt["kind"] == EV_VECTOR).sum())
    if len(a["vector"]) != vectors:
        raise TraceError(f"{p}: reference of {len(a['vector'])} vectors does not fit {trace.path} with {vectors}")
    return Golden(
        p, a["value"], a["status"], a["vector"], a["irq"], _side(p.with_name(p.name.removesuffix(".npz") + ".json"))
    )


def golden_path(trace: Trace) -> Path:
    """Where the reference of a trace is expected."""
    return trace.path.with_name(trace.stem + ".golden.npz")


def check_file(trace: Trace, name: str, path: str | Path) -> Path:
    """A file that the side file asks for by `name`, verified by size and SHA-256.  Raises TraceError."""
    want = trace.side.get("files", {}).get(name)
    if want is None:
        raise TraceError(
            f"--file {name}: {trace.path} needs no such file; "
            f"it names {', '.join(trace.side.get('files', {})) or 'none'}"
        )
    p = Path(path)
    if not p.is_file():
        raise TraceError(f"--file {name}: {p}: no such file")
    try:
        with p.open("rb") as f:
            got = hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise TraceError(f"--file {name}: {p}: {e.strerror}") from None
    if got != want["sha256"]:
        raise TraceError(
            f"--file {name}: {p} is not the recorded {want['name']} "
            f"(SHA-256 {got[:16]}..., recorded {want['sha256'][:16]}...)"
        )
    return p


@dataclass(slots=True)
class Inputs:
    """What a replay feeds between the accesses: INPUT records, which of them are vectors, and the bytes for RAM."""

    records: Array
    vector_rows: Array  # row in records of each kind-1 event
    ram_bytes: Array
    skipped: int  # events of kinds that the machine has no device for


def inputs(trace: Trace, intack: Mapping[int, int], keyboard: int | None, doorbells: Array | None = None) -> Inputs:
    """The trace's events as inputs.

    intack: vCPU -> rank of the device that acknowledges.  keyboard: rank of the keyboard controller.  doorbells:
    indices of writes that may make a device look into RAM later (for `dma` rows with sync 0); None: such rows go
    before their own access.
    """
    acc, evt, dma = trace.acc, trace.evt, trace.dma
    rows: list[tuple[int, int, int, tuple[int, int, int, int, int, int]]] = []
    skipped = 0
    n_vector = 0
    for k, d in enumerate(dma):
        i = int(d["index"])
        if not d["sync"] and doorbells is not None:
            j = int(np.searchsorted(doorbells, i)) - 1
            if j < 0:
                continue
            i = int(doorbells[j])
        rows.append((i, 0, k, (0, i, int(d["gpa"]), int(d["off"]) << 32 | int(d["len"]), RAM, 0)))
    for k, e in enumerate(evt):
        kind, data, i, t = int(e["kind"]), int(e["data"]), int(e["index"]), int(e["t_ns"])
        if kind == EV_VECTOR:
            n_vector += 1
            vcpu = data >> 16
            if vcpu not in intack:
                skipped += 1
                continue
            rows.append((i, 1, k, (t, i, 0, vcpu, INTACK, intack[vcpu] << 8)))
        elif kind == EV_PS2:
            if keyboard is None:
                skipped += 1
                continue
            rows.append((i, 1, k, (t, i, 0, data & 0xFF, KEY, keyboard << 8)))
    rows.sort(key=lambda r: r[:3])
    out = np.zeros(len(rows), INPUT)
    vector_rows = []
    last = 0
    for n, (i, first, _, rec) in enumerate(rows):
        out[n] = rec
        before = int(acc["t_ns"][i - 1]) if i else 0
        t = max(last, before) if first == 0 else max(rec[0], last, before)
        if i < len(acc):
            t = min(t, int(acc["t_ns"][i]))
        out[n]["t_ns"] = last = t
        if rec[4] == INTACK:
            vector_rows.append(n)
    return Inputs(out, np.array(vector_rows, np.int64), trace.dma_data, skipped)
