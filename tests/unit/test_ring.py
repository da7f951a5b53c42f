"""Rings, links and slots within one process: the verbs, their limits, and what they refuse."""

import os
import struct

import numpy as np
import pytest

from engine._abi import EFFECT, REC
from engine._ring import ROUTER, WORKER, Link, Ring, link_layout
from engine._shm import RAW, Segment
from engine.errors import RingError

ITEM = np.dtype([("a", "<u8"), ("b", "<u4"), ("c", "<u4")])
TOP = (1 << 64) - 1
PRODUCED, CONSUMED = 128, 256  # of engine_ring
HDR = {
    "produced": 256,
    "posted": 264,
    "seen": 272,
    "kept": 280,
    "executed": 384,
    "answered": 392,
    "effects_produced": 512,
    "effects_consumed": 640,
}


def ends(capacity=8, dtype="<u8", **options):
    producer = Ring.create(dtype, capacity, **options)
    return producer, Ring.attach(producer.segment.fileno(), dtype)


def poke(segment, offset, value):
    struct.pack_into("<Q", memoryview(segment), offset, value & TOP)


def peek64(segment, offset):
    return struct.unpack_from("<Q", memoryview(segment), offset)[0]


def records(n, first=0):
    out = np.zeros(n, REC)
    out["t_ns"] = np.arange(first, first + n)
    out["addr"] = 0x3F8
    out["value"] = out["t_ns"] * 7
    return out


# ---- single rings ----


def test_items_arrive_in_order_and_once():
    p, c = ends()
    assert p.push([1, 2, 3]) == 3
    assert list(c.pop(2)) == [1, 2]
    assert p.push([4]) == 1
    assert list(c.pop()) == [3, 4]
    assert list(c.pop()) == []


def test_burst_takes_as_many_as_fit_and_counts_full():
    p, c = ends(4)
    assert p.push(range(6)) == 4
    assert p.push([9]) == 0
    assert p.counters == {"full": 2, "dropped": 0, "stalled": 0, "bad": 0}
    assert list(c.pop()) == [0, 1, 2, 3]
    assert p.push([9]) == 1
    assert list(c.pop()) == [9]


def test_bulk_is_all_or_none():
    p, c = ends(4)
    assert p.push([1, 2, 3], bulk=True) == 3
    assert p.push([4, 5], bulk=True) == 0
    assert list(c.pop(4, bulk=True)) == []
    assert list(c.pop(3, bulk=True)) == [1, 2, 3]


def test_reserve_gives_two_views_where_the_ring_wraps():
    p, c = ends(8)
    p.push(range(6))
    c.pop()
    views = p.reserve(5)
    assert [len(v) for v in views] == [2, 3]
    for view, part in zip(views, ([10, 11], [12, 13, 14]), strict=True):
        view[:] = part
    p.commit(5)
    assert [list(v) for v in c.peek(8)] == [[10, 11], [12, 13, 14]]


def test_nothing_is_visible_before_commit_nor_free_before_release():
    p, c = ends(2)
    for view in p.reserve(2):
        view[:] = 7
    assert c.peek(2) == ()
    p.commit(1)
    assert len(c.pop()) == 1
    p.push([8, 8])
    c.peek(2)
    assert p.reserve(1) == ()
    c.release(1)
    assert len(p.reserve(2)) == 1


def test_peeked_views_are_read_only():
    p, c = ends()
    p.push([1])
    (view,) = c.peek(1)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2


def test_commit_and_release_beyond_what_was_granted_are_refused():
    p, c = ends()
    p.reserve(2)
    with pytest.raises(RingError, match="commit of 3, 2 were reserved"):
        p.commit(3)
    p.push([1, 2])
    c.peek(1)
    with pytest.raises(RingError, match="release of 2, 1 were peeked"):
        c.release(2)


def test_each_side_keeps_to_its_verbs():
    p, c = ends()
    with pytest.raises(RingError, match="only the producer"):
        c.reserve(1)
    with pytest.raises(RingError, match="only the consumer"):
        p.peek(1)


