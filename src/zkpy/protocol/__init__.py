"""Bytes <-> values: the wire and file formats, paths, zxids, errors and constants.

Must not know who sends the bytes: no tree, no session, no socket, no clock.
"""
