"""Bytes to values and back; knows nothing of state, sockets or files."""
