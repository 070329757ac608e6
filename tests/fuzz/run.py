"""Runs the fuzz targets under atheris, and says how far each one came.

    python tests/fuzz/run.py --seconds 60 [target ...]

New inputs are kept in a folder of their own; with `--keep` those that reach something new are added
to the corpus, smallest first.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT), str(ROOT / "proto")]

from support.fuzz_targets import FuzzTarget, fuzz_targets  # noqa: E402 - after the path to it

_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+ .*?exec/s: (\d+)")
_IN_OWN_PROCESS = "--in-own-process"
_MAX_INPUT_BYTES = 4096
_INPUT_SECONDS = 10  # one input that takes longer is a finding


def main() -> int:
    """Runs what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="add what is new to the corpus")
    parser.add_argument("targets", nargs="*")
    targets = {target.name: target for target in fuzz_targets()}
    if sys.argv[1:2] == [_IN_OWN_PROCESS]:
        fuzz_here(targets[sys.argv[2]], sys.argv[3:])
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(targets)
    if unknown:
        parser.error(f"no target is called {min(unknown)}; there are {', '.join(targets)}")
    try:
        import atheris  # noqa: F401, PLC0415 - whether it is there at all
    except ImportError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        say(
            f"atheris is not installed for Python {version}. `make fuzz` installs it where there "
            "is a wheel, which is Python 3.11 to 3.13 on Linux; take one of these: "
            "make fuzz PYTHON=python3.12. The tests replay the corpus without it."
        )
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
            f"-artifact_prefix={ROOT}/fuzz-{target.name}-",
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
        kept = list(Path(merged).iterdir())
        if not kept:
            return
        for path in target.corpus.iterdir():
            path.unlink()
        for path in kept:
            (target.corpus / path.name[:16]).write_bytes(path.read_bytes())


def in_own_process(target: FuzzTarget, options: list[str]) -> str:
    """Runs libFuzzer, which ends the process it runs in, and returns what it said."""
    ended = subprocess.run(
        [sys.executable, __file__, _IN_OWN_PROCESS, target.name, *options],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tempfile.gettempdir(),
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
