"""Members that several requests have, with what their JSON Schema says of the rules of `fsn.core.names`."""

from typing import Annotated

import msgspec

from fsn.coord.admission import MOST_REPLICAS
from fsn.core.names import (
    EMAIL_PATTERN,
    LONGEST_EMAIL,
    LONGEST_FILENAME_BYTES,
    LONGEST_NODE_NAME,
    LONGEST_PASSWORD_BYTES,
    LONGEST_REGION,
    SHORTEST_PASSWORD,
)

__all__ = ["Email", "Filename", "NodeName", "Password", "Region", "Replicas"]

_LINE = r"^[^\x00-\x1f\x7f-\x9f]+$"
Email = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": LONGEST_EMAIL, "pattern": f"^{EMAIL_PATTERN}$"})]
"""Told in the schema and not checked by it, like all here: `core.names` does that, with a code and a sentence for each mistake."""
Password = Annotated[
    str,
    msgspec.Meta(
        description=f"at most {LONGEST_PASSWORD_BYTES} bytes of UTF-8",
        extra_json_schema={
            "minLength": SHORTEST_PASSWORD,
            "maxLength": LONGEST_PASSWORD_BYTES,
            "pattern": r"^[^\x00]*$",
            "format": "password",
        },
    ),
]
Filename = Annotated[
    str,
    msgspec.Meta(
        description=f"at most {LONGEST_FILENAME_BYTES} bytes of UTF-8, no path",
        extra_json_schema={
            "minLength": 1,
            "maxLength": LONGEST_FILENAME_BYTES,
            "pattern": r"^(?!\.{1,2}$)[^/\x00-\x1f\x7f-\x9f]+$",
        },
    ),
]
NodeName = Annotated[
    str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": LONGEST_NODE_NAME, "pattern": _LINE})
]
Region = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": LONGEST_REGION, "pattern": _LINE})]
Replicas = Annotated[int, msgspec.Meta(ge=1, le=MOST_REPLICAS)]
"""This one is checked here, too."""
