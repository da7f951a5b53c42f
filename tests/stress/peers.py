"""The other process of the two-process tests: `python peers.py NAME FD ARGUMENT...`; prints one line of JSON."""

import json
import os
import random
import sys
import time

import numpy as np

from engine._abi import EFFECT, REC
from engine._foreign import TYPE_MEMORY, KvmCoalesced, XenBuffered, XenSync
from engine._ring import ROUTER, WORKER, Link, Ring
from engine._shm import Segment
from engine.errors import RingError
from engine.testing._traffic import serve
from engine.workers._wait import Waiter

ITEM = np.dtype([("index", "<u8"), ("value", "<u8"), ("mix", "<u8")])
K = 0x9E3779B97F4A7C15


def items(first, n):
    """The n items of a test stream from `first` on."""
    out = np.zeros(n, ITEM)
    out["index"] = np.arange(first, first + n, dtype=np.uint64)
    out["value"] = out["index"] * np.uint64(K)
    out["mix"] = out["value"] ^ (out["index"] << np.uint64(7))
    return out


def worker(fd, policy, spin_us, threads, cpu=None, jitter=0):
    """Execute traffic until told to stop."""
    if cpu is not None:
        os.sched_setaffinity(0, {int(cpu)})
    waiter = Waiter(policy, spin_us=float(spin_us), crowded=int(threads) > (os.cpu_count() or 1))
    return serve(Link.attach(int(fd), WORKER), waiter, jitter=int(jitter))


def consume(fd, policy, n):
    """Read n items of a Ring, comparing each."""
    ring, waiter, n = Ring.attach(int(fd), ITEM), Waiter(policy), int(n)
    got = 0
    rng = random.Random(2)
    while got < n:
        batch = ring.pop(rng.randint(1, 700))
        if len(batch):
            waiter.wake(ring)
            if batch.tobytes() != items(got, len(batch)).tobytes():
                return {"wrong_at": got}
            got += len(batch)
        else:
            waiter.wait(ring)
    return {"items": got, **waiter.stats}


def produce_slowly(fd, n):
    """Write n items of a Ring one by one, resting now and then so that the reader goes to sleep."""
    ring, waiter, n = Ring.attach(int(fd), ITEM, producer=True), Waiter("block"), int(n)
    rng, sent = random.Random(fd), 0
    while sent < n:
        if ring.push(items(sent, 1)):
            sent += 1
            waiter.wake(ring)
        else:
            waiter.wait(ring)
        if rng.random() < 0.05:
            time.sleep(0.002)
    return {"items": sent, **waiter.stats}


# ---- victims of a hostile peer: they use every verb until the time is over and count what happened ----


def attempt(counts, call, *args, **kwargs):
    """Call; errors of the ring are what is hoped for, anything else ends the process."""
    try:
        counts["ok"] += 1
        return call(*args, **kwargs)
    except RingError:
        counts["refused"] += 1
        return None


def rounds(seconds, step):
    counts = {"ok": 0, "refused": 0, "rounds": 0}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        step(counts)
        counts["rounds"] += 1
    return counts


def victim_router(fd, seconds):
    link, waiter = Link.attach(int(fd), ROUTER), Waiter("adaptive", spin_us=1)
    recs = np.zeros(16, REC)

    def step(counts):
        attempt(counts, link.push, recs)
        for vcpu in range(link.n_vcpus):
            attempt(counts, link.post, vcpu, recs[:1])
        waiter.wake(link)
        if counts["rounds"] % 64 == 0:
            waiter.wait(link)
            waiter.wait(link, vcpu=0)
        attempt(counts, link.completions)
        attempt(counts, link.effects)
        for vcpu in range(link.n_vcpus):
            attempt(counts, link.poll, vcpu)
        link.deadlines()
        assert len(link.indices) == 8
        assert link.counters["bad"] <= counts["refused"] + counts["ok"]

    return {**rounds(seconds, step), "bad": link.counters["bad"]}


