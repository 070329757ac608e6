import os
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from orchestrator import settings
from orchestrator.domain import LanguagePolicy
from orchestrator.errors import SettingsError
from orchestrator.limits import (
    CellLimits,
    ModelCap,
    PoolLimits,
    QueryLimits,
    RunLimits,
    SandboxLimits,
)
from orchestrator.providers import ProviderSettings
from orchestrator.settings import Settings, load, parse_size

_FOREIGN = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "DOCKER_HOST", "XDG_CONFIG_HOME",
            "XDG_DATA_HOME", "XDG_RUNTIME_DIR")  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in [*_FOREIGN, *(name for name in os.environ if name.startswith("RLM_"))]:  # noqa: TID251 - what it reads is removed
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(text: str) -> Path:
        path = tmp_path / "rlm.toml"
        path.write_text(text, "utf-8")
        return path

    return write_file


def test_limits_come_from_where_they_are_defined() -> None:
    """With nothing configured, the limits are exactly the documented defaults."""
    found = load()

    assert (found.run, found.query) == (RunLimits(), QueryLimits())
    assert (found.cell, found.sandbox) == (CellLimits(), SandboxLimits())
    assert found.pool == PoolLimits()
    assert (found.provider, found.providers, found.models) == (ProviderSettings(), {}, {})
    assert found.policy is LanguagePolicy.GUARDED


def test_environment_beats_file_and_caller_beats_both(
    write: Callable[[str], Path], clean_environment: pytest.MonkeyPatch
) -> None:
    """The later source wins key by key; keys that it does not name stay as they were."""
    path = write('model = "file"\nsub_model = "file"\n[run]\nturns = 1\nqueries = 1\ntime_s = 1')
    clean_environment.setenv("RLM_MODEL", "environment")
    clean_environment.setenv("RLM_RUN__TURNS", "2")
    clean_environment.setenv("RLM_RUN__QUERIES", "2")

    found = load(config_file=path, overrides={"run": {"turns": 3, "queries": None}})

    assert (found.model, found.sub_model) == ("environment", "file")
    assert (found.run.turns, found.run.queries, found.run.time_s) == (3, 2, 1.0)


def test_default_file_is_read_from_the_configuration_folder(
    tmp_path: Path, clean_environment: pytest.MonkeyPatch
) -> None:
    """Without --config the file under XDG_CONFIG_HOME counts."""
    folder = tmp_path / "config/rlm-sandbox"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('model = "from-default"', "utf-8")
    clean_environment.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    assert load().model == "from-default"


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1", lambda found: found.provider.base_url),
        ("OPENAI_API_KEY", "sk-1", lambda found: found.provider.api_key.get_secret_value()),
        ("DOCKER_HOST", "unix:///x.sock", lambda found: found.docker_host),
        ("XDG_RUNTIME_DIR", "/run/user/1", lambda found: str(found.user_runtime_directory)),
        ("XDG_DATA_HOME", "/data", lambda found: str(found.data_directory.parent)),
    ],
)
def test_other_programs_variables_are_read(
    clean_environment: pytest.MonkeyPatch, name: str, value: str, read: Callable[[Settings], str]
) -> None:
    """The variables that the SDKs and the desktop know by their own names are honoured."""
    clean_environment.setenv(name, value)

    assert read(load()) == value


