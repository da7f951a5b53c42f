"""One exception tree: what a user did wrong, what is broken, and what the command makes of each."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import engine
from engine import errors
from engine.cli import main

TREE = {
    errors.EngineError: Exception,
    errors.UsageError: errors.EngineError,
    errors.MachineError: errors.UsageError,
    errors.TraceError: errors.UsageError,
    errors.StateError: errors.EngineError,
    errors.RingError: errors.EngineError,
    errors.WorkerDied: errors.EngineError,
}


def test_the_tree() -> None:
    assert {cls: cls.__bases__[0] for cls in TREE} == TREE
    found = {c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)}
    assert found == set(TREE), "an error class without a place in the tree"
    assert all(c.__doc__ for c in TREE)


def test_users_find_them_at_the_top() -> None:
    for cls in TREE:
        assert getattr(engine, cls.__name__) is cls
        assert cls.__name__ in engine.__all__


@pytest.mark.parametrize(
    "argv",
    [
        ["machine", "check", "/nothing/there.toml"],
        ["machine", "show", "i440fx", "--workers", "0"],
        ["machine", "show", "i440fx", "--workers", "1025"],
        ["machine", "show", "i440fx", "--placement", "random:x", "--workers", "2"],
        ["machine", "show", "i440fx", "--placement", "random:1"],
        ["machine", "show", "i440fx", "--placement", "/nothing/there.toml"],
        ["machine", "import"],
        ["machine", "import", "--from", "/nothing/there.json"],
        ["machine", "import", "--", "-M", "microvm"],
        ["machine", "import", "--", "-drive", "file=/nothing/there.img"],
        ["machine", "list", "--json", "/nothing/there/boards.json"],
        ["devices", "show", "ne2000"],
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"engine {argv[0]}: ") and said.err.count("\n") == 1
    assert "Traceback" not in said.err


def test_engine_machine_check_refuses_a_peer_that_a_device_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pc.toml"
    file.write_text('[board]\nbase = "i440fx"\n\n[[device]]\nid = "kbc"\npeers = { dma = "dma" }\nunit = "isa-dma"\n')
    assert main(["machine", "check", str(file)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == f"engine machine: {file}:4: device 'kbc': I8042 has no peer 'dma'\n"
