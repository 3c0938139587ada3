"""What measures cost, relative to forward passes of the same network.

    python benchmarks/measures.py bound [--networks resnet110 vgg19] [--rounds 5]
    python benchmarks/measures.py jacobians [--images 1024] [--rounds 5]
    python benchmarks/measures.py analyze --weightwatcher FOLDER [--blocks 1]

`bound`: a batch of 32 images of 32x32 under `predict_on_batch`, and `lipschitz_bound`,
in turn; the medians of the rounds' ratios of CPU time are printed, with their range,
and of wall time.

`analyze`: the matrices of blocks of a transformer of BERT-base's size by
`experiments.analyze_checkpoint`, by WeightWatcher's `analyze(randomize=True,
mp_fit=True)`, which gives no more, and their bare singular values, in turn; ours and
the bare ones with a thread a core, each matrix in one thread. No trained transformer is
bundled: matrices are a power law's entries. WeightWatcher is no dependency: `pip
install --no-deps --target FOLDER weightwatcher tqdm`.

`jacobians`: Jac-Norm of images on a ResNet-20 beside a plain loop, in turn: an image at
a time, `GradientTape.jacobian` of the logits by each hidden layer. An image's CPU time
in the loop over ours, tracing and compiling included.
Set OMP_NUM_THREADS=1 where other work runs: threads that wait for a core spin.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_spectral as ks

NETWORKS = {
    "resnet110": lambda: ks.zoo.cifar_resnet(110, 10),
    "vgg19": lambda: ks.zoo.cifar_vgg(19, 10),
}


def seconds(function):
    """CPU and wall time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return np.array([time.process_time() - cpu, time.perf_counter() - wall])


def lipschitz_bound(name, method, rounds, passes=20):
    """Print how many forward passes a bound costs."""
    model = NETWORKS[name]()
    x = np.random.default_rng(0).standard_normal((32, 32, 32, 3)).astype("float32")

    def forward():
        for _ in range(passes):
            model.predict_on_batch(x)

    forward()
    ratios = []
    for _ in range(rounds):
        bound = seconds(lambda: ks.measures.lipschitz_bound(model, method=method))
        ratios.append(bound / seconds(forward) * passes)
    cpu, wall = np.median(ratios, axis=0)
    least, most = np.min(ratios, axis=0)[0], np.max(ratios, axis=0)[0]
    print(
        f"{name}, {method}: {cpu:.0f} forward passes of CPU time "
        f"({least:.0f}-{most:.0f}), {wall:.0f} of wall time",
        flush=True,
    )


def jacobian_norms(images, rounds, looped=4):
    """Print how many times faster Jac-Norm is than a loop over the images."""
    import keras
    import tensorflow as tf

    from keras_spectral.measures.hidden_layers import hidden_slots
    from keras_spectral.measures.programs import Program

    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, 32, 32, 3)).astype("float32")
    model = ks.zoo.cifar_resnet(20, 10)
    y = model.predict(x, verbose=0).argmax(-1)
    hidden = [slot.tensor for slot in hidden_slots(model, Program(model))]
    within = keras.Model(model.inputs, [*hidden, model.output])

    def ours():
        keras.utils.clear_session()  # Nothing traced is kept.
        return ks.measures.complexity_measures(
            model, x, y, measures=["Jac-Norm"], progress=False
        ).values["Jac-Norm"]

    def loop():
        found = []
        for image, label in zip(x[:looped], y, strict=False):
            parts = []
            with tf.GradientTape(persistent=True) as tape:
                *values, logits = within(image[None])
            top = logits.numpy()[0]
            other = int(np.argsort(np.where(np.arange(10) == label, -np.inf, top))[-1])
            for value in values:
                rows = tape.jacobian(logits, value, experimental_use_pfor=False)
                slope = rows[0, label] - rows[0, other]
                parts.append(float(tf.norm(value) * tf.norm(slope)))
            found.append(np.log(sum(parts)) - np.log(top[label] - top[other]))
        return np.array(found)

    np.testing.assert_allclose(ours()[:looped], loop(), rtol=1e-3)
    ratios = []
    for _ in range(rounds):
        ratios.append(seconds(loop) / looped / (seconds(ours) / images))
    cpu, wall = np.median(ratios, axis=0)
    least, most = np.min(ratios, axis=0)[0], np.max(ratios, axis=0)[0]
    print(
        f"Jac-Norm of {images} images: {cpu:.0f} times less CPU time an image than the "
        f"loop ({least:.0f}-{most:.0f}), {wall:.0f} times less wall time"
    )


def analyze(folder, blocks, rounds):
    """Print what an analysis costs beside WeightWatcher's and the singular values."""
    import contextlib
    import io
    import sys
    import tempfile
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    import torch
    from threadpoolctl import threadpool_limits

    from keras_spectral.experiments import analyze_checkpoint
    from keras_spectral.experiments.engine import cores

    sys.path.insert(0, folder)
    with contextlib.redirect_stdout(io.StringIO()):
        import weightwatcher

    rng = np.random.default_rng(0)
    layers = []
    for _ in range(blocks):
        for outputs, inputs in [(768, 768)] * 4 + [(3072, 768), (768, 3072)]:
            layer = torch.nn.Linear(inputs, outputs)
            weights = 0.02 * rng.standard_t(4, (outputs, inputs))
            layer.weight.data = torch.tensor(weights, dtype=torch.float32)
            layers.append(layer)
    network = torch.nn.Sequential(*layers)
    path = Path(tempfile.mkdtemp()) / "blocks.pth"
    torch.save(network.state_dict(), path)

    def theirs():
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            watcher = weightwatcher.WeightWatcher(model=network)
            return len(watcher.analyze(randomize=True, mp_fit=True))

    def singular_values(layer):
        return np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)

    def bare():
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(singular_values, layers))

    def ours():
        return len(analyze_checkpoint(path))

    ratios = []
    for _ in range(rounds):
        own = seconds(ours)
        ratios.append([seconds(theirs) / own, own / seconds(bare)])
    print(f"{len(layers)} matrices, {cores()} threads")
    middle, low, high = (f(ratios, axis=0).T for f in (np.median, np.min, np.max))
    for time_of, (them, svds), (least, less), (most, more) in zip(
        ("CPU", "wall"), middle, low, high, strict=True
    ):
        print(
            f"{time_of} time: WeightWatcher takes {them:.1f} times ours ({least:.1f}-"
            f"{most:.1f}); ours is {svds:.1f} times the singular values ({less:.1f}-"
            f"{more:.1f})"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["bound", "jacobians", "analyze"])
    parser.add_argument("--weightwatcher", help="Folder with the package.")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=["product", "merged"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.what == "jacobians":
        jacobian_norms(arguments.images, arguments.rounds)
        return
    if arguments.what == "analyze":
        analyze(arguments.weightwatcher, arguments.blocks, arguments.rounds)
        return
    for name in arguments.networks:
        for method in arguments.methods:
            lipschitz_bound(name, method, arguments.rounds)


if __name__ == "__main__":
    main()
