"""Ordering, and looking at an order."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from container_manager.embed import submit
from orders.models import Order


@csrf_exempt
@require_POST
def create(request: HttpRequest) -> JsonResponse:
    """Save the order, and have its invoice made: both or neither."""
    with transaction.atomic():
        order = Order.objects.create(article=request.POST["article"])
        submit("shop/invoice:1", [f"echo Invoice for {order.article}"], labels={"order": str(order.pk)})
    return JsonResponse({"order": order.pk})


def show(request: HttpRequest, number: int) -> JsonResponse:
    """The order and what became of its invoice."""
    order = get_object_or_404(Order, pk=number)
    return JsonResponse({"article": order.article, "invoice": order.invoice})
