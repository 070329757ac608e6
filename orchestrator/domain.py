"""The values the parts of the orchestrator exchange.

Without it each part would invent its own words for a cell's result or a model's reply. Everything
here is frozen and holds no behaviour beyond reading itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType, TypeAlias

SandboxId = NewType("SandboxId", str)
RunId = NewType("RunId", str)
CellId = NewType("CellId", int)
QueryId = NewType("QueryId", str)

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
#: What a run is about: text, a list (of documents, of messages, of anything JSON) or a dict.
Context: TypeAlias = "str | list[Json] | dict[str, Json]"


class ContextKind(StrEnum):
    """How a context's bytes become a Python value in the REPL process."""

    TEXT = "text"  # str, UTF-8 on the wire
    JSON = "json"  # list or dict, one JSON document on the wire
    MESSAGES = "messages"  # list of {"role": …, "content": …}
    TEXTS = "texts"  # list of str
    DOCUMENTS = "documents"  # list of {"name": …, "text": …}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedContext:
    """A context ready for the wire.

    Attributes:
        kind: How the REPL process turns `data` back into a value.
        data: UTF-8 text, or one JSON document.
        part_lengths: Length of each part in characters: one entry for a text, one for each item of
            a list or each value of a dict, at most the first 100.
        total_chars: Characters in all parts together.
        sha256_hex: Digest of `data`; what trajectories and audits keep instead of the text.
        resident_bytes: What the value takes in a Python process, as measured on this one.
    """

    kind: ContextKind
    data: bytes
    part_lengths: tuple[int, ...]
    total_chars: int
    sha256_hex: str
    resident_bytes: int


class Outcome(StrEnum):
    """How a cell ended."""

    SUCCEEDED = "succeeded"
    RAISED = "raised"  # an exception left the cell
    REJECTED = "rejected"  # the language policy or the compiler refused it; nothing ran
    TIMED_OUT = "timed_out"  # its clock ran out
    KILLED = "killed"  # a signal or a resource limit ended the REPL process
    STOPPED = "stopped"  # the caller asked for it


class VariableState(StrEnum):
    """What became of the session's variables when a cell ended."""

    KEPT = "kept"  # as the cell left them
    ROLLED_BACK = "rolled_back"  # as they were before the cell
    LOST = "lost"  # gone, but for the context, which was bound again


