"""Which containers a sweep destroys, and how it knows that an owner is dead."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.sandbox.lease import hold_lease, open_runtime_directory
from orchestrator.sandbox.reaper import LabelledContainer, lease_labels, plan_sweep

NOW_S = 1_000.0
LATER_S = NOW_S + 1
REALM = "here"

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.sandbox.lease import hold_lease
with hold_lease(Path(sys.argv[1])) as lease:
    print(lease.owner, flush=True)
    sys.stdin.read()
"""


def container(
    *, owner: str = "o1", realm: str = REALM, expires: str = str(round(LATER_S))
) -> LabelledContainer:
    labels = {
        "rlm-sandbox.owner": owner,
        "rlm-sandbox.realm": realm,
        "rlm-sandbox.expires": expires,
    }
    return LabelledContainer(container_id="c1", labels=labels)


def plan(*found: LabelledContainer, alive: frozenset[str] = frozenset()) -> tuple[str, ...]:
    return plan_sweep(found, realm=REALM, is_alive=alive.__contains__, now_s=NOW_S)


def test_dead_owners_container_is_destroyed() -> None:
    """A container whose orchestrator is gone is nobody's."""
    assert plan(container()) == ("c1",)


def test_living_owners_container_is_kept() -> None:
    """A container in use is left alone, whoever's it is."""
    assert plan(container(), alive=frozenset({"o1"})) == ()


@pytest.mark.parametrize("expires", [str(round(NOW_S)), "0", "", "soon", "-5"])
def test_expired_container_is_destroyed(expires: str) -> None:
    """A lifetime that is over, or unreadable, ends a container although its owner lives."""
    assert plan(container(expires=expires), alive=frozenset({"o1"})) == ("c1",)


def test_container_of_another_realm_is_judged_by_age_alone() -> None:
    """An owner whose lock cannot be seen from here is not taken for dead."""
    assert plan(container(realm="elsewhere")) == ()
    assert plan(container(realm="elsewhere", expires="0")) == ("c1",)


@pytest.mark.parametrize(
    "labels", [{}, {"rlm-sandbox.owner": "o1"}, {"rlm-sandbox.expires": "0"}, {"other": "0"}]
)
def test_containers_of_others_are_never_touched(labels: dict[str, str]) -> None:
    """A container without this project's labels is not looked at twice."""
    assert plan(LabelledContainer(container_id="c1", labels=labels)) == ()


def test_labels_of_a_lease_are_what_the_plan_reads(tmp_path: Path) -> None:
    """What is written on a container and what a sweep reads are the same words."""
    with hold_lease(tmp_path / "r") as lease:
        labels = lease_labels(lease, expires_s=LATER_S)
        found = [LabelledContainer(container_id="c1", labels=labels)]
        directory = lease.runtime_directory

        kept = plan_sweep(found, realm=directory.realm, is_alive=directory.is_alive, now_s=NOW_S)
    swept = plan_sweep(found, realm=directory.realm, is_alive=directory.is_alive, now_s=NOW_S)

    assert (kept, swept) == ((), ("c1",))


@contextmanager
def holder(path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs another orchestrator's process that holds a lease."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()


def test_lease_outlives_nothing_but_its_holder(tmp_path: Path) -> None:
    """A holder that is killed outright is seen as dead; until then it is seen as alive."""
    path = tmp_path / "r"
    with holder(path) as (process, owner):
        directory = open_runtime_directory(path)
        assert directory.is_alive(owner)

        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)

    assert not directory.is_alive(owner)
    assert directory.known_owners() == {owner}
    directory.forget(owner)
    assert directory.known_owners() == frozenset()


def test_living_owner_is_not_forgotten(tmp_path: Path) -> None:
    """One orchestrator's sweep leaves the sockets and the lock of another one alone."""
    path = tmp_path / "r"
    with holder(path) as (_, other), hold_lease(path) as own:
        own.runtime_directory.forget(other)
        own.runtime_directory.forget(own.owner)

        assert own.runtime_directory.is_alive(other)
        assert own.runtime_directory.is_alive(own.owner)
        assert own.socket_root.is_dir()
        assert own.runtime_directory.known_owners() == {other, own.owner}


def test_lease_leaves_nothing_behind(tmp_path: Path) -> None:
    """A lease that ends as it should takes its lock and its sockets along."""
    with hold_lease(tmp_path / "r") as lease:
        (lease.socket_root / "sandbox").mkdir()

    assert lease.runtime_directory.known_owners() == frozenset()


def test_realm_is_kept_and_differs_between_directories(tmp_path: Path) -> None:
    """All who use a runtime directory read one name for it, and no other has the same."""
    first = open_runtime_directory(tmp_path / "r")

    assert open_runtime_directory(tmp_path / "r").realm == first.realm
    assert open_runtime_directory(tmp_path / "other").realm != first.realm


def test_runtime_directory_is_closed_to_others(tmp_path: Path) -> None:
    """Whoever can enter the directory can speak to a broker as a sandbox, so nobody else can."""
    with hold_lease(tmp_path / "r") as lease:
        modes = {
            path.stat().st_mode & 0o777
            for path in (tmp_path / "r", lease.socket_root, lease.socket_root.parent)
        }

    assert modes == {0o700}


def test_open_runtime_directory_is_refused(tmp_path: Path) -> None:
    """A directory that others may enter is not used; the message names the setting to change."""
    path = tmp_path / "r"
    path.mkdir()
    path.chmod(0o755)

    with pytest.raises(SettingsError, match="runtime_directory"):
        open_runtime_directory(path)


def test_planted_link_is_refused(tmp_path: Path) -> None:
    """A link that somebody put in the directory's place first is not followed."""
    (tmp_path / "theirs").mkdir(mode=0o700)
    path = tmp_path / "r"
    path.symlink_to(tmp_path / "theirs")

    with pytest.raises(SettingsError, match="runtime_directory"):
        open_runtime_directory(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's directory")
def test_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """A directory that belongs to somebody else is not used, although it is closed."""
    path = tmp_path / "r"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, 12345)

    with pytest.raises(SettingsError, match="12345"):
        open_runtime_directory(path)
