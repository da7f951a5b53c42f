"""engine diff: its programs, its comparison, its entries; against itself, a recording, and QEMU where one can serve."""

from __future__ import annotations

import json
import signal
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine._abi import ACC
from engine.cli import main
from engine.errors import EngineError, UsageError
from engine.measure.diff import sides
from engine.measure.diff.board import ACK, BOARDS, LINE, MEM, RESET, Board, Filter, load_entries
from engine.measure.diff.drivers import DRIVERS, bridge
from engine.measure.diff.judge import Difference, Row, compare, load_case, minimise, one_program, outcome, write_case
from engine.measure.diff.programs import Generator
from engine.measure.diff.sides import EngineSide, QemuSide, RecordedSide, Result, save_recording
from engine.measure.diff.swtpm import installed
from engine.types import Space

REFERENCE = Path(__file__).parent / "data" / "reference.npz"


@pytest.fixture(scope="module")
def board() -> Board:
    return Board("i440fx")


@pytest.fixture(scope="module")
def qemu(board: Board) -> QemuSide:
    try:
        return QemuSide(board)
    except UsageError as e:
        pytest.skip(str(e))


def parts_of(name: str) -> list[str]:
    """Ids of the parts that are compared on a board."""
    board = Board(name)
    return [p.id for p in board.select([])] if installed() or board.tpm is None else []


class Wrong(EngineSide):
    """The engine with one bit of one port's reads turned over once a value has been written there."""

    def run(self, program: Any) -> Result:
        got = super().run(program)
        written = np.cumsum((program["addr"] == 0x3FF) & (program["dir"] == 1) & (program["value"] == 0x5A)) > 0
        got.value[written & (program["addr"] == 0x3FF) & (program["dir"] == 0)] ^= np.uint64(1)
        return got


def test_a_seed_is_a_program(board: Board) -> None:
    first, again, other = (Generator(board, board.parts["rtc"], seed).program(500) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:500], other[:500])
    assert (np.diff(first["t_ns"].astype(np.int64)) > 0).all()


def test_every_register_is_reached(board: Board) -> None:
    """In the registers' own windows; configuration registers through CF8h."""
    for part in board.parts.values():
        f = Filter(board)
        met = set()
        for row in Generator(board, part, 0).program(2000)[["space", "addr", "size", "dir", "value"]].tolist():
            if row[0] <= Space.MMIO:
                met |= set(f.reaches(*row[:3]))
            f.allow(*row)
        for w in part.windows:
            for r in w.direct:
                assert (w.space, w.base + r.offset) in met, (part.id, r.name)


def test_what_ends_the_machine_is_never_written(board: Board) -> None:
    program = Generator(board, board.parts["piix3"], 3).program(20_000)
    assert not (
        (program["space"] == 0) & (program["addr"] == 0xCF9) & (program["dir"] == 1) & (program["value"] & 4 != 0)
    ).any()
    assert next(e for e in board.excluded if e.register == "RC").count
    kbc = Generator(board, board.parts["kbc"], 0).program(20_000)
    command = kbc[(kbc["space"] == 0) & (kbc["addr"] == 0x64) & (kbc["dir"] == 1)]["value"]
    assert len(command) > 100 and not ((command & 0xF1) == 0xF0).any()


def test_an_exclusion_follows_the_register_it_depends_on(board: Board) -> None:
    f = Filter(board)
    assert f.allow(0, 0x60, 1, 1, 0x00)
    assert f.allow(0, 0x64, 1, 1, 0xD1)
    assert not f.allow(0, 0x60, 1, 1, 0x00)
    assert f.allow(0, 0x64, 1, 1, 0x20)  # takes no data: the command before waits on
    assert not f.allow(0, 0x60, 1, 1, 0x00)
    assert f.allow(0, 0x60, 1, 1, 0x01)  # and now it has what it waited for
    assert f.allow(0, 0x60, 1, 1, 0x00)
    assert f.allow(0, 0x64, 1, 1, 0xD1)
    assert f.allow(0, 0x64, 1, 1, 0x60)
    assert f.allow(0, 0x60, 1, 1, 0x00)


