"""Test equipment: simulated ensembles, networks and disks, and ensembles of real processes.

May know every package but the command line. Nothing in production code imports it.
"""
