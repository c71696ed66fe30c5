"""Txn logs, snapshots and epoch files, written through a `Disk` a simulation can replace.

Only `disk.py` touches the operating system. Must not know sessions, sockets or the quorum.
"""