class OutputStream(StrEnum):
    """Where a cell printed."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What a cell printed on one stream, both ends of it.

    Attributes:
        head: The first bytes, decoded; invalid UTF-8 is replaced.
        tail: The last bytes where something between was dropped, else empty.
        total_bytes: How much was printed in truth.
        dropped_bytes: How much of that is in neither `head` nor `tail`.
    """

    head: str = ""
    tail: str = ""
    total_bytes: int = 0
    dropped_bytes: int = 0

    def __str__(self) -> str:
        """Returns the text, with the gap and the true length stated where there is a gap."""
        if not self.dropped_bytes:
            return self.head + self.tail
        return (
            f"{self.head}\n"
            f"... [{self.dropped_bytes:,} of {self.total_bytes:,} bytes not shown] ...\n"
            f"{self.tail}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellError:
    """Why a cell failed, in words made for the root model.

    Attributes:
        type_name: Name of the exception's class, or of the limit: `TimeoutError`, `MemoryError`.
        message: What it said, and where the platform can tell, what to write instead.
        traceback: The cell's own frames only; empty where there are none.
    """

    type_name: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A name in the session's namespace: never its value."""

    name: str
    type_name: str
    size: int | None  # len() where the value has one, else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellUsage:
    """What a cell used; reported by the sandbox for the model's eyes, never the base of a limit."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    query_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The `answer` dict as a cell left it."""

    content: str = ""
    is_ready: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """How one cell ended. A cell that failed is a result, not an error."""

    cell_id: CellId
    outcome: Outcome
    state: VariableState
    stdout: Printed = field(default_factory=Printed)
    stderr: Printed = field(default_factory=Printed)
    error: CellError | None = None
    answer: Draft = field(default_factory=Draft)
    variables: tuple[Variable, ...] = ()
    usage: CellUsage = field(default_factory=CellUsage)


class QueryKind(StrEnum):
    """Who answers a query."""

    PLAIN = "plain"  # a model, with one reply
    CHILD_RUN = "child_run"  # a run of its own, with its own sandbox
    TOOL = "tool"  # a function of the caller's


class QueryFailureReason(StrEnum):
    """Why a prompt got no answer."""

    BUDGET_EXHAUSTED = "budget_exhausted"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    MODEL_FAILED = "model_failed"  # transient, already retried
    MODEL_REFUSED = "model_refused"  # final
    CANCELLED = "cancelled"
    TOOL_FAILED = "tool_failed"  # a function of the caller's raised, hung, or was called wrongly


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFailure:
    """Why one prompt got no answer, in a sentence the root model can act on.

    Never holds a host path, a key, an address or a provider's model name.
    """

    reason: QueryFailureReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedAnswer:
    """An answer, and a sentence about it that the cell prints on its standard error."""

    text: str
    notice: str


#: What came of one prompt: a text, or why not. Never both, never one as the other.
QueryAnswer: TypeAlias = "str | NotedAnswer | QueryFailure"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRequest:
    """Prompts from a cell, checked for form, not yet for budget.

    Attributes:
        prompts: One or more prompts; each is answered or refused on its own. Of a tool each is a
            JSON object: `{"args": […], "kwargs": {…}}`.
        model_alias: One of the names the session allows; None means the session's sub-model.
        kind: Who is to answer.
        json_schema: A JSON Schema, as text, that the answers shall fit; empty for free text.
        child_context: What the child run is about; None where the prompt itself is its context.
            A request with one has one prompt. Its lengths are the sandbox's own word.
        tool_name: The tool that is called.
    """

    query_id: QueryId
    cell_id: CellId
    prompts: tuple[str, ...]
    model_alias: str | None = None
    kind: QueryKind = QueryKind.PLAIN
    json_schema: str = ""
    child_context: EncodedContext | None = None
    tool_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTool:
    """A function of the caller's, as a cell is told of it.

    Attributes:
        name: An identifier that no reserved name is.
        signature: As Python writes it: `(order_id: int) -> dict`.
        description: What it does; its first paragraph is shown to the root model.
    """

    name: str
    signature: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOffer:
    """What the cells of one run find beside the names that every run has."""

    tools: tuple[OfferedTool, ...] = ()


class FinishReason(StrEnum):
    """Why a run ended."""

    ANSWERED = "answered"  # a cell set answer["ready"], or a short context was answered directly
    TURN_LIMIT = "turn_limit"
    QUERY_LIMIT = "query_limit"
    COST_LIMIT = "cost_limit"
    TOKEN_LIMIT = "token_limit"  # noqa: S105 - tokens of text
    MODEL_LIMIT = "model_limit"  # what the run may spend on its root model
    TIME_LIMIT = "time_limit"
    MODEL_FAILED = "model_failed"  # the root model stopped answering in mid-run
    SANDBOX_LOST = "sandbox_lost"  # the sandbox died in mid-run
    CANCELLED = "cancelled"  # the caller asked for the end; seen in events only
    RAISED = "raised"  # the run raised instead of returning; seen in events only


class AnswerSource(StrEnum):
    """Where a run's answer comes from: how far it can be relied on."""

    FINAL = "final"  # a cell declared it ready
    DIRECT = "direct"  # the sub-model's, who was given the whole of a short context
    DRAFT = "draft"  # answer["content"] as the last cell left it
    LAST_REQUEST = "last_request"  # the root model's best answer when a limit was reached
    NONE = "none"  # there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where a run's wall-clock time went, in seconds. Parts may overlap; they do not add up."""

    total_s: float
    start_s: float  # until the sandbox was attached and the context bound
    root_model_s: float
    cells_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """How well a run used what it spent; of the run itself, its child runs left out.

    Attributes:
        context_chars: Length of the context.
        sent_query_count: Prompts that were sent to sub-models and child runs.
        sent_chars: Their characters, and those of the contexts that child runs were given.
        repeated_query_count: Prompts that had been answered before in the run, at no cost.
        repeated_turn_count: Turns whose cells and outcome were those of an earlier turn.
        notice_count: How often the root model was told that it goes round in circles.
        one_prompt_usd: What the whole context in one prompt to the root model would have cost, by
            an estimate of its tokens; None where no price is known.
        fits_one_prompt: Whether it would have fitted the root model's window; None where that is
            not known.
    """

    context_chars: int = 0
    sent_query_count: int = 0
    sent_chars: int = 0
    repeated_query_count: int = 0
    repeated_turn_count: int = 0
    notice_count: int = 0
    one_prompt_usd: float | None = None
    fits_one_prompt: bool | None = None

    @property
    def sent_share(self) -> float:
        """The most of the context that sub-models can have read, from 0 to 1."""
        return min(self.sent_chars / self.context_chars, 1.0) if self.context_chars else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """The walls of a container as seen from inside it. None: the kernel does not report it.

    Attributes:
        seccomp_mode: 0 off, 1 strict, 2 filter (proc(5)).
        has_no_new_privileges: Whether execve(2) can gain nothing.
        effective_capabilities: Bit set of capability numbers (capabilities(7)); 0 is none.
        bounding_capabilities: Likewise.
        network_interfaces: Names; `lo` alone where there is no network.
        open_calls: System calls that were to be refused, tried by the worker, and not refused.
        repl_open_calls: The same of the REPL process, after it gave up what it can do without.
        repl_seccomp_mode: As `seccomp_mode`, of the REPL process.
        is_repl_inspectable: Whether a process of the same user could read the REPL process.
        is_host_kernel: Whether its kernel calls itself what the host's does: under gVisor a sandbox
            has another, whatever program was registered under that name.
        landlock_abi: Version of Landlock's interface; 0 where the kernel has none. Never promised.
        ceilings: The most there may be of each thing, by name (`sandbox.proto`). A promise is kept
            by the same figure or a lower one.
        scratch_options: What is forbidden of files that can be written, as `/tmp noexec`.
    """

    seccomp_mode: int | None
    has_no_new_privileges: bool | None
    effective_capabilities: int | None
    bounding_capabilities: int | None
    network_interfaces: frozenset[str]
    uid: int | None
    gid: int | None
    supplementary_gids: frozenset[int]
    is_root_read_only: bool | None
    open_calls: frozenset[str] | None
    repl_open_calls: frozenset[str] | None
    repl_seccomp_mode: int | None
    is_repl_inspectable: bool | None
    is_host_kernel: bool | None
    landlock_abi: int | None
    ceilings: dict[str, int]
    scratch_options: frozenset[str] | None

    def differences(self, found: Walls) -> tuple[str, ...]:
        """Returns one sentence for each promised wall that was not found as promised.

        A promise of None is not compared: the runtime does not report that wall.
        """
        sentences = [
            f"{name}: promised at most {ceiling}, found {found.ceilings.get(name)}"
            for name, ceiling in self.ceilings.items()
            if name not in found.ceilings or found.ceilings[name] > ceiling
        ]
        for wall in self.__dataclass_fields__:
            promised_value, found_value = getattr(self, wall), getattr(found, wall)
            if wall != "ceilings" and promised_value not in (None, found_value):
                sentences.append(f"{wall}: promised {promised_value!r}, found {found_value!r}")
        return tuple(sentences)


class LanguagePolicy(StrEnum):
    """What of Python a cell may use. A guard rail with clear errors, never a wall."""

    GUARDED = "guarded"
    OPEN = "open"
