"""Latency histograms: quantiles, and the text form that HdrHistogram's tools read (.hgrm)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import UsageError
from engine.measure import _limits
from engine.sequencer import Sequencer

Array = npt.NDArray[Any]
TICKS = 5  # lines for each halving of the distance to 100 %, as HdrHistogram's tools print


def sequencer_edges() -> Array:
    """Lower edges of a sequencer's latency buckets in ns, and behind the last one its end."""
    ticks = [float(x) for x in Sequencer.bucket_ticks()]
    return np.array([*ticks, 2 * ticks[-1] - ticks[-2]]) * (1e9 / _limits.tsc_hz())


def quantile(edges: Array, counts: Array, q: float) -> float:
    """A quantile in ns, linear within its bucket; nan if nothing was counted.  edges: one more than counts."""
    up_to = np.cumsum(counts, dtype=float)
    total = up_to[-1]
    if not total:
        return math.nan
    want = q * total
    i = min(int(np.searchsorted(up_to, want)), len(counts) - 1)
    if not counts[i]:  # q is 0
        i = int(np.flatnonzero(counts)[0])
    inside = (want - (up_to[i] - float(counts[i]))) / float(counts[i])
    low, high = float(edges[i]), float(edges[i + 1])
    at: float = low + min(1.0, max(0.0, inside)) * (high - low)
    return at


def middles(edges: Array) -> Array:
    """The middle of each bucket."""
    e: Array = np.asarray(edges, float)
    middle: Array = (e[:-1] + e[1:]) / 2
    return middle


def mean(edges: Array, counts: Array) -> float:
    """The mean in ns; nan if nothing was counted."""
    total = float(np.sum(counts))
    return float(np.dot(middles(edges), np.asarray(counts, float)) / total) if total else math.nan


def hgrm(edges: Array, counts: Array, unit_ns: float = 1000.0, digits: int = 3) -> str:
    """The percentile distribution as HdrHistogram prints it, values in units of unit_ns (default: microseconds).

    A line's value is the end of the bucket that its percentile lies in, as HdrHistogram's highest equivalent value is.
    """
    counts = np.asarray(counts, np.uint64)
    total = int(counts.sum())
    ends = np.asarray(edges, float)[1:] / unit_ns
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    if total:
        up_to = np.cumsum(counts)
        last = int(np.flatnonzero(counts)[-1])
        at = 0.0
        while True:
            i = min(int(np.searchsorted(up_to, max(1, math.ceil(at * total - 1e-9)))), last)
            share = at if i < last else 1.0
            tail = f" {1 / (1 - share):14.2f}" if share < 1 else ""
            lines.append(f"{ends[i]:12.{digits}f} {share:14.12f} {int(up_to[i]):10d}{tail}")
            if share == 1.0:
                break
            half = 2 ** (math.floor(math.log2(1 / (1 - at))) + 1)
            at += 1 / (TICKS * half)
    mid = middles(edges) / unit_ns
    average = float(np.dot(mid, counts.astype(float)) / total) if total else 0.0
    deviation = math.sqrt(float(np.dot((mid - average) ** 2, counts.astype(float)) / total)) if total else 0.0
    top = float(ends[np.flatnonzero(counts)[-1]]) if total else 0.0
    lines.append(f"#[Mean    = {average:12.{digits}f}, StdDeviation   = {deviation:12.{digits}f}]")
    lines.append(f"#[Max     = {top:12.{digits}f}, Total count    = {total:12d}]")
    lines.append(f"#[Buckets = {1:12d}, SubBuckets     = {len(counts):12d}]")
    return "\n".join(lines) + "\n"


def write_hgrm(folder: Path, name: str, edges: Array, counts: Array) -> Path:
    """NAME.hgrm in a folder, which is made.  Raises UsageError."""
    path = folder / f"{name}.hgrm"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(hgrm(edges, counts))
    except OSError as e:
        raise UsageError(f"{path}: cannot be written ({e.strerror})") from None
    return path
