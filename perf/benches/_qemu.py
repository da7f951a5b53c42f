"""QEMU as a peer: its ports over qtest, its translator's port loops, its remote device."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from typing import IO, Self

from engine.measure import _limits
from perf.benches._common import Skipped

PROGRAM = "qemu-system-x86_64"
INSTALL = "apt install qemu-system-x86"
START = 60.0  # s that firmware may take to its boot sector


def there() -> bool:
    """Whether QEMU is installed."""
    return shutil.which(PROGRAM) is not None


def need() -> None:
    """Raises Skipped without QEMU."""
    if not there():
        raise Skipped(f"{PROGRAM} is missing ({INSTALL})")


class Process:
    """A QEMU with nothing but what is asked for."""

    def __init__(self, *words: str, fds: tuple[int, ...] = ()) -> None:
        need()
        self.process = subprocess.Popen(
            [PROGRAM, "-display", "none", "-nodefaults", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=fds,
        )
        assert self.process.stdin and self.process.stdout
        self.input: IO[bytes] = self.process.stdin
        self.output: IO[bytes] = self.process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *what: object) -> None:
        self.process.kill()
        self.process.communicate()


class Qtest(Process):
    """A PC whose CPU stands still and whose ports obey the qtest protocol."""

    def __init__(self) -> None:
        super().__init__("-M", "pc", "-accel", "tcg", "-S", "-serial", "null", "-qtest", "stdio", "-qtest-log", "none")
        self.ask(b"inb 0x3ff\n" * 10, 10)

    def ask(self, commands: bytes, n: int) -> None:
        """Send n commands, read n answers."""
        self.input.write(commands)
        self.input.flush()
        for _ in range(n):
            if not self.output.readline().startswith(b"OK"):
                raise RuntimeError("QEMU answers no OK")

    def rate(self, n: int, at_once: int) -> float:
        """Reads of COM1's scratch register a second, sent so many at once."""
        start = time.perf_counter()
        for _ in range(n // at_once):
            self.ask(b"inb 0x3ff\n" * at_once, at_once)
        return n // at_once * at_once / (time.perf_counter() - start)


IN, OUT = 0xEC, 0xEE  # in al, dx; out dx, al
LOOPS = 1 << 17

# A boot sector: takes a port's number and an opcode from COM1, runs it LOOPS times with AL = 0, answers the TSC ticks.
BOOT = (
    bytes.fromhex(
        "fa 31c0 8ed8"  # cli; xor ax, ax; mov ds, ax
        "e83600 88c3"  # next: call get; mov bl, al
        "e83100 88c7"  # call get; mov bh, al
        "e82c00 a2257c"  # call get; mov [loop], al
        "66b9"  # mov ecx, LOOPS
    )
    + LOOPS.to_bytes(4, "little")
    + bytes.fromhex(
        "0f31 6689c6 6631c0 89da"  # rdtsc; mov esi, eax; xor eax, eax; mov dx, bx
        "90 6649 75fb"  # loop: nop (the opcode comes here); dec ecx; jnz loop
        "0f31 6629f0"  # rdtsc; sub eax, esi
        "b90400 baf803"  # mov cx, 4; mov dx, 3F8h
        "ee 66c1e808 e2f9"  # send: out dx, al; shr eax, 8; loop send
        "ebc7"  # jmp next
        "bafd03 ec a801 74fb"  # get: mov dx, 3FDh; wait: in al, dx; test al, 1; jz wait
        "baf803 ec c3"  # mov dx, 3F8h; in al, dx; ret
    )
)


class Translated(Process):
    """A guest under the translator that runs loops of port accesses, and stands still between them."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile(suffix=".img") as disk:
            disk.write(BOOT.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 16))
            disk.flush()
            drive = f"if=floppy,format=raw,file={disk.name}"
            super().__init__("-M", "pc", "-accel", "tcg", "-boot", "a", "-serial", "stdio", "-drive", drive)
            self.ns(0x3FF, IN)

    def ns(self, port: int, opcode: int) -> float:
        """Time of one turn of a loop: the access, a decrement and a jump."""
        os.kill(self.process.pid, signal.SIGCONT)
        self.input.write(struct.pack("<HB", port, opcode))
        self.input.flush()
        (ticks,) = struct.unpack("<I", self.output.read(4))
        os.kill(self.process.pid, signal.SIGSTOP)
        return ticks * 1e9 / _limits.tsc_hz() / LOOPS


class Remote(Process):
    """An 82540EM in a process of its own, spoken to in the protocol of QEMU's multi-process mode."""

    CONFIG_WRITE, BAR_READ = 2, 5
    BASE, STATUS = 0xE0000000, 8

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            devices = ("-device", "e1000,id=nic", "-object", f"x-remote-object,id=r,devid=nic,fd={theirs.fileno()}")
            super().__init__("-M", "x-remote", "-qmp", "stdio", *devices, fds=(theirs.fileno(),))
        self.output.readline()
        self.input.write(b'{"execute": "qmp_capabilities"}')
        self.input.flush()
        self.output.readline()  # the main loop runs: the reset at start, which clears the base, is over
        self.socket.settimeout(START)
        for register, value, size in ((0x10, self.BASE, 4), (0x04, 2, 2)):  # BAR 0, memory space
            self.socket.sendall(self.message(self.CONFIG_WRITE, struct.pack("<IIi", register, value, size)))
            self.answers(1)
        self.read = self.message(self.BAR_READ, struct.pack("<QQIB3x", self.BASE + self.STATUS, 0, 4, 1))

    @staticmethod
    def message(command: int, payload: bytes) -> bytes:
        return struct.pack("<iiQ", command, 0, len(payload)) + payload

    def answers(self, n: int) -> None:
        """Take n answers of 16 + 8 bytes."""
        left = n * 24
        while left:
            got = self.socket.recv(left)
            if not got:
                raise RuntimeError("QEMU's remote device has gone")
            left -= len(got)

    def rate(self, n: int, at_once: int) -> float:
        """Reads of the status register a second, sent so many at once."""
        start = time.perf_counter()
        for _ in range(n // at_once):
            self.socket.sendall(self.read * at_once)
            self.answers(at_once)
        return n // at_once * at_once / (time.perf_counter() - start)

    def __exit__(self, *what: object) -> None:
        self.socket.close()
        super().__exit__(*what)
