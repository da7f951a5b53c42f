"""Rings and links between two processes: nothing lost, repeated, reordered or torn, and no wake-up missed."""

import os
import random
import time

import numpy as np
import pytest

from engine._ring import Link, Ring
from engine.measure._limits import pair
from engine.testing._traffic import Router
from engine.workers._wait import Waiter

from .peers import ITEM, items

pytestmark = pytest.mark.stress
POLICIES = ["spin", "adaptive", "block"]


def link_and_worker(peer, policy, spin_us=20.0, **options):
    link = Link.create(**{"requests": 1024, "effects": 64, "n_vcpus": 4, **options})
    return (
        link,
        peer("worker", link.segment.fileno(), policy, spin_us, 2),
        Router(link, Waiter(policy, spin_us=spin_us)),
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_a_ring_of_items_arrives_whole(peer, policy):
    n = 1_000_000
    ring, waiter = Ring.create(ITEM, 512), Waiter(policy)
    consumer = peer("consume", ring.segment.fileno(), policy, n)
    rng, sent = random.Random(1), 0
    while sent < n:
        batch = items(sent, min(rng.randint(1, 700), n - sent))
        while len(batch):
            got = ring.push(batch, bulk=len(batch) <= 64 and rng.random() < 0.5)
            waiter.wake(ring)
            batch, sent = batch[got:], sent + got
            if not got:
                assert waiter.wait(ring) or consumer.running
    assert consumer.result()["items"] == n


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("requests", "batch"), [(1024, 64), (2, 1), (4096, 4096)])
def test_records_answers_and_effects_of_a_link(peer, policy, requests, batch):
    n = 2_000_000 if requests > 2 else 20_000
    link, worker, router = link_and_worker(peer, policy, requests=requests)
    done = router.stream(n, batch)
    link.stop()
    served = worker.result()
    assert (done["records"], served["records"]) == (n, n)
    assert done["acc"] == served["acc"]
    assert done["effects"] == served["effects"] > n // 100
    assert not done["effects_open"]
    assert link.counters["bad"] == 0
    assert (done["missed"], served["missed"]) == (0, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_posted_accesses_come_after_the_records_sent_before(peer, policy):
    link, worker, router = link_and_worker(peer, policy, requests=64, effects=2)
    for before in (0, 1, 5, 64):
        done = router.exchange(1000, before)
    done = router.stream(10_000, 7)
    link.stop()
    served = worker.result()
    assert (done["posts"], served["posts"]) == (4000, 4000)
    assert done["records"] == served["records"] == 1000 * 70 + 10_000
    assert done["acc"] == served["acc"]


@pytest.fixture
def two_cpus():
    """Two CPUs; this thread stays on the first during the test."""
    old = os.sched_getaffinity(0)
    a, b = pair()
    os.sched_setaffinity(0, {a})
    yield a, b
    os.sched_setaffinity(0, old)


@pytest.mark.parametrize(
    ("router_policy", "worker_policy"),
    [("spin", "block"), ("block", "spin"), ("block", "block"), ("adaptive", "adaptive")],
)
def test_no_wake_up_is_lost(peer, two_cpus, router_policy, worker_policy):
    """Publishing meets the other side at every point of its way to sleep.  Without a full fence on either side some
    rounds sleep a whole slice beside a word that changed, which `missed` counts."""
    link = Link.create()
    worker = peer("worker", link.segment.fileno(), worker_policy, 0, 0, two_cpus[1], 1000)
    done = Router(link, Waiter(router_policy, spin_us=0, crowded=False)).exchange(10_000, jitter=1000)
    link.stop()
    served = worker.result()
    assert done["posts"] == served["posts"] == 10_000
    assert (done["missed"], served["missed"]) == (0, 0)
    if "block" in (router_policy, worker_policy):
        assert done["sleeps"] + served["sleeps"] > 100  # else nothing was tried


def test_a_spinner_with_too_few_cpus_gives_way(peer):
    link = Link.create()
    worker = peer("worker", link.segment.fileno(), "spin", 20.0, 10_000)
    done = Router(link, Waiter("spin", threads=10_000)).exchange(500)
    link.stop()
    assert done["crowded"]
    assert done["yields"] > 0
    assert worker.result()["posts"] == 500


def test_a_wait_without_news_ends_after_a_slice(peer):
    link = Link.create()
    for policy in POLICIES:
        waiter = Waiter(policy)
        start = time.monotonic()
        assert waiter.wait(link) is False
        assert time.monotonic() - start >= 0.04  # a lower bound: it did wait
        assert waiter.stats["timeouts"] == 1
        assert (waiter.stats["sleeps"] > 0) == (policy != "spin")


def test_stop_wakes_a_sleeping_worker(peer):
    link = Link.create()
    worker = peer("worker", link.segment.fileno(), "block", 0, 2)
    time.sleep(0.2)
    link.stop()
    assert worker.result(30)["records"] == 0


@pytest.mark.parametrize("policy", ["adaptive", "block"])
def test_one_waiter_sleeps_on_many_rings(peer, policy):
    """Whichever ring gets the next item wakes the one sleeper."""
    n = 300
    rings = [Ring.create(ITEM, 4, producer=False) for _ in range(5)]
    started = [peer("produce_slowly", ring.segment.fileno(), n) for ring in rings]
    waiter, got = Waiter(policy, spin_us=1), [0] * len(rings)
    while sum(got) < n * len(rings):
        for i, ring in enumerate(rings):
            batch = ring.pop()
            assert batch.tobytes() == items(got[i], len(batch)).tobytes()
            got[i] += len(batch)
            if len(batch):
                waiter.wake(ring)
        assert waiter.wait(*rings) or sum(got) == n * len(rings) or any(p.running for p in started)
    assert [p.result()["items"] for p in started] == [n] * len(rings)
    assert waiter.stats["sleeps"] > 0
    assert waiter.stats["missed"] == 0


def test_the_stream_generator_has_no_repeats():
    assert len(np.unique(items(0, 1000)["value"])) == 1000
