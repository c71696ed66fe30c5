"""Session passwords: a checksum over the session id that every server can compute.

No secret and no protection: whoever knows the id knows the password. Source:
ZooKeeperServer.generatePasswd, java.util.Random, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from typing import Final

_WORDS = struct.Struct("<4I")

SUPER_SECRET: Final = 0xB3415C00
# The generator of java.util.Random: 48 bits of state, of which the upper 32 are handed out.
MULTIPLIER: Final = 0x5DEECE66D
INCREMENT: Final = 0xB
STATE_MASK: Final = (1 << 48) - 1


def password_of(session_id: int) -> bytes:
    """The 16 bytes that a client shows to resume `session_id`."""
    state = (session_id ^ SUPER_SECRET ^ MULTIPLIER) & STATE_MASK
    words = []
    for _ in range(4):
        state = (state * MULTIPLIER + INCREMENT) & STATE_MASK
        words.append(state >> 16)
    return _WORDS.pack(*words)
