"""A shop that makes its invoices in containers."""
