"""What a network controller is plugged into: nothing, itself, a file, a TAP interface, a stream."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport FILE

from engine._device cimport io_status
from engine.pci._config cimport PciFunction

cdef enum:
    LONGEST_FRAME = 65550       # bytes without FCS that a back end may offer
    FRAMES_AT_ONCE = 64         # that come in at one moment; more come 1 ns later

# Part of the controller's own state.
cdef struct net_state:
    uint64_t poll_at            # when the descriptor is looked at next; NEVER
    uint32_t next               # first frame of `inject` that has not come in
    uint32_t quiet              # looks in vain since the last frame

cdef class PcapWriter:
    cdef FILE *file
    cdef bytes path
    cdef const char *name       # the same, in `path`
    cdef void put(self, uint64_t now, const uint8_t *p, uint32_t n) noexcept nogil

cdef class NetPort:
    cdef net_state *s
    cdef uint32_t kind
    cdef bint outside           # frames may come in from outside
    cdef bint capturing
    cdef bint recording
    cdef int fd
    cdef uint64_t poll_ns
    cdef PcapWriter capture
    cdef PcapWriter record
    cdef uint8_t *frame         # one frame, behind room for a stream's header
    cdef uint8_t *rest          # what a stream has not taken yet
    cdef uint32_t rest_at
    cdef uint32_t rest_n
    cdef uint8_t *injected      # all frames of `inject`
    cdef uint64_t *times
    cdef uint64_t *places
    cdef uint32_t n_injected
    cdef readonly uint64_t sent         # frames, since the port was built
    cdef readonly uint64_t received
    cdef readonly uint64_t lost         # could not be sent
    cdef void keep_in(self, net_state *s) noexcept
    cdef bint send(self, uint64_t now, const uint8_t *p, uint32_t n) noexcept nogil
    cdef void came(self, uint64_t now, const uint8_t *p, uint32_t n) noexcept nogil
    cdef const uint8_t *take(self, uint64_t now, uint32_t *n) noexcept nogil
    cdef void looked(self, uint64_t now, uint32_t n) noexcept nogil
    cdef void busy(self, uint64_t now) noexcept nogil
    cdef bint due(self, uint64_t now) noexcept nogil
    cdef uint64_t deadline(self, uint64_t now, uint64_t ready_at) noexcept nogil
    cdef void _write_fd(self, const uint8_t *p, uint32_t n) noexcept nogil
    cdef uint32_t _read_fd(self) noexcept nogil


cdef class NetController(PciFunction):
    cdef readonly NetPort net
    cdef uint8_t *rom           # the expansion ROM's bytes
    cdef uint32_t rom_size      # 0: there is none
    cdef bint rom_known         # its bytes were given, or learnt
    cdef io_status rom_read(self, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil


cdef inline uint32_t be16(const uint8_t *p) noexcept nogil:
    return <uint32_t>p[0] << 8 | p[1]


cdef inline void put16(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 8)
    p[1] = <uint8_t>value


cdef inline void add16(uint8_t *p, uint32_t n) noexcept nogil:
    put16(p, be16(p) + n)


cdef inline void add32(uint8_t *p, uint32_t n) noexcept nogil:
    n += be16(p) << 16 | be16(p + 2)
    put16(p, n >> 16)
    put16(p + 2, n)


cdef inline bint is_broadcast(const uint8_t *p) noexcept nogil:
    return (p[0] & p[1] & p[2] & p[3] & p[4] & p[5]) == 0xFF


cdef inline uint64_t words_sum(const uint8_t *p, uint64_t n) noexcept nogil:
    """Sum of n bytes as 16-bit words, as the Internet checksum adds them (RFC 1071), not folded."""
    cdef uint64_t total = 0, i = 0
    while i + 1 < n:
        total += be16(p + i)
        i += 2
    if i < n:
        total += <uint32_t>p[i] << 8
    return total


cdef inline uint32_t folded(uint64_t total) noexcept nogil:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return <uint32_t>total


cdef inline void put_checksum(uint8_t *p, uint32_t n, uint32_t at, uint32_t start, uint32_t end,
                              uint32_t zero=0xFFFF) noexcept nogil:
    """Put the Internet checksum of bytes start to end (0: all) of an n-byte packet at `at`; `zero` is what one of 0 is
    written as: in UDP that would say that there is none."""
    cdef uint32_t total
    if end and end < n:
        n = end + 1
    if at >= n - 1:
        return
    total = folded(words_sum(p + start, n - start) if start < n else 0)
    put16(p + at, total ^ 0xFFFF if total != 0xFFFF else zero)
