"""A Keras layer and PyTorch's module of the same settings, by name."""

import keras
import numpy as np
import torch

kl, nn = keras.layers, torch.nn

# Name -> (class, arguments, input shape without batch, PyTorch's module).
PAIRS = {
    "strides by axis": (
        kl.Conv2D, {"filters": 4, "kernel_size": 3, "strides": (2, 1)}, (9, 8, 3),
        lambda: nn.Conv2d(3, 4, 3, stride=(2, 1))),
    "dilations by axis": (
        kl.Conv2D, {"filters": 4, "kernel_size": (3, 2), "dilation_rate": (1, 3)},
        (9, 8, 3), lambda: nn.Conv2d(3, 4, (3, 2), dilation=(1, 3))),
    "convolution 1D": (
        kl.Conv1D, {"filters": 4, "kernel_size": 3, "strides": 2, "groups": 2}, (9, 6),
        lambda: nn.Conv1d(6, 4, 3, stride=2, groups=2)),
    "convolution 3D": (
        kl.Conv3D, {"filters": 4, "kernel_size": (2, 3, 1), "strides": (1, 2, 3)},
        (5, 6, 7, 3), lambda: nn.Conv3d(3, 4, (2, 3, 1), stride=(1, 2, 3))),
    "transposed 1D": (
        kl.Conv1DTranspose, {"filters": 4, "kernel_size": 3, "strides": 2}, (5, 3),
        lambda: nn.ConvTranspose1d(3, 4, 3, stride=2)),
    "transposed, strides by axis": (
        kl.Conv2DTranspose, {"filters": 4, "kernel_size": (4, 3), "strides": (2, 1)},
        (5, 6, 3), lambda: nn.ConvTranspose2d(3, 4, (4, 3), stride=(2, 1))),
    "transposed, dilated": (
        kl.Conv2DTranspose, {"filters": 4, "kernel_size": 3, "dilation_rate": (2, 1)},
        (5, 6, 3), lambda: nn.ConvTranspose2d(3, 4, 3, dilation=(2, 1))),
    "transposed, stride over kernel": (
        kl.Conv2DTranspose, {"filters": 4, "kernel_size": (1, 2), "strides": 3},
        (5, 6, 3),
        lambda: nn.ConvTranspose2d(3, 4, (1, 2), stride=3, output_padding=(2, 1))),
    "transposed 1D, dilated": (
        kl.Conv1DTranspose, {"filters": 4, "kernel_size": 3, "dilation_rate": 2},
        (5, 3), lambda: nn.ConvTranspose1d(3, 4, 3, dilation=2)),
    "transposed 3D, dilated": (
        kl.Conv3DTranspose,
        {"filters": 4, "kernel_size": 2, "dilation_rate": (1, 2, 3)}, (3, 4, 5, 3),
        lambda: nn.ConvTranspose3d(3, 4, 2, dilation=(1, 2, 3))),
    "transposed, output padding": (
        kl.Conv2DTranspose,
        {"filters": 4, "kernel_size": 3, "strides": 2, "output_padding": (1, 0)},
        (5, 6, 3),
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=(1, 0))),
    "transposed 3D": (
        kl.Conv3DTranspose, {"filters": 4, "kernel_size": 2, "strides": (1, 2, 1)},
        (3, 4, 5, 3), lambda: nn.ConvTranspose3d(3, 4, 2, stride=(1, 2, 1))),
    "depthwise 1D": (
        kl.DepthwiseConv1D, {"kernel_size": 3, "depth_multiplier": 2, "strides": 2},
        (8, 3), lambda: nn.Conv1d(3, 6, 3, groups=3, stride=2)),
    "depthwise 1D, dilated": (
        kl.DepthwiseConv1D, {"kernel_size": 3, "dilation_rate": 2}, (8, 3),
        lambda: nn.Conv1d(3, 3, 3, groups=3, dilation=2)),
    "depthwise 2D": (
        kl.DepthwiseConv2D, {"kernel_size": (3, 2), "use_bias": False}, (8, 7, 3),
        lambda: nn.Conv2d(3, 3, (3, 2), groups=3, bias=False)),
    "layer normalization": (
        kl.LayerNormalization, {"epsilon": 1e-5}, (5, 6), lambda: nn.LayerNorm(6)),
    "layer normalization without offset": (
        kl.LayerNormalization, {"epsilon": 1e-3, "center": False}, (6,),
        lambda: nn.LayerNorm(6, 1e-3, bias=False)),
    "group normalization": (
        kl.GroupNormalization, {"groups": 3, "epsilon": 1e-5}, (4, 5, 6),
        lambda: nn.GroupNorm(3, 6)),
    "instance normalization": (
        kl.GroupNormalization, {"groups": -1, "epsilon": 1e-5}, (5, 6),
        lambda: nn.GroupNorm(6, 6)),
}  # fmt: skip
NAMES_1D = ("layer normalization", "layer normalization without offset")


def pair(name):
    """Return (model of one layer `m`, the module with random weights, state dict)."""
    kind, arguments, shape, make = PAIRS[name]
    model = keras.Sequential([keras.Input(shape), kind(**arguments, name="m")])
    torch.manual_seed(0)
    module = make().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    state = {f"m.{key}": value for key, value in module.state_dict().items()}
    return model, module, state


def outputs(module, x, channels_last=False):
    """Return what a module gives for images of ours, in our layout."""
    x = torch.tensor(x)
    with torch.no_grad():
        if channels_last or x.ndim < 3:
            return module(x).numpy()
        y = module(torch.moveaxis(x, -1, 1)).numpy()
    return np.moveaxis(y, 1, -1) if y.ndim > 2 else y
