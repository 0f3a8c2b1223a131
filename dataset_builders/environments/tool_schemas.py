"""Check tool schemas, and tool calls against them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.errors import ConfigError
from dataset_builders.tools import TOOL_NAME, ToolCall

UNKNOWN_TOOL = "unknown_tool"
INVALID_ARGUMENTS = "invalid_arguments"

Schemas = Sequence[Mapping[str, Any]]


def function_schema(name: str, description: str, **properties: Any) -> dict[str, Any]:
    """Return a tool's schema in the OpenAI format; all arguments are required.

    Args:
        name: Name of the tool.
        description: What it does.
        properties: JSON Schema of each argument.
    """
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def check_schemas(schemas: Schemas, where: str) -> None:
    """Check the schemas of an environment's tools.

    Args:
        schemas: In the OpenAI format: `{"type": "function", "function": {"name": ...,
            "description": ..., "parameters": JSON Schema}}`.
        where: What they belong to, for the error.

    Raises:
        ConfigError: A schema has another form, a name that endpoints refuse or that is there twice,
            or parameters that are no JSON Schema of an object.
    """
    names: set[str] = set()
    for index, schema in enumerate(schemas):
        function = schema.get("function") if isinstance(schema, Mapping) else None
        if not isinstance(function, Mapping):
            raise ConfigError(
                f"{where}: tool {index}: found {schema!r:.80}, expected an object with `function`"
            )
        name = function.get("name")
        if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            raise ConfigError(
                f"{where}: tool {index}: name: found {name!r:.80}, expected what endpoints accept: "
                "1 to 64 letters, digits, underscores or hyphens"
            )
        if name in names:
            raise ConfigError(f"{where}: tool {name}: found twice, expected different names")
        names.add(name)
        _check_parameters(function.get("parameters"), f"{where}: tool {name}: parameters")


def _check_parameters(parameters: object, where: str) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if parameters is None:  # A tool without arguments.
        return
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise ConfigError(f"{where}: found {parameters!r:.80}, expected a JSON Schema of an object")
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        raise ConfigError(f"{where}: not a JSON Schema: {error.message}") from None


def shown_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema as a chat template is to show it.

    Servers parse schemas and render what they have parsed: vLLM in this order of fields, and null
    for an absent field. With all fields, in this order, a server's prompt is the training row's.
    """
    function = dict(schema["function"])
    parameters = function.pop("parameters", None) or {"type": "object", "properties": {}}
    first = {"name": function.pop("name"), "description": function.pop("description", "")}
    return {"type": "function", "function": first | {"parameters": parameters} | function}


def call_fault(call: ToolCall, schemas: Schemas) -> tuple[str, str]:
    """Return what is wrong with a call: `UNKNOWN_TOOL` or `INVALID_ARGUMENTS`, and a sentence.

    The sentence is for the model. Both are "" if the call fits a schema.
    """
    functions = {schema["function"]["name"]: schema["function"] for schema in schemas}
    if call.name not in functions:
        known = ", ".join(functions)
        return UNKNOWN_TOOL, f"Error: there is no tool named {call.name!r}. The tools are: {known}."
    fault = _first_error(json.loads(call.arguments), functions[call.name].get("parameters"))
    if not fault:
        return "", ""
    return INVALID_ARGUMENTS, f"Error: invalid arguments of {call.name}: {fault}."


def _first_error(arguments: Mapping[str, Any], parameters: Mapping[str, Any] | None) -> str:
    from jsonschema import Draft202012Validator

    if parameters is None:
        return "" if not arguments else f"found {', '.join(arguments)}, expected none"
    errors = Draft202012Validator(parameters).iter_errors(arguments)
    found = [f"{_place(error.absolute_path)}{error.message:.300}" for error in errors]
    return min(found, default="")


def _place(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path)) + ": " if path else ""
