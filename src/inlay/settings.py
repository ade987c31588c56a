"""The parent of every section of a run file."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen, hashable group of settings that refuses unknown keys.

    Use tuples rather than lists and nested ``Settings`` rather than dicts, so that instances stay hashable.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
