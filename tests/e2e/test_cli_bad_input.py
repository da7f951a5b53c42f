"""What users get wrong, and what goes wrong around the command: one clear line, the right status, nothing left over."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from engine import ACC, UsageError, data
from engine.cli.text import check_output
from engine.measure.diff.board import Board, Part
from engine.measure.diff.judge import Difference, write_case
from engine.measure.diff.sides import save_recording

TRACE = data.TRACES / "boot-pc.npz"
NO_BUDGETS = ("--no-budgets", "--path", "local")


def arrays(**changes):
    """The arrays of a good trace with some changed; None takes one away."""
    with np.load(TRACE) as z:
        out = {k: z[k] for k in z.files}
    out.update(changes)
    return {k: v for k, v in out.items() if v is not None}


def accesses(field, value, at=1000):
    with np.load(TRACE) as z:
        acc = z["acc"].copy()
    acc[field][at] = value
    return acc


def claimed(path, shape):
    """A trace whose array of accesses says that it has this shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(ACC), "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(TRACE) as there, zipfile.ZipFile(path, "w") as out:
        for name in there.namelist():
            out.writestr(name, header.getvalue() + bytes(64) if name == "acc.npy" else there.read(name))


def refused(got, *words):
    assert got.returncode == 2, (got.returncode, got.stdout, got.stderr)
    assert got.stdout == "" and got.stderr.count("\n") == 1 and got.stderr.startswith("engine "), got.stderr
    for word in words:
        assert word in got.stderr, (word, got.stderr)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda p: p.write_bytes(TRACE.read_bytes()[:100_000]), ["truncated"]),
        (lambda p: p.write_bytes(b""), ["cannot be read as a trace"]),
        (lambda p: p.write_text("a text file\n"), ["another kind of file"]),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)), ["another kind of file"]),
        (lambda p: zipfile.ZipFile(p, "w").writestr("readme.txt", "hello"), ["not a trace"]),
        (lambda p: np.savez(p, a=np.zeros(3)), ["not a trace", "acc"]),
        (lambda p: np.savez(p, **arrays(dma=None)), ["arrays missing: dma"]),
        (lambda p: np.savez(p, **arrays(version=np.array([2]))), ["version 2 is newer"]),
        (lambda p: np.savez(p, **arrays(acc=np.zeros(5, "<u8"))), ["'acc'", "32-byte layout"]),
        (lambda p: np.savez(p, **arrays(acc=np.array([{}], dtype=object))), ["cannot be read as a trace"]),
        (lambda p: np.savez(p, **arrays(acc=accesses("size", 3))), ["access 1000 is impossible", "size 3"]),
        (lambda p: np.savez(p, **arrays(acc=accesses("space", 7))), ["access 1000 is impossible", "space 7"]),
        (lambda p: np.savez(p, **arrays(acc=accesses("dir", 2))), ["access 1000 is impossible", "dir 2"]),
        (lambda p: np.savez(p, **arrays(acc=accesses("region", 999))), ["access 1000 is impossible", "region 999"]),
        (lambda p: np.savez(p, **arrays(acc=accesses("addr", 1 << 40))), ["impossible", "0x10000000000"]),
        (lambda p: np.savez(p, **arrays(acc=accesses("t_ns", 1))), ["time goes back at access 1000"]),
        (lambda p: p.mkdir(), ["not a file"]),
        (lambda p: claimed(p, (1 << 44,)), ["an array of it is damaged"]),
        (lambda p: claimed(p, (-5,)), ["an array of it is damaged"]),
    ],
    ids=[
        "truncated",
        "empty",
        "text",
        "png",
        "zip",
        "npz",
        "array-missing",
        "newer",
        "dtype",
        "objects",
        "size",
        "space",
        "dir",
        "region",
        "port",
        "time",
        "folder",
        "more-than-there-is",
        "less-than-nothing",
    ],
)
def test_trace_files(engine, tmp_path, make, words):
    make(tmp_path / "bad.npz")
    refused(engine("replay", "bad.npz", *NO_BUDGETS), "bad.npz", *words)


def test_a_trace_that_is_not_there(engine):
    refused(engine("replay", "nothing.npz"), "nothing.npz: no such file")


def test_a_side_file_without_end(engine, tmp_path):
    (tmp_path / "t.npz").write_bytes(TRACE.read_bytes())
    (tmp_path / "t.json").write_text("[" * 100_000)
    refused(engine("replay", "t.npz"), "t.json: not a side file")


