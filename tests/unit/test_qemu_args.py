"""QEMU command lines: what becomes part of the machine file, what is passed over, what is named as not modelled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli import main
from engine.errors import MachineError
from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.qemu_args import Imported, from_qemu, options
from engine.machine.spec import shipped_boards

Q35 = "q35" in shipped_boards()

# The machine_args of five recordings, as their side files have them, with the sizes of the files they name.
RECORDED = {
    "seabios-pc": (
        [
            "-M",
            "pc",
            "-rtc",
            "base=2024-01-01,clock=vm",
            "-no-user-config",
            "-nodefaults",
            "-m",
            "128",
            "-vga",
            "std",
            "-global",
            "fw_cfg_io.dma_enabled=off",
            "-parallel",
            "null",
            "-chardev",
            "null,id=dbg",
            "-device",
            "isa-debugcon,iobase=0x402,chardev=dbg",
            "-drive",
            "if=ide,index=0,format=raw,file.driver=null-co,file.read-zeroes=on,file.size=67108864",
            "-drive",
            "if=ide,index=2,media=cdrom",
            "-drive",
            "if=floppy,index=0",
        ],
        {},
    ),
    "boot-pc": (
        [
            "-M",
            "pc",
            "-rtc",
            "base=2024-01-01,clock=vm",
            "-no-user-config",
            "-nodefaults",
            "-m",
            "64",
            "-vga",
            "std",
            "-chardev",
            "null,id=dbg",
            "-device",
            "isa-debugcon,iobase=0x402,chardev=dbg",
            "-drive",
            "if=ide,index=0,format=raw,snapshot=on,file={disk}",
        ],
        {"disk": 65536},
    ),
    "grub-pc": (
        [
            "-M",
            "pc",
            "-rtc",
            "base=2024-01-01,clock=vm",
            "-no-user-config",
            "-nodefaults",
            "-m",
            "256",
            "-vga",
            "std",
            "-chardev",
            "null,id=dbg",
            "-device",
            "isa-debugcon,iobase=0x402,chardev=dbg",
            "-drive",
            "if=ide,index=0,format=raw,file.driver=null-co,file.read-zeroes=on,file.size=67108864",
            "-drive",
            "if=ide,index=2,media=cdrom,format=raw,readonly=on,file={iso}",
            "-boot",
            "d",
        ],
        {"iso": 5081088},
    ),
    "linux-amd64-pc": (
        [
            "-M",
            "pc",
            "-rtc",
            "base=2024-01-01,clock=vm",
            "-no-user-config",
            "-nodefaults",
            "-m",
            "640",
            "-vga",
            "std",
            "-chardev",
            "null,id=dbg",
            "-device",
            "isa-debugcon,iobase=0x402,chardev=dbg",
            "-drive",
            "if=ide,index=0,format=raw,file.driver=null-co,file.read-zeroes=on,file.size=67108864",
            "-netdev",
            "user,id=n0,restrict=on",
            "-device",
            "e1000,netdev=n0,romfile=",
            "-kernel",
            "{kernel}",
            "-initrd",
            "{initrd}",
            "-append",
            "console=ttyS0,115200n8 priority=critical vga=normal fb=false",
        ],
        {"kernel": 8222656, "initrd": 40810276},
    ),
    "seabios-q35": (
        [
            "-M",
            "q35",
            "-rtc",
            "base=2024-01-01,clock=vm",
            "-no-user-config",
            "-nodefaults",
            "-m",
            "128",
            "-vga",
            "std",
            "-chardev",
            "null,id=dbg",
            "-device",
            "isa-debugcon,iobase=0x402,chardev=dbg",
            "-drive",
            "if=none,id=d0,format=raw,file.driver=null-co,file.read-zeroes=on,file.size=67108864",
            "-device",
            "ide-hd,drive=d0,bus=ide.0",
            "-device",
            "e1000e,romfile=",
        ],
        {},
    ),
}
PC = [name for name in RECORDED if name.endswith("-pc")]


def imported(*args: str) -> Imported:
    return from_qemu(args)


def drives(got: Imported) -> dict[tuple[int, int], dict[str, object]]:
    return {(d["channel"], d["unit"]): d for d in got.spec().device("ide").config.get("drives", [])}


def ids(got: Imported) -> set[str]:
    return {d.id for d in got.spec().devices}


@pytest.mark.parametrize("name", PC)
def test_recorded_machines(name: str) -> None:
    args, sizes = RECORDED[name]
    got = from_qemu(args, sizes=sizes)
    spec = got.spec()
    plan(derive(spec))
    assert got.remarks == []
    assert spec.board.ram == int(args[args.index("-m") + 1]) << 20
    assert spec.device("rtc").config["base"] == "2024-01-01T00:00:00"
    assert spec.device("debugcon").at == {"debugcon": 0x402}
    assert "com1" not in ids(got) and ("lpt1" in ids(got)) == (name == "seabios-pc")


def test_seabios_pc() -> None:
    got = from_qemu(RECORDED["seabios-pc"][0])
    assert drives(got) == {
        (0, 0): {"channel": 0, "unit": 0, "kind": "disk", "size": 64 << 20},
        (1, 0): {"channel": 1, "unit": 0, "kind": "cdrom"},
    }
    spec = got.spec()
    assert spec.device("fdc").config["drives"] == 1
    assert spec.device("fwcfg").config["dma_enabled"] is False
    assert got.unmodelled == []


def test_grub_pc() -> None:
    args, sizes = RECORDED["grub-pc"]
    got = from_qemu(args, sizes=sizes)
    assert drives(got)[1, 0] == {"channel": 1, "unit": 0, "kind": "cdrom", "size": 5081088}
    assert got.spec().board.facts["boot_order"] == "d"
    assert got.spec().device("fdc").config["drives"] == 0


def test_linux_pc(tmp_path: Path) -> None:
    args, sizes = RECORDED["linux-amd64-pc"]
    facts = from_qemu(args, sizes=sizes).spec().board.facts
    assert facts["cmdline"] == "console=ttyS0,115200n8 priority=critical vga=normal fb=false"
    assert (facts["kernel"], facts["initrd"]) == (8222656, 40810276), "their sizes"
    kernel = tmp_path / "linux"
    kernel.write_bytes(b"k" * 512)
    assert from_qemu(args, {"kernel": str(kernel)}, sizes).spec().board.facts["kernel"] == str(kernel)


def test_seabios_q35() -> None:
    args, sizes = RECORDED["seabios-q35"]
    if not Q35:
        with pytest.raises(MachineError, match=r"QEMU machine 'q35' is not modelled; boards are .*i440fx"):
            from_qemu(args, sizes=sizes)
    else:
        spec = from_qemu(args, sizes=sizes).spec()
        plan(derive(spec))
        assert spec.board.chipset == "q35"


# ---------------------------------------------------------------------- lines as the manual and people write them


def test_the_default_machine() -> None:
    """No option at all: serial and parallel port, a VGA, a network card, no debug console."""
    got = imported("qemu-system-x86_64")
    assert {"com1", "lpt1", "vga", "hpet"} <= ids(got) and "debugcon" not in ids(got)
    nics = [d for d in got.spec().devices if d.type == "e1000"]
    assert [str(d.bdf) for d in nics] == ["00:03.0"] and got.unmodelled == []
    assert got.spec().board.ram == 128 << 20


@pytest.mark.parametrize(
    ("machine", "reserved", "signature"),
    [("pc-i440fx-7.2", 1, 0x60FB1), ("pc-i440fx-7.1", 1, 0x60FB1), ("pc-i440fx-7.0", 0, 0x60FB1),
     ("pc-i440fx-6.1", 0, 0x60FB1), ("pc-i440fx-6.0", 0, 0x663), ("pc-q35-5.2", 0, 0x663), ("pc-q35-4.0.1", 0, 0x663)],
)  # fmt: skip
def test_machine_types_of_older_versions(machine: str, reserved: int, signature: int) -> None:
    """hw/i386/pc.c of the reference: what its machine types keep of the version that they are named for."""
    spec = derive(from_qemu(["-M", machine, "-m", "128"]).spec())
    items = {i.key: i.data for i in spec.device("fwcfg").config["items"]}
    table, e820 = items["etc/smbios/smbios-tables"], items["etc/e820"]
    assert table is not None and e820 is not None
    assert len(e820) == 20 * (1 + reserved)
    assert table.count(machine.encode() + b"\0") == 3, "system, chassis and processor"
    assert signature.to_bytes(4, "little") + bytes.fromhex("fdfb8b07") in table


@pytest.mark.parametrize(
    ("line", "order"),
    [
        ("-M pc -device ide-hd,drive=a,bootindex=1 -device ide-cd,drive=b,bootindex=0",
         "ide@1,1/drive@1/disk@1 ide@1,1/drive@1/disk@0"),
        ("-M pc -drive if=ide,index=2,driver=null-co,size=1M -device ide-hd,drive=a,bootindex=1",
         "ide@1,1/drive@1/disk@1"),
        ("-M pc -device ide-hd,drive=a,bootindex=1 -device ahci -device ide-hd,drive=b,bootindex=2",
         "ide@1,1/drive@1/disk@0 pci8086,2922@2/drive@5/disk@0"),
        ("-M pc -device ahci,id=h -device ide-hd,drive=a,bus=h.4,bootindex=3 "
         "-device virtio-blk-pci,drive=b,bootindex=1 -device nvme,drive=c,serial=x,bootindex=2 "
         "-device rtl8139,bootindex=4 -device e1000,bootindex=-1",
         "scsi@3/disk@0,0 pci1b36,0010@4/namespace@1,0 pci8086,2922@2/drive@4/disk@0 ethernet@5/ethernet-phy@0"),
        ("-M pc -device pci-bridge,id=b1,chassis_nr=1,addr=7 -device pci-bridge,id=b2,chassis_nr=2,addr=7.3,bus=b1 "
         "-device e1000,bus=b2,addr=3,bootindex=7 -global isa-fdc.bootindexA=9 -global isa-fdc.bootindexB=0",
         "isa@1/fdc@03f0/floppy@1 pci-bridge@7/pci-bridge@7,3/ethernet@3/ethernet-phy@0 isa@1/fdc@03f0/floppy@0"),
        ("-M q35 -device ide-hd,drive=a,bootindex=3 -device pcie-root-port,id=rp,chassis=1,slot=1 "
         "-device e1000e,bus=rp,bootindex=0",
         "pci-bridge@1/ethernet@0/ethernet-phy@0 pci8086,2922@1f,2/drive@5/disk@0"),
    ],
)  # fmt: skip
def test_boot_order(line: str, order: str) -> None:
    """The file `bootorder` that QEMU 7.2.22 makes of the same lines."""
    drives = [w for id in "abc" for w in ("-drive", f"if=none,id={id},driver=null-co,size=64M")]
    got = from_qemu(["-nodefaults", "-vga", "none", *drives, *line.split()])
    items = {i.key: i.data for i in derive(got.spec()).device("fwcfg").config["items"]}
    assert items["bootorder"] == "\n".join(f"/pci@i0cf8/{path}" for path in order.split()).encode() + b"\0"
    assert got.remarks == []


def test_a_place_in_the_boot_order_that_is_not_known() -> None:
    got = from_qemu(
        ["-device", "usb-ehci,id=u", "-device", "usb-storage,drive=x,bootindex=1", "-device", "vfio-pci,bootindex=2"]
    )
    assert got.remarks == [
        f"{name}: its place in the boot order is not modelled" for name in ("usb-storage", "vfio-pci")
    ]


def test_the_manuals_quick_start(tmp_path: Path) -> None:
    """qemu-system-x86_64 [options] disk_image"""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    got = imported("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "2G", "-smp", "2", str(image))
    assert drives(got)[0, 0] == {"channel": 0, "unit": 0, "kind": "disk", "size": 1 << 20, "image": str(image)}
    assert (got.spec().board.ram, got.spec().board.cpus) == (2 << 30, 2)


def test_an_installation(tmp_path: Path) -> None:
    disk, cd = tmp_path / "hd,1.img", tmp_path / "install.iso"
    disk.write_bytes(bytes(4096))
    cd.write_bytes(bytes(2048))
    doubled = str(disk).replace(",", ",,")
    got = imported(
        "-machine",
        "pc-i440fx-8.2,accel=kvm,hpet=off",
        "-drive",
        f"file={doubled},format=raw,media=disk",
        "-cdrom",
        str(cd),
        "-boot",
        "order=dc,menu=on,splash-time=500",
        "-nographic",
        "-nic",
        "none",
    )
    assert {k: v["kind"] for k, v in drives(got).items()} == {(0, 0): "disk", (1, 0): "cdrom"}
    assert drives(got)[0, 0]["image"] == str(disk)
    assert "hpet" not in ids(got) and "vga" in ids(got)  # -nographic takes the window away, not the adapter
    facts = got.spec().board.facts
    assert (facts["boot_order"], facts["boot_menu"], facts["splash_time"], facts["nographic"]) == (
        "dc",
        True,
        500,
        True,
    )


def test_drives_by_letter_by_index_and_by_device(tmp_path: Path) -> None:
    images = {}
    for n in "abcd":
        images[n] = tmp_path / f"{n}.img"
        images[n].write_bytes(bytes(512))
    got = imported("-nodefaults", "-hda", str(images["a"]), "-hdd", str(images["d"]), "-fda", str(images["b"]))
    assert set(drives(got)) == {(0, 0), (1, 1)}
    assert got.spec().device("fdc").config == {"drives": 1, "image_a": str(images["b"])}
    got = imported(
        "-nodefaults",
        "-drive",
        f"if=none,id=x,file={images['c']},serial=S1",
        "-device",
        "ide-hd,drive=x,bus=ide.1,unit=1",
    )
    assert drives(got) == {
        (1, 1): {"channel": 1, "unit": 1, "kind": "disk", "size": 512, "image": str(images["c"]), "serial": "S1"}
    }


def test_json_devices_and_double_dashes() -> None:
    device = json.dumps({"driver": "isa-debugcon", "iobase": "0xe9"})
    got = imported("--nodefaults", "--device", device)
    assert got.spec().device("debugcon").at == {"debugcon": 0xE9}


def test_what_is_not_modelled_is_named_with_its_slot() -> None:
    got = imported(
        "-nodefaults",
        "-vga",
        "virtio",
        "-device",
        "virtio-net-pci",
        "-device",
        "nvme,addr=0x0a.1",
        "-device",
        "virtio-rng-pci",
        "-device",
        "isa-applesmc",
        "-drive",
        "if=virtio,file=",
    )
    assert got.unmodelled == [
        ("virtio drive", ""),
        ("virtio-vga", "00:02.0"),
        ("virtio-net-pci", "00:03.0"),
        ("nvme", "00:0a.1"),
        ("virtio-rng-pci", "00:04.0"),
        ("isa-applesmc", ""),
    ]


def test_what_sits_on_no_pci_bus_takes_no_slot() -> None:
    devices = [
        "usb-storage,drive=x",
        "scsi-hd,drive=x",
        "qemu64-x86_64-cpu,socket-id=1",
        "pc-dimm,memdev=m",
        "usb-ehci",
    ]
    got = imported("-M", "pc", "-nodefaults", *[w for d in devices for w in ("-device", d)])
    assert [where for _, where in got.unmodelled] == ["", "", "", "", "00:02.0"]


def test_what_is_not_understood_is_passed_over_with_a_remark() -> None:
    got = imported("-M", "pc", "-nodefaults", "-turbo", "on")
    assert got.remarks == ["-turbo on: not understood, passed over"]


def _items(*args: str) -> dict[int | str, bytes]:
    """What firmware is told."""
    spec = derive(imported(*args).spec())
    return {item.key: item.data for item in spec.device("fwcfg").config["items"]}


def test_files_for_the_firmware(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"\0\xff,")
    got = _items("-fw_cfg", "name=opt/x,string=a,,b", "-fw_cfg", f"opt/y/z.w,file={blob}")
    assert (got["opt/x"], got["opt/y/z.w"]) == (b"a,b", b"\0\xff,")
    remarks = imported("-fw_cfg", "opt/q,gen_id=tls").remarks
    assert "-fw_cfg opt/q: what object 'tls' generates is not modelled" in remarks


@pytest.mark.parametrize(
    "args, nodes",
    [
        ("-smp 4 -numa node,memdev=a,cpus=0,cpus=2-3 -numa node,memdev=b,cpus=1", [0, 1, 0, 0]),
        ("-smp 4,sockets=4 -numa node,memdev=a -numa node,memdev=b", [0, 1, 0, 1]),
        ("-smp 2,maxcpus=4,threads=2 -numa node,nodeid=1,memdev=b -numa node,nodeid=0,memdev=a,cpus=2", [0, 0, 0, 0]),
        ("-smp 4,threads=2 -numa node,memdev=a -numa node,memdev=b -numa cpu,node-id=1,core-id=1", [0, 0, 1, 1]),
    ],
)
def test_numa_nodes(args: str, nodes: list[int]) -> None:
    """fw_cfg item 0Dh: the number of nodes, the node of each APIC ID, the memory of each node."""
    objects = [w for n in "ab" for w in ("-object", f"memory-backend-ram,id={n},size={96 if n == 'a' else 32}M")]
    data = _items("-m", "128", *objects, *args.split())[0x0D]
    words = [int.from_bytes(data[n : n + 8], "little") for n in range(0, len(data), 8)]
    assert words[0] == 2 and words[1:5] == nodes and words[-2:] == [96 << 20, 32 << 20]


def test_slots_for_memory_modules() -> None:
    spec = derive(imported("-M", "pc", "-m", "128,slots=3,maxmem=1G").spec())
    pm = spec.device("pm")
    assert pm.at["mem-hotplug"] == 0xA00 and pm.config["memory_slots"] == 3
    assert _items("-m", "128,slots=3,maxmem=1G")["etc/reserved-memory-end"] == (8 << 30).to_bytes(8, "little")
    assert "mem-hotplug" not in derive(imported("-M", "pc").spec()).device("pm").at


def test_what_stays_in_its_slot() -> None:
    for args, root in (
        ((), 0b111), (("-nodefaults",), 0b11), (("-vga", "cirrus"), 0b11), (("-device", "pci-bridge,addr=9"), 0x207)
    ):  # fmt: skip
        pm = derive(imported("-M", "pc", *args).spec()).device("pm")
        assert pm.config["hotplug_buses"][0] == ["", root]
        assert pm.config.get("staying_slots", 0) == (4 if "cirrus" in args else 0)
    q35 = derive(imported("-M", "q35", "-device", "e1000,acpi-index=5").spec()).device("lpc")
    assert q35.config["hotplug_buses"] == [] and "slot_index" not in q35.config
    pc = derive(imported("-M", "pc", "-device", "e1000,acpi-index=5,addr=8").spec()).device("pm")
    assert pc.config["slot_index"] == [["", 8, 5]]


def test_comma_lists() -> None:
    assert options("a,b=c,,d,e") == {"": "a", "b": "c,d", "e": "on"}
    assert options("b=1") == {"b": "1"}


BAD = {
    "another machine": (["-M", "microvm"], "QEMU machine 'microvm' is not modelled"),
    "an option without its argument": (["-m"], "-m has no argument"),
    "no size": (["-m", "lots"], "'lots' is no size"),
    "no number of vCPUs": (["-smp", "many"], "many"),
    "a firmware file without a name": (["-fw_cfg", "string=x"], "-fw_cfg: name, and one of"),
    "a firmware file twice": (["-fw_cfg", "opt/x,string=x,file=y"], "-fw_cfg: name, and one of"),
    "an image that is not there": (["-hda", "/nothing/disk.img"], "drive image /nothing/disk.img: No such file"),
    "an image without a byte": (["-hda", "/dev/null"], "drive image /dev/null: it is empty"),
    "a folder": (["-cdrom", "/"], "drive image /: no file with sectors"),
    "broken JSON": (["-device", "{"], "QEMU command line"),
    "JSON without a driver": (["-device", '{"id": "x"}'], "driver"),
    "no slot": (["-device", "nvme,addr=zz"], "zz"),
    "one place in the boot order twice": (
        ["-device", "e1000,bootindex=1", "-device", "e1000,bootindex=1"],
        "two devices with bootindex 1",
    ),
    "more drives than there are places": (["-M", "q35", *["-device", "ide-hd"] * 2], "no place is left on ide.5"),
    "too many functions": (["-nodefaults", *["-device", "nvme"] * 40], "PCI slot"),
}


@pytest.mark.parametrize("what", BAD)
def test_command_lines_that_cannot_be(what: str) -> None:
    args, wanted = BAD[what]
    with pytest.raises(MachineError) as caught:
        imported(*args)
    assert wanted in str(caught.value) and "\n" not in str(caught.value)


# ---------------------------------------------------------------------- the command


@pytest.mark.parametrize("name", PC)
def test_engine_machine_import_from_a_side_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args, sizes = RECORDED[name]
    side = tmp_path / f"{name}.json"
    side.write_text(json.dumps({"machine_args": args, "files": {n: {"name": n, "bytes": b} for n, b in sizes.items()}}))
    assert main(["machine", "import", "--from", str(side)]) == 0
    said = capsys.readouterr()
    path = tmp_path / "pc.toml"
    path.write_text(said.out)
    assert said.out == from_qemu(["-serial", "null", *args], sizes=sizes).text
    assert main(["machine", "check", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"ok: {path}: i440FX/PIIX3 PC: ")


def test_engine_machine_import_from_a_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = tmp_path / "run.sh"
    line.write_text(
        "# my machine\nqemu-system-x86_64 -nodefaults -vga std \\\n  -m 64 -device virtio-rng-pci -turbo 'very much'\n"
    )
    assert main(["machine", "import", "--from", str(line)]) == 0
    first = capsys.readouterr()
    words = ["-nodefaults", "-vga", "std", "-m", "64", "-device", "virtio-rng-pci", "-turbo"]
    assert main(["machine", "import", "--", *words, "very much"]) == 0
    assert capsys.readouterr() == first
    assert 'ram = "64M"' in first.out
    assert first.err.splitlines() == [
        "not modelled: virtio-rng-pci at 00:03.0",
        "note: -turbo very much: not understood, passed over",
    ]


@pytest.mark.parametrize(
    "text",
    ["{", "{}", '{"machine_args": 5}', '{"machine_args": [1]}', '{"machine_args": [], "files": 3}', "qemu 'open quote"],
)
def test_side_files_that_are_none(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "side.json"
    path.write_text(text)
    assert main(["machine", "import", "--from", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"engine machine: --from {path}: ") and said.count("\n") == 1
    assert "not a" in said or "no list of strings" in said
