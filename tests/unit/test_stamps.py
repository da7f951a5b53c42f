"""What of an access is timed: the option, the stages, and that nothing else changes."""

import numpy as np
import pytest

from engine._abi import ACC
from engine._ring import STAMP
from engine.errors import UsageError
from engine.machine import Machine
from engine.sequencer import STAGES, STAMPS

UART_SCR, PORT80 = 0x3FF, 0x80
N = 640


def batch(m, n=N, addr=UART_SCR, write=False):
    """n accesses; reads from a port and the one before it in turn, so that each is a record in a ring."""
    acc = np.zeros(n, ACC)
    acc["addr"], acc["size"], acc["dir"] = addr - np.arange(n) % 2 * (not write), 1, write
    acc["value"] = np.arange(n) & 0xFF
    acc["t_ns"] = m.clock.now + 1 + np.arange(n)
    return acc


def counts(m):
    return {s: int(m.sequencer.histogram(s).sum()) for s in STAGES}


@pytest.fixture(scope="module", params=["local", "sync", "buffered", "batched"])
def pc(request):
    with Machine.from_file("i440fx", path=request.param, workers=2) as m:
        yield m


def test_none_counts_nothing(pc):
    pc.stamps = "none"
    pc.sequencer.clear_histogram()
    pc.run(batch(pc))
    assert counts(pc) == dict.fromkeys(STAGES, 0)


def test_ends_count_the_whole_and_no_stage(pc):
    pc.stamps = "ends"
    pc.sequencer.clear_histogram()
    pc.run(batch(pc))
    whole = counts(pc)
    assert whole.pop("whole") in {"sync": (N,), "buffered": (N // 67, N // 67 + 1)}.get(pc.path, (N // 64,))
    assert set(whole.values()) == {0}


def test_all_counts_each_stage_of_one_access_in_64(pc):
    pc.stamps = "all"
    pc.sequencer.clear_histogram()
    pc.run(batch(pc))
    got = counts(pc)
    whole = got.pop("whole")
    assert whole == (N if pc.path in ("sync", "buffered") else N // 64)
    assert set(got.values()) == ({0} if pc.path == "local" else {N // 64})


def test_posted_writes_have_stages_when_their_answers_are_seen():
    with Machine.from_file("i440fx", path="buffered", workers=1, stamps="all") as m:
        assert m.stamps == m.sequencer.stamps == "all"
        m.sequencer.clear_histogram()
        m.run(batch(m, addr=PORT80, write=True))
        assert m.sequencer.counters["buffered"] > 0
        assert N // 64 - 1 <= counts(m)["in_worker"] <= N // 64


def test_the_stages_of_an_access_fill_the_whole():
    with Machine.from_file("i440fx", path="sync", workers=1, stamps="all") as m:
        m.sequencer.clear_histogram()
        for _ in range(64 * 20):
            m.sequencer.clear_histogram()
            m.run(batch(m, 1))
            if counts(m)["queued"]:
                break
        edges = m.sequencer.bucket_ticks()
        ticks = {s: int(edges[np.flatnonzero(m.sequencer.histogram(s))[0]]) for s in STAGES}
        stages = sum(ticks[s] for s in STAGES[1:])
        assert 0.9 * stages <= ticks["whole"] <= 1.1 * stages + 64  # lower edges of buckets that are 3 % wide


def test_a_worker_that_lies_cannot_make_a_stage_longer_than_the_access():
    with Machine.from_file("i440fx", path="sync", workers=1) as m:
        link = m.pool.links[0]
        m.sequencer.stamps = "all"  # the worker is not told, so what lies there stays
        at = np.frombuffer(link.segment, np.uint64)[17]  # stamps_at, byte 136
        slot = np.frombuffer(link.segment, STAMP, offset=int(at))[link.capacity :][:1]
        for taken, done in ((0, 0), (2**64 - 1, 0), (0, 2**64 - 1), (2**63, 5)):
            slot["taken"], slot["done"] = taken, done
            m.sequencer.clear_histogram()
            m.run(batch(m))
            last = {s: np.flatnonzero(m.sequencer.histogram(s)).max(initial=0) for s in STAGES}
            assert counts(m)["queued"] == N // 64
            assert max(last.values()) == last["whole"]


def test_what_is_read_does_not_depend_on_it(pc):
    answers = []
    for which in STAMPS:
        pc.stamps = which
        pc.run(batch(pc, 1, write=True))
        values, status, _ = pc.run(batch(pc))
        answers.append((values.tobytes(), status.tobytes()))
    assert len(set(answers)) == 1


def test_what_is_no_choice_is_refused():
    with pytest.raises(UsageError, match="'some': choose one of none, ends, all"):
        Machine.from_file("i440fx", stamps="some")
    with Machine.from_file("i440fx") as m, pytest.raises(UsageError, match="choose one of none, ends, all"):
        m.stamps = "some"
