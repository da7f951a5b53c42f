"""Xen's ioreq pages and KVM's coalesced page as Python objects, both sides of each.

The verbs are the inline functions of _foreign.pxd; front-ends use those.  The classes here serve tests, tools and doubles
of a hypervisor.  Each works on any writable buffer of at least one page: a mapping of the real thing, or a Segment.
The server side is what a device model is; the hypervisor side (`producer=True`) is a double for tests.
"""
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

import numpy as np

from engine._abi import REC
from engine.errors import RingError

IOREQ = np.dtype([("addr", "<u8"), ("data", "<u8"), ("count", "<u4"), ("size", "<u4"), ("vp_eport", "<u4"),
                  ("pad", "<u2"), ("bits", "u1"), ("type", "u1")])
COALESCED = np.dtype([("addr", "<u8"), ("len", "<u4"), ("pio", "<u4"), ("data", "u1", 8)])

TYPE_PIO, TYPE_MEMORY, TYPE_CONFIG = XEN_TYPE_PIO, XEN_TYPE_MEMORY, XEN_TYPE_CONFIG
TYPE_TIMEOFFSET, TYPE_INVALIDATE = XEN_TYPE_TIMEOFFSET, XEN_TYPE_INVALIDATE
BIT_PTR, BIT_READ, BIT_DF, STATE_MASK = XEN_BIT_PTR, XEN_BIT_READ, XEN_BIT_DF, XEN_STATE_MASK
SLOTS, ENTRIES, VCPUS = XEN_SLOTS, KVM_ENTRIES, XEN_VCPUS


cdef class _Pin:
    """Holds a buffer for as long as a view points into it."""
    cdef Py_buffer buf
    cdef bint held

    def __init__(self, source, str what):
        PyObject_GetBuffer(source, &self.buf, PyBUF_WRITABLE)
        self.held = True
        if self.buf.len < FOREIGN_PAGE or <size_t>self.buf.buf & 7:
            raise RingError(f"{what}: a buffer of {self.buf.len} bytes at {<size_t>self.buf.buf:#x}; "
                            f"an aligned page of {FOREIGN_PAGE} is needed")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buf)


cdef object _counters(const ring_counts *c):
    return {"full": c.full, "dropped": c.dropped, "stalled": c.stalled, "bad": c.bad}


cdef class XenBuffered:
    """`XenBuffered(page, atomic=True)`: Xen's buffered page; producer: the hypervisor's side."""

    def __init__(self, page, *, bint producer=False, bint atomic=True):
        cdef _Pin pin = _Pin(page, "Xen buffered page")
        self._buffer = pin
        self.producer = producer
        self.v.page = <xen_buffered *>pin.buf.buf
        self.v.atomic = atomic
        self.v.mine = self.v.page.write_pointer if producer else self.v.page.read_pointer

    @property
    def counters(self):
        return _counters(&self.v.counts)

    @property
    def index(self):
        """This side's pointer."""
        return self.v.mine

    cdef int _side(self, bint producer) except -1:
        if self.producer != producer:
            raise RingError(f"Xen buffered page: only the {'hypervisor' if producer else 'server'} may do this")
        return 0

    cdef _bad(self, what):
        return RingError(f"Xen buffered page: impossible {what}: read pointer {self.v.page.read_pointer}, write pointer "
                         f"{self.v.page.write_pointer}, own {self.v.mine}")

    def peek(self, uint32_t n=XEN_SLOTS):
        """How many of n slots can be read."""
        self._side(False)
        cdef int64_t got = xenbuf_peek(&self.v, n)
        if got < 0:
            raise self._bad("pointers")
        return got

    def take(self, uint32_t k):
        """(slots, REC record) of the entry that begins at the k-th peeked slot."""
        cdef uint8_t[::1] data
        cdef int n
        self._side(False)
        out = np.empty(1, REC)
        data = out.view(np.uint8)
        n = xenbuf_take(&self.v, k, <engine_rec *>&data[0])
        if n < 0:
            raise self._bad(f"entry at slot {k} of {self.v.have}")
        return n, out[0]

    def release(self, uint32_t n):
        """Give the first n peeked slots back."""
        self._side(False)
        if n > self.v.have:
            raise RingError(f"Xen buffered page: release of {n}, {self.v.have} were peeked")
        xenbuf_release(&self.v, n)

    def pop(self):
        """All entries that are there, decoded, as a REC array; they are released."""
        cdef uint32_t n = self.peek(), k = 0
        out = []
        while k < n:
            used, rec = self.take(k)
            out.append(rec)
            k += used
        self.release(n)
        return np.array(out, REC)

    def reserve(self, uint32_t n):
        """n if n slots may be written now, else 0."""
        self._side(True)
        cdef int64_t got = xenbuf_reserve(&self.v, n)
        if got < 0:
            raise self._bad("pointers")
        return got

    def put(self, uint32_t k, uint32_t addr, uint32_t size, uint64_t data, *, uint32_t type=XEN_TYPE_MEMORY,
            bint write=True):
        """Encode an entry into the k-th reserved slot (8 bytes: two slots).  Slots used; 0: not eligible for the page."""
        self._side(True)
        return xenbuf_put(&self.v, k, type, addr, size, write, data)

    def commit(self, uint32_t n):
        """Publish the first n reserved slots."""
        self._side(True)
        xenbuf_commit(&self.v, n)

    def push(self, uint32_t addr, uint32_t size, uint64_t data, *, uint32_t type=XEN_TYPE_MEMORY, bint write=True):
        """Write one entry; False if it is full or not eligible, when Xen would take the synchronous path."""
        cdef uint32_t n = 2 if size == 8 else 1
        if not self.reserve(n) or not self.put(0, addr, size, data, type=type, write=write):
            return False
        self.commit(n)
        return True