def test_base_addresses_stay_the_parts_own(board: Board) -> None:
    f = Filter(board)
    assert f.allow(0, 0xCF8, 4, 1, 0x8000_1010)
    base, _ = board.parts["vga"].bases[0x10]
    assert f.allow(0, 0xCFC, 4, 1, base)
    assert f.allow(0, 0xCFC, 4, 1, 0xFFFFFFFF)
    assert not f.allow(0, 0xCFC, 4, 1, 0x1000)
    assert not f.allow(0, 0xCFD, 1, 1, 0)


def test_a_difference_is_found_and_made_short(board: Board) -> None:
    ours, wrong = EngineSide(board), Wrong(board)
    part = board.parts["com1"]
    program = Generator(board, part, 0).program(4000)
    extra = np.zeros(2, ACC)
    extra["t_ns"], extra["addr"], extra["size"], extra["dir"], extra["value"] = (
        program["t_ns"][2000],
        0x3FF,
        1,
        (1, 0),
        (0x5A, 0),
    )
    program = np.concatenate([program[:2000], extra, program[2000:]])
    found = compare(board, program, ours.run(program), wrong.run(program))
    assert found is not None and found.what == "read" and "SCR" in found.where
    short, again = minimise(board, program, found, ours, wrong)
    assert (short["addr"].tolist(), short["dir"].tolist(), short["value"][0]) == ([0x3FF, 0x3FF], [1, 0], 0x5A)
    assert again.where == found.where


def test_a_line_that_changes_elsewhere_is_a_difference(board: Board) -> None:
    program = Generator(board, board.parts["pit"], 0).program(300)
    a = EngineSide(board).run(program)
    at = sorted(a.lines)[1]
    b = Result(a.value, {k: v for k, v in a.lines.items() if k != at})
    found = compare(board, program, a, b)
    assert found is not None and (found.what, found.index) == ("lines", at)


def test_an_explained_read_is_counted_and_no_difference(board: Board) -> None:
    row = {
        "part": "uart16550",
        "register": "SCR",
        "condition": "read",
        "bits": 0x0F,
        "section": "1",
        "reason": "for this test",
    }
    mine = Board("i440fx", {**board.raw, "difference": [row]})
    program = np.zeros(2, ACC)
    program["t_ns"], program["addr"], program["size"], program["dir"], program["value"] = (
        (1, 2),
        0x3FF,
        1,
        (1, 0),
        (0x55, 0),
    )
    ours = EngineSide(mine).run(program)
    assert ours.value[1] == 0x55
    assert compare(mine, program, ours, Result(np.array([0x55, 0x5A], np.uint64), ours.lines)) is None
    assert mine.differences[0].count == 1
    found = compare(mine, program, ours, Result(np.array([0x55, 0xA5], np.uint64), ours.lines))  # other bits
    assert isinstance(found, Difference) and (found.ours, found.theirs) == ("0x55", "0xa5")
    program["addr"] = 0x3FC  # another register
    assert compare(mine, program, ours, Result(np.array([0x55, 0x5A], np.uint64), ours.lines)) is not None


@pytest.mark.parametrize(
    "row",
    [
        {"part": "vga", "register": "*"},
        {"part": "vga"},
        {"part": "vga", "register": "X", "condition": " ", "section": "1", "reason": "r"},
    ],
)
def test_an_entry_names_one_register_and_condition(row: Mapping[str, str], tmp_path: Path) -> None:
    file = tmp_path / "differences.toml"
    file.write_text("[[difference]]\n" + "".join(f'{k} = "{v}"\n' for k, v in row.items()))
    with pytest.raises(UsageError, match="an entry names one part, one register and one condition"):
        load_entries(file)


def test_every_entry_names_a_register_of_its_part() -> None:
    met: set[tuple[str, str]] = set()
    entries: set[tuple[str, str]] = set()
    for name in BOARDS:
        board = Board(name)
        met |= {(rule[1].part, rule[1].register) for rules in board.rules.values() for rule in rules}
        entries |= {(e.part, e.register) for e in [*board.differences, *board.excluded]}
        types = {p.type for p in board.parts.values()}
        assert len(board.deferred) == len({e["register"] for e in board.raw["deferred"] if e["part"] in types})
    assert entries - met == set()


