"""The table says what was measured: medians, ratios, and whether a target is reached."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.harness import main, report
from benchmarks.harness.plan import Measurement, Results, latencies_between, percentile
from benchmarks.harness.rows import ENSEMBLE_ROWS, ROWS, Row, choose
from benchmarks.harness.servers import find_classpath

BOTH = (report.APACHE, report.ZKPY)


def row(name: str) -> Row:
    return choose(name)[0]


def measured(name: str, apache: list[float], zkpy: list[float], cpu_us: float = 2.0) -> Results:
    results = Results()
    details = {
        "server_cpu_us_per_op": cpu_us,
        "server_cpu_s": 0.5,
        "seconds": 1.0,
        "machine_busy": 0.75,
    }
    if row(name).unit != "/s":
        details = {}
    for server, values in zip(BOTH, (apache, zkpy), strict=True):
        for value in values:
            results.add(name, server, Measurement(value, details))
    return results


def test_the_ratio_is_that_of_the_medians() -> None:
    results = measured("get-1", [1000, 9000, 2000], [3000, 4000, 100])
    assert report.ratio_of(row("get-1"), results) == 1.5
    assert report.reached(row("get-1"), results) is False
    table = report.table([row("get-1")], results, BOTH)
    assert table.splitlines()[0] == "| load | Apache | zkpy | ratio | must reach | reached |"
    assert table.splitlines()[2] == (
        "| get, 1 connection W=1 | 2,000 (2.0 µs) | 3,000 (2.0 µs) | 1.50x | 1.8x | **no** |"
    )
    assert "0.50 of a core, 2.0 µs per operation" in report.limits([row("get-1")], results)
    assert "75% busy: it waits" in report.limits([row("get-1")], results)


@pytest.mark.parametrize(("cpu_us", "reached"), [(2.9, True), (3.1, False)])
def test_a_row_with_a_limit_on_cpu_time_needs_both(cpu_us: float, reached: bool) -> None:
    results = measured("get-8x64", [1000], [5000], cpu_us)
    assert report.reached(row("get-8x64"), results) is reached


@pytest.mark.parametrize(("seconds", "reached"), [(0.15, True), (0.16, False)])
def test_a_row_without_a_rate_has_a_most(seconds: float, reached: bool) -> None:
    results = measured("start", [0.6], [seconds])
    assert report.ratio_of(row("start"), results) is None
    assert report.reached(row("start"), results) is reached
    assert f"| 0.600 s | {seconds:.3f} s |  | 0.15 s |" in report.table(
        [row("start")], results, BOTH
    )


def test_what_failed_or_was_not_measured_is_said() -> None:
    results = measured("get-1", [1000], [])
    assert report.reached(row("get-1"), results) is None
    assert "| - |" in report.table([row("get-1")], results, BOTH)
    results.fail("get-1", report.ZKPY, OSError("it ended\nand more"))
    assert report.reached(row("get-1"), results) is False
    assert "| failed |" in report.table([row("get-1")], results, BOTH)
    assert (
        report.limits([row("get-1")], results)
        == "- get, 1 connection W=1: failed: it ended and more"
    )


def test_one_server_alone_is_not_compared() -> None:
    results = measured("get-1", [1000], [])
    table = report.table([row("get-1")], results, [report.APACHE])
    assert table.splitlines()[0] == "| load | Apache |"


def test_rows_are_chosen_by_patterns() -> None:
    assert choose(None) == list(ROWS)
    assert [one.name for one in choose("set-3*,get-1")] == ["get-1", "set-32"]
    with pytest.raises(ValueError, match="no row is called put"):
        choose("get-1,put")


def test_rows_of_an_ensemble_have_targets_of_their_own() -> None:
    assert choose(None, ENSEMBLE_ROWS) == list(ENSEMBLE_ROWS)
    one, follower = choose("set-32,set-follower-32", ENSEMBLE_ROWS)
    assert (one.must, row("set-32").must) == (2, 1.2)
    assert one.loadgen == follower.loadgen == row("set-32").loadgen
    assert (one.through, follower.through) == ("", "follower")
    assert not [row for row in ENSEMBLE_ROWS if row.must_cpu_us]
    with pytest.raises(ValueError, match="no row is called get-1;"):
        choose("get-1", ENSEMBLE_ROWS)


def test_latencies_are_taken_from_the_time_of_the_snapshot(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text("1000000000 9\n2000000000 7000000\n2500000000 5000000\n3100000000 9\n")
    assert latencies_between(trace, 1.5, 3.0) == [5.0, 7.0]
    assert [percentile(range(100), share) for share in (0.5, 0.99, 1)] == [50, 99, 99]


def test_the_readme_takes_a_new_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = (main.PROJECT / "benchmarks" / "README.md").read_text()
    copy = tmp_path / "benchmarks" / "README.md"
    copy.parent.mkdir()
    copy.write_text(written)
    monkeypatch.setattr(main, "PROJECT", tmp_path)
    for flags in ([], ["--ensemble"], ["--compiled"], ["--ensemble", "--compiled"]):
        begin = main.table_begin(main.arguments().parse_args(flags))
        copy.write_text(written)
        main.update_readme("| new |", begin)
        before, after = copy.read_text().split(f"{begin}\n| new |\n{main.TABLE_END}")
        assert written.startswith(before)
        assert written.endswith(after)
        assert written.count(main.TABLE_END) == copy.read_text().count(main.TABLE_END) == 4


def test_the_class_path_is_the_one_given_or_the_newest_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZKPY_ORACLE_DIR", raising=False)
    assert find_classpath(tmp_path, "a.jar:b.jar") == "a.jar:b.jar"
    assert find_classpath(tmp_path, str(tmp_path)) == f"{tmp_path}/*"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_classpath(tmp_path, "here") == f"{tmp_path}/here/*"
    assert find_classpath(tmp_path, None) is None
    for version in ("3.8.0", "3.9.5"):
        (tmp_path / ".oracle" / version).mkdir(parents=True)
        (tmp_path / ".oracle" / version / "complete").touch()
        assert find_classpath(tmp_path, None) == f"{tmp_path}/.oracle/{version}/*"
