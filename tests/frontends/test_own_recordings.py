"""The project's own recordings: every read, vector and line as the reference has it, and nothing left out."""

from __future__ import annotations

import pytest

from engine import data
from engine.frontends import replay
from engine.frontends.trace import golden_path, load, load_golden

# Reads, vectors taken, changes of the I/O APIC's inputs.
RECORDED = {
    "seabios-q35-cards": (3029, 106, 225),
    "seabios-pc-plain": (9626, 113, 237),
    "uboot-pc": (19794, 2, 165),
}


@pytest.mark.parametrize("path", ["local", "batched"])
@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_of_our_own_is_replayed_exactly(name: str, path: str) -> None:
    trace = load(data.trace(name))
    job = replay.open_job(trace, load_golden(golden_path(trace), trace), "auto", {})
    replay.learn(job)
    result = replay.replay(job, path, 2).result
    reads, vectors, lines = RECORDED[name]
    assert result["ok"], result["mismatches"]
    assert (result["compared"], result["matching"], result["payload_reads"]) == (reads, reads, 0)
    assert result["vectors"] == {"compared": vectors, "matching": vectors}
    assert result["lines"] == {"compared": lines, "matching": lines}
    assert sum(result["unmodelled"].values()) == 0 and not job.remarks
