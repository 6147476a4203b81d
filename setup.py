"""What pyproject.toml cannot say: the dashboard, which has a folder of its own here, is installed inside our package.

A package `dashboard` at the top would hide one of a project, or be hidden by it.
"""

from setuptools import find_namespace_packages, find_packages, setup

FOLDERS = ["", *(f".{name}" for name in find_namespace_packages("dashboard", exclude=["node_modules*"]))]

setup(
    packages=[
        *find_packages(include=["container_manager*", "graphql_api*"]),
        *(f"container_manager.dashboard{folder}" for folder in FOLDERS),
    ],
    package_dir={"container_manager.dashboard": "dashboard"},
)
