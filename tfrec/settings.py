"""Settings as JSON and back, strictly: what is read is what was written, or an error that names the setting.

A config is a frozen dataclass. Its fields are int, float, bool, str, `Path`, ``tuple[...]``, ``Literal[...]``, configs,
and unions of these, None among them. cattrs finds its way through the types; what it would convert or fill in without
a word is refused here.

Nothing here loads TensorFlow, so that ``--help`` is instant.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from cattrs import AttributeValidationNote, BaseValidationError, Converter, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from tfrec.errors import InputError

C = TypeVar("C")

#: Reads a JSON value as a type: ``hook(value, type)``.
Hook = Callable[[Any, Any], Any]


def to_json(config: Any) -> dict[str, Any]:
    """A config as JSON values, which `from_json` reads back as an equal config.

    A whole number in a field of type float becomes a float, so that 1 and 1.0 are saved as the same text.

    Args:
        config: a dataclass, frozen.

    Raises:
        TypeError, ValueError: a field holds what its type does not allow.
    """
    return _dumped(from_json(type(config), _dumped(config)))


def from_json(cls: type[C], saved: Any) -> C:
    """The config of type ``cls`` that `to_json` gave ``saved`` for.

    Args:
        cls: a config's class.
        saved: a dict from setting to JSON value, nested as the configs are.

    Raises:
        KeyError: a setting that ``cls`` does not have, or one that is not there, even if it has a default: what the
            default was when ``saved`` was written is not known.
        TypeError: a value of a wrong type. true is no int and no float; a whole number is a float; "1" is no number.
        ValueError: a value that the type does not allow: none of a `Literal`'s, or a float that is not finite.

        Each names the setting as ``training.epochs``, and the value received.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Fit:
        ...     epochs: int = 100
        ...     clip_norm: float | None = None
        >>> from_json(Fit, {"epochs": 3, "clip_norm": 5})
        Fit(epochs=3, clip_norm=5.0)
        >>> from_json(Fit, {"epochs": "3", "clip_norm": None})
        Traceback (most recent call last):
        TypeError: `epochs` must be a whole number. Received: '3'.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"`cls` must be a dataclass. Received: {cls!r}.")
    try:
        return typing.cast(C, _converter().structure(saved, cls))
    except BaseValidationError as group:
        error, path = next(_leaves(group, ""))
    except (KeyError, TypeError, ValueError) as raised:
        error, path = raised, ""
    kinds: tuple[type[Exception], ...] = (KeyError, TypeError, InputError, ValueError)
    kind = next((k for k in kinds if isinstance(error, k)), None)
    if kind is None:
        raise error
    raise kind(_named(path, error)) from None


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings in which two `to_json` results differ, as ``training.epochs: 10 -> 20``."""
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {json.dumps(a)} -> {json.dumps(b)}")
    return found


class _Unknown(KeyError):
    """Of a setting inside the config that is read: its name, and what is wrong with it."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"`{name}` {problem}")
        self.name, self.problem = name, problem


def _named(path: str, error: Exception) -> str:
    if isinstance(error, _Unknown):
        return f"`{path}.{error.name}` {error.problem}" if path else str(error.args[0])
    return f"`{path}` {error}" if path else f"The settings: {error}"


def _leaves(error: Exception, path: str) -> Iterator[tuple[Exception, str]]:
    """The errors in cattrs' tree of errors, each with the place of its setting."""
    if not isinstance(error, BaseValidationError):
        yield error, path
        return
    for inner in error.exceptions:
        place = path
        for note in getattr(inner, "__notes__", []):
            if isinstance(note, AttributeValidationNote):
                place = f"{path}.{note.name}" if path else note.name
            elif isinstance(note, IterableValidationNote):
                place = f"{path}[{note.index}]"
        yield from _leaves(inner, place)


