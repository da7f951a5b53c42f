"""Xen's ioreq pages and KVM's coalesced page: every byte where the hypervisors put it, both sides of the protocol.

Facts: Xen public/hvm/ioreq.h and its ioreq code (stable-4.17); KVM: linux/kvm.h and virt/kvm/coalesced_mmio.c.
"""

import mmap
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from engine._abi import REC
from engine._foreign import (
    COALESCED,
    ENTRIES,
    IOREQ,
    SLOTS,
    TYPE_CONFIG,
    TYPE_INVALIDATE,
    TYPE_MEMORY,
    TYPE_PIO,
    TYPE_TIMEOFFSET,
    KvmCoalesced,
    XenBuffered,
    XenSync,
)
from engine.errors import RingError

PIO, MMIO, CONFIG, INPUT, WRITE = 0, 1, 2, 4, 0x10
BOTH = pytest.mark.parametrize("atomic", [False, True], ids=["LEGACY", "ATOMIC"])


def page():
    return mmap.mmap(-1, 4096)


def pointers(m):
    return struct.unpack_from("<II", m)


def xen_slot(type, addr, code, data, read=0):
    """One slot of the buffered page, from the ABI's bit numbers."""
    return struct.pack("<II", type | read << 9 | code << 10 | addr << 12, data)


def buffered(atomic=True, start=0):
    m = page()
    struct.pack_into("<II", m, 0, start, start)
    return m, XenBuffered(m, producer=True, atomic=atomic), XenBuffered(m, atomic=atomic)


# ---- Xen's buffered page ----


@pytest.mark.parametrize(("size", "code"), [(1, 0), (2, 1), (4, 2)])
def test_buffered_entry_bytes(size, code):
    m, xen, server = buffered()
    assert xen.push(0xB8002, size, 0x41)
    assert pointers(m) == (0, 1)
    assert m[8:16] == xen_slot(1, 0xB8002, code, 0x41)
    (rec,) = server.pop()
    assert (rec["addr"], rec["value"], rec["op"]) == (0xB8002, 0x41, MMIO | WRITE | code << 5)
    assert pointers(m) == (1, 1)


def test_buffered_eight_bytes_take_two_slots_with_the_same_header():
    m, xen, server = buffered()
    assert xen.push(0xA0008, 8, 0x1122334455667788)
    assert pointers(m) == (0, 2)
    assert m[8:24] == xen_slot(1, 0xA0008, 3, 0x55667788) + xen_slot(1, 0xA0008, 3, 0x11223344)
    (rec,) = server.pop()
    assert (rec["value"], rec["op"]) == (0x1122334455667788, MMIO | WRITE | 3 << 5)


@BOTH
def test_buffered_eight_bytes_straddle_slot_510_and_slot_0(atomic):
    m, xen, server = buffered(atomic, 510)
    assert xen.push(0xA0000, 8, 0x0102030405060708)
    assert m[8 + 510 * 8 : 4096] == xen_slot(1, 0xA0000, 3, 0x05060708)
    assert m[8:16] == xen_slot(1, 0xA0000, 3, 0x01020304)
    assert server.pop()["value"] == [0x0102030405060708]
    assert pointers(m) == (512, 512)


def test_buffered_is_full_at_511_slots():
    m, xen, server = buffered()
    for i in range(SLOTS - 1):
        assert xen.push(0xA0000, 1, i & 0xFF)
    assert not xen.push(0xA0000, 8, 0)  # 510 taken: no room for two
    assert xen.push(0xA0000, 1, 0xEE)
    assert not xen.push(0xA0000, 1, 0)
    assert pointers(m) == (0, 511)
    assert xen.counters["full"] == 2
    got = server.pop()
    assert list(got["value"]) == [i & 0xFF for i in range(510)] + [0xEE]
    assert xen.push(0xA0000, 1, 0)


