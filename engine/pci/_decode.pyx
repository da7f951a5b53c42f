"""Python views of engine/pci/_decode.pxd, for front-ends, tools and tests."""


def written(uint32_t latch, uint32_t port, uint32_t size, uint64_t value):
    """The CF8h latch after a write."""
    return latch_written(latch, port, size, value)


def read(uint32_t latch, uint32_t size):
    """What a read of CF8h-CFBh gives."""
    return latch_read(latch, size)


def parts(uint32_t port, uint32_t size):
    """The (port, size) of the accesses to the window that one access comes in; behind CFFh they are no longer the window's."""
    cdef uint32_t n
    out = []
    while size:
        n = window_part(port, size)
        out.append((port, n))
        port += n
        size -= n
    return out


def target(uint32_t latch, uint32_t port):
    """(bus << 8 | device << 3 | function, register) that an access at `port` addresses; None while the latch is disabled."""
    cdef uint64_t t = window_target(latch, port)
    return None if t == NO_CONFIG else (int(t >> 32), int(t & 0xffffffff))


def leads_to(uint32_t number, uint32_t secondary, uint32_t subordinate):
    """Whether a bridge with these bus numbers hands configuration accesses for bus `number` on as type 1."""
    return bus_leads_to(number, secondary, subordinate)


def ecam(uint64_t offset):
    """(bus << 8 | device << 3 | function, register) at `offset` within an enhanced configuration window."""
    cdef uint64_t t = ecam_target(offset)
    return int(t >> 32), int(t & 0xffffffff)
