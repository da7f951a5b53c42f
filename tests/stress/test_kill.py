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
TAG = "ENGINE_TEST_TAG"


def tagged(tag):
    """Pids of living processes with this tag in their environment."""
    out = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and f"{TAG}={tag}".encode() in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    out.append(int(entry))
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
            [sys.executable, *command], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
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
        return [p for p in tagged(self.tag) if p != self.process.pid]

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


@pytest.mark.timeout(600)
def test_a_hundred_kills_of_anybody_at_any_moment(replayer):
    rng = random.Random(KILLS)
    before, victim = shared_memory(), None
    killed = {"worker": 0, "parent": 0, "starting": 0}
    for n in range(KILLS):
        if victim is None:
            victim = replayer(str(Path(__file__).with_name("replayer.py")), "3")
            assert victim.line(60) == "ready\n", victim.process.stderr.read()
        victim.process.stdin.write("go\n")
        assert victim.line(10) == "began\n"
        time.sleep(rng.random() * 1.2)
        if rng.random() < 0.25:
            killed["parent"] += 1
            victim.process.kill()
            assert until(lambda: not tagged(victim.tag)), f"kill {n}: {tagged(victim.tag)} outlived their parent"  # noqa: B023
            victim = None
            continue
        assert until(lambda: len(victim.workers()) > 0)  # noqa: B023
        pid = rng.choice(victim.workers() or [0])
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # between two replays
            pid = 0
        said = victim.line(WITHIN_S) if pid else None
        if said is None:  # it had ended by itself, and the next replay runs: not a kill in mid-run
            assert victim.process.poll() is None, victim.process.stderr.read()
            killed["starting"] += 1
            os.kill(rng.choice(victim.workers() or [victim.process.pid]), signal.SIGKILL)
            said = victim.line(WITHIN_S)
            if not said:
                assert until(lambda: not tagged(victim.tag))  # noqa: B023
                victim = None
                continue
        killed["worker"] += 1
        assert said.startswith("died worker "), said
        assert f"(pid {pid};" in said or killed["starting"], said
        assert "SIGKILL" in said or "stopped" in said or "ended" in said, said
        assert victim.line(WITHIN_S) == "left\n", "memory files are left"
        assert until(lambda: not victim.workers()), f"kill {n}: {victim.workers()} are left"  # noqa: B023
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
        pid = victim.workers()[1]
        os.kill(pid, signal.SIGKILL)
        said = victim.line(WITHIN_S)
        assert f"(pid {pid}; " in said and "killed by SIGKILL" in said, said
        if "|" in said:
            done, whole, ok = said.rpartition("|")[2].split()
            assert 0 <= int(done) < int(whole) and ok == "False"
        assert victim.line(WITHIN_S) == "left\n"


@pytest.mark.parametrize(("number", "statuses"), [(signal.SIGINT, (130,)), (signal.SIGTERM, (-signal.SIGTERM, 128 + signal.SIGTERM))])
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
