"""The qtest protocol and QMP: malformed input first, then the protocol, then whole programs against QEMU's answers."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).parent))

from programs import PAUSE, PROGRAMS, RESET, SETTLE, recorded, run

from engine.errors import MachineError, StateError
from engine.frontends.migration import HEAD, MAGIC, Arrival
from engine.frontends.qmp import Guest, Monitor
from engine.frontends.qtest import MAX_BYTES, Malformed, Qtest, number, observing_all
from engine.machine import Machine
from engine.machine.memory import Memory
from engine.machine.qemu_args import from_qemu
from engine.testing.qtest_client import Gone, QtestClient

ROOT = Path(__file__).parents[2]
TRANSCRIPTS = recorded()


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """engine-system-x86_64 of this tree, whether it is installed or not."""
    script = tmp_path_factory.mktemp("bin") / "engine-system-x86_64"
    code = "import sys; from engine.cli.serve import launcher; sys.exit(launcher())"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
    script.chmod(0o755)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return str(script)


@pytest.fixture(scope="session")
def qemu() -> tuple[str, dict[str, str]]:
    """(program, environment) of a QEMU with a qtest accelerator."""
    from qemu_qtest import NoReference, reference

    try:
        return reference()
    except NoReference as e:
        pytest.skip(str(e))


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A small PC with RAM from 0 and a VGA adapter."""
    spec = from_qemu(["-machine", "pc", "-m", "16", "-nodefaults", "-vga", "std"]).spec()
    with Machine(observing_all(spec)) as m:
        yield m


@pytest.fixture
def qtest(machine: Machine) -> Qtest:
    return Qtest(machine, rom=bytes(range(256)) * 1024)


def ask(q: Qtest, *lines: str) -> list[str]:
    """Answers and line changes."""
    return q.feed("".join(line + "\n" for line in lines).encode()).decode().splitlines()


# ---------------------------------------------------------------------- malformed requests

MALFORMED = [
    "",
    " ",
    "outb",
    "outb 0x70",
    "outb 0x70 zz",
    "outb 0x70 0x",
    "outb  0x70 1",
    "inb",
    "inb 08",
    "inb 0x1_0",
    "inb 0b1",
    "inb 1e3",
    "inb ٣",
    "inb 0x10000",
    "outl 65536 0",
    "inb 0xffffffffffffffffff",
    "inb\t0x70",
    "inb 0x70\r",
    "INB 0x70",
    "readb",
    "readb 0x",
    "readq 18446744073709551616",
    "writeb 0 ",
    "read 0",
    "read 0 0",
    "read 0 -1",
    f"read 0 {MAX_BYTES + 1}",
    "b64read 0 -1",
    "write 0 4",
    "write 0 4 0xgg",
    "write 0 4 0x1g",
    f"write 0 {1 << 40} 0x00",
    "b64write 0 4 AAA",
    "b64write 0 4 A\xc3==",
    "memset 0 4",
    "memset 0 4 x",
    f"memset 0 {1 << 62} 0",
    "clock_step x",
    "clock_step 9223372036854775808",
    "clock_step 1.5",
    "clock_set",
    "clock_set never",
    "irq_intercept_in",
    "irq_intercept_in nobody",
    "irq_intercept_out /machine/unattached/device[3]",
    "set_irq_in",
    "set_irq_in ioapic",
    "set_irq_in ioapic unnamed-gpio-in 24 1",
    "set_irq_in ioapic unnamed-gpio-in -1 1",
    "set_irq_in ioapic name 0 1",
    "set_irq_in ioapic unnamed-gpio-in 0 high",
    "set_irq_in nobody unnamed-gpio-in 0 1",
    "module_load",
    "rtas a",
    "\x00",
    "\xff\xfe inb",
    "inb" + " 1" * 1000,
    "x" * 10000,
]


@pytest.mark.parametrize("line", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_request_is_answered_and_nothing_else_is_disturbed(qtest: Qtest, line: str) -> None:
    answer = ask(qtest, "outb 0x70 0x0a", line, "inb 0x71", "clock_step 0")
    if line.startswith("inb 1 1"):  # words after the last one are passed over
        assert answer[1] == "OK 0x0000"
    else:
        assert answer[1].startswith("FAIL") and len(answer[1]) < 200 and answer[1].isprintable(), answer
    assert answer[0] == "OK" and answer[2:] == ["OK 0x0026", "OK 0"]


def test_too_little_data_is_answered_as_qemu_does(qtest: Qtest) -> None:
    assert ask(qtest, "write 0 1 0", "b64write 0 1 A") == ["ERR invalid argument size"] * 2


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                lambda verb, words: b" ".join([verb, *words]),
                st.sampled_from(
                    [
                        b"inb",
                        b"inw",
                        b"outb",
                        b"outl",
                        b"readl",
                        b"writeq",
                        b"read",
                        b"write",
                        b"b64read",
                        b"b64write",
                        b"memset",
                        b"clock_step",
                        b"clock_set",
                        b"irq_intercept_in",
                        b"set_irq_in",
                        b"endianness",
                    ]
                ),
                st.lists(
                    st.sampled_from(
                        [
                            b"0",
                            b"1",
                            b"0x70",
                            b"0xcf8",
                            b"0xcfc",
                            b"-1",
                            b"0xa0000",
                            b"4096",
                            b"0xfed00000",
                            b"ioapic",
                            b"unnamed-gpio-in",
                            b"0xffffffffffffffff",
                            b"0x80000000",
                            b"AAAA",
                            b"1000000",
                            b"",
                            b"?",
                        ]
                    ),
                    max_size=4,
                ),
            ),
        ),
        max_size=12,
    )
)
def test_any_bytes_get_one_answer_a_line(lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    q = Qtest(SHARED())
    out = q.feed(b"".join(line + b"\n" for line in lines))
    while q.held:
        out += q.feed(b"")
    answers = [a for a in out.split(b"\n")[:-1] if not a.startswith(b"IRQ ")]
    assert len(answers) == len(lines)
    assert all(a.startswith((b"OK", b"FAIL", b"ERR")) for a in answers)


_shared: list[Machine] = []


def SHARED() -> Machine:
    """One machine for all examples of a property."""
    if not _shared:
        _shared.append(Machine(observing_all(from_qemu(["-machine", "pc", "-m", "2"]).spec())).start())
    return _shared[0]


def test_a_request_without_end_is_given_up(qtest: Qtest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.frontends.qtest.MAX_LINE", 1000)
    assert qtest.feed(b"write 0 1000 0x" + b"0" * 500) == b""
    assert qtest.feed(b"0" * 500) == b"FAIL request too long\n"
    assert ask(qtest, "endianness") == ["OK little"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("00", 0),
        ("017", 15),
        ("17", 17),
        ("0x1F", 31),
        ("0Xff", 255),
        ("-1", (1 << 64) - 1),
        ("+5", 5),
        ("-0x10", (1 << 64) - 16),
        ("18446744073709551615", (1 << 64) - 1),
    ],
)
def test_numbers_are_in_c_notation(text: str, value: int) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "0x", "08", "1_0", "0b1", "0o7", " 1", "1 ", "--1", "1.0", "18446744073709551616", "٣"]
)
def test_other_notations_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        number(text)


