"""The registries: names, dicts, custom objects, and what a config may not do. Checked against a recorded Keras."""

import copy
import functools
import inspect
import json
import pathlib
import pickle
import sys
import threading

import numpy as np
import pytest

from dwconv import activations, constraints, initializers, regularizers
from dwconv._registry import (
    Registry,
    custom_object_scope,
    finite_number,
    get_custom_objects,
    register_serializable,
)

RECORD = json.loads((pathlib.Path(__file__).parent / "data" / "keras_registries.json").read_text())
FAMILIES = {
    "initializers": initializers,
    "constraints": constraints,
    "regularizers": regularizers,
    "activations": activations,
}
KERAS_2_NAMES = {  # those that Keras 3 does not have; facts/keras-contract.md section 3.1
    "initializers": (
        "ConstantV2 GlorotNormalV2 GlorotUniformV2 HeNormalV2 HeUniformV2 IdentityV2 LecunNormalV2 LecunUniformV2 "
        "OnesV2 OrthogonalV2 RandomNormalV2 RandomUniformV2 TruncatedNormalV2 VarianceScalingV2 ZerosV2 "
        "glorot_normalV2 glorot_uniformV2 he_normalV2 he_uniformV2 lecun_normalV2 lecun_uniformV2"
    ),
    "constraints": "RadialConstraint maxnorm nonneg radial_constraint unitnorm",
    "regularizers": "l1_l2",
    "activations": "ELU LeakyReLU ReLU Softmax ThresholdedReLU",
}
LEFT_OUT = {"STFT", "STFTInitializer", "stft"}  # rank 3 only
EVERY_NAME = [(family, name) for family, module in FAMILIES.items() for name in sorted(module._registry.names)]


def name_of(obj):
    return getattr(obj, "__name__", type(obj).__name__)


@pytest.fixture(autouse=True)
def no_custom_objects_left():
    yield
    get_custom_objects().clear()


# --- names and dicts, as Keras has them


@pytest.mark.parametrize(
    ("family", "name", "keras"),
    [
        (family, name, answer["gives"])
        for family in FAMILIES
        for name, answer in RECORD["names"][family].items()
        if "gives" in answer
    ],
)
def test_name_gives_what_keras_gives(family, name, keras):
    assert name_of(FAMILIES[family].get(name)) == keras


def test_every_keras_name_is_there_and_no_other():
    for family, module in FAMILIES.items():
        keras_3 = {name for name, answer in RECORD["names"][family].items() if answer.get("raises") != "ValueError"}
        assert set(module._registry.names) == keras_3 - LEFT_OUT | set(KERAS_2_NAMES[family].split())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["nope", "", "Relu", "ZEROS", "os.system", "__import__", "keras.initializers.Zeros"])
def test_unknown_name_lists_the_choices(family, name):
    with pytest.raises(ValueError, match="Could not interpret") as error:
        FAMILIES[family].get(name)
    assert all(choice in str(error.value) for choice in FAMILIES[family]._registry.names)


@pytest.mark.parametrize("case", RECORD["dicts"], ids=lambda case: str(case["identifier"])[:60])
def test_dict_gives_what_keras_gives(case):
    before = copy.deepcopy(case["identifier"])
    if "raises" in case:
        with pytest.raises(ValueError, match=r"Could not interpret|Expected one of|must be"):
            FAMILIES[case["family"]].get(case["identifier"])
    else:
        assert name_of(FAMILIES[case["family"]].get(case["identifier"])) == case["gives"]
    assert case["identifier"] == before


@pytest.mark.parametrize("family", ["initializers", "constraints", "regularizers"])
def test_serialize_writes_what_keras_writes(family):
    for case in RECORD["serialized"][family]:
        ours = FAMILIES[family].serialize(getattr(FAMILIES[family], case["name"])(**case["arguments"]))
        keras = case["dict"]
        if case["name"] in ("L1", "OrthogonalRegularizer"):  # Keras rounds these factors to float32
            for key, value in keras["config"].items():
                assert ours["config"][key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-7))
            ours = {**ours, "config": keras["config"]}
        assert ours == keras
        assert list(ours["config"]) == list(keras["config"])


@pytest.mark.parametrize("family", ["initializers", "constraints", "regularizers"])
def test_keras_dict_is_read_and_written_again(family):
    for case in RECORD["serialized"][family]:
        assert FAMILIES[family].serialize(FAMILIES[family].deserialize(case["dict"])) == case["dict"]


