"""The wheel as users get it: what is in it, and that it works without the source tree."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import openai
import pytest
from support.real_host import RealHost

from orchestrator.sandbox.image_inputs import collect
from orchestrator.sandbox.seccomp import read_profile

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
READ_INPUTS = """
import orchestrator.sandbox.image_inputs as inputs
print(inputs.__file__)
print(inputs.read_inputs().digest())
"""
READ_PROFILE = """
from orchestrator.sandbox.seccomp import read_profile
print(read_profile().sha256)
"""
IMPORT_FIRST = """
import sys
import orchestrator
assert "site-packages" in orchestrator.__file__, orchestrator.__file__
heavy = ("docker", "openai", "grpc", "pydantic", "rlm_sandbox")
print([name for name in heavy if name in sys.modules])
orchestrator.RLM
print([name for name in heavy if name in sys.modules])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel from the source tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installs the wheel into an environment that shares what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"),
            *("--disable-pip-version-check", "--no-deps", "--no-index", str(wheel)),
        ],
        check=True,
        capture_output=True,
    )
    # Path files in a folder that a path file names are not read (site), so an editable
    # installation of this project stays unseen.
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "dependencies.pth").write_text(str(Path(openai.__file__).parents[1]))
    return folder / "bin"


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_installation(installation: Path, source: str, cwd: Path) -> list[str]:
    """Runs a program with the installed wheel and returns the lines it printed."""
    ran = subprocess.run(
        [installation / "python", "-c", source],
        cwd=cwd,
        env={},
        check=True,
        capture_output=True,
        text=True,
    )
    return ran.stdout.splitlines()


def test_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    """Three packages and the image's build files; neither tests nor a folder that hides a package.

    An import package named `docker` or `proto` would shadow the SDK or another project.
    """
    names = names_in(wheel)
    info = f"rlm_sandbox-{version('rlm-sandbox')}.dist-info"

    assert {name.split("/")[0] for name in names} == {
        *("orchestrator", "sandbox_image", "rlm_sandbox", info),
    }
    sources = {
        source.relative_to(REPOSITORY).as_posix().removeprefix("proto/")
        for folder in ("orchestrator", "sandbox_image", "proto/rlm_sandbox")
        for source in (REPOSITORY / folder).rglob("*.py")
    }
    assert len(sources) > 100
    assert sources <= names
    build_files = {name for name in names if name.startswith("orchestrator/sandbox/image_files/")}
    assert {Path(name).name for name in build_files} >= {
        *("build_rootfs.py", "requirements.lock", "sandbox.Dockerfile", "seccomp.json"),
    }
    assert not any("__pycache__" in name or "test" in name.lower() for name in names)
    assert f"{info}/licenses/LICENSE" in names


def test_wheel_is_the_same_file_each_time(wheel: Path, tmp_path: Path) -> None:
    """The age, place and permissions of the tree that it is built from leave no trace in it."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        copy = tmp_path / "tree" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((REPOSITORY / name).read_bytes())
        copy.chmod(0o600)
        os.utime(copy, (1_000_000_000, 1_000_000_000))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / "tree", check=True, capture_output=True)

    [again] = tmp_path.glob("*.whl")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, again)]
    assert again.name == wheel.name
    assert digests[0] == digests[1]


def test_wheel_holds_its_bill_of_materials(wheel: Path) -> None:
    """Whoever has the wheel has the list of what it brings along, where PEP 770 has it."""
    name = f"rlm_sandbox-{version('rlm-sandbox')}.dist-info/sboms/rlm_sandbox.cdx.json"
    with zipfile.ZipFile(wheel) as archive:
        held = archive.read(name)

    assert held == (REPOSITORY / "sbom/rlm_sandbox.cdx.json").read_bytes()


def test_image_is_made_from_the_same_files(installation: Path, tmp_path: Path) -> None:
    """An installed wheel and the source tree it was built from share one image."""
    source_tree = collect(
        REPOSITORY / "docker",
        {
            "sandbox_image": REPOSITORY / "sandbox_image",
            "proto/rlm_sandbox": REPOSITORY / "proto/rlm_sandbox",
        },
    )
    path, digest = in_installation(installation, READ_INPUTS, tmp_path)

    assert str(REPOSITORY) not in path
    assert digest == source_tree.digest()


def test_wheel_brings_the_seccomp_profile(installation: Path, tmp_path: Path) -> None:
    """An installation filters system calls as its source does: the profile came along as it was."""
    [digest] = in_installation(installation, READ_PROFILE, tmp_path)

    assert digest == read_profile().sha256


def test_import_waits_for_nothing(installation: Path, tmp_path: Path) -> None:
    """A program that wants an error's class loads neither SDK, nor gRPC, nor the wire."""
    at_first, after_the_class = in_installation(installation, IMPORT_FIRST, tmp_path)

    assert at_first == "[]"
    assert after_the_class != at_first  # the control: the probe sees modules that are there


def test_version_is_printed(installation: Path, host: RealHost) -> None:
    """The command is installed, and knows which release it is."""
    ran = subprocess.run(
        [installation / "rlm", "--version"],
        env=host.environment(),
        check=True,
        capture_output=True,
        text=True,
    )

    assert ran.stdout == f"rlm-sandbox {version('rlm-sandbox')}\n"


def test_cell_runs_from_the_installation(
    installation: Path, host: RealHost, text: Path, tmp_path: Path
) -> None:
    """Without the source tree the command finds the image and runs a cell in it."""
    ran = subprocess.run(
        [installation / "rlm", "exec", text],
        cwd=tmp_path,
        env=host.environment(),
        check=True,
        capture_output=True,
        text=True,
    )

    assert json.loads(ran.stdout)["outcome"] == "succeeded"