@pytest.mark.parametrize(("addr", "size"), [(0x100000, 1), (0xA0000, 3), (0xA0000, 16), (0xA0000, 0)])
def test_what_is_not_eligible_for_the_buffered_page(addr, size):
    m, xen, _ = buffered()
    assert not xen.push(addr, size, 0)
    assert pointers(m) == (0, 0)


def test_legacy_pointers_run_free():
    m, xen, server = buffered(atomic=False)
    for i in range(2000):
        assert xen.push(0xA0000, 1, i & 0xFF)
        assert list(server.pop()["value"]) == [i & 0xFF]
    assert pointers(m) == (2000, 2000)


def test_atomic_pointers_are_renumbered_below_511_by_the_same_multiple():
    m, xen, server = buffered()
    for i in range(SLOTS):
        xen.push(0xA0000, 1, i & 0xFF)
    server.pop()
    assert pointers(m) == (511, 511)
    assert xen.push(0xA0000, 1, 0x77)  # Xen renumbers after it publishes
    assert pointers(m) == (0, 1)
    assert (xen.index, server.index) == (1, 511)
    assert list(server.pop()["value"]) == [0x77]
    assert (server.index, server.counters["bad"]) == (1, 0)


def test_atomic_renumbering_between_peek_and_release():
    m, _, server = buffered(start=511)
    struct.pack_into("<II", m, 0, 511, 512)  # an entry published, not yet renumbered
    m[8:16] = xen_slot(1, 0xA0000, 0, 0x11)
    assert server.peek() == 1
    xen_again = XenBuffered(m, producer=True)
    assert xen_again.push(0xA0001, 1, 0x22)
    assert pointers(m) == (0, 2)
    assert server.take(0)[1]["value"] == 0x11
    server.release(1)
    assert pointers(m) == (1, 2)
    assert list(server.pop()["value"]) == [0x22]
    assert pointers(m) == (2, 2)


@BOTH
def test_every_entry_arrives_over_many_wraps(atomic):
    _m, xen, server = buffered(atomic)
    rng = np.random.default_rng(1)
    sent, got = [], []
    for _ in range(4000):
        size = int(rng.choice([1, 2, 4, 8]))
        value = int(rng.integers(0, 1 << 63)) & ((1 << 8 * size) - 1)
        addr = int(rng.integers(0xA0000, 0xC0000))
        while not xen.push(addr, size, value):
            got += [(int(r["addr"]), int(r["value"])) for r in server.pop()]
        sent.append((addr, value))
        if rng.integers(0, 50) == 0:
            got += [(int(r["addr"]), int(r["value"])) for r in server.pop()]
    got += [(int(r["addr"]), int(r["value"])) for r in server.pop()]
    assert got == sent
    assert server.counters["bad"] == xen.counters["bad"] == 0


def test_legacy_wrap_at_2_to_the_32_keeps_what_is_read_in_time():
    m, xen, server = buffered(atomic=False, start=(1 << 32) - 3)
    for i in range(3):
        assert xen.push(0xA0000 + i, 1, i)
    assert pointers(m)[1] == 0
    assert m[8 + 29 * 8 : 8 + 32 * 8] == b"".join(xen_slot(1, 0xA0000 + i, 0, i) for i in range(3))
    assert xen.push(0xA0003, 1, 3)
    assert m[8:16] == xen_slot(1, 0xA0003, 0, 3)  # slot 0 follows slot 31
    assert list(server.pop()["value"]) == [0, 1, 2, 3]
    assert pointers(m) == (1, 1)


def test_legacy_eight_bytes_over_the_wrap_at_2_to_the_32():
    m, xen, server = buffered(atomic=False, start=(1 << 32) - 1)
    assert xen.push(0xA0000, 8, 0x0102030405060708)
    assert m[8 + 31 * 8 : 8 + 32 * 8] == xen_slot(1, 0xA0000, 3, 0x05060708)
    assert m[8:16] == xen_slot(1, 0xA0000, 3, 0x01020304)
    assert list(server.pop()["value"]) == [0x0102030405060708]


