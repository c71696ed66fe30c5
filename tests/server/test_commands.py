"""Four letter words: the same lines as Apache ZooKeeper, and the values behind them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.machine import START_MS, WALL_MS, Client, Machine
from tests.support import wire

from zkpy.server import commands, metrics
from zkpy.server.command_texts import LAST_OPERATIONS, date_text, peer_name
from zkpy.server.environment import Environment
from zkpy.server.mntr import monitor_values
from zkpy.server.role import Role
from zkpy.server.stats import Summary
from zkpy.server.version import zookeeper_version_text

CAPTURE = Path(__file__).parent.parent / "golden" / "fourletter" / "fourletter-3.9.5.txt"


def captured() -> dict[str, str]:
    """`server <- word` -> answer."""
    answers = {}
    for part in CAPTURE.read_text().split("\n$ "):
        title, _, body = part.removeprefix("$ ").partition("\n")
        lines = [line[2:] for line in body.rstrip("\n").split("\n") if line.startswith("| ")]
        if title in answers:
            title += " again"
        answers[title] = "\n".join(lines)
    return answers


GOLDEN = captured()


def shape(text: str) -> str:
    """What stays when numbers, addresses, dates and versions may differ."""
    text = re.sub(r"(?m)^(Zookeeper version: |zookeeper\.version=|zk_version\t).*", r"\1#", text)
    text = re.sub(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} \d\d [\d:]{8} UTC \d{4}", "#", text)
    text = re.sub(r"(?m)^((os|host|user|java)\.[a-z.]+)=.*", r"\1=#", text)
    text = re.sub(r"(?m)^(data(Log)?Dir)=.*", r"\1=#", text)
    text = re.sub(r"0x[0-9a-f]+", "0x#", text)
    text = re.sub(r"\d+\.\d+\.\d+\.\d+:\d+", "#", text)
    return re.sub(r"-?\d+(\.\d+)?", "#", text)


def values_of(machine: Machine) -> dict[str, Any]:
    """What `mntr` shows, as values."""
    return dict(monitor_values(machine.server))


@pytest.fixture
def watching(machine: Machine) -> Client:
    """A session with two ephemerals and the watches of the captured one."""
    client = machine.connect()
    client.create("/app")
    client.create("/app/e1", flags=wire.EPHEMERAL)
    client.create("/app/e2", flags=wire.EPHEMERAL)
    client.value(wire.GET_DATA, wire.path_watch("/app", True))
    client.value(wire.GET_CHILDREN, wire.path_watch("/app", True))
    assert client.code(wire.EXISTS, wire.path_watch("/nosuch", True)) == wire.NO_NODE
    client.value(wire.ADD_WATCH, wire.path_type("/app/r", 1))
    return client


# ------------------------------------------------------------------ the same lines


def by_line(text: str) -> list[str]:
    """For lines in the order of a hash table."""
    return sorted(shape(text).split("\n"))


@pytest.mark.parametrize("word", ["ruok", "isro", "wchs", "wchc", "wchp", "gtmk", "hash"])
def test_small_words(machine: Machine, watching: Client, word: str) -> None:
    assert by_line(machine.four_letter_word(word)) == by_line(GOLDEN[f"leader <- {word}"])


@pytest.mark.parametrize("word", ["srvr", "stat", "conf", "mntr", "dump"])
def test_standalone(machine: Machine, word: str) -> None:
    ours = machine.four_letter_word(word)
    theirs = GOLDEN[f"standalone <- {word}"]
    if word == "mntr":
        # In no particular order; and reads and writes are not measured by namespace.
        wanted = [line for line in shape(theirs).split("\n") if "_per_namespace" not in line]
        assert sorted(shape(ours).split("\n")) == sorted(wanted)
        assert ours.split("\t")[0] == "zk_version"
        assert ours.split("\n")[1] == "zk_server_state\tstandalone"
    else:
        assert shape(ours) == shape(theirs)


def test_with_a_session(machine: Machine, watching: Client) -> None:
    assert by_line(machine.four_letter_word("cons")) == by_line(GOLDEN["leader <- cons"])
    stat = machine.four_letter_word("stat").replace("Mode: standalone", "Mode: leader")
    sizes = "Proposal sizes last/min/max: #/#/#\n"
    assert by_line(stat + sizes) == by_line(GOLDEN["leader <- stat"])
    # Buckets without a session are not kept here.
    dump = re.sub("(?m)^0 expire at .*\n", "", GOLDEN["leader <- dump"])
    assert shape(machine.four_letter_word("dump")) == shape(dump)


def test_resets(machine: Machine, watching: Client) -> None:
    assert machine.four_letter_word("crst") == GOLDEN["leader <- crst"]
    theirs, ours = (
        re.sub(r"(sid|to|est)=[^,]*|:\d+", r"\1=#", text)
        for text in (GOLDEN["leader <- cons again"], machine.four_letter_word("cons"))
    )
    assert sorted(ours.split("\n")) == sorted(theirs.split("\n"))
    assert machine.four_letter_word("srst") == GOLDEN["leader <- srst"]
    srvr = machine.four_letter_word("srvr")
    assert "Latency min/avg/max: 0/0.0/0\nReceived: 1\nSent: 1\n" in srvr


def test_trace_mask(machine: Machine) -> None:
    (title,) = [title for title in GOLDEN if "stmk" in title]
    assert machine.four_letter_word(b"stmk" + (250).to_bytes(8, "big")) == GOLDEN[title] == "250"
    assert machine.four_letter_word("gtmk") == "250"
    assert machine.four_letter_word(b"stmk" + b"\xff" * 8) == "-1"


def test_trace_mask_comes_in_pieces(machine: Machine) -> None:
    client = machine.plain()
    client.feed(b"stmk")
    machine.settle()
    assert not client.closed
    client.feed(bytes(7))
    client.feed(b"\x07")
    machine.settle()
    assert bytes(client.inbox) == b"7"


def test_envi(machine: Machine) -> None:
    theirs = [line.split("=")[0] for line in GOLDEN["leader <- envi"].split("\n")]
    from zkpy.server.aio.environment import OsEnvironment

    machine.server.environment = OsEnvironment(machine.config)
    text = machine.four_letter_word("envi")
    assert [line.split("=")[0] for line in text.split("\n")] == theirs
    assert f"zookeeper.version={zookeeper_version_text()}\n" in text


# ------------------------------------------------------------------ who may ask, and when


def test_the_whitelist() -> None:
    machine = Machine(four_letter_words=frozenset({"srvr", "mntr"}))
    assert machine.four_letter_word("srvr").startswith("Zookeeper version: 3.9.5-")
    assert machine.four_letter_word("mntr").startswith("zk_version")
    refusal = " is not executed because it is not in the whitelist.\n"
    assert machine.four_letter_word("ruok") == "ruok" + refusal
    assert machine.four_letter_word("isro") == "isro" + refusal
    # The word alone: nothing waits for its mask.
    assert machine.four_letter_word("stmk") == "stmk" + refusal
    assert machine.four_letter_word(b"\xff\xf4\xff\xfd") == "telnet close" + refusal
    assert machine.four_letter_word("nope") == ""
    assert machine.four_letter_word("RUOK") == GOLDEN["standalone <- RUOK"]


def test_isro_comes_with_read_only_mode() -> None:
    machine = Machine(four_letter_words=frozenset({"srvr"}), read_only_mode_enabled=True)
    assert machine.four_letter_word("isro") == "rw"


def test_telnet_close_is_silent(machine: Machine) -> None:
    assert machine.four_letter_word(b"\xff\xf4\xff\xfd") == ""


def test_a_newline_does_not_harm(machine: Machine) -> None:
    assert machine.four_letter_word(b"ruok\r\n") == "imok"


def test_a_word_in_pieces(machine: Machine) -> None:
    client = machine.plain()
    client.feed(b"ru")
    machine.settle()
    assert not client.closed
    client.feed(b"ok")
    machine.settle()
    assert bytes(client.inbox) == b"imok" and client.closed


def test_a_word_behind_the_handshake_is_a_length(machine: Machine, client: Client) -> None:
    client.feed(b"ruok")
    machine.settle()
    assert client.closed and not client.inbox


class Follower(Role):
    """A member of an ensemble, in a state of choice."""

    def __init__(self, only_reads: bool = False) -> None:
        self.only_reads = only_reads

    def read_only(self) -> bool:
        return self.only_reads

    def mode(self) -> str:
        return "leader"

    def peer_state(self) -> str:
        return "leading - broadcast"

    def server_id(self) -> int:
        return 3

    def config_text(self) -> str:
        return "initLimit=10\n"

    def proposal_sizes(self) -> tuple[int, int, int]:
        return 92, 48, 92

    def gauges(self) -> dict[str, int]:
        return {"quorum_size": 3}

    def sessions_text(self) -> str:
        return "Global Sessions(0):\n"


def test_not_serving(machine: Machine) -> None:
    machine.server.serving = False
    text = "This ZooKeeper instance is not currently serving requests"
    elsewhere = {"ruok", "isro", "envi", "gtmk", "stmk", "hash", commands.TELNET_CLOSE}
    for name in set(commands.COMMANDS.values()) - elsewhere:
        assert machine.four_letter_word(name) == text + "\n"
    assert machine.four_letter_word("hash") == text
    assert machine.four_letter_word("isro") == "null"
    assert machine.four_letter_word("ruok") == "imok"
    assert machine.four_letter_word("gtmk") == "306"
    assert machine.four_letter_word("envi").startswith("Environment:\n")


def test_a_member_of_an_ensemble(machine: Machine) -> None:
    machine.server.role = Follower(only_reads=True)
    assert machine.four_letter_word("isro") == "ro"
    srvr = machine.four_letter_word("srvr")
    assert srvr.split("\n")[1] == "READ-ONLY mode; serving only read-only clients"
    assert srvr.endswith("Mode: leader\nNode count: 5\nProposal sizes last/min/max: 92/48/92\n")
    assert machine.four_letter_word("conf").endswith("serverId=3\ninitLimit=10\n")
    assert "SessionTracker dump:\nGlobal Sessions(0):\n" in machine.four_letter_word("dump")
    mntr = machine.four_letter_word("mntr")
    assert mntr.split("\n")[2] == "zk_peer_state\tleading - broadcast"
    assert "zk_quorum_size\t3\n" in mntr


# ------------------------------------------------------------------ the values


def test_counts_of_srvr(machine: Machine, client: Client) -> None:
    client.call(wire.PING)
    client.create("/a")
    text = machine.four_letter_word("srvr")
    # ConnectRequest, ping, create, and the word itself, which is not answered yet.
    assert "Received: 4\nSent: 3\nConnections: 2\nOutstanding: 0\nZxid: 0x2\n" in text
    client.drop()
    assert "Received: 5\nSent: 4\nConnections: 1\n" in machine.four_letter_word("srvr")


def test_outstanding_requests(machine: Machine, client: Client) -> None:
    client.send(wire.CREATE, wire.create("/a"))
    client.send(wire.PING)
    client.send(wire.GET_DATA, wire.path_watch("/a"))
    assert "Outstanding: 3\n" in machine.four_letter_word("srvr")
    assert "(queued=2," in machine.four_letter_word("stat").split("\n")[2]
    machine.flush()
    assert "Outstanding: 0\n" in machine.four_letter_word("srvr")


def test_latency(machine: Machine, client: Client) -> None:
    machine.server.stats.reset()
    client.send(wire.CREATE, wire.create("/a"))
    machine.server.now_ms += 7
    machine.flush()
    client.send(wire.CREATE, wire.create("/b"))
    machine.server.now_ms += 2
    machine.flush()
    assert "Latency min/avg/max: 2/4.5/7\n" in machine.four_letter_word("srvr")
    client.send(wire.PING)
    assert "Latency min/avg/max: 0/3.0/7\n" in machine.four_letter_word("srvr")
    values = values_of(machine)
    assert (values["cnt_updatelatency"], values["sum_updatelatency"]) == (2, 9)
    assert (values["min_updatelatency"], values["max_updatelatency"]) == (2, 7)
    assert (values["p50_updatelatency"], values["p999_updatelatency"]) == (2, 7)
    assert (values["cnt_readlatency"], values["avg_readlatency"]) == (1, 0.0)


def test_cons_in_full(machine: Machine) -> None:
    client = machine.connect(timeout_ms=7000)
    client.send(wire.CREATE, wire.create("/a"))
    machine.server.now_ms += 3
    machine.flush()
    line = machine.four_letter_word("cons").split("\n")[0]
    assert line == (
        f" /127.0.0.1:40000[1](queued=0,recved=2,sent=2,sid=0x{client.session_id:x},lop=CREA,"
        f"est={WALL_MS},to=7000,lcxid=0x1,lzxid=0x2,lresp={START_MS + 3},llat=3,minlat=3,avglat=3,"
        "maxlat=3)"
    )


def test_last_operations(machine: Machine, client: Client) -> None:
    def lop() -> str:
        text = machine.four_letter_word("cons")
        found = re.search(r"lop=(\w+)", text)
        assert found is not None
        return found[1]

    assert lop() == "SESS"
    client.create("/a")
    assert lop() == "CREA"
    client.call(wire.MULTI, wire.multi([(wire.CHECK, wire.path_version("/a", 77))]))
    assert lop() == "MULT"
    client.call(wire.EXISTS, wire.path_watch("/none"))
    assert lop() == "EXIS"
    client.call(wire.DELETE, wire.path_version("/none"))
    assert lop() == "NA"  # it failed before it was executed
    client.send(wire.SET_DATA, wire.set_data("/a"))
    client.send(wire.PING)
    machine.flush()
    assert lop() == "PING"
    assert client.session is not None
    session = client.session
    client.drop()
    again = machine.plain()
    again.resume(session)
    assert lop() == "null"
    assert set(LAST_OPERATIONS.values()) >= {"GETA", "GETC", "GETACN", "MLTR", "STW2", "HOMI"}


def test_held_and_blocked_connections(machine: Machine, client: Client) -> None:
    client.cnxn.held = True
    assert "[0](" in machine.four_letter_word("stat").split("\n")[2]
    client.cnxn.write_blocked = True
    assert "[4](" in machine.four_letter_word("stat").split("\n")[2]
    client.cnxn.held = False
    assert "[5](" in machine.four_letter_word("stat").split("\n")[2]


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("10.0.0.1", "/10.0.0.1:7"),
        ("::1", "/[0:0:0:0:0:0:0:1]:7"),
        ("2001:db8::ff00:42:8329", "/[2001:db8:0:0:0:ff00:42:8329]:7"),
        ("fe80::1%eth0", "/[fe80:0:0:0:0:0:0:1%eth0]:7"),
        ("::", "/[0:0:0:0:0:0:0:0]:7"),
        ("1:2:3:4:5:6:7:0008", "/[1:2:3:4:5:6:7:8]:7"),
    ],
)
def test_addresses(machine: Machine, address: str, text: str) -> None:
    client = machine.accept(address, 7)
    assert client is not None
    assert peer_name(client.cnxn) == text


def test_dates() -> None:
    assert date_text(1_795_353_644_062) == "Sun Nov 22 13:20:44 UTC 2026"
    assert date_text(0) == "Thu Jan 01 00:00:00 UTC 1970"
    assert date_text(951_782_400_000) == "Tue Feb 29 00:00:00 UTC 2000"


def test_dump_tells_when(machine: Machine) -> None:
    client = machine.connect(timeout_ms=6000)
    text = machine.four_letter_word("dump")
    # Ticks of 3 s: touched at 5 s, so 11 s rounded up.
    expiry = date_text(WALL_MS + 12_000 - START_MS)
    assert f"Session Sets (1)/(1):\n1 expire at {expiry}:\n\t0x{client.session_id:x}\n" in text
    assert (
        f"1 expire at {expiry}:\n\tip: /127.0.0.1:40000 sessionId: 0x{client.session_id:x}\n"
        in text
    )
    client.create("/e", flags=wire.EPHEMERAL)
    client.call(wire.DELETE, wire.path_version("/e"))
    text = machine.four_letter_word("dump")
    # It stays listed until the session ends.
    assert f"Sessions with Ephemerals (1):\n0x{client.session_id:x}:\nConnections" in text


def test_watches_stay_listed_until_the_connection_closes(machine: Machine, client: Client) -> None:
    client.create("/a")
    client.value(wire.GET_DATA, wire.path_watch("/a", True))
    other = machine.connect()
    other.value(wire.EXISTS, wire.path_watch("/a", True))
    text = machine.four_letter_word("wchs")
    assert text == "2 connections watching 1 paths\nTotal watches:2\n"
    client.value(wire.SET_DATA, wire.set_data("/a"))
    text = machine.four_letter_word("wchs")
    assert text == "2 connections watching 0 paths\nTotal watches:0\n"
    other.drop()
    text = machine.four_letter_word("wchc")
    assert text == f"0x{client.session_id:x}\n\n"


def test_hash_shows_every_128th_digest(machine: Machine, client: Client) -> None:
    digests = {}
    for _ in range(260):
        client.value(wire.SET_DATA, wire.set_data("/"))
        digests[machine.tree.last_processed_zxid] = machine.tree.digest
    text = machine.four_letter_word("hash")
    assert text == f"80: {digests[128]}\n100: {digests[256]}\n"


def test_quota_metrics() -> None:
    machine = Machine(enforce_quota=True)
    client = machine.connect()
    for path, data in [
        ("/app", b""),
        ("/zookeeper/quota/app", b""),
        ("/zookeeper/quota/app/zookeeper_limits", b"count=9,bytes=7=;countHardLimit=3"),
        ("/zookeeper/quota/app/zookeeper_stats", b"count=0,bytes=0"),
        ("/app/a", b"12345"),
        ("/app/b", b""),
    ]:
        client.create(path, data)
    for _ in range(2):
        assert client.code(wire.CREATE, wire.create("/app/c")) == wire.QUOTA_EXCEEDED
    values = values_of(machine)
    assert values["app_quota_count_limit_per_namespace"] == 3
    assert values["app_quota_bytes_limit_per_namespace"] == 7
    assert values["app_quota_count_usage_per_namespace"] == 3
    assert values["app_quota_bytes_usage_per_namespace"] == 5
    assert values["app_quota_exceeded_error_per_namespace"] == 2
    machine.four_letter_word("srst")
    assert "app_quota_exceeded_error_per_namespace" not in values_of(machine)


def test_mntr_counts(machine: Machine, watching: Client) -> None:
    other = machine.connect()
    other.value(
        wire.SET_DATA, wire.set_data("/app")
    )  # one watches data, one everything below /app/r
    other.value(wire.CREATE, wire.create("/app/r"))
    other.value(wire.DELETE, wire.path_version("/app/r"))
    values = values_of(machine)
    assert values["cnt_node_changed_watch_count"] == 1
    assert values["cnt_node_created_watch_count"] == 1
    assert values["cnt_node_deleted_watch_count"] == 1
    assert values["sum_node_children_watch_count"] == 1
    assert values["watch_bytes"] > 4 * 32
    assert values["connection_request_count"] == 2
    assert values["global_sessions"] == 2
    assert values["ephemerals_count"] == 2
    assert values["znode_count"] == 8
    assert values["bytes_received_count"] > 300
    assert values["uptime"] == 0
    assert values["min_client_response_size"] == 20
    assert values["last_client_response_size"] == 20
    assert values["max_client_response_size"] == 92
    assert values["response_bytes"] > 500
    names = " ".join(values)
    for name in ("readlatency", "fsynctime", "jvm_pause_time_ms"):
        assert f"avg_{name}" in names


def test_the_shell_and_the_ensemble_add_theirs(machine: Machine) -> None:
    stats = machine.server.stats
    stats.record("fsynctime", 3)
    stats.record("fsynctime", 6)
    stats.record("7_learner_handler_qp_size", 1)
    stats.record("2_ack_latency", 4)
    stats.count("snap_count")
    values = values_of(machine)
    assert values["avg_fsynctime"] == 4.5 and "p50_fsynctime" not in values
    assert values["cnt_7_learner_handler_qp_size"] == 1
    assert values["p99_2_ack_latency"] == 4
    assert values["snap_count"] == 1


def test_environment_values(machine: Machine) -> None:
    class Known(Environment):
        def data_dir(self) -> str:
            return "/var/zk/version-2"

        def log_dir_size(self) -> int:
            return 77

        def client_port(self) -> int:
            return 2181

        def open_file_descriptors(self) -> int:
            return 12

    machine.server.environment = Known()
    assert machine.four_letter_word("dirs") == "datadir_size: 0\nlogdir_size: 77\n"
    conf = machine.four_letter_word("conf")
    assert conf.startswith(
        "clientPort=2181\nsecureClientPort=-1\ndataDir=/var/zk/version-2\ndataDirSize=0\n"
    )
    assert "zk_open_file_descriptor_count\t12\n" in machine.four_letter_word("mntr")


# ------------------------------------------------------------------ summaries


@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_a_summary_is_right(values: list[int]) -> None:
    summary = Summary()
    for value in values:
        summary.add(value)
    assert summary.count == len(values) and summary.total == sum(values)
    assert summary.min == min(values) and summary.max == max(values)
    assert abs(summary.average() - sum(values) / len(values)) <= 0.00005 + 1e-9
    ordered = sorted(values)
    for permille in (500, 950, 990, 999):
        exact = ordered[max(0, -(-len(values) * permille // 1000) - 1)]
        assert 0 <= exact - summary.percentile(permille) <= exact / 64


def test_a_summary_stays_small() -> None:
    summary = Summary()
    for value in range(0, 10_000_000, 997):
        summary.add(value)
    assert len(summary.values) < 2000


def test_nothing_measured() -> None:
    summary = Summary()
    assert (summary.average(), summary.percentile(999), summary.min, summary.max) == (0.0, 0, 0, 0)


def test_names_are_told_apart() -> None:
    names = [*metrics.COUNTERS, *metrics.BASIC_SUMMARIES, *metrics.ADVANCED_SUMMARIES]
    assert len(set(names)) == len(names)
    assert len(commands.COMMANDS) == 19
