"""Rings on real interfaces: skipped, by name, where the capability is missing."""

from __future__ import annotations

import pytest

from strep._edge.ring.packet_socket import ring_problem


@pytest.fixture
def ring_here() -> None:
    problem = ring_problem()
    if problem is not None:
        pytest.skip(problem)
