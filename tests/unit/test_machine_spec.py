"""Machine files: what is read, and every mistake answered in one line with file, line and both parties."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import MachineError
from engine.machine import Machine
from engine.machine.build import plan
from engine.machine.derive import derive
from engine.machine.spec import MAX_WORKERS, check_workers, load, load_placement, parse, parse_size, shipped_boards
from engine.types import Bdf

SERIAL = """[[device]]
id = "com1"
type = "uart16550"
at = { serial = 0x3f8 }
lines = { irq = "isa4" }
"""
POST = """[[device]]
id = "post"
type = "post-card"
at = { post = 0x80 }
"""


def refused(text: str, build: bool = False) -> str:
    """The one line with which a machine file is refused."""
    with pytest.raises(MachineError) as caught:
        spec = parse(text, "pc.toml")
        if build:
            plan(derive(spec))
        pytest.fail("the machine file was taken")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------- what is read


def test_a_whole_file() -> None:
    spec = parse(
        """
[board]
name = "tiny"
title = "A serial port"
ram = "2M"
cpus = 2
external = ["isa4"]
observe = ["isa4"]
facts = { uuid = "x" }
[[device]]
id = "com1"
type = "uart16550"
at = { serial = 0x3f8 }
lines = { irq = "isa4" }
config = { keep = 16 }
unit = "io"
[placement]
workers = 2
wait = "spin"
ring = 16
pin = true
sync = ["com1"]
""",
        "pc.toml",
    )
    assert (spec.board.name, spec.board.title, spec.board.ram, spec.board.cpus) == ("tiny", "A serial port", 2 << 20, 2)
    assert spec.board.observe == ("isa4",) and spec.board.facts == {"uuid": "x"}
    com1 = spec.device("com1")
    assert (com1.type, com1.at, com1.lines, com1.config, com1.unit) == (
        "uart16550",
        {"serial": 0x3F8},
        {"irq": "isa4"},
        {"keep": 16},
        "io",
    )
    assert com1.source == "pc.toml:10"
    p = spec.placement
    assert (p.workers, p.wait, p.ring, p.pin, p.sync) == (2, "spin", 16, True, ("com1",))
    with pytest.raises(KeyError):
        spec.device("com2")


def test_a_base_board_is_changed_device_by_device() -> None:
    base = load("i440fx")
    spec = parse(
        """
