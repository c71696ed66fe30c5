"""Four letter words: which there are, and which may run. Their texts are in command_texts.py.

Source: FourLetterCommands, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.server.settings import Config
    from zkpy.server.zkserver import ZooKeeperServer

_WORDS: Final = (
    "conf cons crst dirs dump envi gtmk hash isro mntr ruok srst srvr stat stmk wchc wchp wchs"
)
TELNET_CLOSE: Final = "telnet close"

COMMANDS: Final[dict[bytes, str]] = {word.encode(): word for word in _WORDS.split()}
COMMANDS[b"\xff\xf4\xff\xfd"] = TELNET_CLOSE  # interrupt, then an offer of timing marks


def is_enabled(config: Config, name: str) -> bool:
    """Whether the whitelist lets `name` run."""
    words = config.four_letter_words
    return "*" in words or name in words or (name == "isro" and config.read_only_mode_enabled)


def execute(server: ZooKeeperServer, cnxn: ServerCnxn, name: str, rest: bytes) -> bytes | None:
    """The answer to `name`; None for silence. `rest` is what the client sent behind the word."""
    if not is_enabled(server.config, name):
        return f"{name} is not executed because it is not in the whitelist.\n".encode()
    if name == "ruok":
        return b"imok"
    # Only where somebody asks: a server starts faster without.
    from zkpy.server.command_texts import text_of

    text = text_of(server, cnxn, name, rest)
    return None if text is None else text.encode("utf-8", "replace")
