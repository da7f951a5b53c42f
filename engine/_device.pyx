"""The device contract: base classes, the state arena, the DMA port, the trampoline for devices written in Python."""
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_SetInterrupt
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

import logging

import numpy as np

from engine.errors import MachineError, StateError

STATUS_NAMES = {IO_OK: "ok", IO_NO_REGISTER: "no register", IO_BAD_SIZE: "bad size", IO_UNALIGNED: "unaligned",
                IO_ERROR: "device error", IO_UNCLAIMED: "unclaimed"}
OK, NO_REGISTER, BAD_SIZE, UNALIGNED, ERROR, UNCLAIMED, CONTENT = (
    IO_OK, IO_NO_REGISTER, IO_BAD_SIZE, IO_UNALIGNED, IO_ERROR, IO_UNCLAIMED, IO_CONTENT)
LINE, INTACK, KEY, MESSAGE, PACKET, AUX = (
    INPUT_LINE, INPUT_INTACK, INPUT_KEY, INPUT_MESSAGE, INPUT_PACKET, INPUT_AUX)
POWER_ON, BUS_RESET = RESET_POWER_ON, RESET_BUS

CORE = (("now", "u8"), ("deadline", "u8"), ("levels", "u8"))

cdef enum:
    EFFECTS_MAX = 1 << 20  # effects that one call of a device may make


cdef int more_effects(effect_queue *q) noexcept nogil:
    """Room for more effects of one call: twice as many, up to EFFECTS_MAX.  0, or -1 if there is none."""
    cdef void *p
    if q.cap >= EFFECTS_MAX:
        return -1
    p = realloc(q.items, 2 * q.cap * sizeof(engine_effect))
    if p == NULL:
        return -1
    q.items = <engine_effect *>p
    q.cap *= 2
    return 0


cdef class Arena:
    """Page-aligned memory for guest-visible device state.

    `Arena(size)` owns its block; `Arena.over(buffer)` uses foreign memory (a shared mapping), which it keeps alive.
    Raises MemoryError when more is asked for than there is.  Used by the thread that owns the devices in it; by another
    one, which has an arena over the same memory, while nothing is on the way to that owner.
    """

    def __cinit__(self, size_t size=1 << 16):
        if posix_memalign(<void **>&self.mem, 4096, size):
            raise MemoryError(f"no {size} bytes for device state")
        self.size = size
        self.owner = None

    def __dealloc__(self):
        if self.owner is None:
            free(self.mem)

    @staticmethod
    def over(buffer, size_t used=0):
        """An arena in a writable buffer, of which `used` bytes were given out before."""
        cdef Arena a = Arena.__new__(Arena, 64)
        free(a.mem)
        a.mem = NULL
        a.size = 0
        cdef _View v = _View(buffer)
        a.owner = v
        a.mem = <uint8_t *>v.view.buf
        a.size = v.view.len
        if used > a.size:
            raise ValueError(f"{used} bytes cannot be in use of {a.size}")
        a.used = used
        return a

    cdef void *alloc(self, size_t n) except NULL:
        cdef size_t at = (self.used + 63) & ~<size_t>63
        if n == 0:
            n = 1
        if at + n > self.size:
            raise MemoryError(f"device state: {n} bytes wanted, {self.size - min(at, self.size)} left of {self.size}")
        memset(self.mem + self.used, 0, at + n - self.used)
        self.used = at + n
        return self.mem + at

    def copy(self):
        """The used bytes, for a snapshot within this build."""
        return (<char *>self.mem)[:self.used]

    def restore(self, bytes saved not None):
        """Put back what copy() gave.  Raises StateError if the arena's layout has changed since."""
        if <size_t>len(saved) != self.used:
            raise StateError(f"snapshot of {len(saved)} bytes does not fit an arena of {self.used}")
        memcpy(self.mem, <char *>saved, self.used)

    @property
    def in_use(self):
        """Bytes given out so far."""
        return self.used


