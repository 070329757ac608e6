"""Judges the host's kernel: its release, and the settings that decide what a hole is worth.

Without it a host would count as sound that hands its crashes to a program, or its kernel's
addresses to whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.sandbox.finding import Finding, Status
from orchestrator.sandbox.kernel_facts import KernelFacts
from orchestrator.sandbox.known_escapes import KERNEL_ESCAPES, describe, find_escapes

_SCOPES_ABI = 6  # the first Landlock that keeps signals and abstract sockets inside


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What a setting should be.

    Attributes:
        name: Of the finding.
        settings: Each setting's least value.
        why: What a lower one gives away.
    """

    name: str
    settings: Mapping[str, int]
    why: str


_RULES: Final = (
    _Rule(
        name="links",
        settings={
            "fs/protected_hardlinks": 1,
            "fs/protected_symlinks": 1,
            "fs/protected_fifos": 1,
            "fs/protected_regular": 1,
        },
        why="a process of another user can have this host follow its links in /tmp",
    ),
    _Rule(
        name="tracing",
        settings={"kernel/yama/ptrace_scope": 1},
        why="every process can be debugged by any other of its user",
    ),
    _Rule(
        name="kernel-addresses",
        settings={"kernel/kptr_restrict": 1},
        why="the kernel's addresses can be read, which its exploits begin with",
    ),
    _Rule(
        name="kernel-log",
        settings={"kernel/dmesg_restrict": 1},
        why="any user reads the kernel's log, and the addresses in it",
    ),
    _Rule(
        name="kernel-counters",
        settings={"kernel/perf_event_paranoid": 2},
        why="any user measures the kernel",
    ),
    _Rule(
        name="kernel-programs",
        settings={"kernel/unprivileged_bpf_disabled": 1},
        why="any user loads programs into the kernel",
    ),
    _Rule(
        name="first-page",
        settings={"vm/mmap_min_addr": 4096},
        why="a null pointer of the kernel's can be given a meaning",
    ),
)


def judge_kernel(kernel: KernelFacts, *, is_engine_rootless: bool) -> tuple[Finding, ...]:
    """Returns a finding for each thing about the kernel that bears on a sandbox.

    Args:
        kernel: What was found.
        is_engine_rootless: Whether the engine needs what users may do with namespaces.
    """
    return (
        _judge_release(kernel),
        _judge_landlock(kernel),
        _judge_core_pattern(kernel),
        _judge_swap(kernel),
        *(_judge_rule(rule, kernel.settings) for rule in _RULES),
        _judge_ceiling(
            kernel.settings,
            name="page-faults",
            setting="vm/unprivileged_userfaultfd",
            is_sound=lambda value: value == 0,
            expected="0",
            why="any user can hold the kernel still in the middle of a copy",
        ),
        _judge_ceiling(
            kernel.settings,
            name="setuid-crashes",
            setting="fs/suid_dumpable",
            is_sound=lambda value: value != 1,
            expected="0 or 2",
            why="the memory of a setuid program that crashes is written for its user to read",
        ),
        _judge_user_namespaces(kernel.settings, is_engine_rootless=is_engine_rootless),
    )


def _judge_release(kernel: KernelFacts) -> Finding:
    escapes = find_escapes(kernel.release, KERNEL_ESCAPES)
    expected = "a release without a known way out of a container"
    if escapes is None:
        return Finding(
            name="kernel",
            status=Status.WARNING,
            found=f"a release that cannot be read: {kernel.release!r}",
            expected=expected,
            advice="Check `uname -r` against your distribution's security advisories.",
        )
    if not escapes:
        return Finding(name="kernel", status=Status.OK, found=kernel.release, expected=expected)
    return Finding(
        name="kernel",
        status=Status.WARNING,
        found=f"{kernel.release}, whose number is below the fixes of {describe(escapes)}",
        expected=expected,
        advice="Upgrade the kernel. A distribution may have the fixes under an older number: its "
        "package's changelog names the CVEs it fixes.",
    )


def _judge_landlock(kernel: KernelFacts) -> Finding:
    expected = f"version {_SCOPES_ABI} or later"
    if not kernel.landlock_abi:
        return Finding(
            name="landlock",
            status=Status.WARNING,
            found="not in this kernel, or switched off",
            expected=expected,
            advice="Boot a kernel with CONFIG_SECURITY_LANDLOCK and `landlock` in lsm=. It is a "
            "guard rail: sandboxes start without it.",
        )
    found = f"version {kernel.landlock_abi}"
    if kernel.landlock_abi < _SCOPES_ABI:
        return Finding(
            name="landlock",
            status=Status.WARNING,
            found=f"{found}, which does not keep signals inside",
            expected=expected,
            advice="Use Linux 6.12 or later. It is a guard rail: sandboxes start without it.",
        )
    return Finding(name="landlock", status=Status.OK, found=found, expected=expected)


