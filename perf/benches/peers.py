"""What do other ways reach that a user could install?  For orientation, in the same run; none of them is a limit.

A peer that is not installed is named with how to install it.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from perf.benches import _qemu

Peer = dict[str, Any]
NEVER = 30.0  # seconds after which a peer is given up


def run(quick: bool = False) -> list[Peer]:
    """Every peer: name, value (None: not measured), unit, note."""
    out = []
    for name, unit, measure, needs, install in PEERS:
        if not needs():
            out.append({"name": name, "value": None, "unit": unit, "note": f"not installed: {install}"})
            continue
        try:
            value, note = measure(quick)
            out.append({"name": name, "value": float(f"{value:.4g}"), "unit": unit, "note": note})
        except Exception as e:
            out.append({"name": name, "value": None, "unit": unit, "note": f"failed: {type(e).__name__}: {e}"})
    return out


def _module(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


# ---------------------------------------------------------------------- Python's own


def _echo(pipe: Any) -> None:
    while (message := pipe.recv_bytes()) != b"":
        pipe.send_bytes(message)


def pipe_round_trip(quick: bool) -> tuple[float, str]:
    """A 32-byte message there and back between two processes."""
    mine, theirs = multiprocessing.Pipe()
    p = multiprocessing.get_context("spawn").Process(target=_echo, args=(theirs,), daemon=True)
    p.start()
    times = []
    for i in range(600 if quick else 5_000):
        start = time.perf_counter_ns()
        mine.send_bytes(b"x" * 32)
        mine.recv_bytes()
        if i >= 100:
            times.append(time.perf_counter_ns() - start)
    mine.send_bytes(b"")
    p.join(NEVER)
    return median(times) / 1e3, "send_bytes and recv_bytes of 32 bytes, p50"


def _fill(queue: Any, n: int) -> None:
    for i in range(n):
        queue.put((i, i, i, i))


def _drained(queue: Any, n: int) -> float:
    p = multiprocessing.get_context("spawn").Process(target=_fill, args=(queue, n + 1), daemon=True)
    p.start()
    queue.get(timeout=NEVER)
    start = time.perf_counter()
    for _ in range(n):
        queue.get(timeout=NEVER)
    took = time.perf_counter() - start
    p.join(NEVER)
    return n / took


def queue(quick: bool) -> tuple[float, str]:
    """Tuples through a multiprocessing queue."""
    return _drained(
        multiprocessing.get_context("spawn").Queue(), 20_000 if quick else 100_000
    ) / 1e6, "tuples of four integers, one at a time"


def faster_fifo(quick: bool) -> tuple[float, str]:
    """Tuples through faster-fifo's queue."""
    from faster_fifo import Queue

    return _drained(Queue(1 << 22), 20_000 if quick else 200_000) / 1e6, "tuples of four integers, one at a time"


def _zmq_echo(address: str) -> None:
    import zmq

    s = zmq.Context().socket(zmq.PAIR)
    s.connect(address)
    while (message := s.recv()) != b"":
        s.send(message)


def zmq_round_trip(quick: bool) -> tuple[float, str]:
    """A 32-byte message there and back through ZeroMQ."""
    import tempfile

    import zmq

    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/socket"
        s = zmq.Context().socket(zmq.PAIR)
        s.bind(address)
        p = multiprocessing.get_context("spawn").Process(target=_zmq_echo, args=(address,), daemon=True)
        p.start()
        times = []
        for i in range(600 if quick else 5_000):
            start = time.perf_counter_ns()
            s.send(b"x" * 32)
            s.recv()
            if i >= 100:
                times.append(time.perf_counter_ns() - start)
        s.send(b"")
        p.join(NEVER)
        s.close(0)
    return median(times) / 1e3, "PAIR over ipc, 32 bytes, p50"


# ---------------------------------------------------------------------- emulators


