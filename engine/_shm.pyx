"""Sealed memory files (memfd) shared between processes.

A segment is made at its final size, sealed against shrinking, growing and further seals, and handed to another process
as a file descriptor: a peer can write any garbage into it but can never take the pages away (no SIGBUS).  No name in
/dev/shm is used, so nothing can be left behind.  Every segment but a raw one begins with an engine_segment line that
attach() checks; the contents after it belong to the kind.
"""
from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport EACCES, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strerror
from posix.unistd cimport close as c_close, getpid

from engine._abi cimport *

import os

from engine.errors import RingError

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* Spelled out: the headers of the oldest supported C libraries lack some of these. */
    #define SHM_MFD_CLOEXEC 1u
    #define SHM_MFD_ALLOW_SEALING 2u
    #define SHM_MFD_NOEXEC_SEAL 8u
    #define SHM_ADD_SEALS 1033
    #define SHM_GET_SEALS 1034
    #define SHM_SEAL_SEAL 1
    #define SHM_SEAL_SHRINK 2
    #define SHM_SEAL_GROW 4
    #define SHM_SEAL_WRITE 8
    #define SHM_SEAL_FUTURE_WRITE 16

    /* A memory file that can be sealed and never executed; kernels before 6.3 do not know the second and get the first. */
    static int shm_memfd(const char *name)
    {
        int fd = (int)syscall(SYS_memfd_create, name, SHM_MFD_CLOEXEC | SHM_MFD_ALLOW_SEALING | SHM_MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL)
            fd = (int)syscall(SYS_memfd_create, name, SHM_MFD_CLOEXEC | SHM_MFD_ALLOW_SEALING);
        return fd;
    }
    static int shm_seal(int fd) { return fcntl(fd, SHM_ADD_SEALS, SHM_SEAL_SHRINK | SHM_SEAL_GROW | SHM_SEAL_SEAL); }
    static int shm_seals(int fd) { return fcntl(fd, SHM_GET_SEALS); }
    static int shm_dup(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }
    static int64_t shm_size(int fd)
    {
        struct stat st;
        return fstat(fd, &st) < 0 ? -1 : (int64_t)st.st_size;
    }
    /* A mapping with an inaccessible page on each side, so that an overrun faults instead of hitting a neighbour. */
    enum { SHM_GUARD = 4096, SHM_HUGE_PAGE = 2 << 20 };
    static void *shm_map(int fd, size_t size, int populate, int huge)
    {
        size_t room = size + 2 * SHM_GUARD + (huge ? SHM_HUGE_PAGE : 0);
        uint8_t *base = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *at, *end;
        if (base == MAP_FAILED)
            return NULL;
        at = base + SHM_GUARD;
        if (huge)
            at = (uint8_t *)(((uintptr_t)at + SHM_HUGE_PAGE - 1) & ~(uintptr_t)(SHM_HUGE_PAGE - 1));
        end = at + size + SHM_GUARD;
        if (at - SHM_GUARD > base)
            munmap(base, (size_t)(at - SHM_GUARD - base));
        if (base + room > end)
            munmap(end, (size_t)(base + room - end));
        if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0), fd, 0) == MAP_FAILED) {
            int err = errno;
            munmap(at - SHM_GUARD, size + 2 * SHM_GUARD);
            errno = err;
            return NULL;
        }
        return at;
    }
    static void shm_unmap(void *p, size_t size) { munmap((uint8_t *)p - SHM_GUARD, size + 2 * SHM_GUARD); }
    static int shm_huge(void *p, size_t size) { return madvise(p, size, MADV_HUGEPAGE); }
    """
    enum:
        SHM_SEAL_SEAL
        SHM_SEAL_SHRINK
        SHM_SEAL_GROW
        SHM_SEAL_WRITE
        SHM_SEAL_FUTURE_WRITE
    int shm_memfd(const char *name) nogil
    int shm_seal(int fd) nogil
    int shm_seals(int fd) nogil
    int shm_dup(int fd) nogil
    long long shm_size(int fd) nogil
    void *shm_map(int fd, size_t size, int populate, int huge) nogil
    void shm_unmap(void *p, size_t size) nogil
    int shm_huge(void *p, size_t size) nogil
    int ftruncate(int fd, long long n) nogil
    int fallocate(int fd, int mode, long long at, long long n) nogil

RAW, LINK, RING, ARENA = ENGINE_SEGMENT_RAW, ENGINE_SEGMENT_LINK, ENGINE_SEGMENT_RING, ENGINE_SEGMENT_ARENA
KINDS = {RAW: "raw", LINK: "link", RING: "ring", ARENA: "arena"}
_REQUIRED = SHM_SEAL_SHRINK | SHM_SEAL_GROW | SHM_SEAL_SEAL
_ADVICE = {
    EMFILE: "this process has too many open files; raise `ulimit -n`",
    ENFILE: "the system has too many open files",
    ENOMEM: "not enough memory; use smaller rings, or raise the memory limit of the container",
    ENOSPC: "not enough memory for the file; use smaller rings, or raise the memory limit of the container",
    EPERM: "the kernel refused it (memory files or their seals are forbidden here, e.g. by a seccomp filter)",
    EACCES: "the kernel refused it (see sysctl vm.memfd_noexec)",
}
_token = object()


def _failed(what, name, int err):
    """One line: what failed, for which segment, why and what to do."""
    why = _ADVICE.get(err) or strerror(err).decode()
    return RingError(f"segment {name!r}: {what} failed: {why}")


cdef class Segment:
    """One mapped memory file.  `Segment.create(name, size)` in one process, `Segment.attach(fd)` in the other."""

    def __cinit__(self):
        self._fd = -1

    def __init__(self, token=None):
        if token is not _token:
            raise TypeError("Segment is made by Segment.create or Segment.attach")

    @staticmethod
    def create(str name, size, uint32_t kind=ENGINE_SEGMENT_RAW, *, uint32_t header_size=sizeof(engine_segment),
               bint prefault=False, bint huge=False):
        """Make, seal and map a memory file of `size` bytes, rounded up to whole pages.

        kind: RAW has no header; the others get their engine_segment line.  prefault: take the pages now, so that a lack
        of memory is an error here and not a fault later.  huge: ask for huge pages; a kernel that has none is no error.
        """
        cdef Segment s = Segment(_token)
        cdef size_t page = os.sysconf("SC_PAGE_SIZE"), n
        cdef engine_segment *h
        cdef bytes label = name.encode()
        if not 0 < size <= 1 << 46:
            raise RingError(f"segment {name!r}: cannot have {size} bytes")
        if kind not in KINDS or (kind != ENGINE_SEGMENT_RAW and (header_size < sizeof(engine_segment)
                                                                 or header_size > size)):
            raise RingError(f"segment {name!r}: kind {kind} with a header of {header_size} bytes cannot be made")
        n = (<size_t>size + page - 1) & ~(page - 1)
        s.name = name
        s.kind = kind
        s._fd = shm_memfd(b"engine-" + label[:200])
        if s._fd < 0:
            raise _failed("memfd_create", name, errno)
        if ftruncate(s._fd, n) < 0:
            raise _failed(f"setting its size to {n} bytes", name, errno)
        if prefault and fallocate(s._fd, 0, 0, n) < 0:
            raise _failed(f"taking {n} bytes", name, errno)
        if shm_seal(s._fd) < 0:
            raise _failed("sealing", name, errno)
        s._map(n, prefault, huge)
        if kind != ENGINE_SEGMENT_RAW:
            h = <engine_segment *>s.mem
            h.version = ENGINE_ABI_VERSION
            h.size = n
            h.kind = kind
            h.header_size = header_size
            h.creator = getpid()
            label = label[:sizeof(h.name) - 1]
            memcpy(h.name, <char *>label, len(label))
            h.magic = ENGINE_ABI_MAGIC
        return s

    @staticmethod
    def attach(int fd, uint32_t kind=ENGINE_SEGMENT_RAW, *, size=None, bint prefault=False):
        """Map a memory file another process made.  The descriptor is duplicated; the caller still owns its own.

        Checked: size, seals, and for kinds with a header the magic, version, size, kind.  RingError names what is wrong.
        """
        cdef Segment s = Segment(_token)
        cdef engine_segment h
        cdef long long n = shm_size(fd)
        cdef int seals
        cdef str name = f"fd {fd}"
        if n < 0:
            raise _failed("fstat", name, errno)
        if n == 0 or n % os.sysconf("SC_PAGE_SIZE"):
            raise RingError(f"segment {name!r}: size {n} is not a whole number of pages")
        if size is not None and n != size:
            raise RingError(f"segment {name!r}: size is {n}, expected {size}")
        seals = shm_seals(fd)
        if seals < 0:
            raise RingError(f"segment {name!r}: not a memory file that can be sealed")
        if seals & _REQUIRED != _REQUIRED:
            missing = [label for bit, label in ((SHM_SEAL_SHRINK, "SHRINK"), (SHM_SEAL_GROW, "GROW"),
                                                (SHM_SEAL_SEAL, "SEAL")) if not seals & bit]
            raise RingError(f"segment {name!r}: seal {' and '.join(missing)} is missing; its maker could resize it")
        if seals & (SHM_SEAL_WRITE | SHM_SEAL_FUTURE_WRITE):
            raise RingError(f"segment {name!r}: sealed against writing")
        s.name = name
        s.kind = kind
        s._fd = shm_dup(fd)
        if s._fd < 0:
            raise _failed("duplicating its descriptor", name, errno)
        s._map(n, prefault, False)
        if kind != ENGINE_SEGMENT_RAW:
            memcpy(&h, s.mem, sizeof(h))
            if h.magic != ENGINE_ABI_MAGIC:
                raise RingError(f"segment {name!r}: magic is {h.magic:#x}, expected {ENGINE_ABI_MAGIC:#x}")
            if h.version != ENGINE_ABI_VERSION:
                raise RingError(f"segment {name!r}: version is {h.version}, this build has {ENGINE_ABI_VERSION}")
            if h.kind != kind:
                raise RingError(f"segment {name!r}: kind is {KINDS.get(h.kind, h.kind)}, expected {KINDS.get(kind, kind)}")
            if h.size != <uint64_t>n:
                raise RingError(f"segment {name!r}: header says {h.size} bytes, the file has {n}")
            if h.header_size < sizeof(h) or h.header_size > <uint64_t>n:
                raise RingError(f"segment {name!r}: header size {h.header_size} is impossible")
            h.name[sizeof(h.name) - 1] = 0
            s.name = (<bytes>h.name).decode("utf-8", "replace")
        return s

    cdef int _map(self, size_t n, bint prefault, bint huge) except -1:
        self.mem = <uint8_t *>shm_map(self._fd, n, prefault and not huge, huge)
        if self.mem == NULL:
            raise _failed(f"mapping {n} bytes", self.name, errno)
        self.size = n
        self.pid = getpid()
        if huge:
            shm_huge(self.mem, n)
            if prefault:
                memset(self.mem, 0, n)      # populates with the advice in force; the file is ours alone and all zero
        return 0

    cdef int check(self) except -1:
        """Refuse use once closed, or in the child of a fork (it would be a second writer of every index)."""
        if self.mem == NULL:
            raise RingError(f"segment {self.name!r}: used after close()")
        if getpid() != self.pid:
            raise RingError(f"segment {self.name!r}: used in process {getpid()} after a fork of {self.pid}; "
                            f"attach() to its descriptor there instead")
        return 0

    def fileno(self):
        """The descriptor to hand to another process; the segment keeps owning it."""
        self.check()
        return self._fd

    @property
    def closed(self):
        return self.mem == NULL

    def close(self):
        """Unmap.  Refused while a buffer of it is out."""
        if self.exports:
            raise BufferError(f"segment {self.name!r}: {self.exports} buffers of it are still in use")
        self._free()

    cdef void _free(self):
        if self.mem != NULL:
            shm_unmap(self.mem, self.size)
            self.mem = NULL
        if self._fd >= 0:
            c_close(self._fd)
            self._fd = -1

    def __dealloc__(self):
        if self.mem != NULL:
            shm_unmap(self.mem, self.size)
        if self._fd >= 0:
            c_close(self._fd)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.check()
        PyBuffer_FillInfo(buffer, self, self.mem, self.size, 0, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1

    def __len__(self):
        return self.size

    def __repr__(self):
        state = "closed" if self.mem == NULL else f"{self.size} bytes"
        return f"<Segment {self.name!r} {KINDS.get(self.kind, self.kind)} {state}>"
