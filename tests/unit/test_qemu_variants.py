"""Machines of QEMU command lines beside the plain ones: what -machine switches off, added controllers, ports, slots."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from engine.errors import MachineError
from engine.machine import Machine
from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.fw_cfg_items import Item
from engine.machine.qemu_args import Imported, from_qemu

BARE = ["-nodefaults", "-vga", "std"]


def imported(*args: str, **sizes: int) -> Imported:
    return from_qemu([*BARE, *args], sizes=sizes)


def files_of(*args: str) -> dict[str, Item]:
    """The files that firmware finds on a machine of this command line."""
    items = derive(imported(*args).spec()).device("fwcfg").config["items"]
    return {i.key: i for i in items if isinstance(i.key, str)}


def bytes_of(name: str, *args: str) -> bytes:
    data = files_of(*args)[name].data
    assert data is not None
    return data


def ids(got: Imported) -> set[str]:
    return {d.id for d in got.spec().devices}


@pytest.mark.parametrize(
    "name,board",
    [
        ("pc", "i440fx"),
        ("pc-i440fx-7.2", "i440fx"),
        ("q35", "q35"),
        ("pc-q35-7.2", "q35"),
        ("pc-q35-4.2", "q35"),
    ],
)
def test_a_versioned_name_has_its_chipset_in_it(name: str, board: str) -> None:
    assert from_qemu(["-M", name]).spec().board.name == board


@pytest.mark.parametrize("board", ["pc", "q35"])
@pytest.mark.parametrize("how", [["-no-hpet"], ["-machine", "hpet=off"]])
def test_without_hpet_the_timers_drive_their_lines_themselves(board: str, how: list[str]) -> None:
    got = imported("-M", board, *how).spec()
    assert all(d.type != "hpet" for d in got.devices)
    assert got.device("pit").lines["out0"] == "isa0" and got.device("rtc").lines["irq"] == "isa8"
    with Machine.from_spec(got) as machine:
        for port, value in ((0x43, 0x34), (0x40, 100), (0x40, 0)):
            machine.write("pio", port, 1, value)
        machine.clock.step(1_000_000)
        assert 0 in machine.lines()["line"]


@pytest.mark.parametrize(
    "args,gone",
    [
        (["-M", "pc", "-no-acpi"], "pm"),
        (["-M", "pc,acpi=off"], "pm"),
        (["-M", "q35,sata=off"], "ahci"),
        (["-M", "q35,smbus=off"], "smbus"),
        (["-M", "pc,i8042=off"], "kbc"),
    ],
)
def test_parts_that_are_switched_off(args: list[str], gone: str) -> None:
    plain = ids(imported("-M", args[1].partition(",")[0]))
    assert plain - ids(imported(*args)) == {gone}


def test_the_board_of_q35_keeps_its_power_management_without_acpi_tables() -> None:
    got = imported("-M", "q35", "-no-acpi").spec()
    assert got.device("lpc") and got.board.facts["acpi"] is False


def test_without_system_management_mode() -> None:
    assert imported("-M", "pc,smm=off").spec().device("pm").config["smm"] is False
    q35 = imported("-M", "q35,smm=off").spec()
    assert q35.device("lpc").config["smm"] is False and q35.device("mch").config["smm"] is False


@pytest.mark.parametrize("how", [["-usb"], ["-machine", "usb=on"]])
def test_usb_controllers_are_named_where_they_stand(how: list[str]) -> None:
    assert imported("-M", "pc", *how).unmodelled == [("piix3-usb-uhci", "00:01.2")]
    got = imported("-M", "q35", *how, "-device", "e1000,romfile=")
    assert [where for _, where in got.unmodelled] == ["00:1d.7", "00:1d.0", "00:1d.1", "00:1d.2"]
    assert [str(d.bdf) for d in got.spec().devices if d.type == "e1000"] == ["00:02.0"]


def test_the_default_cdrom_drive_is_the_third_of_the_board() -> None:
    """Index 2: the second channel's first drive, or port 2 of the AHCI controller."""
    for board, id, channel in (("pc", "ide", 1), ("q35", "ahci", 2)):
        drives = from_qemu(["-M", board]).spec().device(id).config["drives"]
        assert drives == [{"channel": channel, "unit": 0, "kind": "cdrom"}]


