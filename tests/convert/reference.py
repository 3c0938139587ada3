"""pytorchcv networks with weights and statistics that hide no mistake."""

import numpy as np
import torch
from pytorchcv.model_provider import get_model


def random_network(name, seed=0):
    torch.manual_seed(seed)
    return randomized(get_model(name))


def randomized(network):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def torch_logits(network, x):
    dtype = next(network.parameters()).dtype
    with torch.no_grad():
        images = torch.tensor(x.transpose(0, 3, 1, 2).copy(), dtype=dtype)
        return network(images).numpy()


def relative_error(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()
