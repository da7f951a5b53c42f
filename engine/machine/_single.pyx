"""One access at a time from Python: `Machine.read` and `Machine.write`, compiled, so that a call costs little beside the access."""
cimport cython
from libc.stdint cimport uint32_t, uint64_t

from engine._abi cimport ENGINE_MMIO, ENGINE_PIO
from engine.sequencer cimport Sequencer

from engine.errors import EngineError, UsageError
from engine.types import Space

NOT_RUNNING = "the machine is not running: use `with machine:` or machine.start(); a forked process has to start its own"

IN_USE = "the machine is in use, by another thread or by who is called within an access: one at a time"

SPACES = {key: int(s) for s in Space for key in (int(s), s.name, s.name.lower())}
cdef dict numbers = SPACES


cdef inline uint32_t number(space) except? 0xffff:
    """A space's number.  A name in a program's text is always the same object, which is told sooner than looked up."""
    if space is "pio":
        return ENGINE_PIO
    if space is "mmio":
        return ENGINE_MMIO
    return numbers[space]


cdef inline bint quick(SingleAccess m) except -1:
    """Whether nothing else can run before an access is over: its devices are here, and need no interpreter."""
    if m._router is None or m._busy:
        raise EngineError(NOT_RUNNING if m._router is None else IN_USE)
    return m._router.local is not None and not m._router.python


cdef int alone(SingleAccess m, uint32_t space, uint64_t addr, uint32_t size, bint write, uint64_t *value) except -1:
    """An access while which others may run: they are refused."""
    m._busy = True
    try:
        return m._router.single(space, addr, size, write, value, 0)
    finally:
        m._busy = False


@cython.auto_pickle(False)
cdef class SingleAccess:
    """Base of Machine: what carries its single accesses."""
    cdef Sequencer _router                 # None while the machine does not run
    cdef bint _busy                        # an access, a run or a move of the clock is under way

    def _attach(self, Sequencer router):
        """Accesses go through this sequencer from now on; None: nowhere."""
        self._router = router
        self._busy = False

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
        if quick(self):
            self._router.single(where, at, width, False, &value, 0)
        else:
            alone(self, where, at, width, False, &value)
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
        if quick(self):
            self._router.single(where, at, width, True, &v, 0)
        else:
            alone(self, where, at, width, True, &v)

    def _alone(self, call, *args):
        """A call that may let other threads run, or devices written in Python, while nothing else is under way."""
        if self._busy:
            raise EngineError(IN_USE)
        self._busy = True
        try:
            return call(*args)
        finally:
            self._busy = False