def _dumped(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _dumped(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, tuple | list):
        return [_dumped(v) for v in value]
    return str(value) if isinstance(value, Path) else value


@cache
def _converter() -> Converter:
    converter = Converter(detailed_validation=True)
    # The last one that fits is taken, so the first stands for all types that have no rule.
    converter.register_structure_hook_factory(lambda kind: True, _no_rule)
    converter.register_structure_hook_factory(dataclasses.is_dataclass, lambda c: _config_hook(c, converter))
    converter.register_structure_hook_factory(_is_tuple, lambda kind: _tuple_hook(kind, converter))
    converter.register_structure_hook_factory(_is_literal, lambda kind: _literal)
    converter.register_structure_hook_factory(_is_union, lambda kind: _union_hook(kind, converter))
    for simple in (int, bool, str):
        converter.register_structure_hook(simple, _exactly)
    converter.register_structure_hook(float, _finite)
    converter.register_structure_hook(Path, lambda value, kind: Path(_exactly(value, str)))
    converter.register_structure_hook_func(lambda kind: kind is type(None), lambda value, kind: _exactly(value, kind))
    return converter


def _no_rule(kind: Any) -> Hook:
    def refuse(value: Any, _: Any) -> Any:
        raise TypeError(f"has a type that settings cannot have: {_words(kind)}.")

    return refuse


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _words(kind: Any) -> str:
    if _is_union(kind):
        return " or ".join(_words(k) for k in get_args(kind))
    if _is_literal(kind):
        return " or ".join(map(repr, get_args(kind)))
    if kind is type(None):
        return "null"
    named = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    return named.get(kind) or (str(kind) if get_origin(kind) else str(getattr(kind, "__name__", kind)))


def _exactly(value: Any, kind: Any) -> Any:
    # bool is a kind of int in Python, and not in a config.
    if type(value) is not kind:
        raise TypeError(f"must be {_words(kind)}. Received: {value!r}.")
    return value


def _finite(value: Any, kind: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"must be a number. Received: {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number, as JSON has no other. Received: {value!r}.")
    return float(value)


def _literal(value: Any, kind: Any) -> Any:
    for choice in get_args(kind):
        if type(choice) is type(value) and choice == value:
            return choice
    raise ValueError(f"must be {_words(kind)}. Received: {value!r}.")


def _tuple_hook(kind: Any, converter: Converter) -> Hook:
    inner = get_args(kind)
    repeated = len(inner) == 2 and inner[1] is Ellipsis

    def read(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise TypeError(f"must be a list. Received: {value!r}.")
        if not repeated and len(value) != len(inner):
            raise ValueError(f"must have {len(inner)} entries. Received: {value!r}.")
        kinds = inner[:1] * len(value) if repeated else inner
        return tuple(_entry(converter, v, k, i, kind) for i, (v, k) in enumerate(zip(value, kinds, strict=True)))

    return read


def _entry(converter: Converter, value: Any, kind: Any, index: int, of: Any) -> Any:
    try:
        return converter.structure(value, kind)
    except Exception as error:
        error.add_note(IterableValidationNote(f"entry {index}", index, kind))
        # Notes are looked for in the errors of a group.
        raise BaseValidationError("entries", [error], of) from error


def _union_hook(kind: Any, converter: Converter) -> Hook:
    members = get_args(kind)
    configs = [m for m in members if dataclasses.is_dataclass(m)]
    only_config: Any = configs[0] if len(configs) == 1 else None

    def read(value: Any, _: Any) -> Any:
        if only_config is not None and isinstance(value, dict):
            return converter.structure(value, only_config)  # its errors name the setting inside it
        fits, errors = [], []
        for member in members:
            try:
                fits.append(converter.structure(value, member))
            except (KeyError, TypeError, ValueError, BaseValidationError) as error:
                errors.append(error)
        if fits:
            # Of int | float, 1 is the int and 1.0 the float.
            return next((f for f in fits if type(f) is type(value)), fits[0])
        wrong_value = any(isinstance(e, ValueError) and isinstance(value, str | float) for e in errors)
        raise (ValueError if wrong_value else TypeError)(f"must be {_words(kind)}. Received: {value!r}.")

    return read


def _config_hook(cls: Any, converter: Converter) -> Hook:
    fill = make_dict_structure_fn(cls, converter)
    names = [f.name for f in dataclasses.fields(cls) if f.init]

    def read(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"must be an object with the settings {', '.join(names)}. Received: {value!r}.")
        for name in value:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise _Unknown(str(name), f"is no setting of {cls.__name__}. Received: {value[name]!r}.{hint}")
        for name in names:
            if name not in value:
                raise _Unknown(name, f"is missing. Received: {', '.join(map(str, value)) or 'no settings'}.")
        return fill(value, cls)

    return read
