"""Typed settings: a dataclass is the fields, their defaults, their ranges and their JSON Schema."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union

from .errors import SettingsError

T = TypeVar("T")

_KEYWORDS = ("minimum", "maximum", "min_length", "max_length", "choices", "about")


def setting(default: Any = dataclasses.MISSING, **rules: Any) -> Any:
    """A field of a settings dataclass.

    Rules: `minimum` and `maximum` of a number, `min_length` and `max_length` of a text or a list,
    `choices` (a sequence), `about` (one sentence for people). A default that is a list or a dict is
    copied for each instance; without a default the setting is required.
    """
    unknown = [rule for rule in rules if rule not in _KEYWORDS]
    if unknown:
        raise TypeError(f"setting() knows no {unknown[0]!r}, but {', '.join(_KEYWORDS)}")
    if isinstance(default, (list, dict)):
        copy = json.dumps(default)
        return dataclasses.field(default_factory=lambda: json.loads(copy), metadata=rules)
    return dataclasses.field(default=default, metadata=rules)


def schema(cls: type) -> dict[str, Any]:
    """The JSON Schema of a settings dataclass."""
    hints = typing.get_type_hints(cls)
    properties: dict[str, Any] = {}
    required = []
    for field in dataclasses.fields(cls):
        part = {**_type_schema(hints[field.name], f"{cls.__name__}.{field.name}")}
        # The rules of a setting that may be null are those of what it is otherwise.
        inner = part["anyOf"][0] if "anyOf" in part else part
        for rule, keyword in _keywords(inner.get("type")):
            if rule in field.metadata:
                (part if rule == "about" else inner)[keyword] = field.metadata[rule]
        if field.default is not dataclasses.MISSING:
            part["default"] = field.default
        elif field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        properties[field.name] = part
    found = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**found, "required": required} if required else found


def read(cls: type[T], value: Any, path: str = "settings") -> T:
    """The settings in a JSON object. Errors name the setting, its value and what would be right.

    A method `check(self)` of the dataclass sees the result and may raise `ValueError`.
    """
    if not isinstance(value, dict):
        raise SettingsError(f"{path}: {_shown(value)} is no object")
    hints = typing.get_type_hints(cls)
    declared: Any = cls
    fields = {field.name: field for field in dataclasses.fields(declared)}
    for name in value:
        if name not in fields:
            raise SettingsError(f"{path}.{name}: there is no such setting; {_names(fields)}")
    arguments = {}
    for name, field in fields.items():
        if name in value:
            at = f"{path}.{name}"
            arguments[name] = _read(hints[name], value[name], at)
            _check(value[name], field.metadata, at)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SettingsError(f"{path}.{name}: it is missing")
    made = cls(**arguments)
    if hasattr(made, "check"):
        try:
            made.check()
        except ValueError as error:
            raise SettingsError(f"{path}: {error}") from None
    return made


def _names(fields: dict[str, Any]) -> str:
    return "there are " + ", ".join(fields) if fields else "there are none"


def _keywords(kind: Any) -> list[tuple[str, str]]:
    if kind == "array":
        lengths = [("min_length", "minItems"), ("max_length", "maxItems")]
    else:
        lengths = [("min_length", "minLength"), ("max_length", "maxLength")]
    return [
        ("minimum", "minimum"),
        ("maximum", "maximum"),
        ("choices", "enum"),
        ("about", "description"),
        *lengths,
    ]


_PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _type_schema(hint: Any, where: str) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if dataclasses.is_dataclass(hint):
        return schema(typing.cast(type, hint))
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _type_schema(arguments[0], where)}
    if origin is tuple:
        items = [_type_schema(argument, where) for argument in arguments]
        return {
            "type": "array",
            "prefixItems": items,
            "minItems": len(items),
            "maxItems": len(items),
        }
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1], where)}
    if _is_optional(origin, arguments):
        return {"anyOf": [_type_schema(_present(arguments), where), {"type": "null"}]}
    raise TypeError(
        f"{where}: settings are bool, int, float, str, Literal, list, tuple, dict[str, ...], "
        f"X | None and dataclasses of these, not {hint}"
    )


def _is_optional(origin: Any, arguments: tuple[Any, ...]) -> bool:
    return origin in (Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments


def _present(arguments: tuple[Any, ...]) -> Any:
    return next(argument for argument in arguments if argument is not type(None))


def _read(hint: Any, value: Any, at: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _read_plain(hint, value, at)
    if dataclasses.is_dataclass(hint):
        return read(typing.cast(type, hint), value, at)
    if origin is Literal:
        if value not in arguments:
            _refuse(at, value, "none of " + ", ".join(map(_shown, arguments)))
        return value
    if origin is list:
        items = _list(value, at)
        return [_read(arguments[0], item, f"{at}[{i}]") for i, item in enumerate(items)]
    if origin is tuple:
        items = _list(value, at)
        if len(items) != len(arguments):
            _refuse(at, value, f"no list of {len(arguments)}")
        pairs = enumerate(zip(arguments, items))
        return tuple(_read(hint, item, f"{at}[{i}]") for i, (hint, item) in pairs)
    if origin is dict:
        if not isinstance(value, dict):
            _refuse(at, value, "no object")
        return {key: _read(arguments[1], item, f"{at}.{key}") for key, item in value.items()}
    return None if value is None else _read(_present(arguments), value, at)


def _read_plain(hint: Any, value: Any, at: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and number and math.isfinite(value):
        return float(value)
    # JSON has one kind of number: 3.0 is an integer there.
    if hint is int and number and math.isfinite(value) and value == int(value):
        return int(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
    raise SettingsError(f"{at}: {_shown(value)} is not {names[hint]}")


def _list(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        _refuse(at, value, "no list")
    return value


def _check(value: Any, rules: typing.Mapping[str, Any], at: str) -> None:
    if value is None:
        return
    if "minimum" in rules and value < rules["minimum"]:
        _refuse(at, value, f"less than {rules['minimum']}")
    if "maximum" in rules and value > rules["maximum"]:
        _refuse(at, value, f"more than {rules['maximum']}")
    if "choices" in rules and value not in rules["choices"]:
        _refuse(at, value, "none of " + ", ".join(map(_shown, rules["choices"])))
    if "min_length" in rules and len(value) < rules["min_length"]:
        raise SettingsError(f"{at}: its length {len(value)} is less than {rules['min_length']}")
    if "max_length" in rules and len(value) > rules["max_length"]:
        raise SettingsError(f"{at}: its length {len(value)} is more than {rules['max_length']}")


def _refuse(at: str, value: Any, what: str) -> typing.NoReturn:
    raise SettingsError(f"{at}: {_shown(value)} is {what}")


def _shown(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
