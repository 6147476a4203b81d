"""Labels with their types, beside the JSON."""

from collections.abc import Mapping

import strawberry

from graphql_api.operation import current


@strawberry.type(description="A label of a job or a host.")
class Label:
    name: str
    value: str


def labels_of(labels: Mapping[str, str]) -> list[Label]:
    """The labels by name."""
    current().spend(characters=sum(len(name) + len(value) for name, value in labels.items()))
    return [Label(name=name, value=value) for name, value in sorted(labels.items())]
