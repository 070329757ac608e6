"""What sandboxes would be, for tests that start none."""

from __future__ import annotations

from typing import Final

from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.spec import Runtime, SandboxSpec

RUNC: Final = Runtime(name="runc", is_gvisor=False)
GVISOR: Final = Runtime(name="runsc", is_gvisor=True)
SPEC: Final = SandboxSpec(
    image_id="sha256:0123",
    limits=SandboxLimits(),
    runtime=RUNC,
    cgroup_version=2,
    seccomp_profile='{"defaultAction":"SCMP_ACT_ERRNO"}',
)
