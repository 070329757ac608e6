"""Which files name an image, and that both ways of building are given the same ones."""

import io
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest

from orchestrator.sandbox.engine_host import Host
from orchestrator.sandbox.image import BuiltBy
from orchestrator.sandbox.image_build import choose_way, read_configuration
from orchestrator.sandbox.image_inputs import (
    BUILD_SCRIPT,
    PACKAGE_FOLDERS,
    ImageInputs,
    collect,
    read_inputs,
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
        "docker/requirements.lock",
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

    copies = re.findall(r"^COPY (?!--from)(.+)$", inputs.dockerfile, flags=re.MULTILINE)
    sources = {source for line in copies for source in shlex.split(line)[:-1]}

    assert sources
    assert sources <= held
    assert {BUILD_SCRIPT, *PACKAGE_FOLDERS} <= sources


def test_imported_image_gets_the_dockerfiles_configuration() -> None:
    """User, entry point and folder are written once, in the Dockerfile's last stage."""
    configuration = read_configuration(read_inputs().dockerfile)

    assert "USER 10001:10001" in configuration
    assert 'ENTRYPOINT ["/usr/bin/python3.13", "-I", "-m", "sandbox_image"]' in configuration
    assert not [line for line in configuration if line.startswith(("COPY", "RUN", "FROM", "ARG"))]


@pytest.mark.parametrize(
    ("distribution", "uid", "has_mmdebstrap", "way"),
    [
        ("fedora", 1000, True, BuiltBy.MMDEBSTRAP),
        ("debian", 0, False, BuiltBy.MMDEBSTRAP),
        ("debian", 1000, False, BuiltBy.DOCKERFILE),
        ("fedora", 0, False, BuiltBy.DOCKERFILE),
    ],
)
def test_registry_is_asked_only_where_it_must_be(
    distribution: str, uid: int, *, has_mmdebstrap: bool, way: BuiltBy
) -> None:
    """Wherever mmdebstrap is or may be installed, no container registry is needed."""
    host = Host(
        platform="linux",
        kernel="6.1.0",
        uid=uid,
        distribution=distribution,
        home=Path("/root"),
        runtime_dir=None,
    )

    assert choose_way(host, has_mmdebstrap=has_mmdebstrap) is way
