"""Motorola MC146818A real-time clock with 128 bytes of RAM, as PC chipsets have it behind ports 70h and 71h.

Documents: MC146818A data sheet (Motorola, 1984); the ports and the second half of the RAM: 82371AB (PIIX4) data sheet,
290562, section 4.2.4.2 and the real-time clock registers that follow it.  Modelled: time of day and calendar in BCD or
binary, 12 or 24 hours, update cycles with UIP, the alarm with don't-care bytes, the three interrupts, the periodic
rates of the 32 768 Hz time base, divider reset, the SET bit, the century byte of the PC/AT.  The time is computed from
the virtual clock when it is asked for: the part sleeps while nothing can become visible.

Not modelled (docs/devices/mc146818.md): the square-wave pin, daylight saving, other crystals, the NMI mask of port 70h.
Used by the owning worker only.
"""
from datetime import datetime, timezone

cimport cython
from libc.string cimport memcpy

from engine._device cimport IO_CONTENT, IO_OK, NEVER, RESET_POWER_ON, Device, io_status, reset_kind
from engine._muldiv cimport muldiv

from engine.errors import MachineError, StateError
from engine.types import RC, RO, RW, WO, Region, Register, Space

cdef enum:
    CRYSTAL_HZ = 32768
    NS_PER_SECOND = 1000000000
    UIP_NS = NS_PER_SECOND // (CRYSTAL_HZ // 8) # tBUC, 244 us: how long before its end an update shows in UIP
    SECONDS_PER_DAY = 86400
    RESUME_FROM_S3 = 0xFE                       # the firmware's mark in SHUTDOWN_STATUS, which a reset keeps


cdef inline bint shows_time(uint32_t index) noexcept nogil:
    return index <= YEAR and index != SECONDS_ALARM and index != MINUTES_ALARM and index != HOURS_ALARM or index == CENTURY


cdef inline int64_t days_from_civil(int64_t y, int64_t m, int64_t d) noexcept nogil:
    """Days from 1970-01-01 to a date of the proleptic Gregorian calendar.  Bytes a guest wrote may be no date: the sum
    is carried on with whatever they hold, as in the reference."""
    if m < 3:
        m += 12
        y -= 1
    return d + (153 * m - 457) // 5 + 365 * y + y // 4 - y // 100 + y // 400 - 719469


