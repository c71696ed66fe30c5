"""Tells whoever started the process that it serves now: by a byte into a pipe.

The pipe's end of file, in turn, tells that the process is gone.
"""

from __future__ import annotations

import os
from typing import Final

READY_FD: Final = "ZKPY_READY_FD"


def tell_ready() -> None:
    """Write to the descriptor that READY_FD names, if it is set; nobody may be there any more."""
    descriptor = os.environ.pop(READY_FD, "")
    if descriptor.isdecimal():
        try:
            try:
                os.write(int(descriptor), b"\n")
            finally:
                os.close(int(descriptor))
        except OSError:
            pass  # who started us has not waited so long; we are a good server all the same
