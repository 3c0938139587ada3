"""The papers' printed numbers, as their pages have them, against the recipes'."""

import re
from pathlib import Path

import msgspec
import pytest

from keras_spectral.experiments import list_recipes, load_recipe
from keras_spectral.experiments.cells import Cell
from keras_spectral.experiments.recipe_settings import (
    GanRecipe,
    MeasureRecipe,
    Recipe,
)
from keras_spectral.experiments.recipes import SIZES, recipe_path

ROOT = Path(__file__).parents[2]

# Columns are separated by two spaces or more.
TABLE_1 = """
         SRN-50         SRN-30         Spectral (SN)  Vanilla
WD       12.02 ± 1.77   11.87 ± 0.57   11.13 ± 2.56   10.56 ± 2.32
w/o WD   17.71 ± 2.30   19.04 ± 4.53   17.22 ± 1.94   13.49 ± 1.93
"""
TABLE_5 = """
Model             Algorithm      Jac-Norm  Spec-L1  Spec-Fro
ResNet-110        Vanilla        17.7      inf      inf
-                 Spectral (SN)  17.8      10.8     7.4
-                 SRN-30         17.2      10.7     7.2
WideResNet-28-10  Vanilla        16.2      14.60    11.18
-                 Spectral (SN)  16.13     7.23     4.5
-                 SRN-50         15.8      7.3      4.5
-                 SRN-30         15.7      7.20     4.4
Densenet-100      Vanilla        19.2      inf      inf
-                 Spectral (SN)  17.8      12.2     9.4
-                 SRN-50         17.6      12       9.2
-                 SRN-30         17.7      11.8     9.0
"""
TABLE_6 = """
           Stable-30  Spectral  Vanilla
-          29.04      17.24     1.22
"""
TABLE_7 = """
         Vanilla       Spectral       Stable-50      Stable-30
W/o WD   69.2 ± 0.5    69 ± 0.1       69.1 ± 0.85    69.3 ± 0.4
With WD  70.4 ± 0.3    71.35 ± 0.25   70.6 ± 0.1     70.6 ± 0.1
"""
TABLE_2 = """
          Algorithm    Inception Score  FID    Intra-FID
Uncond.   Orthonormal  7.92 ± .04       23.8   -
-         WGAN-GP      7.86 ± .07       21.7   -
-         SN-GAN       8.22 ± .04       20.67  -
-         SRN-70-GAN   8.53 ± 0.04      19.83  -
-         SRN-50-GAN   8.33 ± 0.06      19.57  -
Cond.     SN-GAN       8.71 ± .04       16.04  26.24
-         SRN-70-GAN   8.93 ± 0.12      15.92  24.01
-         SRN-50-GAN   8.76 ± 0.09      16.89  27.3
"""
TABLE_3 = """
Model          IS    FID
SN-GAN         9.04  23.2
SRN-GAN (Our)  8.85  19.55
"""
TABLE_4 = """
Model          CIFAR10  CelebA
SN-GAN         10.69    0.36
SRN-GAN (Our)  11.97    0.64
"""
LOW_RANK = """
Scale  Parameters
1.0    36663
0.75   26837
0.5    18373
0.25   8547
"""
HEAVY_TAIL = """
Architecture               Dataset   alpha  Original  Compressed
densenet40_k12_cifar10     CIFAR10   2.84   94.46     94.26 ± 0.09
resnet20_cifar10           CIFAR10   3.22   93.90     89.19 ± 3.03
resnet56_cifar10           CIFAR10   3.02   95.32     94.74 ± 0.30
resnet110_cifar10          CIFAR10   2.98   96.26     95.63 ± 0.63
resnet164bn_cifar10        CIFAR10   4.65   96.24     95.78 ± 0.15
resnet272bn_cifar10        CIFAR10   2.89   96.63     96.51 ± 0.06
densenet40_k12_svhn        SVHN      1.39   96.99     96.99 ± 0.02
xdensenet40_2_k24_bc_svhn  SVHN      2.99   97.08     96.97 ± 0.05
resnet20_svhn              SVHN      3.34   96.60     94.60 ± 0.71
resnet56_svhn              SVHN      2.63   97.19     96.58 ± 0.39
resnet110_svhn             SVHN      2.33   97.48     97.16 ± 0.14
pyramidnet110_a48_svhn     SVHN      3.64   97.56     97.28 ± 0.11
"""
VARIANTS = {
    "Vanilla": "vanilla", "Spectral (SN)": "SN", "Spectral": "SN", "SRN-50": "SRN-50",
    "SRN-30": "SRN-30", "Stable-50": "SRN-50", "Stable-30": "SRN-30",
}  # fmt: skip
NETWORKS = {"WideResNet-28-10": "WRN-28-10", "Densenet-100": "DenseNet-100"}


