"""Config sections as calls: a constructor's keyword-only parameters are the section's schema.

`config.loss = dict(name="poly", alpha=1.0, left="logistic")` means `Poly(alpha=1.0, left="logistic")`. What stands
before the `*` of a signature is given by the program (`class_counts`, `input_shape`, …), what stands after it must be
said by the config, and has no default. Annotations carry type and range, and pydantic checks them strictly.
"""

import ast
import difflib
import functools
import importlib.util
import inspect
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from ml_collections import ConfigDict
from pydantic import Field, TypeAdapter, ValidationError

from imbalance.errors import BadInput

Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0, lt=2**63)]  # what torch holds in a number
Count = Annotated[int, Field(ge=1, lt=2**63)]
Repeats = Annotated[int, Field(ge=1, le=10_000_000)]  # epochs or steps: more than anybody would see the end of
Name = Annotated[str, Field(min_length=1)]
By = Literal["class", "group"]

T = TypeVar("T")


class Section(Mapping[str, Any]):
    """A section of a config that is a call: the `name` of a function, and its keyword-only arguments; frozen."""

    def __init__(self, values: Mapping[str, Any]):
        values = {key: Section(value) if isinstance(value, Mapping) else value for key, value in values.items()}
        vars(self)["_values"] = values

    @property
    def name(self) -> str:
        return self._values["name"]

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_") or key not in self._values:  # while an object is unpickled it has no values yet
            raise AttributeError(f"config section has no key {key!r}")
        return self._values[key]

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError(f"a validated config is frozen: {key!r} cannot be set")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Section({self._values})"

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values."""
        return {key: value.to_dict() if isinstance(value, Section) else value for key, value in self.items()}


Table = Mapping[str, Callable[..., T]]


def fields(function: Callable) -> dict[str, Any]:
    """The annotation of each keyword-only parameter: what a config section for `function` must say.

    What a `functools.partial` has filled in already is not asked for.
    """
    parameters, filled = inspect.signature(function).parameters.values(), set()
    while isinstance(function, functools.partial):  # of a partial too, where that one has tags
        filled |= function.keywords.keys()
        function = function.func
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    return {p.name: hints.get(p.name, Any) for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in filled}


def check_fields(path: str, section: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless `section` has just the keys of `annotations`, each with a value that fits."""
    given = section.keys()
    prefix = f"{path}." if path else ""
    unknown, missing = sorted(given - annotations.keys()), sorted(annotations.keys() - given)
    if unknown:
        raise BadInput(f"config.{prefix}{unknown[0]}: unknown key{nearest(unknown[0], annotations)}")
    if missing:
        flags = " ".join(f"--config.{prefix}{key}=<{in_words(annotations[key])}>" for key in missing)
        raise BadInput(f"config.{prefix}{missing[0]}: missing; add {flags}")
    check_values(f"config.{prefix}", section, annotations)


