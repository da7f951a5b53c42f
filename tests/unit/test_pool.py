"""Starting, watching and ending workers: whatever goes wrong is one clear error, and nothing is left running."""

import contextlib
import gc
import io
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import ACC, EngineError, Machine, MachineError, RingError, UsageError, WorkerDied
from engine.machine.spec import BoardSpec, DeviceSpec, MachineSpec, PlacementSpec, WorkerSpec, load
from engine.workers import main, pool

PROBE = "engine.testing._probe:Probe"


def board(*types, ram=1 << 20, **config):
    """A board of test devices, each its own unit."""
    devices = []
    for n, kind in enumerate(types):
        at = {"port": 0x100 + 16 * n}
        if kind.startswith("tests."):
            devices.append(DeviceSpec(f"d{n}", kind, at=at, config={"parent": os.getpid(), **config}))
        else:
            devices.append(DeviceSpec(f"d{n}", kind, at=at))
    return MachineSpec(BoardSpec(name="small", ram=ram), tuple(devices))


FAULTY = "tests.unit.faulty:Faulty"


def children():
    """Workers of this process that live."""
    out = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
                if int(fields[1]) == os.getpid() and fields[0] != "Z" and b"engine.workers.main" in command:
                    out.append(int(entry))
    return out


def fds():
    return [n for n in map(_link, os.listdir("/proc/self/fd")) if "memfd:engine" in n]


def _link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@pytest.fixture(autouse=True)
def nothing_left():
    gc.collect()
    workers, segments = children(), fds()  # of modules before this one, whose machines live on
    yield
    gc.collect()
    assert children() == workers
    assert fds() == segments


@pytest.fixture
def soon_killed(monkeypatch):
    """A worker that does not end when asked is killed at once."""
    monkeypatch.setattr(pool, "STOP_S", 0.05)


@contextlib.contextmanager
def limited(which, soft):
    old = resource.getrlimit(which)
    resource.setrlimit(which, (soft, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, old)


# ---------------------------------------------------------------------- starting


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("raise", EngineError, ["worker 2", "d1", "FileNotFoundError", "disk.img"]),
        ("exit", WorkerDied, ["worker 2", "d1", "exit status 7"]),
    ],
)
def test_a_device_that_fails_in_its_worker(how, error, words):
    machine = Machine.from_spec(board(PROBE, FAULTY, PROBE, how=how), workers=3, owners=[0, 1, 2])
    with pytest.raises(error) as e:
        machine.start()
    assert "\n" not in str(e.value)
    assert all(w in str(e.value) for w in words), str(e.value)
    machine.stop()


@pytest.mark.parametrize("cpu", [-1, 1 << 20])
def test_a_cpu_that_is_not_there(cpu):
    spec = replace(board(PROBE), placement=PlacementSpec(1, worker=(WorkerSpec(("d0",), cpu),)))
    with pytest.raises(MachineError, match=rf"\[\[placement.worker\]\] 1: cpu = {cpu}: this process may not run there"):
        Machine.from_spec(spec).start()


def test_a_peer_that_a_part_does_not_know():
    spec = load("i440fx")
    pit = replace(spec.device("pit"), peers={"clock": "rtc"})
    spec = replace(spec, devices=tuple(pit if d.id == "pit" else d for d in spec.devices))
    with pytest.raises(MachineError, match=r"i440fx.toml:\d+: device 'pit': I8254 has no peer 'clock'"):
        Machine.from_spec(spec).start()


def test_a_worker_that_does_not_start(monkeypatch, soon_killed):
    monkeypatch.setattr(pool, "START_S", 0.2)
    with pytest.raises(WorkerDied, match=r"worker 1 .*did not start within 0\.2 seconds"):
        Machine.from_spec(board(FAULTY, how="hang"), workers=1, path="sync").start()


def test_too_few_descriptors():
    machine = Machine.from_spec(board(*[PROBE] * 6), workers=6, owners=list(range(6)))
    held = [os.open(os.devnull, os.O_RDONLY)]  # descriptors are given out from the lowest: fill the gaps below this one
    while held[-1] < 60:
        held.append(os.dup(held[0]))
    try:
        for spare in (0, 1, 2, 3, 4, 6, 8):
            with limited(resource.RLIMIT_NOFILE, held[-1] + 1 + spare), pytest.raises(EngineError) as e:
                machine.start()
            assert "ulimit -n" in str(e.value) or "cannot be started" in str(e.value), str(e.value)
    finally:
        for fd in held:
            os.close(fd)


