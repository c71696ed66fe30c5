"""The request processors: frames in, txns proposed, replies out.

Pure outside `aio/`. Must not know which shell drives it: no socket, thread, disk or clock.
"""