def test_every_byte_of_a_wide_access_meets_a_register_that_is_alone(board: Board) -> None:
    f = Filter(board)
    assert f.allow(0, 0xCF9, 4, 1, 0x0B0A0902)
    for n in range(4):
        assert not f.allow(0, 0xCF9, 4, 1, 4 << 8 * n)


def test_a_write_without_the_bits_of_a_condition_leaves_it(board: Board) -> None:
    """A timer of the HPET in 32-bit mode; then an access that ends in the first byte of its configuration."""
    f = Filter(board)
    assert f.allow(1, 0xFED0014C, 4, 1, 0xA)
    assert f.allow(1, 0xFED00140, 4, 1, 0x108)
    assert f.allow(1, 0xFED00139, 8, 1, 0)
    assert not f.allow(1, 0xFED0014C, 4, 1, 0xA)
    assert f.allow(1, 0xFED00140, 4, 1, 0x008)
    assert f.allow(1, 0xFED0014C, 4, 1, 0xA)


def test_a_register_is_excluded_where_it_appears_again(board: Board) -> None:
    f = Filter(board)
    init = 0x0000_0500
    for addr in (
        0xFEE00300,
        0xFEE00304,
        0xFEE0030C,
        0xFEE00000,
        0xFEE01000,
        0xFEEC07FC,
    ):  # the command, its mirrors, messages
        assert not f.allow(1, addr, 4, 1, init), hex(addr)
        assert f.allow(1, addr, 4, 1, 0x0000_0400)
    assert not f.allow(1, 0xFEE00308, 8, 1, init << 32)
    assert not f.allow(1, 0xFEEC07F9, 8, 1, init << 24)


def test_an_exclusion_holds_behind_an_index(board: Board) -> None:
    f = Filter(board)
    assert f.allow(1, 0xFEC00000, 4, 1, 0x1B)  # IOREDTBL5, high
    assert not f.allow(1, 0xFEC00010, 4, 1, 0x000F_0000)
    assert f.allow(1, 0xFEC00010, 4, 1, 0)
    assert f.allow(1, 0xFEC00010, 4, 1, 0x010F_0000)  # bits that `clear` names
    assert f.allow(1, 0xFEC00000, 4, 1, 0x1A)
    assert f.allow(1, 0xFEC00010, 4, 1, 0x000F_0000)


def test_the_window_to_configuration_space_is_seen_through() -> None:
    f = Filter(Board("q35"))
    assert not f.allow(1, 0xB0000060, 4, 1, 0x1234_0001)  # PCIEXBAR
    assert f.allow(1, 0xB0000060, 4, 1, 0xB0000001)
    assert not f.allow(1, 0xB00F8040, 4, 1, 0x801)  # PMBASE


def test_an_input_line_reaches_both_controllers(board: Board) -> None:
    program = np.zeros(6, ACC)
    program["t_ns"] = np.arange(1, 7)
    program["space"] = (0, 0, LINE, 0, LINE, 0)
    program["addr"] = (0x43, 0x40, 5, 0x20, 5, 0x20)
    program["dir"] = (1, 1, 0, 0, 0, 0)
    program["size"] = (1, 1, 4, 1, 4, 1)
    program["value"] = (0x12, 1, 1, 0, 0, 0)
    got = EngineSide(board).run(program)
    assert got.value[3] & 0x20
    assert [c for at in (3, 5) for c in got.lines[at] if c[0] == 5] == [(5, 1), (5, 0)]


def diff(tmp_path: Path, *argv: str) -> dict[str, Any]:
    """What a command says that finds no difference."""
    result, cases = tmp_path / "result.json", tmp_path / "cases"
    assert main(["diff", *argv, "--out", str(cases), "--json", str(result)]) == 0
    assert not cases.exists()
    facts: dict[str, Any] = json.loads(result.read_text())
    return facts