# ---------------------------------------------------------------------- the protocol


def test_accesses_in_one_block_answer_as_one_by_one(machine: Machine) -> None:
    lines = ["irq_intercept_in ioapic", "outb 0x43 0x30", "outb 0x40 1", "outb 0x40 0"]
    lines += [
        "outb 0x70 0x0b",
        "inb 0x71",
        "writel 0x1000 5",
        "readl 0x1000",
        "clock_step 1000",
        "outb 0x43 0xe2",
        "inb 0x40",
        "readl 0xa0000",
        "inw 0xffff",
        "foo",
    ] * 20
    whole = ask(Qtest(machine), *lines)
    machine.reset()
    spec = machine.spec
    with Machine(spec) as again:
        q = Qtest(again)
        one_by_one = [answer for line in lines for answer in ask(q, line)]
    assert [w for w in whole if not w.startswith("OK ")] == [w for w in one_by_one if not w.startswith("OK ")]
    assert whole == one_by_one
    assert "IRQ raise 0" in whole


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 50])
def test_a_stream_may_be_cut_anywhere(machine: Machine, cut: int) -> None:
    data = b"outb 0x70 0x0a\ninb 0x71\nwrite 0x10 4 0x01020304\nread 0x10 4\nclock_step 5\n"
    q = Qtest(machine)
    got = b"".join(q.feed(data[at : at + cut]) for at in range(0, len(data), cut))
    assert got == b"OK\nOK 0x0026\nOK\nOK 0x01020304\nOK 5\n"


def test_an_interrupt_line_stands_before_the_answer_of_the_access_that_moved_it(qtest: Qtest) -> None:
    assert ask(qtest, "irq_intercept_in ioapic")[-1] == "OK"
    got = ask(
        qtest,
        "inb 0x71",
        "set_irq_in ioapic unnamed-gpio-in 5 1",
        "outb 0x60 0xed",
        "clock_step 1000000",
        "inb 0x60",
        "inb 0x71",
    )
    assert got.index("IRQ raise 5") < got.index("OK")
    assert ask(qtest, "set_irq_in ioapic unnamed-gpio-in 5 1", "set_irq_in ioapic unnamed-gpio-in 5 0") == [
        "OK",
        "IRQ lower 5",
        "OK",
    ]


def test_one_device_is_intercepted_and_only_one(qtest: Qtest) -> None:
    assert ask(qtest, "irq_intercept_in ioapic", "irq_intercept_in ioapic", "irq_intercept_in pic") == [
        "OK",
        "OK",
        "FAIL IRQ intercept already enabled",
    ]


def test_outputs_of_any_device_can_be_intercepted(qtest: Qtest) -> None:
    assert ask(qtest, "irq_intercept_out pit", "outb 0x43 0x30") == ["OK", "OK"]
    assert ask(qtest, "outb 0x40 10", "outb 0x40 0", "clock_step 20000") == ["OK", "OK", "IRQ raise 0", "OK 20000"]


def test_ram_that_a_device_fills_is_seen_by_the_next_request(machine: Machine) -> None:
    """fw_cfg DMA: the write of the address and the look at the result are in one block."""
    q = Qtest(machine)
    descriptor = (
        (0 << 16 | 0x0A).to_bytes(4, "big") + (4).to_bytes(4, "big") + (0x2000).to_bytes(8, "big")
    )  # select item 0 and read
    address = int.from_bytes((0x1000).to_bytes(4, "big"), "little")
    got = ask(
        q,
        f"write 0x1000 16 0x{descriptor.hex()}",
        "memset 0x2000 4 0",
        f"outl 0x518 {address:#x}",
        "read 0x2000 4",
        "readl 0x1000",
    )
    assert got == ["OK", "OK", "OK", "OK 0x51454d55", "OK 0x0000000000000000"]


def test_time_moves_only_when_told_and_never_back(qtest: Qtest) -> None:
    assert ask(
        qtest, "clock_step 0", "inb 0x71", "clock_step 0", "clock_step 7", "clock_step -9", "clock_set 3", "clock_set 9"
    ) == ["OK 0", "OK 0x0000", "OK 0", "OK 7", "OK 7", "OK 7", "OK 9"]


def test_a_step_to_the_next_event_ends_at_it(qtest: Qtest) -> None:
    ask(qtest, "irq_intercept_in ioapic", "outb 0x43 0x30", "outb 0x40 100", "outb 0x40 0")
    got = ask(qtest, *["clock_step"] * 3)
    raised = int(got[got.index("IRQ raise 0") + 1].split()[1])
    assert 0 <= raised - 100 * 10**9 // 1193182 <= 10**9 // 1193182 + 1