def test_legacy_wrap_at_2_to_the_32_loses_an_entry_that_waits_32_slots_long():
    """2^32 mod 511 is 32: the layout's own defect, which ATOMIC mode cures."""
    _m, xen, server = buffered(atomic=False, start=(1 << 32) - 1)
    for i in range(33):
        xen.push(0xA0000, 1, i)
    got = list(server.pop()["value"])
    assert got == [32, *range(1, 33)]


@pytest.mark.parametrize(
    ("atomic", "read", "write"),
    [(False, 0, 512), (True, 0, 512), (False, 5, 4), (True, 5, 4), (False, 1, 1), (True, 1, 1), (False, 511, 511)],
)
def test_server_refuses_impossible_pointers(atomic, read, write):
    m, _, server = buffered(atomic)
    struct.pack_into("<II", m, 0, read, write)
    with pytest.raises(RingError, match="impossible pointers"):
        server.peek()
    assert server.counters["bad"] == 1


def test_server_refuses_half_of_an_eight_byte_entry():
    m, _, server = buffered()
    m[8:16] = xen_slot(1, 0xA0000, 3, 1)
    struct.pack_into("<II", m, 0, 0, 1)
    server.peek()
    with pytest.raises(RingError, match="impossible entry at slot 0 of 1"):
        server.take(0)


def test_server_refuses_an_unknown_type_and_a_slot_beyond_the_peeked():
    m, _xen, server = buffered()
    m[8:16] = xen_slot(5, 0xA0000, 0, 1)
    struct.pack_into("<II", m, 0, 0, 1)
    server.peek()
    for k in (0, 1):
        with pytest.raises(RingError, match="impossible entry"):
            server.take(k)


@pytest.mark.parametrize(("read", "write"), [(0, 5), (600, 0), (1, 0)])
def test_hypervisor_refuses_impossible_pointers(read, write):
    m, xen, _ = buffered()
    struct.pack_into("<II", m, 0, read, write)
    with pytest.raises(RingError, match="impossible pointers"):
        xen.push(0xA0000, 1, 0)


def test_time_offset_is_an_input_of_eight_bytes():
    _m, xen, server = buffered()
    assert xen.push(0, 8, (1 << 64) - 3600, type=TYPE_TIMEOFFSET)
    (rec,) = server.pop()
    assert (rec["op"] & 15, rec["addr"], rec["value"]) == (INPUT, TYPE_TIMEOFFSET, (1 << 64) - 3600)


# ---- Xen's synchronous page ----


def sync(n=2):
    m = page()
    return m, XenSync(m, n, producer=True, eports=range(7, 7 + n)), XenSync(m, n)


def raw_ioreq(addr, data, count, size, eport, bits, type):
    return struct.pack("<QQIIIHBB", addr, data, count, size, eport, 0, bits, type)


def test_sync_request_bytes_through_all_states():
    m, xen, server = sync()
    assert m[:32] == raw_ioreq(0, 0, 0, 0, 7, 0, 0)
    xen.post(1, 0x71, 1, 0xEE, write=False)
    assert m[32:64] == raw_ioreq(0x71, 0xEE, 1, 1, 8, 0x20 | 1, 0)
    assert server.take(0) is None
    req = server.take(1)
    assert m[32:64] == raw_ioreq(0x71, 0xEE, 1, 1, 8, 0x20 | 2, 0)
    assert (req["addr"], req["size"], req["type"]) == (0x71, 1, TYPE_PIO)
    assert server.take(1) is None
    assert xen.poll(1) is None
    server.answer(1, 0x26)
    assert m[32:64] == raw_ioreq(0x71, 0x26, 1, 1, 8, 0x20 | 3, 0)
    assert xen.poll(1) == 0x26
    assert m[32:64] == raw_ioreq(0x71, 0x26, 1, 1, 8, 0x20, 0)