cdef class _View:
    """A writable buffer, held."""
    cdef Py_buffer view

    def __cinit__(self, buffer):
        PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef class Dma:
    """A device's only way to guest RAM.

    `ram`: a writable buffer, or None for no RAM.  The first `below_4g` bytes of it lie at guest-physical 0, the rest at
    4 GiB; `below_4g` None puts all of it at 0.  Transfers outside RAM, or while bus mastering is off, read as zeros or
    vanish, and are counted in `refused`.
    """

    def __cinit__(self, ram=None, below_4g=None, *, bint enabled=True):
        cdef _View v
        cdef uint64_t size = 0
        self.enabled = enabled
        if ram is not None:
            v = _View(ram)
            self.owner = v
            self.ram = <uint8_t *>v.view.buf
            size = v.view.len
        self.below_4g = size if below_4g is None else min(<uint64_t>below_4g, size)
        self.above_4g = size - self.below_4g

    cdef uint8_t *_find(self, uint64_t gpa, size_t *n) noexcept nogil:
        """Host address of gpa, and in n how many of the n bytes lie there in one piece; NULL if there is no RAM at gpa, and in n
        how many of them are without."""
        cdef uint64_t left
        if gpa < self.below_4g:
            left = self.below_4g - gpa
            if n[0] > left:
                n[0] = left
            return self.ram + gpa
        gpa -= <uint64_t>1 << 32
        if gpa < self.above_4g:
            left = self.above_4g - gpa
            if n[0] > left:
                n[0] = left
            return self.ram + self.below_4g + gpa
        gpa += <uint64_t>1 << 32
        left = (<uint64_t>1 << 32) - gpa if gpa < <uint64_t>1 << 32 else 0 - gpa    # to 4 GiB, or to where addresses begin again
        if n[0] > left:
            n[0] = left
        return NULL

    cdef int read(self, uint64_t gpa, void *buf, size_t n) noexcept nogil:
        """Copy n bytes at gpa into buf.  0, or -1 if any byte met no RAM (it reads as zero)."""
        cdef uint8_t *to = <uint8_t *>buf
        cdef uint8_t *p
        cdef size_t part
        cdef int rc = 0
        if not self.enabled:
            memset(buf, 0, n)
            self.refused += 1
            return -1
        while n:
            part = n
            p = self._find(gpa, &part)
            if p == NULL:
                memset(to, 0, part)
                rc = -1
            else:
                memcpy(to, p, part)
            to += part
            gpa += part
            n -= part
        if rc:
            self.refused += 1
        return rc

    cdef int write(self, uint64_t gpa, const void *buf, size_t n) noexcept nogil:
        """Copy n bytes from buf to gpa.  0, or -1 if any byte met no RAM (it vanishes)."""
        cdef const uint8_t *at = <const uint8_t *>buf
        cdef uint8_t *p
        cdef size_t part
        cdef int rc = 0
        if not self.enabled:
            self.refused += 1
            return -1
        while n:
            part = n
            p = self._find(gpa, &part)
            if p == NULL:
                rc = -1
            else:
                memcpy(p, at, part)
            at += part
            gpa += part
            n -= part
        if rc:
            self.refused += 1
        return rc

    def read_bytes(self, uint64_t gpa, size_t n):
        """n bytes at gpa, zeros where there is no RAM."""
        out = bytearray(n)
        cdef _View v = _View(out)
        self.read(gpa, v.view.buf, n)
        return bytes(out)

    def write_bytes(self, uint64_t gpa, bytes data not None):
        """Write data at gpa; True if all of it met RAM."""
        return self.write(gpa, <char *>data, len(data)) == 0


