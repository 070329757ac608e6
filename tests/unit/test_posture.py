"""What is said about hosts, on hosts nobody has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.known_escapes import find_escapes
from orchestrator.sandbox.posture import Finding, Status, judge
from orchestrator.sandbox.posture_facts import SOCKET_PATH_BYTES, PostureFacts, collect_facts

ENGINE = EngineInfo(
    endpoint="unix:///var/run/docker.sock",
    name="Docker Engine - Community",
    version="29.0.1",
    api_version="1.52",
    operating_system="Debian GNU/Linux 13",
    container_os="linux",
    kernel="6.12",
    architecture="x86_64",
    cgroup_version="2",
    cgroup_driver="systemd",
    storage_driver="overlay2",
    runtimes=("runc",),
    security_options=(),
    warnings=(),
    is_desktop=False,
    is_remote=False,
    is_rootless=True,
)
GVISOR = {"path": "/opt/runsc", "runtimeArgs": ["--host-uds=open"]}
INFO: dict[str, Any] = {
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "DefaultRuntime": "runc",
    "Runtimes": {"runc": {"path": "runc"}, "runsc": GVISOR},
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=rootless"],
}
GOOD = PostureFacts(
    engine=ENGINE,
    version={"Components": [{"Name": "Engine"}, {"Name": "runc", "Version": "1.4.3"}]},
    info=INFO,
    image="rlm-sandbox:1.0",
    runsc_version="release-20261101.0",
    core_pattern="core.%p",
    socket_path=Path("/run/rlm/sockets/00000000/00000000/broker.sock"),
    free_bytes=50 * 2**30,
    seccomp_sha256="5eccc0",
)


def with_info(**changes: object) -> PostureFacts:
    return replace(GOOD, info={**INFO, **changes})


def with_runc(version: str) -> PostureFacts:
    return replace(GOOD, version={"Components": [{"Name": "runc", "Version": version}]})


def finding(facts: PostureFacts, name: str) -> Finding:
    return next(finding for finding in judge(facts) if finding.name == name)


def test_good_host_has_nothing_to_do() -> None:
    """On a host that has everything, every finding is fine and none gives advice."""
    assert [(found.name, found.advice) for found in judge(GOOD) if found.status != "ok"] == []
    assert [found.advice for found in judge(GOOD) if found.advice] == []


def test_names_are_unique() -> None:
    """A reader of the JSON report finds each thing under one name."""
    names = [found.name for found in judge(GOOD)]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "facts", "status", "words"),
    [
        ("image", replace(GOOD, image=None, image_error="run x"), Status.FAILED, "run x"),
        ("limits", with_info(SwapLimit=False), Status.FAILED, "swapaccount=1"),
        ("limits", with_info(PidsLimit=None), Status.FAILED, "processes"),
        ("limits", with_info(MemoryLimit=False), Status.FAILED, "memory"),
        ("limits", with_info(CpuCfsQuota=False), Status.FAILED, "CPU"),
        ("seccomp", with_info(SecurityOptions=["name=apparmor"]), Status.FAILED, "seccomp"),
        (
            "seccomp",
            with_info(SecurityOptions=["name=seccomp,profile=unconfined"]),
            Status.OK,
            "the product's own profile, sha256 5eccc0",
        ),
        (
            "seccomp",
            replace(GOOD, seccomp_sha256="", seccomp_error="The seccomp profile is empty"),
            Status.FAILED,
            "is empty",
        ),
        (
            "access-control",
            with_info(SecurityOptions=["name=seccomp,profile=builtin"]),
            Status.WARNING,
            "AppArmor",
        ),
        (
            "user-namespace",
            replace(GOOD, engine=replace(ENGINE, is_rootless=False)),
            Status.WARNING,
            "rootless",
        ),
        ("gvisor", with_info(Runtimes={"runc": {"path": "runc"}}), Status.OK, "not registered"),
        (
            "gvisor",
            with_info(Runtimes={"runsc": {"path": "/opt/runsc"}}),
            Status.WARNING,
            "--host-uds=open",
        ),
        (
            "storage",
            replace(GOOD, engine=replace(ENGINE, storage_driver="vfs")),
            Status.WARNING,
            "vfs",
        ),
        ("disk", replace(GOOD, free_bytes=2**20), Status.WARNING, "0.0 GiB"),
        ("core-dumps", replace(GOOD, core_pattern="|/usr/bin/x %p"), Status.WARNING, "/usr/bin/x"),
        (
            "socket-path",
            replace(GOOD, socket_path=Path("/" + "x" * SOCKET_PATH_BYTES)),
            Status.FAILED,
            "runtime_directory",
        ),
        ("runc", with_runc("1.1.5+ds1"), Status.WARNING, "CVE-2024-21626"),
        ("runc", with_runc("unknown"), Status.WARNING, "unknown"),
        ("runc", replace(GOOD, version={}), Status.WARNING, "no version"),
    ],
)
def test_each_gap_is_found_and_named(
    name: str, facts: PostureFacts, status: Status, words: str
) -> None:
    """A wall that is missing is found under its name, and says what is wrong or what to do."""
    found = finding(facts, name)

    assert found.status is status
    assert words in f"{found.found} {found.advice}"


def test_longest_socket_path_that_fits_is_fine() -> None:
    """The last byte that the kernel takes is not refused."""
    facts = replace(GOOD, socket_path=Path("/" + "x" * (SOCKET_PATH_BYTES - 1)))

    assert finding(facts, "socket-path").status is Status.OK


def test_remapped_user_namespace_is_a_wall() -> None:
    """An engine that maps user ids away does not need to be rootless for it."""
    facts = replace(
        with_info(SecurityOptions=["name=userns"]), engine=replace(ENGINE, is_rootless=False)
    )

    assert finding(facts, "user-namespace").status is Status.OK


def test_without_an_engine_only_the_host_is_judged() -> None:
    """What cannot be asked is not guessed at: nothing is said of an absent engine's walls."""
    facts = PostureFacts(engine_error="none answers", core_pattern="core", socket_path=Path("/x"))

    assert [(found.name, found.status) for found in judge(facts)] == [
        ("engine", Status.FAILED),
        ("core-dumps", Status.OK),
        ("socket-path", Status.OK),
    ]
    assert judge(facts)[0].found == "none answers"


