"""The switches of gRPC that a broker's process is started with are ones that this gRPC has."""

import subprocess
import sys

from orchestrator.broker_process.nursery_handle import GRPC_EXPERIMENTS

#: Makes gRPC read them; it says which of them it does not know.
_SOURCE = "import grpc; grpc.insecure_channel('unix:/nowhere').close()"


def said_of(experiments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _SOURCE],
        check=True,
        capture_output=True,
        text=True,
        env={"GRPC_EXPERIMENTS": experiments},
    )
    return done.stderr


def test_each_is_known() -> None:
    """One that a later gRPC drops is ignored there, and messages are as slow again as before."""
    assert "Unknown experiment" not in said_of(GRPC_EXPERIMENTS)


def test_experiment_that_is_none_is_said() -> None:
    """One that is none is said to be none."""
    assert "Unknown experiment: event_engine_for_nobody" in said_of("-event_engine_for_nobody")
