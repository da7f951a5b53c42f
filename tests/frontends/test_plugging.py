"""Functions and CPUs that come and go while a machine runs: the machine goes on, on every placement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine import ACC, MachineError
from engine._device import INTACK
from engine.frontends.plugging import Plugging
from engine.frontends.qmp import MODELS, Guest, Monitor
from engine.frontends.qtest import Qtest, observing_all
from engine.machine import Machine, hotplug
from engine.machine.qemu_args import from_qemu

ARGS = ["-machine", "pc", "-m", "16", "-vga", "std", "-smp", "2,maxcpus=4", "-device", "pci-bridge,id=b1,chassis_nr=1"]
PLACES = [("local", 0), ("batched", 2)]


class Client:
    """Both of a client's sockets, without a process."""

    def __init__(self, args: list[str], path: str = "local", workers: int = 0) -> None:
        got = from_qemu(args)
        machine = Machine(observing_all(got.spec()), path=path, workers=workers or None).start()
        self.guest = Guest(machine)
        assert got.importer is not None
        self.guest.plugging = Plugging(got.importer, observing_all, MODELS)
        self.qtest = Qtest(machine, notices=self.guest.notices, between=self.guest.settle)
        self.heard: list[dict[str, Any]] = []
        self.late = b""
        self.guest.clients.append(self)
        self.monitor = Monitor(self.guest, lambda data: self.heard.append(json.loads(data)))
        self.qmp("qmp_capabilities")

    def look(self) -> None:
        self.late += self.qtest.look()

    def moved(self) -> None:
        if self.qtest.machine is not self.guest.machine:
            self.qtest.attach(self.guest.machine)
        self.qtest.moved()

    def ask(self, *lines: str) -> list[str]:
        late, self.late = self.late, b""
        return (late + self.qtest.feed("".join(x + "\n" for x in lines).encode())).decode().splitlines()

    def qmp(self, command: str, **arguments: Any) -> Any:
        request = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self.heard.clear()
        self.monitor.feed(json.dumps(request).encode() + b"\n")
        return next(m for m in self.heard if "event" not in m)

    def events(self) -> list[str]:
        out = [f"{m['event']} {m['data'].get('device', '')}".strip() for m in self.heard if "event" in m]
        self.heard.clear()
        return out

    @property
    def machine(self) -> Machine:
        assert self.guest.machine is not None
        return self.guest.machine


@pytest.fixture(params=PLACES, ids=[p for p, _ in PLACES])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    one = Client(ARGS, *request.param)
    yield one
    one.guest.close()


def config(slot: int, register: int, bus: int = 0) -> str:
    return f"outl 0xcf8 {1 << 31 | bus << 16 | slot << 11 | register:#x}"


def test_everything_else_goes_on(client: Client) -> None:
    """RAM, clock, a running timer, BARs, video memory, CMOS, an open interrupt."""
    client.ask("irq_intercept_in ioapic", "outb 0x43 0x34", "outb 0x40 0", "outb 0x40 0x10", "clock_step 1000")
    client.ask("write 0x1000 3 0x112233", "outb 0x70 0x50", "outb 0x71 0xa7", config(2, 0x10), "outl 0xcfc 0xd0000000")
    client.ask(config(2, 4), "outl 0xcfc 2", "writel 0xd0000100 0xcafe", "outb 0x20 0x11", "outb 0x21 0x40")
    before = client.machine
    there = client.ask("clock_step 0", "outb 0x43 0", "inb 0x40", "inb 0x40")
    assert client.qmp("device_add", driver="e1000e", id="n", addr="6") == {"return": {}}
    assert client.machine is not before
    assert client.ask("clock_step 0", "outb 0x43 0", "inb 0x40", "inb 0x40") == there
    assert client.ask("readl 0x1000", "inb 0x71", "readl 0xd0000100") == [
        "OK 0x0000000000332211", "OK 0x00a7", "OK 0x000000000000cafe"
    ]  # fmt: skip
    assert client.ask(config(6, 0), "inl 0xcfc")[1] == "OK 0x10d38086"
    assert "IRQ raise 0" in client.ask("clock_step 5000000"), "the timer of before, in the machine of after"


