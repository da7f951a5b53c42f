"""Types of _fuzz.pyx, which says what they do."""

from typing import Any

import numpy as np
import numpy.typing as npt

from engine._executor import Executor

OP: np.dtype[Any]
READ: int
WRITE: int
INPUT: int
POKE: int
RESET: int
PROBLEMS: dict[int, str]

class Fuzzer:
    now: int
    digest: int
    slowest: int
    slowest_at: int
    effects: int
    def __init__(self, executor: Executor, ram: Any = None, packets: bytes = b"\0") -> None: ...
    @property
    def statuses(self) -> dict[int, int]: ...
    def run(self, ops: npt.NDArray[Any], progress: Any = None) -> tuple[int, str]: ...
