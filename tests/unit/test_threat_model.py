"""The threat model names tests that are there, and every security test has a threat."""

import pytest
from support.threat_model import PAGE, SECURITY_TESTS, Threat, read_threats, render_page

THREATS = read_threats()


def test_page_is_what_the_tests_say() -> None:
    """The generated half of the page is up to date; if not, `make threat-model` writes it."""
    assert PAGE.read_text("utf-8") == render_page()


def test_every_file_of_security_tests_proves_something_about_a_threat() -> None:
    """No file of tests/security is left out of the list of threats."""
    proving = {path for threat in THREATS for path in threat.files}
    files = set(SECURITY_TESTS.glob("test_*.py"))
    assert files - proving == set()


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.threat_id)
def test_threat_is_proven(threat: Threat) -> None:
    """Every threat has tests that exist, a rule in each one's docstring, and a control."""
    proofs = threat.proofs()
    assert all(tests for tests in proofs.values())
    tests = [test for of_file in proofs.values() for test in of_file]
    assert all(test.rule for test in tests)
    assert any(test.is_control for test in tests)
    assert any(not test.is_control for test in tests)


def test_threats_have_names_of_their_own() -> None:
    """An id names one threat."""
    names = [threat.threat_id for threat in THREATS]
    assert len(names) == len(set(names))
