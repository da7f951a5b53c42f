"""Waiting policies within one process; the races are in tests/stress/test_ring_two_process.py."""

import os
import threading
import time

import numpy as np
import pytest

from engine._abi import REC
from engine._ring import WORKER, Link, Ring
from engine.errors import RingError
from engine.workers._wait import POLICIES, Waiter, chosen, crowded


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
        router = Link.create()
        worker = Link.attach(router.segment.fileno(), WORKER)
        worker.any_posted()
        assert not Waiter("block").wait(worker)
        act(router)
        assert Waiter("block").wait(worker)


def test_a_router_wakes_for_completions_effects_and_a_slot():
    router = Link.create(n_vcpus=2)
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


WAKE = 25_000  # ns


def price(gap):
    """ns that a sleep costs where all waits are so long: the delay, for two, and for what comes meanwhile."""
    return 2 * WAKE + WAKE * WAKE // (2 * min(gap, 2 * WAKE))


def cost(gaps, spins):
    """ns that waits of these lengths cost with these times of spinning before the sleep."""
    return sum(g if g <= s else s + 2 * WAKE for g, s in zip(gaps, spins, strict=True))


@pytest.mark.parametrize("gap", [500, 5_000, 20_000, 40_000, 60_000, 100_000, 1_000_000, 50_000_000])
def test_on_a_steady_load_the_adaptive_policy_does_what_is_cheaper(gap):
    spins = chosen([gap] * 101, WAKE)[1:]  # behind the first it knows nothing
    assert cost([gap] * 100, spins) == min(gap, 2 * WAKE) * 100
    assert (spins[-1] >= gap) == (gap <= 2 * WAKE)


def test_the_adaptive_policy_sleeps_at_once_until_a_wait_was_short():
    assert chosen([1_000_000] * 3, WAKE) == [0, 0, 0]
    assert chosen([20_000] * 3, WAKE) == [0, price(20_000), price(20_000)]
    assert chosen([5_000] * 3, WAKE) == [0, price(5_000) // 8, price(5_000) // 8]  # as good, and sooner over


def test_the_quicker_the_load_the_more_a_sleep_costs():
    assert [chosen([gap] * 5, WAKE)[-1] for gap in (10_000, 20_000, 40_000)] == [
        price(10_000) // 8,
        price(20_000),
        price(40_000),
    ]
    assert price(1_000) > 4 * price(10_000) > 4 * price(20_000) > 4 * price(40_000) > 8 * WAKE


@pytest.mark.parametrize("short", [1_000, 10_000, 40_000])
@pytest.mark.parametrize("burst", [1, 2, 4, 20, 200])
def test_bursts_and_pauses_cost_less_than_twice_the_better_policy(short, burst):
    gaps = ([short] * burst + [10_000_000]) * (4000 // burst)
    assert cost(gaps, chosen(gaps, WAKE)) <= 2 * min(cost(gaps, [0] * len(gaps)), sum(gaps))


def test_a_pause_of_many_slices_is_forgotten_within_some_waits():
    gaps = [10_000] * 50 + [50_000_000] * 40 + [10_000] * 50
    spins = chosen(gaps, WAKE)
    assert spins[89] == 0
    assert next(n for n, spin in enumerate(spins[90:]) if spin >= 10_000) <= 20


def test_it_never_spins_for_longer_than_it_may():
    assert max(chosen([10_000] * 50, 10_000_000, spin_ns=30_000)) == 30_000
    assert chosen([10_000] * 50, WAKE, spin_ns=0) == [0] * 50


def test_a_sleeper_learns_how_long_its_wake_up_took():
    producer, consumer = ends()
    waiter, waker = Waiter("block"), Waiter("block")

    def later():
        while not np.frombuffer(producer.segment, "<u4")[384 // 4]:
            time.sleep(0)
        producer.push([1])
        waker.wake(producer)

    thread = threading.Thread(target=later)
    thread.start()
    while not waiter.wait(consumer):
        pass
    thread.join()
    assert waker.stats["wakes"] == 1
    assert (waiter.stats["wake_ns"] > 0) == (waiter.stats["sleeps"] > 0)


def test_a_time_of_waking_that_cannot_be_is_not_believed():
    producer, consumer = ends()
    waiter = Waiter("block")
    for woken in (0, 1, 2**63, 2**64 - 1):
        np.frombuffer(producer.segment, "<u8")[392 // 8] = woken
        assert not waiter.wait(consumer)
    assert waiter.stats["wake_ns"] == 0


def test_crowded_is_more_spinners_than_cpus():
    cpus = len(os.sched_getaffinity(0))
    assert not crowded(cpus)
    assert crowded(cpus + 1)
    assert Waiter("spin", threads=cpus + 1).stats["crowded"]
