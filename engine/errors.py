"""The one exception tree.  Each message is one line: what, where, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def reason(e: Exception) -> str:
    """Why a file cannot be read, in words, for an error's line that names the file."""
    if isinstance(e, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return str(getattr(e, "strerror", None) or e).partition("\n")[0]


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""


class UsageError(EngineError):
    """A user's mistake: a bad file, option or value.  The command prints the line and exits with 2."""


class MachineError(UsageError):
    """A machine description that cannot be built."""


class TraceError(UsageError):
    """A trace or reference file that cannot be used."""


class StateError(EngineError):
    """A saved state that does not fit the device or the build."""


class RingError(EngineError):
    """A ring or slot whose shared words are impossible: the peer is broken or hostile."""


class WorkerDied(EngineError):
    """A worker process ended before its work was done."""


@contextmanager
def blame(where: str) -> Iterator[None]:
    """What cannot be used, because it is of a wrong kind, is told as a MachineError of this place."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as e:
        name = getattr(e, "filename", None)
        raise MachineError(f"{where}: {f'{name}: ' if name else ''}{reason(e)} ({type(e).__name__})") from e
