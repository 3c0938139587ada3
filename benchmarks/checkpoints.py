"""Reading and converting checkpoints: time and memory against torch.load.

    python benchmarks/checkpoints.py [--rounds 7]

Each measurement is a process of its own; ours and PyTorch's take turns in one run, and
medians are printed. Needs the extra `test`. VGG19's 548 MiB are random numbers, written
to a temporary folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROLOGUE = """
import json, os, resource, sys, time
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def report(start, before):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([time.perf_counter() - start, (peak - before) / 2**20]))
path = sys.argv[1]
"""
MEASURED = {
    "torch.load": """
import torch
before, start = resident(), time.perf_counter()
state = torch.load(path, map_location="cpu", weights_only=True)
report(start, before)
""",
    "torch.load and isfinite": """
import torch
before, start = resident(), time.perf_counter()
state = torch.load(path, map_location="cpu", weights_only=True)
all(torch.isfinite(value).all() for value in state.values())
report(start, before)
""",
    "read_checkpoint": """
from keras_spectral.convert import read_checkpoint
before, start = resident(), time.perf_counter()
state = dict(read_checkpoint(path))
report(start, before)
""",
    "read_checkpoint, one at a time": """
from keras_spectral.convert import read_checkpoint
before, start = resident(), time.perf_counter()
for value in read_checkpoint(path).values():
    pass
report(start, before)
""",
}
IMPORTED = {
    "import torch": "before, start = resident(), time.perf_counter()\n"
    "import torch\nreport(start, before)",
    "import the reader": "before, start = resident(), time.perf_counter()\n"
    "from keras_spectral.convert import read_checkpoint\nreport(start, before)",
}
CONVERTED = {
    "resnet20 to .keras, verified": """
import keras, keras_spectral, tempfile
from keras_spectral import convert, zoo
import keras_spectral.convert.torch_weights, keras_spectral.zoo.resnet
keras.ops.zeros(())
before, start = resident(), time.perf_counter()
model = convert.from_torch(path, "resnet20_cifar10")
convert.save_model(model, os.path.join(tempfile.mkdtemp(), "model.keras"))
report(start, before)
""",
}


def save(name, path):
    """Write the random weights of a pytorchcv network in a process of its own."""
    code = (
        "import sys, torch; from pytorchcv.model_provider import get_model;"
        "torch.save(get_model(sys.argv[1]).state_dict(), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, name, str(path)], check=True)


def measure(cases, path, rounds):
    """Print the median time and peak memory of each case, run in turns."""
    results = {name: [] for name in cases}
    for _ in range(rounds):
        for name, code in cases.items():
            done = subprocess.run(
                [sys.executable, "-c", PROLOGUE + code, str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    first = None
    for name, runs in results.items():
        seconds, peak = (
            statistics.median(column) for column in zip(*runs, strict=True)
        )
        first = first or seconds
        print(
            f"{name:32} {seconds:7.3f} s  {seconds / first:5.2f} x  "
            f"peak {peak:6.0f} MiB above imports"
        )


def main():
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "vgg19.pth"), Path(folder, "resnet20.pth")
        save("vgg19", large)
        save("resnet20_cifar10", small)
        print(f"VGG19, {large.stat().st_size / 2**20:.0f} MiB, medians of {rounds}")
        measure(MEASURED, large, rounds)
        print("\nImports")
        measure(IMPORTED, small, rounds)
        print("\nConversion, after imports")
        measure(CONVERTED, small, rounds)


if __name__ == "__main__":
    main()
