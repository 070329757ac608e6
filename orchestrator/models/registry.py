"""From a model's name to the client that asks it.

Without it every caller would know which names are special and how each kind of model is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from orchestrator.errors import SettingsError
from orchestrator.models.script_file import load_script
from orchestrator.models.scripted import EchoModel
from orchestrator.ports import ModelClient

_SCRIPTED = "scripted:"
_NAME_CHARS = 256  # longer than any provider's; a longer one is a pasted text
_FORMS = "a model's name, `local`, `scripted:FILE` or `echo`"


def model_for(  # noqa: PLR0913 -- keyword-only, one for each thing an operator sets
    spec: str,
    *,
    role: Literal["root", "sub"],
    api_key: str | None,
    base_url: str | None,
    local_base_url: str | None,
    request_timeout_s: float,
    max_retries: int,
    temperature: float | None,
    max_concurrent_requests: int,
) -> ModelClient:
    """Returns the model that `spec` names; the caller closes it.

    Args:
        spec: `scripted:FILE` replays a script, `echo` answers with the prompt, `local` is the
            model served on this machine; anything else is the name of a model at the endpoint.
        role: Which of a script's replies the model gives.
        api_key: The endpoint's key; None where it needs none.
        base_url: The endpoint; None means OpenAI's own.
        local_base_url: Where the local model is served; None where it is not.
        request_timeout_s: Wall-clock seconds one request may take.
        max_retries: How often a transient failure is tried again.
        temperature: Sent where not None.
        max_concurrent_requests: Further requests to this model wait for their turn.

    Raises:
        SettingsError: `spec` is empty or no name, there is no key, or no local model.
        InputError: The script is missing or malformed.
    """
    _check_name(spec)
    if spec == EchoModel.name:
        return EchoModel()
    if spec.startswith(_SCRIPTED):
        script = load_script(Path(spec.removeprefix(_SCRIPTED)).expanduser())
        return script.root_model() if role == "root" else script.sub_model()
    if spec == "local":
        if local_base_url is None:
            message = "no local model is served; run `rlm model fetch` once, then `rlm model serve`"
            raise SettingsError(message)
        # The key stays out: it belongs to another endpoint.
        api_key, base_url = None, local_base_url
    # The SDK takes most of a second to import, and scripts, echoes and `--help` do without it.
    from orchestrator.models.openai_client import OpenAiModel  # noqa: PLC0415 -- see above

    return OpenAiModel(
        name=spec,
        api_key=api_key,
        base_url=base_url,
        request_timeout_s=request_timeout_s,
        max_retries=max_retries,
        temperature=temperature,
        max_concurrent_requests=max_concurrent_requests,
    )


def _check_name(spec: str) -> None:
    """Raises `SettingsError` for what is no model's name."""
    if not spec.strip():
        message = f"no model is named; pass --model with {_FORMS}"
    elif spec == _SCRIPTED:
        message = "expected a file after `scripted:`, found nothing; pass --model scripted:FILE"
    elif len(spec) > _NAME_CHARS and not spec.startswith(_SCRIPTED):
        message = f"expected {_FORMS} for --model, found a text of {len(spec):,} characters"
    elif spec != spec.strip() or not spec.isprintable():
        message = f"expected {_FORMS} for --model, found {spec!a} with odd characters in it"
    elif spec.startswith("-"):
        message = f"expected {_FORMS} for --model, found the option {spec!r}"
    else:
        return
    raise SettingsError(message)
