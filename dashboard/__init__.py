"""The files of the dashboard: scripts, styles and the page that loads them. `graphql_api.dashboard` serves them."""
