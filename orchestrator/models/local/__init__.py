"""A small model for machines without an account anywhere: its weights and its endpoint."""

from orchestrator.models.local.endpoint import local_endpoint
from orchestrator.models.local.serve import DEFAULT_PORT, MODEL_NAME, base_url, serve
from orchestrator.models.local.weights import QWEN_CODER_1_5B, WeightsSpec, fetch, verified

__all__ = [
    "DEFAULT_PORT",
    "MODEL_NAME",
    "QWEN_CODER_1_5B",
    "WeightsSpec",
    "base_url",
    "fetch",
    "local_endpoint",
    "serve",
    "verified",
]
