from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTO_ROOT = Path(__file__).parents[2] / "proto"
PACKAGE = Path("rlm_sandbox/v1")
GENERATED = ["sandbox_pb2.py", "sandbox_pb2.pyi", "sandbox_pb2_grpc.py", "sandbox_pb2_grpc.pyi"]


def regenerate(root: Path) -> None:
    """Runs a copy of the project's own script on a copy of the contract in `root`."""
    (root / PACKAGE).mkdir(parents=True)
    shutil.copy(PROTO_ROOT / "generate.sh", root)
    shutil.copy(PROTO_ROOT / PACKAGE / "sandbox.proto", root / PACKAGE)
    subprocess.run(
        ["/usr/bin/env", "bash", root / "generate.sh"],
        env={"PATH": os.defpath, "PYTHON": sys.executable},
        check=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("proto")
    regenerate(root)
    return root


@pytest.mark.parametrize("name", GENERATED)
def test_generated_code_is_of_this_contract(regenerated: Path, name: str) -> None:
    """Generating anew changes no byte: the committed code is of the committed contract."""
    assert (regenerated / PACKAGE / name).read_bytes() == (PROTO_ROOT / PACKAGE / name).read_bytes()


def test_nothing_else_is_generated(regenerated: Path) -> None:
    """The script makes the files that are compared, and no other."""
    made = {path.name for path in (regenerated / PACKAGE).iterdir()}

    assert made == {*GENERATED, "sandbox.proto"}
