"""What normalized layers cost, relative to the same network without them.

    python benchmarks/layers.py steps [--jit] [--models mlp resnet20 ...]
    python benchmarks/layers.py first-step [--jit] [--models ...]
    python benchmarks/layers.py two-calls
    python benchmarks/layers.py torch
    python benchmarks/layers.py norm-error [--models ...]

`steps`: every variant is the same network and batch under `train_on_batch`; one
group of steps of each is timed in turn, in random order, and the medians of the
rounds' ratios to the plain network are printed: wall time / CPU time of the
process. "plain again" is a second plain network: the noise.

`first-step`: CPU time until the first step is done (build, trace, compile), growth of
the peak memory over five steps, each in fresh processes, as ratios to the plain
network.

`two-calls`: a critic called on real and on fake images in one update; ours advances
the power iteration in the first call only.

`torch`: PyTorch's own spectral_norm beside a plain PyTorch network.

`norm-error`: how far the effective kernels' norms are from 1 at each step.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers as kl

from keras_spectral import zoo
from keras_spectral.layers import SpectralNormalization, StableRankNormalization

VARIANTS = {
    "plain": lambda layer: layer,
    "plain again": lambda layer: layer,
    "SN": SpectralNormalization,
    "SN one vector": functools.partial(SpectralNormalization, method="power_iteration"),
    "SN exact": functools.partial(SpectralNormalization, method="exact"),
    "SRN": functools.partial(StableRankNormalization, stable_rank_ratio=0.3),
    "Keras' SN": keras.layers.SpectralNormalization,
    # What adding a multiple of W to the gradient costs, as SRN must.
    "L2": "l2",
}


def multilayer_perceptron(normalize, l2=None):
    inputs = x = keras.Input((784,))
    for _ in range(3):
        x = normalize(kl.Dense(2048, activation="relu", kernel_regularizer=l2))(x)
    return keras.Model(inputs, normalize(kl.Dense(10, kernel_regularizer=l2))(x))


def resnet(depth):
    def build(normalize, l2=None):
        return zoo.cifar_resnet(depth, 10, normalize=normalize)

    return build


def sngan_discriminator(normalize, l2=None):
    """The residual discriminator of SNGAN for 32x32 images, 128 channels."""

    def convolution(channels, size):
        return normalize(
            kl.Conv2D(channels, size, padding="same", kernel_regularizer=l2)
        )

    def block(x, downsample, first=False):
        y = x if first else kl.ReLU()(x)
        y = convolution(128, 3)(kl.ReLU()(convolution(128, 3)(y)))
        shortcut = convolution(128, 1)(x) if downsample or first else x
        if downsample:
            y, shortcut = kl.AveragePooling2D(2)(y), kl.AveragePooling2D(2)(shortcut)
        return kl.Add()([y, shortcut])

    inputs = keras.Input((32, 32, 3))
    x = block(inputs, True, first=True)
    x = block(block(block(x, True), False), False)
    x = kl.GlobalAveragePooling2D()(kl.ReLU()(x))
    return keras.Model(inputs, normalize(kl.Dense(10))(x))


FIRST_STEP = ("plain", "SN", "SN one vector", "SRN", "Keras' SN")

# name -> (builder, input shape, batch, steps a timing)
MODELS = {
    "mlp": (multilayer_perceptron, (784,), 32, 3),
    "mlp-128": (multilayer_perceptron, (784,), 128, 2),
    "resnet20": (resnet(20), (32, 32, 3), 32, 2),
    "resnet20-4": (resnet(20), (32, 32, 3), 4, 4),
    "resnet110": (resnet(110), (32, 32, 3), 32, 1),
    "sngan": (sngan_discriminator, (32, 32, 3), 32, 1),
}


def compiled(name, variant, jit):
    build, shape, batch, _ = MODELS[name]
    keras.utils.set_random_seed(0)
    if VARIANTS[variant] == "l2":
        model = build(VARIANTS["plain"], keras.regularizers.L2(1e-4))
    else:
        model = build(VARIANTS[variant])
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape)).astype("float32")
    return model, (x, rng.integers(0, 10, batch))


def variants_of(name):
    """The exact method takes kernels up to 512; the zoo's networks have no L2."""
    left_out = {"mlp": {"SN exact"}, "mlp-128": {"SN exact"}}.get(name, set())
    if name.startswith("resnet"):
        left_out = {"L2"}
    return [variant for variant in VARIANTS if variant not in left_out]


def interleaved(steps, rounds):
    """Return medians of the ratios to "plain", (wall, CPU), of named callables."""
    for step in steps.values():
        step()
        step()
    rng = np.random.default_rng(0)
    ratios = {name: [] for name in steps}
    for _ in range(rounds):
        times = {}
        for name in rng.permutation(list(steps)):
            wall, cpu = time.perf_counter(), time.process_time()
            steps[name]()
            times[name] = time.perf_counter() - wall, time.process_time() - cpu
        for name in steps:
            ratios[name].append(np.divide(times[name], times["plain"]))
    return {name: np.median(values, axis=0) for name, values in ratios.items()}