def test_sync_write_keeps_its_data_field():
    m, xen, server = sync()
    xen.post(0, 0x80, 2, 0xABCD)
    server.take(0)
    server.answer(0, 0x5555)
    assert m[:32] == raw_ioreq(0x80, 0xABCD, 1, 2, 7, 3, 0)
    assert xen.poll(0) == 0xABCD


def elements(**request):
    _, xen, server = sync()
    xen.post(0, **request)
    assert server.take(0) is not None
    return [(int(r["op"]), int(r["addr"]), int(r["value"]), at) for r, at in server.elements(0)]


def test_sync_elements_of_single_accesses():
    assert elements(addr=0xCF8, size=4, data=0x80000000) == [(PIO | WRITE | 2 << 5, 0xCF8, 0x80000000, None)]
    assert elements(addr=0xFEC00000, size=8, write=False, type=TYPE_MEMORY) == [(MMIO | 3 << 5, 0xFEC00000, 0, None)]


def test_sync_config_address_is_the_records_own_form():
    bdf = 0 << 16 | 2 << 8 | 0x1F << 3 | 5
    (got,) = elements(addr=bdf << 32 | 0x40, size=2, data=3, type=TYPE_CONFIG)
    assert got == (CONFIG | WRITE | 1 << 5, bdf << 32 | 0x40, 3, None)


def test_sync_repeats_without_pointer_store_one_value_to_many_addresses():
    assert elements(addr=0xB8000, size=2, data=0x720, count=3, type=TYPE_MEMORY) == [
        (MMIO | WRITE | 1 << 5, 0xB8000 + 2 * i, 0x720, None) for i in range(3)
    ]


def test_sync_repeats_with_pointer_move_data_and_memory_but_not_a_port():
    assert elements(addr=0x1F0, size=2, data=0x8000, count=3, pointer=True, write=False) == [
        (PIO | 1 << 5, 0x1F0, 0, 0x8000 + 2 * i) for i in range(3)
    ]
    assert elements(addr=0xA0000, size=4, data=0x9000, count=2, pointer=True, type=TYPE_MEMORY) == [
        (MMIO | WRITE | 2 << 5, 0xA0000 + 4 * i, 0, 0x9000 + 4 * i) for i in range(2)
    ]


def test_sync_repeats_go_down_with_the_direction_flag():
    assert elements(addr=0xA0010, size=4, data=0x9010, count=3, pointer=True, down=True, type=TYPE_MEMORY) == [
        (MMIO | WRITE | 2 << 5, 0xA0010 - 4 * i, 0, 0x9010 - 4 * i) for i in range(3)
    ]
    assert elements(addr=0x3F8, size=1, data=0x9010, count=2, pointer=True, down=True) == [
        (PIO | WRITE, 0x3F8, 0, 0x9010 - i) for i in range(2)
    ]


def test_sync_pointer_request_keeps_the_pointer_when_answered():
    m, xen, server = sync()
    xen.post(0, 0x1F0, 2, 0x8000, count=256, pointer=True, write=False)
    server.take(0)
    server.answer(0, 0xFFFF)
    assert struct.unpack_from("<Q", m, 8) == (0x8000,)


def test_sync_invalidate_has_no_elements_and_wants_an_answer():
    _m, xen, server = sync()
    xen.post(0, 0, 4, (1 << 64) - 1, count=0, type=TYPE_INVALIDATE)
    assert server.take(0)["type"] == TYPE_INVALIDATE
    assert list(server.elements(0)) == []
    server.answer(0)
    assert xen.poll(0) == (1 << 64) - 1


def test_sync_a_new_server_takes_over_a_request_in_process():
    m, xen, server = sync()
    xen.post(0, 0x71, 1, write=False)
    server.take(0)
    heir = XenSync(m, 2)
    assert heir.take(0) is None
    assert heir.take(0, again=True)["addr"] == 0x71
    heir.answer(0, 5)
    assert xen.poll(0) == 5


