"""What does it cost to send a batch through one worker and have the answers back?

The recording seabios-pc in one batch: records out, devices executing in the worker, interrupts back and forth, answers
home.  Against a raw pair of rings between two processes that makes the same look-ups and the same calls, but keeps no
order between devices and carries no effect.
"""

from __future__ import annotations

import time

from perf.benches._common import Row, accesses, keep, later, machine, pinned, recording, row, turns

AIM = 0.8
RATE_GOAL = 20.0  # M accesses/s on an idle host of the 2-core class (docs/performance.md)
UART_SCR = 0x3FF


def run(quick: bool = False) -> list[Row]:
    """Million accesses a second of the recording, and of one register."""
    r = recording("seabios-pc")
    walk = r.walk()
    rows = []
    rounds = 9 if quick else 40
    with machine(r.job.spec, "batched", contents=r.job.contents) as (m, on):

        def recorded() -> float:
            acc, (inputs, ram) = later(m, r.acc), r.inputs(m)
            with pinned(on[0]):
                start = time.perf_counter()
                m.run(acc, inputs, ram)
                took = time.perf_counter() - start
            m.lines()
            return len(acc) / took / 1e6

        ours, raw = turns(recorded, lambda: len(r.acc) / walk.pair(r.acc, on)[0] / 1e6, rounds)
        rows.append(
            row("batched.seabios-pc", "M/s", ours, "raw pair of rings, same look-ups and calls", raw, None, ">=", AIM)
        )
        rows.append(row("batched.seabios-pc.rate", "M/s", ours, "promised on an idle host", RATE_GOAL, 1.0, ">="))
        keep("batched.seabios-pc", m.sequencer.histogram())
        m.sequencer.clear_histogram()
        same = accesses(200_000, 0, UART_SCR)

        def register() -> float:
            acc = later(m, same)
            with pinned(on[0]):
                start = time.perf_counter()
                m.run(acc)
                return len(acc) / (time.perf_counter() - start) / 1e6

        ours, raw = turns(register, lambda: len(same) / walk.pair(same, on)[0] / 1e6, rounds)
        rows.append(
            row("batched.register", "M/s", ours, "raw pair of rings, same look-ups and calls", raw, None, ">=", AIM)
        )
        keep("batched.register", m.sequencer.histogram())
    return rows
