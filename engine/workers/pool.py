"""The supervisor: starts workers in order, watches them, ends them; whatever happens, nobody is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from engine._ring import Link
from engine._shm import Segment
from engine.errors import EngineError, WorkerDied
from engine.machine.build import Plan
from engine.workers.main import ATTENTION, STOP, receive, send

START_S = 30.0
STOP_S = 2.0


class Worker:
    """One worker process, its link and its control socket."""

    def __init__(self, number: int, ranks: list[int], devices: list[str]) -> None:
        self.number = number
        self.ranks = ranks
        self.devices = devices
        self.link: Any = None
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self.process.pid if self.process else 0


class Pool:
    """The workers of one machine.  The constructor starts them all, or none."""

    def __init__(self, plan: Plan, owners: list[int], ram: Segment, contents: Mapping[str, Any], wait: str = "adaptive", pin: bool = False) -> None:
        count = max(owners) + 1
        cpus = sorted(os.sched_getaffinity(0))
        self.crowded = count + 1 > len(cpus)
        self.plan = plan
        self.workers: list[Worker] = []
        rows = plan.spec.placement.worker
        try:
            for n in range(count):
                ranks = [r for u, ranks in enumerate(plan.units) if owners[u] == n for r in ranks]
                w = Worker(n, ranks, [plan.devices[r].id for r in ranks])
                self.workers.append(w)
                cpu = rows[n].cpu if n < len(rows) else None
                if cpu is None and pin:
                    cpu = cpus[(n + 1) % len(cpus)]
                self._start(w, ram, contents, wait, cpu)
            for w in self.workers:
                self._greet(w)
        except BaseException:
            self.stop()
            raise
        self.links = [w.link for w in self.workers]
        self._next_check = 0.0

    def _start(self, w: Worker, ram: Segment, contents: Mapping[str, Any], wait: str, cpu: int | None) -> None:
        w.link = Link.create(name=f"worker-{w.number + 1}", n_vcpus=self.plan.spec.board.cpus, n_units=len(self.plan.units), requests=4096,
                             effects=4096)
        mine, theirs = socket.socketpair()
        w.socket = mine
        mine.settimeout(START_S)
        try:
            env = dict(os.environ)
            env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
            # A worker starts with Ctrl-C blocked: the terminal sends it to all, and it is the parent's to handle.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                w.process = subprocess.Popen([sys.executable, "-m", "engine.workers.main", str(theirs.fileno())], pass_fds=(theirs.fileno(),),
                                             stdin=subprocess.DEVNULL, env=env)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        except OSError as e:
            raise EngineError(f"worker {w.number + 1} cannot be started: {e.strerror}; fewer workers may help") from None
        finally:
            theirs.close()
        own = {d: c for d, c in contents.items() if d in w.devices}
        setup = {"parent": os.getpid(), "plan": self.plan, "ranks": w.ranks, "contents": own, "wait": wait, "crowded": self.crowded, "cpu": cpu}
        try:
            send(mine, setup, [w.link.segment.fileno(), ram.fileno()])
        except OSError:
            raise WorkerDied(f"worker {w.number + 1} (pid {w.pid}) ended while it was being started") from None

    def _greet(self, w: Worker) -> None:
        assert w.socket is not None
        try:
            (kind, what), _ = receive(w.socket)
        except (EOFError, OSError):
            raise WorkerDied(f"worker {w.number + 1} (pid {w.pid}) ended while it was being started") from None
        if kind != "ready":
            raise EngineError(f"worker {w.number + 1} ({', '.join(w.devices)}) could not start: {what}")

    # ------------------------------------------------------------------ while running

    def check(self) -> None:
        """Raises WorkerDied if a worker has ended.  Cheap; called while the router waits."""
        for w in self.workers:
            assert w.process is not None
            code = w.process.poll()
            if code is not None:
                why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
                with contextlib.suppress(Exception):
                    assert w.socket is not None
                    w.socket.setblocking(False)
                    (kind, what), _ = receive(w.socket)
                    if kind == "failed":
                        why += f": {what}"
                raise WorkerDied(f"worker {w.number + 1} (pid {w.pid}; {', '.join(w.devices)}) ended: {why}")

    def command(self, number: int, *command: Any) -> Any:
        """One command of the closed set to a worker that has nothing to do; its answer."""
        w = self.workers[number]
        assert w.socket is not None
        w.link.stop(ATTENTION)
        try:
            send(w.socket, command)
            (kind, what), _ = receive(w.socket)
        except (EOFError, OSError):
            self.check()
            raise WorkerDied(f"worker {number + 1} (pid {w.pid}) does not answer") from None
        finally:
            w.link.stop(0)
        if kind != "ok":
            raise what if isinstance(what, Exception) else EngineError(str(what))
        return what

    def call(self, device: str, method: str, *args: Any) -> Any:
        """A method of a device, run by its owner between two accesses."""
        for w in self.workers:
            if device in w.devices:
                return self.command(w.number, "call", device, method, args)
        raise KeyError(device)

    # ------------------------------------------------------------------ end

    def stop(self) -> None:
        """End every worker: asked first, killed after two seconds.  Safe at any moment, and twice."""
        for w in self.workers:
            if w.link is not None:
                with contextlib.suppress(Exception):
                    w.link.stop(STOP)
            if w.socket is not None:
                w.socket.close()
        end = time.monotonic() + STOP_S
        for w in self.workers:
            if w.process is None:
                continue
            try:
                w.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                w.process.kill()
                w.process.wait()
        self.workers = []