[board]
base = "i440fx"
ram = "64M"
remove = ["lpt1", "fdc"]
[[device]]
id = "com1"
at = { serial = 0x2f8 }
lines = { irq = "isa3" }
[[device]]
id = "pm"
at = { cpu-hotplug = false }
[[device]]
id = "post"
type = "post-card"
at = { post = 0x84 }
""",
        "pc.toml",
    )
    ids = [d.id for d in spec.devices]
    assert ids == [d.id for d in base.devices if d.id not in ("lpt1", "fdc")] + ["post"]
    assert spec.board.ram == 64 << 20 and spec.board.chipset == base.board.chipset
    assert spec.device("com1").type == "uart16550" and spec.device("com1").at == {"serial": 0x2F8}
    assert spec.device("pm").at == {k: v for k, v in base.device("pm").at.items() if k != "cpu-hotplug"}
    assert spec.device("rtc") == base.device("rtc")


def test_changed_copies_leave_the_original_alone() -> None:
    spec = parse(SERIAL + POST)
    assert spec.with_config("com1", keep=7).device("com1").config == {"keep": 7}
    assert spec.device("com1").config == {}
    assert spec.with_config("nobody", keep=7) == spec
    assert [d.id for d in spec.without("com1").devices] == ["post"]


@pytest.mark.parametrize(
    ("text", "bytes"),
    [("64M", 64 << 20), ("1G", 1 << 30), ("512K", 512 << 10), (4096, 4096), ("4096", 4096), ("2 MiB", 2 << 20)],
)
def test_sizes(text: str | int, bytes: int) -> None:
    assert parse_size(text) == bytes


@pytest.mark.parametrize("text", ["", "M", "1.5G", "-1M", "64X", "1M2"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize("name", shipped_boards())
def test_shipped_boards_can_be_built(name: str) -> None:
    built = Machine.from_file(name).plan
    assert built.devices and built.observed
    assert len({p.rank for p in built.devices}) == len(built.devices)


def test_a_file_is_read_like_its_text(tmp_path: Path) -> None:
    path = tmp_path / "pc.toml"
    path.write_text(SERIAL)
    assert load(path).device("com1").source == f"{path}:1"
    assert load(path).board == parse(SERIAL).board


# ---------------------------------------------------------------------- mistakes of form

FORM = {
    "not TOML": ("[board", ["pc.toml: not TOML: "]),
    "brackets without end": ("x = " + "[" * 100_000, ["pc.toml: not TOML: "]),
    "digits without end": ("x = " + "9" * 5000, ["pc.toml: not TOML: "]),
    "a number of many bits": ("[board]\nram = 0x1" + "0" * 16, ["pc.toml: not TOML: ", "64 bits"]),
    "unknown table": (SERIAL + "[machine]\n", ["pc.toml:6", "unknown table 'machine'", "board, device and placement"]),
    "unknown key of the board": (
        '[board]\nrom = "1M"\n' + SERIAL,
        ["pc.toml:2", "unknown key 'rom' in [board]", "base", "ram"],
    ),
    "unknown key of a device": (
        SERIAL + POST + "irq = 4\n",
        ["pc.toml:10", "unknown key 'irq' in [[device]]", "lines"],
    ),
    "unknown key of the placement": (
        SERIAL + "[placement]\nthreads = 2\n",
        ["pc.toml:7", "unknown key 'threads' in [placement]", "workers"],
    ),
    "unknown key of a worker": (
        SERIAL + '[[placement.worker]]\ndevices = ["com1"]\nnode = 0\n',
        ["pc.toml:6", "unknown key 'node' in [[placement.worker]]", "cpu, devices"],
    ),
    "unknown board": ('[board]\nbase = "i430tx"\n', ["pc.toml:2", "unknown board 'i430tx'", "i440fx"]),
    "a board removes what it does not have": (
        '[board]\nbase = "i440fx"\nremove = ["tpm"]\n',
        ["pc.toml:3", "'tpm'", "does not have"],
    ),
    "remove is no list": (
        '[board]\nbase = "i440fx"\nremove = "lpt1"\n',
        ["pc.toml:3", "remove should be a list of strings"],
    ),
    "the board is no table": ("board = 1\n", ["pc.toml", "board = 1 should be a table"]),
    "no devices": ("[board]\n", ["pc.toml: no devices", 'base = "i440fx"']),
    "devices are no tables": ("device = 3\n", ["device = 3 should be a list"]),
    "RAM without a unit": ('[board]\nram = "lots"\n' + SERIAL, ["pc.toml:2", "ram", "'lots'", "128M"]),
    "too little RAM": ('[board]\nram = "4K"\n' + SERIAL, ["pc.toml:2", "between 1M and 1024G"]),
    "too much RAM": ('[board]\nram = "2048G"\n' + SERIAL, ["pc.toml:2", "between 1M and 1024G"]),
    "RAM of a wrong kind": (
        "[board]\nram = [1]\n" + SERIAL,
        ["pc.toml:2", "ram = [1] should be a string or a whole number"],
    ),
    "no vCPU": ("[board]\ncpus = 0\n" + SERIAL, ["pc.toml:2", "cpus = 0 should lie between 1 and 255"]),
    "too many vCPUs": ("[board]\ncpus = 256\n" + SERIAL, ["pc.toml:2", "cpus = 256"]),
    "vCPUs of a wrong kind": ("[board]\ncpus = true\n" + SERIAL, ["pc.toml:2", "cpus = True should be a whole number"]),
    "observe is no list": (
        '[board]\nobserve = "isa4"\n' + SERIAL,
        ["pc.toml:2", "observe should be a list of strings"],
    ),
    "facts are no table": ("[board]\nfacts = 1\n" + SERIAL, ["pc.toml:2", "facts = 1 should be a table"]),
    "title of a wrong kind": ("[board]\ntitle = 5\n" + SERIAL, ["pc.toml:2", "title = 5 should be a string"]),
    "a choice that is none": ('[board]\nmmio_unclaimed = "fives"\n' + SERIAL, ["pc.toml:2", "'fives'", "ones, zeros"]),
    "configuration by magic": (
        '[board]\nconfig_access = "magic"\n' + SERIAL,
        ["pc.toml:2", "'magic'", "cf8, ecam, none"],
    ),
    "device without id": ('[[device]]\ntype = "uart16550"\n', ["pc.toml:1", "id = None should be a string"]),
    "device without type": ('[[device]]\nid = "x"\n', ["pc.toml:1", "'x' has no type"]),
    "device of a wrong kind": ("[[device]]\nid = 4\ntype = 5\n", ["pc.toml:1", "id = 4 should be a string"]),
    "device twice": (SERIAL + SERIAL, ["pc.toml:6", "device 'com1' stands twice", "first at pc.toml:1"]),
    "no PCI address": (SERIAL + 'bdf = "1:2"\n', ["pc.toml:6", "device 'com1'", "'1:2' is no PCI address", "00:1f.3"]),
    "an address that is text": (
        '[[device]]\nid = "a"\ntype = "port80"\nat = { port80 = "0x80" }\n',
        ["pc.toml:4", "at.port80", "should be a whole number"],
    ),
    "a wire that is a number": (
        '[[device]]\nid = "a"\ntype = "port80"\nlines = { irq = 13 }\n',
        ["pc.toml:4", "lines.irq = 13 should be a string"],
    ),
    "lines are no table": (
        '[[device]]\nid = "a"\ntype = "port80"\nlines = "isa13"\n',
        ["pc.toml:4", "lines = 'isa13' should be a table"],
    ),
    "vCPU of a wrong kind": (SERIAL + 'vcpu = "0"\n', ["pc.toml:6", "vcpu = '0' should be a whole number"]),
    "no worker": (SERIAL + "[placement]\nworkers = 0\n", ["pc.toml:7", "workers = 0 should lie between 1 and 1024"]),
    "too many workers": (
        SERIAL + "[placement]\nworkers = 1025\n",
        ["pc.toml:7", "workers = 1025 should lie between 1 and 1024"],
    ),
    "workers of a wrong kind": (
        SERIAL + '[placement]\nworkers = "2"\n',
        ["pc.toml:7", "workers = '2' should be a whole number"],
    ),
    "wait by what": (SERIAL + '[placement]\nwait = "sleep"\n', ["pc.toml:7", "'sleep'", "spin, adaptive or block"]),
    "a ring of three": (SERIAL + "[placement]\nring = 3\n", ["pc.toml:7", "ring = 3", "power of two"]),
    "a ring by name": (
        SERIAL + '[placement]\nring = "deep"\n',
        ["pc.toml:7", "ring = 'deep' should be a whole number"],
    ),
    "pin by number": (SERIAL + "[placement]\npin = 1\n", ["pc.toml:7", "pin = 1 should be true or false"]),
    "workers and tables differ": (
        SERIAL + '[placement]\nworkers = 3\n[[placement.worker]]\ndevices = ["com1"]\n',
        ["pc.toml:6", "workers = 3", "there are 1 [[placement.worker]]"],
    ),
    "a worker's devices are no list": (
        SERIAL + '[[placement.worker]]\ndevices = "com1"\n',
        ["pc.toml:6", "devices should be a list of strings"],
    ),
    "a device is no table": ("device = [1]\n", ["pc.toml", "device = 1 should be a table"]),
    "a worker is no table": (SERIAL + "[placement]\nworker = [1]\n", ["worker = 1 should be a table"]),
    "an empty name": ('[[device]]\nid = ""\ntype = "port80"\n', ["pc.toml:1", "id = ''", "no name"]),
    "a name with a folder in it": ('[[device]]\nid = "../a"\ntype = "port80"\n', ["pc.toml:1", "no name"]),
    "a name of two lines": ('[[device]]\nid = "a\\nb"\ntype = "port80"\n', ["pc.toml:1", "no name"]),
    "a vCPU before the first": (SERIAL + "vcpu = -1\n", ["pc.toml:6", "'com1'", "vcpu = -1", "0 and 254"]),
    "a vCPU behind the last": (SERIAL + "vcpu = 255\n", ["pc.toml:6", "'com1'", "vcpu = 255", "0 and 254"]),
    "a chipset that is none": ('[board]\nchipset = "i430tx"\n' + SERIAL, ["pc.toml:2", "'i430tx'", "i440fx, q35"]),
    "a worker's CPU is text": (
        SERIAL + '[[placement.worker]]\ndevices = ["com1"]\ncpu = "first"\n',
        ["pc.toml:6", "cpu = 'first' should be a whole number"],
    ),
    "the placement is no table": ("placement = 2\n" + SERIAL, ["placement = 2 should be a table"]),
}


@pytest.mark.parametrize("what", FORM)
def test_mistakes_of_form(what: str) -> None:
    text, wanted = FORM[what]
    said = refused(text)
    for part in wanted:
        assert part in said, said


# ---------------------------------------------------------------------- mistakes of wiring

PCI = '[[device]]\nid = "{0}"\ntype = "{1}"\nbdf = "00:{2}"\n'
FUNCTION = PCI.format("host", "i440fx", "00.0")
LOOP = """[[device]]
id = "hpet"
type = "hpet"
at = { hpet = 0xfed00000 }
inputs = { pit = "pit" }
lines = { pit_disable = "off" }
[[device]]
id = "pit"
type = "i8254"
at = { pit = 0x40 }
inputs = { irq_disable = "off" }
lines = { out0 = "pit" }
"""
UNITED = LOOP.replace('"hpet"\nat', '"hpet"\nunit = "t"\nat').replace('"i8254"\n', '"i8254"\nunit = "t"\n')
BOARD = '[board]\nbase = "i440fx"\n'
CHANGED = BOARD + '[[device]]\nid = "{0}"\nconfig = {{ {1} }}\n'
WIRING = {
    "a type that no module can have": (
        '[[device]]\nid = "a"\ntype = "..:x"\n',
        ["pc.toml:1", "device 'a'", "'..:x' cannot be imported"],
    ),
    "a fact of a wrong kind": (BOARD + "[board.facts]\nboot_order = 3\n", ["pc.toml: the board's facts"]),
    "files of a wrong kind": (BOARD + "[board.facts]\nfiles = 3\n", ["pc.toml: the board's facts"]),
    "no UUID": (BOARD + '[board.facts]\nuuid = "xx"\n', ["pc.toml: the board's facts", "UUID"]),
    "a kernel that is not there": (BOARD + '[board.facts]\nkernel = "/no/vmlinuz"\n', ["/no/vmlinuz: No such file"]),
    "drives that are a number": (CHANGED.format("ide", "drives = 3"), ["pc.toml:3: device 'ide': its drives"]),
    "a drive that is a number": (CHANGED.format("ide", "drives = [3]"), ["pc.toml:3: device 'ide': its drives"]),
    "a drive that is text": (CHANGED.format("fdc", 'drives = "x"'), ["pc.toml:3: device 'fdc': its drives"]),
    "an image that is a number": (CHANGED.format("fdc", "image_a = 3"), ["pc.toml:3: device 'fdc': its drives"]),
    "items that are a number": (CHANGED.format("fwcfg", "items = 3"), ["pc.toml:3: device 'fwcfg': a setting"]),
    "an item of three": (CHANGED.format("fwcfg", "items = [[1, 2, 3]]"), ["pc.toml:3: device 'fwcfg': a setting"]),
    "a negative size": (CHANGED.format("host", "ram_mib = -1"), ["pc.toml:3: device 'host': a setting"]),
    "a setting that is an argument": (CHANGED.format("pit", "rank = 1"), ["pc.toml:3: device 'pit': a setting"]),
    "unknown device": (
        SERIAL + '[[device]]\nid = "nic"\ntype = "ne2000"\n',
        ["pc.toml:6", "device 'nic'", "unknown device type 'ne2000'", "engine devices list"],
    ),
    "unknown setting": (
        SERIAL + "config = { baud = 9600 }\n",
        ["pc.toml:1", "device 'com1'", "unknown setting 'baud'", "backend, keep"],
    ),
    "setting of a wrong kind": (
        SERIAL + 'config = { keep = "all" }\n',
        ["pc.toml:1", "device 'com1'", "keep = 'all' is no int"],
    ),
    "overlap": (
        SERIAL + '[[device]]\nid = "com2"\ntype = "uart16550"\nat = { serial = 0x3fc }\n',
        ["pc.toml:6", "'com2'", "0x3fc-0x403", "overlaps", "'com1'", "0x3f8-0x3ff", "(pc.toml:1)"],
    ),
    "outside the space": (
        '[[device]]\nid = "com1"\ntype = "uart16550"\nat = { serial = 0xfffc }\n',
        ["pc.toml:1", "'com1'", "'serial'", "0xfffc", "PIO", "0x10000"],
    ),
    "before the space": (
        '[[device]]\nid = "com1"\ntype = "uart16550"\nat = { serial = -8 }\n',
        ["pc.toml:1", "'com1'", "leaves the PIO space"],
    ),
    "no such region": (
        '[[device]]\nid = "com1"\ntype = "uart16550"\nat = { uart = 0x3f8 }\n',
        ["pc.toml:1", "no region 'uart'", "it has serial"],
    ),
    "no such output": (SERIAL.replace("irq =", "intr ="), ["pc.toml:1", "no output pin 'intr'", "it has irq"]),
    "no such input": (SERIAL + 'inputs = { cts = "x" }\n', ["pc.toml:1", "no input pin 'cts'", "it has none"]),
    "missing wire": (
        '[[device]]\nid = "p"\ntype = "port80"\nat = { port80 = 0x80 }\ninputs = { ferr = "fpu" }\n',
        ["pc.toml:1", "device 'p'", "nothing drives wire 'fpu'", "'ferr'", "[board] external"],
    ),
    "no such peer": (
        '[[device]]\nid = "fdc"\ntype = "fdc"\npeers = { dma = "dma9" }\n',
        ["pc.toml:1", "'fdc'", "peer dma = 'dma9' is no device"],
    ),
    "a peer in another unit": (
        '[[device]]\nid = "dma"\ntype = "i8237"\n[[device]]\nid = "fdc"\ntype = "fdc"\npeers = { dma = "dma" }\n',
        ["pc.toml:4", "'fdc'", "pulls from its peer 'dma'", "one `unit`"],
    ),
    "wires in a circle": (LOOP, ["wires run in a circle through hpet, pit", "one `unit`"]),
    "two drivers within a unit": (
        UNITED + SERIAL.replace("isa4", "pit"),
        ["pc.toml", "wire 'pit' is driven by pit, com1", "one driver"],
    ),
    "one slot twice": (
        FUNCTION + PCI.format("host2", "i440fx", "00.0"),
        ["pc.toml:5", "'host' and 'host2'", "00:00.0"],
    ),
    "a bdf for what is no function": (
        SERIAL + 'bdf = "00:03.0"\n',
        ["pc.toml:1", "'com1' (uart16550) is no PCI function", "00:03.0"],
    ),
}


@pytest.mark.parametrize("what", WIRING)
def test_mistakes_of_wiring(what: str) -> None:
    text, wanted = WIRING[what]
    said = refused(text, build=True)
    for part in wanted:
        assert part in said, said


def test_a_circle_within_one_unit_is_none() -> None:
    built = plan(parse(UNITED))
    assert built.unit_names == ["t"] and {n.name: (n.sinks, len(n.inner)) for n in built.nets} == {
        "off": ([], 1),
        "pit": ([], 1),
    }


def test_an_external_wire_needs_no_driver() -> None:
    text = '[board]\nexternal = ["fpu"]\n[[device]]\nid = "p"\ntype = "port80"\ninputs = { ferr = "fpu" }\n'
    net = plan(parse(text)).nets[0]
    assert (net.name, net.sources, net.sinks) == ("fpu", [], [(0, 0)])


def test_external_wires_are_added_to_those_of_the_base() -> None:
    text = '[board]\nbase = "i440fx"\nexternal = ["fpu"]\n[[device]]\nid = "port80"\ninputs = { ferr = "fpu" }\n'
    board = parse(text).board
    assert set(board.external) == {*load("i440fx").board.external, "fpu"}
    plan(parse(text))


def test_levels_put_drivers_first() -> None:
    built = plan(load("i440fx"))
    level = {built.devices[r].id: built.unit_level[u] for u, ranks in enumerate(built.units) for r in ranks}
    assert level["pic"] > max(level["com1"], level["pit"], level["piix3"])
    for net in built.nets:
        assert all(net.level > built.unit_level[built.devices[r].unit] for r, _ in net.sources)


# ---------------------------------------------------------------------- files, and numbers of workers


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"nothing\.toml: no such machine file; shipped boards are .*i440fx"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(MachineError, match=r"nothing\.toml: no such placement file"):
        load_placement(tmp_path / "nothing.toml")


@pytest.mark.parametrize("read", [load, load_placement])
def test_a_file_that_cannot_be_read(tmp_path: Path, read: object) -> None:
    assert callable(read)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, binary):
        with pytest.raises(MachineError, match="cannot be read"):
            read(path)


def test_bdf_of_a_device() -> None:
    assert plan(parse(FUNCTION)).devices[0].spec.bdf == Bdf(0, 0, 0)


@pytest.mark.parametrize("n", [0, -1, MAX_WORKERS + 1])
def test_numbers_of_workers_that_cannot_be(n: int) -> None:
    with pytest.raises(MachineError, match=rf"here: workers = {n} should lie between 1 and 1024"):
        check_workers(n, "here")
    with pytest.raises(MachineError, match=rf"workers = {n}"):
        Machine.from_file("i440fx", workers=n, path="sync")


def test_numbers_of_workers_that_can_be() -> None:
    assert check_workers(1, "here") == 1 and check_workers(MAX_WORKERS, "here") == MAX_WORKERS