cdef class XenSync:
    """`XenSync(page, n_vcpus)`: Xen's synchronous page; producer: the hypervisor's side, with the event channels it gave."""

    def __init__(self, page, int n_vcpus=1, *, bint producer=False, eports=None):
        cdef _Pin pin = _Pin(page, "Xen synchronous page")
        cdef int i
        if not 1 <= n_vcpus <= XEN_VCPUS:
            raise RingError(f"Xen synchronous page: {n_vcpus} vCPUs; 1 to {XEN_VCPUS} fit")
        self._buffer = pin
        self.producer = producer
        self.v.page = <xen_ioreq *>pin.buf.buf
        self.v.n_vcpus = n_vcpus
        self.v.state = <uint32_t *>calloc(n_vcpus, sizeof(uint32_t))
        self.v.eport = <uint32_t *>calloc(n_vcpus, sizeof(uint32_t))
        self.taken = <xen_ioreq *>calloc(n_vcpus, sizeof(xen_ioreq))
        if not (self.v.state and self.v.eport and self.taken):
            raise MemoryError()
        if producer:
            for i in range(n_vcpus):
                self.v.eport[i] = i + 1 if eports is None else eports[i]
                self.v.page[i].vp_eport = self.v.eport[i]

    def __dealloc__(self):
        free(self.v.state)
        free(self.v.eport)
        free(self.taken)

    @property
    def counters(self):
        return _counters(&self.v.counts)

    cdef int _vcpu(self, uint32_t vcpu, bint producer) except -1:
        if self.producer != producer:
            raise RingError(f"Xen synchronous page: only the {'hypervisor' if producer else 'server'} may do this")
        if vcpu >= self.v.n_vcpus:
            raise RingError(f"Xen synchronous page: vCPU {vcpu} of {self.v.n_vcpus}")
        return 0

    def take(self, uint32_t vcpu=0, *, bint again=False):
        """A copy of the request that is ready (an IOREQ record), or None.  again: one a dead server had taken."""
        cdef uint8_t[::1] data
        cdef int st
        self._vcpu(vcpu, False)
        out = np.empty(1, IOREQ)
        data = out.view(np.uint8)
        if again:
            st = xensync_retake(&self.v, vcpu, <xen_ioreq *>&data[0])
        else:
            st = xensync_take(&self.v, vcpu, <xen_ioreq *>&data[0])
        if st < 0:
            raise RingError(f"Xen synchronous page: vCPU {vcpu}: impossible request: type {out[0]['type']}, "
                            f"size {out[0]['size']}")
        if not st:
            return None
        self.taken[vcpu] = (<xen_ioreq *>&data[0])[0]
        return out[0]

    def elements(self, uint32_t vcpu=0):
        """The request taken, element by element: (REC record, guest address of its data or None) each."""
        cdef uint8_t[::1] data
        cdef uint64_t at
        cdef uint32_t i
        cdef int pointer
        self._vcpu(vcpu, False)
        if self.v.state[vcpu] != XEN_STATE_IN_PROCESS:
            raise RingError(f"Xen synchronous page: vCPU {vcpu} has no request in process")
        for i in range(self.taken[vcpu].count):
            out = np.empty(1, REC)
            data = out.view(np.uint8)
            pointer = xen_element(&self.taken[vcpu], i, vcpu, <engine_rec *>&data[0], &at)
            yield out[0], at if pointer else None

    def answer(self, uint32_t vcpu=0, uint64_t data=0):
        """Answer the request taken."""
        self._vcpu(vcpu, False)
        if self.v.state[vcpu] != XEN_STATE_IN_PROCESS:
            raise RingError(f"Xen synchronous page: vCPU {vcpu} has no request in process")
        xensync_answer(&self.v, vcpu, &self.taken[vcpu], data)

    def abandon(self, uint32_t vcpu=0):
        """The emergency release: the guest goes on without an answer."""
        self._vcpu(vcpu, False)
        xensync_abandon(&self.v, vcpu)

    def post(self, uint32_t vcpu, uint64_t addr, uint32_t size, uint64_t data=0, *, uint32_t type=XEN_TYPE_PIO,
             bint write=True, uint32_t count=1, bint pointer=False, bint down=False):
        """Post a request."""
        cdef xen_ioreq r
        self._vcpu(vcpu, True)
        ring_copy(&r, &self.v.page[vcpu], sizeof(r))     # keeps the padding
        r.addr, r.data, r.count, r.size, r.type = addr, data, count, size, <uint8_t>type
        r.bits = <uint8_t>((XEN_BIT_PTR if pointer else 0) | (0 if write else XEN_BIT_READ) | (XEN_BIT_DF if down else 0))
        if xensync_post(&self.v, vcpu, &r) < 0:
            raise RingError(f"Xen synchronous page: vCPU {vcpu}: slot not free, or its event channel was altered")

    def poll(self, uint32_t vcpu=0):
        """The data, or None while the server works (all `size` bytes ones if the server went away)."""
        cdef uint64_t data = 0
        cdef int st
        self._vcpu(vcpu, True)
        st = xensync_poll(&self.v, vcpu, &data)
        if st < 0:
            raise RingError(f"Xen synchronous page: vCPU {vcpu}: state went backwards or is unknown")
        return data if st else None


