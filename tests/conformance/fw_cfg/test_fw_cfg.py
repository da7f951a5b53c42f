"""fw_cfg: QEMU's specification, by its sections."""

from __future__ import annotations

import struct

import pytest

from engine._device import Dma
from engine.devices.fw_cfg import FwCfg
from engine.errors import MachineError
from engine.testing.bus import FakeBus

RAM = 1 << 16
DESCRIPTOR, BUFFER = 0x100, 0x1000
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
SMI = (("etc/smi/features-ok", b"\0", 1, False, False), ("etc/smi/requested-features", None, 8, False, True),
       ("etc/smi/supported-features", (7).to_bytes(8, "little"), 8, False, False))  # fmt: skip
ITEMS = (
    (0x05, b"\x02\0", 2, False, False),
    (0x8004, b"\xff", 1, False, False),
    ("b", b"bee", 3, True, False),
    ("a", None, 4, True, False),
    ("etc/note", b"old", 4, False, True),
)


class Rig:
    """A device with its RAM."""

    def __init__(self, items: tuple[tuple[object, ...], ...] = ITEMS, dma: bool = True) -> None:
        self.ram = bytearray(RAM)
        self.dut = FwCfg("fwcfg", 0, None, Dma(self.ram), items=items, dma_enabled=dma)
        self.bus = FakeBus(self.dut)

    def select(self, key: int) -> None:
        self.bus.write(0, 0, key, 2)

    def data(self, n: int) -> bytes:
        return bytes(self.bus.read(0, 1) for _ in range(n))

    def item(self, key: int | str, n: int) -> bytes:
        self.select(self.dut.directory()[key][0] if isinstance(key, str) else key)
        return self.data(n)

    def transfer(self, control: int, length: int, address: int = BUFFER, at: int = DESCRIPTOR) -> int:
        """One DMA transfer; the control word it leaves."""
        self.ram[at : at + 16] = struct.pack(">IIQ", control, length, address)
        self.ring(at)
        return int.from_bytes(self.ram[at : at + 4], "big")

    def ring(self, at: int) -> None:
        swapped = int.from_bytes(at.to_bytes(8, "big"), "little")
        self.bus.write(1, 0, swapped & 0xFFFFFFFF, 4)
        self.bus.write(1, 4, swapped >> 32, 4)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_signature_is_selected_after_reset(rig: Rig) -> None:
    assert rig.data(6) == b"QEMU\0\0"
    rig.select(0x05)
    rig.bus.reset(1)
    assert rig.data(4) == b"QEMU"


def test_interface_id_says_whether_there_is_dma(rig: Rig) -> None:
    assert rig.item(0x01, 4) == b"\x03\0\0\0"
    assert Rig(dma=False).item(0x01, 4) == b"\x01\0\0\0"


def test_selector_goes_to_the_start_and_data_past_the_end_is_zero(rig: Rig) -> None:
    assert rig.item("b", 5) == b"bee\0\0"
    assert rig.item("b", 1) == b"b"
    assert rig.item(0x8004, 2) == b"\xff\0", "architecture-local keys are a space of their own"
    assert rig.item(0x4005, 2) == b"\x02\0", "the write channel's bit means nothing any more"


@pytest.mark.parametrize("key", [0x04, 0x3F, 0x40, 0x3FFF, 0x8005, 0xFFFF])
def test_keys_that_name_nothing_read_zero(rig: Rig, key: int) -> None:
    assert rig.item(key, 3) == bytes(3)


def test_data_register_is_a_byte_wide(rig: Rig) -> None:
    rig.select(0)
    assert rig.bus.read(0, 0, 1) == ord("Q"), "both ports read data"
    assert rig.bus.read(0, 0, 2) == 0, "a wide read is refused and goes nowhere"
    rig.bus.write(0, 0, 5, 1)
    rig.bus.write(0, 1, 5, 1)
    assert rig.data(3) == b"EMU", "byte writes neither select nor store"


def test_directory_is_sorted_and_numbered(rig: Rig) -> None:
    raw = rig.item(0x19, 4 + 64 * 32 + 1)
    assert raw[:4] == b"\0\0\0\3"
    rows = [struct.unpack(">IHH56s", raw[4 + 64 * n : 68 + 64 * n]) for n in range(4)]
    assert [(size, key, name.rstrip(b"\0")) for size, key, _, name in rows] == [
        (4, 0x20, b"a"), (3, 0x21, b"b"), (4, 0x22, b"etc/note"), (0, 0, b"")]  # fmt: skip
    assert raw[-1] == 0


