"""Config sections as calls: a function's keyword-only parameters are the schema of its section.

`config.loss = dict(name="poly", alpha=1.0, left="logistic")` means `Poly(alpha=1.0, left="logistic")`. The program
passes the parameters before the `*` of a signature (`class_counts`, `input_shape`, …). The config must give
every parameter after the `*`; none has a default. Annotations carry type and range, and pydantic checks them strictly.
"""

import difflib
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ml_collections import ConfigDict
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import Unpack

from imbalance.config.renamed import renamed_key
from imbalance.config.user_modules import load_user_module, user_code_errors, user_module_file
from imbalance.errors import BadInput
from imbalance.utils.output import one_line

Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0, lt=2**63)]  # torch's integers have 64 bits
Count = Annotated[int, Field(ge=1, lt=2**63)]
Repeats = Annotated[int, Field(ge=1, le=10_000_000)]  # number of epochs or steps, bounded so that a run can end
Positives = Annotated[tuple[Positive, ...], Field(min_length=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]
By = Literal["class", "group"]

T = TypeVar("T")
Table = Mapping[str, Callable[..., T]]


class Section(Mapping[str, Any]):
    """Frozen config section that means a call: the `name` of a function, and its keyword-only arguments."""

    def __init__(self, values: Mapping[str, Any]):
        values = {key: Section(value) if isinstance(value, Mapping) else value for key, value in values.items()}
        vars(self)["_values"] = MappingProxyType(values)

    @property
    def name(self) -> str:
        return self._values["name"]

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_") or key not in self._values:  # "_" first, since `_values` itself can be missing
            raise AttributeError(f"config section has no key {key!r}")
        return self._values[key]

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError(f"a validated config is frozen: {key!r} cannot be set")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return f"Section({dict(self._values)})"

    def __reduce__(self) -> tuple[type["Section"], tuple[dict[str, Any]]]:
        """Let pickle and copy make a new section, because a read-only mapping cannot be pickled."""
        return Section, (dict(self._values),)

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values."""
        return {key: value.to_dict() if isinstance(value, Section) else value for key, value in self.items()}


# Turn what a program passes into plain values


def plain(value: Any, path: str = "config") -> Any:
    """Return a config, or a value in it, as dictionaries, tuples, texts, numbers and None.

    Sections, data classes and `ConfigDict`s become dictionaries. Lists and arrays become tuples, paths become texts, and
    numbers of NumPy or torch become numbers of Python.

    Args:
        path: full key of the value, for messages.

    Raises:
        BadInput: a key of a dictionary is not a text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping | ConfigDict):
        for key in value:
            if not isinstance(key, str):
                raise BadInput(f"{path}: the key {short_repr(key)} given; a key must be a text, such as 'seed'")
            if "." in key and path.startswith("config"):
                raise BadInput(
                    f"{path}: the key {short_repr(key)} given; a key must have no point: write one section inside another, "
                    "such as optim=dict(lr=0.1)"
                )
        return {key: plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if as_list := getattr(value, "tolist", None):  # NumPy and torch, which are not imported here because they take long
        with suppress(RuntimeError):  # a sparse tensor, or one without data, is no value of a config
            value = as_list()
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, Mapping | ConfigDict):
                raise BadInput(f"{path}: the tuple contains a section; a tuple can hold only plain values")
        return tuple(plain(item, path) for item in value)
    return value


def short_repr(value: Any) -> str:
    """Return the `repr` of a value, cut off to one line of at most 100 characters."""
    try:
        text = one_line(repr(value))
    except Exception:  # Python refuses to write integers of more than 4,300 digits, and a class can fail in its own way
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:80]}…"


class MissingKeys(BadInput):
    """Error for a config that lacks keys. The message names each of them with the values that fit.

    Args:
        values: the description of the values that fit, by key, such as {"loss.gamma": "number, at least 0"}.
    """

    def __init__(self, values: Mapping[str, str]):
        super().__init__(values)
        self.values = values

    def __str__(self) -> str:
        flags = " ".join(f"--config.{key}=<{value}>" for key, value in self.values.items())
        return f"config.{next(iter(self.values))}: missing; add {flags}"


# Find the function that a section names, and call it


