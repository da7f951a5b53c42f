"""Types of _walk.pyx, which says what is measured."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.machine import Machine

class Walk:
    def __init__(self, machine: Machine) -> None: ...
    @property
    def missed(self) -> int: ...
    @property
    def split(self) -> int: ...
    def local(self, acc: NDArray[Any]) -> tuple[float, NDArray[np.uint64]]: ...
    def pair(
        self, acc: NDArray[Any], cpus: tuple[int, int], batch: int = 64
    ) -> tuple[float, NDArray[np.uint64] | None]: ...
    def oneway(
        self, acc: NDArray[Any], cpus: tuple[int, int], batch: int = 64
    ) -> tuple[float, NDArray[np.uint64] | None]: ...

class Floor:
    def read(self, space: Any, addr: int, size: int = 1) -> int: ...
