"""Names and configs of the objects behind a layer's arguments: one `Registry` per family, as in Keras.

Names resolve in the registry's own table and among the objects that the user gave to `register_serializable` or
`custom_object_scope`, and nowhere else: nothing is imported, evaluated, opened or fetched by attribute because a config
says so ("module" is only compared), so that a config may come from anywhere. Every refusal is a ValueError.
"""

import contextlib
import contextvars
import sys

from ._messages import short

_custom_objects = {}  # "package>name" -> class or function
_custom_names = {}  # class or function -> "package>name"
_scope = contextvars.ContextVar("dwconv_custom_objects")  # name -> class or function


def register_serializable(package="Custom", name=None):
    """Decorator: let configs name a class (which needs `get_config`) or function as ``package>name``, as in Keras."""
    if not isinstance(package, str):
        raise TypeError(f"`package` must be a string, as in @register_serializable(). Received: {short(package)}")
    def decorator(obj):
        if isinstance(obj, type) and not hasattr(obj, "get_config"):
            raise ValueError(f"Cannot register {obj.__name__}: the class has no get_config() method")
        key = f"{package}>{name or obj.__name__}"
        _custom_objects[key], _custom_names[obj] = obj, key
        return obj

    return decorator


@contextlib.contextmanager
def custom_object_scope(custom_objects):
    """Context manager: inside it, in this thread or task, configs may also name the objects of ``{name: object}``."""
    token = _scope.set({**_scope.get({}), **(custom_objects or {})})
    try:
        yield
    finally:
        _scope.reset(token)


def get_custom_objects():
    """The live dict of all that was registered: ``{"package>name": object}``."""
    return _custom_objects


def finite_number(value, name, minimum=-sys.float_info.max):
    """`value` as a Python int or float; ValueError unless it is a finite real number (a bool is not) >= `minimum`."""
    number = value.item() if getattr(value, "shape", None) == () else value  # NumPy scalars and 0-d arrays
    if type(number) not in (int, float) or not minimum <= number <= sys.float_info.max:
        raise ValueError(f"`{name}` must be a finite number >= {minimum:.4g}. Received: {short(value)}")
    return number


class Registry:
    """The objects of one family: ``Registry("initializer", "initializers")`` answers for ``keras.initializers``."""

    def __init__(self, kind, family):
        self.kind, self.family = kind, family
        self.names, self._families = {}, {}  # name -> (class or function, preset arguments); class or function -> x of keras.x

    def register(self, *names, family=None, **presets):
        """Decorator: enter an object under its own name, under `names`, and under ``name={argument: value}``."""

        def decorator(obj):
            self.names.update({name: (obj, presets.get(name, {})) for name in (obj.__name__, *names, *presets)})
            self._families[obj] = family or self.family
            return obj

        return decorator

    def get(self, identifier):
        """The object for a name, a dict (left unchanged), a class (an instance of it) or a callable; None for None."""
        refusal = f"Could not interpret {self.kind} identifier: {short(identifier)}"
        try:
            obj, config = self._find(identifier) if isinstance(identifier, str | dict) else (identifier, {})
            if isinstance(obj, type):  # a bare name gives the constructor's defaults
                obj = obj.from_config(config) if config and hasattr(obj, "from_config") else obj(**config)
            elif config:
                raise TypeError("a function has no config")
        except (TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"{refusal}: {type(error).__name__}: {str(error)[:200]}") from error
        if not callable(obj) and identifier is not None:
            raise ValueError(f"{refusal}. Known names: {', '.join(sorted(self.names))}")
        return obj

    def deserialize(self, config, custom_objects=None):
        """As `get`, where the config may also name the objects of `custom_objects`, ``{name: object}``."""
        with custom_object_scope(custom_objects):
            return self.get(config)

    def _find(self, entry):
        """The class or function that a name or dict means (None if unknown), and the arguments for it."""
        entry = {"class_name": entry} if isinstance(entry, str) else entry
        name, config = entry.get("class_name"), entry.get("config") or {}
        name, config = (config, {}) if name == "function" else (name, config)  # this is how Keras writes functions
        module, registered_name = entry.get("module") or "builtins", entry.get("registered_name") or "function"
        custom, keras = {**_custom_objects, **_scope.get({})}, module.startswith(("keras.", "tf_keras."))
        for key in (registered_name,) if keras else (registered_name, name):
            if key in custom:
                return custom[key], {**config}
        obj, preset = self.names.get(name, (None, {}))
        foreign = self._families.get(obj) not in module.split(".") if keras else module != "builtins"
        return (None, {}) if obj is None or foreign or registered_name not in ("function", name) else (obj, {**preset, **config})

    def serialize(self, obj):
        """The name of a built-in function, else the dict that Keras 3.15 writes."""
        name, cls = getattr(obj, "__name__", None), type(obj)  # functions and classes have a name
        if obj is None or isinstance(obj, str) or (name and obj in self._families):
            return name or obj
        if name is None and hasattr(obj, "get_config"):
            family, module = self._families.get(cls), cls.__module__
            module = f"keras.{family}" if family else (module if module != "__main__" else None)
            name = None if family else _custom_names.get(cls, cls.__name__)
            return {"module": module, "class_name": cls.__name__, "config": obj.get_config(), "registered_name": name}
        name = _custom_names.get(obj, name) if name else None
        if name in (None, "<lambda>", *self.names):  # no config brings it back
            raise ValueError(f"Cannot serialize {short(obj)}: use register_serializable on a named function")
        return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}