def print_table(title, results):
    print(title)
    for name, (first, second) in results.items():
        print(f"  {name:14} {first:5.2f} / {second:5.2f}", flush=True)


def steps(arguments):
    for name in arguments.models:
        repeats = MODELS[name][3]
        calls = {}
        for variant in variants_of(name):
            model, batch = compiled(name, variant, arguments.jit)

            def call(model=model, batch=batch, repeats=repeats):
                for _ in range(repeats):
                    model.train_on_batch(*batch)

            calls[variant] = call
        title = f"{name}, jit_compile={arguments.jit}: wall / CPU"
        print_table(title, interleaved(calls, arguments.rounds))


def one_first_step(name, variant, jit):
    """Run in a fresh process: CPU seconds to build and step, MiB of five steps."""
    cpu = time.process_time()
    model, batch = compiled(name, variant, jit)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.train_on_batch(*batch)
    cpu = time.process_time() - cpu
    for _ in range(4):
        model.train_on_batch(*batch)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return cpu, (after - before) / 1024


def first_step(arguments):
    for name in arguments.models:
        results = {variant: [] for variant in FIRST_STEP}
        for _ in range(arguments.rounds):
            for variant, values in results.items():
                output = subprocess.run(
                    [sys.executable, __file__, "one", "--models", name]
                    + ["--variant", variant] + ["--jit"] * arguments.jit,
                    check=True, capture_output=True, text=True,
                ).stdout  # fmt: skip
                values.append(json.loads(output.splitlines()[-1]))
        plain = np.median(results["plain"], axis=0)
        print_table(
            f"{name}, jit_compile={arguments.jit}: first step's CPU time / growth of "
            f"peak memory (plain: {plain[0]:.1f} s, {plain[1]:.0f} MiB)",
            {k: np.median(v, axis=0) / plain for k, v in results.items()},
        )


def two_calls(arguments):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((2, 32, 784)).astype("float32")

    def update_of(variant, second):
        critic = multilayer_perceptron(VARIANTS[variant])
        optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
        optimizer.build(critic.trainable_variables)

        @tf.function
        def update():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(critic(fake, training=second))
                loss -= tf.reduce_mean(critic(real, training=True))
            variables = critic.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)

        def updates():
            for _ in range(3):
                update()

        return updates

    calls = {
        "plain": update_of("plain", True),
        "plain again": update_of("plain", True),
        "SN": update_of("SN", False),
        "SRN": update_of("SRN", False),
        "Keras' SN": update_of("Keras' SN", True),
    }
    print_table(
        "two calls of the mlp: wall / CPU", interleaved(calls, arguments.rounds)
    )


def torch_steps(arguments):
    import torch
    from torch.nn.utils.parametrizations import spectral_norm

    torch.manual_seed(0)

    def perceptron(normalize):
        sizes, modules = [784, 2048, 2048, 2048, 10], []
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            modules += [normalize(torch.nn.Linear(inputs, outputs)), torch.nn.ReLU()]
        return torch.nn.Sequential(*modules[:-1])

    x, y = torch.randn(32, 784), torch.randint(10, (32,))

    def step_of(normalize):
        model = perceptron(normalize)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

        def step():
            for _ in range(3):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()

        return step

    calls = {
        "plain": step_of(lambda m: m),
        "plain again": step_of(lambda m: m),
        "torch SN": step_of(spectral_norm),
    }
    print_table(
        "mlp in PyTorch, eager: wall / CPU", interleaved(calls, arguments.rounds)
    )


def norm_error(arguments):
    for name in arguments.models:
        for variant in ("SN", "SN one vector", "SN exact", "Keras' SN"):
            if variant not in variants_of(name):
                continue
            model, batch = compiled(name, variant, False)
            errors = {}
            for step in range(1, 101):
                if step in (1, 10, 100):
                    errors[step] = errors_now(model, batch[0])
                model.train_on_batch(*batch)
            text = "; ".join(
                f"step {step}: {np.median(e):.1e} / {max(e):.1e}"
                for step, e in errors.items()
            )
            print(f"{name}, {variant}: median / largest |1 - norm| over layers: {text}")


def errors_now(model, x):
    """|1 - norm| of what each layer computes with in a training step."""
    saved = model.get_weights()
    model(x, training=True)
    errors = []
    for layer in model.layers:
        if not isinstance(layer, kl.Wrapper):
            continue
        kernel = layer.layer.kernel
        if hasattr(layer, "effective_kernel"):
            kernel = layer.effective_kernel()
        kernel = keras.ops.convert_to_numpy(kernel).astype("float64")
        norm = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
        errors.append(abs(1 - norm))
    model.set_weights(saved)
    return errors


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = ("steps", "first-step", "two-calls", "torch", "norm-error", "one")
    parser.add_argument("command", choices=commands)
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["mlp", "resnet20"]
    )
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--jit", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "one":
        print(json.dumps(
            one_first_step(arguments.models[0], arguments.variant, arguments.jit)
        ))  # fmt: skip
        return
    functions = {
        "steps": steps,
        "first-step": first_step,
        "two-calls": two_calls,
        "torch": torch_steps,
        "norm-error": norm_error,
    }
    functions[arguments.command](arguments)


if __name__ == "__main__":
    main()
