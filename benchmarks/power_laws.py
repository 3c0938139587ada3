"""Power-law fits against `powerlaw` and WeightWatcher's own, on the same numbers.

python benchmarks/power_laws.py [--weightwatcher FOLDER] [--largest 16777216]

WeightWatcher is no dependency: `pip install --no-deps --target FOLDER weightwatcher`.
"""

import argparse
import contextlib
import io
import os
import resource
import statistics
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import powerlaw

from keras_spectral.measures import fit_power_law, goodness_of_fit


def exact(x):
    """Fit by this package: (exponent, start, distance)."""
    fit = fit_power_law(x)
    return fit.alpha_pdf, fit.xmin, fit.ks_distance


def by_powerlaw(x):
    """The same by `powerlaw`, with its range of exponents widened."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(x, parameter_ranges={"alpha": (1, None)}, verbose=0)
        return fit.power_law.alpha, fit.xmin, fit.D


def by_weightwatcher(folder):
    """The same by WeightWatcher's own fit, which has no Keras or PyTorch in it."""
    sys.path.insert(0, folder)
    with contextlib.redirect_stdout(io.StringIO()):
        from weightwatcher.WW_powerlaw import WWFit

    def fit(x):
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            found = WWFit(x)
        return found.alpha, found.xmin, found.D

    return fit


def seconds(function, x):
    """Return (result, wall time)."""
    start = time.perf_counter()
    result = function(x)
    return result, time.perf_counter() - start


def compare(peers, rounds):
    """Print medians of interleaved rounds, and how far the results are apart."""
    print("size, law: seconds here; for each peer seconds, ratio, apart in alpha")
    for size, law in (
        (640, "laplace"), (2000, "pareto"), (5000, "student"), (20_000, "student"),
        (20_000, "normal"),
    ):  # fmt: skip
        rng = np.random.default_rng(0)
        x = np.abs(
            {
                "laplace": lambda n, rng=rng: rng.laplace(size=n),
                "pareto": lambda n, rng=rng: rng.pareto(2.5, n) + 1,
                "student": lambda n, rng=rng: rng.standard_t(3, n),
                "normal": lambda n, rng=rng: rng.normal(size=n),
            }[law](size)
        )
        times = {name: [] for name in ("here", *peers)}
        results = {}
        # The peers take minutes at 20,000: fewer rounds there.
        for _ in range(rounds if size <= 5000 else max(1, rounds // 5)):
            for name, function in {"here": exact, **peers}.items():
                results[name], spent = seconds(function, x)
                times[name].append(spent)
        ours = statistics.median(times["here"])
        line = f"{size:>7,} {law:<8} {ours * 1e3:8.2f} ms"
        for name in peers:
            theirs = statistics.median(times[name])
            apart = abs(results[name][0] / results["here"][0] - 1)
            same = "" if results[name][1] == results["here"][1] else ", another xmin"
            line += (
                f" | {name} {theirs:.3f} s, {theirs / ours:,.0f}x, {apart:.0e}{same}"
            )
        print(line, flush=True)


def largest(size):
    """Print time and memory of the largest sample, for three laws."""
    for law in ("student", "normal", "pareto"):
        rng = np.random.default_rng(0)
        x = {
            "student": lambda rng=rng: rng.standard_t(3, size),
            "normal": lambda rng=rng: rng.normal(size=size),
            "pareto": lambda rng=rng: rng.pareto(2.5, size) + 1,
        }[law]()
        fit, spent = seconds(fit_power_law, x)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{size:,} {law}: {spent:.1f} s, alpha {fit.alpha_pdf:.4f} of "
            f"{fit.tail_size:,} in the tail; peak of the process {peak:.2f} GiB",
            flush=True,
        )


def main():
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weightwatcher", help="folder with the package")
    parser.add_argument("--largest", type=int, default=1 << 24)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    peers = {"powerlaw": by_powerlaw}
    if options.weightwatcher:
        peers["WeightWatcher"] = by_weightwatcher(options.weightwatcher)
    compare(peers, options.rounds)
    x = np.random.default_rng(0).standard_t(3, 1000)
    _, spent = seconds(lambda x: goodness_of_fit(x, trials=200), x)
    print(f"goodness of fit, 1,000 numbers, 200 trials: {spent:.2f} s")
    largest(options.largest)


if __name__ == "__main__":
    main()
