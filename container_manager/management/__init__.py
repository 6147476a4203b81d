"""Commands of manage.py in a project that uses the app."""