def _judge_core_pattern(kernel: KernelFacts) -> Finding:
    expected = "a file name"
    if kernel.core_pattern.startswith("|"):
        return Finding(
            name="core-dumps",
            status=Status.WARNING,
            found=f"piped to a program of the host: {kernel.core_pattern}",
            expected=expected,
            advice="Set kernel.core_pattern to a file name: a sandbox's limit on core dumps does "
            "not count for a pipe (core(5)), so the program reads what a sandbox made up.",
        )
    return Finding(
        name="core-dumps",
        status=Status.OK,
        found=kernel.core_pattern or "cannot be read",
        expected=expected,
    )


def _judge_swap(kernel: KernelFacts) -> Finding:
    if kernel.swap_bytes is None:
        return Finding(name="swap", status=Status.OK, found="cannot be read", expected="none")
    if not kernel.swap_bytes:
        return Finding(name="swap", status=Status.OK, found="none", expected="none")
    return Finding(
        name="swap",
        status=Status.WARNING,
        found=f"{kernel.swap_bytes / 2**30:.1f} GiB",
        expected="none",
        advice="Switch it off (swapoff -a), or encrypt it: a sandbox gets none, but what the "
        "orchestrator holds of contexts and keys may be written to it.",
    )


def _judge_rule(rule: _Rule, settings: Mapping[str, int]) -> Finding:
    expected = ", ".join(f"{_dotted(name)} ≥ {least}" for name, least in rule.settings.items())
    found = ", ".join(f"{_dotted(name)} = {settings.get(name, 'absent')}" for name in rule.settings)
    # Absent: either an older kernel, or one that was built without it. Neither protects.
    low = [name for name, least in rule.settings.items() if settings.get(name, -1) < least]
    if not low:
        return Finding(name=rule.name, status=Status.OK, found=found, expected=expected)
    remedies = []
    if present := [name for name in low if name in settings]:
        values = " ".join(f"{_dotted(name)}={rule.settings[name]}" for name in present)
        remedies.append(f"Set it: sysctl -w {values}")
    if missing := [name for name in low if name not in settings]:
        absent = ", ".join(_dotted(name) for name in missing)
        remedies.append(f"Use a kernel that has {absent}")
    return Finding(
        name=rule.name,
        status=Status.WARNING,
        found=found,
        expected=expected,
        advice=f"{'; '.join(remedies)}. Else {rule.why}.",
    )


def _judge_ceiling(  # noqa: PLR0913 - by keyword; a type to group them would have no other use
    settings: Mapping[str, int],
    *,
    name: str,
    setting: str,
    is_sound: Callable[[int], bool],
    expected: str,
    why: str,
) -> Finding:
    value = settings.get(setting)
    wanted = f"{_dotted(setting)} = {expected}"
    if value is None or is_sound(value):
        found = "not in this kernel" if value is None else f"{_dotted(setting)} = {value}"
        return Finding(name=name, status=Status.OK, found=found, expected=wanted)
    return Finding(
        name=name,
        status=Status.WARNING,
        found=f"{_dotted(setting)} = {value}",
        expected=wanted,
        advice=f"sysctl -w {_dotted(setting)}=0. Else {why}.",
    )


def _judge_user_namespaces(settings: Mapping[str, int], *, is_engine_rootless: bool) -> Finding:
    """Judges what users of the host may do; a sandbox's filter refuses it in any case."""
    name, expected = "users-namespaces", "not for every user, unless the engine is rootless"
    is_closed = (
        settings.get("kernel/unprivileged_userns_clone") == 0
        or settings.get("user/max_user_namespaces") == 0
        or settings.get("kernel/apparmor_restrict_unprivileged_userns") == 1
    )
    if is_closed or is_engine_rootless:
        found = "restricted" if is_closed else "open, as a rootless engine needs it"
        return Finding(name=name, status=Status.OK, found=found, expected=expected)
    return Finding(
        name=name,
        status=Status.WARNING,
        found="any user of this host can make a user namespace",
        expected=expected,
        advice="Restrict them (kernel.unprivileged_userns_clone=0 on Debian, "
        "kernel.apparmor_restrict_unprivileged_userns=1 on Ubuntu): most flaws of the kernel that "
        "gain rights begin in one.",
    )


def _dotted(setting: str) -> str:
    return setting.replace("/", ".")