def test_a_floppy_of_which_only_the_size_is_known() -> None:
    spec = imported("-M", "pc", "-drive", "if=floppy,file={fd}", fd=1474560).spec()
    assert spec.device("fdc").config == {"drives": 1, "size_a": 1474560}
    cmos = derive(spec).device("rtc").config["cmos"]
    assert cmos["16"] == 0x40  # 1.44 MB
    odd = derive(imported("-M", "pc", "-drive", "if=floppy,file={fd}", fd=1296384).spec())
    assert odd.device("rtc").config["cmos"]["16"] == 0x50  # of no known format: the 2.88 MB drive
    by_device = imported("-M", "pc", "-drive", "if=none,id=f,file={fd}", "-device", "floppy,drive=f,unit=1", fd=1474560)
    assert by_device.spec().device("fdc").config == {"drives": 2, "size_b": 1474560}


def test_an_added_ahci_controller_has_drives_of_its_own() -> None:
    null = "if=none,id={},driver=null-co,size=1M"
    drives = [x for name in "ab" for x in ("-drive", null.replace("{}", name))]
    got = imported(
        *["-M", "pc", "-device", "ahci,id=sata", "-device", "ahci", *drives],
        *["-device", "ide-hd,bus=sata.1,drive=a", "-device", "ide-hd,bus=ide.2,drive=b"],
    )
    spec = got.spec()
    assert got.unmodelled == [] and not spec.device("ide").config.get("drives")
    sata = spec.device("sata")
    assert (sata.type, str(sata.bdf), sata.config["multifunction"]) == ("ich9-ahci", "00:03.0", False)
    assert [d["channel"] for d in sata.config["drives"]] == [1]
    other = spec.device("ich9-ahci-4.0")
    assert [d["channel"] for d in other.config["drives"]] == [0]
    assert derive(spec).device("rtc").config["cmos"]["18"] == 0  # no disk of the board's
    with Machine.from_spec(spec) as machine:
        machine.write("pio", 0xCF8, 4, 0x80001800)
        assert machine.read("pio", 0xCFC, 4) == 0x29228086


def test_drives_of_a_controller_that_is_not_modelled_are_passed_over() -> None:
    got = imported("-M", "pc", "-device", "lsi,id=s", "-device", "ide-cd,bus=s.0")
    assert got.unmodelled == [("lsi", "00:03.0")] and not got.spec().device("ide").config.get("drives")


def test_what_is_behind_a_bridge_that_is_not_modelled_is_not_either() -> None:
    got = imported("-M", "q35", "-device", "pcie-pci-bridge,id=b", "-device", "e1000,bus=b,id=n", "-device", "edu")
    assert got.unmodelled == [("pcie-pci-bridge", "00:02.0"), ("e1000", "")]
    assert "n" not in ids(got) and str(got.spec().device("edu-3.0").bdf) == "00:03.0"
    with pytest.raises(MachineError, match="no bridge named before"):
        imported("-M", "q35", "-device", "e1000,bus=nowhere")


@pytest.mark.parametrize(
    "args,want",
    [
        ([], {}),
        (["-serial", "null"], {"com1": (0x3F8, "isa4")}),
        (["-serial", "none", "-serial", "null"], {"com2": (0x2F8, "isa3")}),
        (["-serial", "null", "-serial", "null", "-parallel", "null"],
         {"com1": (0x3F8, "isa4"), "com2": (0x2F8, "isa3"), "lpt1": (0x378, "isa7")}),
        (["-serial", "null", "-device", "isa-serial"], {"com1": (0x3F8, "isa4"), "com2": (0x2F8, "isa3")}),
        (["-device", "isa-serial,iobase=0x200,irq=10"], {"com-200": (0x200, "isa10")}),
        (["-device", "isa-parallel,index=2"], {"lpt3": (0x3BC, "isa7")}),
    ],
)  # fmt: skip
def test_serial_and_parallel_ports(args: list[str], want: dict[str, Any]) -> None:
    devices = imported("-M", "pc", *args).spec().devices
    got = {d.id: (*d.at.values(), d.lines["irq"]) for d in devices if d.type in ("uart16550", "parallel")}
    assert got == want


