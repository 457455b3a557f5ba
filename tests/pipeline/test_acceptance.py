from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.acceptance import (
    FEATURES,
    fit_acceptance,
    read_acceptance,
    write_acceptance,
)


def evidence(seed: int, clips: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Make log-probabilities that tell good from bad, and nothing else that does."""
    rng = np.random.default_rng(seed)
    kept = rng.random(clips) < 0.7
    values = rng.normal(size=(clips, len(FEATURES)))
    values[:, 0] = np.where(kept, -0.2, -0.6) + 0.15 * rng.normal(size=clips)
    values[:, 6] = 0.0  # no temperature was ever raised
    return values, kept


def test_evidence_that_tells_is_learnt_and_its_probabilities_are_honest():
    model = fit_acceptance(*evidence(0), max_wer=0.1)
    assert model is not None
    assert model.auc > 0.95
    assert max(abs(p.predicted - p.observed) for p in model.calibration) < 0.15
    assert sum(p.clips for p in model.calibration) == model.clips == 600


def test_a_chosen_precision_holds_on_other_clips():
    model = fit_acceptance(*evidence(0), max_wer=0.1)
    assert model is not None
    values, kept = evidence(1, 4000)
    accepted = model.probabilities(values) >= model.threshold(0.95)
    assert kept[accepted].mean() >= 0.93
    assert accepted.mean() > 0.5


def test_evidence_that_does_not_tell_gives_no_precision():
    rng = np.random.default_rng(7)
    values, _ = evidence(0)
    model = fit_acceptance(values, rng.random(600) < 0.5, max_wer=0.1)
    assert model is not None
    assert 0.4 < model.auc < 0.6
    with pytest.raises(ValueError, match="out of reach"):
        model.threshold(0.99)


def test_too_few_clips_teach_nothing():
    values, kept = evidence(0)
    kept[:] = True
    kept[:49] = False
    assert fit_acceptance(values, kept, max_wer=0.1) is None


def test_a_model_is_read_as_it_was_written(tmp_path: Path):
    model = fit_acceptance(*evidence(0), max_wer=0.1)
    assert model is not None
    path = tmp_path / "acceptance.json"
    write_acceptance(path, model)
    assert read_acceptance(path) == model
    write_acceptance(path, replace(model, features=("mood",)))
    with pytest.raises(ValueError, match="was fitted on mood; this release looks at"):
        read_acceptance(path)
    with pytest.raises(FileNotFoundError, match="whisper-pipeline report"):
        read_acceptance(tmp_path / "none.json")
