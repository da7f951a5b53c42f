"""Results of a study: flat rows, their CSV and Parquet files, and medians and ratios with bootstrap intervals."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import EngineError, UsageError, reason
from engine.measure import histogram
from engine.study import _offer
from engine.study.design import FACTORS, Block, Cell, Design
from engine.study.journal import Journal

Array = npt.NDArray[Any]
Row = dict[str, Any]
RESAMPLES = 2000
CONFIDENCE = 0.95
FIXED = ("study", "digest", "replicate", "cell", *FACTORS, "host", "engine")
HOST = "host_"  # begins the names of columns that hold the host record


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, its bootstrap interval, and from how many replications it is."""

    value: float
    low: float
    high: float
    n: int

    def __bool__(self) -> bool:
        return not math.isnan(self.value)

    @property
    def known(self) -> bool:
        """Whether there is an interval: more than one replication."""
        return self.n > 1 and not math.isnan(self.low)


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def bootstrap(values: Array, statistic: Callable[..., Array], seed: int) -> Interval:
    """A statistic of some values with its percentile interval: the values are drawn again with replacement."""
    x = np.asarray(values, float)
    x = x[~np.isnan(x)]
    return _over_rows(len(x), lambda rows: statistic(x[rows], axis=-1), seed) if len(x) else NOTHING


def _over_rows(n: int, statistic: Callable[[Array], Array], seed: int) -> Interval:
    """A statistic of n replications, given which to use, with its percentile interval."""
    value = float(statistic(np.arange(n)))
    if n == 1:
        return Interval(value, math.nan, math.nan, 1)
    drawn = statistic(np.random.default_rng(seed).integers(0, n, (RESAMPLES, n)))
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(value, float(low), float(high), n)


