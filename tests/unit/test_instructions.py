"""Instructions an access on each path, counted by callgrind, against the record in perf/instructions.toml."""

from __future__ import annotations

import pytest

from perf import instructions
from perf.instructions import RAW, Profile, counts, differences

RECORD = {"gcc 12": {RAW: 100.0, "local": 150.0}}


@pytest.mark.skipif(bool(instructions.lacking()), reason=instructions.lacking())
def test_no_path_takes_more_or_fewer_instructions_than_recorded() -> None:
    """Fewer fails too: then the record is to be made again, so that the gain is kept."""
    now = counts()
    odd = differences(now, instructions.compiler(), instructions.recorded())
    assert not odd, "\n".join([*odd, "if it is meant: python -m perf.instructions --record"])


@pytest.mark.parametrize(
    ("local", "off"), [(150.0, False), (156.0, False), (144.0, False), (158.0, True), (142.0, True)]
)
def test_a_path_that_is_off_is_named(local: float, off: bool) -> None:
    got = differences({RAW: 100.0, "local": local}, "gcc 12", RECORD)
    assert bool(got) is off
    assert not off or (got[0].startswith("local: ") and "150 of gcc 12" in got[0])


@pytest.mark.parametrize(("local", "off"), [(300.0, False), (370.0, False), (400.0, True), (150.0, True)])
def test_another_compiler_is_measured_in_raw_loops(local: float, off: bool) -> None:
    """Its raw loop takes twice as many instructions here, so its paths may."""
    assert bool(differences({RAW: 200.0, "local": local}, "clang 19", RECORD)) is off


def test_a_path_that_is_not_in_the_record_is_named() -> None:
    assert differences({RAW: 100.0}, "gcc 12", RECORD) == ["local: counted or recorded, not both; record again"]


PART = """\
# callgrind format
desc: Trigger: Client Request: local

fn=run
0 100
cfn=look
calls=3 0
0 30
cfn=rest
calls=1 0
0 500

fn=look
0 30

fn=rest
0 60
cfn=__pyx_f_6engine_7workers_5_wait_wait_any
calls=2 0
0 400
cfn=rest
calls=1 0
0 40

fn=__pyx_f_6engine_7workers_5_wait_wait_any
0 400
"""


def test_what_a_function_calls_counts_and_waiting_does_not(tmp_path) -> None:
    (tmp_path / "callgrind.1").write_text(PART)
    (tmp_path / "callgrind").write_text("desc: Trigger: Program termination\nfn=run\n0 7\n")
    found = instructions.parts(tmp_path)
    assert list(found) == ["local"]
    assert found["local"].total("run") == 100 + 30 + 500 - 400
    assert found["local"].total("rest") == 60
    with pytest.raises(instructions.EngineError, match="nothing was not called"):
        Profile(PART.splitlines()).total("nothing")


def test_a_record_of_one_compiler_keeps_the_others(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(instructions, "RECORD", tmp_path / "record.toml")
    instructions.write({RAW: 100.0}, "gcc 12")
    instructions.write({RAW: 90.04}, "clang 19")
    assert instructions.recorded() == {"gcc 12": {RAW: 100.0}, "clang 19": {RAW: 90.0}}


def test_the_record_names_every_path() -> None:
    for who, counted in instructions.recorded().items():
        assert list(counted) == list(instructions.PATHS), who


def test_without_valgrind_there_is_one_clear_line(monkeypatch) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    with pytest.raises(instructions.UsageError, match="apt install valgrind"):
        counts()
