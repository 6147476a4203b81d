"""GraphQL over WebSocket and Server-Sent Events.

Both build on classes of Strawberry that it does not document; pyproject.toml caps its version, and
tests/unit/test_private_apis.py fails when they change.
"""