def test_what_is_gone_drives_nothing(client: Client) -> None:
    client.qmp("device_add", driver="e1000", id="n", addr="6")
    client.ask(config(1, 0x60), "outl 0xcfc 0x0b0b0b0b", config(6, 0x10), "outl 0xcfc 0xe0000000")
    client.ask(config(6, 4), "outl 0xcfc 6", "irq_intercept_in ioapic", "writel 0xe00000d0 4")
    assert client.ask("writel 0xe00000c8 4") == ["IRQ raise 11", "OK"]
    assert client.qmp("device_del", id="n") == {"return": {}}
    assert client.ask("outl 0xae08 0x40") == ["IRQ lower 11", "OK"]
    assert client.events() == ["DEVICE_DELETED n"]
    assert client.ask(config(6, 0), "inl 0xcfc", "readl 0xe00000c8")[1:] == ["OK 0xffffffff", "OK 0x0000000000000000"]
    assert client.qmp("device_add", driver="e1000", id="n", addr="6") == {"return": {}}, (
        "the name and the slot are free"
    )


def test_a_function_behind_a_bridge_that_has_its_bus_number(client: Client) -> None:
    slot = next(d.bdf.device for d in client.machine.spec.devices if d.id == "b1" and d.bdf)
    client.ask(config(slot, 0x18), "outl 0xcfc 0x00030300")
    assert client.ask(config(7, 0, 3), "inl 0xcfc")[1] == "OK 0xffffffff"
    client.qmp("device_add", driver="e1000", id="n", bus="b1", addr="7")
    assert client.ask(config(7, 0, 3), "inl 0xcfc")[1] == "OK 0x100e8086"
    client.ask(config(slot, 0x18), "outl 0xcfc 0x00040400")
    assert client.ask(config(7, 0, 3), "inl 0xcfc", config(7, 0, 4), "inl 0xcfc")[1::2] == [
        "OK 0xffffffff", "OK 0x100e8086"
    ]  # fmt: skip


def test_a_cpu_that_comes_has_a_local_apic(client: Client) -> None:
    place = {"socket_id": 0, "core_id": 3, "thread_id": 0}
    assert client.qmp("device_add", driver="qemu64-x86_64-cpu", id="c", **place) == {"return": {}}
    m = client.machine
    assert sorted(hotplug.cpu_numbers(m.spec)) == [0, 1, 3] and m.spec.device("lapic3").peers["before"] == "lapic1"
    rows = np.zeros(3, ACC)
    for n, (vcpu, addr, write, value) in enumerate(
        [(3, 0xFEE000F0, 1, 0x1FF), (0, 0xFEE00310, 1, 3 << 24), (0, 0xFEE00300, 1, 0x4041)]
    ):
        rows[n] = (m.clock.now, addr, value, vcpu, 4, 1, write, 0, 0)
    m.submit(rows)
    assert [m.input(INTACK, f"lapic{n}") for n in (0, 1, 3)] == [-1, -1, 0x41]
    client.qmp("device_add", driver="qemu64-x86_64-cpu", id="d", socket_id=0, core_id=2, thread_id=0)
    assert client.machine.spec.device("lapic3").peers["before"] == "lapic2"
    assert client.machine.call("lapic3", "inspect")["isr"][2] == 2, "still in service"
    client.ask("outl 0xaf00 0", "outl 0xaf00 3", "outb 0xaf04 8")
    assert client.events() == ["DEVICE_DELETED", "DEVICE_DELETED c"]
    assert sorted(hotplug.cpu_numbers(client.machine.spec)) == [0, 1, 2]


def test_a_function_without_a_name_leaves_when_the_guest_says_so() -> None:
    client = Client(["-machine", "pc", "-m", "16"])
    assert client.ask(config(3, 0), "inl 0xcfc")[1] == "OK 0x100e8086"
    assert client.qmp("device_del", id="e1000-3.0")["error"]["class"] == "DeviceNotFound"
    client.ask("outl 0xae08 0x8")
    assert client.events() == ["DEVICE_DELETED"]
    assert client.ask(config(3, 0), "inl 0xcfc")[1] == "OK 0xffffffff"
    client.guest.close()


def test_a_machine_that_cannot_be_made_leaves_the_old_one_as_it_was(client: Client) -> None:
    client.ask("clock_step 5000", "write 0x2000 1 0x77")
    machine = client.machine
    spec = machine.spec.with_config("rtc", base="nonsense")
    with pytest.raises(MachineError):
        hotplug.exchange(machine, spec)
    assert machine.clock.now == 5000
    client.qtest.attach(machine)
    assert client.ask("readb 0x2000", "clock_step 0") == ["OK 0x0000000000000077", "OK 5000"]


def test_machines_that_no_command_line_made_say_so() -> None:
    with Machine.from_file("i440fx") as machine:
        heard: list[Any] = []
        monitor = Monitor(Guest(machine), lambda data: heard.append(json.loads(data)))
        for line in ('{"execute": "qmp_capabilities"}', '{"execute": "device_del", "arguments": {"id": "x"}}'):
            monitor.feed(line.encode())
        assert "neither come nor go" in heard[-1]["error"]["desc"]
