from pydantic import Field

from container_manager.client.values import Value

from .fragments import HostFields


class Hosts(Value):
    hosts: "HostsHosts"


class HostsHosts(Value):
    edges: list["HostsHostsEdges"]
    page_info: "HostsHostsPageInfo" = Field(validation_alias="pageInfo", serialization_alias="pageInfo")


class HostsHostsEdges(Value):
    node: "HostsHostsEdgesNode"


HostsHostsEdgesNode = HostFields


class HostsHostsPageInfo(Value):
    has_next_page: bool = Field(validation_alias="hasNextPage", serialization_alias="hasNextPage")
    end_cursor: str | None = Field(validation_alias="endCursor", serialization_alias="endCursor")


Hosts.model_rebuild()
HostsHosts.model_rebuild()
HostsHostsEdges.model_rebuild()
