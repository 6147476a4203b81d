"""Relay's nodes and pages. There are no totals: an exact count over a million rows costs more than the page."""

from typing import Generic, Self, TypeVar

import strawberry

from graphql_api.ids import to_cursor

T = TypeVar("T")


@strawberry.interface
class Node:
    id: strawberry.ID


@strawberry.type
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[T]):
    cursor: str
    node: T


@strawberry.type
class Connection(Generic[T]):
    edges: list[Edge[T]]
    page_info: PageInfo

    @classmethod
    def of(cls, nodes: list[tuple[int, T]], *, more: bool, before: bool = False) -> Self:
        """A page of (position, node). `more` and `before`: whether there are nodes after and before the page."""
        edges = [Edge(cursor=to_cursor(position), node=node) for position, node in nodes]
        return cls(
            edges=edges,
            page_info=PageInfo(
                has_next_page=more,
                has_previous_page=before,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )
