"""What a run, a query, a cell and a sandbox may use.

Without it each part would have limits of its own, and one of them would be enforced by nobody.
Each default has its reason on its line; `docs/usage.md` has them for operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCap:
    """What one run tree may spend on one model, beside what it may spend on all together.

    Attributes:
        requests: Requests that were answered, or may be billed although they were not.
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens received, reasoning included.
        usd: Money.
    """

    requests: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What one run may spend, its child runs included.

    Reaching a limit ends the run with what there is; it never raises.

    Attributes:
        turns: Replies of the root model, in the run itself and in each of its child runs.
        queries: Prompts to sub-models.
        child_runs: Runs started by `rlm_query`, at every depth together.
        tool_calls: Calls of the caller's own functions.
        depth: Levels of child runs below the run; where there is none left, `rlm_query` asks the
            sub-model and says so.
        time_s: Wall-clock seconds from the start.
        usd: Money; None for as much as the other limits allow.
        prompt_tokens: Tokens sent to all models; likewise.
        completion_tokens: Tokens received from all models; likewise.
        models: Caps for single models, by the names that the settings have for them.
        direct_chars: A context of at most so many characters goes straight to the sub-model, with
            no sandbox; 0 sends none there.
    """

    turns: int = 30  # the reference implementation's default
    queries: int = 500  # mean of correct 131K-token runs of a query-happy root; tails are 1000s
    child_runs: int = 32  # each is a sandbox, 30 turns and queries of its own
    tool_calls: int = 500  # as many as queries
    depth: int = 1  # child runs, and none below them: see docs/adr/0023 for figures
    time_s: float = 1800.0  # half an hour: a run is waited for
    usd: float | None = None  # prices are not known for every model
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    models: Mapping[str, ModelCap] = field(default_factory=dict)
    direct_chars: int = 16_000  # reproductions at 4K tokens: plain calls were right more often


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """What the queries of one run may be, whoever pays for them.

    Attributes:
        concurrent_queries: Prompts under way at once.
        concurrent_child_runs: Child runs under way at once, at each depth.
        prompt_chars: Characters of one prompt.
        batch_prompts: Prompts in one call.
        child_context_bytes: UTF-8 bytes of the context of one child run.
    """

    concurrent_queries: int = 16  # what providers' entry tiers take without 429
    concurrent_child_runs: int = 4  # each is a container and a root model's conversation
    prompt_chars: int = 500_000  # the sub-model window the paper assumes
    batch_prompts: int = 256  # more in one call is a loop gone wrong
    child_context_bytes: int = 16 * 2**20  # four million tokens; held on the host meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLimits:
    """What one cell may use before it is stopped."""

    wall_s: float = 60.0  # a cell is a probe, not a job; time waiting for queries is not counted
    grace_s: float = 2.0  # from the interrupt until the kill: `finally` blocks run in it
    source_bytes: int = 256 * 2**10  # ten times the longest cell in published trajectories
    output_bytes: int = 64 * 2**10  # per stream; more than a root model is ever shown
    answer_bytes: int = 2 * 2**20  # half a wire message


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What one sandbox may use; enforced by the kernel, not by the sandbox."""

    memory_bytes: int = 2**30  # holds a 400 MB context and its working copies; no swap on top
    process_count: int = 64  # threads count; piston's and our measured thread pools fit
    cpu_count: float = 1.0  # of one core each period
    tmp_bytes: int = 64 * 2**20  # scratch in memory, part of memory_bytes
    tmp_inodes: int = 4096
    open_files: int = 256
    file_bytes: int = 64 * 2**20  # equals tmp: nothing else is writable
    start_s: float = 30.0  # from container start to attached; 0.3 s is usual
    lifetime_s: float = 4 * 3600.0  # absolute, whatever happens


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How many sandboxes wait for sessions, started already; of use to what stays open.

    Attributes:
        size: Sandboxes that wait while nobody wants one; 0 starts each when it is wanted.
        concurrent_starts: Sandboxes that are started at a time; None for as many as this process
            has cores.
        max_wait_age_s: Longest that a sandbox waits; then a fresh one takes its place.
    """

    size: int = 0  # whoever asks one question has no use for a second sandbox
    concurrent_starts: int | None = None  # a start is work for one core; more of them take longer
    max_wait_age_s: float = 1800.0  # what is looked at before the first cell is not hours old
