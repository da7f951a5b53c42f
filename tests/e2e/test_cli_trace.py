"""engine trace: what it says of a trace, the content it takes out, what it exports."""

from __future__ import annotations

import json

import numpy as np

from engine import data
from engine.frontends.trace import load


def test_info_counts_what_is_there(engine):
    got = engine("trace", "info", "seabios-pc", "--json", "-")
    s = json.loads(got.stdout)
    assert (s["accesses"], s["reads"], s["events"]["interrupt taken"]) == (190253, 161482, 1368)
    assert s["reference"]["vectors"] == 1368 and s["virtual_s"] > 75
    by_region = {r["region"]: r for r in s["regions"]}
    assert sum(r["accesses"] for r in s["regions"]) == 190253
    assert by_region["acpi-tmr|PIIX4_PM"] == {
        "region": "acpi-tmr|PIIX4_PM",
        "device": "piix4-pm",
        "accesses": 10038,
        "reads": 10038,
        "space": "pio",
        "first": "0x608",
        "last": "0x608",
        "sizes": [4],
    }
    assert by_region["kvmvapic|kvmvapic"]["device"] is None
    assert "190,253 accesses (161,482 reads)" in got.stderr and "not modelled" in got.stderr


def test_contents_are_the_disk_the_guest_read(engine, tmp_path):
    assert engine("trace", "contents", "boot-pc", "--out", "c").returncode == 0
    index = json.loads((tmp_path / "c" / "index.json").read_text())
    image = (data.TRACES / "boot-sector.img").read_bytes()
    assert index["trace"] == "boot-pc" and index["contents"]
    for e in index["contents"]:
        body = (tmp_path / "c" / e["file"]).read_bytes()
        assert len(body) == e["bytes"] == e["sectors"] * 512 and (e["device"], e["channel"], e["unit"]) == ("ide", 0, 0)
        assert body == image[e["lba"] * 512 :][: len(body)]
    assert sum(e["bytes"] for e in index["contents"]) == 1024


def test_contents_of_the_firmware_configuration_by_name(engine, tmp_path):
    got = engine("trace", "contents", "seabios-pc", "--out", "c")
    items = {e["name"]: e for e in json.loads((tmp_path / "c" / "index.json").read_text())["contents"] if "name" in e}
    assert items["etc/acpi/rsdp"]["bytes"] == 20 and (
        tmp_path / "c" / items["etc/acpi/rsdp"]["file"]
    ).read_bytes().startswith(b"RSD PTR ")
    assert b"FACP" in (tmp_path / "c" / items["etc/acpi/tables"]["file"]).read_bytes()
    assert "etc/acpi/rsdp" in got.stdout


def test_export_is_every_access_in_order(engine, tmp_path):
    assert engine("trace", "export", "boot-pc", "--qtest", "q.txt").returncode == 0
    trace = load(data.trace("boot-pc"))
    lines = (tmp_path / "q.txt").read_text().splitlines()
    accesses = [line.split() for line in lines if not line.startswith("clock_set")]
    assert len(accesses) == len(trace.acc)
    clocks = [int(line.split()[1]) for line in lines if line.startswith("clock_set")]
    assert clocks == sorted(set(clocks)) == [int(t) for t in np.unique(trace.acc["t_ns"])]
    verbs = {(0, 0): "in", (0, 1): "out", (1, 0): "read", (1, 1): "write"}
    for a, words in zip(trace.acc, accesses, strict=True):
        assert words[0] == verbs[int(a["space"]), int(a["dir"])] + {1: "b", 2: "w", 4: "l", 8: "q"}[int(a["size"])]
        assert int(words[1], 16) == int(a["addr"]) and (len(words) == 2) == (a["dir"] == 0)
        assert a["dir"] == 0 or int(words[2], 16) == int(a["value"])


def test_an_output_that_cannot_be_written(engine, tmp_path):
    (tmp_path / "file").write_text("")
    for args in (
        ["contents", "boot-pc", "--out", "file/x"],
        ["export", "boot-pc", "--qtest", "no/q"],
        ["info", "boot-pc", "--json", "no/x"],
    ):
        got = engine("trace", *args)
        assert got.returncode == 2 and got.stderr.count("\n") == 1 and "cannot be written" in got.stderr


def test_a_trace_of_no_accesses(engine, tmp_path):
    with np.load(data.trace("boot-pc")) as z:
        np.savez(tmp_path / "none.npz", **{k: z[k][:0] if k != "regions" else z[k] for k in z.files})
    (tmp_path / "none.json").write_bytes((data.TRACES / "boot-pc.json").read_bytes())
    got = engine("trace", "info", "none.npz")
    assert got.returncode == 0 and "0 accesses" in got.stdout
    for path in ("local", "batched", "sync"):
        got = engine("replay", "none.npz", "--path", path, "--no-budgets", "--report", "r.html")
        assert got.returncode == 0, got.stderr