@dataclass
class Results:
    """The finished replications of a design.  hosts: id -> host record."""

    design: Design
    rows: list[Row]
    hosts: dict[str, dict[str, Any]]
    histograms: list[dict[str, dict[str, int]]] = field(
        default_factory=list
    )  # of each row; none if read from a CSV file

    @staticmethod
    def of(journal: Journal) -> Results:
        """What a journal holds, in the order of the cells."""
        design = journal.design
        cells = design.cells
        found = sorted(journal.rows, key=lambda r: (r["cell"], r["replicate"]))
        rows = []
        for r in found:
            values = {k: math.nan if v is None else v for k, v in r["values"].items()}
            fixed = {"study": design.stem, "digest": design.digest, "replicate": r["replicate"], "cell": r["cell"]}
            rows.append({**fixed, **cells[r["cell"]].as_dict(), "host": r["host"], "engine": r["engine"], **values})
        return Results(design, rows, journal.hosts, [r["histograms"] for r in found])

    # ------------------------------------------------------------------ estimates

    @cached_property
    def host(self) -> str:
        """The host with most replications: absolute numbers are its own, those of hosts are never compared."""
        ids = [r["host"] for r in self.rows]
        return max(dict.fromkeys(ids), key=ids.count) if ids else ""

    @cached_property
    def _by_cell(self) -> dict[int, dict[tuple[str, int], Row]]:
        out: dict[int, dict[tuple[str, int], Row]] = {}
        for r in self.rows:
            out.setdefault(r["cell"], {})[r["host"], r["replicate"]] = r
        return out

    @cached_property
    def numbers(self) -> dict[Cell, int]:
        """The number of each cell."""
        return {c: n for n, c in enumerate(self.design.cells)}

    def series(self, cell: Cell, metric: str) -> Array:
        """A metric of a cell's replications on the main host."""
        rows = self._by_cell.get(self.numbers[cell], {})
        return np.array([row[metric] for (host, _), row in sorted(rows.items()) if host == self.host], float)

    def median(self, cell: Cell, metric: str) -> Interval:
        """The median over a cell's replications."""
        return bootstrap(self.series(cell, metric), np.median, self.design.seed)

    def _parts(self, cell: Cell) -> dict[tuple[str, int], Array]:
        rows = self._by_cell.get(self.numbers[cell], {})
        return {k: np.array(row["parts_ns"].split(), float) for k, row in sorted(rows.items())}

    def throughput(self, cell: Cell) -> Interval:
        """Accesses a second.  In a closed loop from the medians of the run's parts over the replications: what other
        work on the host stops for a moment spoils a part of one replication, and not the run."""
        if cell.load is not None:
            return self.median(cell, "per_s")
        parts = [p for (host, _), p in self._parts(cell).items() if host == self.host]
        if not parts:
            return NOTHING
        times = np.array(parts)
        n = float(self.series(cell, "accesses")[0])
        return _over_rows(
            len(times), lambda rows: n * 1e9 / np.median(times[rows], axis=-2).sum(axis=-1), self.design.seed
        )

    def speedup(self, a: Cell, b: Cell) -> Interval:
        """Throughput of a over b's, each replicate of both drawn together."""
        if a.load is not None:
            return self.ratio(a, b, "per_s")
        of_a, of_b = self._parts(a), self._parts(b)
        keys = sorted(of_a.keys() & of_b.keys())
        if not keys:
            return NOTHING
        x, y = np.array([of_a[k] for k in keys]), np.array([of_b[k] for k in keys])
        n = self.rows_of(a)[0]["accesses"] / self.rows_of(b)[0]["accesses"]

        def ratio(rows: Array) -> Array:
            got: Array = n * np.median(y[rows], axis=-2).sum(axis=-1) / np.median(x[rows], axis=-2).sum(axis=-1)
            return got

        return _over_rows(len(keys), ratio, self.design.seed)

    def rows_of(self, cell: Cell) -> list[Row]:
        """A cell's rows, of all hosts."""
        return [row for _, row in sorted(self._by_cell.get(self.numbers[cell], {}).items())]

    def mean(self, cell: Cell, metric: str) -> Interval:
        """The mean over a cell's replications: for counts and CPU time, which a single short run holds too coarsely."""
        return bootstrap(self.series(cell, metric), np.mean, self.design.seed)

    def ratio(self, a: Cell, b: Cell, metric: str) -> Interval:
        """Median of a's metric over b's, replicate by replicate, each pair from one host."""
        of_a, of_b = self._by_cell.get(self.numbers[a], {}), self._by_cell.get(self.numbers[b], {})
        pairs = [(of_a[k][metric], of_b[k][metric]) for k in sorted(of_a.keys() & of_b.keys())]
        logs = [math.log(x / y) for x, y in pairs if x > 0 and y > 0]  # nan compares false
        got = bootstrap(np.array(logs), np.median, self.design.seed)
        return Interval(math.exp(got.value), math.exp(got.low), math.exp(got.high), got.n)

    def ratio_of(self, cell: Cell, a: str, b: str) -> Interval:
        """Median of one metric over another in the same replications."""
        x, y = self.series(cell, a), self.series(cell, b)
        fine = (x > 0) & (y > 0)
        got = bootstrap(np.log(x[fine] / y[fine]), np.median, self.design.seed)
        return Interval(math.exp(got.value), math.exp(got.low), math.exp(got.high), got.n)

    def disagreeing(self) -> list[str]:
        """Loads whose reads did not give the same values in every run: no placement and no path may change them."""
        seen: dict[tuple[Any, ...], set[str]] = {}
        for r in self.rows:
            seen.setdefault((r["mix"], r["write_share"], r["accesses"]), set()).add(r["digest_reads"])
        return [
            f"{mix}" + (f" with write share {share:g}" if share is not None else "")
            for (mix, share, _), d in seen.items()
            if len(d) > 1
        ]

    # ------------------------------------------------------------------ files

    @property
    def columns(self) -> list[str]:
        """Names of all columns: what was set, what came of it, the host."""
        values = list(dict.fromkeys(k for r in self.rows for k in r if k not in FIXED))
        host = list(dict.fromkeys(k for h in self.hosts.values() for k in h))
        return [*FIXED, *values, *(HOST + k for k in host)]

    def flat(self) -> list[Row]:
        """Each row with its host's record."""
        return [{**r, **{HOST + k: _plain(v) for k, v in self.hosts.get(r["host"], {}).items()}} for r in self.rows]

    def write_csv(self, path: Path) -> None:
        """A CSV file; a number in full, nothing for what does not apply.  Raises EngineError."""

        def text(v: Any) -> Any:
            return (
                "" if v is None or (isinstance(v, float) and math.isnan(v)) else repr(v) if isinstance(v, float) else v
            )

        def write(tmp: Path) -> None:
            with tmp.open("w", newline="", encoding="utf-8") as f:
                out = csv.writer(f, lineterminator="\n")
                out.writerow(self.columns)
                for r in self.flat():
                    out.writerow([text(r.get(c)) for c in self.columns])

        _replace(path, write)

    def write_parquet(self, path: Path) -> None:
        """A Parquet file with the same columns; design and host records are in its metadata.  Raises EngineError."""
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        flat = self.flat()
        about = {"study": self.design.as_dict(), "digest": self.design.digest, "hosts": self.hosts}
        types = {
            **dict.fromkeys(("mix", "path", "arrivals", "gather", "wait", "placement", "cpus"), pa.string()),
            "write_share": pa.float64(),
        }
        types |= dict.fromkeys(("load", "batch", "ring", "workers"), pa.int64())
        arrays = [pa.array([r.get(c) for r in flat], types.get(c)) for c in self.columns]
        table = pa.table(dict(zip(self.columns, arrays, strict=True))).replace_schema_metadata(
            {"ioreq-engine": json.dumps(about)}
        )

        def write(tmp: Path) -> None:
            pq.write_table(table, tmp)

        _replace(path, write)

    @staticmethod
    def from_csv(design: Design, path: Path) -> Results:
        """The rows of a CSV file, packed or not, that write_csv made for this design.  Raises UsageError."""
        try:
            packed = path.suffix == ".gz"
            with (
                gzip.open(path, "rt", newline="", encoding="utf-8")
                if packed
                else path.open(newline="", encoding="utf-8") as f
            ):
                raw = list(csv.DictReader(f))
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as e:
            raise UsageError(f"{path}: cannot be read ({reason(e)})") from None
        cells = design.cells
        rows: list[Row] = []
        hosts: dict[str, dict[str, Any]] = {}
        try:
            for r in raw:
                if r["digest"] != design.digest:
                    raise UsageError(
                        f"{path}: results of another experiment than {design.source} (its cells, accesses or seed "
                        "differ)"
                    )
                row = {k: _value(k, v) for k, v in r.items() if not k.startswith(HOST)}
                if any(row[name] != level for name, level in cells[row["cell"]].as_dict().items()):
                    raise ValueError(f"cell {row['cell']} has other factors")
                rows.append(row)
                hosts.setdefault(r["host"], {k.removeprefix(HOST): v for k, v in r.items() if k.startswith(HOST)})
        except (KeyError, TypeError, ValueError, IndexError) as e:
            raise UsageError(f"{path}: not a study's results ({type(e).__name__}: {e})") from None
        if not rows:
            raise UsageError(f"{path}: no results in it")
        return Results(design, rows, hosts)

    def write_hgrm(self, folder: Path) -> None:
        """A HdrHistogram file for each cell and kind of latency, all replications together.  Raises UsageError."""
        edges = _offer.edges()
        for n, c in enumerate(self.design.cells):
            for kind in ("reads", "writes", "age"):
                counts = self.pooled(c, kind, len(edges) - 1)
                if counts.any():
                    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", str(v)) for v in (f"{n:03d}", c.mix, c.path, kind))
                    histogram.write_hgrm(folder, name, edges, counts)

    def pooled(self, cell: Cell, kind: str, size: int) -> Array:
        """A histogram over all of a cell's replications on the main host."""
        out = np.zeros(size, np.uint64)
        n = self.numbers[cell]
        for r, h in zip(self.rows, self.histograms, strict=True):
            if r["cell"] == n and r["host"] == self.host:
                for b, count in h[kind].items():
                    out[int(b)] += np.uint64(count)
        return out