@pytest.mark.parametrize(
    "args,where",
    [
        (["-nodefaults", "-device", "VGA,addr=5"], "00:05.0"),
        (["-nodefaults", "-device", "e1000,romfile=", "-device", "VGA"], "00:03.0"),
        (["-net", "none", "-device", "VGA"], "00:02.0"),
    ],
)
def test_a_vga_given_as_a_device(args: list[str], where: str) -> None:
    got = from_qemu(["-M", "pc", *args]).spec()
    assert [str(d.bdf) for d in got.devices if d.type == "vga"] == [where]


@pytest.mark.parametrize(
    "text,cpus,facts",
    [
        ("4", 4, {}),
        ("2,maxcpus=8", 2, {"max_cpus": 8}),
        ("cores=2,threads=2", 4, {"cores": 2, "threads": 2}),
        ("cpus=2,sockets=2,dies=2,cores=1,maxcpus=4", 2, {"sockets": 2, "dies": 2, "cores": 1, "max_cpus": 4}),
    ],
)
def test_processors(text: str, cpus: int, facts: dict[str, int]) -> None:
    board = imported("-smp", text).spec().board
    assert board.cpus == cpus and board.facts == facts


def test_firmware_configuration_files_are_there_with_their_size() -> None:
    got = imported("-fw_cfg", "name=opt/org.test/a,string=hello", "-fw_cfg", "name=opt/b,file={b}", b=70).spec()
    assert got.board.facts["files"] == {"opt/org.test/a": "hello", "opt/b": 70}
    sizes = {i.key: i.size for i in derive(got).device("fwcfg").config["items"]}
    assert (sizes["opt/org.test/a"], sizes["opt/b"]) == (5, 70)


def test_a_function_says_whether_it_is_one_of_several() -> None:
    got = imported("-M", "pc", "-device", "e1000,addr=4.0,multifunction=on,id=n", "-device", "edu,addr=4.1").spec()
    with Machine.from_spec(got) as machine:
        for where, want in ((0x80002000, 0x80), (0x80002100, 0)):
            machine.write("pio", 0xCF8, 4, where | 0xC)
            assert machine.read("pio", 0xCFE, 1) == want


@pytest.mark.parametrize(
    "args",
    [
        ["-device", "VGA,vgamem_mb=8,edid=off,xres=1024,addr=7"],
        ["-device", "VGA,addr=7", "-global", "VGA.vgamem_mb=8", "-global", "VGA.edid=off", "-global", "VGA.xres=1024"],
        ["-vga", "std", "-global", "VGA.vgamem_mb=8", "-global", "VGA.edid=off", "-global", "VGA.xres=1024"],
    ],
)
def test_properties_of_the_vga(args: list[str]) -> None:
    vga = from_qemu(["-nodefaults", *args]).spec().device("vga")
    assert vga.config == {"vgamem_mb": 8, "edid": False, "xres": 1024}
    assert vga.bdf is not None and vga.bdf.number >> 3 == (2 if "-vga" in args else 7)


@pytest.mark.parametrize(("version", "edid", "events", "dma"), [("7.2", True, 3, True), ("5.1", True, 1, True),
                         ("4.1", True, 1, True), ("4.0", False, 1, True), ("2.4", False, 1, False)])  # fmt: skip
def test_properties_of_devices_of_older_machine_types(version: str, edid: bool, events: int, dma: bool) -> None:
    """hw/core/machine.c of the reference: hw_compat_5_1, _4_0 and _2_4."""
    plan_ = plan(derive(imported("-M", f"pc-i440fx-{version}", "-device", "pvpanic").spec()))
    config = {p.spec.type: p.spec.config for p in plan_.devices}
    assert config["vga"].get("edid", True) == edid and config["pvpanic"].get("events", 3) == events
    assert config["fw-cfg"].get("dma_enabled", True) == dma
    mine = imported("-M", f"pc-i440fx-{version}", "-global", "VGA.edid=on", "-device", "pvpanic,events=2").spec()
    assert mine.device("vga").config["edid"] is True and mine.device("pvpanic").config["events"] == 2


