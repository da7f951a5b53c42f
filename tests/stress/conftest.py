"""Starting the second process of a stress test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).with_name("peers.py")


class Peer:
    """peers.py in a process of its own; `result()` waits for its line of JSON."""

    def __init__(self, name, fd, *args):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(
            [sys.executable, str(PEERS), name, str(fd), *map(str, args)],
            env=env,
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self):
        """Wait until it says that it begins."""
        line = self.process.stdout.readline()
        assert line == "ready\n", f"peer said {line!r}: {self.process.stderr.read()[-2000:]}"

    @property
    def running(self):
        return self.process.poll() is None

    def result(self, timeout=120):
        out, err = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, f"peer ended with {self.process.returncode}: {err.strip()[-2000:]}"
        return json.loads(out)


@pytest.fixture
def peer():
    """A function that starts a peer; whatever still runs at the end of the test is killed."""
    started = []

    def start(name, fd, *args):
        started.append(Peer(name, fd, *args))
        return started[-1]

    yield start
    for one in started:
        if one.running:
            one.process.kill()
        one.process.communicate()
