"""Small recorded guests, made by hand."""

from __future__ import annotations

import json

import numpy as np

from engine._abi import ACC
from engine.frontends.trace import DMA, EVT, IRQ

REGIONS = ["rtc-index|mc146818rtc", "i8042-data|i8042", "pic|isa-i8259", "vga-lowmem|VGA", "rtc-index|mc146818rtc"]


def accesses(*rows):
    """ACC records from (t_ns, address, value, size, space, direction, region)."""
    out = np.zeros(len(rows), ACC)
    for i, (t, addr, value, size, space, way, region) in enumerate(rows):
        out[i] = (t, addr, value, 0, size, space, way, 0, region)
    return out


def records(dtype, *rows):
    """Records of a dtype from tuples."""
    return np.array(list(rows), dtype)


def arrays(**changes):
    """The arrays of a trace of three accesses, an interrupt, a key and four bytes of RAM; `None` leaves one out."""
    out = {
        "acc": accesses(
            (10, 0x70, 0x0F, 1, 0, 1, 0), (20, 0x71, 0, 1, 0, 0, 4), (30, 0xA0000, 7, 4, 1, 1, 3)
        ),
        "regions": np.array(REGIONS),
        "evt": records(EVT, (15, 1, 1, 0), (16, 1, 4, 0x1C)),
        "dma": records(DMA, (2, 0x1000, 0, 4, 1)),
        "dma_data": np.frombuffer(b"boot", np.uint8),
    }  # fmt: skip
    return {k: v for k, v in (out | changes).items() if v is not None}


def golden_arrays(**changes):
    """The arrays of a reference for it."""
    out = {
        "value": np.array([0x0F, 0x55, 7], "<u8"),
        "status": np.array([0, 1, 0], "u1"),
        "vector": np.array([8], "<i8"),
        "irq": records(IRQ, (1, 16, 1, 1, 0, 0)),
    }
    return {k: v for k, v in (out | changes).items() if v is not None}


def write(path, side=None, **changes):
    """A trace file of these arrays, and its side file; its path."""
    np.savez_compressed(path, **arrays(**changes))
    if side is not None:
        path.with_name(path.name.removesuffix(".npz") + ".json").write_text(
            side if isinstance(side, str) else json.dumps(side)
        )
    return path
