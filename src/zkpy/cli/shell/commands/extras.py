"""What ZooKeeper's shell has not."""

from __future__ import annotations