@pytest.mark.parametrize("path", ["sync", "buffered", "batched"])
def test_worker_processes_give_the_same_answers(path: str) -> None:
    _, requests = PROGRAMS["timer"]
    requests = (
        [r for r in requests if r not in (RESET, SETTLE)]
        + PROGRAMS["fdc"][1]
        + [
            "readl 0xa0000",
            "outl 0xcf8 0x80000058",
            "outb 0xcfd 0x30",
            "readl 0xf0000",
            "writel 0xf0000 7",
            "readl 0xf0000",
        ]
    )
    spec = observing_all(from_qemu(["-machine", "pc", "-nodefaults", "-m", "16", "-drive", "if=floppy"]).spec())
    with Machine(spec) as alone, Machine(spec, workers=2, path=path) as spread:
        assert ask(Qtest(spread), *requests) == ask(Qtest(alone), *requests)


# ---------------------------------------------------------------------- memory


def test_ram_that_is_only_to_be_read_is_not_written(qtest: Qtest) -> None:
    """PAM with RE and without WE: 82441FX, 290549-001, 3.2.18."""
    pam = "outl 0xcf8 0x80000058"
    assert (
        ask(
            qtest,
            pam,
            "outb 0xcfd 0x30",
            "writel 0xf0000 0x11223344",
            "outb 0xcfd 0x10",
            "writel 0xf0000 0x55667788",
            "readl 0xf0000",
        )[-1]
        == "OK 0x0000000011223344"
    )


def test_tseg_reads_as_ones_and_takes_no_writes() -> None:
    """Q35, T_EN and G_SMRAME: the last MiB of RAM, outside system management mode."""
    enable = ["outl 0xcf8 0x8000009c", "outb 0xcfd 0x08", "outb 0xcfe 0x39"]  # SMRAM: G_SMRAME; ESMRAMC: 1 MiB, T_EN
    with Machine(observing_all(from_qemu(["-machine", "q35", "-m", "16", "-nodefaults"]).spec())) as m:
        q = Qtest(m)
        assert ask(q, "writel 0xefffff 0x11223344", "readl 0xefffff")[-1] == "OK 0x0000000011223344"
        assert ask(q, *enable, "readl 0xefffff", "writel 0xefffff 0", "readl 0xefffff", "readb 0xeffffe") == [
            *["OK"] * 3, "OK 0x00000000ffffff44", "OK", "OK 0x00000000ffffff00", "OK 0x0000000000000000"]  # fmt: skip
        m.reset()
        q.moved()
        assert ask(q, "readl 0xefffff") == ["OK 0x0000000011223300"]


def test_the_firmware_is_at_both_its_places_and_is_not_written(qtest: Qtest) -> None:
    assert ask(
        qtest,
        "read 0xfffc0000 4",
        "read 0xffffffff 1",
        "read 0xe0000 4",
        "read 0xffffc 4",
        "writel 0xffff0 0",
        "read 0xffff0 4",
        "writel 0xfffffff0 0",
        "read 0xfffffff0 4",
    ) == ["OK 0x00010203", "OK 0xff", "OK 0x00010203", "OK 0xfcfdfeff", "OK", "OK 0xf0f1f2f3", "OK", "OK 0xf0f1f2f3"]


def test_every_address_is_in_one_piece(machine: Machine) -> None:
    for rom in (b"", bytes(65536), bytes(1 << 20)):
        memory = Memory(machine, rom)
        edges = {
            0,
            0xA0000,
            0xC0000,
            0xF0000,
            0x100000,
            len(machine.ram),
            (1 << 32) - len(rom),
            1 << 32,
            1 << 52,
            (1 << 64) - 1,
        }
        for addr in sorted(edges):
            for start in (addr - 9, addr - 1, addr):
                pieces = list(memory.pieces(start, 64))
                assert sum(n for _, _, n, _ in pieces) == 64
                at = start
                for _, where, n, _ in pieces:
                    assert where == at % (1 << 64) and n > 0
                    at += n


def test_a_long_transfer_over_devices_is_the_same_as_its_bytes(qtest: Qtest) -> None:
    ask(qtest, "outb 0x3c4 4", "outb 0x3c5 6", "outb 0x3ce 6", "outb 0x3cf 5", "outb 0x3c4 2", "outb 0x3c5 0xf")
    data = np.random.default_rng(1).bytes(3001)
    assert ask(qtest, f"write 0xa0003 {len(data)} 0x{data.hex()}") == ["OK"]
    whole = ask(qtest, "read 0xa0003 3001")[0]
    assert whole == "OK 0x" + "".join(a[-2:] for a in ask(qtest, *[f"readb {0xA0003 + i:#x}" for i in range(3001)]))


# ---------------------------------------------------------------------- QMP


class _Out(list[bytes]):
    def messages(self) -> list[dict[str, object]]:
        out = [json.loads(line) for line in b"".join(self).split(b"\r\n") if line]
        self.clear()
        return out


def monitor(machine: Machine | None = None, **options: object) -> tuple[Guest, Monitor, _Out]:
    guest, out = Guest(machine, **options), _Out()  # type: ignore[arg-type]
    m = Monitor(guest, out.append)
    m.feed(b'{"execute": "qmp_capabilities"}')
    out.clear()
    return guest, m, out


