"""Types of the sequencer; the order it keeps is said in sequencer.pyx."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from engine._device import Arena
from engine._dispatch import Dispatcher
from engine._executor import Executor
from engine._ring import Link
from engine.machine.build import Plan

PATHS: Final[dict[str, int]]
POLICIES: Final[dict[str, int]]
RAM: Final[int]
STAMPS: Final[tuple[str, ...]]
STAGES: Final[tuple[str, ...]]
INPUT: Final[np.dtype[Any]]
LINE_CHANGE: Final[np.dtype[Any]]

def vet(acc: NDArray[Any], inputs: NDArray[Any] | None, now: int) -> tuple[int, bool]: ...

@final
class Sequencer:
    check: Callable[[], object] | None
    patience: float
    def __init__(
        self,
        plan: Plan,
        ram: Buffer | None = None,
        executor: Executor | None = None,
        links: Sequence[Link] | None = None,
        owners: Sequence[int] | None = None,
        wait: str = "adaptive",
        crowded: bool = False,
        check: Callable[[], object] | None = None,
        states: Mapping[int, tuple[Arena, int]] | None = None,
    ) -> None: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def map(self) -> Dispatcher: ...
    @property
    def ram_owner(self) -> object: ...
    @property
    def clock(self) -> int: ...
    @property
    def counters(self) -> dict[str, Any]: ...
    def access(self, space: int, addr: int, size: int, write: bool = False, value: int = 0, t_ns: int = 0) -> int: ...
    def run(
        self,
        acc: NDArray[Any],
        inputs: NDArray[Any] | None = None,
        path: str = "local",
        ram_bytes: Buffer | None = None,
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]: ...
    def settle(self, t_ns: int) -> None: ...
    def next_event(self) -> int | None: ...
    def reset(self, cold: bool = False) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def set_state(self, state: dict[str, Any], levels: Sequence[int]) -> None: ...
    def snapshot(self) -> tuple[int, int, list[int], tuple[Any, ...]]: ...
    def restore(self, snapshot: tuple[int, int, list[int], tuple[Any, ...]]) -> None: ...
    @property
    def n_pending_lines(self) -> int: ...
    def take_lines(self) -> NDArray[Any]: ...
    stamps: str
    def histogram(self, stage: str = ...) -> NDArray[np.uint64]: ...
    def clear_histogram(self) -> None: ...
    @staticmethod
    def bucket_ticks() -> NDArray[Any]: ...
