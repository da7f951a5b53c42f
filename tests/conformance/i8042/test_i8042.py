"""8042 with PS/2 keyboard and mouse, port 92h: scenarios of the PS/2 Hardware Interface Technical Reference."""

from __future__ import annotations

import pytest

from engine._device import AUX, KEY
from engine.devices.i8042 import I8042
from engine.errors import StateError
from engine.testing.bus import FakeBus

DATA, CMD, PORT92 = range(3)
OBF, SYS, AUX_OBF = 0x01, 0x04, 0x20
USER = 1  # pin of KEY and AUX: what the user does, rather than bytes as the host reads them

# The firmware's set-up of controller and keyboard, recorded from SeaBIOS on the reference machine.
SEABIOS = """
64r18*2 64wad 64r18 64wa7 64r18*2 64waa 64r1d 60r55 64r1c 64wab 64r1d 60r00 64r1c 64w60 64r1c 60w30 64r1c 64w60 64r1c
60w20 64r1c 60wff 64r1d 60rfa 64r1d 60raa 64r1c 64w60 64r1c 60w30 64r1c 64w60 64r1c 60w30 64r1c 64w60 64r1c 60w20 64r1c
60wf5 64r1d 60rfa 64r1c 64w60 64r1c 60w30 64r1c 64w60 64r1c 60w30 64r1c 64w60 64r1c 60w20 64r1c 60wf0 64r1d 60rfa 64r1c
60w02 64r1d 60rfa 64r1c 64w60 64r1c 60w30 64r1c 64w60 64r1c 60w70 64r1c 64w60 64r1c 60w60 64r1c 60wf4 64r1d 60rfa 64r1c
64w60 64r1c 60w61
"""


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus(I8042())


def command(bus: FakeBus, code: int, *data: int) -> None:
    bus.write(CMD, 0, code)
    for byte in data:
        bus.write(DATA, 0, byte)


def answers(bus: FakeBus) -> list[int]:
    """Read while the output buffer is full."""
    out = []
    while bus.read(CMD, 0) & OBF:
        out.append(bus.read(DATA, 0))
        assert len(out) < 64
    return out


def keyboard(bus: FakeBus, *data: int) -> list[int]:
    for byte in data:
        bus.write(DATA, 0, byte)
    return answers(bus)


def mouse(bus: FakeBus, *data: int) -> list[int]:
    """Each byte goes to the mouse; every answer must be marked as the mouse's."""
    out = []
    for byte in data:
        command(bus, 0xD4, byte)
        while (status := bus.read(CMD, 0)) & OBF:
            assert status & AUX_OBF
            out.append(bus.read(DATA, 0))
    return out


def move(bus: FakeBus, dx: int = 0, dy: int = 0, dz: int = 0, buttons: int = 0) -> None:
    value = dx & 0xFFFF | (dy & 0xFFFF) << 16 | (dz & 0xFFFF) << 32 | buttons << 48
    bus.input(AUX, USER, 0, value)


def press(bus: FakeBus, *scan_code: int) -> None:
    for byte in scan_code:
        bus.input(KEY, USER, 0, byte)


def test_recorded_firmware_setup(bus: FakeBus) -> None:
    for token in SEABIOS.split():
        access, _, times = token.partition("*")
        region, write, value = {"60": DATA, "64": CMD}[access[:2]], access[2] == "w", int(access[3:], 16)
        for _ in range(int(times or 1)):
            bus.step(1000)
            if write:
                bus.write(region, 0, value)
            else:
                assert bus.read(region, 0) == value, token


