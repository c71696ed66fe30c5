"""Command line programs: parse arguments, start the shell, print results.

Nothing imports this package, and it holds no logic another package needs.
"""
