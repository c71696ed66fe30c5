.PHONY: check

# What continuous integration runs: format, lint, types, tests.
check:
	scripts/test
