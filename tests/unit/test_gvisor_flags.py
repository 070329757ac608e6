"""What of gVisor's flags opens it, and what is read out of a registration."""

import re

import pytest

from orchestrator.sandbox.gvisor_flags import (
    HostSockets,
    find_openings,
    find_voiding,
    read_flags,
    read_host_sockets,
)

CLOSED = ("--platform=ptrace", "--network=none", "--host-uds=open")


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (("--host-uds=open", "-network=none"), {"host-uds": "open", "network": "none"}),
        (("--host-uds", "open", "--debug"), {"host-uds": "open", "debug": "true"}),
        (("--debug", "--host-uds=open"), {"debug": "true", "host-uds": "open"}),
        (("--host-uds=open", "--host-uds=all"), {"host-uds": "all"}),
        (("--network=none", "create", "--host-uds=open"), {"network": "none"}),
        (("--dcache", "-1", "--network=none"), {"dcache": "-1", "network": "none"}),
        ((), {}),
    ],
)
def test_flags_are_read_as_gvisor_reads_them(
    arguments: tuple[str, ...], flags: dict[str, str]
) -> None:
    """One dash or two, the value beside or behind, the last of several; another word ends."""
    assert read_flags(arguments) == flags


@pytest.mark.parametrize(
    ("arguments", "sockets"),
    [
        ((), HostSockets.NONE),
        (("--host-uds=none",), HostSockets.NONE),
        (("--host-uds=open",), HostSockets.OPEN),
        (("--host-uds=create",), HostSockets.CREATE),
        (("--host-uds=all",), HostSockets.ALL),
        (("--fsgofer-host-uds",), HostSockets.ALL),
        (("--fsgofer-host-uds=TRUE", "--host-uds=open"), HostSockets.ALL),
        (("--fsgofer-host-uds=false", "--host-uds=open"), HostSockets.OPEN),
        (("--host-uds=wide",), HostSockets.NONE),
    ],
)
def test_what_sockets_may_be_used(arguments: tuple[str, ...], sockets: HostSockets) -> None:
    """The deprecated switch counts as all; nothing, and what nobody knows, as none."""
    assert read_host_sockets(read_flags(arguments)) is sockets


def test_registration_that_is_closed_has_no_openings() -> None:
    """What `rlm setup --gvisor` writes is what `required` asks for."""
    assert find_openings(read_flags(CLOSED)) == ()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--host-uds=all", r"host sockets are all \(--host-uds\).*write --host-uds=open"),
        ("--host-uds=create", "host sockets are create"),
        ("--host-uds=none", "host sockets are none"),
        ("--fsgofer-host-uds", r"host sockets are all \(--fsgofer-host-uds\)"),
        ("--network=host", "the host's network.*write --network=none"),
        ("--network=plugin", "--network=plugin is not among none, sandbox"),
        ("--profile", "--profile loosens the filter.*remove it"),
        ("--profile-cpu=/tmp/x", "--profile-cpu writes"),
        ("--allow-flag-override", "--allow-flag-override lets"),
        ("--debug", "--debug writes what cells do"),
        ("--debug=1", "--debug writes what cells do"),
        ("--debug-log=/var/log/x/", "--debug-log writes"),
        ("--strace", "--strace writes what cells do"),
        ("--log-packets", "--log-packets writes"),
        ("--pcap-log=/x", "--pcap-log writes"),
        ("--trace=/x", "--trace writes"),
        ("--ignore-cgroups", "--ignore-cgroups leaves out the limits"),
        ("--rootless", "--rootless runs"),
        ("--net-raw", "--net-raw lets"),
        ("--nvproxy", "--nvproxy passes"),
        ("--pod-init-config=/x", "--pod-init-config sends"),
        ("--host-fifo=open", "--host-fifo=open is not among none"),
        ("--overlay2=all:/var/x", "--overlay2=all:/var/x is not among"),
        ("--TESTONLY-unsafe-nonroot", "--TESTONLY-unsafe-nonroot leaves out"),
        ("--panic-signal=12", "--panic-signal is not known to leave gVisor closed"),
        ("--made-in-2031", "--made-in-2031 is not known to leave gVisor closed"),
    ],
)
def test_each_opening_is_named_with_what_to_write(argument: str, words: str) -> None:
    """A flag that opens gVisor, or that nobody knows, is told apart from the rest."""
    [sentence] = find_openings(read_flags((*CLOSED, argument)))

    assert re.search(words, sentence)


@pytest.mark.parametrize("argument", ["--debug=false", "--profile=f", "--fsgofer-host-uds=0"])
def test_switch_that_is_off_opens_nothing(argument: str) -> None:
    """Go's spellings of no are no."""
    assert find_openings(read_flags((*CLOSED, argument))) == ()


@pytest.mark.parametrize("argument", ["--ignore-cgroups", "--TESTONLY-unsafe-nonroot=true"])
def test_flags_that_void_the_limits(argument: str) -> None:
    """Under some flags a sandbox is not what its record with the engine says."""
    assert "remove it" in find_voiding(read_flags((*CLOSED, argument)))
    assert find_voiding(read_flags((*CLOSED, f"{argument.partition('=')[0]}=false"))) == ""
