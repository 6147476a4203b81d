"""Made by scripts/client of the schema and operations.graphql. Not to be edited."""
