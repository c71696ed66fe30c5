"""Leader election and ZAB as state machines: calls go in, effects come out.

Needs only the protocol package. Must not know what a txn means, nor sockets, disk, clock or dice.
"""