TEXT = {
    "parts_ns",
    "study",
    "digest",
    "digest_reads",
    "host",
    "engine",
    "mix",
    "path",
    "arrivals",
    "gather",
    "wait",
    "placement",
    "cpus",
}
WHOLE = {
    "replicate",
    "cell",
    "load",
    "batch",
    "ring",
    "workers",
    "accesses",
    "reads",
    "writes",
    "switched",
    "age_samples",
}


def _value(key: str, text: str) -> Any:
    if key in TEXT:
        return text or None
    if key in WHOLE or key.startswith("n_"):
        return int(text) if text else None
    return float(text) if text else None if key in FACTORS else math.nan


def _plain(v: Any) -> Any:
    return " ".join(map(str, v)) if isinstance(v, (list, tuple)) else v


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Make a file beside the old one and put it in its place whole.  Raises EngineError."""
    tmp = path.with_name(path.name + ".new")
    try:
        write(tmp)
        tmp.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            os.unlink(tmp)
        raise EngineError(
            f"{path}: cannot be written ({e.strerror or e}); make room and give the same command again"
        ) from None


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all.  Raises EngineError."""
    _replace(path, lambda tmp: void(tmp.write_text(text, encoding="utf-8")))


def void(_: object) -> None:
    """Forget a result."""


