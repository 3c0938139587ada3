"""What a recipe's file holds: its tables and their keys."""

from typing import Any, Literal

import msgspec

Measure = Literal[
    "train_accuracy",
    "train_error",
    "test_accuracy",
    "test_error",
    "test_correct",
    "gap",
    "parameters",
    # Of the history: how fast it learned, and the first epoch whose train accuracy
    # reaches so many percent.
    "mean_train_error",
    "epochs_to_50",
    "epochs_to_90",
    "epochs_to_99",
    "test_accuracy_at_99",
    # Of a trained network; see `cell_results`. 10, 50, 90 and 95 are percentiles.
    "noise_sensitivity_50",
    "noise_sensitivity_95",
    "noise_sensitivity_maximum",
    "log_spectral_frobenius_50",
    "log_spectral_frobenius_90",
    "log_spectral_l1_50",
    "log_spectral_l1_90",
    "log_bare_spectral_frobenius_90",
    "log_bare_spectral_l1_90",
    "log_jacobian_norm_50",
    "log_jacobian_norm_90",
    "margin_10",
    "margin_50",
    "misclassified",
    "log_lipschitz_bound",
    "stable_rank_ratio",
    # Of kernels cut to so many percent of their ranks: Theorem 1 of the low-rank paper,
    # and the most that an output moves.
    "log_low_rank_bound_75",
    "log_low_rank_bound_50",
    "log_low_rank_bound_25",
    "log_low_rank_error_75",
    "log_low_rank_error_50",
    "log_low_rank_error_25",
]


GanMeasure = Literal[
    # Of generated images, on features of a classifier that the run trains on the true
    # labels, the same for all cells; see `gan_results`.
    "frechet_distance",
    "intra_frechet_distance",
    # On the Inception network, whose weights `probes.inception` names.
    "fid",
    "intra_fid",
    "inception_score",
    "neural_divergence_logistic",
    "neural_divergence_cnn",
    # Of the discriminator: 95th percentiles of slopes between pairs, medians of norms
    # of gradients at images, and the distance of their two laws.
    "slope_real_fake_95",
    "slope_fake_95",
    "slope_real_95",
    "slope_same_class_95",
    "slope_real_fake_of_a_class_95",
    "gradient_real_50",
    "gradient_fake_50",
    "gradient_distance",
    "stable_rank_ratio",
    "discriminator_parameters",
    "discriminator_mebibytes",
    # Of the history.
    "loss_instability",
]
# Those that do not depend on what `GanProbes` says.
GAN_MEASURES_OF_TRAINING = (
    "stable_rank_ratio",
    "discriminator_parameters",
    "discriminator_mebibytes",
    "loss_instability",
)


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of a recipe's file."""


class DataSettings(_Table):
    """What is learned: a name of `data.load`, its labels, how many images."""

    name: str
    labels: Literal["true", "random"] = "true"
    count: int | None = None
    test_count: int | None = None
    image_size: int | None = None
    channels: int | None = None
    augment: bool = False


class OptimizerSettings(_Table):
    """Stochastic gradient descent as PyTorch has it: weight decay in the gradient."""

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0


class Schedule(_Table):
    """How long, and when the learning rate falls."""

    epochs: int
    batch_size: int
    decay: float = 1.0
    decay_epochs: list[int] = []
    stop_at_train_accuracy: float | None = None


class GanOptimizerSettings(_Table):
    """Adam, for the generator and for the discriminator."""

    learning_rate: float
    beta_1: float = 0.0
    beta_2: float = 0.999


class GanSchedule(_Table):
    """How many updates of the generator, and of how many images.

    Each is of `discriminator_steps` of the builder times `batch_size` real images. The
    history has the mean losses of each `record_every` of them, after which the state is
    saved. With `linear_decay` both learning rates fall to 0 in a line.
    """

    steps: int
    batch_size: int = 64
    linear_decay: bool = False
    record_every: int = 100


class NetworkSettings(_Table):
    """A builder of `keras_spectral.zoo`, its arguments, and how it is trained.

    Keys of `optimizer` and `schedule` replace the recipe's.
    """

    builder: str
    name: str
    arguments: dict[str, Any] = {}
    optimizer: dict[str, Any] = {}
    schedule: dict[str, Any] = {}


class Variant(_Table):
    """What is compared: normalizations, or other arguments, or weight decay.

    `seeds` are those of the recipe's that it is run with, where not all. Of a GAN,
    `steps` are its own in place of the schedule's; with 0 it stays as it begins.
    """

    name: str
    normalize: Literal["none", "spectral", "stable_rank"] = "none"
    stable_rank_ratio: float | None = None
    weight_decay: float | None = None
    arguments: dict[str, Any] = {}
    seeds: list[int] | None = None
    steps: int | None = None


class Published(_Table):
    """A number that the paper prints."""

    network: str
    variant: str
    measure: Measure | GanMeasure
    value: float
    half_width: float | None = None


