"""Sealed memory files: what create promises, what attach refuses."""

import fcntl
import gc
import mmap
import os
import resource
import struct

import pytest

from engine import _shm
from engine._shm import LINK, RAW, RING, Segment
from engine.errors import RingError

SEAL_SEAL, SEAL_SHRINK, SEAL_GROW, SEAL_WRITE = 1, 2, 4, 8
ALL = SEAL_SEAL | SEAL_SHRINK | SEAL_GROW


def memfd(size=8192, seals=ALL, data=b""):
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, data, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def header(magic=0x71657269, version=3, size=8192, kind=LINK, header_size=64):
    return struct.pack("<IIQIIII32s", magic, version, size, kind, header_size, 1, 0, b"peer")


def test_size_is_rounded_up_to_pages_and_memory_is_zero():
    with Segment.create("a", 5000) as s:
        assert len(s) == s.size == 8192
        assert bytes(s) == bytes(8192)


def test_both_sides_see_one_memory():
    a = Segment.create("a", 4096)
    b = Segment.attach(a.fileno())
    memoryview(b)[4095] = 0x5A
    assert memoryview(a)[4095] == 0x5A
    assert (b.size, b.kind) == (4096, RAW)


def test_sealed_against_resizing_and_further_seals():
    s = Segment.create("a", 4096)
    assert fcntl.fcntl(s.fileno(), fcntl.F_GET_SEALS) & ALL == ALL
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(s.fileno(), size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(s.fileno(), fcntl.F_ADD_SEALS, SEAL_WRITE)


def test_descriptor_is_closed_on_exec():
    assert fcntl.fcntl(Segment.create("a", 4096).fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_nothing_appears_in_dev_shm():
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    s = Segment.create("a-name-to-look-for", 4096)
    after = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    assert not any("a-name-to-look-for" in name for name in after - before)
    assert s.fileno() > 2


def test_header_of_a_kind():
    s = Segment.create("com1 <-> worker 0, and a name far too long for the header", 4096, LINK, header_size=128)
    magic, version, size, kind, header_size, creator, _, name = struct.unpack("<IIQIIII32s", bytes(s)[:64])
    assert (magic, version, size, kind, header_size, creator) == (0x71657269, 3, 4096, LINK, 128, os.getpid())
    assert name == b"com1 <-> worker 0, and a name f\0"
    assert Segment.attach(s.fileno(), LINK).name == "com1 <-> worker 0, and a name f"


@pytest.mark.parametrize("options", [{}, {"prefault": True}, {"huge": True}, {"prefault": True, "huge": True}])
def test_options_give_usable_memory(options):
    s = Segment.create("a", 3 << 20, **options)
    memoryview(s)[:] = b"\xa5" * s.size
    assert bytes(Segment.attach(s.fileno(), prefault=options.get("prefault", False)))[-1] == 0xA5


def test_prefault_takes_the_pages():
    lazy, taken = Segment.create("a", 1 << 20), Segment.create("b", 1 << 20, prefault=True)
    assert os.fstat(lazy.fileno()).st_blocks == 0
    assert os.fstat(taken.fileno()).st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("size", [0, -1, 1 << 60])
def test_create_refuses_impossible_sizes(size):
    with pytest.raises(RingError, match="cannot have"):
        Segment.create("a", size)


def test_create_refuses_an_unknown_kind_and_a_header_that_does_not_fit():
    for kind, header_size in ((77, 64), (LINK, 8), (LINK, 8192)):
        with pytest.raises(RingError, match="cannot be made"):
            Segment.create("a", 4096, kind, header_size=header_size)


def test_not_made_by_hand():
    with pytest.raises(TypeError, match=r"Segment\.create"):
        Segment()


@pytest.mark.parametrize(
    ("seals", "missing"),
    [
        (0, "SHRINK and GROW and SEAL"),
        (SEAL_SHRINK | SEAL_SEAL, "GROW"),
        (SEAL_SHRINK | SEAL_GROW, "SEAL"),
        (SEAL_GROW | SEAL_SEAL, "SHRINK"),
    ],
)
def test_attach_refuses_missing_seals(seals, missing):
    fd = memfd(seals=seals)
    with pytest.raises(RingError, match=f"seal {missing} is missing"):
        Segment.attach(fd)
    os.close(fd)


def test_attach_refuses_a_seal_against_writing():
    fd = memfd(seals=ALL | SEAL_WRITE)
    with pytest.raises(RingError, match="sealed against writing"):
        Segment.attach(fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (header(magic=0), "magic is 0x0"),
        (header(version=1), "version is 1, this build has 3"),
        (header(size=4096), "header says 4096 bytes, the file has 8192"),
        (header(kind=RING), "kind is ring, expected link"),
        (header(kind=999), "kind is 999, expected link"),
        (header(header_size=1 << 20), "header size 1048576 is impossible"),
        (b"", "magic is 0x0"),
    ],
)
def test_attach_names_what_is_wrong_with_a_header(data, complaint):
    fd = memfd(data=data)
    with pytest.raises(RingError, match=complaint):
        Segment.attach(fd, LINK)
    os.close(fd)


def test_attach_refuses_the_wrong_size_and_odd_sizes():
    fd = memfd(size=8192)
    with pytest.raises(RingError, match="size is 8192, expected 4096"):
        Segment.attach(fd, size=4096)
    odd = memfd(size=5000)
    with pytest.raises(RingError, match="size 5000 is not a whole number of pages"):
        Segment.attach(odd)
    os.close(fd)
    os.close(odd)


def test_attach_refuses_what_is_no_memory_file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(4096))
    with open(tmp_path / "file", "r+b") as f, pytest.raises(RingError, match=r"not a memory file|is missing"):
        Segment.attach(f.fileno())
    with pytest.raises(RingError, match="fstat failed: Bad file descriptor"):
        Segment.attach(99999)


