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

import errno as errors
import fcntl
import os
import stat
import struct

from engine.errors import MachineError, StateError

cdef extern from "<sys/mman.h>" nogil:
    int MAP_NORESERVE

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int fd)

FAILS = ("read", "write", "flush")

# How programs that use an image agree, as QEMU and its tools do (block/file-posix): one that uses right n holds a shared lock on
# byte 100 + n of the file, one that grants it nobody else on byte 200 + n.
RIGHT_READ, RIGHT_WRITE, RIGHT_RESIZE = 0, 1, 3
USED_AT, DENIED_AT = 100, 200
LOCKED = (errors.EAGAIN, errors.EACCES)


def _flock(int kind, int at):
    """struct flock for one byte."""
    return struct.pack("hhxxxxqqixxxx", kind, os.SEEK_SET, at, 1, 0)


def open_image(who, image, bint write=False):
    """A descriptor of a file with sectors, and how many bytes it has.  Raises MachineError, beginning with `who`."""
    try:
        fd = os.open(image, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)    # a pipe would wait
    except (OSError, ValueError, TypeError) as e:
        raise MachineError(f"{who}: image {image!r}: {getattr(e, 'strerror', None) or e}") from None
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise MachineError(f"{who}: image {image!r} is no file with sectors")
        size = os.lseek(fd, 0, os.SEEK_END)
        os.lseek(fd, 0, os.SEEK_SET)
        if size == 0:
            raise MachineError(f"{who}: image {image!r} is empty")
        return fd, size
    except OSError as e:
        os.close(fd)
        raise MachineError(f"{who}: image {image!r}: {e.strerror}") from None
    except MachineError:
        os.close(fd)
        raise


def lock_image(int fd, who, image, bint write=False):
    """Say that the image is in use, until fd is closed or unlocked.  Raises MachineError if somebody writes to it or, to one who
    writes, uses it.  A file system without locks has none to heed."""
    used = (RIGHT_READ, RIGHT_WRITE) if write else (RIGHT_READ,)
    denied = (RIGHT_WRITE, RIGHT_RESIZE)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)      # whoever locks whole files wants them alone
        fcntl.flock(fd, fcntl.LOCK_UN)
        for at in [USED_AT + n for n in used] + [DENIED_AT + n for n in denied]:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, at))
        free = all(struct.unpack_from("h", fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, at)))[0] == fcntl.F_UNLCK
                   for at in [DENIED_AT + n for n in used] + [USED_AT + n for n in denied])
    except OSError as e:
        if e.errno not in LOCKED:
            return
        free = False
    if not free:
        unlock_image(fd)
        raise MachineError(f"{who}: image {image!r} is locked: another program {'uses' if write else 'writes to'} it")


def unlock_image(int fd):
    """Take back what lock_image said."""
    for at in (USED_AT, DENIED_AT):
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhxxxxqqixxxx", fcntl.F_UNLCK, os.SEEK_SET, at, RIGHT_RESIZE + 1, 0))
        except OSError:
            return


def read_image(who, image, uint64_t most):
    """All bytes of an image, which has no more than `most`.  Raises MachineError."""
    fd, size = open_image(who, image)
    with os.fdopen(fd, "rb") as f:
        if size > most:
            raise MachineError(f"{who}: image {image!r} has {size} bytes; there can be {most} at most")
        lock_image(fd, who, image)
        try:
            return f.read(size)
        except OSError as e:
            raise MachineError(f"{who}: image {image!r}: {e.strerror}") from None


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
        self.image = image
        self.fd, self.file_size = open_image(who, image, self.through)
        if size is not None and <uint64_t>size > self.file_size:
            raise MachineError(f"{who}: image {image!r} has {self.file_size} bytes, size says {size}")

    def lock(self, who):
        """The image, if there is one, is in use from now on.  Raises MachineError if somebody else's use is against it."""
        if self.fd >= 0:
            lock_image(self.fd, who, self.image, self.through)

    def unlock(self):
        """The image is no longer in use."""
        if self.fd >= 0:
            unlock_image(self.fd)

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
        """n bytes at byte `at`, both whole sectors.  0, or -1 if they lie outside, or the image is asked and cannot be read."""
        cdef uint64_t done = 0, end, sector
        if at > self.size or n > self.size - at:
            self.errors += 1
            return -1
        if self.fails(FAIL_READ):
            return -1
        while done < n:
            sector = (at + done) // SECTOR
            if self.dirty != NULL and bit(self.dirty, sector):
                memcpy(buf + done, self.written + at + done, SECTOR)
                done += SECTOR
            elif self.fd < 0:
                if bit(self.known, sector):
                    memcpy(buf + done, self.content + at + done, SECTOR)
                else:
                    memset(buf + done, 0, SECTOR)
                done += SECTOR
            else:                            # as far as the image is asked
                end = done + SECTOR
                while end < n and (self.dirty == NULL or not bit(self.dirty, (at + end) // SECTOR)):
                    end += SECTOR
                if self.from_image(at + done, buf + done, end - done):
                    self.errors += 1
                    self.failures += 1
                    return -1
                done = end
        return 0

    cdef int from_image(self, uint64_t at, uint8_t *buf, uint64_t n) noexcept nogil:
        """n bytes of the image, zeros behind the end it had at first.  -1 if it cannot be read, or has become shorter."""
        cdef uint64_t done = 0, want = min(n, self.file_size - at) if at < self.file_size else 0
        cdef ssize_t got
        while done < want:
            got = pread(self.fd, buf + done, want - done, at + done)
            if got < 0 and errno == EINTR:
                continue
            if got <= 0:
                return -1
            done += got
        memset(buf + done, 0, n - done)
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
