"""`uvicorn asgi:application` in this folder; an installed package has container_manager.asgi."""

from container_manager.asgi import application

__all__ = ["application"]
