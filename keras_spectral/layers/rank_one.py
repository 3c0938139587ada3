"""Effective kernels that are a W + b v u': a scale and a rank-one term."""

import functools

import keras
from keras import ops

from keras_spectral.layers.kernels import check_plain
from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.layers.singular_vectors import (
    LARGEST_EXACT_SIDE,
    ExactSingularVectors,
    SingularVectors,
)
from keras_spectral.linalg import clipping_scale, normalizing_scale
from keras_spectral.linalg.power_iteration import UPDATE_ORDERS
from keras_spectral.validation import check_choice, check_integer, check_positive

NORMS = ("reshaped", "operator")
METHODS = ("power_iteration", "exact")


class RankOneReparametrization(Reparametrization):
    """A wrapper whose effective kernel is a scale times W plus a rank-one term.

    That form needs no second kernel in a `Dense` layer: its output is
    a (x W) + b (x v) u', and one row more in the product x W gives the norm.

    Subclasses implement `coefficients(matrix, slot, leading, norm)`.

    Args:
        layer: A layer, see `Reparametrization`.
        bound: Float > 0, the norm that the effective kernel gets.
        power_iterations: Integer >= 1, power iterations a training step.
        epsilon: Float > 0. A kernel whose norm is not above it is used as it
            is (a zero kernel has no direction to normalize).
        norm: `"reshaped"` or `"operator"`.
        input_size: Tuple of integers, pixels on each spatial axis.
        clip: Boolean. If `True`, a kernel whose norm is within the bound keeps
            its norm; if `False` every kernel is scaled to the bound.
        update_order: `"v_first"` or `"u_first"`.
        method: `"power_iteration"` or `"exact"`.
        **kwargs: `name`, `trainable`.
    """

    def __init__(
        self,
        layer,
        bound=1.0,
        power_iterations=1,
        epsilon=1e-12,
        norm="reshaped",
        input_size=None,
        clip=False,
        update_order="v_first",
        method="power_iteration",
        **kwargs,
    ):
        check_positive("bound", bound)
        check_positive("epsilon", epsilon)
        check_integer("power_iterations", power_iterations, least=1)
        check_choice("norm", norm, NORMS)
        check_choice("update_order", update_order, UPDATE_ORDERS)
        check_choice("method", method, METHODS)
        if not isinstance(clip, bool):
            raise ValueError(f"`clip` must be True or False. Received: clip={clip}")
        if method == "exact" and norm == "operator":
            raise ValueError(
                '`method="exact"` finds the norm of the flattened kernel. Received: '
                'norm="operator", which has power iteration only; raise '
                "`power_iterations` for accuracy."
            )
        super().__init__(layer, **kwargs)
        self.bound = float(bound)
        self.power_iterations = power_iterations
        self.epsilon = float(epsilon)
        self.norm = norm
        self.input_size = None if input_size is None else tuple(input_size)
        self.clip = clip
        self.update_order = update_order
        self.method = method

    def build(self, input_shape=None):
        super().build(input_shape)
        self.norm_states = [
            self.singular_vectors(index, self.norm, "norm")
            for index in range(len(self.slots))
        ]

    def singular_vectors(self, index, norm, name):
        """Return a built layer that gives a kernel's leading triplets."""
        slot = self.slots[index]
        if len(self.slots) > 1:
            name = f"{slot.name}_{name}"
        if self.method == "power_iteration":
            state = SingularVectors(
                slot.matrix_operator(norm, self.input_size),
                functools.partial(self.matrix, index),
                power_iterations=self.power_iterations,
                update_order=self.update_order,
                dtype=self.state_dtype,
                name=name,
            )
        elif min(slot.view.shape) <= LARGEST_EXACT_SIDE:
            state = ExactSingularVectors(name=name)
        else:
            raise ValueError(
                f'`method="exact"` takes kernels whose smaller side is at most '
                f"{LARGEST_EXACT_SIDE}. Received: '{slot.name}' of layer "
                f"'{self.name}', flattened to {slot.view.shape}. Use "
                '`method="power_iteration"`.'
            )
        state.build(slot.view.shape)
        state.built = True
        return state

    def coefficients(self, matrix, index, leading, norm):
        """Return scalars (a, b) of a W + b v u'; b is `None` for no such term.

        Args:
            matrix: Float tensor (inputs, outputs).
            index: Integer, which of `self.slots` it is.
            leading: `SingularTriplet` of the matrix, or of the operator for a
                subclass that needs no rank-one term.
            norm: Scalar tensor, the norm that is bounded.
        """
        raise NotImplementedError(f"{type(self).__name__} must give coefficients.")

    def scale_to_bound(self, norm):
        """Return what brings a kernel of this norm to the bound."""
        if self.clip:
            return clipping_scale(norm, self.bound)
        return normalizing_scale(norm, self.bound, self.epsilon)

    def triplets(self, matrix, index, advance, matvec=None):
        """Return (leading triplet, norm that is bounded)."""
        leading = self.norm_states[index].triplet(matrix, advance, matvec)
        return leading, leading.sigma

    def transform(self, matrix, index, advance):
        leading, norm = self.triplets(matrix, index, advance)
        scale, rank_one = self.coefficients(matrix, index, leading, norm)
        scaled = scale * matrix
        if rank_one is None:
            return scaled
        return scaled + ops.outer(rank_one * leading.v, leading.u)

    @property
    def is_rank_one(self):
        """Whether `coefficients` says all that `transform` does."""
        return True

    def replacements(self, advance):
        layer = self.layer
        # A subclass may compute something else; half precision would round the
        # norm, which is more than rounding the effective kernel.
        plain = type(layer) is keras.layers.Dense
        if not (plain and self.is_rank_one and layer.compute_dtype == self.state_dtype):
            return super().replacements(advance)
        check_plain(layer)

        def call(inputs, training=None):
            return self._call_dense(inputs, advance)

        return [(layer, "call", call)]

    def _call_dense(self, inputs, advance):
        """Return the output of `Dense` without forming the effective kernel.

        v is one more row of the product x W, so that sigma u' = v W costs no
        pass over the kernel, and neither does the gradient of sigma: it is one
        more row of the product that makes the gradient of W.
        """
        layer = self.layer
        kernel = self.matrix(0)
        rows = ops.reshape(inputs, (-1, kernel.shape[0]))
        products = []

        def matvec(v):
            stacked = ops.concatenate([rows, ops.expand_dims(v, 0)], axis=0)
            products.append(ops.matmul(stacked, kernel))
            return products[0][-1]

        leading, norm = self.triplets(kernel, 0, advance, matvec)
        scale, rank_one = self.coefficients(kernel, 0, leading, norm)
        outputs = scale * products[0][:-1]
        if rank_one is not None:
            along = ops.matmul(rows, leading.v)
            outputs = outputs + ops.outer(along, rank_one * leading.u)
        shape = (*ops.shape(inputs)[:-1], layer.units)
        outputs = ops.reshape(outputs, shape)
        if layer.bias is not None:
            outputs = ops.add(outputs, layer.bias)
        if layer.activation is not None:
            outputs = layer.activation(outputs)
        return outputs

    def get_config(self):
        return {
            **super().get_config(),
            "bound": self.bound,
            "power_iterations": self.power_iterations,
            "epsilon": self.epsilon,
            "norm": self.norm,
            "input_size": self.input_size,
            "clip": self.clip,
            "update_order": self.update_order,
            "method": self.method,
        }