@pytest.mark.parametrize("against", ["local", "batched"])
def test_the_engine_agrees_with_itself(against: str, tmp_path: Path) -> None:
    """Every part of each board: one access at a time, and in batches over two workers."""
    few = "600" if against == "local" else "200"
    facts = diff(tmp_path, "--seeds", "1", "--accesses", few, "--against", against)
    assert [(p["board"], p["part"]) for p in facts["parts"]] == [(n, id) for n in BOARDS for id in parts_of(n)]
    assert all(p["accesses"] >= int(few) and p["unexplained"] == 0 for p in facts["parts"])


def test_the_recorded_reference(tmp_path: Path) -> None:
    """Of every part: `engine diff --all --seeds 1 --first-seed 2 --accesses 300 --record FILE` with QEMU 7.2.22."""
    facts = diff(tmp_path, "--against", str(REFERENCE))
    assert facts["against"] == "a recording of QEMU 7.2.22"
    assert [(p["board"], p["part"]) for p in facts["parts"]] == [(n, id) for n in BOARDS for id in parts_of(n)]
    assert all(p["seeds"] == 1 and p["accesses"] >= 300 for p in facts["parts"])


def test_without_swtpm_tpms_are_said_not_to_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.cli.diff.installed", lambda: False)
    assert diff(tmp_path, "tpm", "--seeds", "1", "--accesses", "100", "--against", "local")["parts"] == []
    said = capsys.readouterr().out
    for name in ("i440fx-tpm", "q35-tpm"):
        assert f"{name}: swtpm is not installed, so its TPM is not compared." in said


@pytest.mark.skipif(not installed(), reason="swtpm is not installed")
def test_a_tpm_is_new_in_each_program() -> None:
    """TPM2_Startup succeeds once (TPM 2.0 Part 3, 9.3), in each program."""
    board = Board("q35-tpm")
    at, command = 0xFED40000, bytes.fromhex("8001 0000000c 00000144 0000 00000000")
    rows = [(Space.MMIO, at + 8, 4, 1, 1)]
    for _ in range(2):
        rows += [(Space.MMIO, at + 0x80 + n, 8, 1, int.from_bytes(command[n : n + 8], "little")) for n in (0, 8)]
        rows += [(Space.MMIO, at + 0x4C, 4, 1, 1), (Space.MMIO, at + 0x86, 4, 0, 0)]
    side = EngineSide(board)
    for _ in range(2):
        assert side.run(records(*rows)).value[[4, 8]].tolist() == [0, 0x00010000]  # TPM_RC_INITIALIZE, big endian


def test_a_recording_shows_a_difference(tmp_path: Path) -> None:
    file = tmp_path / "recording.npz"
    diff(
        tmp_path,
        "rtc",
        "--seeds",
        "1",
        "--accesses",
        "200",
        "--against",
        "local",
        "--board",
        "q35",
        "--record",
        str(file),
    )
    (one,) = RecordedSide(file).programs
    assert (one.board, one.part, one.seed) == ("q35", "rtc", 0)
    at = int(np.flatnonzero((one.program["dir"] == 0) & (one.program["addr"] == 0x71))[5])
    one.result.value[at] ^= np.uint64(1)
    save_recording(file, "something else", [one])
    result = tmp_path / "result.json"
    assert main(["diff", "--against", str(file), "--out", str(tmp_path / "cases"), "--json", str(result)]) == 1
    facts = json.loads(result.read_text())
    (found,) = facts["unexplained"]
    assert found["what"] == "read" and "0x71" in found["where"] and found["records"] == at + 1
    case = tmp_path / "cases" / "q35-rtc-0.json"
    assert main(["diff", "--case", str(case), "--against", str(file)]) == 1
    assert main(["diff", "--case", str(case), "--against", "local"]) == 0


def test_another_build_of_the_engine(tmp_path: Path) -> None:
    folder = Path(engine.__file__).parents[1]
    facts = diff(tmp_path, "pit", "--seeds", "1", "--accesses", "200", "--board", "i440fx", "--against", str(folder))
    assert facts["against"] == f"engine of {folder}"
    assert facts["totals"]["line_changes"]


