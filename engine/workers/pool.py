"""The supervisor: starts workers in order, watches them, ends them; whatever happens, nobody is left behind."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import engine.errors
from engine._device import Arena
from engine._ring import Link
from engine._shm import ARENA, Segment
from engine.errors import EngineError, MachineError, RingError, WorkerDied
from engine.machine import ARENA_SIZE
from engine.machine.build import Plan
from engine.workers.main import ARENA_AT, ATTENTION, STOP, arena_in, receive_plain, send

START_S = 30.0
STOP_S = 2.0


class Worker:
    """One worker process, its link, its arena and its control socket."""

    def __init__(self, number: int, ranks: list[int], devices: list[str]) -> None:
        self.number = number
        self.ranks = ranks
        self.devices = devices
        self.link: Any = None
        self.memory: Any = None  # the file of its arena
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self.process.pid if self.process else 0

    def __str__(self) -> str:
        return f"worker {self.number + 1} (pid {self.pid}; {', '.join(self.devices)})"


class _Launcher(threading.Thread):
    """The thread that starts processes, and lives as long as they may.

    The kernel sends the parent-death signal when the *thread* that made a child ends, so it must not be the user's.
    Ctrl-C is blocked in it, and so in its children: the terminal sends it to all, and it is the parent's to handle.
    """

    def __init__(self) -> None:
        super().__init__(name="engine-launcher", daemon=True)
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], queue.SimpleQueue[BaseException | None]] | None] = (
            queue.SimpleQueue()
        )
        self.start()

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while (job := self._jobs.get()) is not None:
            what, done = job
            try:
                what()
                done.put(None)
            except BaseException as e:
                done.put(e)
            del job, what, done

    def call(self, what: Callable[[], None]) -> None:
        """Run `what` there and wait for it."""
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._jobs.put((what, done))
        if (error := done.get()) is not None:
            raise error

    def end(self) -> None:
        """What was begun is finished; then the thread ends."""
        self._jobs.put(None)
        self.join()


def _end(workers: list[Worker], launchers: list[_Launcher]) -> None:
    """End every worker: asked first, killed after STOP_S.  At any moment, and twice."""
    for w in workers:
        if w.link is not None:
            with contextlib.suppress(RingError):
                w.link.stop(STOP)
        if w.socket is not None:
            w.socket.close()
    end = time.monotonic() + STOP_S
    try:
        for w in workers:
            if w.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    w.process.wait(max(0.0, end - time.monotonic()))
    finally:  # also when a second Ctrl-C comes
        while launchers:
            launchers.pop().end()  # a process may have been on its way; those that are left die with the thread
        for w in workers:
            if w.process is not None and w.process.returncode is None:
                w.process.kill()
                w.process.wait()
        for w in workers:
            w.link = w.memory = None  # an exception that is still held may hold the worker, but no memory
        workers.clear()


class Pool:
    """The workers of one machine.  start() starts them all, or none.

    A pool that is forgotten is ended when it is collected, or at the interpreter's end.
    """

    def __init__(
        self,
        plan: Plan,
        owners: list[int],
        ram: Segment,
        contents: Mapping[str, Any],
        wait: str = "adaptive",
        pin: bool = False,
        descriptors: Mapping[str, int] | None = None,
    ) -> None:
        self.plan = plan
        self.owners = owners
        self.ram: Any = ram
        self.contents = contents
        self.descriptors = descriptors or {}  # the caller's, who closes them after start()
        self.wait = wait
        self.cpus = sorted(os.sched_getaffinity(0))
        self.pin = pin
        self.crowded = max(owners) + 2 > len(self.cpus)
        self.workers: list[Worker] = []
        self.links: list[Any] = []
        self.arenas: list[Arena] = []  # of each worker; what is in them is the worker's word
        self.states: dict[int, tuple[Arena, int]] = {}  # by rank: where in which of them a device's state is
        self._launchers: list[_Launcher] = []
        self._closed = self._confused = False
        self._finalizer = weakref.finalize(self, _end, self.workers, self._launchers)

    def start(self) -> Pool:
        """Start every worker.  On failure none is left, and the exception says which could not and why."""
        rows = self.plan.spec.placement.worker
        try:
            try:
                launcher = _Launcher()
            except RuntimeError as e:
                raise EngineError(
                    f"workers cannot be started: {e}; the limit of processes (ulimit -u) may be too low"
                ) from None
            self._launchers.append(launcher)
            for n in range(max(self.owners) + 1):
                ranks = [r for u, ranks in enumerate(self.plan.units) if self.owners[u] == n for r in ranks]
                w = Worker(n, ranks, [self.plan.devices[r].id for r in ranks])
                self.workers.append(w)
                cpu = rows[n].cpu if n < len(rows) else None
                if cpu is not None and cpu not in self.cpus:
                    raise MachineError(f"[[placement.worker]] {n + 1}: cpu = {cpu}: this process may not run there")
                if cpu is None and self.pin:
                    cpu = self.cpus[(n + 1) % len(self.cpus)]
                self._start(w, launcher, cpu)
            arenas = [self._greet(w) for w in list(self.workers)]
        except BaseException as e:
            stopped = self._closed
            self.stop()
            if stopped and isinstance(e, Exception):
                raise EngineError("the machine was stopped while it was being started") from None
            raise
        if self._closed:
            self.stop()
            raise EngineError("the machine was stopped while it was being started")
        self.links = [w.link for w in self.workers]
        self.arenas = arenas
        return self

    def _start(self, w: Worker, launcher: _Launcher, cpu: int | None) -> None:
        w.link = Link.create(
            name=f"worker-{w.number + 1}",
            n_vcpus=self.plan.spec.board.cpus,
            n_units=len(self.plan.units),
            requests=self.plan.spec.placement.ring,
            effects=4096,
            stamped=True,
        )
        w.memory = Segment.create(f"arena-{w.number + 1}", ARENA_AT + ARENA_SIZE, ARENA, header_size=ARENA_AT)
        try:
            w.socket, theirs = socket.socketpair()
        except OSError as e:
            raise EngineError(
                f"worker {w.number + 1} cannot be started: {e.strerror}; raise `ulimit -n`, or use fewer workers"
            ) from None
        w.socket.settimeout(START_S)
        env = dict(os.environ)
        env["PYTHONPATH"] = os.pathsep.join(p or os.getcwd() for p in sys.path)

        def spawn() -> None:
            w.process = subprocess.Popen(
                [sys.executable, "-m", "engine.workers.main", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=env,
            )

        try:
            launcher.call(spawn)
        except OSError as e:
            raise EngineError(
                f"worker {w.number + 1} cannot be started: {e.strerror}; fewer workers may help"
            ) from None
        finally:
            theirs.close()
        names = [d for d in w.devices if d in self.descriptors]
        own = {d: c for d, c in self.contents.items() if d in w.devices}
        setup = {
            "parent": os.getpid(),
            "plan": self.plan,
            "ranks": w.ranks,
            "contents": own,
            "descriptors": names,
            "wait": self.wait,
            "crowded": self.crowded,
            "cpu": cpu,
        }
        try:
            network = [self.descriptors[d] for d in names]
            send(w.socket, setup, [w.link.segment.fileno(), self.ram.fileno(), w.memory.fileno(), *network])
        except OSError:
            raise WorkerDied(f"{w} ended while it was being started{self._last_words(w)}") from None

    def _greet(self, w: Worker) -> Arena:
        """Its arena, once it is ready."""
        assert w.socket is not None
        try:
            kind, what = receive_plain(w.socket)
        except TimeoutError:
            raise WorkerDied(f"{w} did not start within {START_S:g} seconds") from None
        except (EOFError, OSError):
            raise WorkerDied(f"{w} ended while it was being started{self._last_words(w)}") from None
        if kind != "ready":
            raise EngineError(f"{w} could not start: {what}")
        used, places = what if isinstance(what, tuple) and len(what) == 2 else (None, None)
        if not isinstance(used, int) or not 0 <= used <= ARENA_SIZE:
            raise RingError(f"{w} says that it uses {used!r:.40} bytes of {ARENA_SIZE}: it is broken or hostile")
        arena = arena_in(w.memory, used)
        if not isinstance(places, list) or len(places) != len(w.ranks):
            raise RingError(f"{w} does not say where its {len(w.ranks)} devices are: it is broken or hostile")
        for rank, at in zip(w.ranks, places, strict=True):
            d = self.plan.devices[rank]
            if not isinstance(at, int) or at % 8 or not 0 <= at <= used - d.cls.state_dtype().itemsize:
                raise RingError(f"{w} says that {d.id} is at {at!r:.40} of {used} bytes: it is broken or hostile")
            self.states[rank] = (arena, at)
        return arena

    # ------------------------------------------------------------------ while running

    def _last_words(self, w: Worker) -> str:
        """How a worker that has ended did so, and what it said of it."""
        assert w.process is not None and w.socket is not None
        try:
            code = w.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return ""
        try:
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        except ValueError:
            why = f"killed by signal {-code}"
        with contextlib.suppress(Exception):
            w.socket.setblocking(False)
            kind, what = receive_plain(w.socket)
            if kind == "failed":
                why += f": {what}"
        return f": {why}"

    def check(self) -> None:
        """Raises WorkerDied if a worker has ended.  Cheap; called while the router waits."""
        if self._closed:
            raise EngineError("the machine was stopped")
        for w in self.workers:
            assert w.process is not None
            if w.process.poll() is not None:
                raise WorkerDied(f"{w} ended{self._last_words(w)}")

    def command(self, number: int, *command: Any) -> Any:
        """One command of the closed set (see main.py) to a worker that has nothing to do; its answer."""
        if self._closed:
            raise EngineError("the machine was stopped")
        if self._confused:
            raise EngineError("a command to a worker was interrupted; stop the machine and start it again")
        w = self.workers[number]
        assert w.socket is not None
        self._confused = True
        w.link.stop(ATTENTION)
        try:
            send(w.socket, command)
            kind, what = receive_plain(w.socket)
            self._confused = False
        except TimeoutError:
            raise WorkerDied(f"{w} has not answered for {START_S:g} seconds: it hangs or was stopped") from None
        except (EOFError, OSError):
            raise WorkerDied(f"{w} ended{self._last_words(w)}") from None
        finally:
            w.link.stop(0)
        if kind == "ok":
            return what
        name, text = what
        error = getattr(engine.errors, name, None)
        if isinstance(error, type) and issubclass(error, EngineError):
            raise error(text)
        raise EngineError(f"{w}: {name}: {text}")

    def call(self, device: str, method: str, *args: Any) -> Any:
        """A method of a device, run by its owner between two accesses."""
        for w in self.workers:
            if device in w.devices:
                return self.command(w.number, "call", device, method, args)
        raise KeyError(device)

    # ------------------------------------------------------------------ end

    def stop(self) -> None:
        """End every worker: asked first, killed after two seconds.  At any moment, from any thread, and twice."""
        self._closed = True
        self.links = []
        self.arenas = []
        self.states = {}
        self.ram = None
        _end(self.workers, self._launchers)