@pytest.mark.parametrize("start", [TOP - 2, (1 << 32) - 2, (1 << 63) - 2])
def test_indices_run_free_over_every_edge(start):
    p, c = ends(4, start=start)
    for i in range(20):
        assert p.push([i, i + 1, i + 2]) == 3
        assert list(c.pop()) == [i, i + 1, i + 2]
    assert p.index == c.index == (start + 60) & TOP


def test_structured_items_of_any_multiple_of_eight():
    for dtype in (ITEM, np.dtype("<u8"), np.dtype(("V", 24)), np.dtype([("x", "u1", 40)])):
        p, c = ends(4, dtype)
        data = np.frombuffer(bytes(range(dtype.itemsize * 3 % 256)) * 3, "u1")[: dtype.itemsize * 3].copy().view(dtype)
        assert p.push(data[:3]) == 3
        assert c.pop().tobytes() == data[:3].tobytes()


@pytest.mark.parametrize(
    ("dtype", "capacity", "complaint"),
    [
        ("<u4", 8, "multiple of 8"),
        ("<u8", 6, "not a power of two"),
        ("<u8", 0, "not a power of two"),
        ("<u8", 1 << 30, "not a power of two up to"),
    ],
)
def test_create_refuses(dtype, capacity, complaint):
    with pytest.raises(RingError, match=complaint):
        Ring.create(dtype, capacity)


def test_attach_refuses_another_item_size_and_impossible_headers():
    p = Ring.create("<u8", 8)
    with pytest.raises(RingError, match="items of 8 bytes, expected 16"):
        Ring.attach(p.segment.fileno(), ITEM)
    poke(p.segment, PRODUCED, 9)
    with pytest.raises(RingError, match="impossible indices: produced 9, consumed 0"):
        Ring.attach(p.segment.fileno(), "<u8")
    poke(p.segment, PRODUCED, 0)
    poke(p.segment, 64, 20 << 32 | 8)
    with pytest.raises(RingError, match="do not fit"):
        Ring.attach(p.segment.fileno(), "<u8")


def test_attach_continues_where_the_last_holder_stopped():
    p, c = ends()
    p.push([1, 2, 3])
    c.pop(1)
    again = Ring.attach(p.segment.fileno(), "<u8")
    assert list(again.pop()) == [2, 3]


@pytest.mark.parametrize("index", [9, TOP, 1 << 40, 2])
def test_consumer_refuses_an_impossible_produced_index(index):
    p, c = ends(8)
    p.push([1, 2, 3])
    assert len(c.peek(3)[0]) == 3
    c.release(0)
    poke(p.segment, PRODUCED, index)
    with pytest.raises(RingError, match=f"impossible produced index {index}"):
        c.peek(8)
    assert c.counters["bad"] == 1
    assert peek64(c.segment, 768 + 24) == 1  # its copy for tools
    poke(p.segment, PRODUCED, 3)
    assert list(c.pop()) == [1, 2, 3]  # nothing was changed by the bad word


@pytest.mark.parametrize("index", [4, TOP, 1 << 40])
def test_producer_refuses_an_impossible_consumed_index(index):
    p, _c = ends(4)
    p.push([1, 2, 3])
    poke(p.segment, CONSUMED, index)
    with pytest.raises(RingError, match=f"impossible consumed index {index}"):
        p.reserve(4)
    assert p.counters["bad"] == 1
    poke(p.segment, CONSUMED, 0)
    assert p.push([4, 5]) == 1


def test_own_words_in_shared_memory_are_announcements_only():
    p, c = ends(4)
    p.push([1])
    poke(p.segment, PRODUCED, 4)
    p.push([2])
    assert peek64(p.segment, PRODUCED) == 2
    poke(p.segment, CONSUMED, 77)
    assert list(c.pop()) == [1, 2]
    assert peek64(p.segment, CONSUMED) == 2


def test_a_ring_is_refused_in_the_child_of_a_fork():
    p, c = ends()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            p.push([1])
        except RingError as e:
            code = 0 if "after a fork" in str(e) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(c.pop()) == []


# ---- links ----


