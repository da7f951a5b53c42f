"""Accesses that a region does not take as they are: docs/decisions/0007-odd-accesses.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine._abi import ACC
from engine.machine import Machine
from engine.measure.diff.board import Board

WIDTH = {"b": 1, "w": 2, "l": 4}
FILE = Path(__file__).parent / "data" / "odd_accesses.txt"
LINES = [ln for ln in FILE.read_text().splitlines() if not ln.startswith("#")]


@pytest.mark.parametrize("path", ["local", "sync", "batched"])
def test_odd_accesses_as_the_reference_answers_them(path: str) -> None:
    program = np.zeros(len(LINES), ACC)
    program["t_ns"] = np.arange(1, len(LINES) + 1)
    answers = {}
    for n, line in enumerate(LINES):
        request, _, answer = line.partition(" -> ")
        verb, *words = request.split()
        write = verb.startswith("out")
        program[n] = (n + 1, int(words[0], 16), int(words[1], 16) if write else 0, 0, WIDTH[verb[-1]], 0, write, 0, 0)
        if answer:
            answers[n] = int(answer, 16)
    options = {"path": path} | ({"workers": 2} if path != "local" else {})
    with Machine(Board("i440fx").spec, **options) as machine:
        values, _, _ = machine.run(program)
    got = {LINES[n]: f"{LINES[n].partition(' -> ')[0]} -> {int(values[n]):#x}" for n in answers}
    assert len(answers) > 35
    assert list(got.values()) == list(got)
