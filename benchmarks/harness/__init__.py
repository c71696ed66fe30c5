"""The benchmark harness: starts the servers, drives the load generator, prints the table.

Standard library only, and nothing of zkpy: what is measured must not be what measures.
"""
