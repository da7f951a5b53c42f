"""Whatever is killed, and whenever: within five seconds nothing is left of the machine, and nothing hangs."""

import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress
KILLS = int(os.environ.get("ENGINE_KILLS", "100"))
WITHIN_S = 5.0
TAG, RUN = "ENGINE_TEST_TAG", b"ENGINE_TEST_RUN="


def tagged(tag):
    """Living processes with this tag in their environment: {pid: which of its replays it serves}."""
    out = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
                found = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                if state not in "ZX" and f"{TAG}={tag}".encode() in found:
                    out[int(entry)] = max((int(v[len(RUN) :]) for v in found if v.startswith(RUN)), default=0)
            except OSError:
                continue
    return out


def until(condition, seconds=WITHIN_S):
    """Wait for a condition; whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Replayer:
    """A replaying process with a tag that its workers inherit."""

    def __init__(self, *command):
        self.tag = uuid.uuid4().hex
        env = {**os.environ, TAG: self.tag, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.lines = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def line(self, seconds):
        """Its next line ("" when it has ended), or None if none comes in time."""
        try:
            return self.lines.get(timeout=seconds)
        except queue.Empty:
            return None

    def workers(self):
        return {pid: run for pid, run in tagged(self.tag).items() if pid != self.process.pid}

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def replayer():
    started = []

    def start(*command):
        started.append(Replayer(*command))
        return started[-1]

    yield start
    for one in started:
        one.end()
        assert until(lambda one=one: not tagged(one.tag))


def shared_memory():
    return sorted(os.listdir("/dev/shm"))


def kill_a_worker(victim, rng):
    """Kill one that is needed; its pid and what the parent says of it.  One that was leaving is not missed."""
    while True:
        assert until(victim.workers)
        pid, run = rng.choice(list(victim.workers().items()) or [(0, 0)])
        if not pid:
            continue
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        end = time.monotonic() + WITHIN_S
        while (said := victim.line(0.02)) is None:
            assert time.monotonic() < end, f"nobody misses worker {pid}"
            if any(r > run for r in victim.workers().values()):
                break  # the next replay has begun
        if said is not None:
            return pid, said


@pytest.mark.timeout(600)
def test_a_hundred_kills_of_anybody_at_any_moment(replayer):
    rng = random.Random(KILLS)
    before, victim = shared_memory(), None
    killed = {"worker": 0, "parent": 0}
    for n in range(KILLS):
        if victim is None:
            victim = replayer(str(Path(__file__).with_name("replayer.py")), "3")
            assert victim.line(60) == "ready\n", victim.process.stderr.read()
        victim.process.stdin.write("go\n")
        assert victim.line(10) == "began\n"
        time.sleep(rng.random() * 0.8)
        if rng.random() < 0.25:
            killed["parent"] += 1
            victim.process.kill()
            assert until(lambda v=victim: not tagged(v.tag)), f"kill {n}: {tagged(victim.tag)} outlived their parent"
            victim = None
            continue
        killed["worker"] += 1
        pid, said = kill_a_worker(victim, rng)
        assert said.startswith("died worker ") and f"(pid {pid}; " in said and "killed by SIGKILL" in said, said
        assert victim.line(WITHIN_S) == "left\n", "memory files are left"
        assert until(lambda v=victim: not v.workers()), f"kill {n}: {victim.workers()} are left"
    assert killed["worker"] > KILLS // 2
    assert killed["parent"] > KILLS // 10
    assert shared_memory() == before


def test_a_killed_worker_is_named_with_its_devices_and_what_was_done(replayer):
    victim = replayer(str(Path(__file__).with_name("replayer.py")), "3")
    assert victim.line(60) == "ready\n"
    for _ in range(5):
        victim.process.stdin.write("go\n")
        assert victim.line(10) == "began\n"
        assert until(lambda: len(victim.workers()) == 3, 20)
        pid = list(victim.workers())[1]
        os.kill(pid, signal.SIGKILL)
        said = victim.line(WITHIN_S)
        assert f"(pid {pid}; " in said and "killed by SIGKILL" in said, said
        if "|" in said:
            done, whole, ok = said.rpartition("|")[2].split()
            assert 0 <= int(done) < int(whole) and ok == "False"
        assert victim.line(WITHIN_S) == "left\n"


@pytest.mark.parametrize(
    ("number", "statuses"), [(signal.SIGINT, (130,)), (signal.SIGTERM, (-signal.SIGTERM, 128 + signal.SIGTERM))]
)
def test_signals_to_the_command_at_any_moment(replayer, number, statuses):
    rng = random.Random(7)
    for n in range(8):
        command = "import sys; from engine.cli import main; print('up', flush=True); sys.exit(main(sys.argv[1:]))"
        victim = replayer("-c", command, "replay", "seabios-pc", "--path", "all", "--workers", "3")
        assert victim.line(20) == "up\n"
        time.sleep(rng.random() * (0.1 if n < 3 else 3.0))
        victim.process.send_signal(number)
        try:
            victim.process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{number.name} is not heeded: {victim.workers()}")
        errors = victim.process.stderr.read()
        if victim.process.returncode in (0, 1):
            continue  # it was done before
        assert victim.process.returncode in statuses, errors
        assert "Traceback" not in errors
        assert until(lambda v=victim: not tagged(v.tag)), victim.workers()
