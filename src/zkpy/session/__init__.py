"""Who is connected and what they may do: session expiry and authentication.

Time is an argument. Must not know files, sockets or the quorum.
"""
