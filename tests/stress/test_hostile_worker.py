"""A worker that writes anything into the memory it shares with the router: one clear error that names it, or nothing.

The router is a process of its own (segments lie between inaccessible pages, so an overrun ends it with a signal).
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from .liar import LIES

pytestmark = pytest.mark.stress
ROOT = Path(__file__).parents[2]
PATHS = ("sync", "buffered", "batched")
# Who may be blamed: the liar, or what it made its own devices ask for.
BLAMED = re.compile(
    r"worker 1: |worker 1 has not answered|worker refuses region \d+ of |sent a message-signalled interrupt|"
    r"a worker's deadline stands still|each of which asked for the next"
)


def small_stack():
    """A recursion without end is to be seen soon."""
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))


def outcomes(*args):
    """What the runs of one router process came to: (name, exception, message, how often the lie was told)."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress.liar", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=small_stack,
    )
    rows = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"the router ended with {done.returncode} after {rows[-1:]}: {done.stderr[-2000:]}"
    assert done.stderr == ""
    return rows


@pytest.mark.parametrize("path", PATHS)
def test_each_lie(path):
    rows = outcomes("told", path)
    assert [name for name, *_ in rows] == list(LIES)
    for name, kind, message, told in rows:
        want = LIES[name][1]
        if want is None or not told:
            assert (kind, message) == (None, ""), name
        else:
            assert kind is not None and re.search(want, message) and "\n" not in message, (name, kind, message)
    assert [name for name, *_, told in rows if not told] == (["cause a lap ago"] if path == "sync" else [])


@pytest.mark.parametrize("board", ["i440fx", "q35"])
def test_lies_at_random(board):
    """The liar drives its wires and maps its regions as it likes, at any time; honest devices hear it and go on."""
    rows = outcomes("drawn", board, 1, 24)
    assert len(rows) == 24 and all(told for *_, told in rows)
    for name, kind, message, _ in rows:
        assert kind is None or (BLAMED.search(message) and "\n" not in message), (name, kind, message)
