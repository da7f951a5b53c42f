"""The report, the budgets and the tables, on small sessions."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from engine import data
from engine.cli.output import Output, matched, rate_text, time_text
from engine.errors import EngineError, UsageError, WorkerDied
from engine.frontends import replay
from engine.frontends import trace as traces
from engine.measure import budgets, host, report
from engine.measure.session import Placed, Session
from engine.sequencer import Sequencer

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


def short_job(n=4000):
    """The start of a shipped trace, its reference cut to fit."""
    trace = traces.load(data.trace("boot-pc"))
    golden = traces.load_golden(traces.golden_path(trace), trace)
    evt = trace.evt[trace.evt["index"] < n]
    vectors = int((evt["kind"] == traces.EV_VECTOR).sum())
    part = replace(trace, acc=trace.acc[:n], evt=evt, dma=trace.dma[trace.dma["index"] < n])
    gold = replace(
        golden,
        value=golden.value[:n],
        status=golden.status[:n],
        vector=golden.vector[:vectors],
        irq=golden.irq[golden.irq["index"] < n],
    )
    return replay.open_job(part, gold, "auto", {})


@pytest.fixture(scope="module")
def session():
    job = short_job()
    replay.learn(job)
    plan = job.plan()
    s = Session(
        [job], ("local",), 3, check_budgets=False, placed=[Placed(plan, [u % 3 for u in range(len(plan.units))])]
    )
    s.runs.append(replay.replay(job, "local", 0))
    s.limits = {"pingpong_p50_ns": 100.0, "pingpong_p99_ns": 200.0, "futex_us": 30.0, "spsc_per_s": 2e8}
    s.budgets = [budgets.judge(b, 1.0, 1.0, b.get("at_most", b.get("at_least"))) for b in budgets.load()]
    return s


def test_report_is_one_file_that_loads_nothing(session):
    html = report.render(session)
    assert not re.search(r"<(script|link|img|iframe)\b", html) and not re.search(r"\b(src|href)=\"(?!#|data:)", html)
    assert "@import" not in html and "url(http" not in html


def test_every_plot_is_an_svg_with_title_and_axes(session):
    html = report.render(session)
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) == 4
    for svg in svgs:
        ElementTree.fromstring(svg)
    for title in (
        "Throughput",
        "Latency",
        "Budgets",
        "What the guests did",
        "Where reads differ",
        "Machine and placement",
        "Host",
    ):
        assert f"<h2>{title}</h2>" in html


def test_report_says_that_all_is_equal_and_who_runs_where(session):
    html = report.render(session)
    assert "verdict good" in html and "verdict bad" not in html and 'class="no"' not in html
    assert all(f"worker {n}" in html for n in (1, 2, 3)) and session.host["cpu"].replace("(R)", "")[:5] in html
    assert re.search(r"<code>0070-007\d</code>.*?rtc", html, re.DOTALL)


def test_report_shows_a_difference_and_escapes_what_it_quotes(session):
    run = session.runs[0]
    bad = run.result | {
        "ok": False,
        "matching": run.result["compared"] - 1,
        "mismatches": [
            {
                "kind": "read",
                "index": 7,
                "region": "<b>evil</b>",
                "space": "pio",
                "addr": "0x70",
                "size": 1,
                "expected": "0x1",
                "got": "0x2",
            }
        ],
    }
    html = report.render(replace(session, runs=[replace(run, result=bad)]))
    assert "verdict bad" in html and "&lt;b&gt;evil&lt;/b&gt;" in html and "<b>evil" not in html


def test_report_of_a_session_that_failed(session):
    run = session.runs[0]
    failure = WorkerDied("worker 2 (pid 1) ended: killed by SIGKILL")
    broken = replace(run, result=run.result | {"error": str(failure), "ok": False, "done": 1000}, failure=failure)
    html = report.render(replace(session, runs=[broken], failure=failure))
    assert "Stopped early: worker 2" in html and "failed after 1,000 accesses" in html


def test_report_of_a_session_that_did_not_start(session):
    html = report.render(replace(session, runs=[], placed=[], budgets=[], limits={}, failure=EngineError("no memory")))
    assert "Stopped early: no memory" in html and "<svg" not in html


def test_one_difference_makes_a_session_fail(session):
    run = session.runs[0]
    assert session.ok is True
    assert replace(session, runs=[replace(run, result=run.result | {"ok": False})]).ok is False
    assert replace(session, budgets=[budgets.judge(budgets.load()[0], 1.0, 100.0)]).ok is False
    assert replace(session, failure=EngineError("x")).ok is False
    other = replace(run, result=run.result | {"digest": "0" * 64, "path": "sync"})
    both = replace(session, runs=[run, other])
    assert both.disagreeing == ["boot-pc"] and both.ok is False


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"jinja2 and matplotlib: pip install 'ioreq-engine\[report\]'"):
        report.check_libraries()


def test_budgets_judge_times_and_rates_in_their_direction():
    row = {"name": "n", "path": "sync", "device": "boot", "measure": "p50_ns", "limit": "pingpong_p99_ns", "why": ""}
    assert (
        budgets.judge(row | {"at_most": 2.0}, 399.0, 200.0)["ok"]
        and not budgets.judge(row | {"at_most": 2.0}, 401.0, 200.0)["ok"]
    )
    assert (
        budgets.judge(row | {"at_least": 0.5}, 101.0, 200.0)["ok"]
        and not budgets.judge(row | {"at_least": 0.5}, 99.0, 200.0)["ok"]
    )
    assert budgets.judge(row | {"at_most": 2.0}, 300.0, 200.0)["ratio"] == 1.5


def test_the_budgets_file_covers_paths_kinds_of_device_and_percentiles():
    rows = budgets.load()
    assert {b["path"] for b in rows} == {"local", "sync", "buffered", "batched"}
    assert {b["device"] for b in rows} == {"boot", *budgets.DEVICES}
    assert {b["measure"] for b in rows} == {"p50_ns", "p99_ns", "per_s"}
    assert all(b["limit"] in {*budgets.LIMITS, "loop_per_s"} and b["why"] for b in rows)
    assert len({b["name"] for b in rows}) == len(rows)


@pytest.mark.parametrize(
    ("change", "complaint"), [({"colour": 1}, "budget 1 needs"), ({"device": "toaster"}, "no device 'toaster'")]
)
def test_a_budgets_file_with_a_slip_is_refused(monkeypatch, tmp_path, change, complaint):
    row = {"path": "sync", "device": "boot", "measure": "p50_ns", "limit": "futex_us", "why": "w", "at_most": 2.0}
    lines = "\n".join(f"{k} = {v!r}" for k, v in (row | change).items())
    (tmp_path / "budgets.toml").write_text(f"[[budget]]\n{lines}\n")
    monkeypatch.setattr(budgets.data, "FOLDER", tmp_path)
    with pytest.raises(UsageError, match=complaint):
        budgets.load()


def some_series(ours, limit):
    rows = [b for b in budgets.load() if b["path"] == "sync" and b["device"] == "boot"]
    counts = {name: np.ones(len(budgets.EDGES) - 1) for name in ("sync boot", "pingpong")}
    return rows, {"sync boot p50_ns": ours, "pingpong_p50_ns": limit}, counts


def test_a_spoilt_third_of_the_rounds_does_not_miss_a_budget():
    assert budgets._judged(*some_series([300.0] * 27 + [90000.0] * 13, [200.0] * 40))[0]["ok"]
    drifting = budgets._judged(*some_series([600.0, 300.0] * 20, [400.0, 200.0] * 20))[0]
    assert drifting["ratio"] == 1.5
    assert not budgets._judged(*some_series([500.0] * 40, [200.0] * 40))[0]["ok"]


def test_a_missed_budget_shows_its_times_beside_the_limits(capsys):
    from engine.cli.output import Output
    from engine.cli.replay import show_missed

    rows, series, counts = some_series([500.0] * 40, [200.0] * 40)
    counts["sync boot"] = np.histogram([300, 500, 600, 800], budgets.EDGES)[0]
    counts["pingpong"] = np.histogram([190, 195, 200, 500], budgets.EDGES)[0]
    show_missed(budgets._judged(rows, series, counts)[0], Output())
    text = capsys.readouterr().out
    assert "MISSED sync, boot: p50: 2.50 x pingpong_p50_ns; accesses by time" in text
    lines = [" ".join(line.split()) for line in text.splitlines()[2:]]
    assert lines == [
        "181 ns 75.0% ######################",
        "256 ns 25.0% ########",
        "362 ns 25.0% ######## 25.0% ########",
        "512 ns 25.0% ########",
        "724 ns 25.0% ########",
    ]


def test_percentiles_are_upper_edges_of_buckets(monkeypatch):
    from engine.measure import _limits

    monkeypatch.setattr(_limits, "tsc_hz", lambda: 1e9)
    edges = [float(x) for x in Sequencer.bucket_ticks()]
    counts = np.zeros(len(edges), np.uint64)
    counts[10], counts[100], counts[300] = 980, 19, 1
    got = replay.percentiles(counts)
    assert (got["p50"], got["p99"], got["p999"], got["max"]) == (
        edges[11],
        round(edges[101], 1),
        round(edges[101], 1),
        round(edges[301], 1),
    )
    assert replay.percentiles(np.zeros(len(edges), np.uint64)) == {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}


def test_series_counts_every_access_once():
    trace = short_job().trace
    labels, table = replay.series(trace)
    assert table.sum() == len(trace.acc) and table.shape == (len(labels), replay.SERIES) and "mc146818" in labels


def test_host_record_names_what_decides_speed():
    got = host.record()
    assert (
        got["cpu"]
        and got["cpus"] >= len(got["cpus_allowed"]) >= 1
        and got["tsc_mhz"] > 100
        and got["kernel"].startswith("Linux")
    )


@pytest.mark.parametrize(
    "ns, text",
    [
        (0, "-"),
        (15.44, "15.4 ns"),
        (999.4, "999 ns"),
        (999.6, "1.00 us"),
        (2500, "2.50 us"),
        (1.5e7, "15.0 ms"),
        (3e9, "3.00 s"),
        (5e12, "5000 s"),
    ],
)
def test_times_have_three_figures(ns, text):
    assert time_text(ns) == text


@pytest.mark.parametrize("rate, text", [(12.3e6, "12.3 M/s"), (250e3, "250 k/s"), (2.5e9, "2.50 G/s"), (7, "7 /s")])
def test_rates_have_three_figures(rate, text):
    assert rate_text(rate) == text


def test_plain_tables_are_aligned_and_say_what_matched():
    stream = io.StringIO()
    out = Output(stream)
    out.table(
        "Title",
        ["path", ">n", ""],
        [["local", "1,000", matched(5, 5)], ["x", "7", matched(5, 4)], ["y", "", matched(0, 0)]],
    )
    assert stream.getvalue().splitlines() == [
        "Title",
        "  path       n",
        "  local  1,000  all 5",
        "  x          7  4 of 5",
        "  y             none",
    ]


def test_fonts_that_a_system_lacks_are_not_talked_about(capfd):
    """Matplotlib looks for fonts of formulas when an axis is logarithmic, and would name each that is not there."""
    import logging

    figure, (ax,) = report.figure(3, 2)
    ax.plot([1, 10], [1, 100])
    ax.set_yscale("log")
    logging.getLogger("matplotlib.font_manager").warning("findfont: Font family ['STIXGeneral'] not found.")
    assert "<svg" in report.svg(figure)
    assert "findfont" not in "".join(capfd.readouterr())
