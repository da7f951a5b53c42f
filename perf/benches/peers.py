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


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


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


class Qtest:
    """A QEMU machine whose CPU stands still and whose ports obey the qtest protocol on standard input and output."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [
                "qemu-system-x86_64",
                "-M",
                "pc",
                "-accel",
                "tcg",
                "-S",
                "-display",
                "none",
                "-nodefaults",
                "-serial",
                "null",
                "-qtest",
                "stdio",
                "-qtest-log",
                "none",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Qtest:
        return self

    def __exit__(self, *what: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, commands: bytes, n: int) -> None:
        """Send n commands, read n answers."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(commands)
        self.process.stdin.flush()
        for _ in range(n):
            if not self.process.stdout.readline().startswith(b"OK"):
                raise RuntimeError("QEMU answers no OK")


def qtest_single(quick: bool) -> tuple[float, str]:
    """Port reads one by one."""
    n = 2_000 if quick else 20_000
    with Qtest() as q:
        q.ask(b"inb 0x3ff\n" * 10, 10)
        start = time.perf_counter()
        for _ in range(n):
            q.ask(b"inb 0x3ff\n", 1)
        return n / (time.perf_counter() - start) / 1e3, "port reads of COM1, each after the answer to the one before"


def qtest_pipelined(quick: bool) -> tuple[float, str]:
    """Port reads, 256 sent at once."""
    n = 20_000 if quick else 200_000
    with Qtest() as q:
        q.ask(b"inb 0x3ff\n" * 10, 10)
        start = time.perf_counter()
        for _ in range(n // 256):
            q.ask(b"inb 0x3ff\n" * 256, 256)
        return n // 256 * 256 / (time.perf_counter() - start) / 1e3, "port reads of COM1, 256 sent at once"


# A boot sector: cli; mov ecx, n; mov dx, 3fdh; loop: in al, dx; dec ecx; jnz loop;
# mov dx, 501h; mov al, 0; out dx, al; hlt
BOOT = bytes.fromhex("fa66b9") + b"%b" + bytes.fromhex("bafd03ec664975fbba0105b000eef4ebfd")


def _tcg(n: int) -> float:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".img") as f:
        f.write((BOOT % n.to_bytes(4, "little")).ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 16))
        f.flush()
        start = time.perf_counter()
        subprocess.run(
            [
                "qemu-system-x86_64",
                "-M",
                "pc",
                "-accel",
                "tcg",
                "-display",
                "none",
                "-nodefaults",
                "-serial",
                "null",
                "-boot",
                "a",
                "-drive",
                f"if=floppy,format=raw,file={f.name}",
                "-device",
                "isa-debug-exit",
            ],
            timeout=NEVER,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - start


def tcg_loop(quick: bool) -> tuple[float, str]:
    """A guest's loop of port reads under QEMU's translator: a long loop's time less a short one's."""
    few, many = 100_000, 10_000_000 if quick else 40_000_000
    return (min(_tcg(many) for _ in range(2)) - min(_tcg(few) for _ in range(2))) * 1e9 / (
        many - few
    ), "per IN of COM1's line status in a boot sector, loop included"


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


def boost_spsc(quick: bool) -> tuple[float, str]:
    """32-byte records through Boost's queue between two threads."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "spsc.cc"
        source.write_text(SPSC)
        subprocess.run(["c++", "-O2", "-pthread", str(source), "-o", f"{folder}/spsc"], check=True, capture_output=True)
        rates = [
            float(
                subprocess.run(
                    [f"{folder}/spsc"], check=True, capture_output=True, text=True, timeout=NEVER
                ).stdout.split()[0]
            )
            for _ in range(3 if quick else 9)
        ]
    return median(rates) / 1e6, "32-byte records between two threads, 64 at a time"


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
    ("Unicorn, Python hook", "ns", unicorn_hook, _module("unicorn"), "pip install unicorn"),
    ("QEMU qtest, one by one", "k/s", qtest_single, _program("qemu-system-x86_64"), "apt install qemu-system-x86"),
    ("QEMU qtest, pipelined", "k/s", qtest_pipelined, _program("qemu-system-x86_64"), "apt install qemu-system-x86"),
    ("QEMU TCG port loop", "ns", tcg_loop, _program("qemu-system-x86_64"), "apt install qemu-system-x86"),
]

if __name__ == "__main__":
    for peer in run("--quick" in sys.argv[1:]):
        print(f"{peer['name']:34} {peer['value']} {peer['unit']}   {peer['note']}")
