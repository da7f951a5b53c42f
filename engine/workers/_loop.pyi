"""Types of the worker's loop; what it promises is said in _loop.pyx."""

from collections.abc import Sequence
from typing import Final, final

from engine._executor import Executor
from engine._ring import Link

POLICIES: Final[dict[str, int]]

@final
class WorkerLoop:
    def __init__(
        self,
        executor: Executor,
        link: Link,
        unit_numbers: Sequence[int],
        wait: str = "adaptive",
        crowded: bool = False,
    ) -> None: ...
    def serve(self) -> int: ...
    def stamp(self, on: bool) -> None: ...
    def refresh(self) -> None: ...
    @property
    def accesses(self) -> int: ...
    @property
    def executed(self) -> int: ...
