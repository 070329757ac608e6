"""Runs the fuzz targets under atheris, and says how far each one came: `make fuzz`.

Without it a property would be tried on what its author thought of. An input that breaks one is kept
as `fuzz-<target>-…` at the root of the tree; with `--keep`, inputs that reach something new are
added to the corpus, and of all of them the fewest that reach as much are kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from support.fuzz_targets import FUZZ, FuzzTarget, fuzz_targets

_TESTS = FUZZ.parent
_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+ .*?exec/s: (\d+)")
_IN_OWN_PROCESS = "--in-own-process"
_MAX_INPUT_BYTES = 4096
_INPUT_SECONDS = 10  # one input that takes longer is a finding


def main() -> int:
    """Runs what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description="Runs fuzz targets.")
    parser.add_argument("--seconds", type=int, default=60, help="how long each target is run")
    parser.add_argument("--keep", action="store_true", help="add what is new to the corpus")
    parser.add_argument("targets", nargs="*")
    targets = {target.name: target for target in fuzz_targets()}
    if sys.argv[1:2] == [_IN_OWN_PROCESS]:
        fuzz_here(targets[sys.argv[2]], sys.argv[3:])
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(targets)
    if unknown:
        parser.error(f"no target is called {min(unknown)}; there are {', '.join(targets)}")
    if importlib.util.find_spec("atheris") is None:
        say("atheris is not installed; `make fuzz` does it where there is a wheel of it")
        return 1
    names = arguments.targets or list(targets)
    outcomes = [run(targets[name], arguments.seconds, keep=arguments.keep) for name in names]
    return 0 if all(outcomes) else 1


def say(line: str) -> None:
    """Says something at once: the next target takes its time."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(target: FuzzTarget, seconds: int, *, keep: bool) -> bool:
    """Runs one target in a process of its own; returns whether every property held."""
    target.corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        found = Path(folder, "found")
        found.mkdir()
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={_MAX_INPUT_BYTES}",
            f"-timeout={_INPUT_SECONDS}",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            f"-artifact_prefix={_TESTS.parent}/fuzz-{target.name}-",
            *dictionary_of(target, found),
        ]
        told = in_own_process(target, [*options, str(found), str(target.corpus)])
        if match := _DONE.search(told):
            runs, edges, features, inputs, rate = match.groups()
            say(
                f"{target.name:<20} {int(runs):>10,} runs {int(rate):>7,} a second "
                f"{edges:>6} edges {features:>6} features {inputs:>5} inputs"
            )
        else:
            say(f"{target.name}: a property does not hold\n{told[-4000:]}")
            return False
        if keep:
            merge(target, found)
    return True


def dictionary_of(target: FuzzTarget, folder: Path) -> list[str]:
    """Writes the words a target is made of, which a fuzzer would take long to spell."""
    tokens: tuple[bytes, ...] = getattr(target.load(), "TOKENS", ())
    if not tokens:
        return []
    words = ["".join(f"\\x{byte:02x}" for byte in token) for token in tokens]
    path = folder.with_suffix(".dict")
    path.write_text("".join(f'"{word}"\n' for word in words), encoding="ascii")
    return [f"-dict={path}"]


def merge(target: FuzzTarget, found: Path) -> None:
    """Replaces the corpus by the fewest inputs that reach as much as it and what was found."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as merged:
        in_own_process(target, ["-merge=1", merged, str(target.corpus), str(found)])
        kept = {path.name[:16]: path.read_bytes() for path in Path(merged).iterdir()}
        if not kept:
            return
        # What was written by hand stays: a parser that is one pattern has next to no edges.
        seeds = {path: path.read_bytes() for path in target.corpus.glob("seed-*")}
        for path in set(target.corpus.iterdir()) - set(seeds):
            path.unlink()
        for name, data in kept.items():
            if data not in seeds.values():
                (target.corpus / name).write_bytes(data)


def in_own_process(target: FuzzTarget, options: list[str]) -> str:
    """Runs libFuzzer, which ends the process it runs in, and returns what it said."""
    ended = subprocess.run(
        [sys.executable, "-m", "support.fuzz_run", _IN_OWN_PROCESS, target.name, *options],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=_TESTS,
    )
    return ended.stdout.decode(errors="replace")


def fuzz_here(target: FuzzTarget, options: list[str]) -> None:
    """Fuzzes until the time is over; does not return."""
    import atheris  # noqa: PLC0415 - only here is it needed

    with atheris.instrument_imports(include=["orchestrator", "sandbox_image"]):
        entry = target.entry()
    atheris.Setup([sys.argv[0], *options], entry)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
