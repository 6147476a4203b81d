"""The shop's own addresses; container-manager's are below /containers/."""

from django.contrib import admin
from django.urls import path
from orders.views import create, show

urlpatterns = [
    path("admin/", admin.site.urls),
    path("orders/", create),
    path("orders/<int:number>/", show),
]
