"""PyTorch modules of GANs, written from the papers and mimicry's source."""

import functools

import torch
from torch import nn
from torch.nn import functional as F


class Conditional(nn.Module):
    """Batch normalization with a row of scales and offsets a class."""

    def __init__(self, channels, classes):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.embed = nn.Embedding(classes, 2 * channels)

    def forward(self, x, y):
        scale, offset = self.embed(y)[:, :, None, None].chunk(2, 1)
        return self.bn(x) * scale + offset


class Up(nn.Module):
    """One block of a generator."""

    def __init__(self, narrow, wide, classes, mode):
        super().__init__()
        self.mode, self.classes = mode, classes
        self.c1 = nn.Conv2d(narrow, wide, 3, padding=1)
        self.c2 = nn.Conv2d(wide, wide, 3, padding=1)
        self.c_sc = nn.Conv2d(narrow, wide, 1)
        kind = functools.partial(Conditional, classes=classes)
        kind = nn.BatchNorm2d if classes is None else kind
        self.b1, self.b2 = kind(narrow), kind(wide)

    def forward(self, x, y):
        y = () if self.classes is None else (y,)
        arguments = {} if self.mode == "nearest" else {"align_corners": False}
        up = functools.partial(
            F.interpolate, scale_factor=2, mode=self.mode, **arguments
        )
        h = self.c1(up(torch.relu(self.b1(x, *y))))
        return self.c2(torch.relu(self.b2(h, *y))) + self.c_sc(up(x))


class Generator(nn.Module):
    def __init__(self, width, classes=None, mode="nearest"):
        super().__init__()
        self.l1 = nn.Linear(128, 16 * width)
        self.block2 = Up(width, width, classes, mode)
        self.block3 = Up(width, width, classes, mode)
        self.block4 = Up(width, width, classes, mode)
        self.b5 = nn.BatchNorm2d(width)
        self.c5 = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z, y=None):
        h = self.l1(z).view(len(z), -1, 4, 4)
        h = self.block4(self.block3(self.block2(h, y), y), y)
        return torch.tanh(self.c5(torch.relu(self.b5(h))))


class Down(nn.Module):
    """One block of a discriminator."""

    def __init__(self, narrow, wide, halves, first, norm, in_place):
        super().__init__()
        self.halves, self.first, self.in_place = halves, first, in_place
        self.c1 = norm(nn.Conv2d(narrow, wide if first else narrow, 3, padding=1))
        self.c2 = norm(nn.Conv2d(wide if first else narrow, wide, 3, padding=1))
        if halves or narrow != wide:
            self.c_sc = norm(nn.Conv2d(narrow, wide, 1))

    def forward(self, x):
        pool = functools.partial(F.avg_pool2d, kernel_size=2)
        h = x if self.first else torch.relu(x)
        x = h if self.in_place else x
        h = self.c2(torch.relu(self.c1(h)))
        h = pool(h) if self.halves else h
        if hasattr(self, "c_sc"):
            x = self.c_sc(x)
            x = pool(x) if self.halves else x
        return h + x


class Discriminator(nn.Module):
    def __init__(self, width, classes=None, in_place=False, norm=lambda m: m):
        super().__init__()
        down = functools.partial(Down, norm=norm, in_place=in_place)
        self.block1 = down(3, width, True, True)
        self.block2 = down(width, width, True, False)
        self.block3 = down(width, width, False, False)
        self.block4 = down(width, width, False, False)
        self.l5 = norm(nn.Linear(width, 1))
        if classes is not None:
            self.l_y = norm(nn.Embedding(classes, width))

    def forward(self, x, y=None):
        h = self.block4(self.block3(self.block2(self.block1(x))))
        h = torch.relu(h).sum((2, 3))
        out = self.l5(h)
        return out if y is None else out + (self.l_y(y) * h).sum(1, keepdim=True)


def randomized(module, seed=0):
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.3)
    return module.double().eval()