class TestController:
    def test_self_test_sets_the_system_flag(self, bus: FakeBus) -> None:
        assert not bus.read(CMD, 0) & SYS
        command(bus, 0xAA)
        assert answers(bus) == [0x55]
        assert bus.read(CMD, 0) & SYS

    def test_interface_tests(self, bus: FakeBus) -> None:
        for code in (0xA9, 0xAB):
            command(bus, code)
            assert answers(bus) == [0x00]

    def test_command_byte_all_values(self, bus: FakeBus) -> None:
        for mode in range(256):
            command(bus, 0x60, mode)
            command(bus, 0x20)
            assert answers(bus) == [mode]

    def test_enable_and_disable_change_the_command_byte(self, bus: FakeBus) -> None:
        for code, mode in ((0xAD, 0x13), (0xA7, 0x33), (0xAE, 0x23), (0xA8, 0x03)):
            command(bus, code)
            command(bus, 0x20)
            assert answers(bus) == [mode]

    def test_ports(self, bus: FakeBus) -> None:
        command(bus, 0xC0)
        assert answers(bus) == [0x80]
        command(bus, 0xD0)
        assert answers(bus) == [0xCF], "A20 on, no reset, the buffer was empty"

    def test_output_port_shows_full_buffers(self, bus: FakeBus) -> None:
        command(bus, 0xD3, 0x77)
        command(bus, 0xD0)
        assert answers(bus) == [0xFF], "both OBF bits: the mouse's byte waited"

    @pytest.mark.parametrize(("code", "flag", "pin"), [(0xD2, 0, "kbd_irq"), (0xD3, AUX_OBF, "aux_irq")])
    def test_write_output_buffer(self, bus: FakeBus, code: int, flag: int, pin: str) -> None:
        command(bus, code, 0x5A)
        assert bus.read(CMD, 0) & (OBF | AUX_OBF) == OBF | flag
        assert bus.edges() == [(0, 1)] and bus.level(pin)
        assert bus.read(DATA, 0) == 0x5A
        assert not bus.level(pin)

    def test_a20_by_commands_output_port_and_port92(self, bus: FakeBus) -> None:
        """The gate follows whoever wrote last."""
        steps = [
            (lambda: command(bus, 0xDD), 0),
            (lambda: command(bus, 0xDF), 1),
            (lambda: command(bus, 0xD1, 0xDD), 0),
            (lambda: command(bus, 0xD1, 0xDF), 1),
            (lambda: bus.write(PORT92, 0, 0x00), 0),
            (lambda: bus.write(PORT92, 0, 0x02), 1),
        ]
        assert bus.level("a20")
        for act, level in steps:
            act()
            assert bus.level("a20") == level
        assert [v for _, v in bus.edges("a20")] == [level for _, level in steps]

    @pytest.mark.parametrize(("low", "resets"), [(0xFE, True), (0xF0, True), (0xFF, False), (0xF1, False)])
    def test_pulse(self, bus: FakeBus, low: int, resets: bool) -> None:
        command(bus, low)
        assert [e.kind for e in bus.take()] == ["reset"] * resets

    def test_output_port_bit_0_resets(self, bus: FakeBus) -> None:
        command(bus, 0xD1, 0xDE)
        assert [e.kind for e in bus.take()] == ["reset"]

    def test_port92_resets_on_the_rising_bit_only(self, bus: FakeBus) -> None:
        for value in (0x03, 0x03, 0x02, 0x03):
            bus.write(PORT92, 0, value)
            assert bus.read(PORT92, 0) == value
        assert [e.kind for e in bus.take()] == ["reset", "reset"]

    @pytest.mark.parametrize(("kind", "left"), [(1, 0xA6), (0, 0)])
    def test_port92_after_a_reset(self, bus: FakeBus, kind: int, left: int) -> None:
        """A bus reset clears bit 0, power-on all."""
        bus.write(PORT92, 0, 0xA7)
        bus.reset(kind)
        assert bus.read(PORT92, 0) == left

    def test_unknown_commands_do_nothing(self, bus: FakeBus) -> None:
        before = bus.dut.save()
        for code in (0x00, 0x12, 0x9F, 0xB0, 0xE1):
            command(bus, code)
        assert bus.dut.save() == before
        assert not bus.effects


class TestOutputBuffer:
    def test_a_byte_is_never_replaced(self, bus: FakeBus) -> None:
        bus.key(0x1E)
        command(bus, 0xAA)
        assert answers(bus) == [0x1E, 0x55]

    def test_controller_then_keyboard_then_mouse(self, bus: FakeBus) -> None:
        command(bus, 0x60, 0x33)  # both interfaces disabled
        bus.input(AUX, 0, 0, 0xA1)
        bus.key(0x1E)
        assert not bus.read(CMD, 0) & OBF
        command(bus, 0x60, 0x03)
        command(bus, 0xAA)
        assert answers(bus) == [0x1E, 0x55, 0xA1], "the keyboard got the buffer first; then the controller's own"

    def test_interrupts_follow_the_enables(self, bus: FakeBus) -> None:
        bus.key(0x1E)
        assert bus.level("kbd_irq")
        command(bus, 0x60, 0x02)
        assert not bus.level("kbd_irq")
        command(bus, 0x60, 0x13)
        assert not bus.level("kbd_irq"), "a disabled interface holds its interrupt"
        command(bus, 0x60, 0x03)
        assert bus.level("kbd_irq")

    def test_irq_drops_between_bytes(self, bus: FakeBus) -> None:
        for byte in (1, 2, 3):
            bus.key(byte)
        assert answers(bus) == [1, 2, 3]
        assert [v for _, v in bus.edges("kbd_irq")] == [1, 0] * 3

    def test_keyboard_gives_way_to_a_waiting_mouse(self, bus: FakeBus) -> None:
        for byte in (0x10, 0x11):
            bus.key(byte)
        bus.input(AUX, 0, 0, 0xA1)
        assert answers(bus) == [0x10, 0xA1, 0x11]

    def test_empty_buffer_reads_the_last_byte(self, bus: FakeBus) -> None:
        bus.key(0x1E)
        assert [bus.read(DATA, 0) for _ in range(3)] == [0x1E] * 3

    def test_sixteen_bytes_are_held(self, bus: FakeBus) -> None:
        for byte in range(20):
            bus.key(byte)
        assert answers(bus) == list(range(16))

    def test_throttle_holds_the_next_byte_for_a_millisecond(self) -> None:
        bus = FakeBus(I8042(throttle=True))
        bus.step(5_000_999)
        for byte in (1, 2):
            bus.key(byte)
        assert answers(bus) == [1]
        assert bus.dut.deadline == 6_000_000
        bus.goto(5_999_999)
        assert answers(bus) == []
        bus.goto(6_000_000)
        assert answers(bus) == [2]