cdef class KvmCoalesced:
    """`KvmCoalesced(page)`: KVM's coalesced MMIO and PIO writes; producer: KVM's side."""

    def __init__(self, page, *, bint producer=False):
        cdef _Pin pin = _Pin(page, "KVM coalesced page")
        self._buffer = pin
        self.producer = producer
        self.v.page = <kvm_coalesced *>pin.buf.buf
        self.v.mine = self.v.page.last if producer else self.v.page.first
        if self.v.mine >= KVM_ENTRIES:
            raise RingError(f"KVM coalesced page: index {self.v.mine} of {KVM_ENTRIES} entries")

    @property
    def counters(self):
        return _counters(&self.v.counts)

    @property
    def index(self):
        """This side's index."""
        return self.v.mine

    cdef int _side(self, bint producer) except -1:
        if self.producer != producer:
            raise RingError(f"KVM coalesced page: only {'KVM' if producer else 'the server'} may do this")
        return 0

    cdef _bad(self, what):
        return RingError(f"KVM coalesced page: impossible {what}: first {self.v.page.first}, last {self.v.page.last}, "
                         f"own {self.v.mine}, {KVM_ENTRIES} entries")

    def peek(self, uint32_t n=KVM_ENTRIES):
        """How many of n entries can be read."""
        self._side(False)
        cdef int64_t got = kvmco_peek(&self.v, n)
        if got < 0:
            raise self._bad("index")
        return got

    def take(self, uint32_t k):
        """The k-th peeked entry as a REC array of 1 to 3 records."""
        cdef uint8_t[::1] data
        cdef int n
        self._side(False)
        out = np.empty(3, REC)
        data = out.view(np.uint8)
        n = kvmco_take(&self.v, k, <engine_rec *>&data[0])
        if n < 0:
            raise self._bad(f"entry {k} of {self.v.have}")
        return out[:n]

    def release(self, uint32_t n):
        """Give the first n peeked entries back."""
        self._side(False)
        if n > self.v.have:
            raise RingError(f"KVM coalesced page: release of {n}, {self.v.have} were peeked")
        kvmco_release(&self.v, n)

    def pop(self):
        """All entries that are there, decoded, as a REC array; they are released."""
        cdef uint32_t n = self.peek(), k
        out = [self.take(k) for k in range(n)]
        self.release(n)
        return np.concatenate(out) if out else np.empty(0, REC)

    def reserve(self, uint32_t n):
        """How many of n entries may be written now."""
        self._side(True)
        cdef int64_t got = kvmco_reserve(&self.v, n)
        if got < 0:
            raise self._bad("index")
        return got

    def put(self, uint32_t k, uint64_t addr, uint32_t length, uint64_t data, *, bint pio=False):
        """Fill the k-th reserved entry."""
        self._side(True)
        kvmco_put(&self.v, k, addr, length, pio, data)

    def commit(self, uint32_t n):
        """Publish the first n reserved entries."""
        self._side(True)
        kvmco_commit(&self.v, n)

    def push(self, uint64_t addr, uint32_t length, uint64_t data, *, bint pio=False):
        """Write one entry; False if the page is full, when KVM would exit."""
        if not self.reserve(1):
            return False
        self.put(0, addr, length, data, pio=pio)
        self.commit(1)
        return True
