"""Types of the shared structures; what each field means is said in _abi.h."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ACC: Final[np.dtype[Any]]
REC: Final[np.dtype[Any]]
NEXT: Final[np.dtype[Any]]
NEXT_CPL: Final[np.dtype[Any]]
CPL: Final[np.dtype[Any]]
EFFECT: Final[np.dtype[Any]]
SLOT: Final[np.dtype[Any]]
MAGIC: Final[int]
VERSION: Final[int]
SIZES: Final[dict[str, int]]

def first_bad(acc: NDArray[Any], spaces: int = 3) -> int: ...
def first_earlier(acc: NDArray[Any], now: int = 0) -> int: ...
