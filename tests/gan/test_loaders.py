"""Batches of PyTorch's `DataLoader`, on TensorFlow."""

import numpy as np
import pytest
import torch

from tests.gan.test_what_fit_takes import SHAPE, pixels, tiny


@pytest.mark.parametrize("classes", [None, 4])
def test_a_loader_of_torch_is_read_once_an_epoch(classes):
    from torch.utils import data

    images, labels = torch.from_numpy(pixels(10)), torch.arange(10) % 4
    seen = []

    class Images(data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            seen.append(index)
            return images[index] if classes is None else (images[index], labels[index])

    gan = tiny(classes=classes, seed=0)
    gan.compile()
    loader = data.DataLoader(Images(), batch_size=4, shuffle=True)
    gan.fit(loader, epochs=2, verbose=0)
    assert int(gan.generator_optimizer.iterations) == 6
    assert sorted(seen[-10:]) == sorted(seen[-20:-10]) == list(range(10))
    assert len(gan.evaluate(loader, verbose=0)) == 2
    images *= 255
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        gan.fit(loader, verbose=0)


def test_a_loader_without_an_end_asks_for_steps():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(torch.zeros(9, *SHAPE))

    loader = torch.utils.data.DataLoader(Endless(), batch_size=3)
    gan = tiny()
    gan.compile()
    with pytest.raises(ValueError, match="`steps_per_epoch` must be given"):
        gan.fit(loader, verbose=0)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be given"):
        gan.fit(np.zeros((3, *SHAPE)), validation_data=loader, verbose=0)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be given"):
        gan.evaluate(loader, verbose=0)
    gan.fit(loader, steps_per_epoch=3, epochs=2, verbose=0)
    assert int(gan.generator_optimizer.iterations) == 6
