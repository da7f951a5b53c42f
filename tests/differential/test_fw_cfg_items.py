"""fw_cfg items computed from facts, against those of QEMU 7.2.22 started with the matching command lines.

data/fw_cfg_items.json: read from QEMU over qtest.  Each row after the first holds what differs from the first;
"numbers" are items by key without trailing zeros, "files" the bytes of files (null: absent) or, of content, the size.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from engine._device import Dma
from engine.devices.fw_cfg import FwCfg
from engine.errors import MachineError
from engine.machine.fw_cfg_items import Facts, machine_items
from engine.testing.bus import FakeBus

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "fw_cfg_items.json").read_text())
DIRECTORY, FIRST_FILE = 0x19, 0x20


def kernel() -> bytes:
    """A kernel with nothing in it but the header fields that a loader reads."""
    image = bytearray(512 * 5 + 3000)
    image[0x1F1] = 4
    image[0x202:0x208] = b"HdrS\x0f\x02"
    image[0x211] = 1
    struct.pack_into("<I", image, 0x22C, 0x7FFFFFFF)
    return bytes(image)


def facts(row: dict[str, Any]) -> Facts:
    given = dict(row["facts"])
    if "uuid" in given:
        given["uuid"] = bytes.fromhex(given["uuid"])
    if row.get("kernel"):
        given |= {"kernel": kernel(), "initrd": bytes(5000)}
    return Facts.checked(given)


def expected(row: dict[str, Any]) -> tuple[dict[int, str], dict[str, str | int]]:
    numbers = {**ROWS[0]["numbers"], **row["numbers"]}
    files = {**ROWS[0]["files"], **row["files"]}
    return {int(k, 16): v for k, v in numbers.items() if v}, {k: v for k, v in files.items() if v is not None}


@pytest.mark.parametrize("row", ROWS, ids=[r["qemu"] for r in ROWS])
def test_items_are_the_references(row: dict[str, Any]) -> None:
    f = facts(row)
    numbers, files = expected(row)
    ram = bytearray(1 << 20)
    dut = FwCfg("fwcfg", 0, None, Dma(ram), items=machine_items(f))
    bus = FakeBus(dut)

    def read(key: int, size: int) -> bytes:
        ram[0x1000:0x1010] = struct.pack(">IIQ", key << 16 | 0x0A, size, 0x20000)
        bus.write(1, 0, 0, 4)
        bus.write(1, 4, int.from_bytes((0x1000).to_bytes(4, "little"), "big"), 4)
        assert ram[0x1000:0x1004] == bytes(4)
        return bytes(ram[0x20000 : 0x20000 + size])

    linux_data = (0x11, 0x12, 0x18)
    for key in [k for k in range(DIRECTORY) if k not in linux_data] + list(range(0x8000, 0x8020)):
        assert read(key, 2048).rstrip(b"\0").hex() == numbers.get(key, ""), f"key {key:#x}"
    directory = read(DIRECTORY, 4 + 64 * 32)
    assert struct.unpack(">I", directory[:4])[0] == len(files)
    for n, name in enumerate(sorted(files)):
        want = files[name]
        size, key, zero, raw = struct.unpack(">IHH56s", directory[4 + 64 * n : 68 + 64 * n])
        assert (raw.rstrip(b"\0").decode(), key, zero) == (name, FIRST_FILE + n, 0)
        if isinstance(want, int):
            assert size == want, name
        else:
            assert read(key, size).hex() == want, name
    assert directory[4 + 64 * len(files) :] == bytes(64 * (32 - len(files)))


def test_a_multiboot_kernel_has_items_whose_bytes_are_not_known() -> None:
    """Multiboot 0.6.96, 3.1.1: magic, flags, and what makes their sum 0, in the first 8 KiB, on a multiple of 4."""
    head = struct.pack("<3I", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFFFFFF)
    for at in (0, 4096, 8180):
        image = bytes(at) + head + bytes(5000)
        assert machine_items(Facts(kernel=image)) == machine_items(Facts(kernel=len(image)))
    for image in (bytes(8184) + head, bytes(2) + head + bytes(9000), head[:8] + bytes(9000)):
        with pytest.raises(MachineError, match="only bzImages"):
            machine_items(Facts(kernel=image))


@pytest.mark.parametrize("initrd", [None, 5000])
def test_a_kernel_that_is_not_there_has_its_items_without_their_bytes(initrd: int | None) -> None:
    """QEMU, hw/i386/x86.c, multiboot.c: a kernel's items; once what comes of the file is supplied they read alike."""
    f = {"cmdline": "vga=ask", "dma": False}
    there = {i.key: i for i in machine_items(Facts(kernel=kernel(), initrd=initrd and bytes(initrd), **f))}
    items = machine_items(Facts(kernel=len(kernel()), initrd=initrd, **f))
    absent = {i.key: i for i in items}
    multiboot = {0x10} if initrd else {0x0A, 0x0B, 0x10}  # of no use to Linux
    assert absent.keys() == there.keys() | multiboot
    unknown = {k for k in there if absent[k].data is None and there[k].data is not None}
    assert unknown == {0x07, 0x08, 0x11, 0x16, 0x17, 0x18} | ({0x0A, 0x0B, 0x12} if initrd else set())
    assert all(absent[k].content and absent[k].size >= there[k].size for k in unknown)
    assert all(absent[k].content and absent[k].size == 4 for k in multiboot)
    assert all(absent[k] == there[k] for k in there.keys() - unknown)
    assert absent["bootorder"].data == b"/rom@genroms/linuxboot.bin\0"
    dut = FwCfg("fwcfg", 0, None, None, items=items, dma_enabled=False)
    dut.set_contents({k: there[k].data for k in unknown})
    bus = FakeBus(dut)
    for key in unknown:
        bus.write(0, 0, key, 2)
        want = there[key].data
        assert want is not None
        assert bytes(bus.read(0, 1, 1) for _ in range(len(want) + 4)) == want + bytes(4)


def test_linux_header_is_patched_for_its_loader() -> None:
    """Linux/x86 boot protocol 2.15, "Details of header fields": obligatory writes of a boot loader."""
    items = {i.key: i for i in machine_items(Facts(kernel=kernel(), initrd=bytes(5000), cmdline="vga=ask"))}
    setup, initrd_at = items[0x18].data, 0x07FD6000
    assert setup is not None and len(setup) == 2560
    assert setup[0x1FA:0x1FC] == b"\xfd\xff", "vid_mode"
    assert (setup[0x210], setup[0x211]) == (0xB0, 0x81), "type_of_loader, loadflags with CAN_USE_HEAP"
    assert struct.unpack_from("<II", setup, 0x218) == (initrd_at, 5000), "ramdisk_image, ramdisk_size"
    assert struct.unpack_from("<I", setup, 0x228) == (0x20000,), "cmd_line_ptr"
    assert struct.unpack_from("<H", setup, 0x224) == (0xFE00,), "heap_end_ptr"
    assert items[0x11].data == bytes(3000), "the rest of the image"
