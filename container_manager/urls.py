"""The URLs that Django serves. /graphql and the probes are routed before Django, in graphql_api/application.py."""

from django.urls import URLPattern, URLResolver

urlpatterns: list[URLPattern | URLResolver] = []
