"""Which worker owns which unit: spread by weight, at random, or as a file says; units are never split."""

from __future__ import annotations

import random
from collections.abc import Sequence

from engine.errors import MachineError
from engine.machine.build import Plan
from engine.machine.spec import PlacementSpec, check_workers

# Rough cost of a part in a boot, for spreading; a part that is not here counts 1.
WEIGHT = {"vga": 8, "piix3-ide": 8, "fw-cfg": 8, "piix4-pm": 4, "i8254": 4, "uart16550": 4, "hpet": 4, "i8259": 4}
# Never one worker for these, where there are enough workers: so that a spread shows what it should.
APART = ("i8254", "piix3-ide", "i8259")

Owners = list[int]  # worker number (from 0) of each unit


def spread(plan: Plan, workers: int) -> Owners:
    """Heaviest unit first, each to the least loaded worker; the parts in APART to different ones where possible.

    Parts written in Python hold their worker's interpreter lock; the last worker is theirs alone where there is one
    to spare.
    """
    check_workers(workers, "placement")
    types = [{plan.devices[r].spec.type for r in ranks} for ranks in plan.units]
    weight = [sum(WEIGHT.get(t, 1) for t in ts) for ts in types]
    owners = [-1] * len(plan.units)
    slow = [u for u, ranks in enumerate(plan.units) if any(plan.devices[r].python for r in ranks)]
    if slow and workers > len(APART):
        workers -= 1
        for u in slow:
            owners[u] = workers
    load = [0] * workers
    for n, part in enumerate(APART):
        for u, ts in enumerate(types):
            if part in ts and owners[u] < 0:
                owners[u] = n % workers
                load[owners[u]] += weight[u]
    for u in sorted(range(len(plan.units)), key=lambda u: -weight[u]):
        if owners[u] < 0:
            owners[u] = min(range(workers), key=lambda w: (load[w], w))
            load[owners[u]] += weight[u]
    return owners


def shuffled(plan: Plan, workers: int, seed: int) -> Owners:
    """A random legal placement that leaves no worker empty while there are units for it."""
    check_workers(workers, "placement")
    rng = random.Random(seed)
    order = list(range(len(plan.units)))
    rng.shuffle(order)
    owners = [0] * len(order)
    for n, u in enumerate(order):
        owners[u] = n if n < workers else rng.randrange(workers)
    return owners


def from_spec(plan: Plan, spec: PlacementSpec) -> Owners:
    """The machine file's [[placement.worker]] tables; devices not named are spread.  Raises MachineError for a device
    that is unknown or placed twice, or a unit that is split."""
    where = plan.spec.path or "placement"
    workers = check_workers(spec.workers, where)
    known = {d.id for d in plan.devices}
    for id in spec.sync:
        if id not in known:
            raise MachineError(f"{where}: sync names {id!r}, which is no device of this machine")
    if not spec.worker:
        return spread(plan, workers)
    placed: dict[str, int] = {}
    owners = [-1] * len(plan.units)
    for w, row in enumerate(spec.worker):
        for id in row.devices:
            if id in placed:
                raise MachineError(f"{where}: device {id!r} is placed twice, on workers {placed[id] + 1} and {w + 1}")
            placed[id] = w
            if id not in known:
                raise MachineError(
                    f"{where}: [[placement.worker]] {w + 1} names {id!r}, which is no device of this machine"
                )
            u = plan.devices[plan.rank(id)].unit
            if owners[u] not in (-1, w):
                other = next(i for i in placed if i != id and plan.devices[plan.rank(i)].unit == u)
                raise MachineError(
                    f"{where}: devices {other!r} and {id!r} are one same_worker unit ({plan.unit_names[u]}), "
                    f"but are placed on workers {owners[u] + 1} and {w + 1}"
                )
            owners[u] = w
    load = [owners.count(w) for w in range(workers)]
    for u, owner in enumerate(owners):
        if owner < 0:
            w = min(range(workers), key=lambda n: (load[n], n))
            owners[u], load[w] = w, load[w] + 1
    return owners


def table(plan: Plan, owners: Sequence[int]) -> list[list[str]]:
    """Device ids by worker, for people and reports."""
    out: list[list[str]] = [[] for _ in range(max(owners, default=-1) + 1)]
    for u, w in enumerate(owners):
        out[w] += [plan.devices[r].id for r in plan.units[u]]
    return out
