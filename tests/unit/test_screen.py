"""Pictures as files, the parts of a picture that the reference does not draw, and the command that writes one."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from engine import data
from engine.cli import main
from engine.cli.screenshot import moment, until
from engine.devices.vga import Vga
from engine.errors import UsageError
from engine.frontends.trace import load
from engine.machine import Machine
from engine.screen import Picture, draw

NAMES = tuple(Vga().values())
PALETTE = bytes(v for n in range(256) for v in (n % 64, n * 3 % 64, n * 7 % 64))


def registers(**given: int) -> dict[str, int]:
    """Text, four characters of two rows; what is not given is zero."""
    base = {
        "SEQ_CLOCKING_MODE": 1,
        "CRTC_H_DISPLAY_END": 3,
        "CRTC_MAX_SCAN": 1,
        "CRTC_V_DISPLAY_END": 1,
        "CRTC_OFFSET": 2,
    }
    base |= {
        "ATT_INDEX": 0x20,
        "CRTC_CURSOR_START": 0x20,
        "CRTC_LINE_COMPARE": 255,
        **{f"ATT_PALETTE_{n}": n for n in range(16)},
    }
    return dict.fromkeys(NAMES, 0) | base | given


def memory(*cells: tuple[int, int]) -> bytes:
    """Characters and attributes; character 1 has its left four dots set in each row."""
    out = bytearray(1 << 20)
    for n, (character, attribute) in enumerate(cells):
        out[4 * n : 4 * n + 2] = bytes((character, attribute))
    for row in range(32):
        out[(32 + row) * 4 + 2] = 0xF0
    return bytes(out)


def color(n: int) -> tuple[int, ...]:
    return tuple((v << 2) | (v & 1) * 3 for v in PALETTE[3 * n : 3 * n + 3])


def test_text_is_drawn_with_the_guests_own_font() -> None:
    got = draw(registers(), PALETTE, memory((1, 0x21), (0, 0x43))).array()
    assert got.shape == (2, 32, 3)
    for row in got:
        assert [tuple(p) for p in row[:16:4]] == [color(1), color(2), color(4), color(4)]


@pytest.mark.parametrize(("blink", "ink", "paper"), [(None, 1, 10), (True, 1, 2), (False, 2, 2)])
def test_blinking_characters_have_two_phases(blink: bool | None, ink: int, paper: int) -> None:
    """TRM, Attribute Mode Control bit 3: attribute bit 7 blinks the character, and is no colour."""
    got = draw(registers(ATT_MODE=8), PALETTE, memory((1, 0xA1)), blink=blink).array()
    assert (tuple(got[0, 0]), tuple(got[0, 7])) == (color(ink), color(paper))


def test_without_blinking_bit_7_is_intensity() -> None:
    got = draw(registers(ATT_MODE=0), PALETTE, memory((1, 0xA1)), blink=False).array()
    assert (tuple(got[0, 0]), tuple(got[0, 7])) == (color(1), color(10))


def test_the_cursor_has_a_dark_phase() -> None:
    r = registers(CRTC_CURSOR_START=1, CRTC_CURSOR_END=1, CRTC_CURSOR_LOW=2)
    shown = draw(r, PALETTE, memory(*[(0, 0x21)] * 4)).array()
    assert (shown == color(1)).all(2).sum() == 8
    assert (shown[1, 16:24] == color(1)).all()
    assert not (draw(r, PALETTE, memory(*[(0, 0x21)] * 4), cursor=False).array() == color(1)).all(2).any()


def test_no_mode_is_a_black_screen_and_so_is_an_output_that_is_off() -> None:
    nothing = draw(registers(CRTC_H_DISPLAY_END=0), PALETTE, memory())
    assert nothing[:2] == (640, 480)
    assert not any(nothing.rgb)
    off = draw(registers(ATT_INDEX=0), PALETTE, memory((1, 0x21)))
    assert (off.width, off.height) == (32, 2)
    assert not any(off.rgb)


def test_big_endian_frame_buffers_are_swapped() -> None:
    """standard-vga: the byte order register."""
    for bits, little, big in (
        (16, b"\x34\x12", b"\x12\x34"),
        (24, b"\1\2\3", b"\3\2\1"),
        (32, b"\1\2\3\0", b"\0\3\2\1"),
    ):
        r = registers(
            GFX_MISC=1, GFX_MODE=0x40, DISPI_ENABLE=1, DISPI_XRES=8, DISPI_YRES=1, DISPI_BPP=bits, CRTC_MODE=3
        )
        one = draw(r, PALETTE, little * 8 + bytes(64))
        assert one == draw(r | {"BIG_ENDIAN": 1}, PALETTE, big * 8 + bytes(64))
        assert any(one.rgb)


def test_memory_wraps_where_it_ends() -> None:
    r = registers(GFX_MISC=1, GFX_MODE=0x40, CRTC_H_DISPLAY_END=0, CRTC_V_DISPLAY_END=1, CRTC_MAX_SCAN=0, CRTC_MODE=3)
    data = bytes(range(64))
    got = draw(r | {"CRTC_START_LOW": 15, "CRTC_OFFSET": 1}, PALETTE, data).array()
    assert [tuple(p) for p in got[0, ::2]] == [color(n) for n in (60, 61, 62, 63)]
    assert [tuple(p) for p in got[1, ::2]] == [color(n) for n in (4, 5, 6, 7)]


def test_png_holds_the_pixels() -> None:
    picture = Picture(3, 2, bytes(range(18)))
    png = picture.png()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(png):
        n = int.from_bytes(png[at : at + 4], "big")
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + n]
        assert int.from_bytes(png[at + 8 + n : at + 12 + n], "big") == zlib.crc32(kind + body)
        chunks.append((kind, body))
        at += 12 + n
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks[0][1] == bytes((0, 0, 0, 3, 0, 0, 0, 2, 8, 2, 0, 0, 0))
    lines = zlib.decompress(chunks[1][1])
    assert lines == b"\0" + bytes(range(9)) + b"\0" + bytes(range(9, 18))


def test_png_is_read_by_others(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    picture = draw(registers(), PALETTE, memory((1, 0x21)))
    (tmp_path / "x.png").write_bytes(picture.png())
    assert np.array_equal(np.rint(image.imread(tmp_path / "x.png") * 255).astype(np.uint8)[..., :3], picture.array())
    assert picture.ppm() == b"P6\n32 2\n255\n" + picture.rgb


# ---------------------------------------------------------------------- the machine, and the command


@pytest.mark.parametrize("workers", [None, 1])
def test_a_machines_screen_is_the_same_wherever_the_adapter_is(workers: int | None) -> None:
    options = {} if workers is None else {"workers": workers}
    with Machine.from_file("i440fx", **options) as machine:
        for port, value in ((0x3C4, 0x0101), (0x3D4, 0x0301), (0x3D4, 0x0112), (0x3D4, 0x0109)):
            machine.write("pio", port, 1, value & 255)
            machine.write("pio", port + 1, 1, value >> 8)
        machine.read("pio", 0x3DA)
        machine.write("pio", 0x3C0, 1, 0x20)
        assert machine.screen()[:2] in ((640, 480), (32, 2))
        with pytest.raises(UsageError, match="'rtc' is no display adapter"):
            machine.screen("rtc")


def test_times_of_the_command_line() -> None:
    assert [moment(t) for t in ("2.5", "2500ms", "1 us", "7ns", ".5s")] == [
        2_500_000_000,
        2_500_000_000,
        1000,
        7,
        500_000_000,
    ]
    for wrong in ("", "-1", "1h", "one"):
        with pytest.raises(UsageError, match="write a time like"):
            moment(wrong)


def test_a_recording_is_cut_at_a_moment() -> None:
    trace = load(data.trace("boot-pc"))
    middle = int(trace.acc["t_ns"][len(trace.acc) // 2])
    part = until(trace, middle)
    assert 0 < len(part.acc) < len(trace.acc)
    assert part.acc["t_ns"][-1] <= middle < trace.acc["t_ns"][len(part.acc)]
    assert (part.evt["index"] <= len(part.acc)).all()


def test_the_command_writes_what_the_guest_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "end.png"
    assert main(["screenshot", "boot-pc", "-o", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: 720 x 400, boot-pc at ")
    assert file.read_bytes()[:4] == b"\x89PNG"
    early = tmp_path / "early.ppm"
    assert main(["screenshot", "boot-pc", "-o", str(early), "--at", "1ns"]) == 0
    assert early.read_bytes() == b"P6\n640 480\n255\n" + bytes(640 * 480 * 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-o", "x.jpg"], "the name should end in .png or .ppm"),
        (["-o", "/nonexistent/x.png"], "no such folder"),
        (["-o", "x.png", "--at", "soon"], "write a time like 2.5"),
        (["-o", "x.png", "--at", "3600"], "the recording ends at"),
    ],
)
def test_mistakes_are_one_line(options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["screenshot", "boot-pc", *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert text in said[0]
