"""The app, which hears when jobs have ended."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """Orders and their invoices."""

    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from container_manager.signals import job_ended
        from orders.models import note_invoice

        job_ended.connect(note_invoice)
