"""How singular vectors follow a kernel that trains, as a function of tensors."""

from dataclasses import dataclass

from keras import ops

from keras_spectral.linalg import (
    SingularTriplet,
    block_iterate,
    dense_operator,
    iterate,
    leading_triplet,
    normalized,
    turning_norm,
    turning_singular_value,
)
from keras_spectral.linalg.power_iteration import inner_product
from keras_spectral.linalg.tracing import traced_once


@dataclass(frozen=True)
class Following:
    """From a kernel and the vectors of the last step to those of now.

    A value, so that layers that do the same share what TensorFlow traces. Vectors are
    a list: u, v, then the left ones of a block, where it has more than one, and the
    right ones with directions, where it keeps any.

    Args:
        factors: Boolean; whether the matrix is factored, without regard to vectors.
        follows_block: Boolean; whether u and v are those of the block.
        has_left: Boolean; whether left vectors are among the vectors.
        kept: Integer, right vectors that are kept.
        iterations: Integer >= 1, iterations of a training step.
        update_order: `"v_first"` or `"u_first"`, for one vector.
        advance: Boolean; whether the vectors that come out are stored.
        refusal: String, why a second derivative by the kernel is refused, or `None`.
    """

    factors: bool = True
    follows_block: bool = False
    has_left: bool = False
    kept: int = 0
    iterations: int = 1
    update_order: str = "v_first"
    advance: bool = False
    refusal: str | None = None

    def iterated(self, operator, vectors, iterations):
        """Return vectors advanced by whole iterations; without a gradient."""
        if self.follows_block:
            return self._block_iterated(operator, vectors, iterations)
        u, v, *block = vectors
        return [*iterate(operator, u, v, iterations, self.update_order), *block]

    def _block_iterated(self, operator, vectors, iterations):
        u, v, *more = vectors
        left = more[0] if self.has_left else _row(u)
        right = more[-1] if self.kept else _row(v)
        for _ in range(iterations):
            left, right = block_iterate(operator, left, right, self.kept)
        u, v = _like(left[-1], u), _like(right[0], v)
        return [u, v, *[left] * self.has_left, *[right] * (self.kept > 0)]

    def triplet(self, kernel, vectors, make_operator=dense_operator, matvec=None):
        """Return a `SingularTriplet`, whose sigma has a gradient, and the vectors.

        Args:
            kernel: Float tensor.
            vectors: List of tensors, without those of a block if none is followed or
                advanced; empty if the kernel is factored.
            make_operator: Callable, kernel tensor to `LinearOperator`.
            matvec: Callable v -> A v, where the caller has a cheaper way to it
                than the operator's. It is called once.
        """
        if self.factors:
            return self._factored(kernel, matvec)
        # The vectors are found on a kernel that no gradient reaches.
        fixed = make_operator(ops.stop_gradient(kernel))
        finish = False
        if self.follows_block:
            # In inference as well: the kernel was updated since the last step.
            vectors = self.iterated(fixed, vectors, self.iterations)
        else:
            if self.advance and len(vectors) > 2:
                # Beside imported vectors, for a model that gets these weights.
                block = self._block_iterated(fixed, vectors, 1)[2:]
                vectors = [*vectors[:2], *block]
            # A v gives sigma and, with the papers' order, the last u as well.
            finish = self.advance and self.update_order == "v_first"
            vectors = self.iterated(
                fixed, vectors, (self.iterations - finish) * self.advance
            )
            if finish:
                vectors[1] = normalized(fixed.adjoint(vectors[0]), vectors[1])
        u, v, *block = (ops.stop_gradient(vector) for vector in vectors)
        own = matvec is None and make_operator is dense_operator
        if own:
            # Not `ops.matmul`, which computes in float32 on torch.
            image = (_row(v) @ fixed.matrix)[0]
        else:
            image = (matvec or make_operator(kernel).matvec)(v)
        if finish:
            u = ops.stop_gradient(normalized(ops.stop_gradient(image), u))
        if own:
            sigma = inner_product(u, image)
            sigma = turning_singular_value(sigma, u, v, kernel, self.refusal)
        else:
            sigma = turning_norm(u, image, kernel, self.refusal)
        return SingularTriplet(u, sigma, v), [u, v, *block]

    def _factored(self, kernel, matvec):
        u, sigma, v = leading_triplet(kernel)
        if matvec is None:
            sigma = turning_singular_value(sigma, u, v, kernel, self.refusal)
        else:
            sigma = turning_norm(u, matvec(v), kernel, self.refusal)
        return SingularTriplet(u, sigma, v), [u, v]


@traced_once
def transformed(kernel, *vectors, following, form):
    """Return what a form makes of a matrix and its triplet, and the vectors.

    Args:
        kernel: Float tensor (inputs, outputs).
        *vectors: Tensors, see `Following.triplet`.
        following: A `Following`.
        form: A `rank_one_forms.Scaling`.
    """
    triplet, vectors = following.triplet(kernel, list(vectors))
    return form.transformed(kernel, *triplet), vectors


def _like(row, vector):
    """Return one of a stack in the shape of a vector, or of an image with its batch."""
    return row if len(vector.shape) == 1 else ops.reshape(row, vector.shape)


def _row(vector):
    """Return a vector as a stack of one."""
    return vector if len(vector.shape) > 1 else ops.expand_dims(vector, 0)
