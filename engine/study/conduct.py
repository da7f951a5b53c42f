"""Carrying out a study: every replication that is not yet finished, here or on the hosts of a Dask cluster.

Here: one after the other, in the design's order.  On a cluster: each host runs one replication at a time, and the
cells of a replicate stay on one host as long as it lives, so that what is compared was measured on one machine within
minutes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from engine.errors import EngineError, UsageError
from engine.study import run
from engine.study.design import Cell, Design
from engine.study.journal import Journal

Task = tuple[int, int, Cell]
CONNECT_S = 10.0
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)  # Dask raises the one or the other
RETRIES = 3  # of a replication whose worker went away


def missing(design: Design, journal: Journal) -> list[Task]:
    """What is left to do, in order."""
    done = journal.done
    return [(r, n, cell) for r, n, cell in design.order() if (r, n) not in done]


def one(cell: dict[str, Any], replicate: int, seed: int, accesses: int) -> dict[str, Any]:
    """A replication from plain values, as a cluster's worker gets it."""
    return run.replication(Cell(**cell), replicate, seed, accesses)


def here(design: Design, journal: Journal, advance: Callable[[int], None]) -> None:
    """Run what is missing in this process, as far as the design's time goes.

    Raises UsageError before the first if this host cannot run a cell.
    """
    left = missing(design, journal)
    for cell in dict.fromkeys(cell for _, _, cell in left):
        try:
            run.check(cell)
        except UsageError as e:
            raise UsageError(f"{design.source}: {cell}: {e}") from None
    end = time.monotonic() + (design.seconds or 1e9)
    for replicate, number, cell in left:
        if time.monotonic() > end:
            return
        try:
            got = run.replication(cell, replicate, design.seed, design.accesses)
        except EngineError as e:
            raise _failed(cell, e, journal) from None
        journal.add(replicate, number, got)
        advance(1)


def _failed(cell: Cell, e: BaseException, journal: Journal) -> EngineError:
    return EngineError(
        f"{cell}: {_line(e)}; {len(journal.rows)} finished replications are kept: give the same command again to go on"
    )


def spread(design: Design, journal: Journal, advance: Callable[[int], None], address: str) -> None:
    """Run what is missing on an existing Dask cluster."""
    try:
        from distributed import Client, wait
        from distributed.comm.registry import backends
    except ImportError:
        raise UsageError("--scheduler needs Dask: pip install 'ioreq-engine[cluster]'") from None
    left = missing(design, journal)
    if not left:
        return
    scheme, found, _ = address.rpartition("://")
    if found and scheme not in backends:
        raise UsageError(f"--scheduler {address}: unknown scheme; an address is like tcp://HOST:8786")
    _quiet()
    try:
        client: Any = Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError, ImportError) as e:
        raise UsageError(f"--scheduler {address}: no Dask scheduler answers there ({_line(e)})") from None
    try:
        _Cluster(design, journal, advance, address, client, wait).run(left)
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=2)


