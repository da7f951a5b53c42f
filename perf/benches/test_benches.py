"""pytest-benchmark's view of the benches: `make bench`.  Its timings are those of whole quick runs; the results are
in extra_info."""

import pytest

from engine.cli.bench import PEERS, bench, names
from perf.benches._common import Skipped


@pytest.mark.parametrize("name", [n for n in names() if n != PEERS])
def test_bench(benchmark, name):
    module = bench(name)
    try:
        rows = benchmark.pedantic(module.run, args=(True,), rounds=1, iterations=1)
    except Skipped as e:
        pytest.skip(str(e))
    benchmark.extra_info.update(
        {r["name"]: {k: r[k] for k in ("value", "unit", "ratio", "goal", "ok", "spread")} for r in rows}
    )
    assert rows
