"""Value types: addresses of PCI functions, registers, regions."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import RW, Bdf, Region, Register, Space


@given(st.integers(0, 255), st.integers(0, 31), st.integers(0, 7), st.integers(0, 65535))
def test_bdf_numbers_and_texts(bus: int, device: int, function: int, segment: int) -> None:
    bdf = Bdf(bus, device, function, segment)
    assert bdf.number == segment << 16 | bus << 8 | device << 3 | function
    assert Bdf.parse(f"{segment:04x}:{bdf}") == bdf
    assert Bdf.parse(str(bdf)) == Bdf(bus, device, function)


def test_bdf_texts() -> None:
    assert Bdf.parse("00:1f.3") == Bdf(0, 0x1F, 3)
    assert str(Bdf(0, 0x1F, 3)) == "00:1f.3"
    assert Bdf(0, 1, 0) < Bdf(0, 1, 1) < Bdf(0, 2, 0) < Bdf(1, 0, 0)


@pytest.mark.parametrize(
    "text", ["", "1f", "00:1f", "00:20.0", "00:00.8", "100:00.0", "zz:00.0", "00:-1.0", "0:0:0:0.0x", "10000:00:00.0"]
)
def test_no_bdfs(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no PCI address; write it like 00:1f\.3"):
        Bdf.parse(text)


@pytest.mark.parametrize("fields", [(256, 0, 0), (0, 32, 0), (0, 0, 8), (-1, 0, 0), (0, 0, 0, 65536)])
def test_bdf_out_of_range(fields: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is no PCI address"):
        Bdf(*fields)


def test_register_masks_are_positive_values_of_the_width() -> None:
    """A C constant with its top bit set comes to Python as a negative number."""
    r = Register("LDR", 0xD0, 32, RW, reset=-1, wmask=-0x1000000, w1c=-(1 << 31))
    assert (r.reset, r.wmask, r.w1c) == (0xFFFFFFFF, 0xFF000000, 0x80000000)
    assert Register("X", 0, 8, RW, reset=None).reset is None


@pytest.mark.parametrize("field", ["reset", "wmask", "w1c"])
@pytest.mark.parametrize("value", [0x100, -0x101])
def test_register_values_fit_the_width(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"register IER: {field}"):
        Register("IER", 1, 8, RW, **{field: value})


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Region("serial", Space.PIO, 8).size = 9  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Bdf(0, 0, 0).bus = 1  # type: ignore[misc]


def test_spaces_are_numbered_as_in_the_abi() -> None:
    assert [s.name for s in Space] == ["PIO", "MMIO", "CONFIG"]
    assert [int(s) for s in Space] == [0, 1, 2]
