"""The shell: the only part of the server that knows sockets, threads, disk, clock and randomness.

Performs the core's effects in order, once per loop turn, and decides nothing.
"""
