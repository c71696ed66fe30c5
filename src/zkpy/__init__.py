"""zkpy: a server, an ensemble and a client of the ZooKeeper protocol in pure Python."""

__version__ = "0.1.0"
