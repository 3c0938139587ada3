"""Every public layer in Keras' own layer test, and in checks beyond it."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras.src.testing import TestCase

from keras_spectral.layers import (
    AlmostOrthogonal,
    ConditionalBatchNormalization,
    GroupSort,
    InvertibleResidual,
    LipschitzBatchNormalization,
    MaskedConv2D,
    OptimalSpectralNormalization,
    SpectralNormalization,
    StableRankNormalization,
    SVDConv2D,
    SVDConv2DTranspose,
    SVDDense,
)
from tests.layers.kinds import KINDS, images
from tests.layers.layer_checks import (
    check_build_config,
    check_config,
    check_layer,
    check_saved,
    check_serialization,
    functional,
)


class Case(NamedTuple):
    """A layer, its inputs, and its numbers of weights, seed generators and losses."""

    layer: type
    arguments: dict
    inputs: object
    counts: tuple
    # Makes the layer that is wrapped, for the argument of this name.
    wrapped: object = None
    name: str = "layer"

    def make(self, **arguments):
        """Return a new layer; the wrapped one is told the precision."""
        if self.wrapped is None:
            return self.layer(**self.arguments, **arguments)
        return self.layer(self.wrapped(**arguments), **self.arguments)

    def keras_arguments(self):
        if self.wrapped is None:
            return self.arguments
        return {self.name: self.wrapped(), **self.arguments}


def around(kind, wrapper, counts, **arguments):
    wrapped, inputs = KINDS[kind]
    return Case(wrapper, arguments, inputs, counts, wrapped)


def branch(**arguments):
    return [kl.Dense(6, "elu", **arguments), kl.Dense(4, **arguments)]


SN, SRN = SpectralNormalization, StableRankNormalization
OSN = OptimalSpectralNormalization
IMAGES = images(5, 6, 4)

# u, v and the count of updates; a block has left and right vectors besides.
CASES = {
    "sn dense": around("dense", SN, (2, 3, 0, 0)),
    "sn conv2d": around("conv2d", SN, (2, 3, 0, 0)),
    "sn lstm": around("lstm", SN, (3, 6, 1, 0)),
    "sn embedding": around("embedding", SN, (1, 3, 0, 0)),
    "sn time distributed": around("time distributed", SN, (2, 3, 0, 0)),
    "sn block": Case(SN, {}, images(40), (2, 5, 0, 0), lambda **k: kl.Dense(36, **k)),
    "srn block": Case(
        SRN,
        dict(stable_rank_ratio=0.3, block_size=2),
        IMAGES,
        (2, 5, 0, 0),
        lambda **k: kl.Conv2D(10, 3, **k),
    ),
    "exact dense": around("dense", SN, (2, 0, 0, 0), method="exact"),
    "exact gru": around("gru", SN, (3, 0, 1, 0), method="exact"),
    "srn dense": around("dense", SRN, (2, 3, 0, 0), stable_rank_ratio=0.7),
    "srn conv2d transpose": around(
        "conv2d transpose", SRN, (2, 3, 0, 0), stable_rank_ratio=0.7
    ),
    "srn of the operator": around(
        "conv2d",
        SRN,
        (2, 8, 0, 0),
        stable_rank_ratio=0.7,
        norm="operator",
        input_size=(8, 7),
    ),
    "srn of algorithm 1": around(
        "dense", SRN, (2, 0, 0, 0), stable_rank_ratio=0.7, preserved=2
    ),
    "optimal dense": around("dense", OSN, (2, 0, 0, 0)),
    "optimal conv2d": around("conv2d", OSN, (2, 0, 0, 0)),
    "optimal simple rnn": around("simple rnn", OSN, (3, 0, 1, 0)),
    "almost orthogonal dense": around("dense", AlmostOrthogonal, (2, 0, 0, 0)),
    "almost orthogonal conv2d": around(
        "conv2d in groups", AlmostOrthogonal, (2, 0, 0, 0), bound=2.0
    ),
    "group sort": Case(GroupSort, {}, IMAGES, (0, 0, 0, 0)),
    "group sort of rows": Case(
        GroupSort, dict(group_size=3, axis=2), IMAGES, (0, 0, 0, 0)
    ),
    "svd dense": Case(
        SVDDense,
        dict(
            units=5,
            rank_ratio=0.6,
            orthogonal_factor=0.1,
            spectrum_regularizer="l2",
            activation="tanh",
        ),
        images(7),
        (5, 0, 0, 3),
    ),
    "svd conv2d": Case(
        SVDConv2D,
        dict(filters=3, kernel_size=(3, 2), strides=(2, 1), padding="same"),
        IMAGES,
        (5, 0, 0, 0),
    ),
    "svd conv2d transpose": Case(
        SVDConv2DTranspose,
        dict(filters=3, kernel_size=[3, 2], strides=2, output_padding=(1, 0)),
        IMAGES,
        (5, 0, 0, 0),
    ),
    "masked conv2d": Case(
        MaskedConv2D, dict(filters=3, kernel_size=3, seed=3), IMAGES, (2, 1, 0, 0)
    ),
    "sn masked conv2d": Case(
        SN, {}, IMAGES, (2, 4, 0, 0), lambda **k: MaskedConv2D(3, 3, **k)
    ),
    "conditional batch normalization": Case(
        ConditionalBatchNormalization,
        dict(classes=3),
        (IMAGES, np.array([0, 2, 1, 1], "int32")),
        (1, 2, 0, 0),
    ),
    "lipschitz batch normalization": Case(
        LipschitzBatchNormalization,
        dict(bound=0.5),
        IMAGES,
        (2, 2, 0, 0),
        kl.BatchNormalization,
    ),
    "invertible residual": Case(
        InvertibleResidual, {}, images(4), (4, 0, 1, 0), branch, "function"
    ),
}

# JAX compiles what runs eagerly in each call anew, so there one of each class.
FEW = [
    "sn dense",
    "exact dense",
    "srn dense",
    "optimal dense",
    "almost orthogonal dense",
    "group sort",
    "svd dense",
    "svd conv2d transpose",
    "masked conv2d",
    "conditional batch normalization",
    "lipschitz batch normalization",
    "invertible residual",
]
JAX = keras.backend.backend() == "jax"
parametrized = pytest.mark.parametrize("case", FEW if JAX else CASES)

# It adds in the precision of its input, whatever that of its branch.
FULL = {"invertible residual": "float32"}


@parametrized
def test_as_a_keras_layer(case):
    make, inputs = CASES[case].make, CASES[case].inputs
    check_layer(make, inputs, CASES[case].counts, FULL.get(case))


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been")
@parametrized
def test_saved_built_and_unbuilt(case, tmp_path):
    check_saved(CASES[case].make, CASES[case].inputs, tmp_path)


@parametrized
def test_frozen_in_the_constructor(case):
    layer = CASES[case].layer(**CASES[case].keras_arguments(), trainable=False)
    assert functional(layer, CASES[case].inputs).trainable_variables == []


@pytest.mark.parametrize("kind", ["einsum", "depthwise conv2d"] if JAX else KINDS)
def test_serialization_of_every_kind(kind):
    case = around(kind, SN, None)
    check_config(case.make)
    check_serialization(case.make, case.inputs)
    check_build_config(case.make, case.inputs)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
@parametrized
def test_in_the_layer_test_of_keras(case):
    """It makes the layer many times, each around one inner layer."""
    layer, _, inputs, (trainable, others, generators, losses), *_ = CASES[case]
    TestCase().run_layer_test(
        layer,
        CASES[case].keras_arguments(),
        input_data=inputs,
        expected_output_shape=CASES[case].make()(inputs).shape,
        expected_num_trainable_weights=trainable,
        expected_num_non_trainable_weights=others,
        expected_num_seed_generators=generators,
        expected_num_losses=losses,
    )
