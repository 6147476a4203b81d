"""Relay's nodes and pages."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, Self, TypeVar

import strawberry

from container_manager.store import paging
from graphql_api.ids import bad_input, from_keys, page_size, to_cursor, to_keys

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


def check_direction(first: int | None, after: str | None, last: int | None, before: str | None) -> None:
    """Raise BAD_USER_INPUT for arguments that do not go together."""
    if (before is not None and last is None) or (last is not None and (first is not None or after is not None)):
        bad_input("give first and after, or last and before.")


class Asked:
    """A page as a client asks for it: `first` from `after` on, or `last` up to `before`.

    Raises:
        GraphQLError: BAD_USER_INPUT, an argument is out of range or does not go with the others.
    """

    def __init__(
        self,
        search: paging.Search,
        first: int | None,
        after: str | None,
        last: int | None = None,
        before: str | None = None,
    ) -> None:
        self.is_backward = last is not None
        check_direction(first, after, last, before)
        self._order, self._search = search.order, search
        self._cursor = before if self.is_backward else after
        self.position = from_keys(self._cursor, len(self._order.columns), "before" if self.is_backward else "after")
        self.limit = page_size(last if self.is_backward else first, argument="last" if self.is_backward else "first")

    @property
    def search(self) -> paging.Search:
        """What is searched, in the direction of the page."""
        return replace(self._search, order=self._order.reversed()) if self.is_backward else self._search

    def connection(self, page: paging.Page, node: Callable[[Any], T]) -> dict[str, Any]:
        """The fields of a connection. `node` makes one from a row."""
        rows = page.rows[::-1] if self.is_backward else page.rows
        edges = [Edge(cursor=to_keys(self._order.key(row)), node=node(row)) for row in rows]
        near, far = (-1, 0) if self.is_backward else (0, -1)
        end = to_keys(page.end) if page.end is not None else edges[far].cursor if edges else None
        start = edges[near].cursor if edges else end
        return {
            "edges": edges,
            "page_info": PageInfo(
                has_next_page=self._cursor is not None if self.is_backward else page.more,
                has_previous_page=page.more if self.is_backward else self._cursor is not None,
                start_cursor=end if self.is_backward else start,
                end_cursor=start if self.is_backward else end,
            ),
        }