def link(**options):
    router = Link.create(**{"requests": 8, "effects": 4, "n_vcpus": 2, "n_units": 3, **options})
    return router, Link.attach(router.segment.fileno(), WORKER)


def serve(worker, n=None):
    got = worker.take(n)
    worker.answer(got["value"] + 1)
    return got


def test_records_execute_and_are_answered_at_their_index():
    router, worker = link()
    sent = records(5)
    assert router.push(sent) == 5
    assert np.array_equal(serve(worker), sent)
    done = router.completions()
    assert list(done["value"]) == [1, 8, 15, 22, 29]
    assert list(done["seq"]) == [0, 1, 2, 3, 4]
    assert router.indices == {
        "produced": 5,
        "executed": 5,
        "seen": 5,
        "kept": 5,
        "posted": 0,
        "answered": 0,
        "effects_produced": 0,
        "effects_consumed": 0,
    }


def test_no_completion_before_it_is_published():
    router, worker = link()
    router.push(records(3))
    worker.take()
    assert len(router.completions()) == 0
    worker.answer([1, 2])
    assert list(router.completions(1)["value"]) == [1]
    assert list(router.completions()["value"]) == [2]
    assert len(router.completions()) == 0


def test_a_full_link_takes_the_rest_after_completions_are_read():
    router, worker = link(requests=4)
    assert router.push(records(6)) == 4
    serve(worker)
    assert router.push(records(1)) == 0  # executed, but the answers have not been read
    router.completions(3)
    assert router.push(records(6, 4)) == 3
    assert router.counters["full"] == 3


def test_status_and_flags_travel():
    router, worker = link()
    router.push(records(2))
    worker.take()
    worker.answer([1, 2], status=[0, 5], flags=1)
    done = router.completions()
    assert (list(done["status"]), list(done["flags"])) == ([0, 5], [1, 1])


def test_worker_cannot_answer_what_was_not_asked():
    router, worker = link()
    router.push(records(1))
    worker.take()
    with pytest.raises(RingError, match="2 answers for 1 records"):
        worker.answer([1, 2])


def test_deadlines_start_at_never_and_are_published():
    router, worker = link()
    assert router.deadlines() == [TOP] * 3
    worker.deadline(1, 12345)
    assert router.deadlines() == [TOP, 12345, TOP]
    with pytest.raises(RingError, match="unit 3 of 3"):
        worker.deadline(3, 0)


def test_effects_travel_and_fill_up():
    router, worker = link()
    fx = np.zeros(6, EFFECT)
    fx["t_ns"] = range(6)
    fx["pin"] = 3
    assert worker.emit(fx) == 4
    assert worker.counters["full"] == 1
    assert list(router.effects(1)["t_ns"]) == [0]
    assert worker.emit(fx[4:]) == 1
    assert list(router.effects()["t_ns"]) == [1, 2, 3, 4]


def test_a_slot_goes_round():
    router, worker = link()
    rec = records(1, 9)
    assert not worker.any_posted() or worker.take_posted(0) is None  # a new worker looks once
    router.post(1, rec)
    assert worker.any_posted()
    assert not worker.any_posted()
    assert worker.take_posted(0) is None
    got, after = worker.take_posted(1)
    assert (got, after) == (rec[0], 0)
    assert worker.take_posted(1) is None
    assert router.poll(1) is None
    worker.answer_posted(1, 0xAB, 2)
    assert router.poll(1) == (0xAB, 2)
    router.post(1, rec)  # free again


def test_a_vcpu_has_one_access_out():
    router, worker = link()
    router.post(0, records(1))
    with pytest.raises(RingError, match="vCPU 0 already has an access out"):
        router.post(0, records(1))
    router.post(1, records(1))
    with pytest.raises(RingError, match="slot 1 has no access in process"):
        worker.answer_posted(1, 0)


def test_a_slot_says_which_records_come_first():
    router, worker = link()
    router.push(records(3))
    router.post(0, records(1))
    _, after = worker.take_posted(0)
    assert after == 3
    assert len(worker.take()) == 3