BAD_JSON = [
    b"{]\n",
    b"nonsense\n",
    b'{"execute": }\n',
    b"[1, 2\x00]\n",
    b'{"a": "\xff\xfe"}\n',
    b"[" * 100000 + b"\n",
    b"12\n",
    b"[]\n",
    b'"x"\n',
    b"{}\n",
    b'{"execute": 5}\n',
    b'{"execute": "query-status", "arguments": []}\n',
    b'{"execute": "query-status", "extra": 1}\n',
    b'{"execute": "no-such-command"}\n',
    b'{"execute": "qmp_capabilities"}\n',
    b'{"execute": "qom-get"}\n',
    b'{"execute": "qom-get", "arguments": {"path": 5, "property": "x"}}\n',
    b'{"execute": "device_add", "arguments": {"driver": "nonsense"}}\n',
    b'{"execute": "device_del", "arguments": {"id": "x"}}\n',
    b'{"execute": "eject", "arguments": {"id": "floppy7"}}\n',
    b'{"execute": "qom-list", "arguments": {"path": "/nowhere"}}\n',
]


@pytest.mark.parametrize("data", BAD_JSON, ids=range(len(BAD_JSON)))
def test_a_malformed_command_is_an_error_and_the_next_one_works(data: bytes) -> None:
    _, m, out = monitor()
    m.feed(data)
    m.feed(b'{"execute": "query-status", "id": 7}\n')
    *errors, last = out.messages()
    assert errors and all(
        set(e) == {"error"} and e["error"]["class"] in ("GenericError", "CommandNotFound", "DeviceNotFound")
        for e in errors
    )  # type: ignore[index]
    assert last == {"return": {"status": "running", "singlestep": False, "running": True}, "id": 7}


def test_commands_may_come_in_pieces_or_together() -> None:
    _, m, out = monitor()
    for byte in b'{"execute":\n "query-name" , "id": "a}{\\""}{"execute":"query-kvm"}\n':
        m.feed(bytes([byte]))
    assert out.messages() == [{"return": {}, "id": 'a}{"'}, {"return": {"enabled": False, "present": False}}]


def test_nothing_but_capabilities_before_negotiation() -> None:
    guest, out = Guest(None), _Out()
    m = Monitor(guest, out.append)
    greeting = out.messages()
    assert list(greeting[0]) == ["QMP"]
    guest.event("STOP")
    m.feed(b'{"execute": "query-status"}')
    assert [e["error"]["class"] for e in out.messages()] == ["CommandNotFound"]  # type: ignore[index]


def test_what_qos_test_asks_for() -> None:
    _, m, out = monitor()
    m.feed(
        b'{"execute": "query-machines"}'
        b'{"execute": "qom-list-types", "arguments": {"implements": "device", "abstract": true}}'
    )
    machines, types = (a["return"] for a in out.messages())
    assert {"name": "pc-i440fx-7.2", "alias": "pc"}.items() <= machines[1].items()  # type: ignore[index]
    assert all(
        {"name", "cpu-max", "hotpluggable-cpus", "numa-mem-supported", "deprecated"} <= set(row) for row in machines
    )  # type: ignore[attr-defined]
    names = {t["name"]: t for t in types}  # type: ignore[attr-defined]
    assert (
        names["mc146818rtc"] == {"name": "mc146818rtc", "parent": "isa-device"}
        and names["piix3-ide"]["parent"] == "pci-device"
    )
    assert names["device"]["abstract"] is True


def test_a_stopped_machine_says_so(machine: Machine) -> None:
    guest, m, out = monitor(machine, running=False)
    m.feed(
        b'{"execute": "query-status"}{"execute": "cont"}{"execute": "stop"}{"execute": "stop"}'
        b'{"execute": "query-status"}{"execute": "quit"}'
    )
    got = out.messages()
    assert [
        g.get("event", g.get("return", {}).get("status") if isinstance(g.get("return"), dict) else None) for g in got
    ] == [  # type: ignore[attr-defined]
        "prelaunch",
        "RESUME",
        None,
        "STOP",
        None,
        None,
        "paused",
        "SHUTDOWN",
        None,
    ]
    assert guest.status == 0


# ---------------------------------------------------------------------- the program


def test_both_sockets_are_served_on_their_own(launcher: str) -> None:
    with QtestClient(launcher) as guest:
        assert guest.command("endianness") == "OK little"  # before the greeting has been read
        assert guest.negotiate()["QMP"]["version"]["qemu"]["major"] == 7
        guest.send(b"clock_st")
        assert guest.execute("query-status")["return"]["running"] is True
        guest.send(b"ep 5\n")
        assert guest.line() == "OK 5"
        assert guest.execute("no-such-command")["error"]["class"] == "CommandNotFound"
        assert guest.close() == 0


