"""Four letter words, against Apache ZooKeeper and zkpy alike.

Section 14 of the client protocol reference.
"""

from __future__ import annotations

import re

import pytest
from tests.support import wire
from tests.support.oracle import Server
from tests.support.rawclient import RawClient, four_letter_word, make
from tests.support.wire import ADD_WATCH, GET_DATA, PING, REMOVE_WATCHES

pytestmark = pytest.mark.interop

SERVER_CONFIG = {"maxSessionTimeout": 10_000}


# Section 14: four letter words


@pytest.mark.parametrize("word", ["ruok", "isro", "crst", "srst", "gtmk"])
def test_short_words(server: Server, word: str) -> None:
    expected = {
        "ruok": "imok",
        "isro": "rw",
        "crst": "Connection stats reset.\n",
        "srst": "Server stats reset.\n",
        "gtmk": "306",
    }
    assert four_letter_word(server.address, word) == expected[word]


def test_word_with_a_newline(server: Server) -> None:
    """`echo ruok |` sends five bytes: the answer must not be lost to a reset."""
    for _ in range(10):
        with RawClient(server.address) as client:
            client.send_raw(b"ruok\n")
            assert client.read_to_end() == b"imok"


def test_srvr(server: Server) -> None:
    assert re.fullmatch(
        r"Zookeeper version: \d+\.\d+\.\d+-\S+, built on .+\n"
        r"Latency min/avg/max: \d+/\d+\.\d+/\d+\n"
        r"Received: \d+\nSent: \d+\nConnections: \d+\nOutstanding: \d+\n"
        r"Zxid: 0x[0-9a-f]+\nMode: standalone\nNode count: \d+\n",
        four_letter_word(server.address, "srvr"),
    )


def test_stat_and_cons(server: Server, client: RawClient) -> None:
    client.call(PING)
    assert client.session is not None
    local = f"127.0.0.1:{client.socket.getsockname()[1]}"
    text = four_letter_word(server.address, "stat")
    assert re.search(
        rf"^ /{local}\[[0-9a-f]+\]\(queued=0,recved=\d+,sent=\d+\)$", text, re.MULTILINE
    )
    text = four_letter_word(server.address, "cons")
    assert re.search(
        rf"^ /{local}\[[0-9a-f]+\]\(queued=0,recved=\d+,sent=\d+,"
        rf"sid=0x{client.session.session_id:x},"
        r"lop=PING,est=\d+,to=10000,lcxid=0x[0-9a-f]+,lzxid=0x[0-9a-f]+,lresp=\d+,llat=\d+,"
        r"minlat=\d+,avglat=\d+,maxlat=\d+\)$",
        text,
        re.MULTILINE,
    )


def test_dump(server: Server, client: RawClient, base: str) -> None:
    make(client, f"{base}/e", flags=wire.EPHEMERAL)
    assert client.session is not None
    text = four_letter_word(server.address, "dump")
    assert text.startswith("SessionTracker dump:\nSession Sets (")
    assert f"0x{client.session.session_id:x}:\n\t{base}/e\n" in text
    assert "Sessions with Ephemerals (" in text
    assert "Connections Sets (" in text


def test_watch_words(server: Server, client: RawClient, base: str) -> None:
    client.value(GET_DATA, wire.path_watch(base, True))
    assert client.session is not None
    session = f"0x{client.session.session_id:x}"
    assert f"{session}\n\t{base}\n" in four_letter_word(server.address, "wchc")
    assert f"{base}\n\t{session}\n" in four_letter_word(server.address, "wchp")
    assert re.fullmatch(
        r"\d+ connections watching \d+ paths\nTotal watches:\d+\n?",
        four_letter_word(server.address, "wchs"),
    )


def test_a_connection_without_watches_is_not_counted(
    server: Server, client: RawClient, base: str
) -> None:
    """After removeWatches; a connection whose watches have fired is still listed."""

    def connections() -> int:
        return int(four_letter_word(server.address, "wchs").split()[0])

    before = connections()
    client.value(ADD_WATCH, wire.path_type(base, 0))
    assert connections() == before + 1
    client.value(REMOVE_WATCHES, wire.path_type(base, 3))
    assert connections() == before


MNTR_KEYS = """
version server_state avg_latency max_latency min_latency packets_received packets_sent
num_alive_connections outstanding_requests znode_count watch_count ephemerals_count
approximate_data_size open_file_descriptor_count max_file_descriptor_count global_sessions uptime
connection_request_count bytes_received_count commit_count snap_count diff_count looking_count
avg_fsynctime cnt_fsynctime p99_readlatency p99_updatelatency
"""


def test_mntr(server: Server) -> None:
    lines = four_letter_word(server.address, "mntr").splitlines()
    values = dict(line.split("\t", 1) for line in lines)
    assert [key for key in MNTR_KEYS.split() if f"zk_{key}" not in values] == []
    assert values["zk_server_state"] == "standalone"


def test_conf(server: Server) -> None:
    lines = four_letter_word(server.address, "conf").splitlines()
    assert [line.split("=")[0] for line in lines] == [
        "clientPort",
        "secureClientPort",
        "dataDir",
        "dataDirSize",
        "dataLogDir",
        "dataLogSize",
        "tickTime",
        "maxClientCnxns",
        "minSessionTimeout",
        "maxSessionTimeout",
        "clientPortListenBacklog",
        "serverId",
    ]
    assert lines[0] == f"clientPort={server.port}"
    assert "tickTime=500" in lines
    assert "maxSessionTimeout=10000" in lines


def test_envi(server: Server) -> None:
    text = four_letter_word(server.address, "envi")
    assert re.match(r"Environment:\nzookeeper\.version=\d+\.\d+\.\d+-", text)