cdef inline void civil_from_days(int64_t z, int64_t *y, int32_t *m, int32_t *d) noexcept nogil:
    """The inverse, for every date: years that begin in March, eras of 400 years."""
    cdef int64_t era, doe, yoe, doy, mp
    z += 719468
    era = (z if z >= 0 else z - 146096) // 146097
    doe = z - era * 146097
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    d[0] = <int32_t>(doy - (153 * mp + 2) // 5 + 1)
    m[0] = <int32_t>(mp + 3 if mp < 10 else mp - 9)
    y[0] = yoe + era * 400 + (m[0] <= 2)


def _byte(name, index, access, reset=None, wmask=0xFF, effects="", section="Address Map"):
    return Register(name, DATA, 8, access, reset, wmask, effects, f"MC146818A {section}", index=index)


@cython.final
cdef class Mc146818(Device):
    """Ports INDEX and DATA in region 0; output "irq".

    base: the UTC time at power-on, ISO 8601.  cmos: byte number (or its text, "0x38") -> value at power-on, for numbers
    the part does not keep itself; see engine.machine.cmos for what a PC's firmware expects there.  host_time: the guest
    that is replayed was shown its host's time, which nobody can compute: reads of the time are content.
    """
    TITLE = "MC146818A real-time clock and CMOS RAM"
    OUT = ("irq",)
    CONFIG = {"base": "2024-01-01T00:00:00", "cmos": {}, "host_time": False}
    STATE = (("next_periodic", "u8"), ("next_update", "u8"), ("next_alarm", "u8"), ("base_s", "i8"), ("last_set", "u8"),
             ("offset", "u8"), ("ram", "u1", RAM_BYTES), ("index", "u1"))
    REGISTERS = (
        Register("INDEX", INDEX, 8, WO, 0, INDEX_MASK, "bit 7, the NMI mask, is not kept", "82371AB 4.2.4.2"),
        _byte("SECONDS", SECONDS, RW, effects="sets the time"),
        _byte("SECONDS_ALARM", SECONDS_ALARM, RW),
        _byte("MINUTES", MINUTES, RW, effects="sets the time"),
        _byte("MINUTES_ALARM", MINUTES_ALARM, RW),
        _byte("HOURS", HOURS, RW, effects="sets the time"),
        _byte("HOURS_ALARM", HOURS_ALARM, RW),
        _byte("DAY_OF_WEEK", DAY_OF_WEEK, RW, effects="sets the time"),
        _byte("DAY_OF_MONTH", DAY_OF_MONTH, RW, effects="sets the time"),
        _byte("MONTH", MONTH, RW, effects="sets the time"),
        _byte("YEAR", YEAR, RW, effects="sets the time"),
        _byte("REGISTER_A", REGISTER_A, RW, A_POWER_ON, 0xFF & ~A_UIP, "divider and periodic rate", "Register A ($0A)"),
        _byte("REGISTER_B", REGISTER_B, RW, B_POWER_ON, 0xFF, "SET clears UIE; enabling a set flag interrupts",
              "Register B ($0B)"),
        _byte("REGISTER_C", REGISTER_C, RC, 0, 0, "reading clears it and lowers irq", "Register C ($0C)"),
        _byte("REGISTER_D", REGISTER_D, RO, D_VRT, 0, "", "Register D ($0D)"),
        _byte("SHUTDOWN_STATUS", SHUTDOWN_STATUS, RW, 0, 0xFF, "", "General Purpose RAM"),
        _byte("CENTURY", CENTURY, RW, effects="sets the time; 37h is another name", section="General Purpose RAM"),
    )

    def __init__(self, id="mc146818", rank=0, arena=None, dma=None, **config):
        Device.__init__(self, id, rank, arena, dma, **config)
        try:
            base = datetime.fromisoformat(self.config["base"])
        except ValueError:
            raise MachineError(f"device {id!r}: base = {self.config['base']!r} is no ISO 8601 time") from None
        if base.tzinfo is None:
            base = base.replace(tzinfo=timezone.utc)
        self.host_time = self.config["host_time"]
        self.base_s = int((base - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds())
        cdef bytes image = self._image(self.config["cmos"])
        memcpy(self.image, <const char *>image, RAM_BYTES)
        self.s = <mc146818_state *>self.state_alloc(sizeof(mc146818_state))
        self.power_on()

    def _image(self, cmos):
        """The RAM at power-on.  Raises MachineError for a byte that does not exist or that the part keeps itself."""
        image = bytearray(RAM_BYTES)
        for key, value in cmos.items():
            try:
                index = key if isinstance(key, int) else int(key, 0)
            except (TypeError, ValueError):
                raise MachineError(f"device {self.id!r}: cmos: {key!r} is no byte number") from None
            if not REGISTER_D < index < RAM_BYTES or index in (CENTURY, CENTURY_PS2):
                raise MachineError(f"device {self.id!r}: cmos: byte {index:#x} is not free; 0xe to 0x7f are, without "
                                   f"the century bytes 0x32 and 0x37")
            if not isinstance(value, int) or not 0 <= value <= 255:
                raise MachineError(f"device {self.id!r}: cmos: byte {index:#x} = {value!r} is no byte")
            image[index] = value
        return bytes(image)

    def regions(self):
        return (Region("rtc", Space.PIO, 2, accepts=(1, 2, 4), implements=(1, 1), strings=True),)

    def restore(self, dict state not None):
        """Put back what save gave; an index beyond the RAM is refused too."""
        index = state.get("index")
        if isinstance(index, int) and not 0 <= index < RAM_BYTES:
            raise StateError(f"{self.id}: field index: {index} is beyond the {RAM_BYTES} bytes of RAM")
        Device.restore(self, state)

    cdef void on_reset(self, reset_kind kind) noexcept nogil:
        """RESET#: interrupts off, flags clear (MC146818A, Signal Descriptions, RESET).  The clock, the RAM, and, as in
        the reference, UIE stay; a periodic flag that was on its way still comes."""
        self.pass_periods()
        if kind == RESET_POWER_ON:
            memcpy(self.s.ram, self.image, RAM_BYTES)
            self.s.ram[REGISTER_A] = A_POWER_ON
            self.s.ram[REGISTER_B] = B_POWER_ON
            self.s.ram[REGISTER_D] = D_VRT
            self.s.index = 0
            self.s.base_s = self.base_s
            self.s.last_set = self.core.now
            self.s.offset = 0
            self.s.next_periodic = NEVER
            self.s.next_update = NEVER
            self.s.next_alarm = 0
            self.write_clock_bytes(self.base_s)
        if self.s.ram[SHUTDOWN_STATUS] != RESUME_FROM_S3:
            self.s.ram[SHUTDOWN_STATUS] = 0
        self.s.ram[REGISTER_B] &= <uint8_t>~(B_PIE | B_AIE | B_SQWE)
        self.s.ram[REGISTER_C] &= <uint8_t>~(C_IRQF | C_PF | C_AF | C_UF)
        self.plan_update()
        self.set_line(OUT_IRQ, 0)

    # ------------------------------------------------------------------ time

    cdef bint counting(self) noexcept nogil:
        """The time advances: SET is clear and the divider runs from one of the three crystals."""
        return not self.s.ram[REGISTER_B] & B_SET and self.s.ram[REGISTER_A] & A_DV <= A_DV_32KHZ

    cdef uint64_t clock_ns(self) noexcept nogil:
        """The clock's time in nanoseconds since 1970."""
        return <uint64_t>self.s.base_s * NS_PER_SECOND + self.core.now - self.s.last_set + self.s.offset

    cdef uint8_t encode(self, int32_t v) noexcept nogil:
        """A number as the clock bytes hold it: binary or BCD."""
        if self.s.ram[REGISTER_B] & B_DM:
            return <uint8_t>v
        return <uint8_t>(v // 10 << 4 | v % 10)

    cdef int32_t decode(self, int32_t v) noexcept nogil:
        """A clock byte as a number; -1 for don't care."""
        if v & DONT_CARE == DONT_CARE:
            return -1
        if self.s.ram[REGISTER_B] & B_DM:
            return v
        return (v >> 4) * 10 + (v & 15)

    cdef int32_t hour24(self, int32_t hour) noexcept nogil:
        """An hour of the alarm or the clock on the 24-hour scale; the PM flag is the clock's, also for the alarm."""
        hour = <uint8_t>hour
        if not self.s.ram[REGISTER_B] & B_24H:
            hour %= 12
            if self.s.ram[HOURS] & HOURS_PM:
                hour += 12
        return hour

    cdef void write_clock_bytes(self, int64_t t) noexcept nogil:
        """The ten clock bytes and the century for t seconds since 1970."""
        cdef int64_t days = t // SECONDS_PER_DAY, year = 0
        cdef int32_t rest = <int32_t>(t % SECONDS_PER_DAY), month = 0, day = 0, hour
        cdef uint8_t *ram = self.s.ram
        if rest < 0:
            rest += SECONDS_PER_DAY
            days -= 1
        civil_from_days(days, &year, &month, &day)
        hour = rest // 3600
        ram[SECONDS] = self.encode(rest % 60)
        ram[MINUTES] = self.encode(rest // 60 % 60)
        if ram[REGISTER_B] & B_24H:
            ram[HOURS] = self.encode(hour)
        else:
            ram[HOURS] = self.encode(hour % 12 if hour % 12 else 12)
            if hour >= 12:
                ram[HOURS] |= HOURS_PM
        ram[DAY_OF_WEEK] = self.encode(<int32_t>(((days + 4) % 7 + 7) % 7) + 1)
        ram[DAY_OF_MONTH] = self.encode(day)
        ram[MONTH] = self.encode(month)
        ram[YEAR] = self.encode(<int32_t>(year % 100))
        ram[CENTURY] = self.encode(<int32_t>(year // 100))

    cdef void show_time(self) noexcept nogil:
        """Bring the clock bytes up to date, unless SET holds them."""
        if not self.s.ram[REGISTER_B] & B_SET:
            self.write_clock_bytes(<int64_t>self.clock_ns() // NS_PER_SECOND)

    cdef void set_time(self) noexcept nogil:
        """Start the clock now from what its bytes hold."""
        cdef uint8_t *ram = self.s.ram
        cdef int32_t hour = self.decode(ram[HOURS] & ~<int32_t>HOURS_PM)
        if not ram[REGISTER_B] & B_24H:
            hour = hour % 12 + (12 if ram[HOURS] & HOURS_PM else 0)
        self.s.base_s = (days_from_civil(self.decode(ram[YEAR]) + 100 * self.decode(ram[CENTURY]),
                                         self.decode(ram[MONTH]), self.decode(ram[DAY_OF_MONTH])) * SECONDS_PER_DAY
                         + 3600 * hour + 60 * self.decode(ram[MINUTES]) + self.decode(ram[SECONDS]))
        self.s.last_set = self.core.now

    # ------------------------------------------------------------------ update cycles and the alarm

    cdef int32_t seconds_to_alarm(self) noexcept nogil:
        """Seconds from the current one to the next match of the alarm bytes, 1 to 86 400."""
        cdef uint8_t *ram = self.s.ram
        cdef int32_t sec, minute, hour, now_sec, now_min, now_hour, left
        self.show_time()
        sec = self.decode(ram[SECONDS_ALARM])
        minute = self.decode(ram[MINUTES_ALARM])
        hour = self.decode(ram[HOURS_ALARM])
        if hour != -1:
            hour = self.hour24(hour)
        now_sec = self.decode(ram[SECONDS])
        now_min = self.decode(ram[MINUTES])
        now_hour = self.hour24(self.decode(ram[HOURS]))
        if hour == -1:
            hour = now_hour
            if minute == -1:
                minute = now_min
                if sec == -1:
                    sec = now_sec + 1
                elif now_sec > sec:
                    minute += 1
            elif now_min == minute:
                if sec == -1:
                    sec = now_sec + 1
                elif now_sec > sec:
                    hour += 1
                if sec == 60:            # the minute is over, and the next that matches is an hour away
                    sec = 0
                    hour += 1
            elif now_min > minute:
                hour += 1
        elif now_hour == hour:
            if minute == -1:
                minute = now_min
                if sec == -1:
                    sec = now_sec + 1
                elif now_sec > sec:
                    minute += 1
                if sec == 60:
                    sec = 0
                    minute += 1
                minute %= 60                # the hour is over: tomorrow
            elif now_min == minute:
                if sec == -1:
                    sec = now_sec + 1
                sec %= 60
        if minute == -1:
            minute = 0
        if sec == -1:
            sec = 0
        if sec == 60:
            sec = 0
            minute += 1
        if minute == 60:
            minute = 0
            hour += 1
        hour %= 24
        left = ((hour - now_hour) * 60 + minute - now_min) * 60 + sec - now_sec
        return left if left > 0 else left + SECONDS_PER_DAY

    cdef void plan_update(self) noexcept nogil:
        """Plan the end of the next update cycle that anyone can notice: the next second, or the alarm if UF is set
        already, or none."""
        cdef uint8_t *ram = self.s.ram
        cdef uint64_t next
        if ram[REGISTER_A] & A_DV_RESET == A_DV_RESET:
            self.s.next_update = NEVER
        else:
            next = self.core.now + NS_PER_SECOND - self.clock_ns() % NS_PER_SECOND
            self.s.next_alarm = next + <uint64_t>(self.seconds_to_alarm() - 1) * NS_PER_SECOND
            if not ram[REGISTER_A] & A_UIP and ram[REGISTER_C] & C_UF:
                if ram[REGISTER_B] & B_SET or ram[REGISTER_C] & C_AF:
                    next = NEVER
                else:
                    next = self.s.next_alarm
            self.s.next_update = next
        self.publish()

    cdef bint update_in_progress(self) noexcept nogil:
        """UIP: the last 244 us of a second (MC146818A, Update Cycle).  Once seen it stays until the update ends."""
        if not self.counting():
            return False
        if self.s.next_update != NEVER and self.core.now >= self.s.next_update - UIP_NS:
            self.s.ram[REGISTER_A] |= A_UIP
            return True
        return <int64_t>self.clock_ns() % NS_PER_SECOND >= NS_PER_SECOND - UIP_NS

    cdef void end_update(self) noexcept nogil:
        """An update cycle ends: UF, perhaps AF, and their interrupts (MC146818A, Interrupts)."""
        cdef uint8_t *ram = self.s.ram
        cdef uint32_t flags = C_UF, new
        self.show_time()
        ram[REGISTER_A] &= <uint8_t>~A_UIP
        if self.core.now >= self.s.next_alarm:
            flags |= C_AF
        new = flags & ~<uint32_t>ram[REGISTER_C]
        ram[REGISTER_C] |= <uint8_t>flags
        if new & ram[REGISTER_B]:
            ram[REGISTER_C] |= C_IRQF
            self.set_line(OUT_IRQ, 1)
        self.plan_update()

    # ------------------------------------------------------------------ periodic interrupt

    cdef uint32_t period(self) noexcept nogil:
        """The periodic interrupt's period in crystal clocks; 0 if it is off (MC146818A, table of periodic rates)."""
        cdef uint32_t rs = self.s.ram[REGISTER_A] & A_RS
        if rs == 0 or not self.s.ram[REGISTER_B] & B_PIE:
            return 0
        return <uint32_t>1 << (rs + 6 if rs <= 2 else rs - 1)

    cdef bint requested(self) noexcept nogil:
        """The periodic interrupt is requested: until that is acknowledged, more periods change nothing."""
        return self.period() != 0 and self.s.ram[REGISTER_C] & (C_PF | C_IRQF) == C_PF | C_IRQF

    cdef void pass_periods(self) noexcept nogil:
        """Plan the period behind those that have passed since the interrupt was requested, in one step."""
        cdef uint64_t tick, next, period = self.period()
        if self.requested() and 0 < self.s.next_periodic <= self.core.now:
            tick = muldiv(self.s.next_periodic, CRYSTAL_HZ, NS_PER_SECOND)
            tick += (muldiv(self.core.now, CRYSTAL_HZ, NS_PER_SECOND) - tick) // period * period
            next = muldiv(tick, NS_PER_SECOND, CRYSTAL_HZ) + 1
            if next <= self.core.now:
                next = muldiv(tick + period, NS_PER_SECOND, CRYSTAL_HZ) + 1
            self.s.next_periodic = next

    cdef void plan_periodic(self, uint32_t old_period) noexcept nogil:
        """Plan the next period; with old_period, the period changes and the time since the last tick counts."""
        cdef uint32_t period = self.period()
        cdef uint64_t clock, done = 0
        if period == 0:
            self.s.next_periodic = NEVER
        else:
            clock = muldiv(self.core.now, CRYSTAL_HZ, NS_PER_SECOND)
            if old_period and self.s.next_periodic == 0:
                done = min(old_period, period)
            elif old_period and self.s.next_periodic != NEVER:
                done = clock - (muldiv(self.s.next_periodic, CRYSTAL_HZ, NS_PER_SECOND) - old_period)
                if done > period:
                    done = period
            # One nanosecond on, so that the tick is over when its time is converted back.
            self.s.next_periodic = muldiv(clock + period - done, NS_PER_SECOND, CRYSTAL_HZ) + 1
            if self.s.next_periodic <= self.core.now:
                self.s.next_periodic = 0
        self.publish()

    # ------------------------------------------------------------------ the contract

    cdef void publish(self) noexcept nogil:
        cdef bint passed = self.requested() and self.s.next_periodic != 0
        self.set_deadline(self.s.next_update if passed else min(self.s.next_periodic, self.s.next_update))

    cdef void on_time(self) noexcept nogil:
        cdef uint8_t *ram = self.s.ram
        self.pass_periods()
        if self.s.next_periodic <= self.core.now:
            self.plan_periodic(0)
            ram[REGISTER_C] |= C_PF
            if ram[REGISTER_B] & B_PIE:
                ram[REGISTER_C] |= C_IRQF
                self.set_line(OUT_IRQ, 1)
        if self.s.next_update <= self.core.now:
            self.end_update()
        self.publish()

    cdef void write_register_a(self, uint32_t value) noexcept nogil:
        cdef uint8_t *ram = self.s.ram
        cdef uint32_t old_period = self.period(), changed = (ram[REGISTER_A] ^ value) & A_RS
        self.pass_periods()
        if value & A_DV_RESET == A_DV_RESET:
            if self.counting():
                self.show_time()
            ram[REGISTER_A] &= <uint8_t>~A_UIP
        elif ram[REGISTER_A] & A_DV_RESET == A_DV_RESET and value & A_DV <= A_DV_32KHZ:
            # The first update comes half a second after the divider is released (MC146818A, Divider Control).
            if not ram[REGISTER_B] & B_SET:
                self.s.offset = NS_PER_SECOND // 2
                self.set_time()
            ram[REGISTER_A] &= <uint8_t>~A_UIP
        ram[REGISTER_A] = <uint8_t>(value & ~<uint32_t>A_UIP | ram[REGISTER_A] & A_UIP)
        if changed:
            self.plan_periodic(old_period)
        self.plan_update()

    cdef void write_register_b(self, uint32_t value) noexcept nogil:
        cdef uint8_t *ram = self.s.ram
        cdef uint32_t old_period = self.period(), changed = (ram[REGISTER_B] ^ value) & B_PIE
        self.pass_periods()
        if value & B_SET:
            if self.counting():
                self.show_time()
            ram[REGISTER_A] &= <uint8_t>~A_UIP
            value &= ~<uint32_t>B_UIE
        elif ram[REGISTER_B] & B_SET and ram[REGISTER_A] & A_DV <= A_DV_32KHZ:
            self.s.offset = self.clock_ns() % NS_PER_SECOND
            self.set_time()
        # An enable whose flag is set already interrupts at once, and only then is a request pending.
        if value & ram[REGISTER_C] & (C_PF | C_AF | C_UF):
            ram[REGISTER_C] |= C_IRQF
            self.set_line(OUT_IRQ, 1)
        else:
            ram[REGISTER_C] &= <uint8_t>~C_IRQF
            self.set_line(OUT_IRQ, 0)
        ram[REGISTER_B] = <uint8_t>value
        if changed:
            self.plan_periodic(old_period)
        self.plan_update()

    cdef uint32_t read_data(self) noexcept nogil:
        cdef uint8_t *ram = self.s.ram
        cdef uint32_t index, value
        if self.s.index == CENTURY_PS2:
            self.s.index = CENTURY
        index = self.s.index
        if index == REGISTER_A:
            value = ram[REGISTER_A]
            return value | A_UIP if self.update_in_progress() else value
        if index == REGISTER_C:
            self.pass_periods()
            value = ram[REGISTER_C]
            ram[REGISTER_C] = 0
            self.set_line(OUT_IRQ, 0)
            if value & (C_UF | C_AF):
                self.plan_update()
            else:
                self.publish()
            return value
        if shows_time(index) and self.counting():
            self.show_time()
        return ram[index]

    cdef void write_data(self, uint32_t value) noexcept nogil:
        cdef uint32_t index
        if self.s.index == CENTURY_PS2:
            self.s.index = CENTURY
        index = self.s.index
        if index == REGISTER_A:
            self.write_register_a(value)
        elif index == REGISTER_B:
            self.write_register_b(value)
        elif index != REGISTER_C and index != REGISTER_D:
            self.s.ram[index] = <uint8_t>value
            if index == SECONDS_ALARM or index == MINUTES_ALARM or index == HOURS_ALARM:
                self.plan_update()
            elif (index <= YEAR or index == CENTURY) and self.counting():
                self.set_time()
                self.plan_update()

    cdef io_status read(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        # The index register is write-only: its port reads as an open bus.
        if offset & 1 != DATA:
            value[0] = 0xFF
            return IO_OK
        value[0] = self.read_data()
        if self.host_time and shows_time(self.s.index):
            return <io_status>(IO_OK | IO_CONTENT)
        return IO_OK

    cdef uint64_t string_until(self, uint32_t region, uint32_t offset, uint32_t size, bint write) noexcept nogil:
        cdef uint32_t index = CENTURY if self.s.index == CENTURY_PS2 else self.s.index
        if write:
            return 0
        if offset & 1 != DATA or index != REGISTER_A and index != REGISTER_C and not shows_time(index):
            return NEVER
        if not shows_time(index) or self.host_time:
            return 0
        return self.core.now + NS_PER_SECOND - self.clock_ns() % NS_PER_SECOND     # while the second lasts

    cdef io_status write(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if offset & 1 == DATA:
            self.write_data(<uint32_t>value & 0xFF)
        else:
            self.s.index = value & INDEX_MASK
        return IO_OK