def test_attach_keeps_its_own_descriptor():
    a = Segment.create("a", 4096)
    fd = os.dup(a.fileno())
    b = Segment.attach(fd)
    os.close(fd)
    a.close()
    memoryview(b)[0] = 1
    assert Segment.attach(b.fileno()).size == 4096


def test_use_after_close_is_refused():
    s = Segment.create("a", 4096)
    s.close()
    s.close()
    assert s.closed
    with pytest.raises(RingError, match=r"used after close\(\)"):
        memoryview(s)
    with pytest.raises(RingError, match=r"used after close\(\)"):
        s.fileno()


def test_close_is_refused_while_a_buffer_is_out():
    s = Segment.create("a", 4096)
    view = memoryview(s)
    with pytest.raises(BufferError, match="1 buffers"):
        s.close()
    view.release()
    s.close()


def test_use_in_the_child_of_a_fork_is_refused():
    s = Segment.create("a", 4096)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            memoryview(s)
        except RingError as e:
            code = 0 if "after a fork" in str(e) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    memoryview(s)[0] = 1


def test_nothing_leaks():
    def count():
        gc.collect()
        with open("/proc/self/maps") as maps:
            return len(os.listdir("/proc/self/fd")), sum("engine-leak" in line for line in maps)

    Segment.create("leak", 4096)
    before = count()
    for _ in range(50):
        s = Segment.create("leak", 4096)
        Segment.attach(s.fileno())
        fd = memfd(data=header(magic=1))
        with pytest.raises(RingError):
            Segment.attach(fd, LINK)
        os.close(fd)
    del s
    assert count() == (before[0], 0)


def test_guard_pages_on_both_sides():
    s = Segment.create("guarded", 8192)
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps]
    at = next(i for i, line in enumerate(lines) if "engine-guarded" in line[-1] or "engine-guarded" in " ".join(line))
    start, end = lines[at][0].split("-")
    for side, edge in ((lines[at - 1], 1), (lines[at + 1], 0)):
        assert side[0].split("-")[edge] == (start, end)[1 - edge]
        assert side[1].startswith("---")
    assert len(s) == 8192


def test_too_many_open_files_says_so():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir("/proc/self/fd")) + 1
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
        with pytest.raises(RingError, match=r"too many open files; raise `ulimit -n`"):
            for _ in range(used + 16):
                held.append(Segment.create("a", 4096))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_lack_of_address_space_says_so():
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as f:
        size = int(f.read().split()[0]) * mmap.PAGESIZE
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), hard))
        with pytest.raises(RingError, match="mapping 1073741824 bytes failed: not enough memory"):
            Segment.create("a", 1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_kinds_have_names():
    assert set(_shm.KINDS) == {RAW, LINK, RING, _shm.ARENA}
    assert repr(Segment.create("a", 4096)) == "<Segment 'a' raw 4096 bytes>"
