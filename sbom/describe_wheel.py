"""Writes the bill of materials (CycloneDX) of the wheel: what it brings along when it is installed.

Run by `make lock`. It installs the locked packages into an environment of their own and lets
cyclonedx-bom read it: licences and who needs whom come from the packages themselves. The result is
committed and lies in the wheel (PEP 770), so an auditor has it without a network.
"""

# ruff: noqa: INP001 - a script, not a package

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PROJECT = _HERE.parent
_RESULT = _HERE / "rlm_sandbox.cdx.json"
_PINNED = re.compile(r"^([\w.-]+)==\S+[^\n\\]*((?:\\\n\s*--hash=sha256:\w+\s*)+)", re.MULTILINE)
_HASH = re.compile(r"sha256:(\w{64})")
_LICENCES = _PROJECT / "docs" / "licences.md"
_LICENCES_HEAD = """\
# Licences of what is shipped

The wheel holds this project's own code (Apache-2.0), and brings the packages of the first table.
The image holds those of the last table, each with its full text, and the wheels of
`docker/requirements.lock`, which stand in the first two tables.
All tables are written by `make lock`.
Versions and hashes are in the bills of materials (`make sbom`).

## Python packages

| package | licence |
| --- | --- |
"""
_IMAGE_HEAD = """
## Python packages in the image alone

| package | licence |
| --- | --- |
"""
_DEBIAN_HEAD = """
## Debian packages in the image

| package | licence |
| --- | --- |
"""
# Packages whose metadata has a sentence where the others have an expression.
_STATED_IN_PROSE = {"protobuf": "BSD-3-Clause"}
# What the image has and the wheel does not bring. One that is missing here ends the writing.
_IN_THE_IMAGE_ALONE = {"fastjsonschema": "BSD-3-Clause"}


def main() -> None:
    """Writes the bill beside this file."""
    lock = _PROJECT / "requirements-runtime.lock"
    with tempfile.TemporaryDirectory(prefix="rlm-sbom-") as scratch:
        environment, tools = Path(scratch, "environment"), Path(scratch, "tools")
        locks = {environment: lock, tools: _HERE / "requirements.lock"}
        for folder, requirements in locks.items():
            venv.create(folder, with_pip=False)
            _run([sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"),
                  "install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet",
                  "--requirement", str(requirements)])  # fmt: skip
        printed = _run([
            str(tools / "bin" / "cyclonedx-py"), "environment", str(environment / "bin" / "python"),
            f"--pyproject={_PROJECT / 'pyproject.toml'}", "--mc-type=library", "--sv=1.6",
            "--output-reproducible", "--output-file=-",
        ])  # fmt: skip
    bill = finish(json.loads(printed), lock.read_text("utf-8"))
    _RESULT.write_text(f"{json.dumps(bill, indent=1, sort_keys=True)}\n", "utf-8")
    _LICENCES.write_text(format_licences(bill), "utf-8")
    sys.stdout.write(f"{_RESULT.name}: {len(bill['components'])} packages\n")


def finish(bill: dict[str, Any], lock: str) -> dict[str, Any]:
    """Adds what an installed package does not know of itself: the hashes it was locked with."""
    locked = {_normalise(name): _HASH.findall(hashes) for name, hashes in _PINNED.findall(lock)}
    for component in bill["components"]:
        name = _normalise(component["name"])
        # Which of the wheels it was depends on the machine: the lock allows these.
        component["properties"] = [
            {"name": "rlm-sandbox:locked-sha256", "value": value} for value in locked[name]
        ]
        if "licenses" not in component:
            component["licenses"] = [{"license": {"id": _STATED_IN_PROSE[name]}}]
    for tool in bill["metadata"]["tools"]["components"]:
        tool.pop("externalReferences", None)  # ten addresses each, none of ours
    return bill


def format_licences(bill: dict[str, Any]) -> str:
    """Returns the page that lists the licence of everything that is shipped."""
    python = [
        f"| {component['name']} | {' AND '.join(_licences(component))} |"
        for component in sorted(bill["components"], key=lambda item: _normalise(item["name"]))
    ]
    wheels = (_PROJECT / "docker" / "requirements.lock").read_text("utf-8")
    brought = {_normalise(component["name"]) for component in bill["components"]}
    alone = sorted({_normalise(name) for name, _hashes in _PINNED.findall(wheels)} - brought)
    image = [f"| {name} | {_IN_THE_IMAGE_ALONE[name]} |" for name in alone]
    lock = (_PROJECT / "docker" / "packages.lock").read_text("utf-8")
    names = sorted(set(re.findall(r"^(\S+) \S+ sha256:", lock, re.MULTILINE)))
    debian = [f"| {name} | in the image: `/usr/share/doc/{name}/copyright` |" for name in names]
    tables = ((_LICENCES_HEAD, python), (_IMAGE_HEAD, image), (_DEBIAN_HEAD, debian))
    return "\n".join([*(head + "\n".join(rows) for head, rows in tables), ""])


def _licences(component: dict[str, Any]) -> list[str]:
    """Returns the licences of a component, an expression first and in words only without one."""
    stated = component["licenses"]
    found = [item["expression"] for item in stated if "expression" in item]
    found += [item["license"]["id"] for item in stated if "id" in item.get("license", {})]
    return sorted(set(found)) or [item["license"]["name"] for item in stated]


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: list[str]) -> str:
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return ran.stdout


if __name__ == "__main__":
    main()
