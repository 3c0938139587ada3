"""Two processes of JAX on this machine, which train as one."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_two(module, *arguments):
    """Run `python -m module` in two processes that know of each other.

    Args:
        module: String, a module of the tests.
        *arguments: Strings or paths, its arguments.

    Returns:
        List of what each printed.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=Path(__file__).parents[1],
            env={
                **os.environ,
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
                "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
                "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = []
    try:
        for process in processes:
            out, error = process.communicate(timeout=300)
            assert process.returncode == 0, error[-3000:]
            outputs.append(out)
    finally:
        for process in processes:
            process.kill()
    return outputs
