"""The types that clients see, by subject. They are plain values built from rows; nested objects come through loaders.

To add a field, add it to its class here and set it in the class's `of`, or write a resolver of a few lines that calls
the service. `scripts/schema` then exports the schema.
"""
