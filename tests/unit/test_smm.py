"""System management RAM, as accesses made in and outside system management mode find it, on every path."""

from __future__ import annotations

import numpy as np
import pytest

from engine import ACC, Machine

SMM = 4  # ACC flags
HIGH = 0xFEDA0000
SECRET, SCREEN = 0x5EC2E75EC2E75EC2, 0


def seen(machine: Machine, at: int) -> list[int]:
    """What is read at an address outside and in system management mode, in one batch."""
    acc = np.zeros(2, ACC)
    acc["space"], acc["addr"], acc["size"], acc["flags"] = 1, at, 8, (0, SMM)
    acc["t_ns"] = machine.clock.now
    return machine.submit(acc).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", ["local", "sync", "buffered", "batched"])
def test_smram_of_both_boards(path: str) -> None:
    for board, register in (("i440fx", 0x72), ("q35", 0x9D)):
        with Machine.from_file(board, path=path, workers=2) as machine:
            memoryview(machine.ram)[0xA0000:0xA0008] = SECRET.to_bytes(8, "little")

            def set_smram(value: int, at: int = register) -> None:
                machine.write("config", at, 1, value)

            nobody = seen(machine, 0xA0000)
            assert nobody[0] == nobody[1] != SECRET  # the display adapter's
            set_smram(0x0A)  # G_SMRAME: closed
            assert seen(machine, 0xA0000) == [nobody[0], SECRET]
            set_smram(0x4A)  # D_OPEN as well
            assert seen(machine, 0xA0000) == [SECRET, SECRET]
            set_smram(0x42)  # D_OPEN alone: for everybody, as on the reference
            assert seen(machine, 0xA0000) == [SECRET, SECRET]
            saved = machine.save()
            set_smram(0x02)
            assert seen(machine, 0xA0000) == nobody
            machine.load(saved)
            assert seen(machine, 0xA0000) == [SECRET, SECRET]
            set_smram(0x0A)
            acc = np.zeros(2, ACC)
            acc["space"], acc["addr"], acc["size"], acc["dir"], acc["t_ns"] = 1, 0xA0000, 1, 1, machine.clock.now
            acc["value"], acc["flags"] = (0x11, 0x22), (0, SMM)
            machine.submit(acc)
            assert memoryview(machine.ram)[0xA0000] == 0x22


@pytest.mark.parametrize("path", ["local", "batched"])
def test_smram_that_is_high_and_tseg(path: str) -> None:
    with Machine.from_file("q35", path=path, workers=2) as machine:
        memoryview(machine.ram)[0xA0000:0xA0008] = SECRET.to_bytes(8, "little")
        machine.write("config", 0x9E, 1, 0x80)  # H_SMRAME
        machine.write("config", 0x9D, 1, 0x0A)
        assert SECRET not in seen(machine, 0xA0000)
        assert seen(machine, HIGH)[0] != SECRET == seen(machine, HIGH)[1]