def _quiet() -> None:
    """What Dask logs about a scheduler that has gone is said by the error that ends the study."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _line(e: BaseException) -> str:
    return (str(e) or type(e).__name__).splitlines()[0][:240]


class _Cluster:
    """What runs where: at most one replication on each host."""

    def __init__(
        self,
        design: Design,
        journal: Journal,
        advance: Callable[[int], None],
        address: str,
        client: Any,
        wait: Callable[..., Any],
    ) -> None:
        self.design, self.journal, self.advance = design, journal, advance
        self.address, self.client, self.wait = address, client, wait
        self.running: dict[str, tuple[Any, Task, str]] = {}  # by host: the result to come, of what, from which worker
        self.mine: dict[str, int] = {}  # host -> the replicate it is at
        self.lost: dict[tuple[int, int], int] = {}  # how often a replication's worker went away

    def gone(self) -> EngineError:
        """What ends a study whose scheduler has gone."""
        return EngineError(
            f"--scheduler {self.address}: the scheduler went away; {len(self.journal.rows)} finished "
            "replications are kept: give the same command again, with a scheduler that is there, to go on"
        )

    def workers(self) -> dict[str, str]:
        """Address -> host of every Dask worker that is there."""
        if self.client.status != "running":
            raise self.gone()
        try:
            info = self.client.scheduler_info(n_workers=-1)
        except TypeError:  # older than 2025.4
            info = self.client.scheduler_info()
        return {address: str(w["host"]) for address, w in sorted(info["workers"].items())}

    def run(self, left: list[Task]) -> None:
        """Until nothing is left."""
        patience, end = time.monotonic() + CONNECT_S, time.monotonic() + self.design.seconds
        try:
            while left or self.running:
                if self.design.seconds and time.monotonic() > end:
                    left.clear()
                workers = self.workers()
                if workers:
                    patience = time.monotonic() + CONNECT_S
                elif time.monotonic() > patience:
                    raise EngineError(
                        f"--scheduler {self.address}: the cluster has no worker; {len(self.journal.rows)} finished "
                        "replications are kept: give the same command again to go on"
                    )
                for host, (future, task, worker) in list(self.running.items()):
                    if worker not in workers and not future.done():
                        future.cancel()
                        self._again(host, task, left)
                for worker, host in workers.items():  # the first of each host is used
                    if host not in self.running and left:
                        self._submit(host, worker, self._next(host, left))
                futures = [f for f, _, _ in self.running.values()]
                if futures:
                    self._wait(futures)
                else:
                    time.sleep(0.1)
                for host, (future, task, _) in list(self.running.items()):
                    if future.done():
                        self._take(host, future, task, left)
        except (OSError, RuntimeError, TimeoutError, *CANCELLED):  # what its client raises when the connection breaks
            raise self.gone() from None

    def _wait(self, futures: list[Any]) -> None:
        try:
            self.wait(futures, timeout=0.5, return_when="FIRST_COMPLETED")
        except TimeoutError:
            pass
        except (Exception, *CANCELLED):  # cancelled: the scheduler has forgotten them
            if self.client.status != "running":
                raise self.gone() from None

    def _next(self, host: str, left: list[Task]) -> Task:
        """The next task for a host: of the replicate that it is at, else of one that nobody is at, else any."""
        others = {r for h, r in self.mine.items() if h != host}
        mine = self.mine.get(host)
        n = next((i for i, t in enumerate(left) if t[0] == mine), None)
        if n is None:
            n = next((i for i, t in enumerate(left) if t[0] not in others), 0)
        self.mine[host] = left[n][0]
        return left.pop(n)

    def _submit(self, host: str, worker: str, task: Task) -> None:
        replicate, _, cell = task
        future = self.client.submit(
            one,
            cell.as_dict(),
            replicate,
            self.design.seed,
            self.design.accesses,
            workers=[worker],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )
        self.running[host] = (future, task, worker)

    def _take(self, host: str, future: Any, task: Task, left: list[Task]) -> None:
        """Keep what a finished future holds, if its worker still has it."""
        replicate, number, cell = task
        error: BaseException | None = None
        try:
            if future.status == "error":
                error = future.exception(timeout=CONNECT_S)
            elif future.status == "finished":
                got = future.result(timeout=CONNECT_S)
                del self.running[host]
                self.journal.add(replicate, number, got)
                self.advance(1)
                return
        except (TimeoutError, *CANCELLED):
            if self.client.status != "running":
                raise self.gone() from None
        if error is None or type(error).__name__ == "KilledWorker":
            self._again(host, task, left)
        elif isinstance(error, UsageError):
            raise UsageError(f"{self.design.source}: {cell}: on {host}: {error}")
        else:
            raise _failed(cell, error, self.journal)

    def _again(self, host: str, task: Task, left: list[Task]) -> None:
        """A replication's worker has gone, or the scheduler has: once more, where there is one."""
        replicate, number, cell = task
        del self.running[host]
        self.mine.pop(host, None)
        if self.client.status != "running":
            raise self.gone()
        again = self.lost[replicate, number] = self.lost.get((replicate, number), 0) + 1
        if again > RETRIES:
            raise _failed(cell, EngineError(f"the Dask workers that ran it went away, {again} times"), self.journal)
        left.insert(0, task)
