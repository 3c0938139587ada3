"""The smoke test of the CNN divergence's authors, which takes a minute of a core.

    python -m tests.gan.smoke

google-research, towards_gan_benchmarks: after 100 steps the value lies in [4, 7].
Theirs is of 100 batches; of these ten the error is some 0.05.
"""

import numpy as np

from keras_spectral.gan.metrics import critics


def value():
    rng = np.random.default_rng(0)
    shape = (2000, 32, 32, 3)
    return critics.neural_divergence(
        rng.integers(10, 256, shape).astype("uint8"),
        rng.integers(0, 246, shape).astype("uint8"),
        "cnn",
        steps=100,
        batch_size=64,
        evaluation_samples=640,
        ema_momentum=0.9,
    ).value


if __name__ == "__main__":
    found = value()
    print(f"{found:.3f}: {'as' if 4 < found < 7 else 'not as'} the authors ask, 4 to 7")
    raise SystemExit(not 4 < found < 7)
