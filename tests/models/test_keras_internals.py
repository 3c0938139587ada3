"""What the package needs of Keras' insides, against the Keras that is installed."""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_spectral
from keras_spectral.models import keras_internals

PACKAGE = Path(keras_spectral.__file__).parent
HOME = "models/keras_internals.py"


def moved(name, users):
    return (
        f"Keras {keras.__version__} has no `{name}` as before: {users} need it. Find "
        f"its new place and change keras_spectral/{HOME}."
    )


def dense():
    return keras.Sequential([keras.Input((3,)), kl.Dense(2, name="dense")])


@pytest.mark.parametrize(
    "layer, shape",
    [
        (kl.Dense(2), (None, 3)),
        (kl.EinsumDense("ab,bc->ac", 2), (None, 3)),
        (kl.Conv1D(2, 3), (None, 5, 3)),
        (kl.Conv2D(2, 3), (None, 5, 5, 3)),
        (kl.Conv3D(2, 3), (None, 5, 5, 5, 3)),
        (kl.Embedding(2, 3), (None,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_variables_of_kernels(layer, shape):
    layer.build(shape)
    name, public = keras_internals.KERNEL, "kernel"
    if isinstance(layer, kl.Embedding):
        name, public = keras_internals.EMBEDDINGS, "embeddings"
    message = moved(f"{type(layer).__name__}.{name}", "models/kinds.py and wrappers")
    assert getattr(layer, name, None) is getattr(layer, public), message
    assert any(getattr(layer, name) is variable for variable in layer.weights), message
    if hasattr(layer, "enable_lora"):
        # What the constants are for: the variable stays where the property adds to it.
        before = getattr(layer, name)
        layer.enable_lora(1)
        assert getattr(layer, name) is before, message
        assert getattr(layer, public) is not before, message


@pytest.mark.parametrize("setting", ["regularizer", "constraint"])
def test_settings_of_attention(setting):
    name = f"{keras_internals.ATTENTION_SETTING}_{setting}"
    given = {"regularizer": "l2", "constraint": "non_neg"}[setting]
    layer = kl.MultiHeadAttention(2, 3, **{f"kernel_{setting}": given})
    message = moved(f"MultiHeadAttention.{name}", "`constrain` and `regularize`")
    assert getattr(layer, name, None) is not None, message
    setattr(layer, name, None)
    assert layer.get_config()[f"kernel_{setting}"] is None, message


@pytest.mark.parametrize("sequential", [True, False])
def test_the_calls_of_a_graph(sequential):
    model = dense()
    if not sequential:
        x = keras.Input((3,))
        model = keras.Model(x, kl.Add()([model.layers[0](x), kl.Dense(2)(x)]))
    message = moved("Functional._nodes_by_depth", "convert/flattening.py")
    graph = keras_internals.functional_graph(model)
    assert graph is not None, message
    inputs, calls, outputs = graph
    known = {id(tensor) for tensor in inputs}
    for call in calls:
        assert {id(tensor) for tensor in call.input_tensors} <= known, message
        known |= {id(tensor) for tensor in call.outputs}
    assert {id(tensor) for tensor in outputs} <= known, message
    assert len(calls) == (1 if sequential else 3), message


def test_the_gate_of_attention():
    layer = kl.MultiHeadAttention(2, 3, use_gate=True)
    layer.build((None, 5, 4), (None, 5, 4))
    name = keras_internals.GATE
    message = moved(f"MultiHeadAttention.{name}", "models/kinds.py")
    assert isinstance(getattr(layer, name, None), kl.EinsumDense), message
    without = kl.MultiHeadAttention(2, 3)
    without.build((None, 5, 4), (None, 5, 4))
    assert getattr(without, name, None) is None, message


def test_the_layers_of_grouped_attention():
    layer = kl.GroupQueryAttention(3, 4, 2)
    layer.build((None, 5, 4), (None, 5, 4))
    for part in ("query", "key", "value", "output"):
        name = keras_internals.GROUPED.format(part)
        message = moved(f"GroupQueryAttention.{name}", "models/kinds.py")
        assert isinstance(getattr(layer, name, None), kl.EinsumDense), message


def test_flatten_layers_goes_all_the_way_down():
    class Holder(kl.Layer):
        def __init__(self):
            super().__init__(name="holder")
            self.parts = [kl.Dense(2, name="part")]

    timed = kl.TimeDistributed(kl.Dense(2, name="inner"), name="timed")
    model = keras.Sequential([timed, timed.layer, Holder()], name="model")
    message = moved("Layer._flatten_layers", "surgery, masks and wrappers")
    assert hasattr(kl.Layer, "_flatten_layers"), message
    names = [layer.name for layer in keras_internals.flatten_layers(model)]
    assert sorted(names) == ["holder", "inner", "model", "part", "timed"], message
    inside = keras_internals.flatten_layers(model, include_self=False)
    assert [layer.name for layer in inside] == names[1:], message


def test_traces_are_forgotten():
    class Scale(kl.Layer):
        factor = 1.0

        def call(self, x):
            return self.factor * x

    scale = Scale()
    model = keras.Sequential([keras.Input((3,)), scale])
    model.compile("sgd", "mse")
    x = np.ones((2, 3), "float32")
    model.predict(x, verbose=0)
    model.evaluate(x, x, verbose=0)
    model.fit(x, x, verbose=0)
    names = ("train_function", "test_function", "predict_function")
    for name in names:
        message = moved(f"Model.{name}", "convert.from_torch")
        assert getattr(model, name, None) is not None, message
    scale.factor = 2.0
    keras_internals.forget_traces(model)
    for name in names:
        assert getattr(model, name) is None
    message = moved("Model.predict_function", "convert.from_torch")
    np.testing.assert_array_equal(model.predict(x, verbose=0), 2 * x, message)
    assert model.evaluate(x, x, verbose=0) == pytest.approx(1), message


def test_a_model_is_taken_for_not_compiled():
    model = dense()
    model.compile("sgd", "mse")
    message = moved("Model.compiled", "models/copying.py")
    assert keras.models.clone_model(model).compiled, message
    with keras_internals.taken_for_not_compiled(model):
        assert not keras.models.clone_model(model).compiled, message
    assert model.compiled
    with pytest.raises(RuntimeError), keras_internals.taken_for_not_compiled(model):
        raise RuntimeError
    assert model.compiled


def test_masks_go_with_tensors():
    message = moved("set_keras_mask", "measures/jacobians.py")
    embedded = kl.Embedding(3, 2, mask_zero=True)(np.array([[1, 0]]))
    mask = keras_internals.mask_of(embedded)
    np.testing.assert_array_equal(mask, [[True, False]], message)
    other = keras.ops.ones((1, 2, 2))
    assert keras_internals.mask_of(other) is None
    assert keras_internals.with_mask(other, None) is other
    keras_internals.with_mask(other, mask)
    mean = kl.GlobalAveragePooling1D()(keras.ops.array([[[1.0, 1.0], [5.0, 5.0]]]))
    np.testing.assert_array_equal(mean, [[3.0, 3.0]])
    marked = keras.ops.array([[[1.0, 1.0], [5.0, 5.0]]])
    mean = kl.GlobalAveragePooling1D()(keras_internals.with_mask(marked, mask))
    np.testing.assert_array_equal(mean, [[1.0, 1.0]], message)


def test_float64_is_kept():
    message = moved("BIT64_TO_BIT32_DTYPE", "measures/jacobians.py")
    before = keras.backend.result_type("float64", "float32")
    with pytest.raises(RuntimeError), keras_internals.float64_kept():
        found = keras.backend.result_type("float64", "float32")
        assert found == "float64", message
        raise RuntimeError
    assert keras.backend.result_type("float64", "float32") == before


def test_functional_models_have_a_public_name():
    message = moved("keras.Function", "models/graph.py")
    x = keras.Input((3,))
    assert isinstance(keras.Model(x, kl.Dense(2)(x)), keras.Function), message
    assert hasattr(keras.Function, "operations"), message


# Names with an underscore that are public: of named tuples, and of `os`.
PUBLIC = {"_replace", "_exit"}
# Our own, in the class method that makes the object; and the table of kinds, which is
# to take its names from `keras_internals`.
ALLOWED = {
    ("layers/rank_one.py", "_imported_order"),
    ("layers/svd_layer.py", "_assign"),
    # Ours: a wrapper's, for what has weights of other projects, and a copy's own.
    ("convert/wrapped_state.py", "_imported_order"),
    ("convert/wrapped_state.py", "_follow"),
    ("convert/files/state.py", "_records"),
}


def is_private(name):
    return re.fullmatch(r"_[a-zA-Z]\w*", name) is not None


def keras_objects():
    layers = [kl.Dense(2), kl.Conv2D(2, 3), kl.Embedding(2, 3), kl.LSTM(2)]
    layers += [kl.MultiHeadAttention(2, 2), kl.TimeDistributed(kl.Dense(2)), kl.Layer()]
    layers[0].build((None, 3))
    x = keras.Input((3,))
    models = [dense(), keras.Model(x, kl.Dense(2)(x)), keras.Model()]
    others = [x, layers[0].kernel, keras.constraints.NonNeg(), keras.regularizers.L2()]
    return [*layers, *models, *others, keras.metrics.Mean(), keras.callbacks.Callback()]


def private_names(*things):
    return {name for thing in things for name in dir(thing) if is_private(name)}


def is_self(node):
    called = isinstance(node, ast.Call) and ast.unparse(node.func) == "super"
    return called or (isinstance(node, ast.Name) and node.id in ("self", "cls"))


def reached_for(tree, keras_names):
    """Yield (line, name) of each private thing of others that a file touches."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not is_self(node.value):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in keras_names:
                yield node.lineno, node.value
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            for name in names:
                parts = name.split(".")
                foreign = parts[0] != "keras_spectral"
                if foreign and ("src" in parts or any(map(is_private, parts))):
                    yield node.lineno, name


def test_no_other_file_reaches_for_private_attributes():
    keras_names = private_names(*keras_objects())
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        if file == HOME:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [
            f"{file}:{line}: {name}"
            for line, name in reached_for(tree, keras_names)
            if name not in PUBLIC and (file, name) not in ALLOWED
        ]
    assert not found, f"Give these a function or a constant in {HOME}: {found}"


@pytest.mark.parametrize(
    "code, names",
    [
        ("layer._kernel", ["_kernel"]),
        ("model.layers[0]._layers", ["_layers"]),
        ("hasattr(model, '_operations')", ["_operations"]),
        ("from keras.src.models import Functional", ["keras.src.models.Functional"]),
        ("import keras.src.layers", ["keras.src.layers"]),
        ("self._own = super()._own", []),
        ("layer.kernel.__class__", []),
    ],
)
def test_what_is_found(code, names):
    found = reached_for(ast.parse(code), private_names(*keras_objects()))
    assert [name for _, name in found] == names


def our_classes():
    """The classes of the package that derive from one of Keras."""
    for module in pkgutil.walk_packages(keras_spectral.__path__, "keras_spectral."):
        if module.name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(kind) and kind.__module__ == module.name:
                if any(base.__module__.startswith("keras.") for base in kind.__mro__):
                    yield kind


def test_no_class_of_ours_touches_what_its_base_in_keras_keeps_to_itself():
    kinds = list(our_classes())
    assert len(kinds) > 20
    for kind in kinds:
        bases = [b for b in kind.__mro__ if not b.__module__.startswith("keras_spec")]
        # What the constructors of layers and models add counts, too.
        made = [make() for make in (kl.Layer, keras.Model) if issubclass(kind, make)]
        theirs = private_names(*bases, *made)
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
        touched = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and is_self(node.value)
        }
        touched |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        both = touched & theirs
        assert not both, f"{kind.__name__} touches {both}; see {HOME}"
