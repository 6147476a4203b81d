from datetime import datetime

from pydantic import Field

from container_manager.client.values import Value

from .enums import Role


class Viewer(Value):
    viewer: "ViewerViewer"


class ViewerViewer(Value):
    name: str
    role: Role
    expires_at: datetime | None = Field(validation_alias="expiresAt", serialization_alias="expiresAt")


Viewer.model_rebuild()
