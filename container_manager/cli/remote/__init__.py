"""The commands that are clients of the GraphQL API."""
