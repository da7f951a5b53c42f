"""A peer that writes garbage into every shared word while the other side runs: reports, no crash, no hang, no overrun.

The victim is a process of its own (segments lie between inaccessible pages, so an overrun ends it with a signal) and
must end in order, having been told by errors that its peer is impossible.
"""

import os
import time

import numpy as np
import pytest

from engine._ring import Link, Ring
from engine._shm import Segment

from .peers import ITEM

pytestmark = pytest.mark.stress
SECONDS = float(os.environ.get("ENGINE_HOSTILE_SECONDS", "0.7"))
LINK_WORDS = [256, 264, 272, 280, 384, 392, 512, 640, 768, 896, 1024, 1152, 1160, 4096, 4104, 4136, 4144, 4152]
RING_WORDS = [128, 256, 384, 512, 640]
XEN_WORDS = [0, 4096, 4096 + 24]


def scribble(rng, memory, words, whole):
    """One volley: noise anywhere, and near-truths in the words that matter."""
    near = rng.integers(0, 4)
    for at in words:
        word = int(memory[at >> 3])
        memory[at >> 3] = np.uint64(
            (word + int(rng.integers(-3, 600)), int(rng.integers(0, 600)), word, int(rng.integers(0, 1 << 63)))[near]
            % (1 << 64)
        )
    if whole:
        at = rng.integers(0, len(memory), 512)
        if rng.integers(0, 2):
            at = at[at >= 512]  # items only
        memory[at] = rng.integers(0, 1 << 63, len(at), dtype=np.uint64)
    time.sleep(0)


def torment(segment, victim, words, *, keep=0):
    """Scribble until the victim has run its time."""
    rng = np.random.default_rng(7)
    memory = np.frombuffer(segment, np.uint64)
    first = memory[:keep].copy()
    end = time.monotonic() + 60
    volleys = 0
    victim.ready()
    while victim.running:
        assert time.monotonic() < end, "the victim hangs"
        scribble(rng, memory, words, volleys % 3 == 0)
        memory[:keep] = first
        volleys += 1
    assert volleys > 10
    return victim.result()


def new_link():
    return Link.create(requests=16, effects=8, n_vcpus=3, n_units=2, stamped=True)


@pytest.mark.parametrize("name", ["victim_router", "victim_worker"])
def test_link_side_survives_garbage(peer, name):
    link = new_link()
    said = torment(link.segment, peer(name, link.segment.fileno(), SECONDS), LINK_WORDS)
    assert said["refused"] > 0
    assert said["bad"] > 0
    assert said["ok"] > 0
    assert said["rounds"] > 10


def test_worker_loop_in_c_ends_in_order_at_garbage(peer):
    link = new_link()
    # the geometry is left alone (what attach refuses has its own tests), else the loop would hardly ever start
    said = torment(link.segment, peer("victim_traffic_worker", link.segment.fileno(), SECONDS), LINK_WORDS, keep=32)
    assert said["refused"] > 0


@pytest.mark.parametrize("name", ["victim_producer", "victim_consumer"])
def test_ring_side_survives_garbage(peer, name):
    ring = Ring.create(ITEM, 64)
    said = torment(ring.segment, peer(name, ring.segment.fileno(), SECONDS), RING_WORDS, keep=16)
    assert said["refused"] > 0
    assert said["bad"] > 0


@pytest.mark.parametrize("name", ["victim_xen_server", "victim_hypervisor", "victim_kvm"])
def test_foreign_page_side_survives_garbage(peer, name):
    segment = Segment.create("pages", 8192)
    said = torment(segment, peer(name, segment.fileno(), SECONDS), [0] if name == "victim_kvm" else XEN_WORDS)
    assert said["refused"] > 0
    assert said["bad"] > 0
