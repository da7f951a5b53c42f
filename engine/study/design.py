"""What a study declares: factors, blocks, replications, seed; read from TOML, checked, made into cells and an order.

A block is a full factorial over its factors' levels.  A cell is one combination; blocks may share cells.  Impossible
combinations are refused, with the block and both factors named.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import data, toml
from engine.errors import UsageError, reason
from engine.machine import PATHS
from engine.machine.spec import MAX_WORKERS
from engine.study.mixes import MIXES

FORMAT = 1
MAX_CELLS = 10_000
WORKED = ("sync", "buffered", "batched")  # paths with worker processes
WAITS, GATHERS, CPUS, ARRIVALS = (
    ("spin", "adaptive", "block"),
    ("due", "full"),
    ("apart", "together", "free"),
    ("even", "poisson"),
)


@dataclass(frozen=True, slots=True)
class Factor:
    """One thing that a study varies.  paths: where it means something; default: its level where none is given."""

    name: str
    what: str
    default: Any
    paths: tuple[str, ...] = PATHS
    unit: str = ""


FACTORS = {
    f.name: f
    for f in (
        Factor("mix", "accesses: a synthetic mix, a shipped trace, or a trace file", "vga"),
        Factor("write_share", "share of writes of a synthetic mix", None),
        Factor("path", "how accesses are carried", "sync"),
        Factor(
            "load",
            "offered accesses a second, or closed: the next when the one before has returned",
            "closed",
            unit="accesses/s",
        ),
        Factor("arrivals", "of an open load: even, or at random (poisson)", "even"),
        Factor("batch", "accesses handed over at once, at most", 64, ("local", "batched"), "accesses"),
        Factor("gather", "of an open load: take what is due, or wait until the batch is full", "due", ("batched",)),
        Factor("ring", "depth of each worker's ring", 4096, ("buffered", "batched"), "records"),
        Factor("wait", "how a side waits for the other", "adaptive", WORKED),
        Factor("workers", "worker processes", 1, WORKED, "processes"),
        Factor("placement", "which worker has which device: spread, or random:SEED", "spread", WORKED),
        Factor(
            "cpus", "router and workers on CPUs of their own, together on one, or as the system likes", "apart", WORKED
        ),
    )
}
STUDY_KEYS = {"name", "question", "format", "seed", "replications", "accesses", "machine"}
QUICK_KEYS = {"replications", "accesses", "leave_out", "seconds"}
BLOCK_KEYS = {"name", "question"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of levels.  None: the factor means nothing here."""

    mix: str
    write_share: float | None
    path: str
    load: int | None  # None: closed loop
    arrivals: str | None
    batch: int | None
    gather: str | None
    ring: int | None
    wait: str | None
    workers: int
    placement: str | None
    cpus: str | None

    def as_dict(self) -> dict[str, Any]:
        """Factor names to levels, in the order of FACTORS."""
        return {name: getattr(self, name) for name in FACTORS}

    def __str__(self) -> str:
        return ", ".join(f"{k} {v}" for k, v in self.as_dict().items() if v is not None)