def test_a_trace_without_side_file_asks_for_a_machine(engine, tmp_path):
    (tmp_path / "t.npz").write_bytes(TRACE.read_bytes())
    refused(engine("replay", "t.npz"), "--machine FILE")


@pytest.mark.parametrize(
    "text, words",
    [
        ("[board", ["not TOML"]),
        ('[board]\nbase = "i440fx"\nwheels = 4\n', [":3", "unknown key 'wheels'"]),
        ('[board]\nbase = "i440fx"\n\n[[device]]\nid = "vga"\ncolour = "red"\n', [":6", "unknown key 'colour'"]),
        (
            '[board]\nbase = "i440fx"\n\n[[device]]\nid = "com9"\ntype = "uart16550"\nat = { serial = 0x3f8 }\n',
            ["overlaps", "com1", "com9", "0x3f8"],
        ),
        ('[board]\nbase = "i440fx"\n\n[[device]]\nid = "pic"\ninputs = { ir1 = "nowhere" }\n', ["pic", "nowhere"]),
        (
            '[board]\nbase = "i440fx"\n\n[[device]]\nid = "x"\ntype = "warp-drive"\n',
            ["m.toml:4", "unknown device type 'warp-drive'"],
        ),
        ('[board]\nbase = "i440fx"\n\n[[device]]\nid = "vga"\n\n[[device]]\nid = "vga"\n', ["stands twice"]),
        ('[board]\nbase = "i440fx"\n\n[placement]\nworkers = 0\n', ["m.toml:5", "workers = 0", "1 and 1024"]),
        ('[board]\nbase = "i440fx"\n\n[placement]\nworkers = 1025\n', ["m.toml:5", "workers = 1025"]),
        ('[board]\nbase = "vt82c686"\n', ["m.toml:2", "unknown board"]),
    ],
    ids=[
        "toml",
        "board-key",
        "device-key",
        "overlap",
        "missing-wire",
        "unknown-device",
        "twice",
        "no-workers",
        "too-many-workers",
        "board",
    ],
)
def test_machine_files(engine, tmp_path, text, words):
    (tmp_path / "m.toml").write_text(text)
    refused(engine("replay", "boot-pc", "--machine", "m.toml", "--no-budgets"), *words)


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "[[placement.worker]]\ndevices = ['pit']\n[[placement.worker]]\ndevices = ['pit']\n",
            ["'pit' is placed twice", "workers 1 and 2"],
        ),
        (
            "[[placement.worker]]\ndevices = ['pit']\n[[placement.worker]]\ndevices = ['rtc']\n",
            ["same_worker unit", "'pit'", "'rtc'"],
        ),
        ("[[placement.worker]]\ndevices = ['sound']\n", ["'sound'", "no device"]),
        ("[placement]\nspeed = 3\n", ["p.toml:2", "unknown key 'speed'"]),
        ("[placement]\nworkers = 0\n", ["workers = 0"]),
        ("[board]\n", ["no [placement] table"]),
        ("[placement]\nworkers = 'three'\n", ["workers"]),
    ],
    ids=["twice", "split-unit", "unknown", "key", "zero", "no-table", "type"],
)
def test_placement_files(engine, tmp_path, text, words):
    (tmp_path / "p.toml").write_text(text)
    refused(engine("replay", "boot-pc", "--placement", "p.toml", "--no-budgets"), "p.toml", *words)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--workers", "0"], ["--workers", "1 and 1024"]),
        (["--workers", "1025"], ["workers = 1025"]),
        (["--workers", "-1"], ["workers = -1"]),
        (["--machine", "none.toml"], ["none.toml: no such machine file"]),
        (["--golden", "none.npz"], ["none.npz: no such file"]),
        (["--golden", str(data.TRACES / "seabios-pc.golden.npz")], ["does not fit"]),
        (["--golden", str(TRACE)], ["arrays missing"]),
        (["--placement", "none.toml"], ["none.toml: no such placement file"]),
        (["--placement", "random:dice"], ["random:1"]),
        (["--file", "disk"], ["NAME=PATH"]),
        (["--file", "disk=none.img"], ["none.img: no such file"]),
        (["--file", f"tape={TRACE}"], ["no trace names such a file", "disk"]),
        (["--json", "no/where.json"], ["no/where.json: no such folder"]),
        (["--report", "no/where.html"], ["no/where.html: no such folder"]),
    ],
    ids=lambda v: "-".join(v)[-40:].replace("/", "_") if isinstance(v, list) and v[0].startswith("--") else "",
)
def test_options(engine, options, words):
    refused(engine("replay", "boot-pc", "--no-budgets", *options), *words)


