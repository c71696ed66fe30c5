"""Helpers of the tests. Nothing here imports zkpy: these are the yardsticks it is measured with."""
