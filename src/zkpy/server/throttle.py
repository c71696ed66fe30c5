"""The connection throttle: a token bucket that sessions are admitted from, with early random drops.

Off unless configured. Time and dice are arguments. Source: BlueThrottle, ZooKeeper 3.9, after
"BLUE: A New Class of Active Queue Management Algorithms".
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkpy.server.settings import Config


class ConnectionThrottle:
    """Each session costs tokens, which come back at a fixed rate.

    `drop` is the probability, 0 to 1, by which a session is refused although there are tokens: it
    rises while there are none and falls while there are plenty, a step per `freeze_time_ms`.
    """

    __slots__ = ("_config", "_dice", "_last_fill_ms", "_last_step_ms", "drop", "tokens")

    def __init__(self, config: Config, dice: Callable[[], float], now_ms: int) -> None:
        assert config.connection_throttle_tokens > 0, "0 is off"
        self._config = config
        self._dice = dice
        self._last_fill_ms = now_ms
        self._last_step_ms = now_ms
        self.tokens = config.connection_throttle_tokens
        self.drop = 0.0

    @property
    def deficit(self) -> int:
        """Tokens missing from a full bucket."""
        return self._config.connection_throttle_tokens - self.tokens

    def admits(self, renewed: bool, now_ms: int) -> bool:
        """Whether a session may be created or renewed now; if so it is paid for."""
        self._fill(now_ms)
        # Before the bucket is looked at: refusals shall begin before it is empty.
        if self._config.connection_throttle_freeze_time_ms != -1 and self._dropped(now_ms):
            return False
        need = self._weight(renewed)
        if self.tokens < need:
            return False
        self.tokens -= need
        return True

    def _weight(self, renewed: bool) -> int:
        config = self._config
        if not config.connection_throttle_weight_enabled:
            return 1
        if renewed:
            return config.connection_throttle_renew_session_weight
        if config.quorum_mode and config.local_sessions_enabled:
            return config.connection_throttle_local_session_weight
        return config.connection_throttle_global_session_weight

    def _fill(self, now_ms: int) -> None:
        config = self._config
        elapsed_ms = now_ms - self._last_fill_ms
        fill_time_ms = max(1, config.connection_throttle_fill_time_ms)
        if elapsed_ms <= fill_time_ms:
            return
        refill = elapsed_ms * config.connection_throttle_fill_count // fill_time_ms
        self.tokens = min(self.tokens + refill, config.connection_throttle_tokens)
        self._last_fill_ms = now_ms

    def _dropped(self, now_ms: int) -> bool:
        config = self._config
        limit = config.connection_throttle_tokens
        if now_ms - self._last_step_ms > config.connection_throttle_freeze_time_ms:
            if self.deficit == limit:
                self.drop = min(self.drop + config.connection_throttle_drop_increase, 1.0)
            elif self.deficit <= round(limit * config.connection_throttle_decrease_ratio):
                self.drop = max(self.drop - config.connection_throttle_drop_decrease, 0.0)
            self._last_step_ms = now_ms
        return self._dice() < self.drop


def new_throttle(config: Config, now_ms: int, wall_ms: int) -> ConnectionThrottle:
    """The throttle of a server; its dice are seeded with the time, so nothing is by chance."""
    return ConnectionThrottle(config, Random(wall_ms).random, now_ms)
