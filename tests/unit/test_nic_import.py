"""Network controllers of a QEMU command line: which there are, in which slot, on which interrupt wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.machine.qemu_args import from_qemu


def nics(*args: str) -> list[tuple[str, str, Any]]:
    """(slot, wire, address) of each e1000."""
    devices = from_qemu(["-M", "pc", *args]).spec().devices
    return [(str(d.bdf), d.lines["inta"], d.config["mac"]) for d in devices if d.type == "e1000"]


OWN = "52:54:00:12:34:56"


@pytest.mark.parametrize(
    "args,want",
    [
        ([], [("00:03.0", "pirqc", OWN)]),
        (["-nodefaults"], []),
        (["-nic", "none"], []),
        (["-net", "none"], []),
        (["-netdev", "user,id=n"], []),
        (["-net", "nic", "-net", "user"], [("00:03.0", "pirqc", OWN)]),
        (["-nic", "user,mac=02:00:00:00:00:01"], [("00:03.0", "pirqc", "02:00:00:00:00:01")]),
        (["-vga", "none"], [("00:02.0", "pirqb", OWN)]),
        (["-nodefaults", "-device", "e1000,addr=1f"], [("00:1f.0", "pirqc", OWN)]),
        (["-nodefaults", "-device", "e1000-82540em"], [("00:02.0", "pirqb", OWN)]),
        (["-nodefaults", "-vga", "std", "-device", "e1000-82540em"], [("00:03.0", "pirqc", OWN)]),
        (
            ["-nodefaults", "-vga", "std", *["-device", "e1000"] * 3],
            [("00:03.0", "pirqc", OWN), ("00:04.0", "pirqd", OWN[:-1] + "7"), ("00:05.0", "pirqa", OWN[:-1] + "8")],
        ),
        (
            ["-nodefaults", "-vga", "std", "-device", f"e1000,mac={OWN}", "-device", "e1000"],
            [("00:03.0", "pirqc", OWN), ("00:04.0", "pirqd", OWN[:-1] + "7")],
        ),
    ],
)
def test_e1000(args: list[str], want: list[tuple[str, str, str]]) -> None:
    assert nics(*args) == want


def test_other_models_are_named_as_not_modelled() -> None:
    got = from_qemu(["-M", "pc", "-nic", "user,model=rtl8139", "-device", "e1000"])
    assert got.unmodelled == [("rtl8139", "00:03.0")]
    assert [str(d.bdf) for d in got.spec().devices if d.type == "e1000"] == ["00:04.0"]


@pytest.mark.parametrize(
    "properties,want",
    [
        ("", {"rom_size": 0x40000}),  # the reference's own
        (",romfile=", {}),
        (",rombar=0", {}),
        (",romsize=0x80000", {"rom_size": 0x80000}),
        (",romfile={rom}", {"rom_size": 70000}),  # a file of which only the size is known
    ],
)
def test_an_option_rom_has_a_base_address_register(properties: str, want: dict[str, int]) -> None:
    args = ["-nodefaults", "-device", f"e1000,id=net{properties}"]
    config = from_qemu(args, sizes={"rom": 70000}).spec().device("net").config
    assert {k: v for k, v in config.items() if k.startswith("rom")} == want


def test_an_option_rom_may_be_a_file(tmp_path: Path) -> None:
    image = tmp_path / "boot.rom"
    image.write_bytes(b"\x55\xaa" + bytes(1000))
    config = from_qemu(["-nodefaults", "-device", f"e1000e,id=net,romfile={image}"]).spec().device("net").config
    assert config["rom"] == str(image) and "rom_size" not in config


@pytest.mark.parametrize(
    "args,want",
    [
        ([], [("00:02.0", "pirqg", OWN)]),
        (["-nodefaults"], []),
        (["-nodefaults", "-device", "e1000e,romfile="], [("00:01.0", "pirqf", OWN)]),
        (["-nodefaults", "-vga", "std", "-device", "e1000e,addr=1f.6"], [("00:1f.6", "d31a", OWN)]),
        (["-nic", "user,model=e1000e,mac=02:00:00:00:00:01"], [("00:02.0", "pirqg", "02:00:00:00:00:01")]),
    ],
)
def test_e1000e_is_the_controller_of_q35(args: list[str], want: list[tuple[str, str, str]]) -> None:
    devices = from_qemu(["-M", "q35", *args]).spec().devices
    assert [(str(d.bdf), d.lines["inta"], d.config["mac"]) for d in devices if d.type == "e1000e"] == want
