"""Which files name an image, and that both ways of building are given the same ones."""

import fnmatch
import io
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.engine_host import Host
from orchestrator.sandbox.image_inputs import (
    ARCHIVE_SCRIPT,
    BUILD_SCRIPT,
    DOCKERFILE,
    PACKAGE_FOLDERS,
    PACKAGE_LOCK,
    ImageInputs,
    collect,
    read_inputs,
)
from orchestrator.sandbox.image_making import (
    LOCK_IN_IMAGE,
    BuildWay,
    HostTools,
    choose_way,
    is_pinned,
    pack,
)

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of everything the image is made from, to be changed at will."""
    for folder in ("docker", *PACKAGE_FOLDERS):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=ignored)
    return tmp_path


def inputs_of(tree: Path) -> ImageInputs:
    return collect(tree / "docker", {folder: tree / folder for folder in PACKAGE_FOLDERS})


def test_digest_does_not_depend_on_where_the_files_are(tree: Path) -> None:
    """A wheel installed anywhere finds the image that a source tree built."""
    here = collect(REPOSITORY / "docker", {at: REPOSITORY / at for at in PACKAGE_FOLDERS})

    assert inputs_of(tree).digest() == here.digest()


@pytest.mark.parametrize(
    "changed",
    [
        "docker/build_rootfs.py",
        "docker/root_layout.py",
        "docker/packages.lock",
        "docker/requirements.lock",
        "docker/sbom-tools.lock",
        "docker/sandbox.Dockerfile",
        "sandbox_image/__init__.py",
        "proto/rlm_sandbox/v1/sandbox_pb2.py",
    ],
)
def test_any_changed_input_names_another_image(tree: Path, changed: str) -> None:
    """One byte more in any input, and the old image no longer fits."""
    before = inputs_of(tree).digest()

    with (tree / changed).open("a") as file:
        file.write("\n")

    assert inputs_of(tree).digest() != before


def test_added_module_names_another_image(tree: Path) -> None:
    """A new module of the worker counts without being listed anywhere."""
    before = inputs_of(tree).digest()

    (tree / "sandbox_image" / "addition.py").touch()

    assert inputs_of(tree).digest() != before


def test_leftovers_of_a_run_do_not_count(tree: Path) -> None:
    """Bytecode beside the sources, and host-side files in the same folder, change nothing."""
    before = inputs_of(tree).digest()

    cache = tree / "sandbox_image" / "__pycache__"
    cache.mkdir()
    (cache / "worker.cpython-313.pyc").write_bytes(b"x")
    (tree / "docker" / "notes.txt").write_text("x")

    assert inputs_of(tree).digest() == before


def test_installed_inputs_are_found() -> None:
    """The build files and both packages are found from the installed modules alone."""
    names = read_inputs().files

    assert BUILD_SCRIPT in names
    assert all(f"{folder}/__init__.py" in names for folder in PACKAGE_FOLDERS)


def test_dockerfile_copies_what_the_context_holds() -> None:
    """Every source of a COPY is in the context, so the builder stage has the host's inputs."""
    inputs = read_inputs()
    stream = io.BytesIO()
    inputs.write_context(stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        held = {
            path for name in archive.getnames() for path in (name, *map(str, Path(name).parents))
        }

    dockerfile = inputs.files[DOCKERFILE].decode()
    copies = re.findall(r"^COPY (?!--from)(.+)$", dockerfile, flags=re.MULTILINE)
    patterns = {source for line in copies for source in shlex.split(line)[:-1]}
    copied = {name for name in held if any(fnmatch.fnmatchcase(name, p) for p in patterns)}

    assert all(fnmatch.filter(held, pattern) for pattern in patterns)
    assert copied >= {name for name in inputs.files if name.endswith((".lock", BUILD_SCRIPT))}
    assert set(PACKAGE_FOLDERS) <= copied


def test_another_lock_is_another_input_alone() -> None:
    """An image is built again with the packages it holds, and from nothing else than before."""
    inputs = read_inputs()

    other = inputs.with_lock(b"x")

    assert other.files[PACKAGE_LOCK] == b"x"
    assert {name for name in inputs.files if inputs.files[name] != other.files[name]} == {
        PACKAGE_LOCK
    }


def test_every_module_of_the_build_is_an_input() -> None:
    """What the build scripts import from each other is among what names the image."""
    scripts = {
        name: data for name, data in read_inputs().files.items() if name.startswith("docker")
    }
    siblings = {path.stem for path in (REPOSITORY / "docker").glob("*.py")}

    imported = {
        module
        for name, data in scripts.items()
        if name.endswith(".py")
        for module in re.findall(r"^from (\w+) import", data.decode(), flags=re.MULTILINE)
    }

    assert {f"docker/{name}.py" for name in imported & siblings} <= scripts.keys()


@pytest.mark.parametrize(
    ("distribution", "uid", "tools", "way"),
    [
        ("fedora", 1000, HostTools(has_apt=True, has_keyring=True), BuildWay.HOST),
        ("debian", 1000, HostTools(has_apt=True, has_keyring=True), BuildWay.HOST),
        ("ubuntu", 0, HostTools(has_apt=True, has_keyring=False), BuildWay.HOST),
        ("ubuntu", 1000, HostTools(has_apt=True, has_keyring=False), BuildWay.CONTAINER),
        ("fedora", 0, HostTools(has_apt=False, has_keyring=False), BuildWay.CONTAINER),
    ],
)
def test_registry_is_asked_only_where_it_must_be(
    distribution: str, uid: int, tools: HostTools, way: BuildWay
) -> None:
    """Wherever apt and Debian's keys are or may be installed, no container registry is needed."""
    host = Host(
        platform="linux",
        kernel="6.1.0",
        uid=uid,
        distribution=distribution,
        home=Path("/root"),
        runtime_dir=None,
    )

    assert choose_way(host, tools) is way


def lock_of(**sections: tuple[str, ...]) -> str:
    listed = [f"[{name}]\n" + "\n".join(lines) for name, lines in sections.items()]
    return "\n\n".join(["suite trixie\nmoment 2026-01-01T00:00:00Z", *listed, ""])


def root_with(lock: str, folder: Path) -> Path:
    root = folder / "root.tar"
    with tarfile.open(root, "w") as archive:
        member = tarfile.TarInfo(LOCK_IN_IMAGE)
        member.size = len(lock)
        archive.addfile(member, io.BytesIO(lock.encode()))
    return root


@pytest.mark.parametrize(
    ("used", "is_as_pinned"),
    [
        (("libc6 2 sha256:a", "tzdata 1 sha256:b"), True),
        (("libc6 3 sha256:c", "tzdata 1 sha256:b"), False),
        (("libc6 2 sha256:a",), False),
        # A package for all architectures stands in every section: another section's line for it
        # is no pin for this one.
        (("libc6 2 sha256:a", "tzdata 2 sha256:d"), False),
    ],
)
def test_image_is_called_pinned_only_with_the_packages_of_the_lock(
    used: tuple[str, ...], tmp_path: Path, *, is_as_pinned: bool
) -> None:
    """One package more, less or newer, and the image says that it is not what was pinned."""
    shipped = lock_of(
        amd64=("libc6 2 sha256:a", "tzdata 1 sha256:b"),
        arm64=("libc6 2 sha256:e", "tzdata 2 sha256:d"),
    )
    inputs = read_inputs().with_lock(shipped.encode())

    assert is_pinned(inputs, root_with(lock_of(amd64=used), tmp_path)) is is_as_pinned


def test_failed_build_says_its_error_once(tmp_path: Path) -> None:
    """The error has what stopped the build, and not again what was reported as it went."""
    script = tmp_path / ARCHIVE_SCRIPT
    script.parent.mkdir()
    script.write_text("import sys\nprint('doing')\nsys.exit('no such package')\n")
    broken = ImageInputs(files={ARCHIVE_SCRIPT: script.read_bytes(), DOCKERFILE: b""})

    with pytest.raises(SandboxStartError, match="no such package") as error:
        pack(broken, tmp_path / "root.tar", {})

    assert "doing" not in str(error.value)
