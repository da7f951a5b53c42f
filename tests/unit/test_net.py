"""What network controllers are plugged into: files of frames, streams, TAP interfaces; the same on every path."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine.machine.net as net
from engine.devices._net import NET_CONFIG, NetPort, read_pcap
from engine.errors import MachineError
from engine.machine import Machine
from engine.machine.spec import parse

MS, S = 10**6, 10**9
FRAME = bytes.fromhex("ffffffffffff020000000001") + b"\x88\xb5" + bytes(range(50))
KINDS = ("e1000", "e1000e")


def pcap(frames: list[tuple[int, bytes]], order: str = "<", ns: bool = True, link: int = 1) -> bytes:
    out = struct.pack(order + "IHHIIII", 0xA1B23C4D if ns else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for t, data in frames:
        part = t % S if ns else t % S // 1000
        out += struct.pack(order + "IIII", t // S, part, len(data), len(data)) + data
    return out


def port(**config: Any) -> NetPort:
    return NetPort("nic", {**NET_CONFIG, **config})


# ---------------------------------------------------------------------- files of frames


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("ns", [True, False])
def test_pcap_files_in_either_order_and_unit(tmp_path: Path, order: str, ns: bool) -> None:
    frames = [(3 * S + 5000, b"a" * 60), (3 * S + 5000, b"b" * 61), (4 * S, b"")]
    (tmp_path / "x.pcap").write_bytes(pcap(frames, order, ns))
    assert read_pcap(tmp_path / "x.pcap") == frames


def test_times_never_decrease(tmp_path: Path) -> None:
    (tmp_path / "x.pcap").write_bytes(pcap([(10, b"a"), (5, b"b"), (20, b"c")]))
    assert [t for t, _ in read_pcap(tmp_path / "x.pcap")] == [10, 10, 20]


@pytest.mark.parametrize(
    "raw,why",
    [
        (b"", "is no pcap file"),
        (b"\x0a\x0d\x0d\x0a" + bytes(60), "is no pcap file"),
        (pcap([])[:20], "is no pcap file"),
        (pcap([], link=113), "link type 113"),
        (pcap([(1, b"abc")])[:-1], "ends within frame 1"),
        (pcap([(1, b"abc")]) + b"\0" * 15, "ends within frame 2"),
        (pcap([]) + struct.pack("<IIII", 0, 0, 60, 1500) + bytes(60), "60 of the 1500 bytes of frame 1"),
        (pcap([]) + struct.pack("<IIII", 0, 0, 1 << 20, 1 << 20), "bytes of frame 1"),
    ],
)
def test_what_is_no_file_of_frames(tmp_path: Path, raw: bytes, why: str) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(raw)
    with pytest.raises(MachineError, match=rf"device 'nic': inject = .*x\.pcap.*{why}") as e:
        port(inject=str(path))
    assert "\n" not in str(e.value)


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "config,why",
    [
        ({"backend": "user"}, "choose one of null, loopback, capture, tap, stream"),
        ({"backend": "tap"}, '"tap" and the setting `tap` go together'),
        ({"tap": "tap0"}, '"tap" and the setting `tap` go together'),
        ({"backend": "tap", "tap": "x" * 16}, "15 bytes"),
        ({"backend": "stream"}, "`fd` go together"),
        ({"backend": "capture"}, "`capture` go together"),
        ({"record": "/no/such/folder/x.pcap"}, "record = .*: no such folder"),
        ({"inject": "/no/such/file.pcap"}, "inject = .*: No such file"),
        ({"poll_ns": 10}, "poll_ns = 10 should lie between"),
    ],
)
def test_settings_are_refused_in_one_line(config: dict[str, Any], why: str) -> None:
    with pytest.raises(MachineError, match=why) as e:
        port(**config)
    assert "\n" not in str(e.value)


def test_every_back_end_can_be_captured(tmp_path: Path) -> None:
    for config in ({}, {"backend": "loopback"}, {"backend": "capture"}, {"backend": "tap", "tap": "t"}):
        port(capture=str(tmp_path / "x.pcap"), **config)


# ---------------------------------------------------------------------- machines

FILE = """
[board]
ram = "1M"
config_access = "cf8"
external = ["irq"]
observe = ["irq"]

[[device]]
id = "host"
type = "i440fx"
bdf = "00:00.0"