def test_a_case_is_written_and_read_back(board: Board, tmp_path: Path) -> None:
    part = board.parts["pic"]
    program = Generator(board, part, 0).program(300)
    log, case = write_case(board, part, 7, program, Difference(3, "read", "pic", "0x1", "0x2"), tmp_path)
    same, id, again = load_case(case)
    assert (same.name, id) == ("i440fx", "pic")
    for field in ("t_ns", "space", "addr", "size", "dir", "value"):
        assert np.array_equal(again[field], program[field])
    lines = log.read_text().splitlines()
    assert lines[0] == "irq_intercept_in ioapic"
    assert len([ln for ln in lines if not ln.startswith(("clock", "irq"))]) == len(program)
    assert main(["diff", "--case", str(case), "--against", "local"]) == 0


@pytest.mark.parametrize(("argv", "says"), [
    (["nothing"], "'nothing' is no part; parts are ahci"),
    (["rtc", "--against", "/no/such"], "neither qemu, local"),
    (["rtc", "--against", "/"], "no build of the engine"),
    (["rtc", "--against", __file__], "no recording of engine diff"),
    (["rtc", "--all"], "--all and rtc"),
    (["rtc", "--trace", "boot-pc"], "--trace: recorded guests"),
    (["--trace", "/no/such"], "no such file"),
    (["rtc", "--path", "batched", "--against", "local", "--placement", "random:x"], "the seed is a whole number"),
    (["rtc", "--qemu", "/no/such/qemu"], "install QEMU"),
    (["--case", "/no/such/case"], "cannot be read"),
])  # fmt: skip
def test_mistakes_are_one_line(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *argv]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


@pytest.mark.parametrize(("name", "part"), [(n, id) for n in BOARDS for id in parts_of(n)])
def test_part_against_qemu(name: str, part: str, qemu: QemuSide) -> None:
    board = Board(name)
    theirs = QemuSide(board)
    program = Generator(board, board.parts[part], 1, theirs.control).program(1000)
    if theirs.control or part != "lapic0":
        assert compare(board, program, EngineSide(board).run(program), theirs.run(program)) is None


def records(*rows: tuple[int, int, int, int, int]) -> Any:
    """A program of (space, address, bytes, written, value), a microsecond apart."""
    out = np.zeros(len(rows), ACC)
    out["t_ns"] = 1000 * np.arange(1, len(rows) + 1)
    for n, name in enumerate(("space", "addr", "size", "dir", "value")):
        out[name] = [row[n] for row in rows]
    return out


def test_ram_is_written_and_looked_at_between_accesses(board: Board) -> None:
    """fw_cfg's signature by DMA: the command stands in RAM, and so does what comes of it."""
    command = struct.pack(">IIQ", 0x0000_000A, 4, 0x2000)
    first, second = struct.unpack("<QQ", command)
    program = records(
        (MEM, 0x1000, 8, 1, first),
        (MEM, 0x1008, 8, 1, second),
        (MEM, 0x1000, 4, 0, 0),
        (Space.PIO, 0x518, 4, 1, 0x0010_0000),
        (MEM, 0x1000, 4, 0, 0),
        (MEM, 0x2000, 4, 0, 0),
        (LINE, 5, 4, 0, 1),
        (MEM, 0x2001, 2, 0, 0),
        (Space.PIO, 0x80, 1, 0, 0),
    )
    for side in (EngineSide(board), EngineSide(board, one_by_one=True), EngineSide(board, "batched")):
        got = side.run(program)
        assert got.value[[2, 4, 5, 7]].tolist() == [
            0x0A00_0000,
            0,
            int.from_bytes(b"QEMU", "little"),
            int.from_bytes(b"EM", "little"),
        ]
        assert got.lines[8][-1:] == ((5, 1),)


