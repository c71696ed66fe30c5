"""Log lines in the shape operators know: time, level, module, message; to stdout.

`2026-11-22 12:59:34,212 [myid:1] - INFO  [main:zkpy.server.aio.main@177] - binding to port ...`
Source: logback.xml of ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
import os
import sys
import threading


class LineFormatter(logging.Formatter):
    """One record, one line; control characters of what a client sent are escaped."""

    def __init__(self, my_id: int | None) -> None:
        super().__init__()
        self.my_id = "" if my_id is None else str(my_id)

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if not message.isprintable():
            message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        time = self.formatTime(record)
        where = f"{record.threadName}:{record.name}@{record.lineno}"
        line = f"{time} [myid:{self.my_id}] - {record.levelname:<5} [{where}] - {message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(my_id: int | None) -> None:
    """Log to stdout at the level of ZOO_LOG_LEVEL (default INFO)."""
    threading.current_thread().name = "main"
    # WARN as in the reference's lines, so that searches for it go on finding it.
    logging.addLevelName(logging.WARNING, "WARN")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(LineFormatter(my_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = os.environ.get("ZOO_LOG_LEVEL", "INFO").upper()
    root.setLevel(level if level in logging.getLevelNamesMapping() else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
