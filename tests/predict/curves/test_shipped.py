"""The curve network that the zoo ships: found by name, whole, calibrated on its prior, and better than plain methods there."""

import re

import numpy as np
import pytest

from nasgraph.files import sha256_of
from nasgraph.modelzoo.builtin import BuiltinEntry, builtin_entries
from nasgraph.predict.curves import (
    WIDE_PRIOR,
    CurvePredictor,
    LastValue,
    LeastSquares,
    NetworkCurves,
    PartialCurve,
    load_curve_network,
    sample_curves,
)
from nasgraph.seeding import generator

EPOCHS = 40


@pytest.fixture(scope="module")
def entry() -> BuiltinEntry:
    return builtin_entries()["lc-pfn"]


@pytest.fixture(scope="module")
def model(entry: BuiltinEntry) -> NetworkCurves:
    return NetworkCurves(load_curve_network(entry.path))


@pytest.fixture(scope="module")
def curves() -> np.ndarray:
    """Curves of the prior that training never drew: another label of the generator."""
    return sample_curves(400, EPOCHS, WIDE_PRIOR, generator(0, "test of the shipped network"))


def prefixes(curves: np.ndarray, known: int) -> list[PartialCurve]:
    return [PartialCurve(tuple(curve[:known]), horizon=EPOCHS) for curve in curves]


def test_it_is_an_entry_of_its_own_kind_and_small(entry: BuiltinEntry) -> None:
    assert entry.kind == "curves"
    assert (entry.path / "weights.safetensors").stat().st_size < 10e6


def test_its_card_states_the_hash_and_size_of_its_weights(entry: BuiltinEntry) -> None:
    card = (entry.path / "README.md").read_text()
    assert sha256_of(entry.path / "weights.safetensors") in card
    found = re.search(r"\| parameters \| ([\d,]+)", card)
    assert found is not None
    network = load_curve_network(entry.path)
    assert int(found[1].replace(",", "")) == sum(tensor.numel() for tensor in network.parameters())


@pytest.mark.parametrize("known", [4, 16, 32])
def test_its_intervals_are_calibrated_on_its_prior(
    model: NetworkCurves, curves: np.ndarray, known: int
) -> None:
    """The truth's place in the distribution is uniform. Within a bar the place is drawn, for rounded and running-best curves
    repeat values exactly, always at a bar's border. Four standard errors, and 0.02 for what a short training leaves."""
    rng = generator(0, "places within bars")
    places = []
    for posterior, row in zip(model.predict(prefixes(curves, known)), curves, strict=True):
        bar = np.clip(
            np.searchsorted(posterior.borders, row[-1] + 1e-7, side="right") - 1,
            0,
            len(posterior.probabilities) - 1,
        )
        below = posterior.probabilities[:bar].sum()
        places.append(below + rng.random() * posterior.probabilities[bar])
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        tolerance = 4 * np.sqrt(share * (1 - share) / len(curves)) + 0.02
        assert (np.array(places) < share).mean() == pytest.approx(share, abs=tolerance)


@pytest.mark.parametrize("known", [4, 16, 32])
def test_it_is_closer_than_plain_methods_on_its_prior(
    model: NetworkCurves, curves: np.ndarray, known: int
) -> None:
    def error(predictor: CurvePredictor) -> float:
        said = predictor.predict(prefixes(curves, known))
        return float(np.mean([abs(one.median - row[-1]) for one, row in zip(said, curves, strict=True)]))

    assert error(model) < error(LastValue())
    assert error(model) < error(LeastSquares())


def test_more_of_a_curve_narrows_its_answer(model: NetworkCurves, curves: np.ndarray) -> None:
    widths = [
        np.mean([one.std for one in model.predict(prefixes(curves, known))]) for known in (2, 8, 24, 38)
    ]
    assert (np.diff(widths) < 0).all()
