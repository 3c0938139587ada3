"""The graph of a model, against models whose wiring is written out."""

import keras
import pytest
from keras import layers as kl

from keras_spectral.models import graph


class Own(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.operations = []

    def call(self, x):
        return x


class Named(keras.Model):
    """A functional model with a config of its own."""

    def __init__(self, units):
        x = keras.Input((3,))
        super().__init__(x, kl.Dense(units)(x))
        self.units = units

    def get_config(self):
        return {"units": self.units}


def branched():
    x = keras.Input((4,), name="x")
    shared = kl.Dense(4, name="shared")
    y = shared(x)
    total = kl.Concatenate(name="both")([shared(y), kl.ReLU(name="relu")(y)])
    return keras.Model(x, kl.Dense(2, name="head")(total * 2.0), name="branched")


def test_what_each_operation_reads():
    found = {node.operation.name: node.reads for node in graph.nodes(branched())}
    (product,) = set(found) - {"x", "shared", "both", "relu", "head"}
    assert found == {
        "x": [], "shared": ["x", "shared"], "relu": ["shared"],
        "both": ["shared", "relu"], product: ["both"], "head": [product],
    }  # fmt: skip


def test_calls_in_other_models_are_not_counted():
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    dense, last = kl.Dense(4, name="dense"), kl.Dense(4, name="last")
    last(dense(y))
    model = keras.Model(x, dense(last(x)))
    found = [(node.operation.name, node.reads) for node in graph.nodes(model)]
    assert found == [("x", []), ("last", ["x"]), ("dense", ["last"])]
    chain = [operation.name for operation in graph.chain(model)]
    assert chain == ["x", "last", "dense"]


def test_a_sequential_model_and_nested_ones():
    layers = [keras.Input((4,)), kl.Dense(4, name="a"), kl.ReLU(name="b")]
    inner = keras.Sequential(layers)
    x = keras.Input((4,), name="x")
    outer = keras.Model(x, kl.Dense(2, name="c")(inner(x)))
    assert [node.reads for node in graph.nodes(inner)] == [[], ["a"]]
    assert [node.operation for node in graph.nodes(outer)][1] is inner
    assert [operation.name for operation in graph.chain(outer)] == ["x", "a", "b", "c"]
    named = graph.follow(outer, ["x"], lambda operation, *_: [operation.name])
    assert named == ["c"]


def test_which_models_have_a_graph():
    x = keras.Input((3,))
    assert graph.has_graph(keras.Model(x, kl.Dense(2)(x)))
    assert graph.has_graph(keras.Sequential())
    assert graph.has_graph(Named(2))
    # `operations` of its own makes no model functional.
    assert not graph.has_graph(Own())
    assert not graph.has_graph(keras.Function(x, kl.Dense(2)(x)))
    assert not graph.has_graph(kl.Dense(2))


def test_nested_models_are_followed_call_by_call():
    """What each tensor is, written out: the shared inner model once a use."""
    x = keras.Input((4,), name="x")
    inner = keras.Sequential([keras.Input((4,)), kl.Dense(4, name="fc")], name="inner")
    own = Named(4)
    y = keras.Input((3,), name="y")
    outputs = [kl.Add(name="sum")([inner(inner(x)), x]), own(y)]
    model, seen = keras.Model([x, y], outputs), []

    def call(operation, arguments, keywords, made):
        assert len(made) == 1
        return [f"{operation.name}({','.join(keras.tree.flatten(arguments))})"]

    found = graph.follow(
        model, ["x", "y"], call, lambda operation, *_: seen.append(operation.name)
    )
    assert found[0] == "sum(fc(fc(x)),x)"
    # A subclass of a functional model with no `call` of its own is what its graph says.
    assert found[1].endswith("(y)") and found[1].startswith("dense")
    assert seen.count("inner") == seen.count("fc") == 2
    z = keras.Input((4,), name="z")
    named = keras.Model({"z": z}, kl.Dense(2)(z), name="named")
    with pytest.raises(ValueError, match="lists of tensors.*'named'"):
        graph.follow(keras.Model(x, named({"z": x})), ["x"], call)


def test_models_without_a_graph_are_refused():
    with pytest.raises(ValueError, match="cannot be replaced from outside.*own"):
        graph.check_graph(Own())
    with pytest.raises(ValueError, match="must be built"):
        graph.check_graph(keras.Sequential([kl.Dense(2)]))
    for model in (Own(), Named(2)):
        with pytest.raises(ValueError, match="whose layers can be followed"):
            graph.nodes(model)
    with pytest.raises(ValueError, match="'shared', a Dense, which reads 2"):
        list(graph.chain(branched()))


def test_the_layer_of_the_output():
    model = branched()
    names = [layer.name for layer in model.layers if graph.is_output(model, layer)]
    assert names == ["head"]
    x = keras.Input((4,))
    first, second = kl.Dense(2), kl.Dense(2)
    pair = keras.Model(x, [first(x), second(x)])
    assert not graph.is_output(pair, first) and not graph.is_output(pair, second)
    assert not graph.is_output(Own(), first)
    assert not graph.is_output(pair, kl.Dense(2))
