"""Run the benchmarks again, and put what they print into RESULTS.md.

    python benchmarks/run_all.py                  # all below: hours
    python benchmarks/run_all.py scale comparison

All need this package alone, but `checkpoints`: it writes networks of PyTorch and
pytorchcv, which the extra `test` installs.

What is written by hand in RESULTS.md stays. Below it each command has a section with
its output as it was printed, the date, the machine and the versions; a run replaces the
sections of the commands that it ran, whole, and no others. One that fails has its last
line there.
"""

import argparse
import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
# A section's name -> the script and its arguments. Those that compare with a package or
# a file that has to be named are run by hand.
COMMANDS = {
    "callbacks": ["callbacks"],
    "checkpoints": ["checkpoints", "--rounds", "3"],
    "comparison": ["comparison"],
    "compressed_checkpoints": ["compressed_checkpoints"],
    "constraints": ["constraints"],
    "convolution_norms": ["convolution_norms"],
    "gan_frechet": ["gan", "frechet"],
    "gan_generate": ["gan", "generate"],
    "gan_memory": ["gan", "memory", "--rounds", "3"],
    "gan_steps": ["gan", "steps"],
    "gradient_distance": ["gradient_distance"],
    "layers": ["layers", "steps", "--rounds", "9", "--models", "mlp", "resnet20"],
    "lipschitz_bounds": ["lipschitz_bounds"],
    "low_rank": ["low_rank"],
    "measures_bound": ["measures", "bound"],
    "measures_jacobians": ["measures", "jacobians"],
    "pages": ["pages"],
    "power_laws": ["power_laws"],
    "scale": ["scale"],
}
START = "\n<!-- captured by run_all.py: no text by hand below -->\n"


def machine():
    """Return in one line what the numbers are of."""
    names = ("keras", "tensorflow", "numpy", "scipy")
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, {load} at "
        f"the start; Python {platform.python_version()}, {versions}"
    )


def section(name):
    """Run a script and return its section."""
    script, *arguments = COMMANDS[name]
    command = [f"benchmarks/{script}.py", *arguments]
    where = machine()
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if ran.returncode == 0:
        output = ran.stdout.strip()
    else:
        last = (ran.stderr.strip().splitlines() or [""])[-1]
        output = f"FAILED with exit code {ran.returncode}: {last}"
    date = datetime.date.today().isoformat()
    return (
        f"## `{name}`\n\n`python {' '.join(command)}`, {date}; {where}.\n\n"
        f"```text\n{output}\n```\n"
    )


def written(text, new):
    """Return RESULTS.md's text with new sections by name in place of the old ones."""
    by_hand, _, captured = text.partition(START)
    parts = re.split(r"(?m)^(?=## `\w+`$)", captured)
    old = {re.match(r"## `(\w+)`", part)[1]: part for part in parts if part.strip()}
    sections = {**old, **new}
    body = "\n".join(sections[name].strip() + "\n" for name in sorted(sections))
    return f"{by_hand.rstrip()}\n{START}\n{body}"


def main():
    """Run what is asked for, one after the other, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="Sections. Default: all.")
    names = parser.parse_args().names or list(COMMANDS)
    for name in names:
        if name not in COMMANDS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(COMMANDS)}")
    for name in names:
        print(f"{name} ...", flush=True)
        new = {name: section(name)}
        RESULTS.write_text(written(RESULTS.read_text("utf-8"), new), "utf-8")


if __name__ == "__main__":
    main()