cdef class Device:
    """Base of every compiled device.

    Class attributes a part defines:

    TITLE       one line for people
    REGISTERS   tuple of engine.types.Register
    OUT, IN     names of the output and input pins; a pin's number is its place in the tuple
    CONFIG      name -> default of every setting the machine file may give (its type is the default's type)
    STATE       the fields of the state struct after `device_core`, in the struct's order: (name, dtype) or
                (name, dtype, count), dtype as NumPy spells it ("u1" is uint8_t, "u4", "i8", ...)
    VERSION     of the saved state
    MESSAGE_SOURCE, MESSAGE_SINK   it may send message-signalled interrupts to other units; it takes them (the order of
                units is made from this; a message of a part that does not say so ends the run with an error)
    TIMED_RESET its timer may reset the machine; a write that can bring that moment nearer goes to a `barrier` region

    and overrides: regions() if it answers accesses, read, write, on_time, on_input, on_reset, and on_restore().  A
    subclass's __init__ calls Device.__init__, takes its state struct from state_alloc, and ends with self.power_on().
    """
    TITLE = ""
    REGISTERS = ()
    OUT = ()
    IN = ()
    CONFIG = {}
    STATE = ()
    VERSION = 1
    MESSAGE_SOURCE = False
    MESSAGE_SINK = False
    TIMED_RESET = False

    def __init__(self, str id="device", uint32_t rank=0, Arena arena=None, Dma dma=None, **config):
        self.id = id
        self.rank = rank
        self.arena = arena if arena is not None else Arena(1 << 16)
        self.dma = dma if dma is not None else Dma()
        known = dict(type(self).CONFIG)
        for name, value in config.items():
            if name not in known:
                raise MachineError(f"device {id!r}: unknown setting {name!r}; {type(self).__name__} knows "
                                   f"{', '.join(sorted(known)) or 'none'}")
            default = known[name]
            if default is not None and not isinstance(value, type(default)):
                raise MachineError(f"device {id!r}: {name} = {value!r} is no {type(default).__name__}")
            known[name] = value
        self.config = known
        self.core = NULL

    cdef void *state_alloc(self, size_t size) except NULL:
        """The state struct, zeroed, in the owner's arena; its first member is a device_core."""
        cdef size_t want = self.state_dtype().itemsize
        if want != size:
            raise StateError(f"{type(self).__name__}.STATE describes {want} bytes, its struct has {size}")
        self.state_size = size
        self.core = <device_core *>self.arena.alloc(size)
        self.core.deadline = NEVER
        return self.core

    @property
    def state_at(self):
        """Where the state struct lies in the owner's arena."""
        return <uint8_t *>self.core - self.arena.mem

    @classmethod
    def state_dtype(cls):
        """The state struct: CORE and STATE."""
        return np.dtype([f if len(f) == 2 else (f[0], f[1], (f[2],)) for f in CORE + tuple(cls.STATE)], align=True)

    def power_on(self):
        """Power-on reset; the last line of a constructor."""
        if self.core == NULL:
            self.state_alloc(self.state_dtype().itemsize)
        self.on_reset(RESET_POWER_ON)

    def regions(self):
        """The ranges the device answers: a tuple of engine.types.Region; `region` numbers are places in it."""
        return ()

    def connect(self, str name, Device peer):
        """Wire a peer whose values this device pulls; both are in one `same_worker` unit of the board."""
        raise MachineError(f"device {self.id!r}: {type(self).__name__} has no peer {name!r}")

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """A guest read of `size` bytes (within the region's `implements`).  Sets value[0], whose bits above the size
        are ignored, and returns IO_OK, IO_OK | IO_CONTENT, or an error, for which the bus answers."""
        return IO_NO_REGISTER

    cdef uint64_t string_until(self, uint32_t region, uint32_t offset, uint32_t size, bint write) noexcept nogil:
        """For a region that says `strings`: accesses like this one follow each other, from now on.  Before which time, and before the
        deadline, may they be made at once?  0: not at all.  Writes: if the last alone counts.  Reads: by read_string.
        Whatever the answer, nothing has changed."""
        return 0

    cdef uint32_t read_string(self, uint32_t region, uint32_t offset, uint32_t size, uint32_t n, uint64_t *values,
                              io_status *status) noexcept nogil:
        """The next reads of this register, n at most, after string_until has allowed them: as many as have one status (IO_OK, perhaps
        with IO_CONTENT) and do nothing but bring the next value.  values: theirs, bits above the size zero.  How many, at
        least one.  Here all bring the same."""
        cdef uint32_t i
        values[0] = 0
        status[0] = self.read(region, offset, size, values)
        values[0] &= ~<uint64_t>0 >> (64 - 8 * size)
        for i in range(1, n):
            values[i] = values[0]
        return n

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """A guest write; bits of value above the size are zero."""
        return IO_NO_REGISTER

    cdef void on_time(self) noexcept nogil:
        """core.now has reached core.deadline, which the engine has cleared: do what is due, set the next deadline."""
        pass

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        """Something from outside: a line changed, a key, an acknowledge cycle, a message (INPUT_*)."""
        return ~<uint64_t>0

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """Power-on, or the bus's reset line.  Touches exactly what the part's reset touches."""
        pass

    cdef void learn(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        """A recorded guest is about to read `value` here: if the read would deliver content (see IO_CONTENT), keep the
        value as the content at the current position.  Called before the read, with the same arguments."""
        pass

    cdef void emit(self, uint8_t kind, uint8_t pin, uint32_t addr, uint64_t value) noexcept nogil:
        """Queue an effect at core.now.  Nothing happens at once: the executor delivers it after this call returns."""
        cdef engine_effect *e
        cdef effect_queue *q = self.fx
        if q == NULL:
            return
        if q.n >= q.cap and more_effects(q):
            q.lost += 1
            return
        e = &q.items[q.n]
        q.n += 1
        e.t_ns = self.core.now
        e.cause = q.cause
        e.value = value
        e.addr = addr
        e.device = <uint16_t>self.rank
        e.pin = pin
        e.kind = kind

    # ------------------------------------------------------------------ what Python sees

    def on_restore(self):
        """Called after STATE was put back: recompute what is derived.  Makes no effect."""

    def _view(self):
        """The state struct as a NumPy record, writable in place."""
        return np.frombuffer(<char[:self.state_size]><char *>self.core, dtype=self.state_dtype())[0:1]

    def save(self):
        """State as plain values: {"part", "version", field: int or list, ...}.  See restore."""
        rec = self._view()[0]
        out = {"part": type(self).__name__, "version": type(self).VERSION}
        for name in rec.dtype.names:
            out[name] = rec[name].tolist()
        return out

    def restore(self, dict state not None):
        """Put back what save gave.  Raises StateError, and changes nothing, if it is for another part or version, or a
        field is missing, unknown, of another length or out of range.  Lines keep the saved levels without an edge."""
        part, version = state.get("part"), state.get("version")
        if part != type(self).__name__ or version != type(self).VERSION:
            raise StateError(f"{self.id}: state of {part!r:.40} version {version!r:.40} does not fit {type(self).__name__} version "
                             f"{type(self).VERSION}")
        rec = self._view()
        new = rec.copy()
        names = set(rec.dtype.names)
        odd = (set(state) - {"part", "version"}) ^ names
        if odd:
            raise StateError(f"{self.id}: fields missing or unknown: {', '.join(sorted(odd))}")
        for name in rec.dtype.names:
            want = rec.dtype[name]
            try:
                value = np.asarray(state[name], dtype=object)     # a list of large and small integers would become floats
                base = want.base
                if value.shape != want.shape or not all(isinstance(v, (int, np.integer)) for v in value.flat):
                    raise ValueError("wrong shape or kind")
                info = np.iinfo(base)
                if value.size and (min(value.flat) < info.min or max(value.flat) > info.max):
                    raise ValueError("out of range")
                new[name] = value.astype(base)
            except (ValueError, TypeError, OverflowError) as e:
                raise StateError(f"{self.id}: field {name}: {e}") from None
        if new[0]["deadline"] <= new[0]["now"]:     # the engine would fire it through all the time since
            raise StateError(f"{self.id}: field deadline: {new[0]['deadline']} is not after now, {new[0]['now']}")
        rec[:] = new
        self.on_restore()

    def inspect(self):
        """Field names to values, and the levels of the output pins, for people and logs."""
        out = {k: v for k, v in self.save().items() if k not in ("part", "version", "levels")}
        out["pins"] = {name: bool(self.core.levels >> i & 1) for i, name in enumerate(type(self).OUT)}
        return out

    @property
    def now(self):
        """Virtual time of the last input or deadline executed, in ns."""
        return self.core.now

    @property
    def deadline(self):
        """When the device next wants the clock, in ns; None if never."""
        return None if self.core.deadline == NEVER else self.core.deadline


cdef class PyDevice(Device):
    """Base of devices written in Python.

    The subclass defines `read(self, region, offset, size) -> int`, `write(self, region, offset, size, value)`, and, where
    it needs them, `on_time(self)`, `on_input(self, kind, pin, addr, value) -> int | None`, `on_reset(self, kind)`,
    `save`, `restore`.  An exception is logged once for each kind with the access, counted in `errors`, and answered as
    IO_ERROR; it never stops the worker.  State lives in Python attributes; wire lines with `line(pin, level)` and
    deadlines with `call_at(t_ns)`.
    """

    def __init__(self, str id="device", uint32_t rank=0, Arena arena=None, Dma dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        self.state_alloc(sizeof(device_core))
        for name in ("read", "write", "on_time", "on_input", "on_reset"):
            method = getattr(self, name, None)
            if name == "read":
                self._read = method
            elif name == "write":
                self._write = method
            elif name == "on_time":
                self._on_time = method
            elif name == "on_input":
                self._on_input = method
            else:
                self._on_reset = method
        self.setup()
        self.power_on()

    def setup(self):
        """Called once before the power-on reset: make the attributes."""

    def line(self, uint32_t pin, bint level):
        """Drive output `pin`."""
        if pin >= len(type(self).OUT):
            raise IndexError(f"{self.id}: there is no output pin {pin}")
        self.set_line(pin, level)

    def call_at(self, t_ns):
        """Ask for on_time at t_ns; None takes the wish back."""
        if t_ns is None:
            self.core.deadline = NEVER
        else:
            self.set_deadline(min(int(t_ns), <uint64_t>NEVER - 1))

    cdef void _failed(self, str what, e):
        # Nothing may pass: what leaves a noexcept function is printed, and a SystemExit that is printed ends the process.
        self.errors += 1
        if isinstance(e, KeyboardInterrupt):
            PyErr_SetInterrupt()                   # raised again where Python code runs next
            return
        kind = type(e)
        if self.last_error is None or type(self.last_error) is not kind:
            logging.getLogger("engine.device").error("%s: %s raised %s: %s", self.id, what, kind.__name__, e)
        self.last_error = e

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        with gil:
            if self._read is None:
                return IO_NO_REGISTER
            try:
                v = self._read(region, offset, size)
                if v is None:
                    return IO_NO_REGISTER
                value[0] = <uint64_t>(int(v) & 0xFFFFFFFFFFFFFFFF)
                return IO_OK
            except BaseException as e:
                self._failed(f"read of {size} bytes at offset {offset:#x} of region {region}", e)
                return IO_ERROR

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        with gil:
            if self._write is None:
                return IO_NO_REGISTER
            try:
                self._write(region, offset, size, value)
                return IO_OK
            except BaseException as e:
                self._failed(f"write of {value:#x} ({size} bytes) at offset {offset:#x} of region {region}", e)
                return IO_ERROR

    cdef void on_time(self) noexcept nogil:
        with gil:
            if self._on_time is not None:
                try:
                    self._on_time()
                except BaseException as e:
                    self._failed("on_time", e)

    cdef uint64_t on_input(self, uint32_t kind, uint32_t pin, uint64_t addr, uint64_t value) noexcept nogil:
        with gil:
            if self._on_input is not None:
                try:
                    v = self._on_input(kind, pin, addr, value)
                    if v is not None:
                        return <uint64_t>(int(v) & 0xFFFFFFFFFFFFFFFF)
                except BaseException as e:
                    self._failed("on_input", e)
            return ~<uint64_t>0

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        with gil:
            if self._on_reset is not None:
                try:
                    self._on_reset(int(kind))
                except BaseException as e:
                    self._failed("on_reset", e)