def cells(text):
    return [re.split(r" {2,}", line) for line in text.strip("\n").splitlines()]


def by_decay(text, network, measure):
    """A line a weight decay, a column a variant, in percent."""
    (_, *heads), *lines = cells(text)
    found = {}
    for decay, *numbers in lines:
        more = ", no decay" if "w/o" in decay.lower() else ""
        for head, number in zip(heads, numbers, strict=True):
            value, *around = (float(x) / 100 for x in number.split(" ± "))
            key = network, VARIANTS[head] + more, measure
            found[key] = (value, *around) if around else (value, None)
    return found


def of_table_5():
    names = (
        "log_jacobian_norm_90 log_bare_spectral_l1_90 log_bare_spectral_frobenius_90"
    )
    found, network = {}, None
    for model, algorithm, *numbers in cells(TABLE_5)[1:]:
        network = network if model == "-" else NETWORKS.get(model, model)
        for name, number in zip(names.split(), numbers, strict=True):
            if number != "inf":  # An overflow, which logarithms have not.
                found[network, VARIANTS[algorithm], name] = float(number), None
    return found


def of_low_rank():
    scales = {f"S = {scale}": count for scale, count in cells(LOW_RANK)[1:]}
    return {
        ("three convolutions", name, "parameters"): (float(count), None)
        for name, count in {"plain": "33580", **scales}.items()
    }


# Of the SRN without a c it is taken for 0.7.
GANS = {
    "Orthonormal": "Ortho", "WGAN-GP": "WGAN-GP", "SN-GAN": "SN",
    "SRN-70-GAN": "SRN-70", "SRN-50-GAN": "SRN-50", "SRN-GAN (Our)": "SRN-70",
}  # fmt: skip


def of_table_2():
    found, network = {}, None
    for block, name, score, *distances in cells(TABLE_2)[1:]:
        network = {"Uncond.": "unconditional", "Cond.": "conditional"}.get(
            block, network
        )
        value, half_width = map(float, score.split(" ± "))
        found[network, GANS[name], "inception_score"] = value, half_width
        for measure, number in zip(("fid", "intra_fid"), distances, strict=True):
            if number != "-":
                found[network, GANS[name], measure] = float(number), None
    return found


def of_gans(text, columns):
    """A line a GAN; columns are measures, those without one are left out."""
    return {
        ("unconditional", GANS[name], measure): (float(number), None)
        for name, *numbers in cells(text)[1:]
        for measure, number in zip(columns, numbers, strict=True)
        if measure
    }


