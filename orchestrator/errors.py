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
    """Transient: the provider was down, slow, overloaded or answered nonsense."""


class ModelRefusedError(ModelError):
    """Final: the key, the model's name or the request was refused. Trying again will not help."""


class SessionCancelledError(RlmSandboxError):
    """The caller asked for the end."""
