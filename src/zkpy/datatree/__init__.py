"""The replicated state: the same txns give the same tree on every server.

Owns znodes, ACL cache, watches, quotas and the digest. Must not know how a txn was agreed on,
who asked for it, or where it is stored; all time comes from the txn header.
"""
