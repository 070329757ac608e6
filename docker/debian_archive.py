"""Fetches Debian packages with apt: signatures checked by apt, contents by the image's lock.

apt alone would take whatever the archive has today. The lock alone would trust whoever made it.
Here an index signed by Debian and the lock both have to know a package by the same hash before a
byte of it is unpacked.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from build_tools import run
from package_lock import LockedPackage

SUITE = "trixie"
SNAPSHOTS = "http://snapshot.debian.org/archive"  # plain, because every index in it is signed
_MIRROR = "http://ftp.debian.org/debian"  # for hosts that are no Debian and so have no mirror of it
_SECURITY_MIRROR = "http://security.debian.org/debian-security"
_KEYRINGS = tuple(
    Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}") for suffix in ("gpg", "pgp")
)
# A state of the archive enters the snapshots some hours after it was published, and may be replaced
# soon after that; with two states, one of them has what was the newest at the lock's moment.
_SNAPSHOT_DELAYS = (timedelta(hours=8), timedelta(hours=24))
_APT_USER = "_apt"  # fetches for apt when apt runs as root: apt.conf(5), APT::Sandbox::User
_CONFIGURATION = """\
Dir::State "{folder}/state";
Dir::State::Lists "{folder}/state/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures:: "{architecture}";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Default-Release;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One suite of one mirror."""

    mirror: str
    suite: str
    is_snapshot: bool = False

    def line(self, keyring: Path) -> str:
        """Returns the source as sources.list(5) has it."""
        # A snapshot's index has run out; it is its hashes that are wanted, and they are locked.
        old = " check-valid-until=no" if self.is_snapshot else ""
        options = f"target=Packages signed-by={keyring}{old}"
        return f"deb [{options}] {self.mirror} {self.suite} main"


def find_sources() -> list[Source]:
    """Returns where to take the suite from: this host's own mirrors, where it is a Debian."""
    values = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text("utf-8").splitlines()
        if "=" in line
    )
    release = values.get("VERSION_CODENAME", "").strip('"')
    mirrors: dict[str, str] = {}
    if values.get("ID") == "debian":
        # Others' repositories name their suites after Debian's releases too; the last two fields
        # tell them apart, the origin only once the host has fetched an index.
        listed = run(["apt-get", "indextargets", "--format",
                      "$(RELEASE) $(REPO_URI) $(COMPONENT) $(ORIGIN)",
                      "Identifier: Packages"])  # fmt: skip
        for line in listed.splitlines():
            suite, mirror, component, *origin = line.split(" ")
            if component == "main" and origin in (["Debian"], [""], []):
                mirrors.setdefault(suite, mirror)
    suites = {SUITE: release, f"{SUITE}-updates": f"{release}-updates",
              f"{SUITE}-security": f"{release}-security"}  # fmt: skip
    own = [Source(mirror=mirrors[theirs], suite=ours)
           for ours, theirs in suites.items() if theirs in mirrors]  # fmt: skip
    if release in mirrors:
        return own
    return [
        Source(mirror=_SECURITY_MIRROR if suite.endswith("-security") else _MIRROR, suite=suite)
        for suite in suites
    ]


def find_snapshots(base: str, moment: datetime) -> list[Source]:
    """Returns the archive as it was soon after `moment`, from the snapshots at `base`."""
    return [
        Source(mirror=f"{base}/{archive}/{moment + delay:%Y%m%dT%H%M%SZ}/", suite=suite,
               is_snapshot=True)
        for delay in _SNAPSHOT_DELAYS
        for archive, suite in (("debian", SUITE), ("debian", f"{SUITE}-updates"),
                               ("debian-security", f"{SUITE}-security"))
    ]  # fmt: skip