def test_a_slot_that_waits_for_records_that_are_not_there_is_refused():
    router, worker = link()
    router.push(records(3))
    router.post(0, records(1), after=4)
    with pytest.raises(RingError, match="impossible order of slot 0: the router is broken or hostile"):
        worker.take_posted(0)
    assert worker.counters["bad"] == 1


def test_a_new_worker_takes_over_an_access_in_process():
    router, worker = link()
    router.post(0, records(1, 4))
    worker.take_posted(0)
    assert router.poll(0) is None
    heir = Link.attach(router.segment.fileno(), WORKER)
    assert heir.any_posted()
    assert heir.take_posted(0) is None
    got, _ = heir.take_posted(0, again=True)
    assert got["t_ns"] == 4
    heir.answer_posted(0, 1)
    assert router.poll(0) == (1, 0)


@pytest.mark.parametrize("state", [0, 4, 0xFFFFFFFF])
def test_router_refuses_a_slot_state_that_cannot_be(state):
    router, _worker = link()
    router.post(0, records(1))
    struct.pack_into("<I", memoryview(router.segment), 4096, state)
    with pytest.raises(RingError, match="impossible state of slot 0"):
        router.poll(0)
    assert router.counters["bad"] == 1


def test_router_refuses_a_slot_that_goes_backwards():
    router, worker = link()
    router.post(0, records(1))
    worker.take_posted(0)
    assert router.poll(0) is None
    struct.pack_into("<I", memoryview(router.segment), 4096, 1)
    with pytest.raises(RingError, match="impossible state of slot 0"):
        router.poll(0)


@pytest.mark.parametrize("index", [6, TOP, 1 << 33])
def test_router_refuses_an_impossible_executed_index(index):
    router, _worker = link()
    router.push(records(5))
    poke(router.segment, HDR["executed"], index)
    with pytest.raises(RingError, match="impossible executed index: the worker is broken or hostile"):
        router.completions()


def test_router_refuses_an_executed_index_that_goes_backwards():
    router, worker = link()
    router.push(records(5))
    serve(worker)
    router.completions(2)
    poke(router.segment, HDR["executed"], 3)
    with pytest.raises(RingError, match="impossible executed index"):
        router.completions()


def test_router_refuses_a_completion_of_another_record():
    router, worker = link()
    router.push(records(2))
    serve(worker)
    at = link_layout(2, 3, 3, 2, False)["completions"]
    struct.pack_into("<I", memoryview(router.segment), at + 16 + 8, 77)
    with pytest.raises(RingError, match="impossible completion of record 1"):
        router.completions()


def test_worker_refuses_an_impossible_produced_index():
    router, worker = link()
    router.push(records(2))
    poke(router.segment, HDR["produced"], 9)
    with pytest.raises(RingError, match="impossible produced index: the router is broken or hostile"):
        worker.take()


def test_router_does_not_read_its_own_words_back():
    router, worker = link(requests=4)
    router.push(records(4))
    for word in ("produced", "seen", "kept"):
        poke(router.segment, HDR[word], 3)
    assert router.push(records(1)) == 0
    poke(router.segment, HDR["produced"], 4)
    serve(worker)
    assert len(router.completions()) == 4


def test_records_are_kept_until_a_checkpoint_and_replayed_once():
    router, worker = link(requests=8)
    router.keep(True)
    router.push(records(6))
    serve(worker)
    assert len(router.completions(5)) == 5
    assert router.push(records(3, 6)) == 2  # kept records hold their room
    router.checkpoint(3)
    assert router.push(records(3, 8)) == 3
    with pytest.raises(RingError, match="checkpoint 6 is outside 3 to 5"):
        router.checkpoint(6)
    # the worker dies with an effect on its way; the next one repeats from the checkpoint
    worker.emit(np.zeros(2, EFFECT))
    assert router.rewind() == 3
    assert len(router.effects()) == 0
    heir = Link.attach(router.segment.fileno(), WORKER)
    assert list(heir.take(4)["t_ns"]) == [3, 4, 5, 6]
    heir.answer([40, 50])
    assert len(router.completions()) == 0  # seen before
    heir.answer([60, 70])
    assert list(router.completions()["value"]) == [60, 70]
    assert heir.emit(np.zeros(4, EFFECT)) == 4
    assert len(router.effects()) == 4
    assert list(heir.take()["t_ns"]) == [7, 8, 9, 10]


