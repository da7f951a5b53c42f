"""One access at a time from Python: `Machine.read` and `Machine.write`, compiled, so that a call costs little beside the access."""
cimport cython
from libc.stdint cimport uint32_t, uint64_t

from engine._abi cimport ENGINE_MMIO, ENGINE_PIO
from engine.sequencer cimport Sequencer

from engine.errors import EngineError, UsageError
from engine.types import Space

NOT_RUNNING = "the machine is not running: use `with machine:` or machine.start(); a forked process has to start its own"

cdef dict SPACES = {key: int(s) for s in Space for key in (int(s), s.name, s.name.lower())}


cdef inline uint32_t number(space) except? 0xffff:
    """A space's number.  A name in a program's text is always the same object, which is told sooner than looked up."""
    if space is "pio":
        return ENGINE_PIO
    if space is "mmio":
        return ENGINE_MMIO
    return SPACES[space]


@cython.auto_pickle(False)
cdef class SingleAccess:
    """Base of Machine: what carries its single accesses."""
    cdef Sequencer _router                 # None while the machine does not run

    def _attach(self, Sequencer router):
        """Accesses go through this sequencer from now on; None: nowhere."""
        self._router = router

    def read(self, space, addr, size=1):
        """One guest read now.  space: Space, or its name.

        With workers it goes through the slot of the device's owner.
        """
        cdef uint64_t value = 0, at
        cdef uint32_t where, width
        try:
            where, at, width = number(space), addr, size
        except (KeyError, TypeError, OverflowError):
            raise UsageError(
                f"read({space!r}, {addr!r}, {size!r}): spaces are pio, mmio and config; addresses and sizes "
                f"are numbers that are not negative"
            ) from None
        if self._router is None:
            raise EngineError(NOT_RUNNING)
        self._router.single(where, at, width, False, &value, 0)
        return value

    def write(self, space, addr, size, value):
        """One guest write now, as read."""
        cdef uint64_t v, at
        cdef uint32_t where, width
        try:
            where, at, width, v = number(space), addr, size, value
        except (KeyError, TypeError, OverflowError):
            raise UsageError(
                f"write({space!r}, {addr!r}, {size!r}, {value!r}): spaces are pio, mmio and config; numbers are "
                f"not negative and fit 64 bits"
            ) from None
        if self._router is None:
            raise EngineError(NOT_RUNNING)
        self._router.single(where, at, width, True, &v, 0)
