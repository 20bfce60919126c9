"""The Celery app, as `consume.py` runs it."""

from ..models.queue import make_celery
from ..models.settings import Settings

app = make_celery(Settings.from_environment())
app.conf.imports = ["scanomaly.worker.tasks"]
