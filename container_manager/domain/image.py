"""Image references."""


def registry_of(image: str) -> str:
    """The registry in an image reference; `docker.io` when it names none."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"