def unicorn_hook(quick: bool) -> tuple[float, str]:
    """IN from a port, answered by a Python hook."""
    import unicorn
    from unicorn import x86_const as x86

    n = 20_000 if quick else 200_000
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    uc.mem_map(0x1000, 0x1000)
    code = (
        b"\xb9" + n.to_bytes(4, "little") + b"\x66\xba\xfd\x03" + b"\xec\x49\x75\xfc"
    )  # mov ecx, n; mov dx, 3fdh; in al, dx; dec ecx; jnz
    uc.mem_write(0x1000, code)
    uc.hook_add(unicorn.UC_HOOK_INSN, lambda uc, port, size, data: 0x60, None, 1, 0, x86.UC_X86_INS_IN)
    start = time.perf_counter()
    uc.emu_start(0x1000, 0x1000 + len(code))
    return (time.perf_counter() - start) * 1e9 / n, "per IN, Python hook"


def qtest_single(quick: bool) -> tuple[float, str]:
    """Port reads one by one."""
    with _qemu.Qtest() as q:
        return q.rate(
            2_000 if quick else 20_000, 1
        ) / 1e3, "port reads of COM1, each after the answer to the one before"


def qtest_pipelined(quick: bool) -> tuple[float, str]:
    """Port reads, 256 sent at once."""
    with _qemu.Qtest() as q:
        return q.rate(20_000 if quick else 200_000, 256) / 1e3, "port reads of COM1, 256 sent at once"


def tcg_loop(quick: bool) -> tuple[float, str]:
    """A guest's loop of port reads under QEMU's translator."""
    with _qemu.Translated() as q:
        times = [q.ns(0x3FD, _qemu.IN) for _ in range(9 if quick else 99)]
    return median(times), "per IN of COM1's line status in a boot sector, loop included"


def remote_single(quick: bool) -> tuple[float, str]:
    """Register reads one by one."""
    with _qemu.Remote() as q:
        return q.rate(2_000 if quick else 20_000, 1) / 1e3, "register reads of an 82540EM, each after the answer before"


def remote_pipelined(quick: bool) -> tuple[float, str]:
    """Register reads, 100 sent at once."""
    with _qemu.Remote() as q:
        return q.rate(20_000 if quick else 200_000, 100) / 1e3, "register reads of an 82540EM, 100 sent at once"


# ---------------------------------------------------------------------- rings in C++ and C

SPSC = r"""
#include <boost/lockfree/spsc_queue.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>
struct rec { uint64_t w[4]; };
static boost::lockfree::spsc_queue<rec, boost::lockfree::capacity<4096>> q;
int main() {
    const uint64_t n = 8000000; uint64_t sum = 0;
    auto t = std::chrono::steady_clock::now();
    std::thread c([&] {
        rec r[64];
        for (uint64_t i = 0; i < n;) {
            size_t k = q.pop(r, 64);
            for (size_t j = 0; j < k; j++) sum += r[j].w[0];
            i += k;
        }
    });
    rec r[64] = {};
    for (uint64_t i = 0; i < n; i += 64) {
        for (int j = 0; j < 64; j++) r[j].w[0] = i + j;
        for (size_t d = 0; d < 64;) d += q.push(r + d, 64 - d);
    }
    c.join();
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - t;
    std::printf("%f %lu\n", n / took.count(), (unsigned long)sum);
}
"""


