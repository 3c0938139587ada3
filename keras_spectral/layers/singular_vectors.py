"""Where a wrapper takes the leading singular triplet of its kernel from."""

import contextlib
import math

import keras
import numpy as np
from keras import ops

from keras_spectral.layers.following import Following, transformed
from keras_spectral.layers.vector_state import are_uncounted
from keras_spectral.linalg import (
    LARGEST_FACTORED_SIDE,
    SingularTriplet,
    dense_operator,
    krylov_left_vectors,
    leading_left_vectors,
)
from keras_spectral.linalg.arrays import largest_entry

# On the host and outside of training: 1e-5 of the norm of a 2048-wide kernel.
_RESTART_DEPTH = 24

# Smaller sides that are factored in each call, in units of the block's size: an
# iteration of the block factors three times its size, and does more besides.
_FACTORED = 4

# On the device, where the kernel had no value yet when the state was made.
_BLIND_ITERATIONS = 15


class SingularVectors(keras.layers.Layer):
    """Estimates singular vectors of one operator, advanced once a training step.

    They are found when the layer is built, so an untrained layer is normalized.
    Inference is a function of the weights alone and changes none.

    With a block the left vectors of the largest singular values are kept, and the last
    right ones with the directions in which they moved: a call takes the best vector in
    the span of all (`linalg.block_iterate`), and a training step stores what it found.
    A matrix with hardly more rows than that span is factored in each call, and nothing
    but u and v is kept. With one vector, u and v are kept, and inference takes them as
    they are, as PyTorch does.

    Args:
        make_operator: Callable, kernel tensor to `LinearOperator`.
        read_kernel: Callable without arguments, to the kernel tensor of now.
        power_iterations: Integer >= 1, iterations a training step.
        update_order: `"v_first"` or `"u_first"`, for one vector.
        block_size: Integer >= 1, or `None` for one vector.
        dtype: Dtype of the state, `"float32"` or `"float64"`.
        name: String, prefix of the weights' names.
    """

    def __init__(
        self,
        make_operator,
        read_kernel,
        power_iterations,
        update_order,
        block_size,
        dtype,
        name,
    ):
        super().__init__(dtype=dtype, autocast=False, name=name)
        # Why a second derivative by the kernel is refused, if it is.
        self.refusal = None
        self.make_operator = make_operator
        self.read_kernel = read_kernel
        self.power_iterations = power_iterations
        self.update_order = update_order
        self.block_size = block_size

    def build(self, kernel_shape):
        operator = self.make_operator(ops.zeros(kernel_shape, self.variable_dtype))
        self._shapes = operator.output_shape, operator.input_shape
        self._blind, self._start = False, None

        def state(name, shape, dtype=None):
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=lambda shape, dtype=None: self._initial(name, shape, dtype),
                dtype=dtype,
                trainable=False,
                autocast=False,
                # They depend on the kernel alone, so replicas agree, and a mean of
                # unit vectors would shrink them.
                aggregation="only_first_replica",
            )

        self._imported = False
        left, right = self._shapes
        side, size = min(math.prod(left), math.prod(right)), self.block_size or 0
        # The Gram matrix of a small side costs less than an iteration of a block.
        self._factored = operator.matrix is not None and side <= _FACTORED * size
        if self._factored:
            size = 0
        elif side <= 2 * size:
            # Of an operator whose matrix is not at hand: all, which leaves nothing out.
            size = side
        # Left vectors that are followed, and the right ones, and directions, among
        # which the best is looked for; no more rows than the side, or they would be
        # dependent.
        self._followed, self._kept = size, min(size, (side - size) // 2)
        # A step turns wider kernels further: the first ones by more than one iteration
        # follows.
        self._iterations = self.power_iterations * (
            2 if side > LARGEST_FACTORED_SIDE else 1
        )
        self.u, self.v = state("u", left), state("v", right)
        self.left = self.right = None
        if size > 1:
            self.left = state("left", (size, *_without_batch(left)))
        if self._kept:
            rows = 2 * self._kept
            self.right = state("right", (rows, *_without_batch(right)))
        # Training steps since the vectors were found; -1 where they are not yet.
        self.updates = state("updates", (), dtype="int32")

    @property
    def weights(self):
        return [] if are_uncounted() else super().weights

    @property
    def factors(self):
        """Whether a call factors the matrix."""
        return self._factored and not self._imported

    @property
    def block_weights(self):
        """The weights that only a block has."""
        return [w for w in (self.left, self.right) if w is not None]

    @property
    def follows_block(self):
        """Whether the block is in use: not while imported vectors are."""
        return self._followed > 0 and not self._imported

    def _initial(self, name, shape, dtype):
        """Return a weight's first value, found on the kernel that stands.

        Keras may ask for it while it traces, when the kernel has no value, and once
        more when it has; `updates` comes last.
        """
        if self._start is None:
            self._start = self._found()
        found = self._start
        if name == "updates":
            self._start, self._blind = None, found is None
            value = -1 if found is None else 0
        elif found is not None:
            value = found[name]
        else:
            value = np.random.default_rng(len(name)).standard_normal(shape)
            axes = tuple(range(name in ("left", "right"), len(shape)))
            value = value / np.sqrt(np.sum(value**2, axis=axes, keepdims=True))
        return ops.convert_to_tensor(value, dtype=dtype)

    def _found(self, depth=8):
        """Find the vectors on the host; `None` if the kernel cannot be read."""
        with _outside_of_traces():
            try:
                kernel = ops.convert_to_numpy(self.read_kernel())
            except Exception:
                # What a backend raises for a tensor without a value is its own affair.
                return None
            return self._found_on(kernel, depth)

    def _found_on(self, kernel, depth):
        left, right = self._shapes
        size = math.prod(left)
        # One vector is found as well as a block of eight is.
        count = self._followed or min(8, size, math.prod(right))
        # The vectors do not depend on it, and products of two kernels overflow.
        scale = largest_entry(kernel) or kernel.dtype.type(1)
        if self.make_operator is dense_operator:
            rows = leading_left_vectors(kernel, count, depth)
            images = (kernel @ (rows[::-1] / scale).T).T
        else:
            operator = self.make_operator(ops.convert_to_tensor(kernel / scale))
            apply = self._on_arrays(operator.matvec, right, kernel.dtype)
            adjoint = self._on_arrays(operator.adjoint, left, kernel.dtype)
            rows = krylov_left_vectors(apply, adjoint, size, count, depth, kernel.dtype)
            images = adjoint(rows[::-1])
        # Leading first, each of length one.
        images = images / np.maximum(np.abs(images).max(axis=1, keepdims=True), 1e-37)
        lengths = np.linalg.norm(images, axis=1, keepdims=True)
        constant = np.full_like(images, images.shape[1] ** -0.5)
        vectors = np.where(
            lengths > 0, images / np.where(lengths > 0, lengths, 1), constant
        )
        found = {"u": rows[-1].reshape(left), "v": vectors[0].reshape(right)}
        if self._followed:
            found["left"] = rows.reshape(-1, *_without_batch(left))
            kept = self._kept
            # Nothing has moved yet: any direction will do.
            directions = np.random.default_rng(0).standard_normal(vectors[:kept].shape)
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            rows = np.concatenate([vectors[:kept], directions])
            found["right"] = rows.reshape(-1, *_without_batch(right))
        return found

    @staticmethod
    def _on_arrays(function, shape, dtype):
        """Make a map of stacked images one of arrays of rows."""

        def apply(rows):
            rows = rows.reshape(-1, *_without_batch(shape)).astype(dtype)
            images = ops.convert_to_numpy(function(ops.convert_to_tensor(rows)))
            return images.reshape(len(rows), -1)

        return apply

    def restart(self):
        """Find the vectors anew, as after the kernel was replaced."""
        found = self._found(_RESTART_DEPTH)
        if found is None:
            raise RuntimeError(
                "`restart_power_iteration` must be called outside of compiled "
                f"functions. Received: the kernel of '{self.name}', which has no value."
            )
        for name in self._found_names:
            getattr(self, name).assign(found[name])
        self.updates.assign(0)
        self._imported = False

    @property
    def _found_names(self):
        block = [name for name in ("left", "right") if getattr(self, name) is not None]
        return ["u", "v", *block]

    def load(self, u, v, update_order):
        """Take over vectors that were trained with this kernel elsewhere.

        Training then goes on as it would have there, with one vector, until `restart`.

        Args:
            u: Array (outputs,).
            v: Array (inputs,).
            update_order: `"v_first"` or `"u_first"`, how they were trained.
        """
        # The block is for a model that gets these weights and does follow it.
        self.restart()
        self.u.assign(u)
        self.v.assign(v)
        self.updates.assign(1)
        self.follow(update_order)

    def follow(self, update_order):
        """Follow u and v alone, as they were trained elsewhere, until `restart`."""
        self.update_order = update_order
        self._imported = True

    def save_own_variables(self, store):
        if not self._imported:
            return super().save_own_variables(store)
        # The block is not in use: a layer that follows one finds it anew.
        for index, weight in enumerate((self.u, self.v, self.updates)):
            store[f"{index}"] = ops.convert_to_numpy(weight)

    def load_own_variables(self, store):
        # Files of one vector, and all that were written before there was a block, have
        # three entries. Those of imported vectors have a block that is not in use.
        count = len(store.keys())
        found = count > 3 or not self.follows_block
        if (count == 3) == (not self.block_weights):
            super().load_own_variables(store)
        else:
            for index, weight in ((0, self.u), (1, self.v), (count - 1, self.updates)):
                weight.assign(store[f"{index}"])
        updates = int(ops.convert_to_numpy(self.updates))
        if updates <= 0 or not found:
            # Keras has loaded `layer`, the kernel, before `norm_states`.
            self.restart()
            self.updates.assign(max(updates, 0))

    def _following(self, advance):
        return Following(
            factors=self.factors,
            follows_block=self.follows_block,
            has_left=self.left is not None,
            kept=self._kept,
            iterations=(
                self._iterations if self.follows_block else self.power_iterations
            ),
            update_order=self.update_order,
            # What else is computed does not depend on it.
            advance=advance and not (self.factors or self.follows_block),
            refusal=self.refusal,
        )

    def _stored(self):
        weights = [self.u, self.v, *self.block_weights]
        # Read now: a traced function would be traced anew for each variable.
        return [ops.stop_gradient(weight) for weight in weights]

    def _vectors(self, kernel, following):
        """Return the values of the weights, found first where that was not possible."""
        if following.factors:
            return []
        if not self._blind:
            # A branch in a TensorFlow graph slows its executor down: 8 % of a step of
            # wide dense layers.
            return self._stored()
        fixed = self.make_operator(ops.stop_gradient(kernel))
        return ops.cond(
            ops.convert_to_tensor(self.updates) >= 0,
            self._stored,
            lambda: ops.fori_loop(
                0,
                _BLIND_ITERATIONS,
                lambda _, vectors: following.iterated(fixed, vectors, 1),
                self._stored(),
            ),
        )

    def _store(self, vectors):
        weights = [self.u, self.v, *self.block_weights]
        # Factored, there are no more.
        for weight, value in zip(weights, vectors):  # noqa: B905
            weight.assign(value)
        updates = ops.maximum(self.updates, 0) if self._blind else self.updates
        self.updates.assign(updates + 1)

    def triplet(self, kernel, advance=False, matvec=None) -> SingularTriplet:
        """Return u, sigma and v for `kernel`; sigma carries the gradient.

        Args:
            kernel: Float tensor in the dtype of the state.
            advance: Boolean, whether to iterate and store.
            matvec: Callable v -> A v, where the caller has a cheaper way to it
                than the operator's. It is called once.
        """
        following = self._following(advance)
        vectors = self._vectors(kernel, following)
        triplet, vectors = following.triplet(
            kernel, vectors, self.make_operator, matvec
        )
        if advance:
            self._store(vectors)
        return triplet

    def transformed(self, matrix, form, advance=False):
        """Return what `form` makes of a matrix and its `triplet`.

        Args:
            matrix: Float tensor (inputs, outputs) in the dtype of the state, whose
                own norm is followed.
            form: A `rank_one_forms.Scaling`.
            advance: Boolean, whether to iterate and store.
        """
        following = self._following(advance)
        vectors = self._vectors(matrix, following)
        effective, vectors = transformed(
            matrix, *vectors, following=following, form=form
        )
        if advance:
            self._store(vectors)
        return effective


class ExactSingularVectors(keras.layers.Layer):
    """Finds u and v of a matrix anew in each call; no weights, no estimate."""

    refusal, factors = None, True

    def triplet(self, kernel, advance=False, matvec=None) -> SingularTriplet:
        """Return u, sigma and v as `SingularVectors.triplet` does."""
        return Following(refusal=self.refusal).triplet(kernel, [], matvec=matvec)[0]

    def transformed(self, matrix, form, advance=False):
        """Return what `SingularVectors.transformed` does."""
        following = Following(refusal=self.refusal)
        return transformed(matrix, following=following, form=form)[0]


def _without_batch(shape):
    """Return the shape of one vector in a stack; images have a batch axis already."""
    return tuple(shape[1:]) if len(shape) > 1 else tuple(shape)


def _outside_of_traces():
    """Return a context in which operations run now, while a function is traced."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.init_scope()
    if keras.backend.backend() == "jax":
        import jax

        return jax.ensure_compile_time_eval()
    return contextlib.nullcontext()
