"""What Django itself serves; /graphql and the probes are answered before it, in asgi.py."""

from django.urls import URLPattern, URLResolver

urlpatterns: list[URLPattern | URLResolver] = []