RTE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>
struct rec { uint64_t w[4]; };
static struct rte_ring *ring;
static const uint64_t n = 8000000;
static uint64_t sum;
static void *consumer(void *arg)
{
    struct rec r[64];
    for (uint64_t i = 0; i < n;) {
        unsigned k = rte_ring_sc_dequeue_burst_elem(ring, r, sizeof(*r), 64, NULL);
        for (unsigned j = 0; j < k; j++)
            sum += r[j].w[0];
        i += k;
    }
    return arg;
}
int main(void)
{
    ssize_t room = rte_ring_get_memsize_elem(sizeof(struct rec), 4096);
    struct timespec a, b;
    struct rec r[64] = {0};
    pthread_t c;
    if (room < 0 || posix_memalign((void **)&ring, 128, room))
        return 1;
    if (rte_ring_init(ring, "r", 4096, RING_F_SP_ENQ | RING_F_SC_DEQ))
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &a);
    pthread_create(&c, NULL, consumer, NULL);
    for (uint64_t i = 0; i < n; i += 64) {
        for (int j = 0; j < 64; j++)
            r[j].w[0] = i + j;
        for (unsigned d = 0; d < 64;)
            d += rte_ring_sp_enqueue_burst_elem(ring, r + d, sizeof(*r), 64 - d, NULL);
    }
    pthread_join(c, NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%f %lu\n", n / (b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) * 1e-9), (unsigned long)sum);
    return 0;
}
"""


def _compiled(source: str, suffix: str, command: list[str], quick: bool) -> tuple[float, str]:
    """Compile a program that prints its records a second, and run it some times."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"peer{suffix}"
        path.write_text(source)
        program = str(path.with_suffix(""))
        words = [path if w == "SOURCE" else w for w in command]
        subprocess.run([*words, "-o", program], check=True, capture_output=True)
        rates = [
            float(subprocess.run([program], check=True, capture_output=True, timeout=NEVER).stdout.split()[0])
            for _ in range(3 if quick else 9)
        ]
    return median(rates) / 1e6, "32-byte records between two threads, 64 at a time"


def boost_spsc(quick: bool) -> tuple[float, str]:
    """Through Boost's queue."""
    return _compiled(SPSC, ".cc", ["c++", "-O2", "-pthread", "SOURCE"], quick)


def rte_ring(quick: bool) -> tuple[float, str]:
    """Through DPDK's ring, one producer and one consumer."""
    flags = subprocess.run(
        ["pkg-config", "--cflags", "libdpdk"], check=True, capture_output=True, text=True
    ).stdout.split()
    return _compiled(RTE, ".c", ["cc", "-O2", "-pthread", *flags, "SOURCE", "-lrte_ring", "-lrte_eal"], quick)


def _dpdk() -> bool:
    """Whether DPDK's headers and libraries can be found."""
    return all(map(shutil.which, ("cc", "pkg-config"))) and not subprocess.call(["pkg-config", "--exists", "libdpdk"])


PEERS: list[tuple[str, str, Callable[[bool], tuple[float, str]], Callable[[], bool], str]] = [
    ("multiprocessing.Pipe round trip", "us", pipe_round_trip, lambda: True, ""),
    ("multiprocessing.Queue", "M/s", queue, lambda: True, ""),
    ("faster-fifo", "M/s", faster_fifo, _module("faster_fifo"), "pip install faster-fifo"),
    ("ZeroMQ round trip", "us", zmq_round_trip, _module("zmq"), "pip install pyzmq"),
    (
        "Boost spsc_queue",
        "M/s",
        boost_spsc,
        lambda: Path("/usr/include/boost/lockfree/spsc_queue.hpp").exists() and shutil.which("c++") is not None,
        "apt install libboost-dev g++",
    ),
    ("DPDK rte_ring", "M/s", rte_ring, _dpdk, "apt install libdpdk-dev pkg-config gcc"),
    ("Unicorn, Python hook", "ns", unicorn_hook, _module("unicorn"), "pip install unicorn"),
    ("QEMU qtest, one by one", "k/s", qtest_single, _qemu.there, _qemu.INSTALL),
    ("QEMU qtest, pipelined", "k/s", qtest_pipelined, _qemu.there, _qemu.INSTALL),
    ("QEMU TCG port loop", "ns", tcg_loop, _qemu.there, _qemu.INSTALL),
    ("QEMU x-remote, one by one", "k/s", remote_single, _qemu.there, _qemu.INSTALL),
    ("QEMU x-remote, pipelined", "k/s", remote_pipelined, _qemu.there, _qemu.INSTALL),
]

if __name__ == "__main__":
    for peer in run("--quick" in sys.argv[1:]):
        print(f"{peer['name']:34} {peer['value']} {peer['unit']}   {peer['note']}")
