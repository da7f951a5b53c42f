"""Single accesses of a machine."""

from typing import Final

from engine.sequencer import Sequencer

NOT_RUNNING: Final[str]

class SingleAccess:
    def _attach(self, router: Sequencer | None) -> None: ...
    def read(self, space: int | str, addr: int, size: int = 1) -> int: ...
    def write(self, space: int | str, addr: int, size: int, value: int) -> None: ...
