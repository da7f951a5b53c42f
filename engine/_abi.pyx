"""NumPy dtypes of the structures in engine/_abi.h, whose layouts the C compiler has checked."""
from libc.stdint cimport uint8_t, uint64_t

import numpy as np

from engine._abi cimport *

ACC = np.dtype([("t_ns", "<u8"), ("addr", "<u8"), ("value", "<u8"), ("vcpu", "<u2"), ("size", "u1"), ("space", "u1"), ("dir", "u1"),
                ("flags", "u1"), ("region", "<u2")])
REC = np.dtype([("t_ns", "<u8"), ("addr", "<u8"), ("value", "<u8"), ("region", "<u4"), ("vcpu", "<u2"), ("op", "u1"),
                ("more", "u1")])
NEXT = np.dtype([("t_ns", "<u8"), ("value", "<u8")])
NEXT_CPL = np.dtype([("value", "<u4"), ("status", "u1"), ("pad", "u1", 3)])
CPL = np.dtype([("value", "<u8"), ("seq", "<u4"), ("status", "u1"), ("flags", "u1"), ("pad", "<u2")])
EFFECT = np.dtype([("t_ns", "<u8"), ("cause", "<u8"), ("value", "<u8"), ("addr", "<u4"), ("device", "<u2"), ("pin", "u1"),
                   ("kind", "u1")])
SLOT = np.dtype([("state", "<u4"), ("pad0", "<u4"), ("rec", REC), ("after", "<u8"), ("value", "<u8"), ("status", "<u4"),
                 ("pad1", "<u4")])
MAGIC = ENGINE_ABI_MAGIC
VERSION = ENGINE_ABI_VERSION

SIZES = {"ACC": sizeof(engine_acc), "REC": sizeof(engine_rec), "NEXT": sizeof(engine_next),
         "NEXT_CPL": sizeof(engine_next_cpl), "CPL": sizeof(engine_cpl), "EFFECT": sizeof(engine_effect),
         "SLOT": sizeof(engine_slot)}
for _name, _dtype in (("ACC", ACC), ("REC", REC), ("NEXT", NEXT), ("NEXT_CPL", NEXT_CPL), ("CPL", CPL), ("EFFECT", EFFECT), ("SLOT", SLOT)):
    if _dtype.itemsize != SIZES[_name]:
        raise ImportError(f"engine._abi: {_name} has {_dtype.itemsize} bytes, its C structure {SIZES[_name]}")


def first_bad(acc, uint32_t spaces=3):
    """Index of the first record of an ACC array that no guest can make: a size that is not 1, 2, 4 or 8, a space from `spaces` on, a
    direction that is none, a port above FFFFh, an 8-byte port access, or a time of 2^63 ns or later; -1 if all are possible."""
    cdef const uint8_t[::1] view = np.ascontiguousarray(acc).view(np.uint8).reshape(-1)
    cdef uint64_t i, n = view.shape[0] // sizeof(engine_acc)
    if n == 0:
        return -1
    with nogil:
        i = acc_possible(<const engine_acc *>&view[0], n, spaces)
    return -1 if i == n else i


def first_earlier(acc, uint64_t now=0):
    """Index of the first record of an ACC array whose time lies before the record before it, or before `now`; -1 if none."""
    cdef const uint8_t[::1] view = np.ascontiguousarray(acc).view(np.uint8).reshape(-1)
    cdef uint64_t i, n = view.shape[0] // sizeof(engine_acc)
    cdef const engine_acc *a
    if n == 0:
        return -1
    a = <const engine_acc *>&view[0]
    with nogil:
        for i in range(n):
            if a[i].t_ns < now:
                break
            now = a[i].t_ns
        else:
            i = n
    return -1 if i == n else i
