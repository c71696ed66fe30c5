"""The tests mirror src/zkpy; see conftest.py for seeds and profiles."""
