"""NumPy dtypes of the structures in engine/_abi.h, whose layouts the C compiler has checked."""
import numpy as np

from engine._abi cimport *

ACC = np.dtype([("t_ns", "<u8"), ("addr", "<u8"), ("value", "<u8"), ("vcpu", "<u2"), ("size", "u1"), ("space", "u1"), ("dir", "u1"),
                ("flags", "u1"), ("region", "<u2")])
REC = np.dtype([("t_ns", "<u8"), ("addr", "<u8"), ("value", "<u8"), ("region", "<u4"), ("vcpu", "<u2"), ("op", "u1"),
                ("status", "u1")])
CPL = np.dtype([("value", "<u8"), ("seq", "<u4"), ("status", "u1"), ("flags", "u1"), ("pad", "<u2")])
EFFECT = np.dtype([("t_ns", "<u8"), ("cause", "<u8"), ("value", "<u8"), ("addr", "<u4"), ("device", "<u2"), ("pin", "u1"),
                   ("kind", "u1")])
SLOT = np.dtype([("state", "<u4"), ("pad0", "<u4"), ("rec", REC), ("after", "<u8"), ("value", "<u8"), ("status", "<u4"),
                 ("pad1", "<u4")])
MAGIC = ENGINE_ABI_MAGIC
VERSION = ENGINE_ABI_VERSION

SIZES = {"ACC": sizeof(engine_acc), "REC": sizeof(engine_rec), "CPL": sizeof(engine_cpl), "EFFECT": sizeof(engine_effect),
         "SLOT": sizeof(engine_slot)}
for _name, _dtype in (("ACC", ACC), ("REC", REC), ("CPL", CPL), ("EFFECT", EFFECT), ("SLOT", SLOT)):
    if _dtype.itemsize != SIZES[_name]:
        raise ImportError(f"engine._abi: {_name} has {_dtype.itemsize} bytes, its C structure {SIZES[_name]}")