class TestKeyboard:
    def test_reset(self, bus: FakeBus) -> None:
        assert keyboard(bus, 0xFF) == [0xFA, 0xAA]

    def test_identify_raw_and_translated(self, bus: FakeBus) -> None:
        assert keyboard(bus, 0xF2) == [0xFA, 0xAB, 0x83]
        command(bus, 0x60, 0x43)
        assert keyboard(bus, 0xF2) == [0xFA, 0xAB, 0x41]

    def test_echo_and_resend(self, bus: FakeBus) -> None:
        assert keyboard(bus, 0xEE) == [0xEE]
        assert keyboard(bus, 0x77) == [0xFE], "not a command: send it again"

    def test_leds(self, bus: FakeBus) -> None:
        assert keyboard(bus, 0xED) == [0xFA]
        assert keyboard(bus, 0x05) == [0xFA]
        assert bus.dut.inspect()["leds"] == 5

    @pytest.mark.parametrize(("number", "translated"), [(1, 0x43), (2, 0x41), (3, 0x3F)])
    def test_scan_code_sets(self, bus: FakeBus, number: int, translated: int) -> None:
        assert keyboard(bus, 0xF0) == keyboard(bus, number) == [0xFA]
        assert keyboard(bus, 0xF0) == [0xFA]
        assert keyboard(bus, 0x00) == [0xFA, number]
        command(bus, 0x60, 0x43)
        keyboard(bus, 0xF0)
        assert keyboard(bus, 0x00) == [0xFA, translated]
        keyboard(bus, 0xF0)
        assert keyboard(bus, 0x04) == [0xFE]

    def test_translation_of_make_and_break(self, bus: FakeBus) -> None:
        command(bus, 0x60, 0x43)
        press(bus, 0x1C, 0xF0, 0x1C, 0xE0, 0x75, 0xE0, 0xF0, 0x75, 0x83, 0xF0, 0x84)
        assert answers(bus) == [0x1E, 0x9E, 0xE0, 0x48, 0xE0, 0xC8, 0x41, 0xD4]

    def test_translation_covers_set_2(self, bus: FakeBus) -> None:
        """Every key of set 2 has a code of its own in set 1."""
        command(bus, 0x60, 0x43)
        codes = []
        for byte in (*range(1, 0x80), 0x83, 0x84):
            press(bus, byte)
            codes += answers(bus)
        assert sorted(set(codes)) == [*range(1, 0x80)], "all of 01h..7Fh"
        assert [codes.count(c) for c in (0x41, 0x54)] == [2, 2], "83h and 84h double 02h and 7Fh"
        assert len(codes) == 129

    def test_no_translation(self, bus: FakeBus) -> None:
        press(bus, 0xE0, 0xF0, 0x75)
        assert answers(bus) == [0xE0, 0xF0, 0x75]

    def test_scanning_off_takes_no_keys(self, bus: FakeBus) -> None:
        keyboard(bus, 0xF5)
        press(bus, 0x1C)
        assert answers(bus) == []
        keyboard(bus, 0xF4)
        press(bus, 0x1C)
        assert answers(bus) == [0x1C]

    def test_answers_go_before_keys_and_a_new_command_drops_them(self, bus: FakeBus) -> None:
        command(bus, 0x60, 0x13)  # keyboard interface off: nothing is read yet
        for byte in (0x1C, 0x1D):
            press(bus, byte)
        bus.write(DATA, 0, 0xF2)  # this enables it
        assert bus.read(DATA, 0) == 0xFA
        assert keyboard(bus, 0xEE) == [0xEE, 0x1C, 0x1D], "what was left of the identity is gone"

    def test_defaults_forget_keys(self, bus: FakeBus) -> None:
        command(bus, 0x60, 0x13)
        press(bus, 0x1C)
        assert keyboard(bus, 0xF6) == [0xFA]

    def test_a_byte_for_the_keyboard_enables_its_interface(self, bus: FakeBus) -> None:
        command(bus, 0xAD)
        keyboard(bus, 0xF4)
        command(bus, 0x20)
        assert answers(bus) == [0x03]


