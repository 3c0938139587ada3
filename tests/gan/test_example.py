import runpy
from pathlib import Path

import keras
import numpy as np
from matplotlib import pyplot

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_srn_gan.py"


def test_the_example_trains_and_draws(tmp_path, capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    arguments = ["--epochs", "1", "--width", "8", "--batch", "64"]
    main(["--output", str(tmp_path / "out"), *arguments])
    written = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == ["epoch_0001.png", "srn_gan.keras"]
    gan = keras.models.load_model(tmp_path / "out" / "srn_gan.keras")
    assert int(gan.generator_optimizer.iterations) == 1344 // 128
    drawn = pyplot.imread(tmp_path / "out" / "samples" / "epoch_0001.png")
    # The first tile is the first sample of the fixed seed, each pixel twice as large.
    first = (gan.generate(64, seed=0)[0, ..., 0] + 1) / 2
    np.testing.assert_allclose(drawn[2:66:2, 2:66:2], first, atol=0.01)