def check_values(prefix: str, values: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise `BadInput`, which names `prefix` and the key, unless each of `annotations` fits its value."""
    for key, annotation in annotations.items():
        try:
            _adapter(annotation).validate_python(values[key], strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"[{i}]" for i in first["loc"] if isinstance(i, int))
            problem = first["msg"].replace("Input should", "should")
            raise BadInput(f"{prefix}{key}{where}: {first['input']!r} given; it {problem}") from None


def checked(cls: type[T]) -> type[T]:
    """A class whose constructor checks its keyword-only values, by their annotations, for who calls it without a config."""
    init, annotations = cls.__init__, fields(cls)

    @functools.wraps(init)
    def __init__(self, *args: Any, **values: Any) -> None:
        check_values(f"{cls.__name__}: ", values, {key: annotations[key] for key in annotations if key in values})
        init(self, *args, **values)

    cls.__init__ = __init__
    return cls


_adapter = functools.cache(TypeAdapter)  # costs ten times what it then checks


def parse(text: Any, annotation: Any) -> Any:
    """What `text` of a command line says to a parameter with this annotation; `text` if nothing that fits.

    `True`, `8`, `0.1`, `cat`, `8,8` and `cat,dog` need no quotes, and `1` is a name where a name is asked for.
    """
    text = str(text)
    candidates = [text, {"true": True, "false": False}.get(text.lower()), tuple(map(str.strip, text.split(",")))]
    try:
        literal = ast.literal_eval(text)
        literal = tuple(literal) if isinstance(literal, list) else literal
        candidates = [literal, (literal,), *candidates]
    except (ValueError, SyntaxError):
        literal = text
    if annotation is not None:
        for candidate in candidates:
            try:
                return _adapter(annotation).validate_python(candidate, strict=True)
            except ValidationError:
                continue
    return literal


def in_words(annotation: Any) -> str:
    """`number, greater than 0`, `'class' or 'group'`: what a value may be, in a few words."""
    return _in_words(_adapter(annotation).json_schema())


_BOUNDS = {"exclusiveMinimum": "greater than", "minimum": "at least", "exclusiveMaximum": "less than", "maximum": "at most"}  # fmt: skip


def _in_words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_in_words, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        *others, last = map(repr, schema.get("enum", [schema.get("const")]))
        return f"{', '.join(others)} or {last}" if others else last
    kind = schema.get("type", "value")
    if kind == "array":
        items = schema.get("items") or {}
        return f"{_in_words(items)}; several with commas" if items else "values with commas"
    words = {"string": "text", "boolean": "True or False", "object": "a section", "null": "None"}.get(kind, kind)
    limits = {key: schema[key] for key in _BOUNDS if key in schema and schema[key] < 2**63}
    return ", ".join([words, *(f"{_BOUNDS[key]} {value:g}" for key, value in limits.items())])


def check_call(path: str, section: Any, table: Table) -> None:
    """Raise `BadInput` unless `section` names an entry of `table` and says just what its constructor asks."""
    if not isinstance(section, Mapping) or "name" not in section:
        raise BadInput(f"config.{path}: must be a section with a name, one of {', '.join(table)}; {section!r} given")
    name = section["name"]
    try:
        function = entry(table, name)
    except BadInput as error:
        raise BadInput(f"config.{path}.name: {error}") from None
    values = {key: section[key] for key in section if key != "name"}
    check_fields(path, values, fields(function))


def entry(table: Table, name: Any) -> Callable[..., T]:
    """What a section's name means: an entry of `table`, or with `my_module.py:function` one of a module of one's own.

    Raises:
        BadInput: there is no such entry, file or function.
    """
    if isinstance(name, str) and (own := own_module(name)):
        functions = own_functions(str(Path(own).resolve()))
        function = name.rpartition(":")[2]
        if function not in functions:
            raise BadInput(f"{own} has no {function!r}{nearest(function, functions)}")
        return functions[function]
    if not isinstance(name, str) or name not in table:
        raise BadInput(f"{name!r} given{nearest(name, table)}, or <file>.py:<function> for one of your own")
    return table[name]


def own_module(name: str) -> str:
    """The file that the name of a section names, such as `my_module.py:MyLoss`; "" for a name of this project."""
    file, _, function = name.rpartition(":")
    return file if file.endswith(".py") and function else ""


@functools.cache
def own_functions(file: str) -> dict[str, Callable]:
    """What a module of one's own defines; it is run once in a process, under a name of its own."""
    if not Path(file).is_file():
        raise BadInput(f"no file {file}")
    name = f"own_{Path(file).stem}_{zlib.crc32(file.encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where annotations are looked up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise of_own_code(file, error) from error
    return {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}


def of_own_code(file: str | Path, error: Exception) -> BadInput:
    """What to say where a user's file cannot be run: its line and the error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    where = f"{file}, line {line}" if line else str(file)
    return BadInput(f"{where}: {type(error).__name__}: {getattr(error, 'msg', None) or error}")


def asks(function: Callable) -> set[str]:
    """What the program must give to `function`: its parameters before the `*`."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty}


def bind(table: Table, section: Mapping[str, Any], **provided: Any) -> Callable[..., T]:
    """What `section` names, with the section's values and those of `provided` that its signature asks for filled in."""
    function = entry(table, section["name"])
    values = {key: section[key] for key in section if key != "name"}
    parameters = inspect.signature(function).parameters.values()
    wanted = {p.name for p in parameters if p.kind is not p.KEYWORD_ONLY} & provided.keys()
    return functools.partial(function, **{key: provided[key] for key in wanted}, **values)


def build(table: Table, section: Mapping[str, Any], **provided: Any) -> T:
    """Call what `bind` makes."""
    return bind(table, section, **provided)()


def nearest(word: Any, valid: Iterable[str]) -> str:
    """What ends a message on an unknown word: the valid one that is like it, if any, and all of them."""
    close = difflib.get_close_matches(str(word), valid, n=1)
    return (f"; did you mean {close[0]}?" if close else ";") + f" valid: {', '.join(valid)}"


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 0.1}}` as `{"optim.lr": 0.1}`."""
    flat = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping | ConfigDict) else {prefix + key: value}
    return flat
