"""The other end of a network controller's cable, shared by every controller.

What leaves is forgotten, comes back, or goes to a TAP interface or a stream; what comes in is read from a pcap file at the
times in it, or from a descriptor, and both directions can be captured.  Frames enter at moments of virtual time only: the
controller looks at its descriptor when a deadline of its own fires and when its receiver becomes ready.  `record` keeps
each frame that came so with its moment, and a machine that has this file as `inject` runs as the recorded one did.

Format of the files: pcap 2.4, link type 1, written with nanoseconds; read in either byte order, with micro- or
nanoseconds.  Called by the controller's owner only.
"""
cimport cython
from libc.stdio cimport fclose, fflush, fopen, fwrite
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close, read, write

import os
import struct
from pathlib import Path

from engine._device cimport IO_CONTENT, IO_NO_REGISTER, IO_OK, NEVER, io_status
from engine.pci._config cimport ROM_BAR

from engine.errors import MachineError

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t send(int fd, const void *buf, size_t n, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK

cdef enum:
    NET_NULL, NET_LOOPBACK, NET_CAPTURE, NET_TAP, NET_STREAM
    HEADER = 4                  # of a frame in a stream: its length, big endian
    QUIET_SHIFT = 6             # after each 64 looks in vain the pause between looks doubles,
    QUIET_MAX = 10              # ten times
    INJECT_MAX = 256 << 20      # bytes of an `inject` file
    ROM_MAX = 16 << 20          # bytes of an expansion ROM: PCI 6.2.5.2

BACKENDS = ("null", "loopback", "capture", "tap", "stream")
# Settings of every controller: its option ROM, and NetPort's.
NET_CONFIG = {"rom": "", "rom_size": 0, "backend": "null", "capture": "", "record": "", "inject": "", "inject_start": -1, "tap": "", "fd": -1,
              "poll_ns": 1000000}
NET_STATE = (("net_poll_at", "u8"), ("net_next", "u4"), ("net_quiet", "u4"))

cdef struct pcap_file:
    uint32_t magic
    uint32_t version
    uint32_t zone
    uint32_t accuracy
    uint32_t longest
    uint32_t link

cdef struct pcap_packet:
    uint32_t seconds
    uint32_t ns
    uint32_t kept
    uint32_t length


def read_pcap(path):
    """[(time in ns, bytes)] of a pcap file of Ethernet frames, times never decreasing.  Raises ValueError for what is none."""
    raw = Path(path).read_bytes()
    if len(raw) > INJECT_MAX:
        raise ValueError(f"is longer than {INJECT_MAX >> 20} MiB")
    magics = {struct.pack(order + "I", magic): (order, unit)
              for order in "<>" for magic, unit in ((0xA1B2C3D4, 1000), (0xA1B23C4D, 1))}
    if raw[:4] not in magics or len(raw) < 24:
        raise ValueError("is no pcap file (pcapng files are converted by `editcap -F nsecpcap`)")
    order, unit = magics[raw[:4]]
    link = struct.unpack_from(order + "I", raw, 20)[0] & 0x0FFFFFFF
    if link != 1:
        raise ValueError(f"holds frames of link type {link}, not Ethernet's 1")
    at, last, out = 24, 0, []
    while at < len(raw):
        if at + 16 > len(raw):
            raise ValueError(f"ends within frame {len(out) + 1}")
        seconds, part, kept, whole = struct.unpack_from(order + "IIII", raw, at)
        at += 16
        if kept != whole or whole > LONGEST_FRAME:
            raise ValueError(f"holds {kept} of the {whole} bytes of frame {len(out) + 1}")
        if at + kept > len(raw):
            raise ValueError(f"ends within frame {len(out) + 1}")
        last = max(last, seconds * 1000000000 + part * unit)
        out.append((last, raw[at:at + kept]))
        at += kept
    return out


@cython.final
cdef class PcapWriter:
    """A capture file, which the first frame begins.  What cannot be written is left out."""

    def __cinit__(self, str path):
        self.path = os.path.abspath(path).encode()
        self.name = self.path

    def __dealloc__(self):
        if self.file != NULL:
            fclose(self.file)

    cdef void put(self, uint64_t now, const uint8_t *p, uint32_t n) noexcept nogil:
        cdef pcap_file head
        cdef pcap_packet row
        if self.file == NULL:
            self.file = fopen(self.name, b"wb")
            if self.file == NULL:
                return
            head.magic = 0xA1B23C4D
            head.version = 4 << 16 | 2
            head.zone = head.accuracy = 0
            head.longest = 1 << 18
            head.link = 1
            fwrite(&head, sizeof(head), 1, self.file)
        row.seconds = <uint32_t>(now // 1000000000)
        row.ns = <uint32_t>(now % 1000000000)
        row.kept = row.length = n
        fwrite(&row, sizeof(row), 1, self.file)
        fwrite(p, 1, n, self.file)
        fflush(self.file)


@cython.final
cdef class NetPort:
    """The port of one controller, from its settings (NET_CONFIG):

    backend       "null": what is sent is gone; "loopback": it comes back; "capture": as null, and `capture` is wanted;
                  "tap": the TAP interface `tap`; "stream": the socket `fd`, each frame behind its length in four bytes
    capture       file that gets each frame sent or received
    record        file that gets each frame that came from the descriptor, at the moment it came in
    inject        file whose frames come in, at their times, or beginning at `inject_start` ns if that is not -1
    poll_ns       how often the descriptor is looked at while there is traffic

    A descriptor is not opened here: attach() gets it from the machine, once a device runs.
    """

    def __init__(self, str id, dict config):
        self.fd = -1
        name = config["backend"]
        if name not in BACKENDS:
            raise MachineError(f"device {id!r}: backend = {name!r}; choose one of {', '.join(BACKENDS)}")
        self.kind = <uint32_t>BACKENDS.index(name)
        for key, kind in (("tap", "tap"), ("fd", "stream"), ("capture", "capture")):
            given = config[key] >= 0 if key == "fd" else bool(config[key])
            if given != (name == kind) and (key != "capture" or not given):
                raise MachineError(f"device {id!r}: backend \"{kind}\" and the setting `{key}` go together")
        if len(config["tap"].encode()) > 15:
            raise MachineError(f"device {id!r}: tap = {config['tap']!r}: no interface has a name of more than 15 bytes")
        if not 1000 <= config["poll_ns"] <= 1000000000:
            raise MachineError(f"device {id!r}: poll_ns = {config['poll_ns']} should lie between 1000 and 1000000000")
        self.poll_ns = config["poll_ns"]
        for key in ("capture", "record"):
            if config[key] and not Path(config[key]).absolute().parent.is_dir():
                raise MachineError(f"device {id!r}: {key} = {config[key]!r}: no such folder")
        self.capturing, self.recording = bool(config["capture"]), bool(config["record"])
        self.capture, self.record = PcapWriter(config["capture"]), PcapWriter(config["record"])
        if config["inject"]:
            self._load(id, config["inject"], config["inject_start"])
        self.outside = self.n_injected or self.kind >= NET_TAP
        self.frame = <uint8_t *>malloc(HEADER + LONGEST_FRAME)
        self.rest = <uint8_t *>malloc(HEADER + LONGEST_FRAME)
        if self.frame == NULL or self.rest == NULL:
            raise MemoryError("no memory for a frame")

    def __dealloc__(self):
        free(self.frame)
        free(self.rest)
        free(self.injected)
        free(self.times)
        free(self.places)
        if self.fd >= 0:
            close(self.fd)

    def _load(self, id, path, start):
        cdef uint64_t at = 0
        cdef uint32_t i
        try:
            frames = read_pcap(path)
        except (OSError, ValueError) as e:
            raise MachineError(f"device {id!r}: inject = {path!r}: {getattr(e, 'strerror', None) or e}") from None
        first = frames[0][0] if frames and start >= 0 else 0
        start = max(start, 0)
        self.n_injected = len(frames)
        self.injected = <uint8_t *>malloc(sum(len(data) for _, data in frames) + 1)
        self.times = <uint64_t *>calloc(self.n_injected + 1, sizeof(uint64_t))
        self.places = <uint64_t *>calloc(self.n_injected + 1, sizeof(uint64_t))
        if self.injected == NULL or self.times == NULL or self.places == NULL:
            raise MemoryError("no memory for the frames to inject")
        for i, (t, data) in enumerate(frames):
            self.times[i] = t - first + start
            self.places[i] = at
            memcpy(self.injected + at, <char *>data, len(data))
            at += <uint64_t>len(data)
            self.places[i + 1] = at

    cdef void keep_in(self, net_state *s) noexcept:
        """The controller's state, which is new."""
        self.s = s
        s.poll_at = self.poll_ns if self.kind >= NET_TAP else NEVER
        s.next = s.quiet = 0

    def attach(self, int fd):
        """The descriptor of a TAP interface or a stream, which is the port's from now on."""
        self.detach()
        os.set_blocking(fd, False)
        self.fd = fd

    def detach(self):
        """Close the descriptor."""
        if self.fd >= 0:
            close(self.fd)
        self.fd = -1

    @property
    def loops(self):
        return self.kind == NET_LOOPBACK

    # ------------------------------------------------------------------ out

    cdef bint send(self, uint64_t now, const uint8_t *p, uint32_t n) noexcept nogil:
        """A frame without FCS leaves.  True if it comes back."""
        self.sent += 1
        if self.capturing:
            self.capture.put(now, p, n)
        if self.fd >= 0:
            self._write_fd(p, n)
        return self.kind == NET_LOOPBACK

    cdef void _write_fd(self, const uint8_t *p, uint32_t n) noexcept nogil:
        """A descriptor that takes nothing now loses the frame: a cable has no memory."""
        cdef ssize_t done
        if self.kind == NET_TAP:
            if write(self.fd, p, n) != <ssize_t>n:
                self.lost += 1
            return
        if self.rest_n:                         # a stream has to get the end of what it has begun to take
            done = send(self.fd, self.rest + self.rest_at, self.rest_n, MSG_DONTWAIT | MSG_NOSIGNAL)
            if done > 0:
                self.rest_at += <uint32_t>done
                self.rest_n -= <uint32_t>done
        if self.rest_n or n > LONGEST_FRAME:
            self.lost += 1
            return
        self.rest[0] = self.rest[1] = 0
        if n >> 16:
            self.rest[1] = 1
        self.rest[2] = <uint8_t>(n >> 8)
        self.rest[3] = <uint8_t>n
        memcpy(self.rest + HEADER, p, n)
        done = send(self.fd, self.rest, HEADER + n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if done <= 0:
            self.lost += 1
        elif done < HEADER + n:
            self.rest_at = <uint32_t>done
            self.rest_n = HEADER + n - <uint32_t>done

    # ------------------------------------------------------------------ in

    cdef void came(self, uint64_t now, const uint8_t *p, uint32_t n) noexcept nogil:
        """The controller has taken a frame from outside."""
        self.received += 1
        if self.capturing:
            self.capture.put(now, p, n)

    cdef const uint8_t *take(self, uint64_t now, uint32_t *n) noexcept nogil:
        """The next frame for a receiver that is ready, and its length; NULL if there is none now."""
        cdef uint32_t i = self.s.next
        if i < self.n_injected and self.times[i] <= now:
            self.s.next += 1
            n[0] = <uint32_t>(self.places[i + 1] - self.places[i])
            return self.injected + self.places[i]
        if self.fd < 0:
            return NULL
        n[0] = self._read_fd()
        if n[0] == 0:
            return NULL
        if self.recording:
            self.record.put(now, self.frame + HEADER, n[0])
        return self.frame + HEADER

    cdef uint32_t _read_fd(self) noexcept nogil:
        """One frame into self.frame, behind HEADER bytes: its length, 0 if there is none.  A stream that is no stream of
        frames is given up."""
        cdef ssize_t got
        cdef uint32_t n
        if self.kind == NET_TAP:
            got = read(self.fd, self.frame + HEADER, LONGEST_FRAME)
            return <uint32_t>got if got > 0 else 0
        got = recv(self.fd, self.frame, HEADER + LONGEST_FRAME, MSG_PEEK | MSG_DONTWAIT)
        if got < HEADER:
            return 0
        n = <uint32_t>self.frame[0] << 24 | <uint32_t>self.frame[1] << 16 | <uint32_t>self.frame[2] << 8 | self.frame[3]
        if n == 0 or n > LONGEST_FRAME:
            close(self.fd)
            self.fd = -1
            return 0
        if got < HEADER + n or recv(self.fd, self.frame, HEADER + n, MSG_DONTWAIT) != <ssize_t>(HEADER + n):
            return 0
        return n

    cdef void looked(self, uint64_t now, uint32_t n) noexcept nogil:
        """The receiver has taken n frames, and would take more: when to look again.  A line on which nothing happens is
        looked at ever more rarely."""
        if self.kind < NET_TAP:
            return
        if n:
            self.s.quiet = 0
        elif self.s.quiet < QUIET_MAX << QUIET_SHIFT:
            self.s.quiet += 1
        self.s.poll_at = now + (1 if n >= FRAMES_AT_ONCE else self.poll_ns << (self.s.quiet >> QUIET_SHIFT))

    cdef void busy(self, uint64_t now) noexcept nogil:
        """Software is at work on the controller: look often again."""
        if self.s.quiet >> QUIET_SHIFT:
            self.s.quiet = 0
            self.s.poll_at = min(self.s.poll_at, now + self.poll_ns)

    cdef bint due(self, uint64_t now) noexcept nogil:
        """Is it time for a look?"""
        return self.s.poll_at <= now or self.s.next < self.n_injected and self.times[self.s.next] <= now

    cdef uint64_t deadline(self, uint64_t now, uint64_t ready_at) noexcept nogil:
        """When the controller should look next.  ready_at: when the receiver may take a frame that has come; NEVER if it
        waits for software."""
        cdef uint64_t at = self.s.poll_at
        if self.s.next < self.n_injected:
            at = min(at, ready_at if self.times[self.s.next] <= now else self.times[self.s.next])
        return at


cdef class NetController(PciFunction):
    """What every controller has in common: the port that its cable is plugged into, and its option ROM.

    rom           image of the option ROM, in a base address register as large as its length rounded up to a power of two
    rom_size      length of that register where no image is given, or a larger one; 0 and no image: there is none
    """

    def __dealloc__(self):
        free(self.rom)

    def plug_rom(self):
        """The expansion ROM that the settings ask for, after the header has been filled: PCI 6.2.5.2."""
        data = b""
        if name := self.config["rom"]:
            try:
                data = Path(name).read_bytes()
            except OSError as e:
                raise MachineError(f"device {self.id!r}: option ROM {name}: {e.strerror}") from None
        size = max(self.config["rom_size"], len(data))
        if not size:
            if name:
                raise MachineError(f"device {self.id!r}: option ROM {name} is empty")
            return
        if size > ROM_MAX:
            raise MachineError(f"device {self.id!r}: an option ROM cannot be {size:#x} bytes long")
        self.rom_size = max(2048, 1 << (size - 1).bit_length())
        self.add_rom(self.rom_size)
        self.rom = <uint8_t *>calloc(self.rom_size, 1)
        if self.rom == NULL:
            raise MemoryError("no memory for an option ROM")
        if data:
            self.set_contents({"rom": data})

    cdef io_status rom_read(self, uint32_t offset, uint32_t size, uint64_t *value) noexcept nogil:
        """Its bytes are content: another program made them."""
        if offset + size > self.rom_size:
            return IO_NO_REGISTER
        memcpy(value, self.rom + offset, size)
        return <io_status>(IO_OK | IO_CONTENT)

    cdef void learn(self, uint32_t region, uint32_t offset, uint32_t size, uint64_t value) noexcept nogil:
        if region == ROM_BAR and offset + size <= self.rom_size:
            memcpy(self.rom + offset, &value, size)
            self.rom_known = True

    def contents(self):
        """Known content: {"rom": bytes} once the option ROM is known."""
        return {"rom": (<char *>self.rom)[:self.rom_size]} if self.rom_known else {}

    def set_contents(self, contents):
        """Supply the option ROM: {"rom": bytes}.  Raises MachineError if it is too long or something else is given."""
        for name, data in contents.items():
            if name != "rom" or len(data) > self.rom_size:
                raise MachineError(f"device {self.id!r}: {len(data)} bytes for {name!r}; 'rom' has {self.rom_size}")
            memset(self.rom, 0, self.rom_size)
            memcpy(self.rom, <const char *>(<bytes>data), len(data))
            self.rom_known = True

    def attach(self, int fd):
        """The descriptor of the network's other end."""
        self.net.attach(fd)

    def detach(self):
        """The machine stops: the descriptor is closed."""
        self.net.detach()

    @property
    def sent(self):
        """Packets that left since the device was built."""
        return self.net.sent

    @property
    def received(self):
        """Packets that came in since the device was built."""
        return self.net.received
