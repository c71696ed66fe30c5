"""The load generator does what it reports: each mode, against a server that decodes and counts."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from benchmarks.harness.loadgen import (
    LoadFailed,
    LoadGenerator,
    Result,
    compile_loadgen,
    find_compiler,
)
from tests.benchmarks.fake_server import CREATE, DELETE, GET_DATA, MULTI, SET_DATA, SYNC, FakeServer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(find_compiler() is None, reason="no C compiler"),
]

SHORT = "--seconds 0.2 --warmup 0.05 --nodes 20"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_loadgen(tmp_path_factory.mktemp("loadgen"))


def start(program: Path, server: FakeServer, arguments: str) -> LoadGenerator:
    return LoadGenerator(program, server.address, arguments.split())


def run(program: Path, server: FakeServer, arguments: str) -> Result:
    return start(program, server, arguments).finish()


def check_rate(result: Result) -> None:
    """The fields every mode has agree with each other."""
    assert result["operations"] > 0
    assert result["operations_per_s"] == pytest.approx(
        result["operations"] / result["seconds"], rel=0.05
    )
    latency = result["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert 0 <= result["machine_busy"] <= 1
    assert result["generator_cpu_s"] >= 0


def test_gets_are_counted_and_have_data(program: Path) -> None:
    with FakeServer() as server:
        result = run(program, server, f"load --mix get --connections 3 --window 4 {SHORT}")
    check_rate(result)
    assert (result["connections"], result["window"], server.sessions) == (3, 4, 3)
    assert result["get"]["count"] == result["latency_us"]["count"] == result["operations"]
    # Warm-up and what was in flight at the end are sent, and not counted.
    assert server.requests[GET_DATA] >= result["operations"] + 12
    assert [len(server.nodes[f"/bench/n{node:07d}"]) for node in range(20)] == [100] * 20


def test_a_count_ends_the_load_exactly(program: Path) -> None:
    arguments = f"load --mix set --connections 2 --window 8 --bytes 1024 --count 333 {SHORT}"
    with FakeServer() as server:
        result = run(program, server, arguments)
    check_rate(result)
    assert result["operations"] == 333
    assert server.requests[SET_DATA] == 333 + 20  # each of 20 znodes is prepared with a set
    assert len(server.nodes["/bench/n0000007"]) == 1024


def test_a_mix_has_its_shares(program: Path) -> None:
    with FakeServer() as server:
        result = run(program, server, f"load --mix get=9,set=1 --window 4 --count 2000 {SHORT}")
    assert result["get"]["count"] + result["set"]["count"] == result["operations"] == 2000
    assert 120 < result["set"]["count"] < 280


def test_creates_are_spread_and_deleted_again(program: Path) -> None:
    arguments = "load --mix create --connections 2 --window 8 --count 300 --create-root /a/b"
    arguments += " --create-parents 7"
    with FakeServer() as server:
        kept = run(program, server, arguments)
        assert "/a/b/d003/n0000010" in server.nodes
        assert len(server.nodes) == 1 + 2 + 7 + 300
        cleaned = run(program, server, arguments.replace("/a/b", "/a/c") + " --cleanup")
        assert len(server.nodes) == 1 + 2 + 7 + 300
        assert server.most_nodes == 1 + 2 + 7 + 300 + 1 + 7 + 300
    assert kept["created"] == cleaned["created"] == kept["operations"] == 300
    assert server.requests[CREATE] == 2 * (2 + 7 + 300)
    assert server.requests[DELETE] == 300 + 7 + 1


def test_a_multi_holds_the_batch(program: Path) -> None:
    with FakeServer() as server:
        result = run(program, server, f"load --mix multi --batch 5 --window 2 --count 50 {SHORT}")
    assert result["multi"]["count"] == server.requests[MULTI] == 50


def test_a_rate_is_kept_and_traced(program: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    begin_ns = time.time_ns()
    arguments = f"load --mix get --connections 4 --rate 500 --trace {trace} --nodes 20"
    with FakeServer() as server:
        result = run(program, server, arguments + " --seconds 0.4 --warmup 0.1")
    check_rate(result)
    assert 100 < result["operations"] <= 250
    assert (result["skipped"], result["late_us"]["count"] > 0) == (0, True)
    samples = [tuple(map(int, line.split())) for line in trace.read_text().splitlines()]
    assert len(samples) == result["operations"]
    assert all(begin_ns < sent_ns < time.time_ns() and wait_ns > 0 for sent_ns, wait_ns in samples)


def test_an_interrupt_ends_with_the_result_so_far(program: Path) -> None:
    with FakeServer() as server:
        load = start(program, server, "load --mix get --seconds 60 --warmup 0 --nodes 20")
        while server.requests[GET_DATA] < 10:
            time.sleep(0.01)
        result = load.end_early()
    assert 0 < result["seconds"] < 30
    check_rate(result)


def test_watchers_get_each_event_and_watch_again(program: Path) -> None:
    with FakeServer() as server:
        result = run(program, server, f"watch --connections 5 {SHORT}")
    check_rate(result)
    assert result["operations"] == 5 * result["rounds"]
    assert result["stalls"] == 0
    assert server.requests[GET_DATA] == 5 * (server.requests[SET_DATA] + 1)
    assert len(server.watchers["/bench/watched"]) == 5


def test_sessions_are_opened_and_closed(program: Path) -> None:
    with FakeServer() as server:
        result = run(program, server, "sessions --count 40 --parallel 8")
    check_rate(result)
    assert result["operations"] == server.sessions == 40
    assert result["closed_per_s"] > 0


def test_server_cpu_time_is_that_of_the_process_named(program: Path) -> None:
    with FakeServer() as server, subprocess.Popen(["sleep", "60"]) as idle:
        result = run(program, server, f"load --mix get --count 200 --nodes 20 --pid {idle.pid}")
        idle.send_signal(signal.SIGKILL)
    assert (result["server_cpu_s"], result["server_cpu_us_per_op"]) == (0, 0)


def test_connections_are_spread_over_servers_which_sync_first(program: Path) -> None:
    with FakeServer() as one, FakeServer() as other:
        other.nodes = one.nodes
        target = f"{one.address},{other.address}"
        arguments = f"load --mix get --connections 4 --count 200 {SHORT}".split()
        result = LoadGenerator(program, target, arguments).finish()
    check_rate(result)
    assert (one.sessions, other.sessions) == (2, 2)
    assert (one.requests[SYNC], other.requests[SYNC]) == (2, 2)
    assert (one.requests[SET_DATA], other.requests[SET_DATA]) == (20, 0)
    assert one.requests[GET_DATA] + other.requests[GET_DATA] == 200
    assert min(one.requests[GET_DATA], other.requests[GET_DATA]) > 20


def test_watchers_are_spread_too(program: Path) -> None:
    with FakeServer() as one, FakeServer() as other:
        other.nodes, other.watchers = one.nodes, one.watchers
        arguments = f"watch --connections 4 {SHORT}".split()
        result = LoadGenerator(program, f"{one.address},{other.address}", arguments).finish()
    assert result["operations"] == 4 * result["rounds"] > 0
    assert (one.sessions, other.sessions) == (3, 2)


def test_cpu_time_is_the_sum_over_processes(program: Path) -> None:
    arguments = ["load", "--mix", "get", "--seconds", "0.3", "--nodes", "20"]
    endless = ["sh", "-c", "while :; do :; done"]
    with FakeServer() as server, subprocess.Popen(endless) as one, subprocess.Popen(endless) as two:
        try:
            alone = LoadGenerator(program, server.address, arguments, str(one.pid)).finish()
            pids = f"{one.pid},{two.pid}"
            both = LoadGenerator(program, server.address, arguments, pids).finish()
        finally:
            one.kill()
            two.kill()
    assert 0 < alone["server_cpu_s"] < both["server_cpu_s"]


def test_errors_and_lost_connections_are_no_result(program: Path) -> None:
    with FakeServer() as server:
        server.failing_reads = True
        with pytest.raises(LoadFailed, match="replies with an error"):
            run(program, server, f"load --mix get {SHORT}")
    with pytest.raises(LoadFailed, match="connection lost"):
        run(program, server, "load --mix get")


@pytest.mark.parametrize(
    "arguments", ["load --window", "load --window x", "load --mix fly", "load --no", "dance"]
)
def test_wrong_options_are_refused(program: Path, arguments: str) -> None:
    with FakeServer() as server, pytest.raises(LoadFailed, match=r"usage|--window|--mix"):
        run(program, server, arguments)
