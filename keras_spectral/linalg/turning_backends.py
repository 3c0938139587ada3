"""Vectors that turn in second derivatives, as JAX and torch differentiate.

How they turn is told by the `turn`s of `linalg.turning`: `pull` and `push`.
"""

import functools
from typing import Any, NamedTuple


class _Jax(NamedTuple):
    held: Any
    turned: Any


@functools.cache
def jax_functions():
    """Return vectors that are constants until they are differentiated twice, in JAX."""
    import jax

    @functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
    def turned(vector, matrix, turn):
        return vector

    @turned.defjvp
    def _(turn, primals, tangents):
        vector, matrix = primals
        moved = turn.push(vector, matrix, tangents[1])
        return turned(vector, matrix, turn), tangents[0] + moved

    # Forward mode would raise where a derivative is made and then not used.
    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def refused(vector, matrix, turn):
        return vector

    refused.defvjp(
        lambda vector, matrix, turn: (vector, None),
        lambda turn, _, upstream: turn.pull(None, None, upstream),
    )

    @functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
    def held(vector, matrix, turn):
        return vector

    def no_tangent(turn, primals, tangents):
        again = refused if turn.refuses else turned
        return again(*primals, turn), tangents[0]

    held.defjvp(no_tangent, symbolic_zeros=True)
    return _Jax(held, turned)


class _Torch(NamedTuple):
    Product: Any
    Norm: Any
    SingularValue: Any
    turned: Any


@functools.cache
def torch_functions():
    """Return the operations of `linalg.turning` as functions of torch's autograd."""
    import torch

    class Function(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def setup_context(ctx, inputs, output):
            *tensors, ctx.turn = inputs
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)

    class Turned(Function):
        @staticmethod
        def forward(vector, matrix, turn):
            return vector.clone()

        @staticmethod
        def backward(ctx, upstream):
            return upstream, ctx.turn.pull(*ctx.saved_tensors, upstream), None

        @staticmethod
        def jvp(ctx, vector_change, change, _):
            return vector_change + ctx.turn.push(*ctx.saved_tensors, change)

    def late(vector, matrix, turn):
        # A plain backward pass records nothing that could be differentiated.
        return Turned.apply(vector, matrix, turn) if torch.is_grad_enabled() else vector

    class Product(Function):
        @staticmethod
        def forward(rows, kernel, v, turn):
            whole = torch.cat([rows, v[None]]) @ kernel
            return whole[:-1], whole[-1]

        @staticmethod
        def backward(ctx, upstream, of_image):
            rows, kernel, v = ctx.saved_tensors
            by_rows = by_kernel = None
            if ctx.needs_input_grad[0]:
                by_rows = upstream @ kernel.T
            if ctx.needs_input_grad[1]:
                left = torch.cat([rows, late(v, kernel, ctx.turn)[None]])
                by_kernel = left.T @ torch.cat([upstream, of_image[None]])
            return by_rows, by_kernel, None, None

        @staticmethod
        def jvp(ctx, rows_change, change, *_):
            rows, kernel, v = ctx.saved_tensors
            moved = rows_change @ kernel + rows @ change
            return moved, late(v, kernel, ctx.turn) @ change

    class Norm(Function):
        @staticmethod
        def forward(u, image, kernel, turn):
            return (u * image).sum()

        @staticmethod
        def backward(ctx, upstream):
            u, _, kernel = ctx.saved_tensors
            return None, upstream * late(u, kernel, ctx.turn), None, None

        @staticmethod
        def jvp(ctx, _, change, *__):
            u, _, kernel = ctx.saved_tensors
            return (late(u, kernel, ctx.turn) * change).sum()

    class SingularValue(Function):
        @staticmethod
        def forward(u, v, kernel, turns):
            return (u * (v @ kernel)).sum()

        @staticmethod
        def backward(ctx, upstream):
            u, v = SingularValue.late(ctx)
            return None, None, upstream * torch.outer(v, u), None

        @staticmethod
        def jvp(ctx, _, __, change, ___):
            u, v = SingularValue.late(ctx)
            return (u * (v @ change)).sum()

        @staticmethod
        def late(ctx):
            u, v, kernel = ctx.saved_tensors
            left, right = ctx.turn
            return late(u, kernel, right), late(v, kernel, left)

    return _Torch(Product, Norm, SingularValue, Turned.apply)
