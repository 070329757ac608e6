"""What is said about hosts, on hosts nobody has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.finding import Finding, Status
from orchestrator.sandbox.kernel_facts import KernelFacts, collect_kernel_facts, read_swaps
from orchestrator.sandbox.known_escapes import KERNEL_ESCAPES, find_escapes
from orchestrator.sandbox.posture import judge
from orchestrator.sandbox.posture_facts import (
    SOCKET_PATH_BYTES,
    PostureFacts,
    collect_facts,
    file_system_of,
)

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
DEBUGGED = {"path": "/opt/runsc", "runtimeArgs": ["--host-uds=open", "--debug"]}
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
SOUND_KERNEL = KernelFacts(
    release="6.12.5-amd64",
    settings={
        "fs/protected_hardlinks": 1,
        "fs/protected_symlinks": 1,
        "fs/protected_fifos": 1,
        "fs/protected_regular": 2,
        "fs/suid_dumpable": 0,
        "kernel/yama/ptrace_scope": 1,
        "kernel/kptr_restrict": 1,
        "kernel/dmesg_restrict": 1,
        "kernel/perf_event_paranoid": 3,
        "kernel/unprivileged_bpf_disabled": 2,
        "kernel/unprivileged_userns_clone": 0,
        "vm/unprivileged_userfaultfd": 0,
        "vm/mmap_min_addr": 65536,
    },
    core_pattern="core.%p",
    swap_bytes=0,
    landlock_abi=6,
)
GOOD = PostureFacts(
    engine=ENGINE,
    version={
        "Components": [
            {"Name": "Engine"},
            {"Name": "runc", "Version": "1.4.3"},
            {"Name": "containerd", "Version": "2.2.1"},
        ]
    },
    info=INFO,
    image="rlm-sandbox:1.0",
    runsc_version="release-20261101.0",
    kernel=SOUND_KERNEL,
    socket_path=Path("/run/rlm/sockets/00000000/00000000/broker.sock"),
    file_system="tmpfs",
    free_bytes=50 * 2**30,
    seccomp_sha256="5eccc0",
)


def with_info(**changes: object) -> PostureFacts:
    return replace(GOOD, info={**INFO, **changes})


def with_runc(version: str) -> PostureFacts:
    return replace(GOOD, version={"Components": [{"Name": "runc", "Version": version}]})


def with_kernel(**changes: Any) -> PostureFacts:  # noqa: ANN401 - of the dataclass's fields
    return replace(GOOD, kernel=replace(SOUND_KERNEL, **changes))


def with_setting(name: str, value: int | None) -> PostureFacts:
    """Returns the good host with one setting of its kernel changed, or missing."""
    settings = {**SOUND_KERNEL.settings}
    if value is None:
        del settings[name]
    else:
        settings[name] = value
    return with_kernel(settings=settings)


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
        ("gvisor", with_info(Runtimes={"runsc": DEBUGGED}), Status.WARNING, "--debug writes"),
        ("gvisor", GOOD, Status.OK, "`required` takes it"),
        (
            "storage",
            replace(GOOD, engine=replace(ENGINE, storage_driver="vfs")),
            Status.WARNING,
            "vfs",
        ),
        ("disk", replace(GOOD, free_bytes=2**20), Status.WARNING, "0.0 GiB"),
        (
            "socket-path",
            replace(GOOD, socket_path=Path("/" + "x" * SOCKET_PATH_BYTES)),
            Status.FAILED,
            "runtime_directory",
        ),
        ("runtime-directory", GOOD, Status.OK, "on tmpfs"),
        (
            "runtime-directory",
            replace(GOOD, file_system="ext4"),
            Status.WARNING,
            "may reach a disk",
        ),
        ("runtime-directory", replace(GOOD, file_system=""), Status.OK, "cannot be seen"),
        ("runc", with_runc("1.1.5+ds1"), Status.WARNING, "CVE-2024-21626"),
        ("runc", with_runc("unknown"), Status.WARNING, "unknown"),
        ("runc", replace(GOOD, version={}), Status.WARNING, "no version"),
        ("containerd", replace(GOOD, version={}), Status.WARNING, "no version"),
        (
            "engine",
            replace(GOOD, engine=replace(ENGINE, version="20.10.17")),
            Status.WARNING,
            "CVE-2022-36109",
        ),
        (
            "engine",
            replace(GOOD, engine=replace(ENGINE, version="dev")),
            Status.WARNING,
            "no version",
        ),
        (
            "engine-warnings",
            replace(GOOD, engine=replace(ENGINE, warnings=("WARNING: No swap limit support",))),
            Status.WARNING,
            "No swap limit support",
        ),
        ("cgroups", with_info(CgroupVersion="1"), Status.WARNING, "version 1"),
        ("cgroups", with_info(CgroupVersion=None), Status.WARNING, "no version"),
    ],
)
def test_each_gap_is_found_and_named(
    name: str, facts: PostureFacts, status: Status, words: str
) -> None:
    """A wall that is missing is found under its name, and says what is wrong or what to do."""
    found = finding(facts, name)

    assert found.status is status
    assert words in f"{found.found} {found.advice}"


@pytest.mark.parametrize(
    ("name", "facts", "words"),
    [
        ("kernel", with_kernel(release="5.15.24-generic"), "CVE-2022-0847"),
        ("kernel", with_kernel(release="unknown"), "cannot be read"),
        ("landlock", with_kernel(landlock_abi=0), "CONFIG_SECURITY_LANDLOCK"),
        ("landlock", with_kernel(landlock_abi=4), "version 4"),
        ("core-dumps", with_kernel(core_pattern="|/usr/bin/x %p"), "/usr/bin/x"),
        ("swap", with_kernel(swap_bytes=2**31), "2.0 GiB"),
        ("links", with_setting("fs/protected_symlinks", 0), "sysctl -w fs.protected_symlinks=1"),
        ("tracing", with_setting("kernel/yama/ptrace_scope", 0), "ptrace_scope=1"),
        ("tracing", with_setting("kernel/yama/ptrace_scope", None), "a kernel that has"),
        ("kernel-addresses", with_setting("kernel/kptr_restrict", 0), "kptr_restrict=1"),
        ("kernel-log", with_setting("kernel/dmesg_restrict", 0), "dmesg_restrict=1"),
        ("kernel-counters", with_setting("kernel/perf_event_paranoid", 1), "paranoid=2"),
        ("kernel-programs", with_setting("kernel/unprivileged_bpf_disabled", 0), "bpf_disabled=1"),
        ("first-page", with_setting("vm/mmap_min_addr", 0), "mmap_min_addr=4096"),
        ("page-faults", with_setting("vm/unprivileged_userfaultfd", 1), "userfaultfd=0"),
        ("setuid-crashes", with_setting("fs/suid_dumpable", 1), "suid_dumpable=0"),
    ],
)
def test_each_weakness_of_the_kernel_is_a_warning(
    name: str, facts: PostureFacts, words: str
) -> None:
    """What makes a hole in a wall worth more is named with what to set; it stops no sandbox."""
    found = finding(facts, name)

    assert found.status is Status.WARNING
    assert words in f"{found.found} {found.advice}"
    assert found.expected


def test_users_namespaces_are_a_rootless_engines_to_need() -> None:
    """What a rootless engine stands on is no weakness of its host; for any other engine it is."""
    open_to_all = with_setting("kernel/unprivileged_userns_clone", 1)
    rootful = replace(open_to_all, engine=replace(ENGINE, is_rootless=False))

    assert finding(open_to_all, "users-namespaces").status is Status.OK
    assert finding(rootful, "users-namespaces").status is Status.WARNING


@pytest.mark.parametrize(
    "setting",
    ["user/max_user_namespaces", "kernel/apparmor_restrict_unprivileged_userns"],
)
def test_users_namespaces_are_restricted_in_several_ways(setting: str) -> None:
    """Each distribution has its own switch; one of them is enough."""
    value = 0 if setting.startswith("user/") else 1
    settings = {**SOUND_KERNEL.settings, "kernel/unprivileged_userns_clone": 1, setting: value}
    facts = replace(with_kernel(settings=settings), engine=replace(ENGINE, is_rootless=False))

    assert finding(facts, "users-namespaces").status is Status.OK


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("Filename Type Size Used Priority", 0),
        ("Filename Type Size\n/dev/sda2 partition 1024 0 -2\n/swap file 1 0 -3", 1025 * 1024),
        ("", None),
        ("rubbish", None),
    ],
)
def test_swap_is_added_up(text: str, size_bytes: int | None) -> None:
    """Every swap space counts; a file of another form says nothing."""
    assert read_swaps(text) == size_bytes


def test_this_kernel_can_be_looked_at() -> None:
    """Looking at the kernel at hand finds its release and some of its settings."""
    facts = collect_kernel_facts()

    assert facts.release
    assert "fs/protected_symlinks" in facts.settings
    assert facts.landlock_abi >= 0


def test_every_finding_says_what_was_expected() -> None:
    """A reader of the report need not know what would have been right."""
    assert [found.name for found in judge(GOOD) if not found.expected] == []


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
    facts = PostureFacts(engine_error="none answers", kernel=SOUND_KERNEL, socket_path=Path("/x"))

    engine, *others = judge(facts)

    assert (engine.name, engine.status, engine.found) == ("engine", Status.FAILED, "none answers")
    assert {"kernel", "landlock", "core-dumps", "socket-path"} <= {found.name for found in others}
    assert {found.status for found in others} <= {Status.OK, Status.WARNING}
    assert not {"limits", "seccomp", "runc"} & {found.name for found in others}


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


def test_kind_of_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    """What lies in a mount is of its kind, whether it is there yet or not; a link is followed."""
    (tmp_path / "link").symlink_to("/dev/shm")

    assert file_system_of(Path("/dev/shm/rlm/not/there")) == "tmpfs"
    assert file_system_of(tmp_path / "link" / "rlm") == "tmpfs"
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(tmp_path) != "proc"


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


@pytest.mark.parametrize(
    ("release", "cves"),
    [
        ("4.4.25", {"CVE-2016-5195", "CVE-2017-7308", "CVE-2017-16995", "CVE-2022-0492"}),
        ("4.9.72", {"CVE-2017-7308", "CVE-2022-0492"}),
        ("4.18.0-553.el8", {"CVE-2022-0492"}),
        ("5.4.176", {"CVE-2022-0492"}),
        ("5.8.0", {"CVE-2022-0185", "CVE-2022-0492", "CVE-2022-0847"}),
        ("5.10.101", {"CVE-2022-0847"}),
        ("5.10.102", set()),
        ("5.15.25-generic", set()),
        ("5.17", set()),
        ("6.1.0-37-amd64", set()),
    ],
)
def test_known_escapes_by_kernel(release: str, cves: set[str]) -> None:
    """A kernel is judged by its own series, and not by flaws that came after it."""
    escapes = find_escapes(release, KERNEL_ESCAPES)

    assert escapes is not None
    assert {escape.cves[0] for escape in escapes} == cves


def test_candidates_of_old_runtimes_are_told_apart() -> None:
    """The first runc without the oldest flaw is a candidate, and sorts before its release."""
    early, late = find_escapes("1.0.0-rc6"), find_escapes("1.0.0~rc93+ds1")

    assert early is not None
    assert late is not None
    assert "CVE-2019-5736" in {escape.cves[0] for escape in early}
    assert {escape.cves[0] for escape in late} >= {"CVE-2021-30465"}
    assert "CVE-2019-5736" not in {escape.cves[0] for escape in late}
