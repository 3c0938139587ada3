"""How far Lipschitz bounds are above what an attack attains, small networks.

    PYTHONPATH=. python benchmarks/lipschitz_bounds.py

The networks and the attack are those of `tests/measures/lipschitz_attacks.py`: random
weights, gradient ascent on both ends of pairs. A row each: the attack, then product,
merged and local bounds over it; the local ones over the largest norm of Jacobians in
their ball, of radius 0.01, 0.1 and 1 around one Gaussian image.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_spectral as ks
from tests.measures.lipschitz_attacks import (
    IMAGE,
    NETWORKS,
    largest_by_ascent,
    network,
)

RADII = (0.01, 0.1, 1.0)


def steepest(model, center, radius, count=1000):
    """The largest norm of Jacobians at points of a ball."""
    moves = np.random.default_rng(0).standard_normal((count, *IMAGE))
    sizes = np.linalg.norm(moves.reshape(count, -1), axis=1)
    points = center + radius * moves / sizes[:, None, None, None]
    return ks.measures.jacobian_norms(model, points, progress=False)[0].maximum


def main():
    center = np.random.default_rng(1).standard_normal((1, *IMAGE))
    print("| network | attack | product | merged |", end="")
    print("".join(f" r = {radius:g} |" for radius in RADII))
    for name in NETWORKS:
        model = network(name)
        attack = largest_by_ascent(model)
        row = [ks.measures.lipschitz_bound(model).bound / attack]
        row.append(ks.measures.lipschitz_bound(model, method="merged").bound / attack)
        for radius in RADII:
            found = ks.measures.lipschitz_bound(
                model, center, method="local", input_radius=radius
            ).bound
            row.append(found / steepest(model, center, radius))
        ratios = " | ".join(f"{ratio:.2f}" for ratio in row)
        print(f"| {name} | {attack:.3f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
