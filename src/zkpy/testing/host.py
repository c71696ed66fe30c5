"""Host: a machine of a simulated ensemble: a disk, a clock, and a process that runs one Member.

Does what the shell (server/aio) does, in virtual time: calls in, effects out once per loop turn, a
log thread, snapshots in slices. And what machines do besides: the process is killed or stopped, the
power fails in the midst of anything, the disk is slow or broken, the wall clock jumps.
"""

from __future__ import annotations

from collections import deque

from zkpy.persistence.errors import CorruptFile, DiskError, PersistenceError
from zkpy.persistence.store import FileTxnSnapLog
from zkpy.quorum.effects import (
    ClosePeerPort,
    Dial,
    OpenPeerPort,
    RebindClientPort,
    RebindElectionPort,
    Stop,
)
from zkpy.quorum.members import ANY_ADDRESS
from zkpy.server.leader_server import LeaderZooKeeperServer
from zkpy.server.learner_server import LearnerZooKeeperServer
from zkpy.server.member import Member
from zkpy.testing import disk as faults
from zkpy.testing.disk import SimulatedDisk
from zkpy.testing.history import Violation
from zkpy.testing.inspection import Inspection
from zkpy.testing.sockets import ClientSocket, PeerSocket
from zkpy.testing.storage import LogThread, SimulatedDatabase, Snapshots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random
    from typing import Any, Final

    from zkpy.quorum.effects import Effect
    from zkpy.quorum.link import Link
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.server.settings import Config
    from zkpy.testing.cluster import Cluster
    from zkpy.testing.network import Address, End

DATA_DIR: Final = "/data"
# How much later than asked for a loop turn, a timer or a thread comes.
TURN_US: Final = 60
TIMER_US: Final = 500
LEAST_SYNC_US: Final = 100
MOST_SYNC_US: Final = 3000
# How often it is looked whether a stream has taken what was queued.
RETRY_US: Final = 20_000
EPOCH_MS: Final = 1_764_000_000_000


class PowerCut(Exception):
    """The power fails in the midst of an operation of the disk."""


