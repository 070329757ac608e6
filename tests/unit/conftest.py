"""What several modules of unit tests need."""

from collections.abc import Iterator

import pytest
from support.broker_host import chosen

from orchestrator.controls import BrokerIsolation


@pytest.fixture(params=BrokerIsolation)
def broker_home(request: pytest.FixtureRequest) -> Iterator[BrokerIsolation]:
    """Runs a test once for each place a broker can run in."""
    with chosen(request.param):
        yield request.param
