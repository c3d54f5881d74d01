"""Settings: what is given is checked, what is wrong is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.errors import ConfigError
from nasgraph.pipeline import SearchSettings, read_settings, settings_from_json
from nasgraph.pipeline.settings import TrainingSettings


def test_a_file_sets_some_fields_and_flags_override_it(tmp_path: Path) -> None:
    file = tmp_path / "search.toml"
    file.write_text('space = "mlp"\ntrials = 5\n[train]\nepochs = 3\n')
    settings = read_settings(file, {"trials": 7, "train.epochs": None, "final.epochs": 9})
    assert (settings.space, settings.trials, settings.train.epochs, settings.final.epochs) == ("mlp", 7, 3, 9)
    assert settings.final.shift_pixels == SearchSettings().final.shift_pixels


def test_fewer_trials_keep_fewer_candidates() -> None:
    assert read_settings(None, {"trials": 3}).kept == 3
    assert read_settings(None, {"screened": 0}).kept == 0
    assert read_settings(None, {}).kept == SearchSettings().kept


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "search.toml"
    file.write_text('spaec = "mlp"\ntrials = 0\n[train]\nlearning_rate = -1.0\n')
    with pytest.raises(ConfigError, match=r"spaec.*") as caught:
        read_settings(file, {})
    assert all(
        word in str(caught.value) for word in ("spaec", "trials", "train.learning_rate", "search.toml")
    )


def test_contradicting_counts_are_refused() -> None:
    with pytest.raises(ConfigError, match="'kept' can be at most"):
        read_settings(None, {"kept": 9, "trials": 4})


@pytest.mark.parametrize("content", [b"\xff\xfe", b"trials = ", b"trials = 3\ntrials = 4\n"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "search.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="Not valid TOML"):
        read_settings(file, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read .*nothing\.toml"):
        read_settings(tmp_path / "nothing.toml", {})


def test_settings_survive_json() -> None:
    settings = SearchSettings(space="vit", trials=4, kept=2, train=TrainingSettings(epochs=2))
    assert settings_from_json(settings.model_dump(mode="json"), source="a test") == settings


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SearchSettings.model_fields, "nonsense"]), _values))
def test_any_document_gives_settings_or_a_clear_error(document: dict[str, object]) -> None:
    try:
        settings = settings_from_json(document, source="a test")
    except ConfigError:
        return
    assert settings.kept <= min(settings.screened, settings.trials)
