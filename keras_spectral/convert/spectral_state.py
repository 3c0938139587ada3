"""Spectral normalization's state in five PyTorch dialects, in and out.

What they differ in: the keys, whether v is stored, which vector moves first in a
training step, and what evaluation does.
"""

from typing import NamedTuple

import numpy as np

from keras_spectral.convert.files.errors import CheckpointError


class Flavour(NamedTuple):
    """One way to keep the state, keys relative to the module.

    Args:
        name: String.
        weight: String, the key of the trained weight.
        u: String.
        v: String, or `None` where it is not stored.
        sigma: String, a stored norm that nothing reads, or `None`.
        bias: String.
        update_order: `"v_first"` or `"u_first"`, in a training step.
        evaluation: String, what evaluation does besides W / (u' W v).
    """

    name: str
    weight: str
    u: str
    v: str | None
    sigma: str | None
    bias: str
    update_order: str
    evaluation: str


_ITERATES = "evaluation iterates once more from the stored u"
FLAVOURS = (
    Flavour(
        "parametrizations.spectral_norm",
        "parametrizations.weight.original",
        "parametrizations.weight.0._u",
        "parametrizations.weight.0._v",
        None,
        "bias",
        "u_first",
        "",
    ),
    Flavour(
        "utils.spectral_norm",
        "weight_orig",
        "weight_u",
        "weight_v",
        None,
        "bias",
        "v_first",
        "",
    ),
    Flavour(
        "weight_bar",
        "module.weight_bar",
        "module.weight_u",
        "module.weight_v",
        None,
        "module.bias",
        "v_first",
        "evaluation iterates and stores, as training does",
    ),
    Flavour(
        "mimicry", "weight", "sn_u", None, "sn_sigma", "bias", "v_first", _ITERATES
    ),
    Flavour("BigGAN", "weight", "u0", None, "sv0", "bias", "v_first", _ITERATES),
)


class SpectralKeys(NamedTuple):
    """Where a state dict keeps one module's singular vectors."""

    flavour: Flavour
    u: str | None
    v: str | None


def parse(keys):
    """Find spectral normalization in the keys of a state dict.

    Args:
        keys: Iterable of strings.

    Returns:
        Tuple (plain, spectral): `plain` maps the key that a plain module would have
        (`fc.weight`) to the key in the state dict; `spectral` maps module paths to
        `SpectralKeys`.

    Example:
    >>> plain, spectral = parse(["fc.weight_orig", "fc.weight_u", "fc.weight_v"])
    >>> plain, spectral["fc"].flavour.name
    ({'fc.weight': 'fc.weight_orig'}, 'utils.spectral_norm')
    """
    keys = set(keys)
    plain, spectral, used = {}, {}, set()
    for flavour in FLAVOURS:
        mark = flavour.u if flavour.weight == "weight" else flavour.weight
        for key in sorted(keys - used):
            if key != mark and not key.endswith(f".{mark}"):
                continue
            path = key[: -len(mark)]
            if f"{path}{flavour.weight}" not in keys:
                continue
            here = {
                name: f"{path}{name}"
                for name in flavour[1:6]
                if name is not None and f"{path}{name}" in keys
            }
            module = path.removesuffix(".")
            spectral[module] = SpectralKeys(
                flavour, here.get(flavour.u), here.get(flavour.v)
            )
            plain[f"{path}weight"] = here[flavour.weight]
            if flavour.bias in here:
                plain[f"{path}bias"] = here[flavour.bias]
            used.update(here.values())
            if flavour.weight == "weight_orig":
                # Very old files keep the last normalized weight as well.
                used.add(f"{path}weight")
    plain |= {key: key for key in sorted(keys - used)}
    return plain, spectral


# What PyTorch's orthogonal parametrization keeps beside its `original`.
_ORIGINAL = "parametrizations.weight.original"
_BASE = "parametrizations.weight.0.base"


def importable(state):
    """Return `parse` of a state dict, or raise where a kernel is not in it.

    Args:
        state: `files.state.StateDict`, or iterable of keys.

    Raises:
        CheckpointError: On PyTorch's orthogonal parametrization.

    Example:
    >>> importable(["fc.weight"])
    ({'fc.weight': 'fc.weight'}, {})
    """
    keys = set(state)
    for base in sorted(key for key in keys if f".{key}".endswith(f".{_BASE}")):
        if base.removesuffix(_BASE) + _ORIGINAL in keys:
            raise CheckpointError(
                f"keeps `{base}` of torch.nn.utils.parametrizations.orthogonal: the "
                "kernel is this base times a map of `original`, and which map "
                "(matrix_exp, cayley or householder) is not in the file. "
                f"{_remove_and_save('parametrize.remove_parametrizations')}"
            )
    return parse(keys)


def _remove_and_save(function):
    return f"Remove it in PyTorch by torch.nn.utils.{function}, and save again."


def unit(x):
    """Return x / ||x||."""
    return x / max(np.linalg.norm(x), 1e-12)


