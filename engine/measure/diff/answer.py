"""python -m engine.measure.diff.answer BOARD [QEMU ARGS]: program on standard input (.npy), answers to standard output.

For BuildSide, which starts it with another build's package.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np

from engine.measure.diff.board import board_of
from engine.measure.diff.sides import EngineSide


def main() -> None:
    """The whole command."""
    program = np.load(io.BytesIO(sys.stdin.buffer.read()))
    arrays: dict[str, Any] = {**EngineSide(board_of(sys.argv[1], sys.argv[2:])).run(program).packed()}
    np.savez(sys.stdout.buffer, **arrays)


if __name__ == "__main__":
    main()
