"""Numbers and names that several sections share."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
# Also a folder, a word of a command and, for DVC, a part of a dotted key.
RunName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
