"""engine replay and engine run: what they compare, print, write, and how they end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from engine import data
from engine.frontends import replay
from engine.frontends.trace import golden_path, load, load_golden
from engine.machine import PATHS
from engine.workers import placement

RUN_KEYS = {
    "trace",
    "machine",
    "path",
    "workers",
    "worker_list",
    "accesses",
    "done",
    "reads",
    "compared",
    "matching",
    "payload_reads",
    "unmodelled",
    "as_recorded_only",
    "later_in_reference",
    "unmodelled_functions",
    "by_region",
    "vectors",
    "lines",
    "mismatches",
    "accesses_per_s",
    "latency_ns",
    "counts",
    "digest",
    "golden",
    "remarks",
    "ok",
}
COUNTS = {"local", "router", "sync", "buffered", "batched", "fallback", "mean_batch", "posted_eligible"}


def job_of(name: str, **files: str) -> replay.Job:
    trace = load(data.trace(name))
    return replay.open_job(trace, load_golden(golden_path(trace), trace), "auto", files)


@pytest.fixture(scope="module")
def all_paths(engine_in, tmp_path_factory):
    """seabios-pc over every path, as JSON."""
    folder = tmp_path_factory.mktemp("all")
    got = engine_in(folder)(
        "replay", "seabios-pc", "--path", "all", "--workers", "3", "--json", "out.json", "--no-budgets"
    )
    assert got.returncode == 0, got.stdout + got.stderr
    return json.loads((folder / "out.json").read_text()), got


def test_every_path_answers_as_the_reference(all_paths):
    out, _ = all_paths
    assert out["ok"] is True
    assert [r["path"] for r in out["runs"]] == list(PATHS)
    for r in out["runs"]:
        assert (
            set(r) == RUN_KEYS and set(r["counts"]) == COUNTS and set(r["latency_ns"]) == {"p50", "p99", "p999", "max"}
        )
        assert (r["accesses"], r["reads"]) == (190253, 161482)
        assert (
            r["matching"] == r["compared"]
            and r["compared"] + r["payload_reads"] + sum(r["unmodelled"].values()) == r["reads"]
        )
        assert set(r["unmodelled"]) <= {"apic-msi|apic", "kvmvapic|kvmvapic"}
        assert sum(row["reads"] for row in r["by_region"]) == r["compared"] and all(
            row["reads"] == row["matching"] for row in r["by_region"]
        )
        assert r["vectors"] == {"compared": 1368, "matching": 1368} and r["lines"] == {
            "compared": 2747,
            "matching": 2747,
        }
        assert r["mismatches"] == [] and r["ok"] is True and r["accesses_per_s"] > 0
    assert len({r["digest"] for r in out["runs"]}) == 1


def test_the_pm_timer_is_compared_and_fw_cfg_content_is_not(all_paths):
    rows = {row["region"]: row["reads"] for row in all_paths[0]["runs"][0]["by_region"]}
    assert rows["acpi-tmr|PIIX4_PM"] == 10038
    assert 0 < rows["fwcfg|fw_cfg_io"] < 145993 - 140000


def test_it_is_distributed_and_buffered(all_paths):
    local, *others = all_paths[0]["runs"]
    assert local["counts"]["local"] + local["counts"]["router"] == local["accesses"] and local["worker_list"] == []
    for r in others:
        assert r["counts"]["local"] == 0 and r["workers"] == len(r["worker_list"]) == 3
        assert len({w["pid"] for w in r["worker_list"]}) == 3 and all(w["accesses"] > 0 for w in r["worker_list"])
        owner = {d: w["pid"] for w in r["worker_list"] for d in w["devices"]}
        assert len({owner["pit"], owner["ide"], owner["pic"]}) == 3
        c = r["counts"]
        assert c["sync"] + c["buffered"] + c["batched"] + c["router"] == r["accesses"]
    sync, buffered, batched = others
    assert sync["counts"]["buffered"] == 0 and batched["counts"]["batched"] > 0
    assert buffered["counts"]["posted_eligible"] > 4000
    assert buffered["counts"]["buffered"] >= 0.99 * buffered["counts"]["posted_eligible"]
    assert batched["counts"]["mean_batch"] >= 32


def test_the_table_says_it_to_people(all_paths):
    text = all_paths[1].stdout
    for path in PATHS:
        assert re.search(rf"^\s+{path} .*all 16,822 .*all 1,368 .*all 2,747 .*ok$", text, re.MULTILINE), text
    assert "kvmvapic|kvmvapic (0 reads)" in text and text.rstrip().endswith("ok: every answer as the reference has it")
    assert all_paths[1].stderr == ""


@pytest.mark.parametrize("path", ["local", "batched"])
def test_grub_with_keys_and_a_cd(path):
    job = job_of("grub-pc")
    replay.learn(job)
    r = replay.replay(job, path, 3).result
    assert r["ok"], r["mismatches"]
    assert r["accesses"] == 856938 and r["vectors"]["compared"] == 981 and r["lines"]["compared"] == 2165


def test_twenty_random_placements_give_one_digest():
    job = job_of("boot-pc")
    replay.learn(job)
    want = replay.replay(job, "local", 0).result["digest"]
    plan = job.plan()
    for seed in range(20):
        workers = 2 + seed % 4
        owners = placement.shuffled(plan, workers, seed)
        r = replay.replay(job, ("batched", "sync", "buffered")[seed % 3], workers, owners).result
        assert r["ok"] and r["digest"] == want, (seed, r["mismatches"])


def test_a_given_file_is_compared_too(engine):
    image = data.TRACES / "boot-sector.img"
    got = engine("replay", "boot-pc", "--path", "local", "--file", f"disk={image}", "--json", "-", "--no-budgets")
    assert got.returncode == 0, got.stderr
    r = json.loads(got.stdout)["runs"][0]
    assert r["payload_reads"] == 0 and r["compared"] == r["matching"] == r["reads"] == 2919


def test_a_given_file_with_other_bytes_is_refused(engine, tmp_path):
    body = bytearray((data.TRACES / "boot-sector.img").read_bytes())
    body[300] ^= 1
    (tmp_path / "other.img").write_bytes(body)
    got = engine("replay", "boot-pc", "--path", "local", "--file", "disk=other.img")
    assert got.returncode == 2 and "SHA-256" in got.stderr


def test_json_on_standard_output_is_alone_there(engine):
    got = engine("replay", "boot-pc", "--path", "local", "--json", "-", "--no-budgets")
    assert json.loads(got.stdout)["ok"] is True and "all 1,639" in got.stderr


def test_without_reference_nothing_is_compared(engine):
    got = engine("replay", "boot-pc", "--golden", "none", "--path", "local", "--json", "-", "--no-budgets")
    r = json.loads(got.stdout)["runs"][0]
    assert got.returncode == 0 and r["compared"] == 0 and r["vectors"]["compared"] == 0 and r["golden"] is False
    assert "nothing was compared" in got.stderr and "as the reference has it" not in got.stderr


def test_a_trace_without_reference_beside_it_says_so(engine, tmp_path):
    for end in (".npz", ".json"):
        (tmp_path / f"alone{end}").write_bytes((data.TRACES / f"boot-pc{end}").read_bytes())
    got = engine("replay", "alone.npz", "--path", "local", "--no-budgets")
    assert got.returncode == 0 and "no reference beside the trace (alone.golden.npz)" in got.stdout


def test_placement_file(engine, tmp_path):
    (tmp_path / "p.toml").write_text(
        '[placement]\n[[placement.worker]]\ndevices = ["pm", "vga"]\n[[placement.worker]]\ndevices = ["ide"]\n'
    )
    got = engine("replay", "boot-pc", "--placement", "p.toml", "--json", "-", "--no-budgets")
    assert got.returncode == 0, got.stderr
    first, second = json.loads(got.stdout)["runs"][0]["worker_list"]
    assert {"pm", "vga"} <= set(first["devices"]) and "ide" in second["devices"]


@pytest.mark.parametrize("how", ["spread", "random:7"])
def test_placement_by_name(engine, how):
    got = engine("replay", "boot-pc", "--placement", how, "--workers", "4", "--json", "-", "--no-budgets")
    assert got.returncode == 0 and json.loads(got.stdout)["runs"][0]["workers"] == 4


def test_machine_without_a_device_names_what_is_missing(engine, tmp_path):
    (tmp_path / "m.toml").write_text('[board]\nbase = "i440fx"\nram = "64M"\nremove = ["vga"]\n')
    got = engine("replay", "boot-pc", "--machine", "m.toml", "--path", "local", "--json", "-", "--no-budgets")
    r = json.loads(got.stdout)["runs"][0]
    assert r["unmodelled"]["edid|VGA"] == 256 and "edid|VGA (256 reads)" in got.stderr


def test_run_checks_everything_and_writes_the_report(engine, tmp_path):
    got = engine("run", "--json", "out.json", "--no-budgets")
    assert got.returncode == 0, got.stdout + got.stderr
    out = json.loads((tmp_path / "out.json").read_text())
    assert {(r["trace"], r["path"]) for r in out["runs"]} == {(t, p) for t in ("seabios-pc", "boot-pc") for p in PATHS}
    assert all(r["workers"] >= 3 for r in out["runs"] if r["path"] != "local")
    html = (tmp_path / "engine-report.html").read_text()
    assert html.count("<svg") == 6 and not re.search(r"(src|href)=\"(?!#|data:)", html) and "@import" not in html


def test_budgets_are_measured_with_their_limits(engine):
    """Whether they hold is for quiet hosts; that they are there, with a status to match, is checked here."""
    got = engine("replay", "boot-pc", "--path", "all", "--json", "-")
    out = json.loads(got.stdout)
    assert set(out["limits"]) == {"pingpong_p50_ns", "pingpong_p99_ns", "futex_us", "spsc_per_s"}
    if out["limits"]["spsc_per_s"]:  # two CPUs
        assert {b["path"] for b in out["budgets"]} == {"local", "sync", "buffered", "batched"} and all(
            v > 0 for v in out["limits"].values()
        )
        assert all({"name", "limit", "measured", "ratio", "ok"} <= set(b) for b in out["budgets"])
    missed = [b["path"] for b in out["budgets"] if not b["ok"]]
    assert got.returncode == (1 if missed else 0) and all(
        f"budget missed on {', '.join(sorted(missed))}" in got.stderr for _ in missed[:1]
    )


def test_without_rich_the_text_is_plain(engine):
    code = "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None\n"
    code += "from engine.cli import main; sys.exit(main())"
    got = engine("replay", "boot-pc", "--path", "local", "--no-budgets", code=code)
    assert got.returncode == 0 and "all 1,639" in got.stdout and "\x1b" not in got.stdout


def test_a_report_without_its_libraries_says_what_to_install(engine):
    code = "import sys; sys.modules['jinja2'] = None; from engine.cli import main; sys.exit(main())"
    got = engine("run", code=code)
    assert got.returncode == 2
    assert got.stderr == (
        "engine run: the report needs jinja2: pip install 'ioreq-engine[report]', or replay without one: "
        "engine replay TRACE --path all\n"
    )


def test_a_reader_that_goes_away_is_no_error_message(engine):
    p = engine.start("trace", "export", "seabios-pc", "--qtest", "-")
    p.stdout.readline()
    p.stdout.close()
    assert p.wait(60) == 1 and p.stderr.read() == ""


def test_version_and_help(engine):
    import engine as package

    assert engine("--version").stdout == f"engine {package.__version__}\n"
    assert engine().returncode == 2
    for command in ("run", "replay", "trace"):
        got = engine(command, "--help")
        assert got.returncode == 0 and "example:" in got.stdout


def test_the_traces_are_described():
    text = (data.TRACES / "README.md").read_text()
    assert all(name in text for name in data.traces()) and Path(data.TRACES / "boot-sector.img").stat().st_size == 65536