def test_a_reset_is_a_record_and_the_program_sets_the_part_up_again(board: Board) -> None:
    part = board.parts["ide"]
    program = Generator(board, part, 1).program(30_000)
    resets = np.flatnonzero(program["space"] == RESET)
    assert len(resets)
    assert set(program["addr"][resets].tolist()) <= {0xCF9, 0x92, 0x64}
    head = board.preamble(part)
    for at in resets:
        after = program[["space", "addr", "size", "dir", "value"]][at + 1 : at + 1 + len(head)].tolist()
        assert [tuple(r) for r in after] == [tuple(map(int, r)) for r in head]
    scratch = records((0, 0x3FF, 1, 1, 0x5A), (RESET, 0xCF9, 1, 1, 6), (0, 0x70, 1, 1, 0x0F), (0, 0xCF8, 4, 0, 0))
    assert EngineSide(board).run(scratch).value[3] == 0


def test_lines_that_the_other_side_leaves_high_at_a_reset_are_not_compared_until_they_agree(board: Board) -> None:
    program = records(*[(0, 0x80, 1, 0, 0)] * 2, (RESET, 0xCF9, 1, 1, 6), *[(0, 0x80, 1, 0, 0)] * 4)
    zeros = np.zeros(len(program), np.uint64)
    ours = Result(zeros, {0: ((3, 1),), 2: ((3, 0),), 3: ((3, 1),), 4: ((3, 0),), 5: ((3, 1),)})
    left = Result(zeros, {0: ((3, 1),), 4: ((3, 0),), 5: ((3, 1),)})
    assert compare(board, program, ours, left) is None
    found = compare(board, program, ours, Result(zeros, {0: ((3, 1),), 4: ((3, 0),)}))
    assert found is not None and (found.index, found.where) == (5, "line 3")
    found = compare(board, program, left, ours)  # a reset of the engine lowers what devices drive
    assert found is not None and (found.index, found.what) == (2, "lines")


def test_a_side_that_ends_is_a_difference_and_made_short(board: Board, tmp_path: Path) -> None:
    class Ends(EngineSide):
        def run(self, program: Any) -> Result:
            if ((program["addr"] == 0x3FF) & (program["value"] == 0x5A)).any():
                raise EngineError("it went away at outb 0x3ff 0x5a")
            return super().run(program)

    part = board.parts["com1"]
    program = records(*[(0, 0x80, 1, 0, 0)] * 40, (0, 0x3FF, 1, 1, 0x5A), *[(0, 0x80, 1, 0, 0)] * 40)
    row = Row(part)
    assert one_program(board, row, 0, program, EngineSide(board), Ends(board), tmp_path) is None
    (found,) = row.found
    setup = len(board.preamble(part))  # stays
    assert (found["what"], found["where"], found["records"]) == ("end", "it went away", setup + 1)


@pytest.mark.parametrize(("name", "part"), [("i440fx-more", "pci-testdev-inner-4.0"), ("q35-more", "e1000-root-0.0")])
def test_parts_behind_bridges_answer_and_go(name: str, part: str) -> None:
    """Numbered and placed as firmware does, a function answers; not while a bridge above is shut or renumbered."""
    board = Board(name)
    under_test = board.parts[part]
    g = Generator(board, under_test, 0)
    g._set_up()
    number = under_test.number
    assert number is not None and number >> 8 and under_test.above
    before = len(g.rows)
    g.sure = True
    for _ in range(20):
        bridge(g.hands)
    identity = [
        n + 1
        for n in range(before, len(g.rows) - 1)
        if g.rows[n][1:] == (Space.PIO, 0xCF8, 4, 1, 1 << 31 | number << 8) and not g.rows[n + 1][4]
    ]
    seen = EngineSide(board).run(g.records()).value[identity].tolist()
    assert len(set(seen)) == 2 and 0xFFFFFFFF in seen and seen[-1] != 0xFFFFFFFF


