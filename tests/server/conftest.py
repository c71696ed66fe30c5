"""A fresh server for each test."""

from __future__ import annotations

import pytest
from tests.server.machine import Client, Machine


@pytest.fixture
def machine() -> Machine:
    """A standalone server with default settings; all four letter words allowed."""
    return Machine()


@pytest.fixture
def client(machine: Machine) -> Client:
    """A client with a session."""
    return machine.connect()