@pytest.mark.parametrize(("family", "name"), [case for case in EVERY_NAME if case[1].lower() != "regularizer"])
def test_json_round_trip(family, name):
    module = FAMILIES[family]
    obj = module.get(name)
    written = module.serialize(obj)
    read = module.get(json.loads(json.dumps(written)))
    assert type(read) is type(obj)
    assert module.serialize(read) == written
    assert read is obj or not inspect.isfunction(obj)


@pytest.mark.parametrize(("family", "name"), EVERY_NAME)
def test_pickle_and_copy(family, name):
    obj = FAMILIES[family].get(name)
    for twin in (pickle.loads(pickle.dumps(obj)), copy.deepcopy(obj), copy.copy(obj)):
        assert type(twin) is type(obj)
        assert repr(twin) == repr(obj)


@pytest.mark.parametrize(("family", "name"), EVERY_NAME)
def test_repr_makes_the_object_again(family, name):
    obj = FAMILIES[family].get(name)
    if not inspect.isfunction(obj):
        assert repr(eval(repr(obj), vars(FAMILIES[family]))) == repr(obj)


@pytest.mark.parametrize("family", FAMILIES)
def test_get_of_objects(family):
    module = FAMILIES[family]

    def custom(*args):
        return None

    assert module.get(custom) is custom
    assert module.get(module.get(next(iter(module._registry.names)))) is not None
    assert module.deserialize(None) is None
    assert module.serialize(None) is None
    assert module.serialize("relu") == "relu"


def test_get_of_none_and_of_classes():
    assert initializers.get(None) is constraints.get(None) is regularizers.get(None) is None
    assert activations.get(None) is activations.linear
    assert isinstance(initializers.get(initializers.HeNormal), initializers.HeNormal)
    assert isinstance(constraints.get(constraints.MaxNorm), constraints.MaxNorm)
    assert regularizers.get(regularizers.L2).l2 == 0.01
    assert isinstance(activations.get(activations.LeakyReLU), activations.LeakyReLU)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("identifier", [1, 2.5, b"relu", ["relu"], {"relu"}, {}, {"class_name": None}, (), object()])
def test_wrong_types(family, identifier):
    with pytest.raises(ValueError, match="Could not interpret"):
        FAMILIES[family].get(identifier)


# --- older configs


@pytest.mark.parametrize(
    ("family", "config", "wanted"),
    [
        (
            "initializers",
            {"class_name": "GlorotUniform", "config": {"seed": None, "dtype": "float32"}},
            "GlorotUniform",
        ),
        ("initializers", {"class_name": "glorot_uniformV2", "config": {"seed": 1}}, "GlorotUniform"),
        ("initializers", {"class_name": "Zeros", "config": {"dtype": "float32"}, "shared_object_id": 3}, "Zeros"),
        ("initializers", {"class_name": "Zeros"}, "Zeros"),
        ("initializers", {"class_name": "Zeros", "config": None}, "Zeros"),
        (
            "initializers",
            {
                "class_name": "VarianceScaling",
                "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "normal", "seed": None, "dtype": "float32"},
            },
            "VarianceScaling",
        ),
        ("regularizers", {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 4.9999998736893758e-05}}, "L1L2"),
        ("regularizers", {"class_name": "l1_l2", "config": {"l1": 0.5}}, "L1L2"),
        ("constraints", {"class_name": "UnitNorm", "config": {"axis": [0, 1]}}, "UnitNorm"),
        ("constraints", {"module": "tf_keras.constraints", "class_name": "NonNeg", "config": {}}, "NonNeg"),
        ("activations", {"module": "keras.activations", "class_name": "function", "config": "relu6"}, "relu6"),
        (
            "activations",
            {"class_name": "LeakyReLU", "config": {"name": "x", "alpha": 0.1, "dtype": "float32"}},
            "LeakyReLU",
        ),
        ("activations", {"class_name": "ThresholdedReLU", "config": {"theta": 0.5}}, "ReLU"),
        *(("activations", config, config["class_name"]) for config in RECORD["serialized"]["layers"]),
    ],
)
def test_older_configs(family, config, wanted):
    assert name_of(FAMILIES[family].get(config)) == wanted