@pytest.mark.parametrize("type", sorted(DRIVERS))
def test_drivers_reach_their_parts(type: str) -> None:
    """What a sequence does has an effect: a part under a driver reads differently from one that nobody drives."""
    name = next(n for n in reversed(BOARDS) if any(p.type == type for p in Board(n).select([])))
    board = Board(name)
    if board.tpm and not installed():
        pytest.skip("swtpm is not installed")
    part = next(p for p in board.select([]) if p.type == type)
    g = Generator(board, part, 0)
    g._set_up()
    before = len(g.rows)
    for _ in range(12):
        DRIVERS[type](g.hands)
    rows = g.rows[before:]
    reads = [n for n, r in enumerate(rows) if not r[4] and r[1] <= Space.MMIO]
    assert len(reads) > 10
    answers = EngineSide(board).run(g.records()).value[before:]
    assert len({int(answers[n]) for n in reads}) > 1


def test_a_timer_behind_the_last_shares_the_line_of_a_counter(board: Board, qemu: QemuSide) -> None:
    """No reset reaches it: it matches and lowers OUT0's line, which the counter, high for a clock, raises once more."""
    found = set()
    for seed in range(8):
        g = Generator(board, board.parts["hpet"], seed)
        g._set_up()
        for offset, value in ((0x10, 1), (0x160, 0x100), (0x168, 0xFFFFFFFF)):  # runs; 32 bits; a tick from now
            g.emit(Space.MMIO, 0xFED00000 + offset, 4, 1, value)
        g._reset()
        g._sweep()
        difference, answered = outcome(board, g.records(), EngineSide(board), qemu)
        assert difference is None and answered is not None
        found.add(max(len(changes) for changes in answered.lines.values()))
    assert found == {1, 3}


def test_a_reference_that_gets_no_processor_is_waited_for(qemu: QemuSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "ANSWER_S", 0.5)
    with sides._Qemu(qemu) as q:
        q.process.send_signal(signal.SIGSTOP)
        later = threading.Timer(2.5, q.process.send_signal, [signal.SIGCONT])
        later.start()
        assert [a[:2] for a in q.block(["endianness"])] == [b"OK"]
        monkeypatch.setattr(sides, "SILENT_S", 0.5)
        q.process.send_signal(signal.SIGSTOP)
        with pytest.raises(EngineError, match="gave no answer at endianness"):
            q.block(["endianness"])


@pytest.mark.parametrize("path", ["local", "batched"])
def test_a_recorded_guest_is_a_program(path: str, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    argv = ["--trace", "boot-pc", "--path", path, "--placement", "anew", "--against", "local", "--json", str(result)]
    assert main(["diff", *argv, "--out", str(tmp_path / "cases")]) == 0
    (part,) = json.loads(result.read_text())["parts"]
    assert (part["board"], part["type"]) == ("boot-pc", "trace")
    assert part["accesses"] > 50_000 and part["reads"] > 2_000 and part["line_changes"] > 40


def test_a_recorded_guest_against_qemu(qemu: QemuSide, tmp_path: Path) -> None:
    if not qemu.control:
        pytest.skip("this QEMU has no control port")
    result = tmp_path / "result.json"
    assert main(["diff", "--trace", "boot-pc", "--out", str(tmp_path / "cases"), "--json", str(result)]) == 0
    facts = json.loads(result.read_text())
    assert facts["against"].startswith("QEMU") and facts["totals"]["unexplained"] == 0


def test_interrupts_are_taken_on_both_sides(board: Board, qemu: QemuSide) -> None:
    if not qemu.control:
        pytest.skip("this QEMU has no control port")
    rows = [
        (0, 0x20, 0x11),
        (0, 0x21, 0x30),
        (0, 0x21, 4),
        (0, 0x21, 1),
        (0, 0x21, 0xFE),
        (0, 0x43, 0x30),
        (0, 0x40, 0x10),
        (0, 0x40, 0),
    ]
    program = np.zeros(len(rows) + 2, ACC)
    for n, (space, addr, value) in enumerate(rows):
        program[n] = (n + 1, addr, value, 0, 1, space, 1, 0, 0)
    program[-2] = (1_000_000, 0, 0, 0, 4, ACK, 0, 0, 0)
    program[-1] = (1_000_001, 0x21, 0, 0, 1, 0, 0, 0, 0)
    ours, theirs = EngineSide(board).run(program), qemu.run(program)
    assert int(ours.value[-2]) == int(theirs.value[-2])
    assert compare(board, program, ours, theirs) is None
