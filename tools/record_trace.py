#!/usr/bin/env python3
"""Record a guest on QEMU as a trace for `engine replay`, and make the reference beside it.

    tools/record_trace.py --out pc.npz --guest "SeaBIOS" --shift 6 --tmax 5 -- -M pc -nodefaults -m 64 -vga std

What follows "--" is the machine; {NAME} in it stands for --file NAME=PATH, of which the side file keeps the length and
SHA-256.  Two steps, each with a QEMU of its own:

1. The guest runs under TCG with -icount shift=N,sleep=off: an instruction takes 2^N ns of virtual time, idle time is
   skipped.  record_plugin.c, compiled with $CC or cc and loaded as a plugin, notes each access, the vectors taken, and
   what devices read from guest RAM while they serve an access.
2. QEMU's devices alone, under the qtest accelerator (qemu_qtest.py), get the same accesses at the same virtual times,
   with the acknowledge cycles where vectors were taken, twice.  What they answer, and what the inputs of the I/O APIC
   do, is the reference.

Guests whose devices finish work outside of virtual time (AHCI, USB, virtio, a network) are not for this tool: its
reference does not wait for their back ends.  QEMU has to be Debian 12's 7.2; the plugin refuses another.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from qemu_qtest import NoReference, reference

from engine import ACC
from engine.frontends.trace import DMA, EVT, IRQ

PLUGIN = Path(__file__).with_name("record_plugin.c")
SUFFIX = {1: "b", 2: "w", 4: "l", 8: "q"}
CONTROL = 0xFE00  # port of accel_qtest.c: which vCPU, and behind it interrupts taken
BLOCK = 256  # requests on their way at once


class CannotRecord(Exception):
    """One line that says what is missing."""


def record(args: argparse.Namespace, machine: list[str], folder: Path) -> dict[str, Any]:
    """The trace's arrays."""
    library, prefix = folder / "plugin.so", folder / "tap"
    done = subprocess.run(
        [*os.environ.get("CC", "cc").split(), "-O2", "-shared", "-fPIC", "-o", library, PLUGIN, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotRecord(f"{PLUGIN.name} was not compiled: {(done.stderr.splitlines() or ['no message'])[0]}")
    command = [
        *("qemu-system-x86_64", "-accel", "tcg,thread=single", "-icount", f"shift={args.shift},sleep=off"),
        *("-plugin", f"{library},out={prefix},max={args.max},tmax={int(args.tmax * 1e9)}"),
        *("-display", "none", "-monitor", "none", "-serial", "null", *machine),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise CannotRecord(f"QEMU: {e}") from None
    acc = np.fromfile(f"{prefix}.acc", ACC) if Path(f"{prefix}.acc").exists() else np.zeros(0, ACC)
    if done.returncode or not len(acc):
        raise CannotRecord(
            f"QEMU ended with {done.returncode}, after {len(acc)} accesses: {done.stderr.strip()[-200:]}"
        )
    raw, at, rows, parts = Path(f"{prefix}.dma").read_bytes(), 0, [], []
    while at + 24 <= len(raw):
        index, gpa = np.frombuffer(raw, "<u8", 2, at).tolist()
        size, sync = np.frombuffer(raw, "<u4", 2, at + 16).tolist()
        rows.append((index, gpa, sum(map(len, parts)), size, sync))
        parts.append(raw[at + 24 : at + 24 + size])
        at += 24 + size
    return {
        "acc": acc,
        "regions": np.array(Path(f"{prefix}.reg").read_text().splitlines()),
        "evt": np.fromfile(f"{prefix}.evt", EVT),
        "dma": np.array(rows, DMA),
        "dma_data": np.frombuffer(b"".join(parts), np.uint8),
    }


class Devices:
    """QEMU's devices alone, over qtest."""

    def __init__(self, machine: list[str], folder: Path) -> None:
        program, env = reference()
        path = folder / "qtest"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            server.settimeout(30)
            self.process = subprocess.Popen(
                [program, "-accel", "qtest", "-qtest", f"unix:{path}", "-qtest-log", "/dev/null", "-display", "none",
                 "-monitor", "none", "-serial", "null", "-no-shutdown", *machine],
                env={**env, "QTEST_CONTROL_PORT": "1"}, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            self.socket = server.accept()[0]
        self.rest = b""
        self.ask(["irq_intercept_in ioapic", f"outl {CONTROL} 0"])

    def ask(self, requests: list[str]) -> list[tuple[bytes, list[bytes]]]:
        """For each request its answer, and the line changes before it."""
        out: list[tuple[bytes, list[bytes]]] = []
        changes: list[bytes] = []
        self.socket.sendall(("\n".join(requests) + "\n").encode())
        while len(out) < len(requests):
            line, newline, rest = self.rest.partition(b"\n")
            if not newline:
                more = self.socket.recv(1 << 16)
                if not more:
                    raise CannotRecord(f"QEMU went away at {requests[len(out)]}")
                self.rest += more
                continue
            self.rest = rest
            if line.startswith(b"IRQ"):
                changes.append(line)
            else:
                out.append((line[3:], changes))
                changes = []
        return out

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()


def answers(trace: dict[str, Any], machine: list[str], folder: Path) -> tuple[Any, Any, Any]:
    """(value of each access, vector of each event, line changes)."""
    acc, evt = trace["acc"], trace["evt"]
    requests: list[tuple[str, int, str, int]] = []  # text, access it belongs to, what its answer is, number
    now, vcpu, taken, dma = 0, 0, 0, 0

    def at(t: int, index: int) -> None:
        nonlocal now
        if t > now:
            requests.append((f"clock_set {t}", index, "before", 0))
            now = t

    def by(who: int, index: int) -> None:
        nonlocal vcpu
        if who != vcpu:
            requests.append((f"outl {CONTROL} {who}", index, "before", 0))
            vcpu = who

    for i, row in enumerate(acc.tolist()):
        t, addr, value, who, size, space, write, _flags, _region = row
        while taken < len(evt) and evt["index"][taken] <= i:
            at(int(evt["t_ns"][taken]), i)
            by(int(evt["data"][taken]) >> 16, i)
            requests.append((f"inl {CONTROL + 4}", i, "vector", taken))
            taken += 1
        while dma < len(trace["dma"]) and trace["dma"]["index"][dma] <= i:
            d = trace["dma"][dma]
            data = trace["dma_data"][d["off"] : d["off"] + d["len"]].tobytes()
            requests.append((f"b64write {d['gpa']} {len(data)} {base64.b64encode(data).decode()}", i, "before", 0))
            dma += 1
        by(who, i)
        at(t, i)
        verb = ("write" if write else "read") if space else ("out" if write else "in")
        text = f"{verb}{SUFFIX[size]} {addr}" + (f" {value}" if write else "")
        requests.append((text, i, "in" if write else "value", i))
    values, vectors, changes = acc["value"].copy(), np.full(len(evt), -1, "<i8"), []
    devices = Devices(machine, folder)
    try:
        for start in range(0, len(requests), BLOCK):
            part = requests[start : start + BLOCK]
            for (_, i, what, k), (answer, lines) in zip(part, devices.ask([r[0] for r in part]), strict=True):
                if what == "value":
                    values[k] = int(answer, 16)
                elif what == "vector":
                    vectors[k] = int(answer, 16)
                for line in lines:
                    _, level, gsi = line.split()
                    changes.append((i, acc["t_ns"][i], int(gsi), level == b"raise", what in ("value", "in"), 0))
    finally:
        devices.close()
    return values, vectors, np.array(changes, IRQ)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True, metavar="NAME.npz", help="the trace; the other files go beside it")
    p.add_argument("--guest", default="", help="what runs, for people")
    p.add_argument("--shift", type=int, default=6, help="an instruction takes 2^SHIFT ns (default: 6)")
    p.add_argument("--max", type=int, default=100_000, help="end after so many accesses")
    p.add_argument("--tmax", type=float, default=60, help="end at this virtual time, seconds")
    p.add_argument("--timeout", type=float, default=120, help="give up after so many seconds")
    p.add_argument("--file", action="append", default=[], metavar="NAME=PATH")
    p.add_argument("machine", nargs="+", help="-- and QEMU's options")
    args = p.parse_args()
    files = dict(f.split("=", 1) for f in args.file)
    stem = args.out.removesuffix(".npz")
    try:
        machine = [re.sub(r"\{(\w+)\}", lambda m: files[m.group(1)], a) for a in args.machine]
        with tempfile.TemporaryDirectory(prefix="record-") as name:
            trace = record(args, machine, Path(name))
            runs = [answers(trace, machine, Path(name)) for _ in range(2)]
    except (CannotRecord, NoReference, OSError) as e:
        print(f"record_trace.py: {e}", file=sys.stderr)
        return 2
    except KeyError as e:
        print(f"record_trace.py: the machine names {e}; give --file NAME=PATH", file=sys.stderr)
        return 2
    acc, evt = trace["acc"], trace["evt"]
    value, vector, irq = runs[0]
    read, agree = acc["dir"] == 0, value == runs[1][0]
    status = (np.where(agree, 1, 2) * read).astype("u1") | ((read & (value == acc["value"])) * 0x80).astype("u1")
    np.savez_compressed(f"{stem}.npz", version=np.array([1]), **trace)
    np.savez_compressed(f"{stem}.golden.npz", version=np.array([1]), value=value, status=status, vector=vector, irq=irq)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout
    about = {
        "guest": args.guest,
        "recorder": "tools/record_trace.py",
        "qemu": version.splitlines()[0],
        "icount_shift": args.shift,
        "machine_args": args.machine,
        "files": {n: {"name": Path(f).name, "bytes": Path(f).stat().st_size,
                      "sha256": hashlib.sha256(Path(f).read_bytes()).hexdigest()} for n, f in files.items()},
        "statistics": {"accesses": len(acc), "reads": int(read.sum()), "vectors": len(evt),
                       "seconds": acc["t_ns"][-1] / 1e9},
    }  # fmt: skip
    Path(f"{stem}.json").write_text(json.dumps(about, indent=1) + "\n")
    gold = {
        "reads": int(read.sum()),
        "stable": int((read & agree).sum()),
        "equal_to_recording": int((read & (value == acc["value"])).sum()),
        "vectors": len(evt),
        "vectors_as_recorded": int((vector == (evt["data"] & 0xFFFF)).sum()),
        "vectors_identical_in_all_runs": bool((vector == runs[1][1]).all()),
        "line_changes": len(irq),
        "line_changes_identical_in_all_runs": len(irq) == len(runs[1][2]) and bool((irq == runs[1][2]).all()),
    }
    Path(f"{stem}.golden.json").write_text(json.dumps(gold, indent=1) + "\n")
    print(f"{stem}.npz: {len(acc)} accesses; the reference: {gold}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
