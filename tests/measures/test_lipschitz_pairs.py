"""No pair and no attack on pairs exceeds a bound; on linear networks they attain it."""

import pytest

from keras_spectral.measures import lipschitz_bound
from tests.measures.lipschitz_attacks import (
    NETWORKS,
    largest_by_ascent,
    largest_of_pairs,
    network,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_neither_a_hundred_thousand_pairs_nor_ascent_exceed_it(name):
    model = network(name)
    attacked = largest_by_ascent(model)
    attained, pairs = largest_of_pairs(model)
    assert pairs > 100_000
    attained = max(attacked, attained)
    merged = lipschitz_bound(model, method="merged").bound
    product = lipschitz_bound(model).bound
    print(f"{name}: bound / attack {product / attacked:.3f}, {merged / attacked:.3f}")
    # Quotients of near pairs are right to some 1e-12.
    assert attained <= merged * (1 + 1e-9) and merged <= product * 1.01
    if name.startswith("linear"):
        assert merged == pytest.approx(attacked, rel=1e-9)