def level_text(name: str, level: Any) -> str:
    """A level as people read it."""
    if name == "load":
        return "closed loop" if level is None else f"{rate(level)} offered"
    if level is None:
        return "-"
    if name == "write_share":
        return f"{level:.0%} writes"
    if name in ("batch", "ring", "workers"):
        return f"{name} {level}" if name != "workers" else f"{level} worker{'s' if level > 1 else ''}"
    if name == "cpus":
        return {"apart": "CPUs apart", "together": "one CPU", "free": "unpinned"}[level]
    if name == "gather":
        return "takes what is due" if level == "due" else "waits for a full batch"
    return str(level) if name in ("mix", "path") else f"{name} {level}"


def label(design: Design, block: Block, cell: Cell, without: str = "") -> str:
    """A load in words: its mix, what varies in its block, and what is unlike its path's first cell."""
    names = [n for n in block.varied if n not in ("mix", "path", without)]
    first = next(c for c in design.cells if c.path == cell.path)
    usual = {n: getattr(first, n) for n in ("load", "wait", "workers", "cpus")} | {"arrivals": "even"}
    names += [n for n, v in usual.items() if n not in (*names, without) and getattr(cell, n) not in (None, v)]
    return ", ".join(
        [cell.mix, *(level_text(n, v) for n in names if (v := getattr(cell, n)) is not None or n == "load")]
    )


def rate(per_s: float) -> str:
    """12.3 M/s and the like."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if per_s >= scale:
            return f"{_figures(per_s / scale)} {unit}/s"
    return f"{_figures(per_s)} /s"


def _figures(v: float) -> str:
    """Three figures, no exponent."""
    if v >= 99.95:
        return f"{v:,.0f}"
    return f"{v:.{2 if v < 9.995 else 1}f}".rstrip("0").rstrip(".")


def duration(ns: float) -> str:
    """12.3 us and the like."""
    for unit, scale in (("ns", 1.0), ("us", 1e3), ("ms", 1e6)):
        if ns < 999.5 * scale:
            return f"{ns:.0f} ns" if unit == "ns" else f"{_figures(ns / scale)} {unit}"
    return f"{_figures(ns / 1e9)} s"


def with_interval(i: Interval, show: Callable[[float], str]) -> str:
    """'374 ns (368 ns to 381 ns)'."""
    if not i:
        return "-"
    return f"{show(i.value)} ({show(i.low)} to {show(i.high)})" if i.known else f"{show(i.value)} (one replication)"


def times(v: float) -> str:
    """A ratio: 135, 13.5, 1.35, 0.10 or 0.000072."""
    if v >= 0.1:
        return f"{v:,.0f}" if v >= 100 else f"{v:.{2 if v < 10 else 1}f}"
    return f"{Decimal(f'{v:#.2g}'):f}"


def grouped(cells: Sequence[Cell], names: Sequence[str]) -> dict[tuple[Any, ...], list[Cell]]:
    """Cells by their levels of some factors, in order."""
    out: dict[tuple[Any, ...], list[Cell]] = {}
    for c in cells:
        out.setdefault(tuple(getattr(c, n) for n in names), []).append(c)
    return out