def test_own_variable_beats_another_programs(clean_environment: pytest.MonkeyPatch) -> None:
    """RLM_PROVIDER__BASE_URL is meant for this program, so it wins over OPENAI_BASE_URL."""
    clean_environment.setenv("OPENAI_BASE_URL", "http://theirs/v1")
    clean_environment.setenv("RLM_PROVIDER__BASE_URL", "http://ours/v1")

    assert load().provider.base_url == "http://ours/v1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "x"', "modle .* is not a setting; did you mean model?"),
        ("[run]\nturn = 3", r"run\.turn .* did you mean run\.turns?"),
        ("[colour]\nred = 1", "colour .* known are: answers_repeats_once, broker, "),
        ("[run.models.m]\nusds = 3", r"run\.models\.m\.usds .* did you mean run\.models\.m\.usd\?"),
        ("[providers.f]\nbase_ulr = 'x'", r"did you mean providers\.f\.base_url\?"),
        ("[models.m.price]\nprompt = 1", r"did you mean models\.m\.price\.prompt_usd\?"),
        ("[run]\nturns = -3", r"run\.turns .*: expected a number above zero, got -3"),
        ("[run]\nturns = 0", r"run\.turns .*: expected a number above zero, got 0"),
        ("[run]\nqueries = -1", r"run\.queries .*: expected a number of zero or more, got -1"),
        ("[run]\ntime_s = nan", r"run\.time_s .*: expected a number above zero, got nan"),
        ("[pool]\nsize = -1", r"pool\.size .*: expected a number of zero or more, got -1"),
        ("[pool]\nconcurrent_starts = 0", r"pool\.concurrent_starts .* above zero, got 0"),
        (
            "[pool]\nsize = 1\nmax_wait_age_s = 9000",
            r"pool\.max_wait_age_s .*: expected at most 7200, half of sandbox\.lifetime_s, got",
        ),
        ("[cell]\nwall_s = inf", r"cell\.wall_s .*: expected a number above zero, got inf"),
        ('[run]\nturns = "abc"', r"run\.turns .*: expected a valid integer, got 'abc'"),
        ('[sandbox]\nmemory_bytes = "2x"', r"sandbox\.memory_bytes .*: expected a size .* '2x'"),
        ("run = 3", r"run .*: expected a section of keys, got 3"),
        ("providers.f = 3", r"providers\.f .*: expected a section of keys"),
        ("providers = 3", r"providers .*: expected a section of keys"),
        ("run.models = 3", r"run\.models .*: expected a section of keys, got 3"),
        (
            "[run.models.m]\nusd = -1",
            r"run\.models\.m\.usd .*: expected a number above zero, got -1",
        ),
        (
            "[provider]\nrequest_timeout_s = 0",
            r"provider\.request_timeout_s .*: expected a number above zero, got 0",
        ),
        (
            "[providers.f]\nmax_retries = -1",
            r"providers\.f\.max_retries .*: expected a number of zero or more, got -1",
        ),
        (
            "[providers.f]\ntokens_per_minute = 0",
            r"providers\.f\.tokens_per_minute .*: expected a number above zero, got 0",
        ),
        (
            "[models.m]\nwindow_tokens = 0",
            r"models\.m\.window_tokens .*: expected a number above zero, got 0",
        ),
        (
            "[models.m.price]\nprompt_usd = -1\ncompletion_usd = 1",
            r"models\.m\.price\.prompt_usd .*: expected a number of zero or more, got -1",
        ),
        (
            "[models.m.price]\nprompt_usd = 1",
            r"models\.m\.price\.completion_usd .*: expected a value, found none",
        ),
        ('[models.m]\napi = "assistants"', r"expected 'chat' or 'responses', got 'assistants'"),
        ('[query]\nchild_context_bytes = "2x"', r"query\.child_context_bytes .* a size .* '2x'"),
        ('policy = "none"', "policy .*: expected 'guarded' or 'open', got 'none'"),
        ("model = ", "is not TOML"),
    ],
)
def test_wrong_file_is_refused_with_key_expectation_and_value(
    write: Callable[[str], Path], text: str, message: str
) -> None:
    """Whoever wrote a wrong key or value reads which, where, what was expected and what came."""
    path = write(text)

    with pytest.raises(SettingsError, match=message) as caught:
        load(config_file=path)

    assert str(path) in str(caught.value)


def test_misspelt_key_of_a_caller_is_refused() -> None:
    """A program that gives a key which is none is told so, as a file is."""
    with pytest.raises(SettingsError, match=r"run\.turn \(given by the caller\).*run\.turns"):
        load(overrides={"run": {"turn": 3}})


def test_zero_queries_is_a_choice(write: Callable[[str], Path]) -> None:
    """A run without queries is allowed: the control to the refused zeros above."""
    assert load(config_file=write("[run]\nqueries = 0")).run.queries == 0


def test_misspelt_variable_is_refused(clean_environment: pytest.MonkeyPatch) -> None:
    """A variable with this program's prefix that sets nothing is an error, not a wish."""
    clean_environment.setenv("RLM_RUN__TURN", "3")

    with pytest.raises(SettingsError, match=r"RLM_RUN__TURN .* did you mean RLM_RUN__TURNS"):
        load()