@pytest.mark.parametrize(
    ("args", "smbase"),
    [
        (("-M", "q35"), True),
        (("-M", "pc-q35-5.0"), True),
        (("-M", "pc-q35-4.2"), False),
        (("-M", "pc-q35-4.2", "-global", "mch.smbase-smram=on"), True),
        (("-M", "q35", "-global", "mch.smbase-smram=off"), False),
    ],
)
def test_machine_types_up_to_4_2_have_no_smram_at_the_power_on_smbase(args: tuple[str, ...], smbase: bool) -> None:
    assert imported(*args).spec().device("mch").config.get("smbase", True) is smbase


def test_a_floppy_controller_on_a_board_without_one() -> None:
    """`-device isa-fdc` on q35, in one unit with the DMA controller; CMOS and LPC_EN know it."""
    args = ["-M", "q35", "-drive", "if=none,id=f,file={floppy}", "-device", "isa-fdc,id=c", "-device", "floppy,drive=f"]
    bare, got = imported("-M", "q35"), imported(*args, floppy=1440 << 10)
    assert "fdc" in ids(got) - ids(bare) and got.unmodelled == [] and got.remarks == []
    with Machine.from_spec(got.spec()) as machine:
        machine.write("pio", 0x70, 1, 0x10)
        assert machine.read("pio", 0x71) == 0x40  # one drive of 3.5 inches and 1.44 MB
        assert machine.read("pio", 0x3F4) == 0x80
        machine.write("pio", 0xCF8, 4, 0x8000F882)
        assert machine.read("pio", 0xCFE, 2) & 0x0008


def test_settings_of_bridges() -> None:
    port = "pcie-root-port,io-reserve=4k,pref64-reserve=1G,bus-reserve=0x10"
    spec = imported(
        "-M", "q35", "-device", port, "-device", "ioh3420,hotplug=off", "-device", "pci-bridge,mem-reserve=1M"
    ).spec()
    config = {d.type: d.config for d in spec.devices}
    assert (
        config["pcie-root-port"].items() >= {"io_reserve": 4096, "pref64_reserve": 1 << 30, "bus_reserve": 16}.items()
    )
    assert config["ioh3420"]["hotplug"] is False and config["pci-bridge"]["mem_reserve"] == 1 << 20
    for version, native in (("6.0", True), ("6.1", False), ("6.2", True)):
        spec = imported("-M", f"pc-q35-{version}", "-device", "pcie-root-port").spec()
        assert next(d for d in spec.devices if d.type == "pcie-root-port").config.get("native_hotplug", True) == native


def test_modules_of_a_multiboot_kernel_are_no_file() -> None:
    got = imported("-kernel", "{k}", "-initrd", "{i} console=hvc0,{i}", k=1 << 20, i=1 << 20)
    assert got.remarks == ["-initrd: modules of a multiboot kernel are not modelled"]
    with Machine.from_spec(got.spec()) as machine:
        assert machine.read("pio", 0x3F6, 1) == 0


@pytest.mark.parametrize(
    ("machine", "ram", "low"),
    [
        ("pc", "2G", 2 << 30), ("pc,max-ram-below-4g=1G", "2G", 1 << 30), ("pc,max-ram-below-4g=1G", "512M", 512 << 20),
        ("pc,max-ram-below-4g=3800M", "3700M", 3700 << 20), ("pc,max-ram-below-4g=3800M", "4G", 3 << 30),
        ("q35,max-ram-below-4g=1G", "2G", 1 << 30), ("q35,max-ram-below-4g=3G", "3G", 2 << 30),
    ],
)  # fmt: skip
def test_ram_below_four_gigabytes(machine: str, ram: str, low: int) -> None:
    """hw/i386/pc_piix.c and pc_q35.c of the reference."""
    assert derive(imported("-M", machine, "-m", ram).spec()).board.low_ram == low


