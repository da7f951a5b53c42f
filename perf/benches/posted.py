"""What does a posted write cost, from Python through the ring to the device in a worker?

Writes to two posted regions, a cheap port (80h) and the VGA window, path `buffered`: to one address, which travel as
strings, and to a text screen from its first cell on, which do not.  Against a raw ring of 32-byte records whose
consumer makes the same look-ups and calls, published one by one and 64 at a time.
"""

from __future__ import annotations

import time

import numpy as np

from perf.benches._common import Array, Row, accesses, keep, later, machine, pinned, recording, row, turns

AIM = 0.8
LOADS = {"port80": (0, 0x80, 1), "vga": (1, 0xB8000, 4), "text": (1, 0xB8000, 2)}
CELLS = 2000  # of a text screen, two bytes each


def run(quick: bool = False) -> list[Row]:
    """Million writes a second, until the last has executed."""
    r = recording("seabios-pc")
    walk = r.walk()
    rows = []
    with machine(r.job.spec, "buffered", contents=r.job.contents) as (m, on):
        inputs, ram = r.inputs(m)
        m.path = "batched"
        m.run(later(m, r.acc), inputs, ram)  # the firmware maps the window
        m.path = "buffered"
        for name, (space, addr, size) in LOADS.items():
            m.sequencer.clear_histogram()
            acc = accesses(200_000, space, addr, size, write=True)
            if name == "text":
                acc["addr"] += np.arange(len(acc), dtype=np.uint64) % CELLS * size

            def ours(acc: Array = acc) -> float:
                given = later(m, acc)
                with pinned(on[0]):
                    start = time.perf_counter()
                    m.run(given)
                    return len(given) / (time.perf_counter() - start) / 1e6

            for batch in (1, 64):
                a, b = turns(
                    ours,
                    lambda acc=acc, batch=batch: len(acc) / walk.oneway(acc, on, batch)[0] / 1e6,
                    11 if quick else 40,
                )
                rows.append(
                    row(
                        f"posted.{name}" + (".batch64" if batch > 1 else ""),
                        "M/s",
                        a,
                        f"raw ring, same look-ups and calls, {batch} at a time",
                        b,
                        None,
                        ">=",
                        AIM if batch == 1 else None,
                    )
                )
            keep(f"posted.{name}", m.sequencer.histogram())
    return rows
