"""Settings of the shop; what concerns container-manager has a comment."""

import os
from pathlib import Path

import dj_database_url

from container_manager.environment import SQLITE_OPTIONS

FOLDER = Path(__file__).parents[1]

SECRET_KEY = "an-example-needs-no-secret-but-yours-does-need-one"
DEBUG = True
ALLOWED_HOSTS = []

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "container_manager",  # its tables, its pages in the admin, its signals
    "django_tasks",
    "orders",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "shop.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
USE_TZ = True

DATABASES = {"default": dj_database_url.parse(os.environ.get("SHOP_DATABASE_URL", f"sqlite:///{FOLDER}/shop.sqlite3"))}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = SQLITE_OPTIONS  # so that writers wait for each other
    DATABASES["default"]["TEST"] = {"NAME": f"{DATABASES['default']['NAME']}.test"}

# container-manager: what is not named here comes from the environment or has its default.
CONTAINER_MANAGER = {"DEFAULT_MEMORY_MB": 128, "PROBE_INTERVAL_SECONDS": 5}

# Django's tasks run in containers. The image has this project.
TASKS = {
    "default": {
        "BACKEND": "container_manager.tasks.ContainerBackend",
        "OPTIONS": {"image": "shop:1", "queues": {"reports": {"priority": -10}}},
        "QUEUES": ["default", "reports"],
    }
}