def test_sync_emergency_release_reads_all_ones():
    m, xen, server = sync()
    xen.post(0, 0x71, 1, write=False)
    server.take(0)
    server.abandon(0)
    assert m[30] == 0x20
    assert xen.poll(0) == (1 << 64) - 1


@pytest.mark.parametrize("state", [1, 4, 15])
def test_sync_hypervisor_refuses_a_state_that_goes_backwards_or_is_unknown(state):
    m, xen, server = sync()
    xen.post(0, 0x71, 1, write=False)
    server.take(0)
    xen.poll(0)
    m[30] = 0x20 | state
    with pytest.raises(RingError, match="went backwards or is unknown"):
        xen.poll(0)


def test_sync_hypervisor_refuses_an_altered_event_channel_and_a_busy_slot():
    m, xen, _server = sync()
    struct.pack_into("<I", m, 24, 99)
    with pytest.raises(RingError, match="event channel was altered"):
        xen.post(0, 0x80, 1)
    xen.post(1, 0x80, 1)
    with pytest.raises(RingError, match="slot not free"):
        xen.post(1, 0x80, 1)


@pytest.mark.parametrize(("size", "type"), [(0, 0), (3, 1), (16, 1), (1, 3), (1, 9), (1, 255)])
def test_sync_server_refuses_impossible_requests(size, type):
    m, _, server = sync()
    m[:32] = raw_ioreq(0x80, 0, 1, size, 7, 1, type)
    with pytest.raises(RingError, match=f"impossible request: type {type}, size {size}"):
        server.take(0)
    assert server.counters["bad"] == 1
    server.abandon(0)  # even so the vCPU must not hang
    assert m[30] == 0


def test_sync_page_holds_128_vcpus():
    XenSync(page(), 128, producer=True)
    with pytest.raises(RingError, match="129 vCPUs; 1 to 128 fit"):
        XenSync(page(), 129)


def test_ioreq_dtype_is_the_abi():
    assert IOREQ.itemsize == 32
    assert [IOREQ.fields[n][1] for n in ("addr", "data", "count", "size", "vp_eport", "bits", "type")] == [
        0,
        8,
        16,
        20,
        24,
        30,
        31,
    ]


# ---- KVM's coalesced page ----


def coalesced():
    m = page()
    return m, KvmCoalesced(m, producer=True), KvmCoalesced(m)


def test_coalesced_layout_is_that_of_the_kernel_header():
    header = Path("/usr/include/linux/kvm.h")
    if not header.exists():
        pytest.skip("no linux/kvm.h on this machine")
    text = header.read_text()
    entry = re.search(r"struct kvm_coalesced_mmio \{(.*?)\n\};", text, re.S)[1]
    names = re.findall(r"__u(\d+)\s+(\w+)(\[8\])?;", entry)
    assert names == [
        ("64", "phys_addr", ""),
        ("32", "len", ""),
        ("32", "pad", ""),
        ("32", "pio", ""),
        ("8", "data", "[8]"),
    ]
    assert re.search(r"struct kvm_coalesced_mmio_ring \{\s+__u32 first, last;", text)
    assert COALESCED.itemsize == 24
    assert ENTRIES == (4096 - 8) // 24 == 170


def test_coalesced_entry_bytes():
    m, kvm, server = coalesced()
    assert kvm.push(0xFD000010, 4, 0x11223344)
    assert kvm.push(0xCF9, 1, 6, pio=True)
    assert m[:8] == struct.pack("<II", 0, 2)
    assert m[8:56] == struct.pack("<QIIQ", 0xFD000010, 4, 0, 0x11223344) + struct.pack("<QIIQ", 0xCF9, 1, 1, 6)
    got = server.pop()
    assert [(int(r["addr"]), int(r["value"]), int(r["op"])) for r in got] == [
        (0xFD000010, 0x11223344, MMIO | WRITE | 2 << 5),
        (0xCF9, 6, PIO | WRITE),
    ]
    assert m[:8] == struct.pack("<II", 2, 2)