def test_not_enough_memory_for_a_file():
    with limited(resource.RLIMIT_FSIZE, 1 << 16), pytest.raises(RingError, match="guest-ram"):
        Machine.from_spec(board(PROBE), workers=1, path="sync").start()


def test_not_enough_address_space():
    code = (
        "import resource, sys, engine; from tests.unit.test_pool import board, PROBE\n"
        "m = engine.Machine.from_spec(board(PROBE, ram=1 << 34), workers=1, path='sync')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try: m.start()\n"
        "except engine.EngineError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert "guest-ram" in done.stdout and "memory" in done.stdout and done.stdout.count("\n") == 1


def test_a_class_that_workers_cannot_import():
    spec = board(PROBE)
    machine = Machine.from_spec(spec, workers=1, path="sync")
    module = type(sys)("elsewhere")
    module.Probe = type("Probe", (machine.plan.devices[0].cls,), {"__module__": "elsewhere"})
    sys.modules["elsewhere"] = module
    try:
        machine.plan.devices[0].cls = module.Probe
        with pytest.raises(EngineError, match=r"worker 1 .*ModuleNotFoundError"):
            machine.start()
    finally:
        del sys.modules["elsewhere"]


def test_stop_from_another_thread_while_starting():
    for delay in (0.0, 0.05, 0.2):
        machine = Machine.from_spec(board(*[PROBE] * 4), workers=4, owners=[0, 1, 2, 3])
        threading.Timer(delay, machine.stop).start()
        with contextlib.suppress(EngineError):
            machine.start()
            time.sleep(delay)
        machine.stop()


def test_interrupted_while_starting():
    for delay in (0.02, 0.1, 0.3):
        machine = Machine.from_spec(board(*[PROBE] * 3), workers=3, owners=[0, 1, 2])
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            machine.start()
            time.sleep(5)
        machine.stop()


# ---------------------------------------------------------------------- running and ending


def test_stop_twice_and_start_again():
    machine = Machine.from_spec(board(PROBE, PROBE), workers=2, owners=[0, 1])
    for _ in range(2):
        machine.start()
        with pytest.raises(EngineError, match="running already"):
            machine.start()
        first = machine.read("pio", 0x100)
        assert first == machine.save()["devices"]["d0"]["state"]["seen"] & 0xFF
        machine.stop()
        machine.stop()
        with pytest.raises(EngineError, match="not running"):
            machine.read("pio", 0x100)
        with pytest.raises(EngineError, match="not running"):
            _ = machine.clock.now


def test_an_exception_in_the_block():
    with pytest.raises(ZeroDivisionError), Machine.from_spec(board(PROBE), workers=1, path="sync") as machine:
        assert children() == [machine.pool.workers[0].pid]
        machine.write("pio", 0x100, 1, 1 // 0)


def test_a_forgotten_machine_ends():
    Machine.from_spec(board(PROBE), workers=1, path="sync").start()
    gc.collect()
    assert children() == []


def test_the_thread_that_started_may_end():
    machine = Machine.from_spec(board(PROBE), workers=1, path="sync")
    thread = threading.Thread(target=machine.start)
    thread.start()
    thread.join()
    time.sleep(0.2)
    machine.read("pio", 0x100)
    machine.stop()


def test_a_worker_that_is_asked_ends_by_itself_and_one_that_cannot_hear_is_killed(soon_killed, monkeypatch):
    for stopped, code in ((False, 0), (True, -signal.SIGKILL)):
        if not stopped:
            monkeypatch.setattr(pool, "STOP_S", 60.0)
        with Machine.from_spec(board(PROBE), workers=1, path="sync") as machine:
            process = machine.pool.workers[0].process
            if stopped:
                monkeypatch.setattr(pool, "STOP_S", 0.05)
                os.kill(process.pid, signal.SIGSTOP)
        assert process.returncode == code


def reads(n):
    batch = np.zeros(n, ACC)
    batch["addr"], batch["size"] = 0x110, 1
    return batch


@pytest.mark.parametrize("path", ["sync", "buffered", "batched"])
def test_a_worker_that_stands_still_ends_the_run(path, soon_killed):
    with Machine.from_spec(board(PROBE, PROBE), workers=2, owners=[0, 1], path=path) as machine:
        machine.submit(reads(10))
        os.kill(machine.pool.workers[1].pid, signal.SIGSTOP)
        machine.sequencer.patience = 0.2
        with pytest.raises(WorkerDied, match=r"worker 2 has not answered for 0\.2 seconds"):
            machine.submit(reads(10))
        with pytest.raises(EngineError, match="stopped in the middle of a batch"):
            machine.submit(reads(10))


def test_a_worker_that_has_nothing_to_do_does_not_stand_still():
    with Machine.from_spec(board(PROBE, PROBE), workers=2, owners=[0, 1], path="batched") as machine:
        machine.sequencer.patience = 1.0
        machine.submit(reads(10))
        time.sleep(1.1)
        machine.submit(reads(10))


@pytest.mark.parametrize("path", ["sync", "buffered", "batched"])
def test_a_killed_worker_is_named(path):
    with Machine.from_spec(board(PROBE, PROBE, PROBE), workers=2, owners=[0, 1, 1], path=path) as machine:
        pid = machine.pool.workers[1].pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=rf"worker 2 \(pid {pid}; d1, d2\) ended: killed by SIGKILL"):
            machine.read("pio", 0x110)


@pytest.mark.parametrize("wait", ["spin", "block"])
def test_a_worker_that_is_killed_between_snapshots(wait):
    """Whenever it comes, it is named; the last snapshot fits the machine once it is started again."""
    spec = board(PROBE, PROBE, PROBE)
    machine = Machine.from_spec(
        replace(spec, placement=replace(spec.placement, workers=3, wait=wait)), workers=3, owners=[0, 1, 2]
    )

    def look():
        return [machine.read("pio", 0x100 + 16 * n) for n in range(3)]

    with machine:
        for n in range(3):
            machine.write("pio", 0x100 + 16 * n, 1, n + 1)
        at, want = machine.snapshot(), look()
    for delay in (0, 0.003, 0.02):
        with machine:
            machine.restore(at)
            assert look() == want
            victim = machine.pool.workers[1].pid
            killer = threading.Timer(delay, os.kill, (victim, signal.SIGKILL))
            killer.start()
            with pytest.raises(WorkerDied, match=rf"worker 2 \(pid {victim}; d1\) ended: killed by SIGKILL"):
                for _ in range(1 << 20):
                    machine.restore(at)
                    machine.reset()
                    machine.snapshot(ram=False)
            killer.join()


def test_a_scribbled_arena_harms_only_its_worker():
    """The router hands the bytes back and believes none; what was put back is there again."""
    rng = np.random.default_rng(7)
    with Machine.from_file("i440fx", workers=2) as machine:
        machine.sequencer.patience = 0.5

        def look():
            ports = (0x20, 0x21, 0x3FB, 0x3FD, 0x64, 0x61, 0x1F7, 0x70, 0x92)
            return [machine.read("pio", port) for port in ports] + [machine.read("mmio", 0xFED000F0, 8)]

        machine.write("pio", 0x3FB, 1, 0x1B)
        good, want = machine.snapshot(ram=False), look()
        for round in range(40):
            for worker, arena in zip(machine.pool.workers, machine.pool.arenas, strict=True):
                memory = memoryview(worker.memory)[main.ARENA_AT :][: arena.in_use]
                memory[:] = rng.bytes(len(memory)) if round % 4 else b"\xff" * len(memory)
            bad = machine.snapshot(ram=False)
            machine.restore(good)
            assert look() == want, round
        with contextlib.suppress(EngineError):  # what the workers make of it is their affair
            machine.restore(bad)
            machine.clock.step(1_000_000)
            look()


@pytest.mark.parametrize("said", [pool.ARENA_SIZE + 1, -1, 1 << 70, "all", None])
def test_a_worker_that_uses_more_than_there_is_is_refused(monkeypatch, said):
    monkeypatch.setattr(pool, "receive_plain", lambda sock: (main.receive_plain(sock)[0], (said, [0])))
    with pytest.raises(RingError, match=r"worker 1 .*says that it uses .* bytes of 4194304") as e:
        Machine.from_spec(board(PROBE), workers=1, path="sync").start()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("said", [[-8], [4], [1 << 70], [960], ["there"], [], [0, 64], {}, None])
def test_a_worker_whose_devices_are_not_in_its_arena_is_refused(monkeypatch, said):
    monkeypatch.setattr(pool, "receive_plain", lambda sock: (main.receive_plain(sock)[0], (1000, said)))
    with pytest.raises(RingError, match=r"worker 1 .*(says that d0 is at .* of 1000|does not say where)") as e:
        Machine.from_spec(board(PROBE), workers=1, path="sync").start()
    assert "\n" not in str(e.value)


def test_a_device_that_exits_while_running():
    with Machine.from_spec(board(FAULTY, on_write="exit"), workers=1, path="buffered") as machine:
        batch = np.zeros(1, ACC)
        batch["addr"], batch["size"], batch["dir"] = 0x100, 1, 1
        machine.submit(batch)  # posted: nobody waits for it
        with pytest.raises(WorkerDied, match=r"d0.*exit status 7"):
            machine.clock.step(1)


def test_a_device_that_raises_system_exit_does_not_end_its_worker():
    with Machine.from_spec(board(FAULTY, PROBE, on_write="leave"), workers=1, path="sync") as machine:
        machine.write("pio", 0x100, 1, 0x55)
        assert machine.read("pio", 0x100) == 0x55
        machine.read("pio", 0x110)


def test_ctrl_c_in_a_run_leaves_a_machine_that_says_so(soon_killed):
    with Machine.from_spec(board(FAULTY, on_write="interrupt"), workers=1, path="sync") as machine:
        with pytest.raises(KeyboardInterrupt):
            machine.write("pio", 0x100, 1, 1)
        with pytest.raises(EngineError, match="in the middle of a batch"):
            machine.read("pio", 0x100)


def test_an_interrupted_command(soon_killed):
    with Machine.from_spec(board(FAULTY, on_inspect="interrupt"), workers=1, path="sync") as machine:
        with pytest.raises(KeyboardInterrupt):
            machine.call("d0", "inspect")
        with pytest.raises(EngineError, match="interrupted"):
            machine.pool.command(0, "stats")


def test_commands_between_accesses_never_leave_a_worker_deaf():
    with Machine.from_spec(board(PROBE, PROBE), workers=2, owners=[0, 1]) as machine:
        machine.sequencer.patience = 5.0
        for n in range(200):
            seen = machine.call(f"d{n & 1}", "save")["seen"]
            assert machine.read("pio", 0x100 + 16 * (n & 1)) != seen & 0xFF or seen >> 8


def test_errors_of_commands():
    with Machine.from_spec(board(PROBE), workers=1, path="sync") as machine:
        with pytest.raises(EngineError, match="unknown command"):
            machine.pool.command(0, "dance")
        with pytest.raises(UsageError, match="d0: no method '__init__' for callers; there are ask_to_eject"):
            machine.call("d0", "__init__")
        with pytest.raises(EngineError, match=r"d0: state of None") as e:
            machine.call("d0", "restore", {})
        assert type(e.value).__name__ == "StateError"
        with pytest.raises(UsageError, match="no device 'nobody' in this machine; it has d0"):
            machine.call("nobody", "save")
        assert machine.pool.command(0, "stats")["devices"] == ["d0"]


def test_what_no_machine_can_have():
    with pytest.raises(UsageError):
        Machine.from_spec(board(PROBE), workers=0, path="sync")
    with pytest.raises(UsageError):
        Machine.from_spec(board(PROBE), workers=1025)


# ---------------------------------------------------------------------- a hostile worker on the control socket


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/engine-was-here",)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (pickle.dumps(Evil()), "names posix.system"),
        (pickle.dumps(np.int64(5)), "names numpy"),
        (b"garbage", "cannot be read"),
        (b"", "cannot be read"),
        (pickle.dumps(["ok", 1]), "is none"),
        (pickle.dumps((1, 2)), "is none"),
        (pickle.dumps(("error", 5)), "error that is none"),
        (pickle.dumps(("error", ("StateError", 5))), "error that is none"),
    ],
    ids=["code", "a class", "noise", "nothing", "a list", "no kind", "no error", "no text"],
)
def test_messages_that_are_none(body, words):
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(struct.pack("<Q", len(body)) + body)
        with pytest.raises(RingError, match=words):
            main.receive_plain(mine)


def test_messages_that_are_too_long_or_too_short():
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(struct.pack("<Q", 1 << 50))
        with pytest.raises(RingError, match="1125899906842624 bytes"):
            main.receive_plain(mine)
        theirs.sendall(struct.pack("<Q", 100) + b"x" * 50)
        theirs.close()
        with pytest.raises(EOFError):
            main.receive_plain(mine)


def test_plain_values():
    given = {
        "a": np.uint64(1 << 63),
        "b": np.arange(3),
        "c": [bytearray(b"x"), memoryview(b"y")],
        "d": (np.bool_(True), None),
    }
    got = main._Plain(io.BytesIO(pickle.dumps(main.plain(given)))).load()
    assert got == {"a": 1 << 63, "b": [0, 1, 2], "c": [b"x", b"y"], "d": (True, None)}
