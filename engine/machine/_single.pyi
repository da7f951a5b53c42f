"""Single accesses of a machine."""

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

from engine.sequencer import Sequencer

IN_USE: Final[str]
NOT_RUNNING: Final[str]
SPACES: Final[dict[int | str, int]]
_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")

class SingleAccess:
    def _attach(self, router: Sequencer | None) -> None: ...
    def _alone(self, call: Callable[[*_Args], _Result], *args: *_Args) -> _Result: ...
    def read(self, space: int | str, addr: int, size: int = 1) -> int: ...
    def write(self, space: int | str, addr: int, size: int, value: int) -> None: ...
