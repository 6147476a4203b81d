from typing import Optional

from container_manager.client.values import Value

from .fragments import HostFields


class Host(Value):
    host: Optional["HostHost"]


HostHost = HostFields
Host.model_rebuild()