def victim_worker(fd, seconds):
    link, waiter = Link.attach(int(fd), WORKER), Waiter("adaptive", spin_us=1)

    def step(counts):
        recs = attempt(counts, link.take)
        if recs is not None:
            assert len(recs) <= link.capacity
            attempt(counts, link.answer, recs["value"])
        attempt(counts, link.emit, np.zeros(3, EFFECT))
        attempt(counts, link.any_posted)
        for vcpu in range(link.n_vcpus):
            if attempt(counts, link.take_posted, vcpu) is not None:
                attempt(counts, link.answer_posted, vcpu, 1)
            attempt(counts, link.take_posted, vcpu, True)
        attempt(counts, link.deadline, 0, 5)
        waiter.wake(link)
        if counts["rounds"] % 64 == 0:
            waiter.wait(link)

    return {**rounds(seconds, step), "bad": link.counters["bad"]}


def victim_traffic_worker(fd, seconds):
    """The loop in C; it ends by itself at the first impossible word, and is then begun again."""

    def step(counts):
        try:
            link = Link.attach(int(fd), WORKER)
        except RingError:
            counts["refused"] += 1
            return
        attempt(counts, serve, link, Waiter("block"))

    return rounds(seconds, step)


def victim_producer(fd, seconds):
    ring, waiter = Ring.attach(int(fd), ITEM, producer=True), Waiter("block")
    data = items(0, 50)

    def step(counts):
        got = attempt(counts, ring.push, data, bulk=counts["rounds"] & 1)
        assert got is None or got <= ring.capacity
        waiter.wake(ring)
        if counts["rounds"] % 64 == 0:
            waiter.wait(ring)

    return {**rounds(seconds, step), "bad": ring.counters["bad"]}


def victim_consumer(fd, seconds):
    ring, waiter = Ring.attach(int(fd), ITEM), Waiter("block")

    def step(counts):
        got = attempt(counts, ring.pop, 50)
        assert got is None or len(got) <= ring.capacity
        waiter.wake(ring)
        if counts["rounds"] % 64 == 0:
            waiter.wait(ring)

    return {**rounds(seconds, step), "bad": ring.counters["bad"]}


def victim_xen_server(fd, seconds):
    segment = Segment.attach(int(fd))
    page = memoryview(segment)
    buffered = [XenBuffered(page[:4096], atomic=True), XenBuffered(page[:4096], atomic=False)]
    sync = XenSync(page[4096:8192], 128)

    def step(counts):
        for server in buffered:
            n = attempt(counts, server.peek) or 0
            assert n <= 511
            k = 0
            while k < n:
                got = attempt(counts, server.take, k)
                k += got[0] if got else 1
            attempt(counts, server.release, n)
        vcpu = counts["rounds"] % 128
        if attempt(counts, sync.take, vcpu) is not None:
            for i, _ in enumerate(sync.elements(vcpu)):
                if i == 100:  # a hostile count: the server decides how much of it to do
                    break
            attempt(counts, sync.answer, vcpu, 1)
        attempt(counts, sync.take, vcpu, again=True)

    return {**rounds(seconds, step), "bad": sum(s.counters["bad"] for s in (*buffered, sync))}


def victim_hypervisor(fd, seconds):
    segment = Segment.attach(int(fd))
    page = memoryview(segment)
    xen = [XenBuffered(page[:4096], producer=True, atomic=a) for a in (True, False)]
    sync = XenSync(page[4096:8192], 128, producer=True)

    def step(counts):
        for side in xen:
            attempt(counts, side.push, 0xA0000, 8, 5)
        vcpu = counts["rounds"] % 128
        attempt(counts, sync.post, vcpu, 0xFED00000, 4, type=TYPE_MEMORY)
        attempt(counts, sync.poll, vcpu)

    return {**rounds(seconds, step), "bad": sum(s.counters["bad"] for s in (*xen, sync))}


def victim_kvm(fd, seconds):
    segment = Segment.attach(int(fd))
    page = memoryview(segment)
    page[:4096] = bytes(4096)
    server, kvm = KvmCoalesced(page[:4096]), KvmCoalesced(page[:4096], producer=True)

    def step(counts):
        n = attempt(counts, server.peek) or 0
        assert n < 170
        for k in range(n):
            attempt(counts, server.take, k)
        attempt(counts, server.release, n)
        attempt(counts, kvm.push, 0x1000, 8, 1)

    return {**rounds(seconds, step), "bad": server.counters["bad"] + kvm.counters["bad"]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({**globals()[sys.argv[1]](*sys.argv[2:]), "pid": os.getpid()}) + "\n")
