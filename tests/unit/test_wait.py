"""Waiting policies within one process; the races are in tests/stress/test_ring_two_process.py."""

import os

import numpy as np
import pytest

from engine._abi import REC
from engine._ring import WORKER, Link, Ring
from engine.errors import RingError
from engine.workers._wait import POLICIES, Waiter, crowded


def ends():
    producer = Ring.create("<u8", 4)
    return producer, Ring.attach(producer.segment.fileno(), "<u8")


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_there_already_needs_no_wait(policy):
    producer, consumer = ends()
    waiter = Waiter(policy)
    producer.push([1])
    assert waiter.wait(consumer)
    assert {k: v for k, v in waiter.stats.items() if v} in ({"waits": 1}, {"waits": 1, "crowded": True})


def test_each_side_waits_for_its_own_news():
    producer, consumer = ends()
    waiter = Waiter("block")
    producer.push([1, 2, 3, 4])
    assert not producer.reserve(1)
    consumer.pop()
    assert waiter.wait(producer)
    assert not waiter.wait(consumer)
    assert waiter.stats["timeouts"] == 1


def test_wake_clears_the_flag_of_a_sleeper_and_only_then_calls_the_kernel():
    producer, consumer = ends()
    waiter = Waiter("block")
    waiter.wake(producer)
    assert waiter.stats["wakes"] == 0
    flag = np.frombuffer(producer.segment, "<u4")[384 // 4 : 384 // 4 + 1]
    flag[0] = 1
    waiter.wake(producer)
    assert (waiter.stats["wakes"], flag[0]) == (1, 0)
    assert consumer.index == 0


def test_a_worker_wakes_for_records_posts_and_the_stop_word():
    for act in (
        lambda router: router.push(np.zeros(1, REC)),
        lambda router: router.post(0, np.zeros(1, REC)),
        lambda router: router.stop(),
    ):
        router = Link.create(arena=0)
        worker = Link.attach(router.segment.fileno(), WORKER)
        worker.any_posted()
        assert not Waiter("block").wait(worker)
        act(router)
        assert Waiter("block").wait(worker)


def test_a_router_wakes_for_completions_effects_and_a_slot():
    router = Link.create(arena=0, n_vcpus=2)
    worker = Link.attach(router.segment.fileno(), WORKER)
    waiter = Waiter("block")
    router.push(np.zeros(1, REC))
    router.post(1, np.zeros(1, REC))
    assert not waiter.wait(router)
    assert not waiter.wait(router, vcpu=1)
    worker.take()
    worker.answer([1])
    assert waiter.wait(router)
    worker.take_posted(1)
    assert waiter.wait(router, vcpu=1)
    assert router.poll(1) is None
    worker.answer_posted(1, 5)
    assert waiter.wait(router, vcpu=1)
    with pytest.raises(RingError, match="vCPU 2 of 2"):
        waiter.wait(router, vcpu=2)


def test_one_wait_watches_a_bounded_number_of_words():
    rings = [ends()[1] for _ in range(62)]
    waiter = Waiter("block")
    assert not waiter.wait(*rings)
    with pytest.raises(RingError, match="one wait can watch 64 words"):
        waiter.wait(*rings, *rings)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"policy": "nap"}, "'nap' is not one of spin, adaptive, block"),
        ({"spin_us": -1}, "spin_us"),
        ({"spin_us": 1e9}, "spin_us"),
    ],
)
def test_bad_options_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Waiter(**options)


def test_crowded_is_more_spinners_than_cpus():
    cpus = len(os.sched_getaffinity(0))
    assert not crowded(cpus)
    assert crowded(cpus + 1)
    assert Waiter("spin", threads=cpus + 1).stats["crowded"]
