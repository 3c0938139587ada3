"""Spectral normalization as five PyTorch projects keep it, written from their rules.

The two of PyTorch are PyTorch's own; the three others follow the description of their
state: keys, order of the update, and what is stored.
"""

import torch

FLAVOURS = (
    "parametrizations.spectral_norm",
    "utils.spectral_norm",
    "weight_bar",
    "mimicry",
    "BigGAN",
)


def _unit(x):
    return x / (x.norm() + 1e-12)


class Holder(torch.nn.Module):
    """A network whose one module is `layer`."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer


class StoresU(torch.nn.Module):
    """mimicry's and BigGAN's: u and the last norm are buffers, v is not kept."""

    def __init__(self, module, u, sigma):
        super().__init__()
        self.names = u, sigma
        self._module = [module]  # Out of the state dict's sight.
        self.weight = module.weight
        if getattr(module, "bias", None) is not None:
            self.bias = module.bias
        self.register_buffer(u, _unit(torch.randn(1, len(module.weight))))
        self.register_buffer(sigma, torch.ones(1))

    def forward(self, x):
        matrix = self.weight.reshape(len(self.weight), -1)
        u, sigma = self.names
        with torch.no_grad():
            v = _unit(getattr(self, u)[0] @ matrix)
            new = _unit(matrix @ v)
            if self.training:
                getattr(self, u)[0] = new
        norm = new @ matrix @ v
        getattr(self, sigma)[0] = norm.detach()
        return torch.func.functional_call(
            self._module[0], {"weight": self.weight / norm}, (x,)
        )


class WeightBar(torch.nn.Module):
    """christiancosgrove's: parameters of the inner module, v first."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        weight = module.weight.detach()
        del module.weight
        module.weight_u = torch.nn.Parameter(_unit(torch.randn(len(weight))), False)
        columns = weight[0].numel()
        module.weight_v = torch.nn.Parameter(_unit(torch.randn(columns)), False)
        module.weight_bar = torch.nn.Parameter(weight)

    def forward(self, x):
        module = self.module
        matrix = module.weight_bar.reshape(len(module.weight_bar), -1)
        with torch.no_grad():
            module.weight_v.copy_(_unit(matrix.T @ module.weight_u))
            module.weight_u.copy_(_unit(matrix @ module.weight_v))
        # Copies: the parameters change in place at the next step.
        norm = module.weight_u.clone() @ matrix @ module.weight_v.clone()
        module.weight = module.weight_bar / norm
        try:
            return module(x)
        finally:
            del module.weight


def normalized(module, flavour):
    """Return a network of one layer, normalized as a project does it."""
    if flavour == "parametrizations.spectral_norm":
        return Holder(torch.nn.utils.parametrizations.spectral_norm(module))
    if flavour == "utils.spectral_norm":
        return Holder(torch.nn.utils.spectral_norm(module))
    if flavour == "weight_bar":
        return Holder(WeightBar(module))
    names = {"mimicry": ("sn_u", "sn_sigma"), "BigGAN": ("u0", "sv0")}[flavour]
    return Holder(StoresU(module, *names))
