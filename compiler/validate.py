"""What the recipe schema says about a recipe, in words for its author; the only importer of jsonschema.

jsonschema finds the violations, one handler per keyword words them. Checks single values and their shape; what spans
several keys belongs to `rules`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, validators
from referencing import Registry

from .diagnostics import Diagnostic, Severity, sort_diagnostics
from .loader import RecipeDocument
from .pointers import dotted, join, pointer_to, split
from .scalars import is_number
from .suggest import ADVICE, SYNONYMS, closest, key_paths, locate
from .wording import alternatives, found, line_to_add, menu, needed, plural, quoted

# jsonschema ships no types. Used of an error: validator, validator_value, instance, schema, absolute_path, context.
type _Error = Any
type _Schema = Mapping[str, Any]


def validate(document: RecipeDocument, schema: _Schema) -> list[Diagnostic]:
    """Every violation once, at its place. `schema` is Draft 2020-12 with local references only.

    A value that the loader has reported gets no second report, nor does a missing key whose misspelling was found.
    """
    check = _Check(document=document, schema=schema)
    # A bare Registry retrieves nothing: a reference to the outside is a bug of the schema, never a download.
    validator = _validator_class()(schema, registry=Registry())
    errors = [inner for error in validator.iter_errors(document.data) for inner in _flatten(error)]
    wrong_type = {_pointer(error) for error in errors if error.validator == "type"}
    reports: list[Diagnostic] = []
    for error in sorted(errors, key=lambda error: error.validator == "required"):
        pointer = _pointer(error)
        if check.is_broken(pointer) or (pointer in wrong_type and error.validator != "type"):
            continue
        reports.extend(_HANDLERS.get(error.validator, _other)(check, error, pointer))
    return sort_diagnostics(reports)


@cache
def _validator_class() -> Any:
    """Draft 2020-12, except that `1.0` is no integer: a count with a decimal point is a slip worth a word.

    And `$` in a pattern is the end, as ECMA-262 has it: to Python's `re` it also stands before a last line feed, which
    would break out of a comment or a directive.
    """
    checker = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    plain = Draft202012Validator.VALIDATORS["pattern"]

    def pattern(validator: Any, wanted: str, value: Any, schema: _Schema) -> Iterator[_Error]:
        yield from plain(validator, wanted.removesuffix("$") + r"\Z" if wanted.endswith("$") else wanted, value, schema)

    return validators.extend(Draft202012Validator, {"pattern": pattern}, type_checker=checker)


def _pointer(error: _Error) -> str:
    """The value that is wrong; for `propertyNames` the entry whose key is wrong."""
    pointer = pointer_to(error.absolute_path)
    return join(pointer, error.instance) if _is_key(error) else pointer


def _is_key(error: _Error) -> bool:
    return "propertyNames" in error.absolute_schema_path


def _flatten(error: _Error) -> Iterator[_Error]:
    """The violations inside the one branch of `anyOf`/`oneOf` that the value was meant for, else the error itself."""
    branches: dict[int, list[_Error]] = {}
    for inner in error.context if error.validator in ("anyOf", "oneOf") else ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    rejected = ("type", "const", "enum")
    meant = [inner for inner in branches.values() if not any(e.validator in rejected and not e.path for e in inner)]
    if len(meant) != 1:
        yield error
        return
    for inner in meant[0]:
        yield from _flatten(inner)


@dataclass(slots=True, kw_only=True)
class _Check:
    """One validation. `meant` collects the dotted keys that unknown keys were probably meant to be."""

    document: RecipeDocument
    schema: _Schema
    meant: set[str] = field(default_factory=set)

    def is_broken(self, pointer: str) -> bool:
        return any(pointer == broken or pointer.startswith(f"{broken}/") for broken in self.document.broken)

    def was_meant(self, pointer: str) -> bool:
        """Whether some unknown key was probably meant to be this one, or to stand in this section."""
        path = dotted(pointer)
        return any(meant == path or meant.startswith(f"{path}.") for meant in self.meant)

    def raw(self, pointer: str) -> str:
        return self.document.source.slice(self.document.places[pointer].value)

    def resolve(self, schema: _Schema) -> _Schema:
        while "$ref" in schema:
            target: Any = self.schema
            for part in split(schema["$ref"].removeprefix("#")):
                target = target[part]
            schema = target
        return schema

    def schema_at(self, pointer: str) -> _Schema:
        """The schema of the section at `pointer`; a violated condition (`if`, `then`) does not carry its properties."""
        schema = self.schema
        for part in split(pointer) if pointer else ():
            schema = self.resolve(schema.get("properties", {}).get(part) or schema.get("items", {}))
        return schema

    def report(
        self, code: str, pointer: str, message: str, help: str | None = None, *, on_key: bool = False
    ) -> Diagnostic:
        place = self.document.places[pointer]
        span = place.key if on_key and place.key else place.value
        return Diagnostic(
            code=code, severity=Severity.ERROR, message=message, span=span, pointer=pointer, help=help or None
        )


type _Reports = list[Diagnostic]


def _name(pointer: str) -> str:
    return f"`{dotted(pointer)}`" if pointer else "the recipe"


def _type(check: _Check, error: _Error, pointer: str) -> _Reports:
    value, raw = error.instance, check.raw(pointer)
    types = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
    wanted, name = needed(types), _name(pointer)
    message = f"{name} needs {wanted}, found {found(value, raw)}"
    if value is None:
        section = "properties" in error.schema
        optional = "required" not in error.schema if section else "default" in error.schema
        help = f"give it {'keys, indented below it' if section else wanted}"
        help += ", or remove the line" if optional else ""
        return [check.report("SFTC202", pointer, f"{name} has no value", help)]
    if isinstance(value, float) and "integer" in types:
        help = f"write `{int(value)}`" if value.is_integer() else "leave out the fraction"
        return [check.report("SFTC203", pointer, message, help)]
    if isinstance(value, str):
        as_number = is_number(value) and {"integer", "number"} & set(types)
        if as_number or (value in ("true", "false") and "boolean" in types):
            return [check.report("SFTC204", pointer, message, f"remove the quotes: `{value}`")]
    help = ""
    if "string" in types and isinstance(value, (int, float)):
        help = f'put it in quotes: `"{raw}"`'
    elif "object" in types:
        name = split(pointer)[-1]
        help = f"write indented `key: value` lines {'behind its `-`' if name.isdigit() else f'below `{name}:`'}"
    elif types == ["array"]:
        help = "write a list: `[a, b]`, or one `- a` per line"
    return [check.report("SFTC202", pointer, message, help)]


def _unknown_keys(check: _Check, error: _Error, pointer: str) -> _Reports:
    siblings = list(error.schema.get("properties", {}))
    reports = []
    for key in error.instance:
        if key not in siblings:
            where = f" in `{dotted(pointer)}`" if pointer else ""
            help = _suggestion(check, key, dotted(pointer), siblings)
            child = join(pointer, key)
            reports.append(check.report("SFTC201", child, f"unknown key `{key}`{where}", help, on_key=True))
    return reports


def _suggestion(check: _Check, key: str, section: str, siblings: list[str]) -> str:
    """The key itself in another section, then its name here, then a near spelling, then the whole menu."""
    if homes := locate(key, check.schema):
        check.meant.update(f"{home}.{key}" if home else key for home in homes)
        return (
            f"`{key}` belongs {alternatives(f'under `{home}`' if home else 'on the outermost level' for home in homes)}"
        )
    paths = key_paths(check.schema)
    if (path := SYNONYMS.get(key)) in paths:
        assert path is not None
        check.meant.add(path)
        return f"`{key}` is spelled `{path.rpartition('.')[2]}` here (`{path}`)"
    if key in ADVICE:
        return ADVICE[key]
    if near := closest(key, siblings):
        check.meant.add(f"{section}.{near}" if section else near)
        return f"did you mean `{near}`?"
    if near := closest(key, [path.rpartition(".")[2] for path in paths]):
        matches = [path for path in paths if path.rpartition(".")[2] == near]
        check.meant.update(matches)
        return f"did you mean {alternatives(f'`{path}`' for path in matches)}?"
    return f"the keys {'here' if section else 'of a recipe'} are {', '.join(f'`{name}`' for name in sorted(siblings))}"


def _missing_keys(check: _Check, error: _Error, pointer: str) -> _Reports:
    """jsonschema has one violation per missing key but does not say which: each call reports all, repeats fall away."""
    others = [join(pointer, key) for key in error.schema.get("x-unless", ())]
    if join(pointer, "<<") in check.document.broken or any(map(check.was_meant, others)):
        return []
    missing = (key for key in error.validator_value if key not in error.instance)
    return [_missing_key(check, error, pointer, key) for key in missing if not check.was_meant(join(pointer, key))]


def _missing_key(check: _Check, error: _Error, pointer: str, key: str) -> Diagnostic:
    section = error.schema if "properties" in error.schema else check.schema_at(pointer)
    child = check.resolve(section.get("properties", {}).get(key, {}))
    line = line_to_add(key, child)
    if "properties" in child or child.get("type") == "object":
        what, help = "section", f"add `{key}:` with its keys indented below"
    else:
        what, help = "key", f"add `{line}`" if line else f"add `{key}:` with {needed(child.get('type', 'string'))}"
    if other := error.schema.get("x-otherwise"):
        help += f", or {other}"
    if not pointer:
        start = check.document.places[""].value
        span = type(start)(
            file=start.file, line=start.line, column=start.column, end_line=start.line, end_column=start.column
        )
        message = f"the recipe has no {what} `{key}`"
        return Diagnostic(code="SFTC207", severity=Severity.ERROR, message=message, span=span, pointer="", help=help)
    return check.report("SFTC207", pointer, f"`{dotted(pointer)}` has no {what} `{key}`", help, on_key=True)


def _choice(check: _Check, error: _Error, pointer: str) -> _Reports:
    values = error.validator_value if error.validator == "enum" else [error.validator_value]
    return [_off_menu(check, pointer, error.instance, values)]


def _off_menu(check: _Check, pointer: str, value: Any, values: list[Any]) -> Diagnostic:
    names = menu(values)
    listed = f", not one of {', '.join(names)}" if len(names) > 1 else f"; it has to be {names[0]}"
    near = closest(value, [name for name in values if isinstance(name, str)]) if isinstance(value, str) else None
    message = f"{_name(pointer)} is {quoted(check.raw(pointer))}{listed}"
    return check.report("SFTC205", pointer, message, f"did you mean `{near}`?" if near else None)


_LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "greater than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}


def _limit(check: _Check, error: _Error, pointer: str) -> _Reports:
    limit = f"{_LIMITS[error.validator]} {error.validator_value}"
    message = f"{_name(pointer)} is {quoted(check.raw(pointer))}; it has to be {limit}"
    return [check.report("SFTC206", pointer, message)]


def _form(check: _Check, error: _Error, pointer: str) -> _Reports:
    if _is_key(error):
        subject = f"the key {quoted(error.instance)} of `{dotted(pointer_to(error.absolute_path))}`"
    else:
        subject = f"{_name(pointer)} is {quoted(check.raw(pointer))}, which"
    if error.validator == "pattern":
        message = f"{subject} does not fit the pattern `{error.validator_value}`"
    elif error.instance == "":
        message = f"{_name(pointer)} is empty"
    else:
        bound = "fewer" if error.validator == "minLength" else "more"
        message = f"{subject} has {plural(len(error.instance), 'character')}, {bound} than {error.validator_value}"
    examples = [f"`{example}`" for example in error.schema.get("examples", ()) if isinstance(example, str)]
    help = f"for example {examples[0]}" if examples else None
    return [check.report("SFTC208", pointer, message, help, on_key=_is_key(error))]


def _size(check: _Check, error: _Error, pointer: str) -> _Reports:
    count, noun = len(error.instance), "item" if isinstance(error.instance, list) else "key"
    if error.validator == "uniqueItems":
        message = f"{_name(pointer)} holds the same item twice"
    else:
        bound = "at least" if error.validator.startswith("min") else "at most"
        message = f"{_name(pointer)} has {plural(count, noun)}; it has to have {bound} {error.validator_value}"
    return [check.report("SFTC209", pointer, message)]


def _branches(check: _Check, error: _Error, pointer: str) -> _Reports:
    """No branch of `anyOf`/`oneOf` fits, or more than one: say what each of them wants."""
    branches = [check.resolve(branch) for branch in error.validator_value]
    fixed = [value for one in branches for value in one.get("enum", [one["const"]] if "const" in one else [])]
    if fixed and all("enum" in one or "const" in one for one in branches) and error.context:
        return [_off_menu(check, pointer, error.instance, fixed)]
    wanted = [f"{one['title']}" for one in branches if "title" in one and "type" not in one]
    wanted += [needed(one["type"]) for one in branches if "type" in one] + menu(fixed)
    name, seen = _name(pointer), found(error.instance, check.raw(pointer))
    if not error.context:
        return [check.report("SFTC210", pointer, f"{name} fits more than one of its forms, found {seen}")]
    near = closest(error.instance, [str(one) for one in fixed]) if isinstance(error.instance, str) else None
    message = f"{name} needs {alternatives(wanted)}, found {seen}" if wanted else f"{name} fits none of its forms"
    return [check.report("SFTC210", pointer, message, f"did you mean `{near}`?" if near else None)]


def _other(check: _Check, error: _Error, pointer: str) -> _Reports:
    """A keyword without words of its own: jsonschema's message, which at least names the rule."""
    return [check.report("SFTC210", pointer, f"{_name(pointer)} breaks `{error.validator}`: {error.message}")]


_HANDLERS: Mapping[str, Callable[[_Check, _Error, str], _Reports]] = {
    "type": _type,
    "additionalProperties": _unknown_keys,
    "required": _missing_keys,
    "enum": _choice,
    "const": _choice,
    **dict.fromkeys(_LIMITS, _limit),
    **dict.fromkeys(("pattern", "minLength", "maxLength"), _form),
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"), _size),
    "anyOf": _branches,
    "oneOf": _branches,
}
