"""Sectors behind a drive.

Three layers, looked at from the top: what the guest has written (kept in memory, unless the image is opened for writing),
what is known of the medium (an image file, or contents learnt or given), zeros.  Memory is a private mapping without
reserve, so that a layer costs only the sectors in it and nothing is allocated while a guest runs.  Used by the thread that
owns the drive.  A medium is no device state: save() of a drive does not hold it, contents() and written() here do.
"""
from libc.errno cimport EINTR, errno
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close, pread, pwrite

import os
import stat

from engine.errors import MachineError, StateError

cdef extern from "<sys/mman.h>" nogil:
    int MAP_NORESERVE

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int fd)

FAILS = ("read", "write", "flush")


cdef inline bint bit(const uint8_t *bits, uint64_t n) noexcept nogil:
    return bits[n >> 3] >> (n & 7) & 1


cdef inline void set_bit(uint8_t *bits, uint64_t n) noexcept nogil:
    bits[n >> 3] |= <uint8_t>(1 << (n & 7))


cdef uint8_t *sparse(uint64_t n) except NULL:
    """n zeroed bytes that take memory only where they are touched."""
    cdef void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if p == MAP_FAILED:
        raise MemoryError()
    return <uint8_t *>p


cdef class Medium:
    """`Medium(who, size=None, image=None, readonly=False, write=False)`.

    size: bytes, rounded up to whole sectors; None: that of the image.  image: path of a raw file.  write: the guest's
    writes go to the file.  Raises MachineError, beginning with `who`, for an image that is missing, short or cannot be used.
    """

    def __cinit__(self):
        self.fd = -1

    def __init__(self, str who, size=None, image=None, bint readonly=False, bint write=False):
        cdef uint64_t sectors
        if write and (image is None or readonly):
            raise MachineError(f"{who}: write = true needs an image that is not read-only")
        if image is None and size is None:
            raise MachineError(f"{who}: give the size in bytes, or an image")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 0 < size < 1 << 57):
            raise MachineError(f"{who}: size = {size!r} is no number of bytes a drive can have")
        self.readonly = readonly
        self.through = write
        if image is not None:
            self._open(who, image, size)
            size = self.file_size if size is None else size
        sectors = (<uint64_t>size + SECTOR - 1) // SECTOR
        self.size = sectors * SECTOR
        try:
            if image is None:
                self.content = sparse(self.size)
                self.known = sparse(sectors // 8 + 1)
            if not readonly and not write:
                self.written = sparse(self.size)
                self.dirty = sparse(sectors // 8 + 1)
        except MemoryError:
            raise MachineError(f"{who}: no address space for a medium of {self.size} bytes") from None

    def _open(self, who, image, size):
        try:
            self.fd = os.open(image, (os.O_RDWR if self.through else os.O_RDONLY) | os.O_CLOEXEC)
            st = os.fstat(self.fd)
            self.file_size = os.lseek(self.fd, 0, os.SEEK_END)
        except (OSError, ValueError, TypeError) as e:
            raise MachineError(f"{who}: image {image!r}: {getattr(e, 'strerror', None) or e}") from None
        if not (stat.S_ISREG(st.st_mode) or stat.S_ISBLK(st.st_mode)):
            raise MachineError(f"{who}: image {image!r} is no file with sectors")
        if self.file_size == 0:
            raise MachineError(f"{who}: image {image!r} is empty")
        if size is not None and <uint64_t>size > self.file_size:
            raise MachineError(f"{who}: image {image!r} has {self.file_size} bytes, size says {size}")

    def __dealloc__(self):
        cdef uint64_t bits = self.size // SECTOR // 8 + 1
        if self.content != NULL:
            munmap(self.content, self.size)
        if self.known != NULL:
            munmap(self.known, bits)
        if self.written != NULL:
            munmap(self.written, self.size)
        if self.dirty != NULL:
            munmap(self.dirty, bits)
        if self.fd >= 0:
            close(self.fd)

    cdef int read(self, uint64_t at, uint8_t *buf, uint64_t n) noexcept nogil:
        """n bytes at byte `at`, both whole sectors.  0, or -1 if they lie outside or the image cannot be read."""
        cdef uint64_t i, done = 0, want
        cdef ssize_t got
        if at > self.size or n > self.size - at:
            self.errors += 1
            return -1
        if self.fails(FAIL_READ):
            return -1
        if self.fd >= 0:
            want = min(n, self.file_size - at) if at < self.file_size else 0
            while done < want:
                got = pread(self.fd, buf + done, want - done, at + done)
                if got < 0 and errno == EINTR:
                    continue
                if got <= 0:             # an error, or the file has become shorter
                    self.errors += 1
                    self.failures += 1
                    return -1
                done += got
            memset(buf + done, 0, n - done)
        for i in range(n // SECTOR):
            if self.dirty != NULL and bit(self.dirty, at // SECTOR + i):
                memcpy(buf + i * SECTOR, self.written + at + i * SECTOR, SECTOR)
            elif self.fd < 0:
                if bit(self.known, at // SECTOR + i):
                    memcpy(buf + i * SECTOR, self.content + at + i * SECTOR, SECTOR)
                else:
                    memset(buf + i * SECTOR, 0, SECTOR)
        return 0

    cdef int write(self, uint64_t at, const uint8_t *buf, uint64_t n) noexcept nogil:
        """Write n bytes at byte `at`, both whole sectors.  0, or -1 if they lie outside, or cannot be written."""
        cdef uint64_t i, done = 0, want
        cdef ssize_t put
        if self.readonly or at > self.size or n > self.size - at:
            self.errors += 1
            return -1
        if self.fails(FAIL_WRITE):
            return -1
        if not self.through:
            memcpy(self.written + at, buf, n)
            for i in range(n // SECTOR):
                set_bit(self.dirty, at // SECTOR + i)
            return 0
        want = min(n, self.file_size - at) if at < self.file_size else 0
        while done < want:
            put = pwrite(self.fd, buf + done, want - done, at + done)
            if put < 0 and errno == EINTR:
                continue
            if put <= 0:
                self.errors += 1
                self.failures += 1
                return -1
            done += put
        return 0

    cdef int flush(self) noexcept nogil:
        """What was written has reached the image when this returns 0.  -1: it has not; 1: the host has yet to let it."""
        if self.held:
            return 1
        if self.fails(FAIL_FLUSH):
            return -1
        if self.through and fdatasync(self.fd):
            self.failures += 1
            return -1
        return 0

    cdef bint fails(self, uint32_t what) noexcept nogil:
        """Does this one fail, as fail() wishes?"""
        if not self.fail_next[what]:
            return False
        self.fail_next[what] -= 1
        self.errors += 1
        self.failures += 1
        return True

    def fail(self, str what, uint32_t times=1):
        """Let the next reads, writes or flushes fail, as if the image's file could not be used: for tests of drivers.  Raises
        ValueError for another word."""
        self.fail_next[FAILS.index(what)] = times

    def hold(self, bint on):
        """Let flushes wait, or let them pass again: those that wait go on when the drive is told to resume."""
        self.held = on

    def wait_for_host(self, bint on):
        """Whether a command that meets a failure waits for the host, instead of failing."""
        self.stops = on

    cdef bint learn(self, uint64_t at, uint64_t value, uint64_t n) noexcept nogil:
        """The n low bytes of value are what the medium holds at `at`.  False, and nothing is kept, if an image or the guest
        itself has said what is there."""
        if self.fd >= 0 or at >= self.size or n > SECTOR - at % SECTOR:
            return False
        if self.dirty != NULL and bit(self.dirty, at // SECTOR):
            return False
        memcpy(self.content + at, &value, n)
        set_bit(self.known, at // SECTOR)
        return True

    # ------------------------------------------------------------------ for Python

    def read_bytes(self, uint64_t at, uint64_t n):
        """n bytes at byte `at`, both whole sectors.  Raises ValueError where the medium has none."""
        out = bytearray(n)
        cdef uint8_t *p = out
        if at % SECTOR or n % SECTOR or self.read(at, p, n):
            raise ValueError(f"no {n} bytes at {at} on a medium of {self.size}")
        return bytes(out)

    def contents(self):
        """What was learnt or given, where there is no image: {first sector: bytes of a run of 512-byte sectors}."""
        return {} if self.known == NULL else self._runs(self.known, self.content)

    def set_contents(self, dict runs not None):
        """Add contents, as contents() gives them.  Raises StateError for what does not fit, or over an image."""
        if runs and self.known == NULL:
            raise StateError("a drive with an image takes no contents")
        self._put(self.known, self.content, runs)

    def written_sectors(self):
        """What the guest wrote and no file holds: {first sector: bytes of a run of 512-byte sectors}."""
        return {} if self.dirty == NULL else self._runs(self.dirty, self.written)

    def set_written_sectors(self, dict runs not None):
        """Replace what the guest wrote.  Raises StateError for what does not fit."""
        if runs and self.dirty == NULL:
            raise StateError("this drive keeps no writes in memory")
        if self.dirty != NULL:
            memset(self.dirty, 0, self.size // SECTOR // 8 + 1)
        self._put(self.dirty, self.written, runs)

    cdef dict _runs(self, const uint8_t *bits, const uint8_t *data):
        cdef uint64_t i = 0, first, n = self.size // SECTOR
        out = {}
        while i < n:
            if not bit(bits, i):
                i += 1 if i & 7 or bits[i >> 3] else 8
                continue
            first = i
            while i < n and bit(bits, i):
                i += 1
            out[first] = <bytes>(<char *>data + first * SECTOR)[:(i - first) * SECTOR]
        return out

    cdef int _put(self, uint8_t *bits, uint8_t *data, dict runs) except -1:
        cdef uint64_t first, i, n
        for at, run in runs.items():
            if not isinstance(at, int) or not isinstance(run, bytes) or len(run) % SECTOR or not (
                    0 <= at and at * SECTOR + len(run) <= self.size):
                raise StateError(f"contents at sector {at!r} do not fit a medium of {self.size // SECTOR} sectors")
        for at, run in runs.items():
            first = at
            n = len(run) // SECTOR
            memcpy(data + first * SECTOR, <char *>run, n * SECTOR)
            for i in range(n):
                set_bit(bits, first + i)
        return 0
