"""Effective kernels that are a W + b v u': a scale and a rank-one term."""

import functools
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_spectral.layers.compilation import warn_of_factorization
from keras_spectral.layers.rank_one_forms import Scaling
from keras_spectral.layers.reparametrization import Reparametrization
from keras_spectral.layers.singular_vectors import ExactSingularVectors, SingularVectors
from keras_spectral.linalg import (
    LARGEST_FACTORED_SIDE,
    bounded_matrix,
    converged_norm,
    turning_product,
)
from keras_spectral.linalg.power_iteration import UpdateOrder
from keras_spectral.models.slots import check_plain
from keras_spectral.validation import (
    Norm,
    check_choice,
    check_integer,
    check_positive,
)

Method = Literal["block", "power_iteration", "exact"]
# How to go on where a second derivative by the kernel is refused.
OR_NOT_TWICE = (
    ", or stop the gradient of the first derivative by the kernel. (A gradient "
    "penalty, by the inputs and then by the kernel, takes no second one. A tape of "
    "TensorFlow does for all that it watches: `watch_accessed_variables=False`.)"
)


class RankOneReparametrization(Reparametrization):
    """A wrapper whose effective kernel is a scale times W plus a rank-one term.

    That form needs no second kernel in a `Dense` layer: its output is
    a (x W) + b (x v) u', and one row more in the product x W gives the norm.

    Subclasses give its `form`, or another `transform`.

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
        update_order: `"v_first"` or `"u_first"`, for `method="power_iteration"`.
        method: `"block"`, `"power_iteration"` or `"exact"`.
        block_size: Integer >= 1, singular vectors that `method="block"` follows; where
            the smaller side is at most four times as large, none but the exact ones.
        **kwargs: `name`, `trainable`, `dtype`.
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
        method="block",
        block_size=8,
        **kwargs,
    ):
        check_positive("bound", bound)
        check_positive("epsilon", epsilon)
        check_integer("power_iterations", power_iterations, least=1)
        check_choice("norm", norm, Norm)
        check_choice("update_order", update_order, UpdateOrder)
        check_choice("method", method, Method)
        check_integer("block_size", block_size, least=1)
        if not isinstance(clip, bool):
            raise ValueError(f"`clip` must be True or False. Received: clip={clip}")
        if method == "exact" and norm == "operator":
            raise ValueError(
                '`method="exact"` finds the norm of the flattened kernel. Received: '
                'norm="operator"; use `method="block"`, and raise '
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
        self.block_size = block_size
        # What was asked for, while imported vectors are followed otherwise.
        self._own_method = None
        self._imported_order = None

    def build(self, input_shape=None):
        super().build(input_shape)
        self.norm_states = [
            self.singular_vectors(index, self.norm, "norm")
            for index in range(len(self.slots))
        ]
        if self._imported_order is not None:
            # A copy of a layer that follows imported vectors; its weights come next.
            self._follow(self._imported_order)
            self.norm_states[0].follow(self._imported_order)

    def singular_vectors(self, index, norm, name):
        """Return a built layer that gives a kernel's leading triplets."""
        slot = self.slots[index]
        if len(self.slots) > 1:
            name = f"{slot.name}_{name}"
        if self.method != "exact":
            make_operator = slot.matrix_operator(norm, self.input_size)
            state = SingularVectors(
                make_operator,
                functools.partial(self._bounded_matrix, index, norm),
                power_iterations=self.power_iterations,
                update_order=self.update_order,
                block_size=self.block_size if self.method == "block" else None,
                dtype=self.state_dtype,
                name=name,
            )
        elif min(slot.view.shape) <= LARGEST_FACTORED_SIDE:
            state = ExactSingularVectors(name=name)
        else:
            raise ValueError(
                f'`method="exact"` takes kernels whose smaller side is at most '
                f"{LARGEST_FACTORED_SIDE}. Received: '{slot.name}' of layer "
                f"'{self.name}', flattened to {slot.view.shape}. Use "
                '`method="block"`.'
            )
        state.refusal = self._refusal(slot, norm)
        state.build(slot.view.shape)
        state.built = True
        return state

    def _bounded_matrix(self, index, norm):
        """Return the matrix whose norm `norm` a state follows."""
        return self.matrix(index)

    def _refusal(self, slot, norm):
        """Return why a second derivative by a kernel is refused, or `None`."""
        if norm == "reshaped" or slot.operator is None:
            return None
        return (
            '`norm` must be "reshaped" for a second derivative by the kernel: how the '
            "singular vectors of a convolution turn takes the SVD of all of it. "
            f"Received: norm={self.norm!r}, in layer '{self.name}'. Pass "
            f'`norm="reshaped"`{OR_NOT_TWICE}'
        )

    def load_vectors(self, u, v, update_order):
        """Take over u and v that were trained with this kernel elsewhere.

        The layer computes with bound * W / (u' W v), sign included, and trains on by
        `method="power_iteration"`, as it would have there, until
        `restart_power_iteration` finds the vectors anew.

        Args:
            u: Array (outputs,).
            v: Array (inputs,).
            update_order: `"v_first"` or `"u_first"`, how they were trained.
        """
        self.norm_states[0].load(u, v, update_order)
        self._follow(update_order)

    def _follow(self, update_order):
        self._imported_order = update_order
        if self._own_method is None:
            self._own_method = self.method, self.update_order
        self.method, self.update_order = "power_iteration", update_order

    def restart_power_iteration(self):
        super().restart_power_iteration()
        if self._own_method is not None:
            (self.method, self.update_order), self._own_method = self._own_method, None
            self._imported_order = None
            for state in self.norm_states:
                state.update_order = self.update_order

    def set_weights(self, weights):
        """Set the weights, also those of a layer with one vector a kernel.

        Args:
            weights: List of arrays, as `get_weights` gives them, or without the
                block's vectors, which are then found on the kernel.
        """
        states = [*self.norm_states, *getattr(self, "rank_states", [])]
        blocks = {
            id(weight)
            for state in states
            for weight in getattr(state, "block_weights", [])
        }
        if not blocks or len(weights) != len(self.weights) - len(blocks):
            return super().set_weights(weights)
        given = iter(weights)
        super().set_weights(
            [w.numpy() if id(w) in blocks else next(given) for w in self.weights]
        )
        return self.restart_power_iteration()

    def form(self, index):
        """Return the `Scaling` of a kernel of `self.slots`."""
        return Scaling(self.bound, self.epsilon, self.clip)

    def bounds_operator(self, index):
        """Return whether the norm that is bounded is not that of the matrix."""
        return self.norm == "operator" and self.slots[index].operator is not None

    def transform(self, matrix, index, advance):
        if self.norm_states[index].factors:
            warn_of_factorization(self, matrix)
        form = self.form(index)
        if self.bounds_operator(index):
            norm = self.norm_states[index].triplet(matrix, advance).sigma
            return form.scale(norm) * matrix
        return self.norm_states[index].transformed(matrix, form, advance)

    @property
    def is_rank_one(self):
        """Whether `coefficients` says all that `transform` does."""
        return True

    def converged(self, matrix, index):
        capped = self.capped(matrix, index)
        if self.method == "power_iteration":
            # u' W v, which the layer divides by, may be negative where the vectors were
            # trained elsewhere; what is exported computes what the layer does.
            effective = self.transform(self.matrix(index), index, False)
            effective = ops.convert_to_numpy(effective).astype("float64")
            if np.sum(effective * capped) < 0:
                capped = 0.0 - capped  # Zeros stay without a sign.
        slot = self.slots[index]
        operator = None
        if self.bounds_operator(index):
            operator = slot.matrix_operator(self.norm, self.input_size)
        norm = converged_norm(capped, operator)
        return bounded_matrix(capped, norm, self.bound, self.epsilon, self.clip)

    def capped(self, matrix, index):
        """Return a matrix with all that `converged` does to it but scaling.

        Args:
            matrix: Array (inputs, outputs).
            index: Integer, which of `self.slots` it is.
        """
        return matrix

    def call(self, inputs, *args, training=None, **kwargs):
        layer = self.layer
        # A subclass may compute something else; half precision would round the
        # norm, which is more than rounding the effective kernel.
        plain = type(layer) is keras.layers.Dense
        if not (plain and self.is_rank_one and layer.compute_dtype == self.state_dtype):
            return super().call(inputs, *args, training=training, **kwargs)
        check_plain(layer)
        outputs = self._call_dense(inputs, self._advances(training))
        # What `Dense` does around its `call`; masks and the shape of inputs are seen
        # to by the wrapper's own `__call__`.
        if layer.activity_regularizer is not None:
            loss = layer.activity_regularizer(outputs)
            self.add_loss(loss / ops.cast(ops.shape(outputs)[0], loss.dtype))
        return self._cast_outputs(outputs)

    def _call_dense(self, inputs, advance):
        """Return the output of `Dense` without forming the effective kernel.

        v is one more row of the product x W, so that sigma u' = v W costs no
        pass over the kernel, and neither does the gradient of sigma: it is one
        more row of the product that makes the gradient of W.
        """
        layer = self.layer
        inputs = layer.dtype_policy.convert_input(
            inputs, layer.autocast, layer.input_dtype
        )
        kernel = self.matrix(0)
        # Integers are promoted, as they are in the product that `Dense` makes.
        rows = ops.cast(ops.reshape(inputs, (-1, kernel.shape[0])), kernel.dtype)
        products = []

        def matvec(v):
            product, image = turning_product(v, kernel, rows)
            products.append(product)
            return image

        if self.norm_states[0].factors:
            warn_of_factorization(self, kernel)
        leading = self.norm_states[0].triplet(kernel, advance, matvec)
        scale, rank_one = self.form(0).coefficients(kernel, leading.sigma)
        outputs = scale * products[0]
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

    @classmethod
    def from_config(cls, config, **kwargs):
        config = dict(config)
        imported = config.pop("imported_vectors", None)
        layer = super().from_config(config, **kwargs)
        layer._imported_order = imported
        return layer

    def get_config(self):
        # A copy has the weights that this has: also the block that is not in use.
        method, order = self._own_method or (self.method, self.update_order)
        imported = {"imported_vectors": self._imported_order}
        return {
            **super().get_config(),
            **(imported if self._imported_order else {}),
            "bound": self.bound,
            "power_iterations": self.power_iterations,
            "epsilon": self.epsilon,
            "norm": self.norm,
            "input_size": self.input_size,
            "clip": self.clip,
            "update_order": order,
            "method": method,
            "block_size": self.block_size,
        }