def test_wrong_variable_is_named_as_it_was_written(clean_environment: pytest.MonkeyPatch) -> None:
    """The message names the variable, not a key of a file that does not exist."""
    clean_environment.setenv("RLM_RUN__TURNS", "many")

    with pytest.raises(SettingsError, match=r"RLM_RUN__TURNS \(from the environment\).*'many'"):
        load()


def test_empty_variable_is_no_value(clean_environment: pytest.MonkeyPatch) -> None:
    """`RLM_MODEL= rlm …` means that nothing was chosen."""
    clean_environment.setenv("RLM_MODEL", "")
    clean_environment.setenv("OPENAI_BASE_URL", "")

    assert (load().model, load().provider.base_url) == (Settings().model, None)


def test_missing_file_is_an_error_only_where_it_was_named(tmp_path: Path) -> None:
    """A default file may be absent; one that --config names may not."""
    assert load().model == Settings().model
    with pytest.raises(SettingsError, match="does not exist"):
        load(config_file=tmp_path / "absent.toml")


def test_wrong_key_never_appears_in_the_message(write: Callable[[str], Path]) -> None:
    """A provider's key is a secret even where it is of the wrong kind."""
    with pytest.raises(SettingsError, match=r"provider\.api_key") as caught:
        load(config_file=write("[provider]\napi_key = 12345"))

    assert "12345" not in str(caught.value)


def test_key_does_not_show(clean_environment: pytest.MonkeyPatch) -> None:
    """Settings can be printed and logged without giving the key away."""
    clean_environment.setenv("OPENAI_API_KEY", "sk-secret")

    assert "sk-secret" not in repr(load())


@pytest.mark.parametrize(
    ("given", "answering"),
    [
        (Settings(), "gpt-5-mini"),
        (Settings(model="local"), "local"),
        (Settings(model="local", sub_model="other"), "other"),
        (Settings(sub_model="other"), "other"),
    ],
)
def test_one_named_model_answers_queries_too(given: Settings, answering: str) -> None:
    """No paid model is asked beside the one model that a user named."""
    assert given.answering_model == answering


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("512m", 2**29), ("2g", 2**31), ("2GiB", 2**31), ("1.5 GB", 3 * 2**29), ("1048576", 2**20)],
)
def test_sizes_are_read_as_the_docker_command_line_reads_them(text: str, size_bytes: int) -> None:
    """Units are powers of 1024."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "g", "-1g", "2x", "1e9", "\uff12g", "1 000"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A size that could be read in two ways is not guessed at."""
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(text)


def test_limits_given_as_values_are_checked_too() -> None:
    """A limit that stops everything is refused from Python code as it is from a file."""
    with pytest.raises(ValueError, match="expected a number above zero"):
        Settings(run=RunLimits(turns=-1))
    assert asdict(Settings(run=RunLimits(turns=2)).run)["turns"] == 2


def test_every_limit_can_be_set_by_a_variable(clean_environment: pytest.MonkeyPatch) -> None:
    """Each field of each limit has its variable: a new one cannot be forgotten here."""
    sections = {
        "run": RunLimits,
        "query": QueryLimits,
        "cell": CellLimits,
        "sandbox": SandboxLimits,
    }
    for section, limits in sections.items():
        for field in fields(limits):
            is_table = field.name == "models"
            name = f"{section}__{field.name}" + ("__some_model__usd" if is_table else "")
            clean_environment.setenv(f"RLM_{name}".upper(), "7")

    found = load()

    for limits_found in (found.run, found.query, found.cell, found.sandbox):
        read = asdict(limits_found)
        assert read.pop("models", {"some_model": asdict(ModelCap(usd=7))}) == {
            "some_model": asdict(ModelCap(usd=7))
        }
        assert set(read.values()) == {7}


def test_socket_directory_is_short() -> None:
    """The path of a Unix socket holds 108 bytes; the default leaves most of them."""
    assert len(str(Settings().runtime_directory)) < 30
    assert settings.Settings().runtime_directory.is_absolute()


def test_pool_is_off_and_asks_nothing_until_it_has_a_size(write: Callable[[str], Path]) -> None:
    """A short lifetime alone is no reason to complain of how long a pool lets sandboxes wait."""
    found = load(config_file=write("[sandbox]\nlifetime_s = 60"))

    assert (found.pool.size, found.sandbox.lifetime_s) == (0, 60.0)
