"""The base of everything that an experiment file can hold."""

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Spec(BaseModel):
    """A frozen, fully validated part of an experiment file; unknown keys are errors.

    The docstring below a field is its description in the JSON schema. It is looked up when the schema is asked for:
    pydantic's own `use_attribute_docstrings` reads every class's source when it is imported, in every process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, field in cls.model_fields.items():
            owner = next(parent for parent in cls.__mro__ if name in inspect.get_annotations(parent))
            shown = properties.get(field.alias or name)
            if shown is not None and name in _docstrings(owner):
                shown.setdefault("description", _docstrings(owner)[name])
        return schema


@cache
def _docstrings(spec: type) -> dict[str, str]:
    """The docstrings below the fields of one class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(spec)))
    (body,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(body.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }
