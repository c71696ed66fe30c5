"""The error of a configuration that cannot be used: zoo.cfg, a server list, a reconfig request.

It lives below `quorum` and `server` because both read server lines. It must not know who reads.
"""

from __future__ import annotations

INVALID_CONFIG = "Invalid config, exiting abnormally"
UNEXPECTED = "Unexpected exception, exiting abnormally"


class ConfigException(ValueError):
    """A configuration was refused; `str()` of it is the reference's message.

    `key` is the zoo.cfg key at fault where there is one: the reference's message for a bad number
    does not name it. `exit_code` and `headline` are what the process ends with and says first on
    stderr. `messages` are the (logging level, text) pairs that belong in the log before the error.

    Source: QuorumPeerConfig.ConfigException, QuorumPeerMain.main, ZooKeeper 3.9.
    """

    def __init__(
        self,
        message: str,
        *,
        key: str | None = None,
        exit_code: int = 2,
        headline: str = INVALID_CONFIG,
    ) -> None:
        super().__init__(message)
        self.key = key
        self.exit_code = exit_code
        self.headline = headline
        self.messages: list[tuple[int, str]] = []

    @property
    def stderr_line(self) -> str:
        """The one line for stderr: the reference's headline, the reason, the key if it helps."""
        named = f" ({self.key})" if self.key and self.key not in str(self) else ""
        return f"{self.headline}: {self}{named}"


class IllegalArgument(ConfigException):
    """A bad value inside a file. Whoever read the file wraps it: `Error processing PATH: REASON`.

    The split exists because the reference wraps some errors of a file and not others, and
    operators search for the exact text.
    """