class Claim(_Table):
    """What the paper says of the numbers: the first variant has the largest."""

    name: str
    says: str
    measure: Measure | GanMeasure
    order: list[str]


class Probes(_Table):
    """What measures of a trained network look at.

    `images` from the beginning of a split, or all where it has fewer, and `draws` of
    noise for each.
    """

    images: int = 2000
    draws: int = 10
    split: Literal["test", "train"] = "test"


class GanProbes(_Table):
    """What measures of a trained GAN look at.

    `images` pairs, and images for gradients, of the test split. Fréchet distances are
    of the first `reference` images of the training split, or of all where it has fewer,
    and of `generated`. Critics of neural divergences make so many steps on batches of
    so many images of the test split, and are tried on `divergence_batches` more. The
    classifier whose features count is trained for `classifier_epochs`. `inception` is
    the path of the weights of the Inception network.
    """

    images: int = 2000
    reference: int = 10000
    generated: int = 5000
    logistic_steps: int = 100000
    logistic_batch_size: int = 128
    cnn_steps: int = 100000
    cnn_batch_size: int = 256
    divergence_batches: int = 7813
    classifier_epochs: int = 5
    inception: str | None = None


class _Paper(_Table, kw_only=True):
    """What every recipe says of its paper."""

    title: str
    source: str
    item: str
    shows: str
    assumed: list[str]
    notes: str = ""


class _Training(_Paper, kw_only=True):
    """What a recipe has that trains, whatever it trains."""

    data: DataSettings
    networks: list[NetworkSettings]
    variants: list[Variant]
    seeds: list[int]
    published: list[Published] = []
    claims: list[Claim] = []


class Recipe(_Training, kw_only=True):
    """One figure or table of a paper, as its file has it; see `load_recipe`.

    Args:
        title: String.
        source: String, the key of the paper.
        item: String, such as "Table 6".
        shows: String, what it is about.
        data: Which data, and how many images of it.
        networks: List of networks, by builder and arguments.
        variants: List of variants: the normalization of each.
        optimizer: Its name and numbers.
        schedule: Epochs, batch size, how the rate falls.
        measures: List of names of measures.
        seeds: List of integers, a run each.
        assumed: List of strings, what the paper does not say.
        probes: What measures of trained networks look at.
        published: List of the numbers that the paper prints.
        claims: List of what it says of them.
        notes: String.
    """

    optimizer: OptimizerSettings
    schedule: Schedule
    measures: list[Measure]
    probes: Probes = Probes()


class GanRecipe(_Training, kw_only=True):
    """A figure or table of GANs: its `schedule` has `steps` instead of epochs."""

    optimizer: GanOptimizerSettings
    schedule: GanSchedule
    measures: list[GanMeasure]
    probes: GanProbes = GanProbes()


class SweepSettings(_Table):
    """What `run_sweep` is given.

    Without `checkpoints` it is the networks that recipes left in the output's folder,
    or else those that the package brings.
    """

    models: list[str]
    checkpoints: str | None = None
    data: str | None = None
    trials: int = 10
    seed: int = 0


class FigureSettings(_Table):
    """A figure of formulas alone: a function of `report`, and its arguments."""

    function: Literal["figure_1", "figure_2"]
    arguments: dict[str, Any] = {}


class PublishedCheckpoint(_Table):
    """A row of the heavy-tail paper's Table 1; accuracies and their deviation in %."""

    model: str
    alpha: float
    original_accuracy: float
    compressed_accuracy: float
    standard_deviation: float


class MeasureRecipe(_Paper, kw_only=True):
    """A figure or table for which nothing is trained: it has `sweep` or `figure`."""

    sweep: SweepSettings | None = None
    figure: FigureSettings | None = None
    published: list[PublishedCheckpoint] = []


def kind_of(content):
    """Return the class of a recipe's content, a dict: what it has decides."""
    if {"sweep", "figure"} & content.keys():
        return MeasureRecipe
    schedule = content.get("schedule")
    gans = isinstance(schedule, dict) and "steps" in schedule
    return GanRecipe if gans else Recipe


def settings_of(recipe, network, variant) -> tuple:
    """Return the settings of the optimizer and the schedule of a network's variant.

    They are `OptimizerSettings` and `Schedule`, or `GanOptimizerSettings` and
    `GanSchedule`.
    """
    optimizer, schedule = (
        msgspec.convert(
            {**msgspec.to_builtins(ours), **getattr(network, name)}, type(ours)
        )
        for name, ours in (
            ("optimizer", recipe.optimizer),
            ("schedule", recipe.schedule),
        )
    )
    if variant.weight_decay is not None:
        optimizer = msgspec.structs.replace(
            optimizer, weight_decay=variant.weight_decay
        )
    if variant.steps is not None:
        schedule = msgspec.structs.replace(schedule, steps=variant.steps)
    return optimizer, schedule