def test_workers_and_a_placement_that_contradict(engine, tmp_path):
    (tmp_path / "p.toml").write_text("[placement]\nworkers = 2\n")
    refused(engine("replay", "boot-pc", "--workers", "3", "--placement", "p.toml"), "--workers 3", "says 2")


def test_options_that_argparse_refuses(engine):
    for options in (["--path", "teleport"], ["--workers", "many"], ["--what"]):
        got = engine("replay", "boot-pc", *options)
        assert got.returncode == 2 and options[0] in got.stderr and "Traceback" not in got.stderr


@pytest.mark.parametrize(
    "limit, value, word",
    [(resource.RLIMIT_FSIZE, 1 << 20, "guest-ram"), (resource.RLIMIT_NOFILE, 4, ""), (resource.RLIMIT_AS, 0, "memory")],
    ids=["file-size", "descriptors", "address-space"],
)
def test_not_enough_shared_memory(engine, limit, value, word):
    """The limit is set after everything is imported, so that it is the machine that meets it."""
    code = (
        f"import resource, sys; from engine.cli import main; import engine.cli.replay, engine.frontends.replay as r\n"
        f"start = r.Machine.start\n"
        f"def limited(m):\n"
        f"    grown = {value} or int(open('/proc/self/statm').read().split()[0]) * 4096 + (1 << 20)\n"
        f"    resource.setrlimit({int(limit)}, (grown, grown)); return start(m)\n"
        f"r.Machine.start = limited; sys.exit(main())"
    )
    refused(engine("replay", "boot-pc", *NO_BUDGETS, code=code), "cannot be started", word)


ANEW = "import os, sys\n{}\nos.execve(sys.executable, [sys.executable, '-m', 'engine', *sys.argv[1:]], os.environ)"
FULL = ANEW.format("os.dup2(os.open('/dev/full', os.O_WRONLY), 1)")
CLOSED = ANEW.format("for n in range(3): os.close(n)")
ASCII = ANEW.format("os.environ |= {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}")


@pytest.mark.parametrize(
    "command",
    [
        ["--version"],
        ["machine", "show", "i440fx"],
        ["machine", "import", "--", "-M", "pc"],
        ["trace", "info", "boot-pc"],
        ["trace", "export", "boot-pc", "--qtest", "-"],
        ["replay", "boot-pc", *NO_BUDGETS],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_an_output_that_is_full(engine, command):
    got = engine(*command, code=FULL)
    assert (got.returncode, got.stderr) == (2, "engine: the output: No space left on device\n")


def test_without_standard_streams_everything_goes_on(engine, tmp_path):
    """None of their numbers becomes that of guest RAM or of a worker's ring."""
    got = engine("replay", "boot-pc", "--no-budgets", "--workers", "2", "--json", "out.json", code=CLOSED)
    assert got.returncode == 0 and json.loads((tmp_path / "out.json").read_text())["ok"]


def test_files_are_utf_8_in_every_locale(engine, tmp_path):
    side = json.loads(TRACE.with_suffix(".json").read_text()) | {"guest": "Gäste"}
    (tmp_path / "t.npz").write_bytes(TRACE.read_bytes())
    (tmp_path / "t.json").write_text(json.dumps(side, ensure_ascii=False), encoding="utf-8")
    got = engine("replay", "t.npz", *NO_BUDGETS, "--report", "r.html", code=ASCII)
    assert got.returncode == 0, got.stderr
    assert "µs" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "G\\xe4ste" in engine("trace", "info", "t.npz", code=ASCII).stdout


def test_an_output_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, how: str(place) != str(tmp_path))
    (tmp_path / "there").touch()
    check_output("--json", tmp_path / "there")
    for path, folder in ((tmp_path / "x.json", False), (tmp_path / "a" / "b", True)):
        with pytest.raises(UsageError, match=rf"--out {path}: may not be written \({tmp_path}\)"):
            check_output("--out", path, folder)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--record", "no/where"], ["--record no/where: no such folder"]),
        (["--json", "no/where"], ["--json no/where: no such folder"]),
        (["--out", str(TRACE)], ["--out", "not a folder"]),
        (["--workers", "0"], ["--workers: workers = 0"]),
        (["--against", str(TRACE)], ["boot-pc.npz: no recording of engine diff"]),
        (["--against", __file__], ["no recording of engine diff, or a damaged one"]),
        (["--case", "none.json"], ["none.json: cannot be read (No such file"]),
        (["--case", str(TRACE)], ["no case of engine diff"]),
    ],
    ids=lambda v: "-".join(v)[-40:].replace("/", "_") if v[0].startswith("--") else "",
)
def test_options_of_diff(engine, options, words):
    """Told before the first program runs."""
    parts = [] if "--case" in options else ["port80"]
    refused(engine("diff", *parts, *([] if "--against" in options else ["--against", "local"]), *options), *words)


