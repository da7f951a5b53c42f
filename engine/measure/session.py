"""One measuring session: recorded guests x paths, each run scored, with limits of the host and budgets beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.errors import EngineError, UsageError
from engine.frontends import replay
from engine.machine.build import Plan
from engine.machine.spec import load_placement
from engine.measure import budgets, host
from engine.workers import placement

DEFAULT_WORKERS = 3
Step = Callable[[str, int], Callable[[int], None]]  # (label, total) -> advance(n)


@dataclass(slots=True)
class Placed:
    """A job's plan, and the worker of each unit."""

    plan: Plan
    owners: list[int]


@dataclass(slots=True)
class Session:
    """Jobs, how to run them, and what came of it.

    placement: a TOML file with a [placement] table, "spread", "random:SEED", or None for the machine's own.
    check_budgets: measure the limits and check the budgets of the paths.
    """

    jobs: list[replay.Job]
    paths: Sequence[str]
    workers: int | None
    placement: str | None = None
    check_budgets: bool = True
    runs: list[replay.Run] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    budgets: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failure: EngineError | None = None  # what ended it early
    placed: list[Placed] = field(default_factory=list)  # of each job
    host: dict[str, Any] = field(default_factory=host.record)

    @property
    def ok(self) -> bool:
        """Everything compared matched, every path gave the same answers, and every budget held."""
        return (
            self.failure is None
            and all(r.result["ok"] for r in self.runs)
            and all(b["ok"] for b in self.budgets)
            and not self.disagreeing
        )

    @property
    def disagreeing(self) -> list[str]:
        """Traces whose digests differ between paths."""
        seen = {(r.result["trace"], r.result["digest"]) for r in self.runs if r.failure is None}
        names = [name for name, _ in seen]
        return sorted({n for n in names if names.count(n) > 1})

    def as_json(self) -> dict[str, Any]:
        """The JSON output."""
        out: dict[str, Any] = {
            "runs": [r.result for r in self.runs],
            "limits": self.limits,
            "budgets": self.budgets,
            "host": self.host,
            "notes": self.notes,
            "ok": self.ok,
        }
        return out | {"error": str(self.failure)} if self.failure is not None else out

    def run(self, step: Step) -> None:
        """Every job over every path, then the budgets.  A failure ends it and is kept.  Raises UsageError."""
        try:
            self.placed = [self._place(job) for job in self.jobs]
            for job, placed in zip(self.jobs, self.placed, strict=True):
                n = len(job.trace.acc)
                replay.learn(job, step(f"{job.trace.stem}: content", n))
                for path in self.paths:
                    owners = placed.owners
                    got = replay.replay(job, path, max(owners) + 1, owners, step(f"{job.trace.stem}: {path}", n))
                    self.runs.append(got)
                    if got.failure is not None:
                        raise got.failure
            if self.check_budgets:
                self.limits, self.budgets, note = budgets.measure(self.paths, step("budgets", budgets.ROUNDS))
                self.notes += [note] if note else []
        except UsageError:
            raise
        except EngineError as e:
            self.failure = e

    def _place(self, job: replay.Job) -> Placed:
        """Who owns each unit of the job's machine; a [placement] of a file becomes the machine's."""
        how, workers = self.placement, self.workers
        seed = how[7:] if how is not None and how.startswith("random:") else None
        if how not in (None, "spread") and seed is None:
            got = load_placement(how)
            if workers not in (None, got.workers):
                raise UsageError(f"--workers {workers}: {how} says {got.workers}; give one of the two")
            job.spec = replace(job.spec, placement=got, path=how)
        plan, own = job.plan(), job.spec.placement
        count = workers or own.workers or DEFAULT_WORKERS
        if seed is not None:
            if not seed.isdecimal():
                raise UsageError(f"--placement {how}: the seed is a number, like random:1")
            owners = placement.shuffled(plan, count, int(seed))
        elif how != "spread" and own.workers == count:
            owners = placement.from_spec(plan, own)
        else:
            owners = placement.spread(plan, count)
        return Placed(plan, owners)
