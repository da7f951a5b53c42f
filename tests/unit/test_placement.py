"""Who runs where: units are never split, every unit has one owner, and mistakes name both devices and both workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import MachineError
from engine.machine import Machine
from engine.machine.build import Plan, plan
from engine.machine.spec import DeviceSpec, PlacementSpec, load, load_placement, parse
from engine.workers import placement

WORKERS = (1, 2, 3, 5, 14, 40)


@pytest.fixture(scope="module")
def board() -> Plan:
    return plan(load("i440fx"))


def test_spread_gives_every_unit_an_owner(board: Plan) -> None:
    for n in WORKERS:
        owners = placement.spread(board, n)
        assert len(owners) == len(board.units)
        assert set(owners) <= set(range(n))
        assert len(set(owners)) == min(n, len(board.units))
        assert placement.spread(board, n) == owners


def test_spread_keeps_timer_disk_and_interrupt_controller_apart(board: Plan) -> None:
    for n in (3, 5, 14):
        owners = placement.spread(board, n)
        assert len({owners[board.devices[board.rank(d)].unit] for d in ("pit", "ide", "pic")}) == 3


def test_spread_gives_parts_written_in_python_a_worker_to_spare() -> None:
    spec = load("i440fx")
    card = DeviceSpec("card", "post-card", at={"post": 0x190})
    slow = plan(replace(spec, devices=(*spec.devices, card)))
    mine = slow.devices[slow.rank("card")].unit
    for n in (4, 6):
        owners = placement.spread(slow, n)
        assert owners[mine] == n - 1 and owners.count(n - 1) == 1
    assert set(placement.spread(slow, 3)) == {0, 1, 2}


def test_spread_balances_by_weight(board: Plan) -> None:
    owners = placement.spread(board, 3)
    load_of = [0, 0, 0]
    for u, ranks in enumerate(board.units):
        load_of[owners[u]] += sum(placement.WEIGHT.get(board.devices[r].spec.type, 1) for r in ranks)
    assert max(load_of) - min(load_of) <= max(placement.WEIGHT.values())


def test_shuffled_placements_are_legal_and_repeatable(board: Plan) -> None:
    seen = set()
    for seed in range(50):
        for n in WORKERS:
            owners = placement.shuffled(board, n, seed)
            assert len(owners) == len(board.units)
            assert len(set(owners)) == min(n, len(board.units)), "a worker stands idle"
            assert max(owners) < n
            assert placement.shuffled(board, n, seed) == owners
            seen.add((n, tuple(owners)))
    assert len(seen) > 200


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_part_in_python_has_a_worker_alone_where_one_is_to_spare(n: int) -> None:
    card = '[[device]]\nid = "card"\ntype = "post-card"\nat = { post = 0x90 }\n'
    built = plan(parse('[board]\nbase = "i440fx"\n' + card, "pc.toml"))
    owners = placement.spread(built, n)
    where = {p.id: owners[p.unit] for p in built.devices}
    assert len({where[d] for d in ("pit", "ide", "pic")}) == min(n, 3)
    assert (owners.count(where["card"]) == 1) == (n == 4)


@pytest.mark.parametrize("n", [0, -3, 1025])
def test_impossible_numbers_of_workers(board: Plan, n: int) -> None:
    for make in (placement.spread, lambda p, w: placement.shuffled(p, w, 1)):
        with pytest.raises(MachineError, match=f"workers = {n} should lie between 1 and 1024"):
            make(board, n)


def test_table_lists_devices_by_worker(board: Plan) -> None:
    owners = placement.spread(board, 3)
    rows = placement.table(board, owners)
    assert sorted(d for row in rows for d in row) == sorted(p.id for p in board.devices)
    for w, row in enumerate(rows):
        assert all(owners[board.devices[board.rank(d)].unit] == w for d in row)
    assert placement.table(board, []) == []


# ---------------------------------------------------------------------- as a file says

BASE = '[board]\nbase = "i440fx"\n'


def of_file(text: str) -> list[int]:
    spec = parse(BASE + text, "pc.toml")
    return placement.from_spec(plan(spec), spec.placement)


def test_named_devices_take_their_units_along_and_the_rest_is_spread() -> None:
    spec = parse(
        BASE + '[[placement.worker]]\ndevices = ["pit", "com1"]\n[[placement.worker]]\ndevices = ["pic"]\n', "pc.toml"
    )
    built = plan(spec)
    owners = placement.from_spec(built, spec.placement)
    where = {p.id: owners[p.unit] for p in built.devices}
    assert [where[d] for d in ("pit", "rtc", "hpet", "com1")] == [0, 0, 0, 0]
    assert [where[d] for d in ("pic", "ioapic", "lapic0")] == [1, 1, 1]
    counts = [owners.count(w) for w in (0, 1)]
    assert abs(counts[0] - counts[1]) <= 1
    assert -1 not in owners


def test_a_number_alone_spreads() -> None:
    spec = parse(BASE + "[placement]\nworkers = 4\n", "pc.toml")
    assert placement.from_spec(plan(spec), spec.placement) == placement.spread(plan(spec), 4)


WRONG = {
    "an unknown device that is never buffered": (
        '[placement]\nworkers = 2\nsync = ["com9"]\n',
        ["pc.toml", "sync names 'com9'", "no device of this machine"],
    ),
    "unknown device": (
        '[[placement.worker]]\ndevices = ["com9"]\n',
        ["pc.toml", "[[placement.worker]] 1", "'com9'", "no device of this machine"],
    ),
    "placed twice": (
        '[[placement.worker]]\ndevices = ["com1"]\n[[placement.worker]]\ndevices = ["com1"]\n',
        ["pc.toml", "device 'com1' is placed twice", "workers 1 and 2"],
    ),
    "twice on one worker": (
        '[[placement.worker]]\ndevices = ["com1", "com1"]\n',
        ["'com1' is placed twice", "workers 1 and 1"],
    ),
    "a split unit": (
        "".join(f'[[placement.worker]]\ndevices = ["{d}"]\n' for d in ("pit", "vga", "rtc")),
        ["pc.toml", "'pit' and 'rtc' are one same_worker unit (timers)", "workers 1 and 3"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_placements_that_cannot_be(what: str) -> None:
    text, wanted = WRONG[what]
    with pytest.raises(MachineError) as caught:
        of_file(text)
    assert "\n" not in str(caught.value)
    for part in wanted:
        assert part in str(caught.value)


def test_placement_files(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[placement]\nwait = "block"\n[[placement.worker]]\ndevices = ["pit"]\ncpu = 1\n')
    got = load_placement(path)
    assert (got.workers, got.wait, got.worker[0].devices, got.worker[0].cpu) == (1, "block", ("pit",), 1)
    for text, wanted in (
        ("[board]\n", "no [placement] table"),
        ("[placement]\n", "neither workers nor"),
        ("[placement\n", "not TOML"),
        ("[placement]\nworkers = 0\n", f"{path}:2: workers = 0"),
        ("[elsewhere]\n[placement]\nworkers = 1\n", "unknown table 'elsewhere'"),
    ):
        path.write_text(text)
        with pytest.raises(MachineError) as caught:
            load_placement(path)
        assert wanted in str(caught.value)


def test_a_ring_is_as_deep_as_the_placement_says() -> None:
    spec = load("i440fx")
    with Machine(replace(spec, placement=PlacementSpec(workers=1, ring=16)), workers=1) as m:
        assert m.pool is not None
        assert [link.capacity for link in m.pool.links] == [16]