def test_arguments_of_older_configs_arrive():
    assert regularizers.get("l1_l2").get_config() == {"l1": 0.01, "l2": 0.01}
    assert regularizers.get("L1L2").get_config() == {"l1": 0.0, "l2": 0.0}
    assert regularizers.get({"class_name": "l1_l2", "config": {"l1": 0.5}}).get_config() == {"l1": 0.5, "l2": 0.01}
    leaky = activations.get({"class_name": "LeakyReLU", "config": {"name": "x", "alpha": 0.1, "dtype": "float32"}})
    assert leaky.get_config() == {"negative_slope": 0.1}
    assert activations.get("LeakyReLU").get_config() == {"negative_slope": 0.3}
    thresholded = activations.get({"class_name": "ThresholdedReLU", "config": {"theta": 0.5}})
    assert thresholded.get_config() == {"max_value": None, "negative_slope": 0.0, "threshold": 0.5}


# --- custom objects


class Halves(initializers.Initializer):
    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, shape, dtype=None):
        return np.full(shape, 0.5 * self.factor, dtype)

    def get_config(self):
        return {"factor": self.factor}


def double(x):
    return 2 * x


def test_registered_class_and_function():
    assert register_serializable("my")(Halves) is Halves
    register_serializable("my", "twice")(double)
    assert get_custom_objects() == {"my>Halves": Halves, "my>twice": double}
    written = initializers.serialize(Halves(3.0))
    assert written == {
        "module": Halves.__module__,
        "class_name": "Halves",
        "config": {"factor": 3.0},
        "registered_name": "my>Halves",
    }
    assert initializers.get(written).factor == 3.0
    assert initializers.get("my>Halves").factor == 1.0
    written = activations.serialize(double)
    assert written == {
        "module": "builtins",
        "class_name": "function",
        "config": "my>twice",
        "registered_name": "function",
    }
    assert activations.get(written) is double
    assert activations.get("my>twice") is double


def test_scope():
    written = {"class_name": "Halves", "config": {"factor": 2.0}}
    with pytest.raises(ValueError, match="Halves"):
        initializers.get(written)
    assert initializers.deserialize(written, custom_objects={"Halves": Halves}).factor == 2.0
    with custom_object_scope({"Halves": Halves}):
        assert isinstance(initializers.get("Halves"), Halves)
        with custom_object_scope({"double": double}):
            assert activations.get({"class_name": "function", "config": "double"}) is double
            assert initializers.get(written).factor == 2.0  # the outer scope still holds
        with pytest.raises(ValueError, match="double"):
            activations.get("double")
    with pytest.raises(ValueError, match="Halves"):
        initializers.get("Halves")
    assert get_custom_objects() == {}


def test_scope_belongs_to_its_thread():
    seen = []

    def look():
        try:
            seen.append(initializers.get("Halves"))
        except ValueError:
            seen.append("refused")

    with custom_object_scope({"Halves": Halves}):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == ["refused"]


def test_custom_objects_come_first_but_not_before_kerases_modules():
    with custom_object_scope({"Zeros": Halves}):
        assert isinstance(initializers.get("Zeros"), Halves)
        written = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
        assert isinstance(initializers.get(written), initializers.Zeros)


def test_registering_needs_get_config():
    with pytest.raises(ValueError, match="get_config"):
        register_serializable()(type("Bare", (), {}))
    with pytest.raises(TypeError, match=r"package.* as in @register_serializable\(\)"):
        register_serializable(abs)


@pytest.mark.parametrize("value", [3, {"x": 1}, "relu"])
def test_registered_value_must_be_callable(value):
    with custom_object_scope({"thing": value}), pytest.raises(ValueError, match="Could not interpret"):
        activations.get("thing")


def relu(x):
    return x


@pytest.mark.parametrize("activation", [lambda x: x, relu, np.tanh, object(), 3])
def test_serialize_refuses_what_no_config_brings_back(activation):
    with pytest.raises(ValueError, match="register_serializable"):
        activations.serialize(activation)


# --- safety

