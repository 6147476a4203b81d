"""References to images. Pure."""


def registry_of(image: str) -> str:
    """The registry of an image reference."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"