LOGISTIC = "neural_divergence_logistic"
PUBLISHED = {
    "stable_rank/table_2": of_table_2(),
    "stable_rank/table_3": of_gans(TABLE_3, ("inception_score", "fid")),
    "stable_rank/table_4": of_gans(TABLE_4, (LOGISTIC, None)),
    "stable_rank/table_4_celeba": of_gans(TABLE_4, (None, LOGISTIC)),
    # "Figure 4: Scale = 1.0 (11MB)", "Figure 5: Scale = 0.5 (6MB)"
    "low_rank/figure_4": {("DCGAN", "S = 1.0", "discriminator_mebibytes"): (11, None)},
    "low_rank/figure_5": {("DCGAN", "S = 0.5", "discriminator_mebibytes"): (6, None)},
    "low_rank/table_1": of_low_rank(),
    "stable_rank/table_1": by_decay(TABLE_1, "ResNet-110", "train_error"),
    "stable_rank/table_5": of_table_5(),
    "stable_rank/table_6": by_decay(TABLE_6, "WRN-28-10", "train_error"),
    "stable_rank/table_7": by_decay(TABLE_7, "ResNet-110", "test_accuracy"),
    # "Test accuracy: SRN (73.1%), SN (71.5%), and Vanilla (72.4%)."
    "stable_rank/figure_1": {
        ("ResNet-110", name, "test_accuracy"): (value, None)
        for name, value in {"SRN-30": 0.731, "SN": 0.715, "vanilla": 0.724}.items()
    },
    # The text has ResNet-110: SN 71.5 and SRN 73.2, without c.
    "stable_rank/figure_2": {("ResNet-110", "SN", "test_accuracy"): (0.715, None)},
}
# Figures and tables of the papers.
ITEMS = {
    "low_rank": [
        *(f"figure_{number}" for number in range(2, 6)),
        *("table_1", "theorem_1"),
    ],
    "heavy_tail": ["figure_1", "figure_2", "figure_3", "table_1"],
    "stable_rank": [
        *(f"figure_{number}" for number in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11)),
        *(f"table_{number}" for number in range(1, 8)),
        *("figure_5a", "figure_5b", "table_4_celeba"),
        *(f"figure_{number}" for number in range(12, 22)),
    ],
}
NAMES = sorted(f"{paper}/{item}" for paper, items in ITEMS.items() for item in items)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_have_the_papers_numbers(name):
    recipe = load_recipe(recipe_path(name))
    paper, item = name.split("/")
    # Table 4 has two data sets.
    item = item.removesuffix("_celeba")
    assert recipe.item.lower() == item.replace("_", " ")
    sources = {"low_rank": "garg2019", "heavy_tail": "shin2021"}
    assert recipe.source == sources.get(paper, "sanyal2020")
    if isinstance(recipe, MeasureRecipe):
        return
    found = {
        (row.network, row.variant, row.measure): (row.value, row.half_width)
        for row in recipe.published
    }
    expected = PUBLISHED.get(name, {})
    assert found.keys() == expected.keys() and len(found) == len(recipe.published)
    for key, (value, around) in expected.items():
        assert found[key][0] == pytest.approx(value, abs=1e-12)
        assert (around is None) == (found[key][1] is None)
        assert around is None or found[key][1] == pytest.approx(around, abs=1e-12)


def test_figure_5b_has_the_papers_methods():
    """Random-GAN represents random initialization, without training."""
    for size in (None, *SIZES):
        recipe = load_recipe(recipe_path("stable_rank/figure_5b"), size)
        steps = {variant.name: variant.steps for variant in recipe.variants}
        methods = {"SRN-70", "SN", "Random"}
        assert set(steps) >= methods | (
            {"WGAN-GP", "Ortho"} if size != "small" else set()
        )
        assert steps.pop("Random") == 0 and set(steps.values()) == {None}


def test_the_heavy_tail_papers_table():
    rows = load_recipe(recipe_path("heavy_tail/table_1")).published
    for row, line in zip(rows, cells(HEAVY_TAIL)[1:], strict=True):
        after, deviation = line[4].split(" ± ")
        assert row.model == line[0]
        assert (row.alpha, row.original_accuracy) == (float(line[2]), float(line[3]))
        assert row.compressed_accuracy == float(after)
        assert row.standard_deviation == float(deviation)


def test_every_figure_and_table_has_a_recipe():
    """And a place on the page, whatever else there is."""
    known = set(list_recipes())
    assert set(NAMES) <= known
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`((?:low_rank|heavy_tail|stable_rank)/\w+)`", page))
    assert set(NAMES) <= listed <= known


def trained(recipe):
    """What each cell of a recipe is trained on and how, by its network and variant."""
    plain = msgspec.to_builtins(recipe)
    return {
        (network.name, variant.name): Cell(
            plain, network.name, variant.name, 0, ""
        ).settings()
        for network in recipe.networks
        for variant in recipe.variants
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("paper", ["low_rank", "stable_rank"])
def test_recipes_of_one_size_share_their_cells(paper, size):
    """What two of them call alike, with the same labels, is alike."""
    found: dict = {}
    for name in (name for name in NAMES if name.startswith(paper)):
        recipe = load_recipe(recipe_path(name), size)
        assert isinstance(recipe, (Recipe, GanRecipe))
        for key, settings in trained(recipe).items():
            key = *key, recipe.data.labels
            assert found.setdefault(key, settings) == settings, (name, key)
    if (paper, size) == ("stable_rank", "evidence"):
        nets = {network for network, _, _ in found}
        gans = {"width 16", "width 16, conditional"}
        assert nets == {"ResNet-20, width 8", "conv net", *gans}
