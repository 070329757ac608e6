#!/usr/bin/env bash
# Generates the wire code beside the contract. Run from anywhere; CI checks that it changes nothing.
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-../.venv/bin/python}"
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc -I . \
    --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
    rlm_sandbox/v1/sandbox.proto
