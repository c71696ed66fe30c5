"""zkpy-cli, what zkCli.sh is to ZooKeeper: one command, a script, or a person at a terminal.

`main` reads the command line, `shell` executes lines, `commands` holds the table of all commands,
`session` stands between them and `zkpy.client`. Everything that is printed goes through `console`.
"""