def look_up(table: Table[T], name: Any) -> Callable[..., T]:
    """Return the function called `name`: an entry of `table`, or a user's own function `my_module.py:function`.

    Raises:
        BadInput: `table` has no such entry, or the user's file or function does not exist.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    file = user_module_file(name) if isinstance(name, str) else ""
    if not file:
        raise BadInput(
            f"{short_repr(name)} given{suggestion(name, table)}, or <file>.py:<function> for one of your own"
        )
    functions = load_user_module(str(Path(file).resolve()))
    function = name.rpartition(":")[2]
    if function not in functions:
        other = suggestion(function, functions) if functions else "; define a function or class of this name"
        raise BadInput(f"{file} has no {function!r}{other}")
    return functions[function]


def bind(table: Table[T], section: Mapping[str, Any], **provided: Any) -> Callable[..., T]:
    """Return a `functools.partial`: the function that `section` names, with the arguments in `section` and `provided`.

    Args:
        table: the functions that the section can name.
        section: the name of the function, and its keyword-only arguments.
        provided: further arguments, which the program passes; arguments that the function does not take are ignored.
    """
    function = look_up(table, section["name"])
    values = {key: section[key] for key in section if key != "name"}
    parameters = inspect.signature(function).parameters.values()
    accepted = {p.name for p in parameters if p.kind is not p.KEYWORD_ONLY} & provided.keys()
    return functools.partial(function, **{key: provided[key] for key in accepted}, **values)


def build(table: Table[T], section: Mapping[str, Any], **provided: Any) -> T:
    """Call the function that `section` names, and return the result.

    Args:
        table: the functions that the section can name.
        section: the name of the function, and its keyword-only arguments.
        provided: further arguments, which the program passes; arguments that the function does not take are ignored.
    """
    with user_code_errors(section["name"]):
        return bind(table, section, **provided)()


@contextmanager
def config_messages(section: str) -> Iterator[None]:
    """Return a context manager in which a `BadInput` about an argument names the key of the config: "config.<section>.<key>".

    Functions and classes that a config names are also called without a config, so their messages begin with the argument.
    """
    try:
        yield
    except BadInput as error:
        key, _, text = str(error).partition(": ")
        if type(error) is not BadInput or not key.isidentifier():
            raise
        raise BadInput(f"config.{section}{f'.{key}' * (key != section)}: {text}") from error.__cause__


@functools.cache
def keyword_annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations of the keyword-only parameters of `function`, by name.

    The names are the keys of a config section for `function`. A parameter `**keys: Unpack[Keys]` stands for the keys of the
    TypedDict `Keys`, which several functions share. If `function` is a `functools.partial`, the parameters that already
    have a value are left out.
    """
    parameters, filled = inspect.signature(function).parameters.values(), set()
    while isinstance(function, functools.partial):  # an entry with tags can be a partial of a partial
        filled |= function.keywords.keys()
        function = function.func
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    annotations = {p.name: hints.get(p.name, Any) for p in parameters if p.kind is p.KEYWORD_ONLY}
    if shared := shared_keys(function):
        annotations |= get_type_hints(shared, include_extras=True)
    return {name: annotation for name, annotation in annotations.items() if name not in filled}


def shared_keys(function: Callable[..., Any]) -> type | None:
    """Return the TypedDict `Keys` of a parameter `**keys: Unpack[Keys]` of `function`; None without such a parameter."""
    hints = get_type_hints(function, include_extras=True) if inspect.isfunction(function) else {}
    return next((get_args(hint)[0] for hint in hints.values() if get_origin(hint) is Unpack), None)


@functools.cache
def required_arguments(function: Callable[..., Any]) -> set[str]:
    """Return the parameters of `function` that are not keyword-only and have no default; the program must pass them."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty}


# Check a section


def check_call(path: str, section: Any, table: Table[Any]) -> None:
    """Raise `BadInput` if `section` names no function of `table` or of a user's file, or if its arguments are wrong.

    The keys must be exactly the keyword-only parameters of the function, and every value must fit its annotation.

    Args:
        path: path of the section, such as "optim.schedule", for the message.
    """
    if not isinstance(section, Mapping) or "name" not in section:
        raise BadInput(
            f"config.{path}: must be a section with a name, one of {', '.join(table)}; {short_repr(section)} given"
        )
    try:
        function = look_up(table, section["name"])
    except BadInput as error:
        raise BadInput(f"config.{path}.name: {error}") from None
    values = {key: section[key] for key in section if key != "name"}
    check_fields(path, values, keyword_annotations(function))


def check_fields(path: str, section: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless `section` has exactly the keys of `annotations`, each with a value that fits.

    Args:
        path: path of the section, such as "optim.schedule"; "" for the whole config. The message starts with it.
        annotations: the type annotation of each key.
    """
    check_keys(path, section, annotations)
    check_values(f"config.{path}." if path else "config.", section, annotations)