def test_only_content_is_flagged_as_content(rig: Rig) -> None:
    flagged = {}
    for key in (0x00, 0x01, 0x05, 0x19, 0x20, 0x21, 0x22):
        rig.item(key, 1)
        flagged[key] = rig.bus.content
    assert [k for k, v in flagged.items() if v] == [0x20, 0x21]
    rig.item(0x21, 4)
    assert not rig.bus.content, "nothing past the end is content"


# ---------------------------------------------------------------------- DMA interface


def test_dma_register_reads_a_signature(rig: Rig) -> None:
    assert bytes(rig.bus.read(1, n) for n in range(8)) == b"QEMU CFG"
    assert rig.bus.read(1, 2, 4).to_bytes(4, "little") == b"MU C"


def test_without_dma_nobody_answers_there() -> None:
    off = Rig(dma=False)
    assert off.bus.read(1, 0, 4) == 0xFFFFFFFF
    assert off.transfer(READ, 4) == READ


def test_dma_read_selects_copies_and_fills_with_zeros(rig: Rig) -> None:
    rig.ram[BUFFER : BUFFER + 8] = b"\xee" * 8
    assert rig.transfer(SELECT | READ, 5) == 0
    assert rig.ram[BUFFER : BUFFER + 6] == b"QEMU\0\xee"
    assert rig.transfer(0x21 << 16 | SELECT | READ, 2) == 0
    assert rig.transfer(READ, 1) == 0, "without select it goes on"
    assert rig.ram[BUFFER : BUFFER + 1] == b"e"


def test_dma_skip_moves_on(rig: Rig) -> None:
    assert rig.transfer(SELECT | SKIP, 2) == 0
    assert rig.data(2) == b"MU"
    assert rig.transfer(SELECT | SKIP, 99) == 0
    assert rig.data(1) == b"\0"


def test_dma_without_a_command_only_selects(rig: Rig) -> None:
    assert rig.transfer(0x21 << 16 | SELECT, 99) == 0
    assert rig.data(3) == b"bee"


def test_dma_write_takes_writable_items_whole(rig: Rig) -> None:
    rig.ram[BUFFER : BUFFER + 5] = b"12345"
    note = 0x22 << 16 | SELECT | WRITE
    assert rig.transfer(note, 5) == ERROR, "longer than the item"
    assert rig.item("etc/note", 4) == b"old\0"
    assert rig.transfer(note, 4) == 0
    assert rig.item("etc/note", 4) == b"1234"
    assert rig.transfer(0x20 << 16 | SELECT | WRITE, 4) == ERROR, "not writable"
    assert rig.transfer(0x3F << 16 | SELECT | WRITE, 1) == ERROR, "nothing there"
    saved = rig.dut.save()
    rig.bus.reset(1)
    assert rig.item("etc/note", 4) == b"old\0", "what the guest wrote is gone after a reset"
    rig.dut.restore(saved)
    assert rig.item("etc/note", 4) == b"1234", "and is state"


def test_dma_outside_ram_is_an_error(rig: Rig) -> None:
    assert rig.transfer(SELECT | READ, 4, RAM) == ERROR
    assert rig.transfer(SELECT | READ, 4, RAM - 2) == ERROR
    assert rig.transfer(SELECT | READ, 0xFFFFFFFF, BUFFER) == ERROR, "the zeros run out of RAM"
    rig.ring(RAM + 64)
    assert rig.transfer(SELECT | READ, 4) == 0, "a descriptor nowhere does no harm"


def test_dma_address_halves(rig: Rig) -> None:
    rig.ram[DESCRIPTOR : DESCRIPTOR + 16] = struct.pack(">IIQ", SELECT | READ, 4, BUFFER)
    rig.bus.write(1, 0, 0x01000000, 4)
    rig.bus.write(1, 4, 0x00010000, 4)
    assert rig.ram[DESCRIPTOR] == 0 and rig.ram[DESCRIPTOR + 3] == SELECT | READ, "that was 4 GiB and 256"
    rig.bus.write(1, 4, 0x00010000, 4)
    assert rig.ram[DESCRIPTOR : DESCRIPTOR + 4] == bytes(4), "the upper half does not stay"
    for size, offset in ((1, 4), (2, 4), (4, 2), (8, 4)):
        assert rig.bus.write(1, offset, 0, size) != 0, "no other width starts a transfer"