[[device]]
id = "nic"
type = "{kind}"
bdf = "00:03.0"
lines = {{ inta = "irq" }}
config = {{ {config} }}
"""
BASE, CONFIG_AT = 0xE0000000, 0x80001800
RING, BUFFER = 0x1000, 0x10000
RCTL, RDT = 0x100, 0x2818


class Guest:
    """A machine with one controller and a driver that receives."""

    def __init__(self, kind: str, config: str, workers: int | None) -> None:
        self.machine = Machine.from_spec(parse(FILE.format(kind=kind, config=config)), workers=workers)

    def __enter__(self) -> Guest:
        self.machine.start()
        for at, value, size in ((0x10, BASE, 4), (4, 6, 2)):
            self.machine.write("pio", 0xCF8, 4, CONFIG_AT | at)
            self.machine.write("pio", 0xCFC, size, value)
        ram = memoryview(self.machine.ram)
        for n in range(16):
            struct.pack_into("<QQ", ram, RING + 16 * n, BUFFER + 0x1000 * n, 0)
        ram.release()
        for at, value in ((0x2800, RING), (0x2808, 256), (0xD0, 0x80), (RCTL, 0x0400801A)):
            self.put(at, value)
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.stop()

    def put(self, at: int, value: int) -> None:
        self.machine.write("mmio", BASE + at, 4, value)

    def get(self, at: int) -> int:
        return self.machine.read("mmio", BASE + at, 4)

    def step(self, ns: int) -> None:
        self.machine.clock.step(ns)

    def memory(self) -> bytes:
        return bytes(self.machine.ram)

    def story(self) -> tuple[Any, ...]:
        """All a run can be told by: line changes and their times, memory, the device's registers."""
        lines = [(int(r["t_ns"]), int(r["level"])) for r in self.machine.lines()]
        state = self.machine.save()["devices"]["nic"]["state"]
        return lines, self.memory(), [state[k] for k in ("mac", "config", "levels")]