def check_keys(path: str, section: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless `section` has exactly the keys of `annotations`; values are not checked.

    Args:
        path: path of the section, such as "optim.schedule"; "" for the whole config. The message starts with it.
        annotations: the type annotation of each key.
    """
    prefix = f"{path}." if path else ""
    unknown, missing = sorted(section.keys() - annotations.keys()), sorted(annotations.keys() - section.keys())
    if unknown:
        hint = renamed_key(prefix + unknown[0], [prefix + key for key in annotations])
        raise BadInput(f"config.{prefix}{unknown[0]}: unknown key{hint or suggestion(unknown[0], annotations)}")
    if missing and not path:
        raise BadInput(
            f"config.{missing[0]}: missing; a config has all of {', '.join(annotations)}; begin with a copy of a file of "
            "configs/, which has them"
        )
    if missing:
        raise MissingKeys({prefix + key: describe_annotation(annotations[key]) for key in missing})


def check_values(prefix: str, values: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless every value fits its annotation.

    Args:
        prefix: text before the key in the message, such as "config.optim.".
        values: values by key.
        annotations: annotations by key.
    """
    for key, annotation in annotations.items():
        parts = get_args(annotation) if get_origin(annotation) is tuple else ()
        if parts and ... not in parts and isinstance(values[key], tuple) and len(values[key]) != len(parts):
            raise BadInput(f"{prefix}{key}: {short_repr(values[key])} given; it should have {len(parts)} values")
        try:
            adapter(annotation).validate_python(values[key], strict=True)
        except ValidationError as error:
            # Of the alternatives of a union, name the rule of the one that fits best: the error deepest in the value.
            first = max(error.errors(), key=lambda problem: len(problem["loc"]))
            index = "".join(f"[{i}]" for i in first["loc"] if isinstance(i, int))
            rule = re.sub(r"^\w+ should", "should", first["msg"])  # "Input should …", "String should …"
            rule = rule.replace("item after validation, not 0", "value")
            for word, meaning in PLAIN_WORDS.items():
                rule = rule.replace(f"a valid {word}", meaning)
            raise BadInput(f"{prefix}{key}{index}: {short_repr(first['input'])} given; it {rule}") from None


PLAIN_WORDS = {
    "dictionary": "a section, as dict(name=…)", "integer": "an integer", "number": "a number", "string": "a text",
    "boolean": "True or False", "tuple": "a tuple",
}  # fmt: skip


def checked(cls: type[T]) -> type[T]:
    """Decorate a class so that its constructor checks its keyword-only arguments, for code that has no config."""
    init, annotations = cls.__init__, keyword_annotations(cls)

    @functools.wraps(init)
    def __init__(self: T, *args: Any, **values: Any) -> None:
        own = {key: annotations[key] for key in annotations if key in values}
        values |= plain({key: values[key] for key in own}, cls.__name__)
        check_values(f"{cls.__name__}: ", values, own)
        init(self, *args, **values)

    cls.__init__ = __init__
    return cls


adapter = functools.cache(TypeAdapter)  # making a TypeAdapter takes ten times as long as one check


# Messages


def describe_annotation(annotation: Any) -> str:
    """Describe the values that fit an annotation: `number, greater than 0`, or `'class' or 'group'`."""
    return _describe_schema(adapter(annotation).json_schema())


_BOUNDS = {"exclusiveMinimum": "greater than", "minimum": "at least", "exclusiveMaximum": "less than", "maximum": "at most"}  # fmt: skip


def _describe_schema(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_describe_schema, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        *others, last = map(repr, schema.get("enum", [schema.get("const")]))
        return f"{', '.join(others)} or {last}" if others else last
    kind = str(schema.get("type", "value"))
    if kind == "array":
        items = schema.get("items") or {}
        return f"{_describe_schema(items)}; several with commas" if items else "values with commas"
    kind = {"string": "text", "boolean": "True or False", "object": "a section", "null": "None"}.get(kind, kind)
    limits = {key: schema[key] for key in _BOUNDS if key in schema and schema[key] < 2**63}
    return ", ".join([kind, *(f"{_BOUNDS[key]} {value:g}" for key, value in limits.items())])


def suggestion(word: Any, valid: Iterable[str]) -> str:
    """Return the end of a message about an unknown `word`: the most similar valid word, if any, and all valid words."""
    near = difflib.get_close_matches(str(word), valid, n=1)
    return (f"; did you mean {near[0]}?" if near else ";") + f" valid: {', '.join(valid)}"


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Flatten nested sections: return `{"optim.lr": 0.1}` for `{"optim": {"lr": 0.1}}`.

    Args:
        prefix: text to put before each key, such as "config.".
    """
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
