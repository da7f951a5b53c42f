"""A process that replays a shipped trace until it is killed: `python replayer.py WORKERS`; see test_kill.py."""

import gc
import os
import random
import sys

from engine.data import trace
from engine.errors import EngineError
from engine.frontends import replay
from engine.frontends.trace import golden_path, load, load_golden


def segments():
    """Memory files of the engine that this process still has."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return [n for n in names if "memfd:engine" in n]


def say(*words):
    print(*words, flush=True)


def main(workers):
    recorded = load(trace("boot-pc"))
    job = replay.open_job(recorded, load_golden(golden_path(recorded), recorded), "auto", {})
    replay.learn(job)
    rng = random.Random()
    say("ready")
    for line in sys.stdin:  # "go": replay until something happens
        assert line == "go\n"
        say("began")
        while True:
            os.environ["ENGINE_TEST_RUN"] = str(int(os.environ.get("ENGINE_TEST_RUN", "0")) + 1)  # workers inherit it
            try:
                run = replay.replay(job, rng.choice(["sync", "buffered", "batched"]), workers)
            except EngineError as e:  # killed while it was starting
                say("died", e)
                break
            if run.failure is not None:
                done = run.result["done"], len(recorded.acc)
                say("died", run.failure, "|", *done, run.result["ok"])
                break
            assert run.result["ok"], run.result["mismatches"]
        gc.collect()  # devices know each other: a machine that is gone goes with the next collection
        say("left", *segments())


if __name__ == "__main__":
    main(int(sys.argv[1]))