@dataclass(frozen=True, slots=True)
class Block:
    """One factorial of a study: its question, what varies in it, its cells."""

    name: str
    question: str
    varied: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Design:
    """A whole study.  source: where it was read."""

    name: str
    question: str
    seed: int
    replications: int
    accesses: int
    machine: str
    blocks: tuple[Block, ...]
    quick: bool = False
    seconds: int = 0  # how long one `engine study` may measure; 0: until all is done
    source: str = field(default="", compare=False)

    @property
    def cells(self) -> list[Cell]:
        """Every cell once, in declared order."""
        return list(dict.fromkeys(c for b in self.blocks for c in b.cells))

    def order(self) -> Iterator[tuple[int, int, Cell]]:
        """(replicate, number of the cell, cell): each replicate runs every cell once, in an order of its own."""
        cells = self.cells
        for r in range(self.replications):
            numbers = list(range(len(cells)))
            random.Random(f"{self.seed}:{r}").shuffle(numbers)
            for n in numbers:
                yield r, n, cells[n]

    @property
    def size(self) -> int:
        """How many replications of cells there are to run."""
        return len(self.cells) * self.replications

    @property
    def stem(self) -> str:
        """What the study's files are called, without ending."""
        return self.name + ("-quick" if self.quick else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values: what a results file says it holds results of."""
        return {
            "name": self.name,
            "question": self.question,
            "seed": self.seed,
            "replications": self.replications,
            "accesses": self.accesses,
            "machine": self.machine,
            "quick": self.quick,
            "seconds": self.seconds,
            "blocks": [
                {
                    "name": b.name,
                    "question": b.question,
                    "varied": list(b.varied),
                    "cells": [c.as_dict() for c in b.cells],
                }
                for b in self.blocks
            ],
        }

    @property
    def digest(self) -> str:
        """What tells this experiment from others: cells, accesses, machine and seed, and not how often or why."""
        own = {
            "seed": self.seed,
            "accesses": self.accesses,
            "machine": self.machine,
            "cells": [c.as_dict() for c in self.cells],
        }
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]


def shipped() -> list[str]:
    """Names of the studies in the package."""
    return sorted(p.stem for p in (data.FOLDER / "studies").glob("*.toml"))


def load(source: str, quick: bool = False) -> Design:
    """A study file, or shipped:NAME.  Raises UsageError in one line."""
    name = source.removeprefix("shipped:")
    if source.startswith("shipped:"):
        if name not in shipped():
            raise UsageError(f"{source}: no such study; shipped are {', '.join(shipped())}")
        path = data.FOLDER / "studies" / f"{name}.toml"
    else:
        path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"{source}: no such study file; shipped studies are {', '.join('shipped:' + s for s in shipped())}"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{source}: cannot be read ({reason(e)})") from None
    return parse(text, source, quick)


def parse(text: str, source: str = "study.toml", quick: bool = False) -> Design:
    """A study file's text.  Raises UsageError in one line."""
    raw = toml.parse(text, source)
    _known(source, raw, {"study", "quick", "block"}, "table", "a study file")
    head = raw.get("study")
    if not isinstance(head, dict):
        raise UsageError(f"{source}: no [study] table")
    _known(source, head, STUDY_KEYS, "key", "[study]")
    version = head.get("format", FORMAT)
    if version != FORMAT:
        raise UsageError(f"{source}: [study] format = {version!r}; this engine reads format {FORMAT}")
    name = head.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name):
        raise UsageError(f"{source}: [study] name = {name!r} should be a word that can name files")
    fast = raw.get("quick", {})
    if not isinstance(fast, dict):
        raise UsageError(f"{source}: quick should be a table")
    _known(source, fast, QUICK_KEYS, "key", "[quick]")
    rows = raw.get("block", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise UsageError(f"{source}: no [[block]] table: a study needs one at least")
    blocks = [_block(source, n, row) for n, row in enumerate(rows, 1)]
    names = [b.name for b in blocks]
    for n in names:
        if names.count(n) > 1:
            raise UsageError(f"{source}: two blocks are called {n!r}")
    left = fast.get("leave_out", [])
    if not isinstance(left, list) or not all(n in names for n in left) or len(set(left)) == len(names):
        raise UsageError(
            f"{source}: [quick] leave_out = {left!r} should name some blocks, of {', '.join(names)}, and not all"
        )
    machine = head.get("machine", "i440fx")
    if machine != "i440fx":
        raise UsageError(
            f"{source}: [study] machine = {machine!r}: the synthetic mixes are made for i440fx; recorded guests bring "
            "their own machine"
        )
    design = Design(
        name=name,
        question=str(head.get("question", "")),
        seed=_number(source, "[study] seed", head.get("seed", 1), 0, 1 << 62),
        replications=_number(source, "[study] replications", head.get("replications", 5), 1, 100_000),
        accesses=_number(source, "[study] accesses", head.get("accesses", 20_000), 100, 10_000_000),
        machine=machine,
        blocks=tuple(b for b in blocks if not (quick and b.name in left)),
        quick=quick,
        source=source,
    )
    if quick:
        design = replace(
            design,
            replications=_number(
                source, "[quick] replications", fast.get("replications", min(3, design.replications)), 1, 100_000
            ),
            accesses=_number(source, "[quick] accesses", fast.get("accesses", design.accesses), 100, 10_000_000),
            seconds=_number(source, "[quick] seconds", fast.get("seconds", 0), 0, 1 << 30),
        )
    _few(source, len(design.cells))
    return design


def _few(where: str, cells: int) -> None:
    if cells > MAX_CELLS:
        raise UsageError(f"{where}: {cells} combinations; {MAX_CELLS} are possible")


def _known(source: str, raw: Mapping[str, Any], known: set[str], what: str, where: str) -> None:
    odd = sorted(set(raw) - known)
    if odd:
        raise UsageError(f"{source}: unknown {what} {odd[0]!r} in {where}; known are {', '.join(sorted(known))}")


def _number(source: str, what: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{source}: {what} = {value!r} should be a whole number from {low} to {high}")
    return value


def _block(source: str, n: int, raw: Mapping[str, Any]) -> Block:
    name = raw.get("name", f"block{n}")
    where = f"{source}: block {name!r}"
    odd = sorted(set(raw) - set(FACTORS) - BLOCK_KEYS)
    if odd:
        raise UsageError(f"{where}: unknown factor {odd[0]!r}; known are {', '.join(FACTORS)}")
    levels: dict[str, list[Any]] = {}
    for key in FACTORS:
        if key in raw:
            got = raw[key] if isinstance(raw[key], list) else [raw[key]]
            if not got:
                raise UsageError(f"{where}: {key} has no level")
            levels[key] = [_level(where, key, v) for v in got]
            if len({str(v) for v in levels[key]}) < len(levels[key]):
                raise UsageError(f"{where}: {key} names a level twice: {raw[key]}")
    _possible(where, levels)
    _few(where, math.prod(len(v) for v in levels.values()))
    names = list(levels)
    cells = tuple(
        dict.fromkeys(_cell(where, dict(zip(names, got, strict=True))) for got in itertools.product(*levels.values()))
    )
    return Block(str(name), str(raw.get("question", "")), tuple(k for k, v in levels.items() if len(v) > 1), cells)


def _level(where: str, key: str, v: Any) -> Any:
    """One level, checked by itself."""

    def one_of(choices: tuple[str, ...]) -> Any:
        if v not in choices:
            raise UsageError(f"{where}: {key} = {v!r}; choose {', '.join(choices[:-1])} or {choices[-1]}")
        return v

    match key:
        case "mix":
            if not isinstance(v, str) or not (v in MIXES or v in data.traces() or os.path.isfile(v)):
                raise UsageError(
                    f"{where}: mix = {v!r} is neither a synthetic mix ({', '.join(MIXES)}), a shipped trace "
                    f"({', '.join(data.traces())}) nor a trace file that is there"
                )
            return v
        case "write_share":
            if not isinstance(v, (int, float)) or isinstance(v, bool) or not 0 <= v <= 1:
                raise UsageError(f"{where}: write_share = {v!r} should lie between 0 and 1")
            return float(v)
        case "path":
            return one_of(PATHS)
        case "load":
            if v == "closed":
                return None
            if not isinstance(v, (int, float)) or isinstance(v, bool) or not 1 <= v <= 1e9:
                raise UsageError(f'{where}: load = {v!r} should be accesses a second, from 1 to 10^9, or "closed"')
            return int(v)
        case "arrivals":
            return one_of(ARRIVALS)
        case "batch":
            return _number(where, key, v, 1, 1 << 20)
        case "gather":
            return one_of(GATHERS)
        case "ring":
            if _number(where, key, v, 2, 1 << 20) & (v - 1):
                raise UsageError(f"{where}: ring = {v} should be a power of two")
            return v
        case "wait":
            return one_of(WAITS)
        case "workers":
            return _number(where, key, v, 1, MAX_WORKERS)
        case "placement":
            if v != "spread" and not re.fullmatch(r"random:\d{1,18}", str(v)):
                raise UsageError(f"{where}: placement = {v!r}; choose spread, or random:SEED with a number")
            return v
        case _:
            return one_of(CPUS)


def _possible(where: str, levels: Mapping[str, list[Any]]) -> None:
    """Raises UsageError for a factor that means nothing beside another of the block."""
    paths = levels.get("path", [FACTORS["path"].default])
    for key in levels:
        odd = [p for p in paths if p not in FACTORS[key].paths]
        if odd and (len(levels[key]) > 1 or len(odd) == len(paths)):
            raise UsageError(
                f"{where}: {key} means nothing on path {odd[0]}; give {' and '.join(FACTORS[key].paths)} a block of "
                "their own"
            )
    traces = [m for m in levels.get("mix", []) if m not in MIXES]
    if "write_share" in levels and traces:
        raise UsageError(f"{where}: write_share means nothing for {traces[0]}: a recorded guest has its own")
    for key in ("arrivals", "gather"):
        if key in levels and None in levels.get("load", [None]):
            raise UsageError(f"{where}: {key} means nothing with a closed load: give load in accesses a second")
    if "placement" in levels and 1 in levels.get("workers", [1]):
        raise UsageError(f"{where}: placement means nothing with one worker")
    if "gather" in levels and 1 in levels.get("batch", []):
        raise UsageError(f"{where}: gather means nothing with batch 1")


def _cell(where: str, given: Mapping[str, Any]) -> Cell:
    """A cell with the defaults filled in where they mean something."""
    got = {name: given.get(name, f.default) for name, f in FACTORS.items()}
    path, mix = got["path"], got["mix"]
    load = given.get("load")
    for name, f in FACTORS.items():
        if path not in f.paths:
            got[name] = None
    got["load"] = load
    if mix in MIXES:
        got["write_share"] = MIXES[mix].write_share if got["write_share"] is None else got["write_share"]
    else:
        got["write_share"] = None
    if load is None:
        got["arrivals"] = got["gather"] = None
    if path == "local":
        got["batch"] = given.get("batch", 1)
        got["workers"] = 0
    elif got["workers"] == 1:
        got["placement"] = None
    if got["batch"] == 1:
        got["gather"] = None
    return Cell(**got)