def test_host_without_an_engine_can_be_looked_at(tmp_path: Path) -> None:
    """Looking never fails: an engine that is not there is a finding."""
    facts = collect_facts(
        docker_host=f"unix://{tmp_path}/nothing.sock",
        user_runtime_directory=None,
        runtime_directory=Path("/run/rlm"),
    )

    assert facts.engine is None
    assert "nothing.sock" in facts.engine_error
    assert str(facts.socket_path).startswith("/run/rlm/")


ALL_2025 = "CVE-2025-31133"


@pytest.mark.parametrize(
    ("version", "cves"),
    [
        ("1.1.11", {"CVE-2024-21626", ALL_2025, "CVE-2026-41579"}),
        ("1.1.12", {ALL_2025, "CVE-2026-41579"}),
        ("1.2.7", {ALL_2025, "CVE-2026-41579"}),
        ("1.2.8", {"CVE-2026-41579"}),
        ("1.3.2", {ALL_2025, "CVE-2026-41579"}),
        ("1.3.3", {"CVE-2026-41579"}),
        ("1.3.6", set()),
        ("1.4.0-rc.2", {ALL_2025, "CVE-2026-41579"}),
        ("1.4.0-rc.3", {"CVE-2026-41579"}),
        ("1.4.0", {"CVE-2026-41579"}),
        ("v1.4.3", set()),
        ("1.5.0-rc.2", {"CVE-2026-41579"}),
        ("1.5.0~rc3+ds1", set()),
        ("1.5.0", set()),
        ("2.0.0", set()),
    ],
)
def test_known_escapes_by_release(version: str, cves: set[str]) -> None:
    """Each series is judged by its own fix; a series that got none is open unless it is newer."""
    escapes = find_escapes(version)

    assert escapes is not None
    assert {escape.cves[0] for escape in escapes} == cves
