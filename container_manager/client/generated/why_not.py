from typing import Optional

from pydantic import Field

from container_manager.client.values import Value

from .fragments import HostChecks


class WhyNot(Value):
    why_not: Optional["WhyNotWhyNot"] = Field(validation_alias="whyNot", serialization_alias="whyNot")


WhyNotWhyNot = HostChecks
WhyNot.model_rebuild()
