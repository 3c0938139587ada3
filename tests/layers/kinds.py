"""One example of every kind of layer that the wrappers treat."""

import keras
import numpy as np
from keras import layers as kl


def images(*shape):
    return np.random.default_rng(0).standard_normal((4, *shape)).astype("float32")


def tokens():
    return np.array([[1, 2, 3, 0], [4, 0, 0, 0], [2, 2, 1, 3], [5, 5, 0, 0]])


# name -> (layer, batch)
KINDS = {
    "dense": (lambda **k: kl.Dense(5, activation="tanh", **k), images(7)),
    "dense in time": (lambda **k: kl.Dense(5, **k), images(3, 7)),
    "dense without bias": (lambda **k: kl.Dense(5, use_bias=False, **k), images(7)),
    "einsum": (
        lambda **k: kl.EinsumDense("abc,cde->abde", (3, 2, 4), bias_axes="e", **k),
        images(3, 6),
    ),
    "einsum with ellipsis": (
        lambda **k: kl.EinsumDense("...x,yx->...y", 4, **k),
        images(3, 6),
    ),
    "einsum of two axes": (
        lambda **k: kl.EinsumDense("abcd,cde->abe", (3, 4), **k),
        images(3, 2, 5),
    ),
    "conv1d": (lambda **k: kl.Conv1D(5, 3, padding="causal", **k), images(8, 3)),
    "conv2d": (
        lambda **k: kl.Conv2D(6, 3, strides=2, padding="same", **k),
        images(8, 7, 4),
    ),
    "conv2d in groups": (lambda **k: kl.Conv2D(6, 3, groups=2, **k), images(8, 8, 4)),
    "conv2d dilated": (
        lambda **k: kl.Conv2D(5, 3, dilation_rate=2, **k),
        images(8, 8, 3),
    ),
    "conv3d": (lambda **k: kl.Conv3D(4, 2, **k), images(4, 5, 4, 2)),
    "conv1d transpose": (
        lambda **k: kl.Conv1DTranspose(5, 3, strides=2, **k),
        images(6, 3),
    ),
    "conv2d transpose": (
        lambda **k: kl.Conv2DTranspose(5, 3, strides=2, padding="same", **k),
        images(5, 4, 3),
    ),
    "conv3d transpose": (lambda **k: kl.Conv3DTranspose(3, 2, **k), images(3, 3, 3, 2)),
    "depthwise conv1d": (
        lambda **k: kl.DepthwiseConv1D(3, depth_multiplier=2, **k),
        images(8, 3),
    ),
    "depthwise conv2d": (
        lambda **k: kl.DepthwiseConv2D(3, padding="same", **k),
        images(6, 6, 4),
    ),
    "separable conv1d": (lambda **k: kl.SeparableConv1D(5, 3, **k), images(8, 3)),
    "separable conv2d": (
        lambda **k: kl.SeparableConv2D(5, 3, depth_multiplier=2, **k),
        images(6, 6, 3),
    ),
    "embedding": (lambda **k: kl.Embedding(6, 3, **k), tokens()),
    "simple rnn": (lambda **k: kl.SimpleRNN(4, **k), images(5, 3)),
    "lstm": (lambda **k: kl.LSTM(4, return_sequences=True, **k), images(5, 3)),
    "gru": (lambda **k: kl.GRU(4, **k), images(5, 3)),
    "stacked cells": (
        lambda **k: kl.RNN([kl.LSTMCell(3, **k), kl.GRUCell(4, **k)], **k),
        images(5, 3),
    ),
    "lstm of lines": (lambda **k: kl.ConvLSTM1D(3, 3, **k), images(3, 6, 2)),
    "lstm of images": (
        lambda **k: kl.ConvLSTM2D(3, (3, 2), strides=2, padding="same", **k),
        images(3, 6, 5, 2),
    ),
    "lstm of volumes": (lambda **k: kl.ConvLSTM3D(2, 2, **k), images(2, 4, 3, 4, 2)),
    "reversible embedding": (lambda **k: kl.ReversibleEmbedding(6, 3, **k), tokens()),
    "bidirectional": (
        lambda **k: kl.Bidirectional(kl.LSTM(3, **k), **k),
        images(5, 3),
    ),
    "time distributed": (
        lambda **k: kl.TimeDistributed(kl.Dense(4, **k), **k),
        images(5, 3),
    ),
    "convolution in time": (
        lambda **k: kl.TimeDistributed(kl.Conv2D(4, 3, **k), **k),
        images(3, 6, 6, 2),
    ),
}


def attention(**arguments):
    return kl.MultiHeadAttention(2, 4, **arguments)


def grouped_attention(**arguments):
    return kl.GroupQueryAttention(3, 4, 2, use_gate=True, **arguments)


# Layers of two inputs.
ATTENTION = {"attention": attention, "grouped attention": grouped_attention}


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)
