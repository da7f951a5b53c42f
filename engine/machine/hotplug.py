"""What can be put into and taken from a machine while it runs: functions on PCI buses, CPUs.

The power management part has the registers by which software hears of it (engine/devices/_hotplug.pyx); a machine with
other devices is another machine that goes on from the state of the first.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine._device import LINE
from engine.machine import Machine
from engine.machine.build import CONFIG_REGION
from engine.machine.derive import each_vcpu
from engine.machine.fw_cfg_items import NB_CPUS, Item
from engine.machine.spec import DeviceSpec, MachineSpec
from engine.registry import device_class


def exchange(machine: Machine, spec: MachineSpec) -> Machine:
    """A started machine of another spec that goes on where this one, now stopped, has been.

    Devices of one id are one device; others are as after switching on, or gone with what they drove.  If the new
    machine cannot start, the old one goes on, and the error is raised.
    """
    saved = machine.save()
    buses = {d.id: machine.call(d.id, "secondary_bus") for d in machine.spec.devices if is_bridge(d)}
    machine.stop()
    try:
        new = Machine(spec, workers=machine.workers or None, path=machine.path, contents=_contents(machine, spec))
        new.start()
        try:
            new.load(_state(new, saved, buses))
            _lower(machine, new, saved)
        except BaseException:
            new.stop()
            raise
        return new
    except BaseException:
        machine.start()
        machine.load(saved)
        raise


def is_bridge(d: DeviceSpec) -> bool:
    """Whether there is a bus behind a device."""
    return hasattr(device_class(d.type), "secondary_bus")


def _contents(machine: Machine, spec: MachineSpec) -> dict[str, Any]:
    known = {d.id for d in spec.devices}
    return {id: what for id, what in machine.contents.items() if id in known}


def _state(new: Machine, saved: Mapping[str, Any], buses: Mapping[str, int]) -> dict[str, Any]:
    """The new machine's state: its own of what is new in it, what was saved of all else."""
    state = new.save()
    now = saved["router"]["now"]
    mapped = [row for row in saved["router"]["mapped"] if row[0] in state["devices"]]
    mapped += [row for row in state["router"]["mapped"] if row[0] not in saved["devices"]]
    for d in new.spec.devices:
        if d.id in saved["devices"]:
            state["devices"][d.id] = saved["devices"][d.id]
            continue
        own = state["devices"][d.id]["state"]
        if own["deadline"] <= now:
            own["deadline"] += now - own["now"]
        own["now"] = now
        if d.bdf is not None and buses.get(d.bus):
            mapped.append((d.id, CONFIG_REGION, (buses[d.bus] << 8 | d.bdf.number) << 32))
    return {**state, "router": {**saved["router"], "mapped": mapped}, "ram": saved["ram"]}


def _lower(old: Machine, new: Machine, saved: Mapping[str, Any]) -> None:
    """What is gone drives nothing any more: who heard a wire that it alone held hears it fall."""
    known = {d.id for d in new.spec.devices}
    devices = old.plan.devices

    def high(rank: int, pin: int) -> bool:
        return bool(saved["devices"][devices[rank].id]["state"]["levels"] >> pin & 1)

    for net in old.plan.nets:
        holding = [devices[rank].id for rank, pin in net.sources if high(rank, pin)]
        if holding and not known & set(holding):
            for rank, pin in (*net.sinks, *net.inner):
                if devices[rank].id in known:
                    new.input(LINE, devices[rank].id, 0, devices[rank].cls.IN[pin])


def power_management(spec: MachineSpec) -> str:
    """Id of the part that has the hot-plug registers; "" if there is none."""
    return next((d.id for d in spec.devices if "pci_plug" in device_class(d.type).IN), "")


def bus_number(spec: MachineSpec, bus: str) -> int:
    """The number of a bus in the hot-plug registers, -1 if functions on it stay.

    bus: id of the bridge that it is behind, "" for the root bus.
    """
    pm = power_management(spec)
    buses = spec.device(pm).config.get("hotplug_buses", ()) if pm else ()
    return next((n for n, (name, _) in enumerate(buses) if name == bus), -1)


def announce(machine: Machine, pin: str, place: int) -> None:
    """Tell software that something has come or is to go.  place: bus << 5 | slot, or the number of a CPU."""
    machine.input(LINE, power_management(machine.spec), 1, pin, place)


def cpu_numbers(spec: MachineSpec) -> set[int]:
    """The vCPUs that are there."""
    return {d.vcpu for d in spec.devices if d.vcpu is not None}


def apic_id(spec: MachineSpec, n: int) -> int:
    """The APIC ID of a vCPU that there is or can be."""
    ids = spec.device(power_management(spec)).config["cpu_ids"]
    return int(ids[n]) if ids else n


def with_cpus(spec: MachineSpec, numbers: set[int]) -> MachineSpec:
    """The same with these vCPUs, of those that there can be: local APICs, and what software is told."""
    pm = power_management(spec)
    apics = {d.vcpu: d for d in spec.devices if d.vcpu is not None}
    first = apics[0]
    chain, before = [first], first
    for n in sorted(numbers - {0}):
        before = replace(
            apics.get(n) or each_vcpu(first, n, apic_id(spec, n)),
            peers={**first.peers, "before": before.id},
        )
        chain.append(before)
    devices = tuple(d for d in spec.devices if d.vcpu is None)
    spec = replace(spec, devices=(*devices, *chain), board=replace(spec.board, cpus=max(numbers) + 1))
    spec = spec.with_config(pm, cpus=1, plugged_cpus=sorted(numbers - {0}))
    for d in devices:
        if d.type == "fw-cfg" and d.config.get("items"):
            count = Item(NB_CPUS, struct.pack("<H", len(numbers)), 2)
            items = tuple(count if item[0] == NB_CPUS else item for item in d.config["items"])
            spec = spec.with_config(d.id, items=items)
    return spec


def store_cmos(machine: Machine, values: Mapping[int, int]) -> None:
    """Put bytes into the CMOS, as the board does."""
    for p in machine.plan.devices:
        if p.spec.type == "mc146818":
            state = machine.call(p.id, "save")
            ram = bytearray(state["ram"])
            for n, value in values.items():
                ram[n] = value
            state["ram"] = type(state["ram"])(ram)
            machine.call(p.id, "restore", state)