def test_small_switches() -> None:
    assert imported("-M", "pc,graphics=off").spec().board.facts["nographic"] is True
    assert "pit" not in ids(imported("-M", "pc,pit=off")) and "pit" in ids(imported("-M", "pc"))
    port = imported("-device", "isa-debugcon,iobase=0x402,readback=0x77").spec().device("debugcon")
    assert (port.at, port.config) == ({"debugcon": 0x402}, {"readback": 0x77})
    got = imported("-smbios", "type=1,manufacturer=Acme,,Inc,serial=7", "-smbios", "type=8,port_type=1")
    assert got.spec().board.facts["system"] == {"manufacturer": "Acme,Inc", "serial": "7"}
    assert got.remarks == ["-smbios type=8,port_type=1: not understood, passed over"]
    items = {i.key: i.data for i in derive(got.spec()).device("fwcfg").config["items"]}
    assert b"Acme,Inc\0" in (items["etc/smbios/smbios-tables"] or b"")


def test_files_of_machine_types_up_to_2_5_are_ordered_by_kind() -> None:
    """What the recorded firmware reads on pc-i440fx-2.5 and pc-q35-2.8 of QEMU 7.2.22; no SMI features before 2.9."""

    def directory(machine: str) -> list[str]:
        spec = imported("-M", machine, "-device", "pvpanic", "-fw_cfg", "name=opt/x,string=y").spec()
        with Machine.from_spec(spec) as machine_:
            machine_.write("pio", 0x510, 2, 0x19)
            raw = bytes(machine_.read("pio", 0x511, 1) for _ in range(4 + 64 * 20))
        return [
            raw[12 + at : 68 + at].rstrip(b"\0").decode() for at in range(0, 64 * int.from_bytes(raw[:4], "big"), 64)
        ]

    assert directory("pc-i440fx-2.5") == directory("pc-q35-2.5") == [
        "etc/boot-fail-wait", "etc/smbios/smbios-tables", "etc/smbios/smbios-anchor", "etc/e820",
        "genroms/kvmvapic.bin", "etc/system-states", "opt/x", "etc/pvpanic-port", "etc/acpi/tables",
        "etc/table-loader", "etc/tpm/log", "etc/acpi/rsdp", "bootorder",
    ]  # fmt: skip
    new, old = directory("pc-q35-2.9"), directory("pc-q35-2.8")
    assert new == sorted(new) and set(new) - set(old) == {
        f"etc/smi/{n}-features" for n in ("requested", "supported")
    } | {"etc/smi/features-ok"}


@pytest.mark.parametrize(
    ("rtc", "of_host"),
    [
        ([], True),
        (["-rtc", "clock=vm"], True),
        (["-rtc", "base=utc,clock=vm"], True),
        (["-rtc", "base=2024-01-01"], True),
        (["-rtc", "base=2024-01-01,clock=host"], True),
        (["-rtc", "base=2024-01-01,clock=vm"], False),
        (["-rtc", "base=2024-01-01", "-rtc", "clock=vm"], False),
    ],
)
def test_the_time_of_day_is_the_hosts_unless_the_line_ties_it_to_the_virtual_clock(
    rtc: list[str], of_host: bool
) -> None:
    config = from_qemu(["-M", "pc", *rtc]).spec().device("rtc").config
    assert config.get("host_time", False) == of_host


@pytest.mark.parametrize("board", ["pc", "q35"])
def test_without_8259s_their_ports_are_nobodys(board: str) -> None:
    with Machine.from_spec(imported("-M", f"{board},pic=off").spec()) as machine:
        for port in (0x20, 0x21, 0xA0, 0xA1, 0x4D0):
            machine.write("pio", port, 1, 0x5A)
            assert machine.read("pio", port) == 0xFF