def test_results_of_diff_on_a_full_disk(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        save_recording(Path("/dev/full"), "nobody", [])
    with pytest.raises(UsageError, match=r"file/out: cannot be written \(Not a directory\)"):
        found = Difference(0, "read", "POST", "1", "2")
        write_case(
            Board("i440fx"), Part("port80", "port80", [], None), 0, np.zeros(0, ACC), found, tmp_path / "file/out"
        )


def started(engine, *args):
    """The command, as far as the engine's own modules are loaded: from here on Ctrl-C is its own to answer."""
    p = engine.start(*args)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with open(f"/proc/{p.pid}/maps") as f:
            if "/sequencer." in f.read():
                return p
        time.sleep(0.002)
    raise AssertionError("the command does not start")


@pytest.mark.parametrize("seed", range(10))
def test_ctrl_c_at_any_moment(engine, seed):
    """As from a terminal: every process of the session gets it."""
    p = started(engine, "replay", "grub-pc", "grub-pc", "--path", "all", "--workers", "3")
    time.sleep(0.05 + random.Random(seed).random() * 3)
    os.killpg(p.pid, signal.SIGINT)
    out, err = p.communicate(timeout=30)
    assert p.returncode == 130, (out, err)
    assert err == "engine: interrupted\n"
    assert engine.left(p) == []


def kill_one(engine, tmp_path, path, delay, number):
    """A replay of which one worker is killed: (exit status, JSON result, output).  Checks what holds at any moment."""
    p = engine.start(
        "replay", "grub-pc", "grub-pc", "--path", path, "--workers", "3", "--json", "out.json", "--no-budgets"
    )
    end = time.monotonic() + 60
    while len(engine.workers(p)) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(delay)
    workers = engine.workers(p)
    if workers:
        os.kill(workers[number % len(workers)], signal.SIGKILL)
    out, err = p.communicate(timeout=120)
    result = json.loads((tmp_path / "out.json").read_text())
    assert engine.left(p) == [] and err == ""
    assert all(r["matching"] == r["compared"] and r["done"] <= r["accesses"] for r in result["runs"])
    assert p.returncode == (0 if result["ok"] else 3)
    if p.returncode:
        assert any(str(w) in result["error"] for w in workers) and f"failed: {result['error']}" in out
    return p.returncode, result, out


@pytest.mark.parametrize("seed", range(6))
def test_a_worker_killed_at_any_moment(engine, tmp_path, seed):
    """It may have done its work by then (0); else the replay ends with a report, and nothing is left."""
    kill_one(engine, tmp_path, "all", random.Random(seed).random() * 2, seed)


def test_a_worker_killed_in_mid_run_leaves_a_report_of_what_was_executed(engine, tmp_path):
    for attempt in range(20):
        status, result, out = kill_one(engine, tmp_path, "sync", 0.2 + 0.05 * attempt, attempt)
        last = result["runs"][-1] if result["runs"] else {}
        if status == 3 and last.get("done", 0) < last.get("accesses", 0):
            assert "error" in last and not last["ok"] and f"failed after {last['done']:,} accesses" in out
            assert sum(last["counts"][k] for k in ("router", "sync")) >= last["done"]
            return
    raise AssertionError("no worker was hit in mid-run")


def test_a_parent_that_is_killed_leaves_nobody(engine):
    p = engine.start("replay", "grub-pc", "grub-pc", "--path", "sync", "--no-budgets")
    end = time.monotonic() + 60
    while len(engine.workers(p)) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(p.pid, signal.SIGKILL)
    p.communicate()
    assert engine.left(p) == []
