"""Types of the load generator."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Buffer

from engine.sequencer import Sequencer

class Counts:
    def __new__(cls, tsc_hz: float) -> Counts: ...
    def arrays(self) -> dict[str, NDArray[np.uint64]]: ...

def edges() -> NDArray[np.uint64]: ...
def buckets(ns: Iterable[int]) -> list[int]: ...
def stamp_ns(tsc_hz: float) -> float: ...
def offer(
    seq: Sequencer,
    acc: NDArray[Any],
    path: str,
    tsc_hz: float,
    *,
    due: ArrayLike | None = ...,
    batch: int = ...,
    fill: bool = ...,
    age_every: int = ...,
    cpu_every: int = ...,
    inputs: NDArray[Any] | None = ...,
    ram_bytes: Buffer | None = ...,
    meter: Callable[[], float] | None = ...,
) -> dict[str, Any]: ...