def test_coalesced_data_beyond_len_do_not_count():
    _m, kvm, server = coalesced()
    kvm.push(0x1000, 2, 0xFFFFFFFFFFFF1234)
    assert list(server.pop()["value"]) == [0x1234]


@pytest.mark.parametrize(
    ("length", "sizes"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [4]), (5, [4, 1]), (6, [4, 2]), (7, [4, 2, 1]), (8, [8])]
)
def test_coalesced_lengths_of_a_write_cut_at_a_page_edge(length, sizes):
    _m, kvm, server = coalesced()
    data = 0x8877665544332211 & ((1 << 8 * length) - 1)
    kvm.push(0x1FFC, length, data)
    got = server.pop()
    assert [1 << (int(r["op"]) >> 5) for r in got] == sizes
    whole = b"".join(int(r["value"]).to_bytes(n, "little") for r, n in zip(got, sizes, strict=True))
    assert int.from_bytes(whole, "little") == data
    assert list(got["addr"]) == [0x1FFC + sum(sizes[:i]) for i in range(len(sizes))]


def test_coalesced_is_full_at_169_entries_and_wraps():
    m, kvm, server = coalesced()
    for lap in range(3):
        for i in range(169):
            assert kvm.push(0x1000 + i, 4, lap << 16 | i)
        assert not kvm.push(0, 1, 0)
        assert list(server.pop()["value"]) == [lap << 16 | i for i in range(169)]
    assert kvm.counters["full"] == 3
    assert struct.unpack_from("<II", m) == (3 * 169 % 170,) * 2


@pytest.mark.parametrize("last", [170, 0xFFFFFFFF, 4])
def test_coalesced_server_refuses_impossible_indices(last):
    m, kvm, server = coalesced()
    for i in range(5):
        kvm.push(i, 1, i)
    assert server.peek() == 5
    struct.pack_into("<I", m, 4, last)
    with pytest.raises(RingError, match="impossible index"):
        server.peek()


def test_coalesced_producer_refuses_an_impossible_first():
    m, kvm, _ = coalesced()
    struct.pack_into("<I", m, 0, 170)
    with pytest.raises(RingError, match="impossible index"):
        kvm.push(0, 1, 0)


@pytest.mark.parametrize(("length", "pio"), [(0, 0), (9, 0), (1 << 31, 0), (4, 2)])
def test_coalesced_server_refuses_impossible_entries(length, pio):
    m, _, server = coalesced()
    m[4:8] = struct.pack("<I", 1)
    m[8:32] = struct.pack("<QIIQ", 0x1000, length, pio, 0)
    server.peek()
    with pytest.raises(RingError, match="impossible entry 0 of 1"):
        server.take(0)
    server.release(1)
    assert server.peek() == 0


# ---- all ----


@pytest.mark.parametrize("cls", [XenBuffered, XenSync, KvmCoalesced])
def test_a_buffer_that_is_no_page_is_refused(cls):
    with pytest.raises(RingError, match="an aligned page of 4096 is needed"):
        cls(bytearray(100))
    with pytest.raises(RingError, match="an aligned page of 4096 is needed"):
        cls(memoryview(mmap.mmap(-1, 8192))[1:4097])
    with pytest.raises(BufferError):
        cls(bytes(4096))


def test_sides_keep_to_their_verbs():
    _, xen, server = buffered()
    _, kvm, kvm_server = coalesced()
    for call in (
        xen.peek,
        lambda: xen.release(0),
        lambda: server.push(0, 1, 0),
        lambda: server.commit(0),
        kvm.peek,
        lambda: kvm_server.push(0, 1, 0),
    ):
        with pytest.raises(RingError, match="only"):
            call()


def test_records_come_out_as_rec():
    _, _xen, server = buffered()
    assert server.pop().dtype == REC
    assert os.sysconf("SC_PAGE_SIZE") == 4096
