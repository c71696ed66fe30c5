"""What a server is among its peers, as far as monitoring wants to know.

This one is alone; a member of an ensemble puts its own into `ZooKeeperServer.role`.
"""

from __future__ import annotations


class Role:
    """A standalone server."""

    def read_only(self) -> bool:
        """Whether only reads are served."""
        return False

    def mode(self) -> str:
        """What `srvr` calls it: standalone, leader, follower, observer or read-only."""
        return "standalone"

    def peer_state(self) -> str | None:
        """What `mntr` adds for members, such as `leading - broadcast`."""
        return None

    def server_id(self) -> int:
        """The number in `myid`, 0 without peers."""
        return 0

    def config_text(self) -> str:
        """What `conf` appends for members."""
        return ""

    def proposal_sizes(self) -> tuple[int, int, int] | None:
        """Last, smallest and largest proposal in bytes, of a leader."""
        return None

    def reset_proposal_sizes(self) -> None:
        """`srst` asks a leader to start over."""

    def gauges(self) -> dict[str, int]:
        """Metrics that only servers of this role have."""
        return {}

    def sessions_text(self) -> str | None:
        """What `dump` says of sessions where another server tracks them; None: we do."""
        return None