@pytest.mark.parametrize(
    ("version", "options", "settings"),
    [
        ("7.2", "", {}),
        ("7.2", ",msi=off", {"msi": False}),
        ("7.2", ",msi=auto,shpc=on", {"shpc": True}),
        ("2.9", "", {"shpc": False}),
        ("2.9", ",shpc=on", {"shpc": True}),
        ("2.8", "", {"shpc": True}),
    ],
)
def test_a_bridges_hot_plug_controller_and_messages(version: str, options: str, settings: dict[str, bool]) -> None:
    spec = imported("-M", f"pc-i440fx-{version}", "-device", f"pci-bridge,id=b,chassis_nr=1{options}").spec()
    config = spec.device("b").config
    assert {k: config[k] for k in ("shpc", "msi") if k in config} == settings


@pytest.mark.parametrize(
    ("cpu", "signature", "features", "reserved"),
    [
        ("Haswell", 0x306C4, 0x078BFBFD, False),
        ("Haswell-noTSX-IBRS", 0x306C1, 0x078BFBFD, False),
        ("Icelake-Server-v3,+pku", 0x80660, 0x078BFBFD, False),
        ("Skylake-Client-noTSX-IBRS", 0x506E3, 0x078BFBFD, False),
        ("EPYC-Rome-v2", 0x830F10, 0x078BFBFD, True),
        ("Dhyana", 0x900F01, 0x078BFBFD, False),
        ("athlon", 0x623, 0x0783FBFD, False),
        ("max", 0x60FB1, 0x0FCBFBFD, True),
    ],
)
def test_firmware_is_told_of_the_processor(cpu: str, signature: int, features: int, reserved: bool) -> None:
    """SMBIOS 7.5, processor ID; e820 keeps AMD's HyperTransport range free.  Values: QEMU 7.2 under TCG."""
    line = ("-M", "pc", "-cpu", cpu)
    assert struct.pack("<II", signature, features) in bytes_of("etc/smbios/smbios-tables", *line)
    assert (struct.pack("<Q", 0xFD00000000) in bytes_of("etc/e820", *line)) == reserved


def test_older_machine_types_have_another_qemu64_and_no_other_haswell() -> None:
    old = bytes_of("etc/smbios/smbios-tables", "-M", "pc-i440fx-6.0")
    other = bytes_of("etc/smbios/smbios-tables", "-M", "pc-i440fx-6.0", "-cpu", "Haswell")
    assert struct.pack("<I", 0x663) in old and struct.pack("<I", 0x306C4) in other


def test_a_processor_without_a_local_apic() -> None:
    got = imported("-M", "q35", "-cpu", "486").spec()
    assert all(d.type != "lapic" for d in got.devices)
    assert "genroms/kvmvapic.bin" not in files_of("-M", "q35", "-cpu", "486")
    with Machine.from_spec(got) as machine:
        assert machine.read("mmio", 0xFEE00030, 4) == 0


def test_a_processor_that_is_not_known_is_named() -> None:
    got = imported("-M", "pc", "-cpu", "host")
    assert got.remarks == ["-cpu host: not known; what firmware is told is that of qemu64"]


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (["-M", "pc,nvdimm=on", "-m", "256,slots=2,maxmem=1G"], {"etc/acpi/nvdimm-mem": 4096}),
        (["-device", "pxb,id=p,bus_nr=4"], {"etc/extra-pci-roots": 8}),
        (["-M", "q35", "-device", "pxb-pcie,id=p,bus_nr=64"], {"etc/extra-pci-roots": 8}),
        (["-device", "isa-vga"], {"vgaroms/vgabios.bin": 39424}),
        (["-device", "ramfb"], {"vgaroms/vgabios-ramfb.bin": 29184, "etc/ramfb": 28}),
        (["-device", "vmgenid"], {"etc/vmgenid_guid": 4096, "etc/vmgenid_addr": 8}),
        (["-device", "vmcoreinfo"], {"etc/vmcoreinfo": 16}),
    ],
)
def test_devices_that_are_not_modelled_have_their_files(options: list[str], files: dict[str, int]) -> None:
    machine = [] if "-M" in options else ["-M", "pc"]
    without = files_of("-M", "q35" if "q35" in options else "pc", *(options[2:4] if "-m" in options else []))
    have = files_of(*machine, *options)
    assert {name: have[name].size for name in have.keys() - without.keys()} == files
    assert {name for name in files if have[name].writable} == {
        n for n in files if n in ("etc/ramfb", "etc/vmgenid_addr", "etc/vmcoreinfo")
    }


