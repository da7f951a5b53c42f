"""Sectors behind a drive: an image file, or nothing, under what the guest has written."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SECTOR = 512

cdef enum:                             # Medium.fail_next
    FAIL_READ = 0
    FAIL_WRITE = 1
    FAIL_FLUSH = 2

cdef class Medium:
    cdef readonly uint64_t size        # bytes, a multiple of SECTOR
    cdef readonly bint readonly
    cdef readonly uint64_t errors      # reads and writes that failed
    cdef readonly uint64_t failures    # what the image's file, or fail(), was the reason of
    cdef bint stops                    # a command that meets a failure waits for the host, and is tried again
    cdef bint held                     # flushes wait for the host
    cdef uint32_t fail_next[3]         # how many reads, writes, flushes are still to fail
    cdef int fd                        # the image, or -1
    cdef bint through                  # writes go to the image
    cdef uint64_t file_size            # of the image when it was opened
    cdef object image                  # its path
    cdef uint8_t *content              # sectors learnt or given, where there is no image; sparse
    cdef uint8_t *known                # one bit a sector of content
    cdef uint8_t *written              # sectors the guest wrote, where they do not go to the image; sparse
    cdef uint8_t *dirty                # one bit a sector of written
    cdef int read(self, uint64_t at, uint8_t *buf, uint64_t n) noexcept nogil
    cdef int from_image(self, uint64_t at, uint8_t *buf, uint64_t n) noexcept nogil
    cdef int write(self, uint64_t at, const uint8_t *buf, uint64_t n) noexcept nogil
    cdef bint fails(self, uint32_t what) noexcept nogil
    cdef int flush(self) noexcept nogil
    cdef bint learn(self, uint64_t at, uint64_t value, uint64_t n) noexcept nogil
    cdef dict _runs(self, const uint8_t *bits, const uint8_t *data)
    cdef int _put(self, uint8_t *bits, uint8_t *data, dict runs) except -1