def test_resets_are_told(launcher: str) -> None:
    with QtestClient(launcher) as guest:
        guest.negotiate()
        assert guest.execute("system_reset") == {"return": {}}
        assert guest.event("RESET")["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
        guest.transcript(["outb 0xcf9 2", "outb 0xcf9 6"])
        assert guest.event("RESET")["data"] == {"guest": True, "reason": "guest-reset"}


def test_no_reboot_ends_at_the_first_reset(launcher: str) -> None:
    with QtestClient(launcher, ["-no-reboot"]) as guest:
        guest.negotiate()
        guest.send(b"outb 0xcf9 2\noutb 0xcf9 6\n")
        assert guest.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-reset"}
        assert guest.process.wait(10) == 0


def test_quit_ends_it(launcher: str) -> None:
    with QtestClient(launcher) as guest:
        guest.negotiate()
        assert guest.execute("quit") == {"return": {}} and guest.process.wait(10) == 0


@pytest.mark.parametrize("when", ["at once", "in a long step"])
def test_sigterm_ends_it_with_0(launcher: str, when: str) -> None:
    with QtestClient(launcher) as guest:
        if when != "at once":
            guest.send(b"clock_step 9223372036854775807\n")
        guest.process.send_signal(signal.SIGTERM)
        assert guest.process.wait(10) == 0


def test_a_client_that_goes_away_ends_it(launcher: str) -> None:
    with QtestClient(launcher) as guest:
        guest.send(b"read 0 1000000\n" * 20)  # and does not read what it asked for
        guest.qtest.close()
        guest.qmp.close()
        assert guest.process.wait(10) == 0, guest.said()


def test_a_client_that_does_not_read_does_not_stop_the_other(launcher: str) -> None:
    with QtestClient(launcher) as guest:
        guest.negotiate()
        guest.send(b"read 0 4000000\n" * 8)
        assert guest.execute("query-status")["return"]["running"] is True
        assert all(len(guest.line()) == 8000005 for _ in range(8))


def test_a_client_that_asks_for_more_than_memory_holds_disturbs_nobody(launcher: str) -> None:
    with QtestClient(launcher) as guest:
        guest.negotiate()
        guest.send(b"read 0 0x1000000\n" * 5000)  # 160 GB of answers
        assert guest.execute("query-status")["return"]["running"] is True
        status = Path(f"/proc/{guest.process.pid}/status").read_text()
        assert int(status.partition("VmHWM:")[2].split()[0]) < 1 << 20  # KiB
        assert len(guest.line()) == (1 << 25) + 5


def test_much_to_send_through_standard_output(launcher: str) -> None:
    done = subprocess.run(
        [launcher, "-machine", "pc", "-nodefaults", "-qtest", "stdio"],
        input="read 0 1000000\n" * 8 + "endianness\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [len(line) for line in done.stdout.splitlines()] == [2000005] * 8 + [len("OK little")]


def test_standard_input_is_a_client(launcher: str) -> None:
    done = subprocess.run(
        [launcher, "-machine", "pc", "-nodefaults", "-qtest", "stdio"],
        input="inb 0x70\nclock_step 3\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK 0x00ff\nOK 3\n", "")


def test_a_listening_server_takes_client_after_client(launcher: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with subprocess.Popen(
        [launcher, "-machine", "pc", "-nodefaults", "-qtest", f"unix:{path},server=on,wait=off"]
    ) as process:
        for _ in range(300):
            if path.exists():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
        for n in range(2):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(10)
                s.connect(str(path))
                s.sendall(b"clock_step 5\n")
                assert s.recv(100) == b"OK %d\n" % (5 * n + 5)
        process.terminate()
        assert process.wait(10) == 0 and not path.exists()


BAD_LINES = {
    "nothing to serve": ["-machine", "pc"],
    "no such machine": ["-machine", "vax", "-qtest", "stdio"],
    "no such socket": ["-qtest", "unix:/nonexistent/s"],
    "no such chardev": ["-qtest", "stdio", "-mon", "chardev=x,mode=control"],
    "odd qtest": ["-qtest", "tcp:1.2.3.4:5"],
    "no argument": ["-qtest"],
    "no such image": ["-qtest", "stdio", "-drive", "if=ide,file=/nonexistent/disk"],
    "no such firmware": ["-qtest", "stdio", "-bios", "/nonexistent/bios"],
    "no uuid": ["-qtest", "stdio", "-uuid", "xyz"],
    "odd size": ["-qtest", "stdio", "-m", "lots"],
    "two on stdio": ["-qtest", "stdio", "-qmp", "stdio"],
    "no such action": ["-qtest", "stdio", "-watchdog-action", "explode"],
    "nothing to act on": ["-qtest", "stdio", "-action", "weather=fine"],
}


@pytest.mark.parametrize("args", BAD_LINES.values(), ids=BAD_LINES)
def test_a_command_line_that_cannot_be_served_is_one_line_and_exit_1(launcher: str, args: list[str]) -> None:
    done = subprocess.run(
        [launcher, "-nodefaults", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("engine-system-x86_64: "), done.stderr


def test_devices_that_are_not_modelled_are_named_and_the_rest_is_served(launcher: str) -> None:
    with QtestClient(launcher, ["-nodefaults", "-device", "virtio-rng-pci"]) as guest:
        assert guest.command("inb 0x70") == "OK 0x00ff"
        assert guest.said() == ["engine-system-x86_64: virtio-rng-pci at 00:02.0 is not modelled"]


def test_a_machine_without_devices(launcher: str) -> None:
    with QtestClient(launcher, ["-machine", "none"]) as guest:
        guest.negotiate()
        assert guest.transcript(["endianness", "inb 0x70"]) == ["OK little", "FAIL inb: the machine has no devices"]
        assert guest.execute("qom-get", path="/machine", property="type") == {"return": "none-machine"}


def test_the_client_says_why_a_program_did_not_come_up(launcher: str) -> None:
    with pytest.raises(Gone, match=r"exit status 1: .*vax"):
        QtestClient(launcher, ["-machine", "vax"], timeout=20)


def test_floppies_are_changed_by_the_monitor(launcher: str, tmp_path: Path) -> None:
    image = tmp_path / "floppy"
    image.write_bytes(bytes(1474560))
    step = [
        "outb 0x3f2 0x1c",
        "outb 0x3f5 0x0f",
        "outb 0x3f5 0",
        "outb 0x3f5 1",
        "clock_step 100000000",
        "outb 0x3f5 8",
        "inb 0x3f5",
        "inb 0x3f5",
    ]
    with QtestClient(launcher, ["-nodefaults", "-drive", "if=floppy"]) as guest:
        guest.negotiate()
        assert guest.value("inb 0x3f7") & 0x80
        assert guest.execute("blockdev-change-medium", id="floppy0", filename=str(image)) == {"return": {}}
        assert guest.value("inb 0x3f7") & 0x80
        guest.transcript(step)
        assert not guest.value("inb 0x3f7") & 0x80
        assert guest.execute("eject", id="floppy0") == {"return": {}}
        assert guest.value("inb 0x3f7") & 0x80
        assert (
            guest.execute("blockdev-change-medium", id="floppy0", filename="/nonexistent")["error"]["class"]
            == "GenericError"
        )


def test_a_partition_table_tells_a_disks_geometry(launcher: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    first = bytearray(512)
    first[446:462] = bytes([0x80, 1, 1, 0, 6, 15, 63, 10]) + (63).to_bytes(4, "little") + (20000).to_bytes(4, "little")
    first[510:512] = b"\x55\xaa"
    for heads, translation in ((15, 0), (254, 2)):
        first[451] = heads
        disk.write_bytes(bytes(first) + bytes(61440 * 512 - 512))
        with QtestClient(launcher, ["-nodefaults", "-drive", f"if=ide,format=raw,file={disk}"]) as guest:
            guest.command("outb 0x70 0x39")
            assert guest.value("inb 0x71") == translation


def test_firmware_must_be_whole_pages(tmp_path: Path) -> None:
    from engine.cli.serve import serve

    (tmp_path / "bios").write_bytes(b"odd")
    with pytest.raises(MachineError, match="whole pages"):
        serve(["-machine", "pc", "-nodefaults", "-qtest", "stdio", "-bios", str(tmp_path / "bios")])


# ---------------------------------------------------------------------- what devices tell the host


PC = ["-machine", "pc", "-nodefaults"]
S5 = ["outl 0xcf8 0x80000b40", "outl 0xcfc 0x601", "outl 0xcf8 0x80000b80", "outb 0xcfc 1", "outw 0x604 0x2000"]


def heard(guest: QtestClient) -> list[tuple[str, dict[str, object]]]:
    """The events since the last time."""
    guest.execute("query-status")
    out = [(e["event"], e.get("data", {})) for e in guest.events]
    guest.events.clear()
    return out


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (0x10, 0x21), (0x7F, 0xFF), (0x80, 1)])
def test_a_debug_exit_port_ends_the_program_with_the_guests_status(launcher: str, value: int, status: int) -> None:
    args = [*PC, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
    with QtestClient(launcher, args) as guest:
        guest.negotiate()
        assert guest.command("inl 0xf4") == "OK 0x0000"
        guest.send(f"outb 0xf4 {value:#x}\n".encode())
        assert guest.process.wait(10) == status


def test_power_off_ends_the_program_and_says_so(launcher: str) -> None:
    with QtestClient(launcher, PC) as guest:
        guest.negotiate()
        guest.send("".join(f"{r}\n" for r in S5).encode())
        assert guest.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
        assert guest.process.wait(10) == 0


def test_a_machine_that_is_not_to_end_is_paused_when_it_is_switched_off(launcher: str) -> None:
    with QtestClient(launcher, [*PC, "-no-shutdown"]) as guest:
        guest.negotiate()
        guest.transcript(S5)
        assert heard(guest) == [("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}), ("STOP", {})]
        assert guest.execute("query-status")["return"]["status"] == "shutdown"
        assert guest.command("inb 0x70") == "OK 0x00ff"


@pytest.mark.parametrize(("action", "status"), [("shutdown", 0), ("exit-failure", 1)])
def test_a_crash_ends_the_program_where_that_is_wanted(launcher: str, action: str, status: int) -> None:
    with QtestClient(launcher, [*PC, "-device", "pvpanic", "-action", f"panic={action}"]) as guest:
        guest.negotiate()
        guest.send(b"outb 0x505 1\n")
        assert guest.event("GUEST_PANICKED")["data"] == {"action": "poweroff"}
        assert guest.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-panic"}
        assert guest.process.wait(10) == status


def test_actions_are_changed_while_the_machine_runs(launcher: str) -> None:
    with QtestClient(launcher, [*PC, "-device", "ib700", "-device", "pvpanic"]) as guest:
        guest.negotiate()
        bite = ["outb 0x443 14", "clock_step 2000000000"]
        assert guest.execute("watchdog-set-action", action="none") == {"return": {}}
        guest.transcript(bite)
        assert heard(guest) == [("WATCHDOG", {"action": "none"})]
        assert guest.execute("set-action", watchdog="reset", panic="none") == {"return": {}}
        guest.transcript([*bite, "outb 0x505 1"])
        assert heard(guest) == [
            ("WATCHDOG", {"action": "reset"}),
            ("RESET", {"guest": True, "reason": "guest-reset"}),
            ("GUEST_PANICKED", {"action": "run"}),
        ]
        for name, arguments in (
            ("watchdog-set-action", {"action": "explode"}),
            ("watchdog-set-action", {}),
            ("set-action", {"panic": "reset"}),
            ("set-action", {"weather": "fine"}),
        ):
            assert guest.execute(name, **arguments)["error"]["class"] == "GenericError"
        assert guest.execute("set-action", reboot="shutdown") == {"return": {}}
        guest.send("".join(f"{r}\n" for r in bite).encode())
        assert guest.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-reset"}
        assert guest.process.wait(10) == 0


def test_a_watchdog_ends_the_program_where_that_is_wanted(launcher: str) -> None:
    with QtestClient(
        launcher, [*PC, "-device", "i6300esb", "-device", "ib700", "-action", "watchdog=poweroff"]
    ) as guest:
        guest.negotiate()
        guest.send(b"outb 0x443 15\n")
        assert guest.event("WATCHDOG")["data"] == {"action": "poweroff"}
        assert guest.process.wait(10) == 0


def test_the_power_button_is_pressed(launcher: str) -> None:
    with QtestClient(launcher, PC) as guest:
        guest.negotiate()
        guest.transcript([*S5[:4], "outw 0x602 0x100"])  # PM1_EN: PWRBTN_EN
        assert guest.execute("system_powerdown") == {"return": {}}
        assert heard(guest) == [("POWERDOWN", {})]
        assert guest.value("inw 0x600") & 0x100


def told(**options: object) -> list[str]:
    """What a machine with these options tells the host, in order."""
    args = [*PC, "-device", "pvpanic", "-device", "ib700", "-device", "isa-debug-exit"]
    out: list[str] = []
    with Machine(observing_all(from_qemu(args).spec()), **options) as m:
        notices = {name: partial(out.append, name) for name in Guest(m).notices}
        q = Qtest(m, reset=lambda n: out.append(f"reset {n}"), notices=notices)
        ask(q, "outb 0x505 1", "outb 0x80 1", "outb 0x505 2", "outb 0x443 10", "clock_step 10000000000")
        ask(q, "outb 0x505 3", "outb 0x501 7", "inb 0x70")
        assert m.call("isa-debug-exit", "status") == 15
    return out


@pytest.mark.parametrize("path", ["local", "sync", "batched"])
def test_every_placement_tells_the_host_the_same(path: str) -> None:
    want = ["panicked", "crash_loaded", "watchdog", "reset 1", "panicked", "exit"]
    assert told(path=path, workers=0 if path == "local" else 2) == want


# ---------------------------------------------------------------------- migration, disks that fail


def test_a_machine_moves_to_another_process(launcher: str, tmp_path: Path) -> None:
    place = f"unix:{tmp_path / 'state'}"
    args = [*PC, "-m", "32", "-device", "edu"]
    with QtestClient(launcher, [*args, "-incoming", place]) as there, QtestClient(launcher, args) as here:
        for guest in (here, there):
            guest.negotiate()
        assert there.execute("query-status")["return"]["status"] == "inmigrate"
        here.transcript(["outb 0x70 0x5b", "outb 0x71 0x77", "writel 0x100000 0x12345678", "clock_step 12345"])
        here.transcript(["outl 0xcf8 0x80000058", "outb 0xcfd 0x30", "writel 0xf0000 0x55"])
        assert here.execute("query-migrate") == {"return": {}}
        assert here.execute("migrate", uri=place) == {"return": {}}
        assert heard(here) == [("STOP", {})]
        assert here.execute("query-migrate") == {"return": {"status": "completed"}}
        assert here.execute("query-status")["return"]["status"] == "postmigrate"
        there.event("RESUME")
        assert there.execute("query-status")["return"]["status"] == "running"
        asked = ["clock_step 0", "inb 0x71", "readl 0x100000", "readl 0xf0000", "inb 0xcfd", "clock_step 5"]
        assert there.transcript(asked) == here.transcript(asked)
        assert there.transcript(asked)[0] == "OK 12350"


def test_a_stopped_machine_arrives_stopped(launcher: str, tmp_path: Path) -> None:
    place = f"unix:{tmp_path / 'state'}"
    with QtestClient(launcher, [*PC, "-incoming", place]) as there, QtestClient(launcher, PC) as here:
        for guest in (here, there):
            guest.negotiate()
        here.execute("stop")
        assert here.execute("migrate", uri=place) == {"return": {}}
        for _ in range(200):
            if there.execute("query-status")["return"]["status"] == "paused":
                break
            time.sleep(0.02)
        assert there.execute("cont") == {"return": {}}
        assert [name for name, _ in heard(there)] == ["RESUME"]


@pytest.mark.parametrize("uri", ["unix:/nonexistent/s", "tcp:nowhere", "exec:cat", "", "fd:3"])
def test_a_place_that_cannot_be_migrated_to_is_an_error_and_the_machine_runs_on(launcher: str, uri: str) -> None:
    with QtestClient(launcher, PC) as guest:
        guest.negotiate()
        assert guest.execute("migrate", uri=uri)["error"]["class"] == "GenericError"
        assert guest.execute("query-migrate") == {"return": {"status": "failed"}}
        assert guest.execute("query-status")["return"]["running"] is True


NO_STATES = [b"", b"ioreq", b"\0" * 64, HEAD.pack(MAGIC, 1 << 60)]
NO_STATES += [HEAD.pack(MAGIC, 4) + b"c os", HEAD.pack(MAGIC, 9) + b"I1\n."]


@pytest.mark.parametrize("data", NO_STATES)
def test_what_is_no_state_is_refused_in_one_line(data: bytes) -> None:
    arrival = Arrival()
    with pytest.raises(StateError) as caught:
        if arrival.feed(data) is None:
            arrival.feed(b"")
    assert "\n" not in str(caught.value)


def test_a_state_names_no_class() -> None:
    body = pickle.dumps({"machine": Path("/")})
    with pytest.raises(StateError, match="hostile"):
        Arrival().feed(HEAD.pack(MAGIC, len(body)) + body)


def test_a_state_that_is_none_ends_the_program_that_waits_for_it(launcher: str, tmp_path: Path) -> None:
    with QtestClient(launcher, [*PC, "-incoming", f"unix:{tmp_path / 'state'}"]) as there:
        there.negotiate()
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(tmp_path / "state"))
            s.sendall(b"\0" * 64)
        assert there.process.wait(10) == 3 and "no state of this engine" in there.said()[-1]


def test_frames_go_through_a_socket_that_the_program_was_given() -> None:
    args = [*PC, "-device", "e1000e,netdev=hs0", "-netdev", "socket,fd=7,id=hs0", "-device", "e1000,netdev=u"]
    nics = {
        d.type: d.config for d in from_qemu([*args, "-netdev", "user,id=u"]).spec().devices if d.type[:5] == "e1000"
    }
    assert (nics["e1000e"]["backend"], nics["e1000e"]["fd"]) == ("stream", 7) and "backend" not in nics["e1000"]


def test_discs_are_changed_by_the_monitor(launcher: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 4096)
    drive = f"if=none,id=d,file={tmp_path / 'a'},media=cdrom,format=raw"
    with QtestClient(launcher, [*PC, "-drive", drive, "-device", "ide-cd,drive=d,bus=ide.1,id=cd"]) as guest:
        guest.negotiate()

        def packet(*cdb: int) -> int:
            """A command packet; its error register."""
            words = bytes(cdb).ljust(12, b"\0")
            guest.transcript(["outb 0x174 0xff", "outb 0x175 0xff", "outb 0x176 0xa0", "outb 0x177 0xa0"])
            guest.transcript([f"outw 0x170 {int.from_bytes(words[n : n + 2], 'little')}" for n in range(0, 12, 2)])
            return guest.value("inb 0x171") if guest.value("inb 0x177") & 1 else 0

        def first() -> int:
            assert packet(0x28, 0, 0, 0, 0, 0, 0, 0, 1) == 0
            return guest.value("inw 0x170") & 0xFF

        def moved() -> list[bool]:
            return [bool(data["tray-open"]) for name, data in heard(guest) if name == "DEVICE_TRAY_MOVED"]

        assert first() == ord("a")
        guest.transcript(["outb 0x376 4", "outb 0x376 0"])
        assert packet(0x1B, 0, 0, 0, 2) == 0 and moved() == [True] and packet(0) == 0x20
        assert packet(0x1B, 0, 0, 0, 3) == 0 and moved() == [False] and packet(0) == 0
        assert packet(0x1E, 0, 0, 0, 1) == 0  # locked
        assert "is locked" in guest.execute("blockdev-open-tray", id="cd")["error"]["desc"]
        assert "is not open" in guest.execute("blockdev-remove-medium", id="cd")["error"]["desc"]
        assert guest.execute("blockdev-open-tray", id="cd", force=True) == {"return": {}} and moved() == [True]
        assert guest.execute("blockdev-remove-medium", id="cd") == {"return": {}}
        node = {"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": str(tmp_path / "b")}}
        assert guest.execute("blockdev-add", **node) == {"return": {}}
        assert "Duplicate" in guest.execute("blockdev-add", **node)["error"]["desc"]
        assert (
            guest.execute("blockdev-insert-medium", id="cd", **{"node-name": "m"})["error"]["class"] == "GenericError"
        )
        assert guest.execute("blockdev-insert-medium", id="cd", **{"node-name": "n"}) == {"return": {}}
        assert guest.execute("blockdev-close-tray", id="cd") == {"return": {}} and moved() == [False]
        assert [packet(0) for _ in range(2)] == [0x20, 0x60]  # no disc, then another one
        assert packet(3, 0, 0, 0, 18) == 0
        assert [guest.value("inw 0x170") for _ in range(9)][1] & 0xFF == 6
        assert packet(0) == 0 and first() == ord("b")
        guest.transcript(["outb 0x376 4", "outb 0x376 0"])
        assert guest.execute("eject", id="cd", force=True) == {"return": {}} and packet(0) == 0x20
        assert (
            guest.execute("blockdev-change-medium", id="cd", filename="/nonexistent")["error"]["class"]
            == "GenericError"
        )
        assert guest.execute("blockdev-change-medium", id="cd", filename=str(tmp_path / "a")) == {"return": {}}
        assert (
            [packet(0), packet(0), packet(3, 0, 0, 0, 0)] == [0x20, 0x60, 0] and packet(0) == 0 and first() == ord("a")
        )
        assert guest.execute("blockdev-open-tray", id="nothing")["error"]["class"] == "DeviceNotFound"


FLUSH = ["outb 0x1f6 0xa0", "outb 0x1f7 0xe7", "inb 0x1f7"]


def test_a_flush_that_fails_stops_the_machine_and_is_tried_again(launcher: str, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    (tmp_path / "rules").write_text(
        '[inject-error]\nevent = "flush_to_disk"\nerrno = "5"\nstate = "1"\nonce = "on"\n[set-state]\nnew_state = "2"\n'
    )
    drive = f"file=blkdebug:{tmp_path / 'rules'}:{tmp_path / 'disk'},if=ide,format=raw,rerror=stop,werror=stop"
    with QtestClient(launcher, [*PC, "-drive", drive]) as guest:
        guest.negotiate()
        assert guest.transcript(FLUSH)[-1] == "OK 0x00d0"
        assert [name for name, _ in heard(guest)] == ["BLOCK_IO_ERROR", "STOP"]
        assert guest.execute("query-status")["return"]["status"] == "io-error"
        guest.execute("cont")
        assert guest.command("inb 0x1f7") == "OK 0x0050"


def test_a_flush_is_held_by_the_human_monitor(launcher: str, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    with QtestClient(launcher, [*PC, "-drive", f"file=blkdebug::{tmp_path / 'disk'},if=ide,format=raw"]) as guest:
        guest.negotiate()

        def human(line: str) -> str:
            return str(guest.execute("human-monitor-command", **{"command-line": line})["return"])

        assert human('qemu-io ide0-hd0 "break flush_to_os A"') == ""
        assert guest.transcript(FLUSH)[-1] == "OK 0x00d0"
        assert human('qemu-io ide0-hd0 "resume A"') == ""
        assert guest.command("inb 0x1f7") == "OK 0x0050"
        assert human("info registers") == "unknown command: 'info'\r\n"


# ---------------------------------------------------------------------- whole programs, against QEMU


def _by_request(name: str, lines: list[str]) -> list[tuple[str, ...]]:
    """The lines of each request, with it."""
    requests = iter(r for r in PROGRAMS[name][1] if r not in (SETTLE, PAUSE))
    out, group = [], []
    for line in lines:
        group.append(line)
        if not line.startswith("IRQ "):
            out.append((next(requests), *group))
            group = []
    return out


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_engine_answers_as_qemu_was_recorded_to(name: str, launcher: str, tmp_path: Path) -> None:
    assert _by_request(name, run(launcher, name, tmp_path / "bios")) == _by_request(name, TRANSCRIPTS[name])


@pytest.mark.parametrize("name", PROGRAMS)
def test_qemu_answers_as_it_was_recorded_to(name: str, qemu: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    program, env = qemu
    assert _by_request(name, run(program, name, tmp_path / "bios", env)) == _by_request(name, TRANSCRIPTS[name])
