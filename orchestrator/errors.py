"""The one tree of errors, sorted by who has to act.

Without it a caller could not tell a wrong setting from a dead container from a provider's refusal.
What a cell did is never here: a cell that failed is a `CellResult`, because the root model acts on
it.
"""

from __future__ import annotations


class RlmSandboxError(Exception):
    """Anything this package raises on purpose. Its text says what to do."""


class SettingsError(RlmSandboxError):
    """The configuration or the installation is wrong; the operator corrects it."""


class InputError(RlmSandboxError):
    """The question, the context or a script is unusable; the caller corrects it.

    Nothing was started and nothing was paid for.
    """


class SandboxError(RlmSandboxError):
    """Infrastructure failed; never shown to a model."""


class SandboxStartError(SandboxError):
    """No sandbox could be had: no engine, no image, or a wall not as promised. Retry elsewhere."""


class SandboxLostError(SandboxError):
    """The sandbox died and has been destroyed; its variables are gone."""


class ProtocolViolationError(SandboxError):
    """The sandbox broke the contract; treated as an attack: destroyed, logged, not retried.

    Deliberately a sibling of `SandboxLostError`, so that no `except` for one hides the other.
    """

    def __init__(self, rule: str) -> None:
        """Keeps the rule that was broken, in the words of the contract."""
        super().__init__(f"the sandbox broke the contract: {rule}")
        self.rule = rule


class BudgetExhaustedError(RlmSandboxError):
    """A limit did its job.

    Attributes:
        limit: Name of the limit, as in the settings.
        used: How much of it was spent or reserved before this request.
        allowed: How much there is.
    """

    def __init__(self, message: str, *, limit: str, used: float, allowed: float) -> None:
        """Keeps the figures beside the sentence."""
        super().__init__(message)
        self.limit = limit
        self.used = used
        self.allowed = allowed


class ModelError(RlmSandboxError):
    """A model did not answer. Raised as one of its two subclasses, by what the caller can do."""

    def __init__(self, message: str, *, model: str) -> None:
        """Keeps the name of the model that did not answer."""
        super().__init__(message)
        self.model = model


class ModelUnavailableError(ModelError):
    """Transient: the provider was down, slow, overloaded or answered nonsense.

    Attributes:
        retry_after_s: How long the provider asks to wait; None where it does not say.
        may_be_billed: Whether the provider may have done the work all the same.
        received_text: What had come of the reply before it broke off.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str,
        retry_after_s: float | None = None,
        may_be_billed: bool = False,
        received_text: str = "",
    ) -> None:
        """Keeps what decides whether to ask again, and what it has cost."""
        super().__init__(message, model=model)
        self.retry_after_s = retry_after_s
        self.may_be_billed = may_be_billed
        self.received_text = received_text


class ModelRefusedError(ModelError):
    """Final: the key, the model's name or the request was refused. Trying again will not help.

    Attributes:
        may_be_billed: Whether the provider may have done the work all the same.
    """

    def __init__(self, message: str, *, model: str, may_be_billed: bool = False) -> None:
        """Keeps what it has cost."""
        super().__init__(message, model=model)
        self.may_be_billed = may_be_billed


class ToolError(RlmSandboxError):
    """A caller's function tells the cell that called it what is wrong; the text is for a model."""


class SessionCancelledError(RlmSandboxError):
    """The caller asked for the end."""