# ---------------------------------------------------------------------- content


def test_unknown_content_reads_zero_and_is_counted(rig: Rig) -> None:
    assert rig.item("a", 4) == bytes(4)
    assert rig.dut.unknown == 4
    rig.ram[BUFFER] = 0xEE
    assert rig.transfer(0x20 << 16 | SELECT | READ, 4) == 0
    assert rig.ram[BUFFER] == 0
    assert rig.dut.unknown == 5


def test_content_is_learnt_from_a_recording_and_supplied(rig: Rig) -> None:
    rig.select(0x20)
    assert [rig.bus.learn(0, 1, v) for v in b"word!"] == [*b"word", 0]
    rig.select(0)
    assert rig.bus.learn(0, 1, 0x55) == ord("Q"), "state is not learnt"
    assert rig.item("a", 4) == b"word" and rig.dut.unknown == 0
    contents = rig.dut.contents()
    assert contents == {"a": b"word", "b": b"bee"}
    other = Rig()
    other.dut.set_contents(contents)
    assert other.item("a", 4) == b"word" and other.dut.contents() == contents


@pytest.mark.parametrize("bad", [{"etc/note": b""}, {"c": b""}, {"a": b"12345"}, {0x05: b"1"}])
def test_content_that_does_not_fit_is_refused(rig: Rig, bad: dict[str | int, bytes]) -> None:
    with pytest.raises(MachineError):
        rig.dut.set_contents({"b": b"x", **bad})
    assert rig.item("b", 3) == b"bee"


@pytest.mark.parametrize("items", [
    (("x", b"12", 1, False, False),), (("x", b"", 0, False, False),) * 2, (("n" * 56, b"", 0, False, False),),
    ((0x00, b"", 0, False, False),), ((0x19, b"", 0, False, False),), ((0x20, b"", 0, False, False),),
    ((0x40, b"", 0, False, False),),
    ((5, b"", 0, False, False),) * 2, tuple((f"f{n}", b"", 0, False, False) for n in range(33)),
    (("w", None, 257, False, True),), (("w", None, 1, True, True),), SMI[:1],
])  # fmt: skip
def test_impossible_items_are_refused(items: tuple[tuple[object, ...], ...]) -> None:
    with pytest.raises(MachineError):
        FwCfg(items=items)


# ---------------------------------------------------------------------- SMI features


@pytest.mark.parametrize(("request_", "ok"), [(0, 1), (1, 1), (3, 1), (7, 1), (2, 0), (4, 0), (5, 0), (8, 0)])
def test_smi_features_are_agreed_on_or_refused(request_: int, ok: int) -> None:
    rig = Rig(SMI)
    keys = {name: key for name, (key, _) in rig.dut.directory().items()}
    rig.ram[BUFFER : BUFFER + 8] = request_.to_bytes(8, "little")
    assert rig.transfer(keys["etc/smi/requested-features"] << 16 | SELECT | WRITE, 8) == 0
    assert rig.item("etc/smi/features-ok", 1) == bytes((ok,))
    assert rig.dut.inspect()["smi_features"] == (request_ if ok else 0)


def test_smi_features_are_locked_until_reset() -> None:
    rig = Rig(SMI)
    ask = rig.dut.directory()["etc/smi/requested-features"][0] << 16 | SELECT | WRITE
    rig.ram[BUFFER] = 1
    rig.transfer(ask, 8)
    assert rig.item("etc/smi/features-ok", 1) == b"\1"
    rig.ram[BUFFER] = 8
    assert rig.transfer(ask, 8) == 0
    assert rig.item("etc/smi/features-ok", 1) == b"\1" and rig.dut.inspect()["smi_features"] == 1
    rig.bus.reset(1)
    rig.transfer(ask, 8)
    assert rig.item("etc/smi/features-ok", 1) == b"\0" and rig.dut.inspect()["smi_features"] == 0