class TestMouse:
    def test_reset(self, bus: FakeBus) -> None:
        assert mouse(bus, 0xFF) == [0xFA, 0xAA, 0x00]
        assert mouse(bus, 0xE9) == [0xFA, 0x00, 2, 100]

    def test_status(self, bus: FakeBus) -> None:
        assert mouse(bus, 0xE8, 3, 0xF3, 40, 0xE7, 0xF4, 0xF0) == [0xFA] * 7
        assert mouse(bus, 0xE9) == [0xFA, 0x70, 3, 40]
        assert mouse(bus, 0xE6, 0xF5, 0xEA) == [0xFA] * 3
        assert mouse(bus, 0xE9) == [0xFA, 0x00, 3, 40]
        assert mouse(bus, 0xF6, 0xE9) == [0xFA, 0xFA, 0x00, 2, 100]

    def test_wrap_mode(self, bus: FakeBus) -> None:
        assert mouse(bus, 0xEE, 0xF4, 0x55, 0xEC, 0xF2) == [0xFA, 0xF4, 0x55, 0xFA, 0xFA, 0x00]

    def test_unknown_command_is_not_answered(self, bus: FakeBus) -> None:
        assert mouse(bus, 0x11) == []

    @pytest.mark.parametrize(
        ("rates", "kind"), [((200, 100, 80), 3), ((200, 200, 80), 4), ((200, 100, 60), 0), ((100, 200, 80), 0)]
    )
    def test_wheel_knock(self, bus: FakeBus, rates: tuple[int, ...], kind: int) -> None:
        for rate in rates:
            mouse(bus, 0xF3, rate)
        assert mouse(bus, 0xF2) == [0xFA, kind]

    def test_packet(self, bus: FakeBus) -> None:
        move(bus, 5, 5)
        assert answers(bus) == [], "disabled"
        mouse(bus, 0xF4)
        move(bus, 5, -3, buttons=1)
        assert answers(bus) == [0x29, 5, 0xFD]
        assert [v for _, v in bus.edges("aux_irq")] == [1, 0] * 4

    def test_large_motion_takes_packets(self, bus: FakeBus) -> None:
        mouse(bus, 0xF4)
        move(bus, 300)
        assert answers(bus) == [0x08, 127, 0, 0x08, 127, 0, 0x08, 46, 0]

    def test_remote_mode_reports_on_request(self, bus: FakeBus) -> None:
        mouse(bus, 0xF4, 0xF0)
        move(bus, 7, 1)
        assert answers(bus) == []
        assert mouse(bus, 0xEB) == [0xFA, 0x08, 7, 1]
        assert mouse(bus, 0xEB) == [0xFA, 0x08, 0, 0]

    def test_wheel_and_buttons(self, bus: FakeBus) -> None:
        mouse(bus, 0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF4)
        move(bus, dz=-2)
        assert answers(bus) == [0x08, 0, 0, 0xFE]
        mouse(bus, 0xF3, 200, 0xF3, 200, 0xF3, 80)
        move(bus, dz=1, buttons=0x10)
        assert answers(bus) == [0x08, 0, 0, 0x21]

    def test_a_full_queue_takes_no_half_packet(self, bus: FakeBus) -> None:
        mouse(bus, 0xF4)
        for n in range(1, 8):
            move(bus, n)
        got = answers(bus)
        assert got[:15] == [b for n in range(1, 6) for b in (0x08, n, 0)]
        assert len(got) == 15, "the rest is added up for the next packet"
        move(bus, 0)
        assert answers(bus) == [0x08, 13, 0]


def test_reset_forgets_everything(bus: FakeBus) -> None:
    fresh = I8042().save()
    command(bus, 0xD1, 0xDD)
    bus.key(0x1E)
    move(bus, 3)
    keyboard(bus, 0xF0, 1)
    command(bus, 0x60, 0x00)
    bus.reset()
    assert bus.dut.save() == fresh
    assert bus.level("a20")


def test_save_and_restore_in_the_middle(bus: FakeBus) -> None:
    bus.key(0x1E)
    bus.key(0x9E)
    command(bus, 0x60)
    other = FakeBus(I8042())
    other.dut.restore(bus.dut.save())
    assert not other.effects, "restoring makes no edge"
    for b in (bus, other):
        b.write(DATA, 0, 0x03)
        assert answers(b) == [0x1E, 0x9E]
    assert other.dut.save() == bus.dut.save()


def test_restore_refuses_and_tames(bus: FakeBus) -> None:
    state = bus.dut.save()
    with pytest.raises(StateError):
        bus.dut.restore(state | {"mode": 256})
    bus.dut.restore(state | {"count": [9999, 9999], "answers": [255, 255]})
    assert len(answers(bus)) <= 255
