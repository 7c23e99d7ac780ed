"""Config sections as calls: a constructor's keyword-only parameters are the section's schema.

`config.loss = dict(name="poly", alpha=1.0, left="logistic")` means `Poly(alpha=1.0, left="logistic")`. What stands
before the `*` of a signature is given by the program (`class_counts`, `input_shape`, …), what stands after it must be
said by the config, and has no default. Annotations carry type and range, and pydantic checks them strictly.
"""

import ast
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

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
Name = Annotated[str, Field(min_length=1)]
By = Literal["class", "group"]

T = TypeVar("T")
Table = Mapping[str, Callable[..., T]]


def fields(function: Callable) -> dict[str, Any]:
    """The annotation of each keyword-only parameter: what a config section for `function` must say."""
    parameters = inspect.signature(function).parameters.values()
    function = function.func if isinstance(function, functools.partial) else function
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_fields(path: str, section: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless `section` has just the keys of `annotations`, each with a value that fits."""
    given = section.keys()
    prefix = f"{path}." if path else ""
    unknown, missing = sorted(given - annotations.keys()), sorted(annotations.keys() - given)
    if unknown:
        raise BadInput(f"config.{prefix}{unknown[0]}: unknown key{_hint(unknown[0], annotations)}")
    if missing:
        flags = " ".join(f"--config.{prefix}{key}=<{in_words(annotations[key])}>" for key in missing)
        raise BadInput(f"config.{prefix}{missing[0]}: missing; add {flags}")
    for key, annotation in annotations.items():
        try:
            _adapter(annotation).validate_python(section[key], strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"[{i}]" for i in first["loc"] if isinstance(i, int))
            problem = first["msg"].replace("Input should", "should")
            raise BadInput(f"config.{prefix}{key}{where}: {first['input']!r} given; it {problem}") from None


_adapter = functools.cache(TypeAdapter)  # costs ten times what it then checks


def parse(text: Any, annotation: Any) -> Any:
    """What `text` of a command line says to a parameter with this annotation; `text` if nothing that fits.

    `True`, `8`, `0.1`, `cat`, `8,8` and `cat,dog` need no quotes, and `1` is a name where a name is asked for.
    """
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
    if name not in table:
        raise BadInput(f"config.{path}.name: {name!r} given{_hint(name, table)}")
    values = {key: section[key] for key in section if key != "name"}
    check_fields(path, values, fields(table[name]))


def bind(table: Table, section: Mapping[str, Any], **provided: Any) -> Callable[..., T]:
    """What `section` names, with the section's values and those of `provided` that its signature asks for filled in."""
    function = table[section["name"]]
    values = {key: section[key] for key in section if key != "name"}
    wanted = inspect.signature(function).parameters.keys() & provided.keys()
    return functools.partial(function, **{key: provided[key] for key in wanted}, **values)


def build(table: Table, section: Mapping[str, Any], **provided: Any) -> T:
    """Call what `bind` makes."""
    return bind(table, section, **provided)()


def _hint(word: Any, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), valid, n=1)
    return (f"; did you mean {close[0]}?" if close else ";") + f" valid: {', '.join(valid)}"