@pytest.mark.parametrize(
    ("version", "rsdp", "vga"), [("2.3", 20, "VGA"), ("2.2", 36, "VGA"), ("2.1", 36, "cirrus-vga")]
)
def test_machine_types_up_to_2_2(version: str, rsdp: int, vga: str) -> None:
    assert files_of("-M", f"pc-i440fx-{version}")["etc/acpi/rsdp"].size == rsdp
    got = from_qemu(["-M", f"pc-i440fx-{version}"])
    assert ("vga" in ids(got)) == (vga == "VGA")
    assert (("cirrus-vga", "00:02.0") in got.unmodelled) == (vga == "cirrus-vga")


@pytest.mark.parametrize(
    ("options", "kind", "formatted", "strings"),
    [
        ("type=0,vendor=me,date=01/02/2003,release=3.14,uefi=on", 0,
         "01 00 00e8 02 00 0800000000000000 00 1c 03 0e ff ff", b"me\x0001/02/2003\x00"),
        ("type=2,product=x", 2, "01 02 03 00 00 01 00 0003 0a 00", b"QEMU\0x\0pc-i440fx-7.2\0"),
        ("type=3,sku=s,manufacturer=a", 3, "01 01 02 00 00 03 03 03 02 00000000 00 00 00 00 03",
         b"a\0pc-i440fx-7.2\0s\0"),
        ("type=4,sock_pfx=S,version=v,max-speed=3000,part=p,processor-id=0x123456789", 4,
         "01 03 01 02 89674523 01000000 03 00 0000 b80b d007 41 01 ffff ffff ffff 00 00 04 01 01 01 0200 0100",
         b"S 0\0QEMU\0v\0p\0"),
        ("type=11,value=one,,two,value=three", 11, "02", b"one,two\0three\0"),
        ("type=17,speed=1000,bank=b,serial=9", 17,
         "0010 feff ffff ffff 8000 09 00 01 02 07 0200 e803 03 04 00 00 00 00000000 e803 0000 0000 0000",
         b"DIMM 0\0b\0QEMU\x009\0"),
    ],
)  # fmt: skip
def test_what_smbios_says_is_given(options: str, kind: int, formatted: str, strings: bytes) -> None:
    """DSP0134: type, length and two bytes of handle, the formatted area, the strings, a zero byte."""
    table = bytes_of("etc/smbios/smbios-tables", "-M", "pc", "-smbios", options)
    found: dict[int, tuple[bytes, bytes]] = {}
    while table:
        length = table[1]
        end = table.index(b"\0\0", length) + 2
        found.setdefault(table[0], (table[4:length], table[length:end]))
        table = table[end:]
    assert found[kind] == (bytes.fromhex(formatted), strings + b"\0")
    assert set(found) == {1, 3, 4, 16, 17, 19, 32, 127} | {kind}


def test_options_of_one_smbios_type_add_up() -> None:
    got = imported(
        "-M",
        "pc",
        *(x for o in ("type=1,serial=7", "type=1,sku=k", "type=3,asset=a", "type=3,sku=s") for x in ("-smbios", o)),
    )
    facts = got.spec().board.facts
    assert (facts["system"], facts["smbios"]) == ({"serial": "7", "sku": "k"}, {"3": {"asset": "a", "sku": "s"}})


@pytest.mark.parametrize(
    "options", ["type=0,release=x", "type=0,release=1", "type=17,speed=fast", "type=4,max-speed=70000"]
)
def test_smbios_numbers_that_are_none_are_refused(options: str) -> None:
    with pytest.raises(MachineError):
        derive(imported("-M", "pc", "-smbios", options).spec())