class SpectralState(NamedTuple):
    """The state of one module as PyTorch has it: W is a matrix (rows, columns).

    Args:
        u: Array (rows,).
        v: Array (columns,), such that u' W v is `sigma`.
        estimate: Float, the norm by what is stored.
        sigma: Float, what PyTorch divides by when it evaluates.
        true_sigma: Float, ||W||.
    """

    u: np.ndarray
    v: np.ndarray
    estimate: float
    sigma: float
    true_sigma: float

    @property
    def is_trained(self):
        """Whether the stored norm is positive and not more than 10 % off."""
        return abs(self.estimate - self.true_sigma) <= 0.1 * self.true_sigma


def matrix(weight, transposed):
    """Return a weight as the matrix whose norm PyTorch takes.

    Args:
        weight: Array, PyTorch's weight.
        transposed: Boolean, whether it is a transposed convolution's.
    """
    if transposed:
        weight = np.swapaxes(weight, 0, 1)
    return np.asarray(weight, "float64").reshape(weight.shape[0], -1)


def read(state, keys, weight, transposed):
    """Read and check one module's state.

    Args:
        state: Mapping from key to array.
        keys: `SpectralKeys`.
        weight: Array, the trained weight.
        transposed: Boolean, whether it is a transposed convolution's.

    Returns:
        A `SpectralState` in float64.

    Raises:
        CheckpointError: If u or v is missing or does not fit the weight.
    """
    w = matrix(weight, transposed)
    if keys.u is None:
        raise CheckpointError(
            f"keeps a `{keys.flavour.weight}` without the vector `{keys.flavour.u}` of "
            "spectral normalization: of another parametrization, perhaps (such as "
            "torch.nn.utils.parametrizations.orthogonal), whose kernel is not in the "
            f"file. {_remove_and_save('parametrize.remove_parametrizations')}"
        )
    u = np.asarray(state[keys.u], "float64").reshape(-1)
    if u.shape != w.shape[:1]:
        other = weight.shape[1 - transposed] if weight.ndim > 1 else None
        if not keys.flavour.evaluation and u.size == other:
            raise _of_the_other_axis(keys, transposed)
        raise CheckpointError(
            f"holds `{keys.u}` of {u.size} numbers, for a weight of {w.shape[0]} rows"
        )
    if keys.v is None:
        v = unit(w.T @ u)
    else:
        v = np.asarray(state[keys.v], "float64").reshape(-1)
    if v.shape != w.shape[1:]:
        raise CheckpointError(
            f"holds `{keys.v}` of {v.size} numbers, for a weight of {w.shape[1]} "
            "columns"
        )
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    true_sigma = float(np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0.0)))
    estimate = sigma = float(u @ w @ v)
    if keys.flavour.evaluation and (keys.flavour.v is None or sigma < 0):
        # Whatever v is stored, evaluation finds v by u, and divides by ||W v||. No
        # unit v gives that with this u, which training goes on from; a longer one
        # does, and no training step reads it.
        v = unit(w.T @ u)
        sigma = float(np.linalg.norm(w @ v))
        v = v * (sigma / (u @ w @ v or 1.0))
        estimate = sigma if keys.flavour.v is None else estimate
    return SpectralState(u, v, estimate, sigma, true_sigma)


def check_axis(state, keys, weight, transposed):
    """Raise if untrained vectors of a square weight are trained ones of its other axis.

    Args:
        state: Mapping from key to array.
        keys: `SpectralKeys`.
        weight: Array, the trained weight.
        transposed: Boolean, whether it is a transposed convolution's.

    Raises:
        CheckpointError: If they are.
    """
    if keys.flavour.evaluation or weight.ndim < 2 or len({*weight.shape[:2]}) > 1:
        return
    other = read(state, keys, weight, not transposed)
    # Close enough that random vectors are not taken for it.
    if abs(other.estimate - other.true_sigma) <= 0.01 * other.true_sigma:
        raise _of_the_other_axis(keys, transposed)


def _of_the_other_axis(keys, transposed):
    usual, other = int(transposed), int(not transposed)
    kind = "a transposed convolution" if transposed else "such a module"
    legacy = keys.flavour.weight == "weight_orig"
    function = (
        "remove_spectral_norm" if legacy else "parametrize.remove_parametrizations"
    )
    return CheckpointError(
        f"holds in `{keys.u}` one number for each index of the weight's axis {other}: "
        f"of spectral_norm(dim={other}), which divides by the norm of another matrix "
        f"than dim={usual}, PyTorch's default for {kind} and the only one that is "
        f"imported. {_remove_and_save(function)}"
    )


def flatten_right(v, kernel_shape):
    """Return v in the order of a Keras kernel.

    PyTorch flattens (in, *size), Keras (*size, in); a depthwise kernel has one input.

    Args:
        v: Array (in * product of size,).
        kernel_shape: Tuple, the Keras kernel's.
    """
    return np.moveaxis(v.reshape(-1, *kernel_shape[:-2]), 0, -1).reshape(-1)


def unflatten_right(v, kernel_shape):
    """Return v in the order of a PyTorch weight; undoes `flatten_right`."""
    return np.moveaxis(v.reshape(*kernel_shape[:-2], -1), -1, 0).reshape(-1)