def test_a_new_worker_does_not_write_over_effects_on_their_way():
    router, worker = link()
    fx = np.zeros(100, EFFECT)
    fx["value"] = np.arange(100)
    n = worker.emit(fx)
    assert 0 < n < 100
    heir = Link.attach(router.segment.fileno(), WORKER)
    assert heir.emit(fx[n:]) == 0
    assert list(router.effects(1)["value"]) == [0]
    assert heir.emit(fx[n:]) == 1
    assert list(router.effects()["value"]) == list(range(1, n + 1))


def test_a_new_router_takes_over():
    router, worker = link()
    router.push(records(5))
    serve(worker, 3)
    router.completions(1)
    router.post(0, records(1))
    heir = Link.attach(router.segment.fileno(), ROUTER)
    assert list(heir.completions()["seq"]) == [1, 2]
    assert heir.push(records(8)) == 6
    worker.take()
    worker.answer(np.zeros(8))
    worker.take_posted(0)
    worker.answer_posted(0, 9)
    assert len(heir.completions()) == 8
    assert heir.poll(0) == (9, 0)


def test_a_stamped_link_has_room_for_every_record_and_slot():
    layout = link_layout(3, 1, 4, 2, True)
    assert layout["size"] - layout["stamps"] >= 16 * (16 + 3)
    assert link_layout(3, 1, 4, 2, False)["stamps"] == 0
    router, worker = link(stamped=True)
    router.push(records(8))
    serve(worker)
    assert len(router.completions()) == 8


def test_stop_is_seen_by_the_worker():
    router, worker = link()
    assert not worker.stopping
    router.stop()
    assert worker.stopping


def test_each_side_of_a_link_keeps_to_its_verbs():
    router, worker = link()
    for call in (
        lambda: router.take(),
        lambda: router.answer([]),
        lambda: router.emit([]),
        lambda: router.deadline(0, 0),
    ):
        with pytest.raises(RingError, match="only the worker"):
            call()
    for call in (
        lambda: worker.push([]),
        lambda: worker.completions(),
        lambda: worker.post(0, records(1)),
        lambda: worker.rewind(),
    ):
        with pytest.raises(RingError, match="only the router"):
            call()


@pytest.mark.parametrize("options", [{"n_vcpus": 0}, {"n_vcpus": 5000}, {"n_units": -1}])
def test_impossible_geometry_is_refused(options):
    with pytest.raises(RingError, match="impossible geometry"):
        link(**options)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (64, "<I", 65),
        (64, "<I", 0xFFFFFFFF),
        (68, "<I", 0xFFFFFFFF),
        (72, "<I", 40),
        (76, "<I", 8),
        (80, "<Q", 0),
        (88, "<Q", 1 << 40),
        (96, "<Q", 4096),
        (104, "<Q", 1),
        (112, "<Q", 8),
        (120, "<Q", 4096),
    ],
)
def test_attach_refuses_a_header_that_does_not_fit_its_geometry(offset, layout, value):
    router, _ = link()
    struct.pack_into(layout, memoryview(router.segment), offset, value)
    with pytest.raises(RingError, match="geometry"):
        Link.attach(router.segment.fileno())


@pytest.mark.parametrize(
    ("word", "value"),
    [("produced", 9), ("executed", 1), ("seen", 1), ("kept", 1), ("effects_produced", 5), ("effects_consumed", 1)],
)
def test_attach_refuses_impossible_indices(word, value):
    router, _ = link()
    poke(router.segment, HDR[word], value)
    with pytest.raises(RingError, match="impossible indices"):
        Link.attach(router.segment.fileno())


def test_attach_refuses_a_segment_of_another_kind():
    raw, ring = Segment.create("a", 8192, RAW), Ring.create("<u8", 8)
    with pytest.raises(RingError, match="magic is 0x0"):
        Link.attach(raw.fileno())
    with pytest.raises(RingError, match="kind is ring, expected link"):
        Link.attach(ring.segment.fileno())
