.PHONY: check simulate

# What continuous integration runs: format, lint, types, tests.
check:
	scripts/test

# Simulated servers, disks and crashes, seed after seed, until one fails.
simulate:
	scripts/simulate