class Host:
    """`up`: there is a process. `stopped`: it does not run (SIGSTOP); what comes waits.

    `sync_us`: what syncs of the disk take. `durable_zxid`: what its disk certainly has.
    """

    member: Member
    store: FileTxnSnapLog
    snapshots: Snapshots

    def __init__(self, cluster: Cluster, sid: int, config: Config) -> None:
        self.cluster = cluster
        self.sid = sid
        self.config = config
        self.rng: Random = cluster.rng
        self.name = f"z{sid}"
        self.disk = SimulatedDisk(self.rng)
        self.disk.make_dirs(DATA_DIR)
        self.disk.before = self._before
        self.operations_left: int | None = None
        self.up = False
        self.stopped = False
        self._frozen_us = 0
        # What it served with when it was frozen for so long that its leader gave it up, or its
        # followers: nobody is told of the clients it hears.
        self._untold_server: object = None
        self.life = 0
        self.restart_us: int | None = None
        self.sync_us = (LEAST_SYNC_US, MOST_SYNC_US)
        self.wall_offset_ms = 0
        # How fast its monotonic clock is.
        self.clock_rate = 1.0
        self.durable_zxid = 0
        # A failure of the disk is to be expected.
        self.disk_broken = False
        self._clock_base_ms = 0
        self._backlog: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def __repr__(self) -> str:
        return self.name

    # ------------------------------------------------------------------ the process

    def start(self) -> None:
        """Start the process; it may fail at once, and is started again later."""
        assert not self.up
        self.life += 1
        self.up = True
        self.stopped = False
        self._backlog.clear()
        self._turn_due = False
        self._timer_ms = 1 << 62
        self.inspection = Inspection(self)
        self._clock_base_ms = self.rng.randrange(1 << 30)
        self.cluster.network.switch_on(self.name)
        self._guarded(self._start, ())

    def _start(self) -> None:
        self.store = store = FileTxnSnapLog(self.disk, self.cluster.settings_of(self.config))
        store.open()
        database = SimulatedDatabase(store, self.disk, self.config)
        database.host = self
        durable_zxid = self.durable_zxid
        try:
            database.load()
        except CorruptFile as error:
            self._mend(error)
            database.load()
        if database.last_zxid < durable_zxid:
            raise Violation(
                f"{self} starts with {database.last_zxid:#x}, and had {durable_zxid:#x} on its disk"
            )
        if database.digest_mismatches:
            raise Violation(f"{self} has wrong digests after its start")
        self.cluster.check_loaded(self, database)
        self.member = Member(
            self.config,
            database,
            self.cluster.auth,
            now_ms=self.now_ms,
            wall_ms=self.wall_ms,
            rng=self.rng,
            config_files=self.cluster.config_files(self),
        )
        self.log_thread = LogThread(self)
        database.quiesce = self.log_thread.quiesce
        self.snapshots = Snapshots(self, database.tree)
        own = self.member.view.server(self.sid)
        assert own is not None
        self._peer_addresses = []
        self._listen_for_elections(own.election_addresses)
        self._client_address = self.cluster.client_address(self.sid)
        self.cluster.network.listen(self._client_address, self._client_connects)
        self.cluster.trace(self, "starts with %#x", database.last_zxid)
        self.member.start()

    def _mend(self, error: CorruptFile) -> None:
        """What an operator does about a record torn while power failed: cut it off, and the rest.

        Whole records may be behind it, of the same write. Nothing durable may go with it.
        """
        if not error.reason.startswith("CRC check failed") or error.offset is None:
            raise error
        self.cluster.trace(self, "is mended: %s", error)
        file = self.disk.open(error.path)
        file.truncate(error.offset)
        file.fdatasync()
        file.close()

    def kill(self) -> None:
        """End the process at once; what it has written to files stays, synced or not."""
        if not self.up:
            return
        self._gone()
        self.disk.restart()
        self.cluster.network.kill(self.name)

    def power_off(self) -> None:
        """End everything at once; the disk keeps what was synced, and some of the rest."""
        if not self.up:
            return
        self._gone()
        self.disk.crash(self.rng, torn_in_sectors=self.rng.random() < 0.3)
        self.cluster.network.switch_off(self.name)

    def _gone(self) -> None:
        self.up = False
        self.stopped = False
        self.life += 1
        self.operations_left = None
        self.disk_broken = False
        self._backlog.clear()

    def stop_running(self) -> None:
        """SIGSTOP."""
        self.stopped = True
        self._frozen_us = self.cluster.scheduler.now_us

    def go_on(self) -> None:
        """SIGCONT: first what has arrived is looked at, then the clock."""
        if not self.up or not self.stopped:
            return
        self.stopped = False
        config = self.config
        frozen_ms = (self.cluster.scheduler.now_us - self._frozen_us) // 1000
        if frozen_ms > config.tick_time_ms * config.sync_limit_ticks:
            member = getattr(self, "member", None)
            if member is not None:
                # Its role is over by now, which it will find out in a moment.
                self._untold_server = member.server
                self.cluster.checker.thawed(list(member.server.cnxn_of_session))
        life = self.life
        while self._backlog and self.life == life:
            call, args = self._backlog.popleft()
            self._guarded(call, args)

    def _before(self, kind: str, _path: str) -> None:
        if self.operations_left is not None and kind != faults.READ:
            self.operations_left -= 1
            if self.operations_left < 0:
                raise PowerCut

    # ------------------------------------------------------------------ time

    @property
    def now_ms(self) -> int:
        """The monotonic clock; it begins anywhere at each start."""
        return self._clock_base_ms + int(self.cluster.scheduler.now_us * self.clock_rate) // 1000

    @property
    def wall_ms(self) -> int:
        return EPOCH_MS + self.wall_offset_ms + self.cluster.scheduler.now_us // 1000

    def later(self, delay_us: int, call: Callable[..., object], *args: Any) -> None:
        """Call something in this process, if it lives then."""
        self.cluster.scheduler.after(delay_us, self.event, self.life, call, *args)

    def event(self, life: int, call: Callable[..., object], *args: Any) -> None:
        """Something happens to the process that was the `life`-th here."""
        if life != self.life or not self.up:
            return
        if self.stopped:
            self._backlog.append((call, args))
        else:
            self._guarded(call, args)

    def _guarded(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._run(call, args)
        self._wake()

    def _wake(self) -> None:
        """Let this loop turn end soon; what comes until then is part of it."""
        if self.up and not self._turn_due:
            self._turn_due = True
            delay_us = self.rng.randrange(TURN_US)
            self.cluster.scheduler.after(delay_us, self._turn_ends, self.life)

    def _turn_ends(self, life: int) -> None:
        if life != self.life:
            return
        self._turn_due = False
        if self.stopped:
            self._backlog.append((self._flush, ()))
        else:
            self._run(self._flush, ())

    def _run(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        cluster = self.cluster
        cluster.running = self
        try:
            member = getattr(self, "member", None)
            if member is not None:
                self._tell_time(member)
            call(*args)
        except PowerCut:
            cluster.trace(self, "loses power in the midst of something")
            cluster.count("power cut")
            self.power_off()
            cluster.died(self)
        except (DiskError, PersistenceError) as error:
            self._failed(error)
        cluster.running = None

    def _failed(self, error: BaseException) -> None:
        """The process gives up, as the real one does."""
        self.cluster.trace(self, "fails: %s", error)
        if not self.disk_broken and self.disk.capacity_bytes is None:
            raise error
        self.cluster.count("disk failure")
        self.kill()
        self.cluster.died(self)

    def _tell_time(self, member: Member) -> None:
        member.now_ms = member.server.now_ms = self.now_ms
        member.wall_ms = member.server.wall_ms = member.database.wall_ms = self.wall_ms

    # ------------------------------------------------------------------ a loop turn

    def _flush(self) -> None:
        member = self.member
        appended = member.take_appended()
        if appended:
            self.cluster.checker.proposed(appended)
        self.inspection.look()
        self._flush_links()
        if self.snapshots.tree is not member.database.tree:
            self.snapshots.abort()
            self.snapshots = Snapshots(self, member.database.tree)
        if appended:
            for zxid, txn in appended:
                self.store.log.append(zxid, txn)
            if self.snapshots.appended(len(appended)):
                self.store.log.roll()
            self.log_thread.wake()
        self._flush_clients()
        for effect in member.take_effects():
            self._perform(effect)
        self.inspection.look()
        self._set_timer()
        if member.outbox or member.server.dirty:
            self._wake()

    def _flush_links(self) -> None:
        outbox = self.member.outbox
        while outbox:
            links, outbox[:] = outbox[:], []
            for link in links:
                link.dirty = False
                socket = link.transport
                if socket is None:
                    continue
                assert isinstance(socket, PeerSocket)
                if link.out:
                    out, link.out = bytes(link.out), bytearray()
                    socket.end.send(out)
                if link.closed:
                    socket.end.close()
                    link.transport = None
                elif self.member.has_more(link):
                    link.unsent = socket.end.in_flight_bytes
                    self.later(socket.end.in_flight_us, self._drained, link)

    def _drained(self, link: Link) -> None:
        socket = link.transport
        if link.closed or link.out or socket is None:
            return
        assert isinstance(socket, PeerSocket)
        link.unsent = socket.end.in_flight_bytes
        if link.unsent:
            self.later(RETRY_US, self._drained, link)
        else:
            self.member.drained(link)

    def _flush_clients(self) -> None:
        server = self.member.server
        for cnxn in server.take_dirty():
            self._flush_client(cnxn)

    def _flush_client(self, cnxn: ServerCnxn) -> None:
        cnxn.dirty = False
        socket = cnxn.transport
        if socket is None:
            return
        assert isinstance(socket, ClientSocket)
        if cnxn.out:
            out, cnxn.out = bytes(cnxn.out), bytearray()
            socket.end.send(out)
        if cnxn.closed:
            socket.end.close()
        elif cnxn.held:
            cnxn.server.resume(cnxn)

    def _perform(self, effect: Effect) -> None:
        network = self.cluster.network
        if isinstance(effect, Dial):
            self._dial(effect)
        elif isinstance(effect, OpenPeerPort):
            self._peer_addresses = self._own(effect.addresses)
            for address in self._peer_addresses:
                if not network.listen(address, self._learner_connects):
                    self.later(0, self.member.peer_port_failed, "Address already in use")
                    return
            self.later(0, self.member.peer_port_open)
        elif isinstance(effect, ClosePeerPort):
            for address in self._peer_addresses:
                network.listen_no_more(address)
            self._peer_addresses = []
        elif isinstance(effect, RebindElectionPort):
            for address in self._election_addresses:
                network.listen_no_more(address)
            self._listen_for_elections(effect.addresses)
        elif isinstance(effect, RebindClientPort):
            self.cluster.trace(self, "client port moves to %s", effect.address)
            network.listen_no_more(self._client_address)
            self._client_address = (self.name, effect.address[1])
            network.listen(self._client_address, self._client_connects)
        elif isinstance(effect, Stop):
            raise Violation(f"{self} stops: {effect.reason} ({effect.exit_code})")

    _peer_addresses: list[Address] = []
    _election_addresses: list[Address] = []

    # ------------------------------------------------------------------ peers

    def _own(self, addresses: list[Address]) -> list[Address]:
        """Where to listen: every address there is has one name here."""
        return [(self.name if host == ANY_ADDRESS else host, port) for host, port in addresses]

    def _listen_for_elections(self, addresses: list[Address]) -> None:
        self._election_addresses = self._own(addresses)
        for address in self._election_addresses:
            self.cluster.network.listen(address, self._elector_connects)

    def _dial(self, dial: Dial) -> None:
        life = self.life

        def connected(end: End) -> None:
            if life != self.life:
                end.close()
                return
            link = self.member.new_link(f"{dial.address[0]}:{dial.address[1]}")
            PeerSocket(self, end, link)
            self.event(life, self.member.dialled, dial, link)

        def failed(reason: str) -> None:
            self.event(life, self.member.dial_failed, dial, reason)

        self.cluster.network.connect(self.name, dial.address, dial.timeout_ms, connected, failed)

    def _elector_connects(self, end: End) -> None:
        link = self.member.new_link(f"{end.peer_address[0]}:{end.peer_address[1]}")
        PeerSocket(self, end, link)
        self.event(self.life, self.member.election_accepted, link)

    def _learner_connects(self, end: End) -> None:
        link = self.member.new_link(f"{end.peer_address[0]}:{end.peer_address[1]}")
        PeerSocket(self, end, link)
        self.event(self.life, self.member.learner_accepted, link)

    def peer_received(self, link: Link, data: bytes) -> None:
        """Bytes from another member."""
        if not link.closed:
            self.member.received(link, data)

    def peer_lost(self, link: Link, reason: str) -> None:
        """A connection to another member is gone."""
        link.transport = None
        self.member.lost(link, reason)

    # ------------------------------------------------------------------ clients

    def _client_connects(self, end: End) -> None:
        socket = ClientSocket(self, end)
        self.event(self.life, self._accept_client, socket)

    def _accept_client(self, socket: ClientSocket) -> None:
        address = socket.end.peer_address
        cnxn = self.member.server.accept(f"10.0.0.{self.sid}", address[1])
        if cnxn is None:
            socket.end.close()
            return
        cnxn.transport = socket
        socket.cnxn = cnxn

    def client_received(self, socket: ClientSocket, data: bytes) -> None:
        """Bytes from a client."""
        cnxn = socket.cnxn
        if cnxn is not None and not cnxn.closed:
            cnxn.server.received(cnxn, data)
            is_untold = cnxn.server is self._untold_server
            self.cluster.checker.served(cnxn.session_id, is_untold)

    def client_lost(self, socket: ClientSocket) -> None:
        """A client has hung up."""
        cnxn = socket.cnxn
        if cnxn is not None and not cnxn.closed:
            cnxn.server.close(cnxn)

    # ------------------------------------------------------------------ timers

    def is_durable(self, zxid: int) -> None:
        """The disk certainly has everything up to `zxid`."""
        self.durable_zxid = max(self.durable_zxid, zxid)

    def _set_timer(self) -> None:
        due_ms = self.member.next_timer_ms()
        if due_ms >= self._timer_ms:
            return
        self._timer_ms = due_ms
        delay_us = max(1000, int((due_ms - self.now_ms) * 1000 / self.clock_rate))
        delay_us += self.rng.randrange(TIMER_US)
        if delay_us < 3_600_000_000:
            self.later(delay_us, self._tick, due_ms)

    def _tick(self, due_ms: int) -> None:
        if due_ms != self._timer_ms:
            return  # an earlier one was asked for meanwhile
        self._timer_ms = 1 << 62
        self.member.tick()

    # ------------------------------------------------------------------ what is checked

    @property
    def has_role(self) -> bool:
        """Whether it leads, or has caught up with whom it follows."""
        return isinstance(self.member.server, LeaderZooKeeperServer | LearnerZooKeeperServer)