CANARIES = [
    {"module": "os", "class_name": "system", "config": {"command": "touch canary"}, "registered_name": None},
    {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
    {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"},
    {"module": "builtins", "class_name": "eval", "config": {}, "registered_name": None},
    {"class_name": "__lambda__", "config": {"value": ["4wEAAAAAAAAA", None, None]}},
    {"class_name": "Lambda", "module": "keras.layers", "config": {"function": "print"}},
    {"module": "dwconv_canary", "class_name": "Zeros", "config": {}},
    {"module": "keras.layers", "class_name": "Zeros", "config": {}},
    {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": "evil>Zeros"},
    {"class_name": "__class__", "config": {}},
    {"class_name": "Zeros", "config": {"__class__": "os.system"}},
    {"class_name": "Zeros", "config": [1]},
    {"class_name": "Zeros", "config": "x"},
    {"class_name": "relu", "config": {"negative_slope": 0.5}},
    {"class_name": ["Zeros"], "config": {}},
    {"class_name": "Zeros", "module": 3},
    {"class_name": "Zeros", "registered_name": ["x"]},
    {"class_name": {"class_name": "Zeros"}},
    {"class_name": "Zeros", "config": {3: 4}},
    {"class_name": "x" * 10**6, "config": {}},
    {"class_name": "Zeros", "config": {"y" * 10**6: 1}},
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("config", CANARIES, ids=lambda config: str(config)[:50])
def test_config_runs_nothing(family, config, tmp_path, monkeypatch):
    (tmp_path / "dwconv_canary.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Could not interpret") as error:
        FAMILIES[family].get(config)
    assert len(str(error.value)) < 2000
    assert "dwconv_canary" not in sys.modules
    assert [path.name for path in tmp_path.iterdir()] == ["dwconv_canary.py"]


@functools.cache
def nested(depth):
    """A config in a config, and a list in a list."""
    config, values = {}, []
    for _ in range(depth):
        config = {"class_name": "SeedGenerator", "config": {"seed": config}}
        values = [values]
    return config, values


@pytest.mark.parametrize("depth", [80, 100_000])
@pytest.mark.parametrize(
    ("family", "name", "argument"),
    [
        ("initializers", "HeNormal", "seed"),
        ("initializers", "Constant", "value"),
        ("initializers", "RandomNormal", "mean"),
        ("initializers", "HeNormal", "input_axes"),
        ("constraints", "MaxNorm", "axis"),
        ("regularizers", "L2", "l2"),
        ("activations", "LeakyReLU", "negative_slope"),
        ("activations", "Softmax", "axis"),
    ],
)
def test_deep_nesting(family, name, argument, depth):
    for value in nested(depth):
        with pytest.raises(ValueError, match=r"Could not interpret|must be|maximum number of dimension"):
            FAMILIES[family].get({"class_name": name, "config": {argument: value}})
    for value in nested(depth):
        with pytest.raises(ValueError, match="Could not interpret"):
            FAMILIES[family].get({"class_name": value})


def test_failing_custom_class_is_a_value_error_with_its_cause():
    class Failing(Halves):
        @classmethod
        def from_config(cls, config):
            return config["missing"]

    with (
        custom_object_scope({"Failing": Failing}),
        pytest.raises(ValueError, match="KeyError: 'missing'") as error,
    ):
        initializers.get({"class_name": "Failing", "config": {"factor": 1.0}})
    assert isinstance(error.value.__cause__, KeyError)


# --- the helpers


@pytest.mark.parametrize(
    "value", [True, "1", None, [1], float("nan"), float("inf"), 1j, 10**400, np.array([1.0]), b"1"]
)
def test_finite_number_refuses(value):
    with pytest.raises(ValueError, match="`rate` must be"):
        finite_number(value, "rate")


@pytest.mark.parametrize("value", [3, 0.5, -2.0, np.float32(0.5), np.int64(4), np.array(2.0)])
def test_finite_number_gives_python_numbers(value):
    number = finite_number(value, "rate")
    assert type(number) in (int, float)
    assert number == value


def test_registry_of_a_new_family():
    layers = Registry("layer", "layers")

    @layers.register("dense", small={"units": 1})
    class Dense:
        def __init__(self, units=8):
            self.units = units

        def __call__(self):
            return self.units

        def get_config(self):
            return {"units": self.units}

    assert [layers.get(name).units for name in ("Dense", "dense", "small")] == [8, 8, 1]
    assert layers.get({"class_name": "small", "config": {"units": 2}}).units == 2
    assert layers.serialize(Dense(3)) == {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {"units": 3},
        "registered_name": None,
    }