class Archive:
    """Debian's packages for one architecture, seen through apt with a state of its own.

    The host's proxies, certificates and passwords for mirrors stay in force; its packages, its
    lists and its preferences are neither read nor changed.
    """

    def __init__(self, folder: Path, *, architecture: str, sources: Sequence[Source]) -> None:
        """Prepares apt in `folder`, which has to exist; fetches nothing yet."""
        keyring = next((path for path in _KEYRINGS if path.exists()), None)
        if keyring is None:
            sys.exit(f"{_KEYRINGS[0]} is needed to check what Debian signed. "
                     "Install debian-archive-keyring.")  # fmt: skip
        self._folder = folder
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(
            "".join(f"{source.line(keyring)}\n" for source in sources), "utf-8"
        )
        self._configuration = folder / "apt.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(folder=folder, architecture=architecture), "utf-8"
        )

    def update(self) -> None:
        """Fetches the indexes.

        Raises:
            ToolError: One could not be fetched, or is not signed by Debian.
        """
        self._apt("apt-get", "update", "--quiet")

    @property
    def moment(self) -> datetime:
        """When the newest of the indexes was signed."""
        dates = [
            parsedate_to_datetime(line.partition(":")[2].strip())
            for path in (self._folder / "state/lists").glob("*_InRelease")
            for line in path.read_text("utf-8", errors="replace").splitlines()
            if line.startswith("Date:")
        ]
        return max(dates).astimezone(UTC)

    def resolve(self, names: Iterable[str]) -> tuple[LockedPackage, ...]:
        """Returns the newest version of each named package and of everything they depend on."""
        printed = self._apt("apt-get", "install", "--simulate", *names)
        chosen = dict(re.findall(r"^Inst (\S+) \((\S+) ", printed, flags=re.MULTILINE))
        known = self._hashes(chosen)
        return tuple(
            LockedPackage(name=name, version=version, sha256=known[name, version])
            for name, version in sorted(chosen.items())
        )

    def find_missing(self, packages: Iterable[LockedPackage]) -> list[LockedPackage]:
        """Returns those packages that the archive has no longer in just that version.

        Ends this program where it has the version with another content: that is no update, it is
        a mirror that was tampered with, or a lock that was.
        """
        wanted = list(packages)
        known = self._hashes(package.name for package in wanted)
        missing = []
        for package in wanted:
            sha256 = known.get((package.name, package.version))
            if sha256 is None:
                missing.append(package)
            elif sha256 != package.sha256:
                sys.exit(f"{package}: the lock says sha256:{package.sha256}, the archive's index "
                         f"says sha256:{sha256}. One version has one content: find out which of "
                         "the two was changed before you build.")  # fmt: skip
        return missing

    def download(self, packages: Sequence[LockedPackage], folder: Path) -> dict[str, Path]:
        """Fetches packages and returns the .deb of each name, its hash compared with the lock."""
        if not packages:
            return {}
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            shutil.chown(folder, _APT_USER)
        self._apt("apt-get", "download", "--quiet", *map(str, packages), folder=folder)
        found = {path.name.partition("_")[0]: path for path in folder.glob("*.deb")}
        for package in packages:
            check_content(package, found[package.name])
        return found

    def _hashes(self, names: Iterable[str]) -> Mapping[tuple[str, str], str]:
        """Returns the SHA-256 of every version of the named packages, as the indexes have them."""
        # madison exits with 0 where it knows nothing, which `show` calls an error.
        listed = self._apt("apt-cache", "madison", *names)
        known_names = {line.partition("|")[0].strip() for line in listed.splitlines()}
        if not known_names:
            return {}
        shown = self._apt("apt-cache", "show", "--all-versions", *sorted(known_names))
        known = {}
        for paragraph in shown.split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|SHA256): (\S+)$", paragraph, re.MULTILINE))
            if len(fields) == 3:  # noqa: PLR2004 - the three just named
                known[fields["Package"], fields["Version"]] = fields["SHA256"]
        return known

    def _apt(self, tool: str, verb: str, *arguments: str, folder: Path | None = None) -> str:
        command = [tool, f"--config-file={self._configuration}", verb, *arguments]
        own = os.environ  # noqa: TID251 - where apt and its fetchers look for proxies
        return run(command, environment={**own, "LC_ALL": "C"}, folder=folder)


def check_content(package: LockedPackage, path: Path) -> None:
    """Compares a .deb with the lock; ends this program if it is another."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        sys.exit(f"{package}: expected sha256:{package.sha256} as locked, got sha256:{found}. "
                 "It was not unpacked.")  # fmt: skip
