"""Batches whose content is a function of seed, epoch and step."""

import keras
import numpy as np

from keras_spectral.data import crop_and_flip


class Batches(keras.utils.PyDataset):
    """One epoch of shuffled batches, alike whoever asks and however often.

    Args:
        split: A `data.Split`.
        batch_size: Integer >= 1; the last batch may be smaller.
        seed: Integer >= 0.
        epoch: Integer >= 0.
        augment: Boolean, whether `data.crop_and_flip` is applied.
        first: Integer, the step to begin at.
        share: Integers n < m, whether only each m-th row from the n-th on is given.

    Example:
    >>> from keras_spectral import data
    >>> digits = data.load("digits").train
    >>> one, other = (Batches(digits, 64, seed=0, epoch=3) for _ in range(2))
    >>> len(one), bool((one[5][0] == other[5][0]).all())
    (22, True)
    """

    def __init__(
        self, split, batch_size, seed, epoch, augment=False, first=0, share=(0, 1)
    ):
        super().__init__()
        self._split, self._batch_size = split, batch_size
        self._place, self._augment = (seed, epoch), augment
        self._first, self._share = first, slice(share[0], None, share[1])
        self._order = np.random.default_rng([seed, epoch]).permutation(len(split))

    def __len__(self):
        return -(-len(self._order) // self._batch_size) - self._first

    def __getitem__(self, index):
        step = self._first + index
        start = step * self._batch_size
        # In the order of the file: a memory map is read forwards.
        rows = np.sort(self._order[start : start + self._batch_size])
        batch = self._split[rows]
        if self._augment:
            images = crop_and_flip(batch.images, (*self._place, step))
            batch = type(batch)(images, batch.labels, batch.white)
        batch = batch[self._share]
        return batch.inputs(), batch.labels


class StepBatches(keras.utils.PyDataset):
    """Batches of a training that counts steps: all of one size, shuffles in a row.

    A batch may have the last images of one shuffle and the first of the next.

    Args:
        split: A `data.Split`.
        batch_size: Integer >= 1.
        seed: Integer >= 0.
        first, last: Integers, the steps from the first to before the last.
        labels: Boolean, whether batches have them.

    Example:
    >>> from keras_spectral import data
    >>> digits = data.load("digits").train
    >>> batches = StepBatches(digits, 1000, seed=0, first=1, last=3, labels=False)
    >>> len(batches), batches[0][0].shape
    (2, (1000, 8, 8, 1))
    """

    def __init__(self, split, batch_size, seed, first, last, labels):
        super().__init__()
        self._split, self._batch_size, self._seed = split, batch_size, seed
        self._first, self._last, self._labels = first, last, labels
        self._orders = {}

    def __len__(self):
        return self._last - self._first

    def __getitem__(self, index):
        start = (self._first + index) * self._batch_size
        places = np.arange(start, start + self._batch_size)
        shuffles, places = np.divmod(places, len(self._split))
        parts = [self._order(n)[places[shuffles == n]] for n in np.unique(shuffles)]
        # As shuffled: each part of a batch is an update of its own.
        batch = self._split[np.concatenate(parts)]
        return (batch.inputs(), batch.labels) if self._labels else (batch.inputs(),)

    def _order(self, shuffle):
        if shuffle not in self._orders:
            random = np.random.default_rng([self._seed, int(shuffle)])
            # Of earlier ones none is needed again.
            recent = {n: x for n, x in self._orders.items() if n == shuffle - 1}
            self._orders = {**recent, shuffle: random.permutation(len(self._split))}
        return self._orders[shuffle]
