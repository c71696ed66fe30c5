"""The client: a pure session core and the asyncio API around it.

Only `client.py` does I/O. Must not know anything of the server but the protocol.
"""
