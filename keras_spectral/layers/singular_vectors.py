"""Where a wrapper takes the leading singular triplet of its kernel from."""

import math

import keras
import numpy as np
from keras import ops

from keras_spectral.linalg import (
    SingularTriplet,
    dense_operator,
    iterate,
    leading_right_vector,
    normalized,
)

# What `torch.nn.utils.parametrizations.spectral_norm` runs at registration.
WARM_UP_ITERATIONS = 15

# An eigendecomposition a step is cheap up to here.
LARGEST_EXACT_SIDE = 512


class SingularVectors(keras.layers.Layer):
    """Estimates u and v of one operator, advanced once a training step.

    Until the first training step they are random, so every reading iterates
    `WARM_UP_ITERATIONS` times first, without storing; the first step stores.
    That keeps inference pure and an untrained layer normalized.

    Args:
        make_operator: Callable, kernel tensor to `LinearOperator`.
        read_kernel: Callable without arguments, to the kernel tensor of now.
        power_iterations: Integer >= 1, iterations a training step.
        update_order: `"v_first"` or `"u_first"`.
        dtype: Dtype of the state, `"float32"` or `"float64"`.
        name: String, prefix of the weights' names.
    """

    def __init__(
        self, make_operator, read_kernel, power_iterations, update_order, dtype, name
    ):
        super().__init__(dtype=dtype, autocast=False, name=name)
        self.make_operator = make_operator
        self.read_kernel = read_kernel
        self.power_iterations = power_iterations
        self.update_order = update_order

    def build(self, kernel_shape):
        operator = self.make_operator(ops.zeros(kernel_shape, self.variable_dtype))

        def state(name, shape, seed):
            return self.add_weight(
                name=name,
                shape=shape,
                # A fixed seed: two runs of one script give one result.
                initializer=keras.initializers.RandomNormal(stddev=1.0, seed=seed),
                trainable=False,
                autocast=False,
                # u and v depend on the kernel alone, so replicas agree, and a
                # mean of unit vectors would shrink them.
                aggregation="only_first_replica",
            )

        self.u = state("u", operator.output_shape, seed=1)
        self.v = state("v", operator.input_shape, seed=2)
        self.updates = self.add_weight(
            name="updates",
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def restart(self):
        """Find u and v anew, as after the kernel was replaced."""
        kernel = self.read_kernel()
        small = math.prod(kernel.shape) <= 2**18
        if small and self.make_operator is dense_operator:
            u, v = self._warmed_up_in_numpy(ops.convert_to_numpy(kernel))
        else:
            u, v = self._warmed_up(self.make_operator(ops.stop_gradient(kernel)))
        self.u.assign(u)
        self.v.assign(v)
        self.updates.assign(0)

    def load(self, u, v, update_order):
        """Take over vectors that were trained with this kernel elsewhere.

        Args:
            u: Array (outputs,).
            v: Array (inputs,).
            update_order: `"v_first"` or `"u_first"`, how they were trained.
        """
        self.u.assign(u)
        self.v.assign(v)
        self.updates.assign(1)
        self.update_order = update_order

    def _warmed_up_in_numpy(self, matrix):
        """Do what `_warmed_up` does; thousands of eager operations are slow."""
        # In float64 no square of a float32 leaves the range.
        matrix = matrix.astype("float64")
        u, v = (ops.convert_to_numpy(x).astype("float64") for x in self._stored())

        def unit(x, fallback):
            norm = np.linalg.norm(x)
            return x / norm if 0 < norm < np.inf else fallback

        for _ in range(WARM_UP_ITERATIONS):
            if self.update_order == "v_first":
                v = unit(matrix @ u, v)
                u = unit(v @ matrix, u)
            else:
                u = unit(v @ matrix, u)
                v = unit(matrix @ u, v)
        return u, v

    def _stored(self):
        return ops.convert_to_tensor(self.u), ops.convert_to_tensor(self.v)

    def _warmed_up(self, fixed):
        def step(_, vectors):
            return iterate(fixed, *vectors, update_order=self.update_order)

        return ops.fori_loop(0, WARM_UP_ITERATIONS, step, self._stored())

    def _vectors(self, fixed, advance):
        """Return the stored u and v, or warmed up ones before the first step."""
        if advance and self._warmed_up_while_tracing():
            return self._stored()
        return ops.cond(
            ops.convert_to_tensor(self.updates) > 0,
            self._stored,
            lambda: self._warmed_up(fixed),
        )

    def _warmed_up_while_tracing(self):
        """Warm up before a training step is traced; return whether that was done.

        One branch in a TensorFlow graph slows the executor down for all of it, by
        8 % on wide dense layers. A step is traced before it first runs, so the
        branch can be taken then, outside of the graph.
        """
        if keras.backend.backend() != "tensorflow":
            return False
        import tensorflow as tf

        if tf.executing_eagerly() or tf.distribute.has_strategy():
            return False
        with tf.init_scope():
            if not tf.executing_eagerly():
                return False
            if int(self.updates) == 0:
                self.restart()
        return True

    def triplet(self, kernel, advance=False, matvec=None) -> SingularTriplet:
        """Return u, sigma and v for `kernel`; sigma carries the gradient.

        Args:
            kernel: Float tensor in the dtype of the state.
            advance: Boolean, whether to iterate and store.
            matvec: Callable v -> A v, where the caller has a cheaper way to it
                than the operator's. It is called once.
        """
        # u and v are found on a kernel that no gradient reaches.
        fixed = self.make_operator(ops.stop_gradient(kernel))
        u, v = self._vectors(fixed, advance)
        # A v gives sigma and, with the papers' order, the last u as well.
        u_from_image = advance and self.update_order == "v_first"
        if u_from_image:
            u, v = iterate(fixed, u, v, self.power_iterations - 1, "v_first")
            v = ops.stop_gradient(normalized(fixed.adjoint(u), v))
        elif advance:
            u, v = iterate(fixed, u, v, self.power_iterations, "u_first")
        image = (matvec or self.make_operator(kernel).matvec)(v)
        if u_from_image:
            u = normalized(ops.stop_gradient(image), u)
        u = ops.stop_gradient(u)
        if advance:
            self.u.assign(u)
            self.v.assign(v)
            self.updates.assign_add(1)
        return SingularTriplet(u, ops.sum(u * image), v)


class ExactSingularVectors(keras.layers.Layer):
    """Finds u and v of a matrix anew in each call; no weights, no estimate."""

    def triplet(self, kernel, advance=False, matvec=None) -> SingularTriplet:
        """Return u, sigma and v as `SingularVectors.triplet` does."""
        operator = dense_operator(kernel)
        v = leading_right_vector(ops.transpose(kernel))
        image = (matvec or operator.matvec)(v)
        outputs = operator.output_shape[0]
        constant = ops.full((outputs,), outputs**-0.5, dtype=kernel.dtype)
        u = ops.stop_gradient(normalized(ops.stop_gradient(image), constant))
        return SingularTriplet(u, ops.sum(u * image), v)