@pytest.fixture
def far() -> Iterator[tuple[socket.socket, int]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs.fileno()


def framed(*frames: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(f)) + f for f in frames)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [None, 1])
def test_a_stream_goes_both_ways(kind: str, workers: int | None, far: tuple[socket.socket, int]) -> None:
    ours, fd = far
    with Guest(kind, f'backend = "stream", fd = {fd}', workers) as g:
        g.put(RDT, 15)
        ours.sendall(framed(FRAME, FRAME + b"more"))
        g.step(2 * S)
        assert g.memory()[BUFFER : BUFFER + len(FRAME)] == FRAME and g.get(0x40D0) == 2
        ram = memoryview(g.machine.ram)
        ram[0x80000 : 0x80000 + len(FRAME)] = FRAME
        struct.pack_into("<QII", ram, 0x4000, 0x80000, len(FRAME) | 1 << 24, 0)
        ram.release()
        for at, value in ((0x3800, 0x4000), (0x3808, 128), (0x400, 2), (0x3818, 1)):
            g.put(at, value)
        g.get(8)
        assert ours.recv(1000) == framed(FRAME)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_run_is_run_again_by_injection(kind: str, tmp_path: Path, far: tuple[socket.socket, int]) -> None:
    """Frames come at the host's pleasure, once before there is room; the file tells when each came in."""
    ours, fd = far
    record = tmp_path / "in.pcap"

    def script(g: Guest, live: bool) -> tuple[Any, ...]:
        for n in range(30):
            if live and n % 3 == 0:
                ours.sendall(framed(*(FRAME + bytes([n, k]) for k in range(n // 3))))
            g.step(100 * MS + n * 12345)
            if n in (4, 15, 18, 22):
                g.put(RDT, (g.get(0x2810) + 15) % 16)
            if n % 7 == 0:
                g.get(0xC0)
        return g.story()

    with Guest(kind, f'backend = "stream", fd = {fd}, record = "{record}"', None) as g:
        first = script(g, True)
    frames = read_pcap(record)
    assert len(frames) > 20 and len({t for t, _ in frames}) > 5
    for workers in (None, 1):
        with Guest(kind, f'inject = "{record}"', workers) as g:
            assert script(g, False) == first


@pytest.mark.parametrize("kind", KINDS)
def test_injected_frames_come_at_their_times(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([(1700 * S + n * 250, FRAME) for n in range(3)]))
    with Guest(kind, f'inject = "{path}", inject_start = {3 * S}', None) as g:
        g.put(RDT, 15)
        seen = []
        for t in (3 * S - 1, 3 * S, 3 * S + 249, 3 * S + 250, 4 * S):
            g.step(t - g.machine.clock.now)
            seen.append(g.get(0x2810))
        assert seen == [0, 1, 1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_machine_gets_the_same_frames_again(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([((2 + n) * S, FRAME + bytes([n])) for n in range(6)]))
    with Guest(kind, f'inject = "{path}"', None) as g:
        g.put(RDT, 15)
        g.step(3 * S)
        saved = g.machine.save()
        g.step(5 * S)
        end = g.memory()
        assert g.get(0x2810) == 6
        g.machine.load(saved)
        assert g.get(0x2810) == 2
        g.step(5 * S)
        assert g.memory() == end and g.get(0x2810) == 6


def test_a_stream_of_something_else_is_given_up(far: tuple[socket.socket, int]) -> None:
    ours, fd = far
    with Guest("e1000e", f'backend = "stream", fd = {fd}', None) as g:
        ours.sendall(b"\xff" * 100)
        g.put(RDT, 15)
        g.step(10 * MS)
        ours.sendall(framed(FRAME))
        g.step(10 * MS)
        assert g.get(0x40D0) == 0


def test_a_long_silence_costs_little(far: tuple[socket.socket, int]) -> None:
    with Guest("e1000e", f'backend = "stream", fd = {far[1]}', None) as g:
        g.step(3600 * S)
        assert g.machine.inspect()["nic"]["net_poll_at"] - g.machine.clock.now <= 1024 * MS
        far[0].sendall(framed(FRAME))
        g.put(RDT, 15)  # a receiver that becomes ready looks at once
        assert g.get(0x40D0) == 1


# ---------------------------------------------------------------------- descriptors


def spec(config: str) -> Any:
    return parse(FILE.format(kind="e1000e", config=config), "m.toml")


def test_a_tap_interface_that_cannot_be_had_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(net, "TUN", str(tmp_path / "tun"))
    machine = Machine.from_spec(spec('backend = "tap", tap = "tap0"'))
    with pytest.raises(
        MachineError, match=r"m\.toml:\d+: device 'nic': TAP interface 'tap0': No such file.*no .*/tun$"
    ):
        machine.start()
    (tmp_path / "tun").write_bytes(b"")  # no tun device: the request is refused
    with pytest.raises(MachineError, match="TAP interface 'tap0': Inappropriate ioctl"):
        machine.start()

    def refused(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(net, "open_tap", refused)
    with pytest.raises(MachineError, match="Operation not permitted; `ip tuntap add dev tap0 mode tap") as e:
        machine.start()
    assert "\n" not in str(e.value)


def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = count()
        for workers in (None, 1):
            machine = Machine.from_spec(spec(f'backend = "stream", fd = {theirs.fileno()}'), workers=workers)
            with machine:
                pass
            del machine
        assert count() == before
        with pytest.raises(MachineError, match="descriptor 9999: Bad file descriptor"):
            Machine.from_spec(spec('backend = "stream", fd = 9999')).start()
        assert count() == before


def test_frames_through_a_tap_interface() -> None:
    """The host's side of the interface is a packet socket."""
    name = f"engt{os.getpid()}"
    try:
        os.close(net.open_tap(name))
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as e:
        pytest.skip(f"no TAP interface can be made here ({e.strerror})")
    for workers in (None, 1):
        with (
            Guest("e1000e", f'backend = "tap", tap = "{name}"', workers) as g,
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as s,
        ):
            request = struct.pack("16sh14x", name.encode(), 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
            fcntl.ioctl(s, 0x8914, request)  # SIOCSIFFLAGS
            s.bind((name, 0x88B5))
            s.settimeout(5)
            g.put(RDT, 15)
            s.send(FRAME)
            g.step(100 * MS)
            received = [g.memory()[BUFFER + 0x1000 * n :][: len(FRAME)] for n in range(g.get(0x2810))]
            assert FRAME in received  # beside what the host says of its own accord
            ram = memoryview(g.machine.ram)
            ram[0x80000 : 0x80000 + len(FRAME)] = FRAME[:-1] + b"!"
            struct.pack_into("<QII", ram, 0x4000, 0x80000, len(FRAME) | 1 << 24, 0)
            ram.release()
            for at, value in ((0x3800, 0x4000), (0x3808, 128), (0x400, 2), (0x3818, 1)):
                g.put(at, value)
            g.get(8)
            while s.recv(2000) != FRAME[:-1] + b"!":
                pass
