"""What QMP's device_add and device_del do: PCI functions and CPUs that come and go while the machine runs.

A function's place and settings are worked out as for -device on the command line (engine.machine.qemu_args); the
machine is exchanged for one that has it (engine.machine.hotplug), and its power management part tells the guest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engine.errors import EngineError
from engine.machine import Machine, hotplug
from engine.machine.fw_cfg_items import Facts, place
from engine.machine.qemu_args import PCI_DEVICES, Importer
from engine.machine.spec import MachineSpec

CMOS_CPUS = 0x5F
CPU_TYPE = "-x86_64-cpu"


class Refused(Exception):
    """A request that cannot be done; the text is the reference's.  found: whether there is such a device."""

    def __init__(self, text: str, found: bool = True) -> None:
        super().__init__(text)
        self.found = found


class Plugging:
    """What can come and go in one machine.

    importer: the command line it is from.  prepare: makes of a spec what the machine was started with.  models: what
    the reference calls our types.
    """

    def __init__(
        self, importer: Importer, prepare: Callable[[MachineSpec], MachineSpec], models: Mapping[str, str]
    ) -> None:
        self.importer, self.prepare, self.models = importer, prepare, models
        self.ids = importer.ids  # by which the host knows functions
        self.cpu_ids: dict[int, str] = {}  # of CPUs that came later
        self.leaving: set[str] = set()

    def _exchange(self, machine: Machine, spec: MachineSpec) -> Machine:
        try:
            return hotplug.exchange(machine, self.prepare(spec))
        except EngineError as e:
            raise Refused(str(e)) from None

    # ------------------------------------------------------------------ what comes

    def add(self, machine: Machine, arguments: Mapping[str, Any]) -> Machine:
        """device_add: the machine that goes on.  Raises Refused."""
        options = {k: _text(v) for k, v in arguments.items() if k != "driver"} | {"": str(arguments["driver"])}
        driver, id = options[""], options.get("id", "")
        if driver.endswith(CPU_TYPE):
            return self._add_cpu(machine, options)
        if driver not in PCI_DEVICES:
            raise Refused(
                "Parameter 'driver' expects a pluggable device type"
                if driver in self.models.values()
                else f"'{driver}' is not a valid device model name"
            )
        bus = "" if options.get("bus", "") in ("", self.importer.root_bus) else options["bus"]
        if bus and not any(d.id == bus and hotplug.is_bridge(d) for d in machine.spec.devices):
            raise Refused(f"Bus '{bus}' not found")
        number = hotplug.bus_number(machine.spec, bus)
        if number < 0:
            raise Refused(f"Bus '{bus or self.importer.root_bus}' does not support hotplugging")
        self._free(id)
        try:
            d = self.importer.plugged(options, machine.spec, bus)
        except (EngineError, ValueError) as e:
            raise Refused(str(e)) from None
        assert d.bdf is not None
        new = self._exchange(machine, replace(machine.spec, devices=(*machine.spec.devices, d)))
        if id:
            self.ids.add(id)
        if bus and hasattr(new.plan.devices[new.plan.rank(bus)].cls, "power_slot"):
            new.call(bus, "power_slot")
        hotplug.announce(new, "pci_plug", number << 5 | d.bdf.device)
        return new

    def _free(self, id: str) -> None:
        if id and (id in self.ids or id in self.cpu_ids.values()):
            raise Refused(f"Duplicate device ID '{id}'")

    # ------------------------------------------------------------------ what goes

    def ask(self, machine: Machine, path: str) -> None:
        """device_del: ask the guest to let a device go.  Raises Refused."""
        id = path.rpartition("/")[2]
        d = next((d for d in machine.spec.devices if d.id == id and id in self.ids and d.bdf is not None), None)
        cpu = next((n for n, name in self.cpu_ids.items() if name == id), None)
        if id in self.leaving:
            raise Refused(f"Device {id} is already in the process of unplug")
        if cpu is not None:
            hotplug.announce(machine, "cpu_unplug", cpu)
        elif d is not None and d.bdf is not None:
            number = hotplug.bus_number(machine.spec, d.bus)
            if number < 0:
                raise Refused(f"Bus '{d.bus or self.importer.root_bus}' does not support hotplugging")
            hotplug.announce(machine, "pci_unplug", number << 5 | d.bdf.device)
        else:
            raise Refused(f"Device '{path}' not found", found=False)
        self.leaving.add(id)

    def let_go(self, machine: Machine) -> tuple[Machine, list[dict[str, str]]]:
        """The guest has let something go: the machine without it, and DEVICE_DELETED's data for what has left."""
        pm = hotplug.power_management(machine.spec)
        buses = [name for name, _ in machine.spec.device(pm).config["hotplug_buses"]]
        devices, cpus = machine.spec.devices, hotplug.cpu_numbers(machine.spec)
        left: list[dict[str, str]] = []
        names: set[str] = set()
        for kind, *where in machine.call(pm, "taken"):
            if kind == "cpu":
                cpus -= {where[0]}
                name = self.cpu_ids.pop(where[0], "")
                path = f"/machine/peripheral/{name}" if name else f"/machine/unattached/device[{where[0]}]"
                left += [{"path": f"{path}/lapic"}, {"device": name, "path": path} if name else {"path": path}]
                names.add(name)
                continue
            bus, slot = buses[where[0]], where[1]
            here = {d.id for d in devices if d.bdf is not None and d.bus == bus and d.bdf.device == slot}
            devices = tuple(d for d in devices if d.id not in here)
            for id in sorted(here):
                known = {"device": id, "path": f"/machine/peripheral/{id}"}
                left.append(known if id in self.ids else {"path": "/machine/unattached"})
            names |= here
        if not left:
            return machine, left
        self.leaving -= names
        self.ids -= names
        return self._with(machine, replace(machine.spec, devices=devices), cpus), left

    # ------------------------------------------------------------------ CPUs

    def _with(self, machine: Machine, spec: MachineSpec, cpus: set[int]) -> Machine:
        """The machine that goes on with this spec and these vCPUs."""
        changed = cpus != hotplug.cpu_numbers(machine.spec)
        new = self._exchange(machine, hotplug.with_cpus(spec, cpus) if changed else spec)
        if changed:
            hotplug.store_cmos(new, {CMOS_CPUS: len(cpus) - 1})
        return new

    def places(self, machine: Machine) -> list[dict[str, Any]]:
        """query-hotpluggable-cpus: each CPU that there is or can be, the last first."""
        facts, there = _facts(machine), hotplug.cpu_numbers(machine.spec)
        out = []
        for n in reversed(range(facts.max_cpus or facts.cpus)):
            name = f"peripheral/{self.cpu_ids[n]}" if self.cpu_ids.get(n) else f"unattached/device[{n}]"
            path = {"qom-path": f"/machine/{name}"} if n in there else {}
            props = {k: v for k, v in place(facts, n).items() if k != "die-id" or facts.dies > 1}
            out.append({"props": props, "vcpus-count": 1, **path, "type": self.importer.cpu_type})
        return out

    def _add_cpu(self, machine: Machine, options: Mapping[str, str]) -> Machine:
        facts = _facts(machine)
        if options[""] != self.importer.cpu_type:
            raise Refused(f"Invalid CPU type, expected cpu type: '{self.importer.cpu_type}'")
        self._free(options.get("id", ""))
        last = place(facts, (facts.max_cpus or facts.cpus) - 1)
        if facts.dies == 1:
            last.pop("die-id")
        wanted = {}
        for name in last:
            if name not in options:
                raise Refused(f"CPU {name} is not set")
            wanted[name] = int(options[name], 0)
            if not 0 <= wanted[name] <= last[name]:
                raise Refused(f"Invalid CPU {name}: {wanted[name]} must be in range 0:{last[name]}")
        n = next(n for n in range(facts.max_cpus or facts.cpus) if place(facts, n) == {"die-id": 0, **wanted})
        there = hotplug.cpu_numbers(machine.spec)
        if n in there:
            raise Refused(f"CPU[{n}] with APIC ID {hotplug.apic_id(machine.spec, n)} exists")
        new = self._with(machine, machine.spec, there | {n})
        self.cpu_ids[n] = options.get("id", "")
        hotplug.announce(new, "cpu_plug", n)
        return new


def _text(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _facts(machine: Machine) -> Facts:
    """What of a machine's facts concerns its CPUs."""
    facts, power = machine.spec.board.facts, machine.spec.device(hotplug.power_management(machine.spec)).config
    given = {k: facts[k] for k in ("sockets", "dies", "cores", "threads") if k in facts}
    return Facts(cpus=1, max_cpus=power["max_cpus"], **given)
