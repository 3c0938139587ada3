"""Weights of the Inception network that anyone can draw, and two images."""

import numpy as np

# (out, in, height, width) of the convolutions, in the order of PyTorch's state dict.
STEM = {
    "Conv2d_1a_3x3": (32, 3, 3, 3),
    "Conv2d_2a_3x3": (32, 32, 3, 3),
    "Conv2d_2b_3x3": (64, 32, 3, 3),
    "Conv2d_3b_1x1": (80, 64, 1, 1),
    "Conv2d_4a_3x3": (192, 80, 3, 3),
}


def block(name, inputs, *convolutions):
    """Of a block: (branch, outputs, size, where it reads; default: the block)."""
    found = {}
    for branch, outputs, size, *source in convolutions:
        source = found[f"{name}.{source[0]}"][0] if source else inputs
        found[f"{name}.{branch}"] = (outputs, source, *size)
    return found


def a(name, inputs, pool):
    return block(
        name, inputs, ("branch1x1", 64, (1, 1)), ("branch5x5_1", 48, (1, 1)),
        ("branch5x5_2", 64, (5, 5), "branch5x5_1"), ("branch3x3dbl_1", 64, (1, 1)),
        ("branch3x3dbl_2", 96, (3, 3), "branch3x3dbl_1"),
        ("branch3x3dbl_3", 96, (3, 3), "branch3x3dbl_2"),
        ("branch_pool", pool, (1, 1)),
    )  # fmt: skip


def c(name, c7):
    return block(
        name, 768, ("branch1x1", 192, (1, 1)), ("branch7x7_1", c7, (1, 1)),
        ("branch7x7_2", c7, (1, 7), "branch7x7_1"),
        ("branch7x7_3", 192, (7, 1), "branch7x7_2"), ("branch7x7dbl_1", c7, (1, 1)),
        ("branch7x7dbl_2", c7, (7, 1), "branch7x7dbl_1"),
        ("branch7x7dbl_3", c7, (1, 7), "branch7x7dbl_2"),
        ("branch7x7dbl_4", c7, (7, 1), "branch7x7dbl_3"),
        ("branch7x7dbl_5", 192, (1, 7), "branch7x7dbl_4"),
        ("branch_pool", 192, (1, 1)),
    )  # fmt: skip


def e(name, inputs):
    return block(
        name, inputs, ("branch1x1", 320, (1, 1)), ("branch3x3_1", 384, (1, 1)),
        ("branch3x3_2a", 384, (1, 3), "branch3x3_1"),
        ("branch3x3_2b", 384, (3, 1), "branch3x3_1"),
        ("branch3x3dbl_1", 448, (1, 1)),
        ("branch3x3dbl_2", 384, (3, 3), "branch3x3dbl_1"),
        ("branch3x3dbl_3a", 384, (1, 3), "branch3x3dbl_2"),
        ("branch3x3dbl_3b", 384, (3, 1), "branch3x3dbl_2"),
        ("branch_pool", 192, (1, 1)),
    )  # fmt: skip


CONVOLUTIONS = {
    **STEM,
    **a("Mixed_5b", 192, 32), **a("Mixed_5c", 256, 64), **a("Mixed_5d", 288, 64),
    **block(
        "Mixed_6a", 288, ("branch3x3", 384, (3, 3)), ("branch3x3dbl_1", 64, (1, 1)),
        ("branch3x3dbl_2", 96, (3, 3), "branch3x3dbl_1"),
        ("branch3x3dbl_3", 96, (3, 3), "branch3x3dbl_2"),
    ),
    **c("Mixed_6b", 128), **c("Mixed_6c", 160), **c("Mixed_6d", 160),
    **c("Mixed_6e", 192),
    **block(
        "Mixed_7a", 768, ("branch3x3_1", 192, (1, 1)),
        ("branch3x3_2", 320, (3, 3), "branch3x3_1"), ("branch7x7x3_1", 192, (1, 1)),
        ("branch7x7x3_2", 192, (1, 7), "branch7x7x3_1"),
        ("branch7x7x3_3", 192, (7, 1), "branch7x7x3_2"),
        ("branch7x7x3_4", 192, (3, 3), "branch7x7x3_3"),
    ),
    **e("Mixed_7b", 1280), **e("Mixed_7c", 2048),
}  # fmt: skip


def state():
    """A state dict as the published file has it, of numbers that anyone can draw."""
    random, found = np.random.RandomState(0), {}
    for name, shape in CONVOLUTIONS.items():
        fan_in = np.prod(shape[1:])
        found[f"{name}.conv.weight"] = random.standard_normal(shape) * np.sqrt(
            2 / fan_in
        )
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            low = 0.5 if leaf in ("weight", "running_var") else -0.5
            found[f"{name}.bn.{leaf}"] = random.uniform(low, low + 1, shape[0])
        found[f"{name}.bn.num_batches_tracked"] = np.array(0)
    found["fc.weight"] = random.standard_normal((1008, 2048)) * np.sqrt(1 / 2048)
    found["fc.bias"] = random.standard_normal(1008) * 0.1
    return {
        key: value.astype("float32" if value.ndim else "int64")
        for key, value in found.items()
    }


Y, X, C = np.ogrid[:32, :32, :3]
IMAGES = np.stack(
    [
        (7 * Y + 11 * X + 29 * C + (X * Y % 13) * 5) % 256,
        (3 * Y**2 + 5 * X + 17 * C) % 256,
    ]
).astype("uint8")
