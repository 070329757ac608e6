"""The implementations that each port's suite is held against."""

import pytest
from support.sandbox_implementations import IMPLEMENTATIONS, Implementation


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    chosen: Implementation = request.param
    reason = chosen.lacks.get(request.function.__name__)
    if reason is not None:
        pytest.skip(f"{chosen.name}: {reason}")
    return chosen
