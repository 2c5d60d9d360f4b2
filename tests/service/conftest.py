"""Two small runs, and services around them."""

import contextlib
import shutil
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

import tfrec
from tfrec.data import Interactions
from tfrec.service.limits import Limits
from tfrec.service.metrics import Metrics
from tfrec.service.models import Batching, Models
from tfrec.service.protocol import bounded
from tfrec.service.routes import Service, Settings

PLAYS = Path(__file__).parents[2] / "examples" / "plays.csv"


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = Interactions.from_table(PLAYS, user="listener", item="track", title="name")
    tfrec.fit("als", data, factors=8, iterations=2, output_dir=folder / "als")
    tfrec.fit("ease", data, output_dir=folder / "ease")
    return folder


@contextlib.contextmanager
def service(paths, limits=None, token=None, reload_s=0.0, batching=None):
    """A service, and nothing left afterwards."""
    limits, metrics = limits or Limits(), Metrics()
    models = Models(paths, limits, batching or Batching(), metrics)
    try:
        yield Service(models, metrics, Settings(limits, token, reload_s))
    finally:
        models.close()


@contextlib.contextmanager
def serving(paths, **options):
    """A client, and the models."""
    with service(paths, **options) as made, TestClient(made.application()) as client:
        client.models = made.models
        yield client


@contextlib.contextmanager
def listening(paths, **options):
    """The address of a service."""
    with service(paths, **options) as made:
        server = uvicorn.Server(uvicorn.Config(made.application(), port=0, log_level="error", http=bounded(5.0)))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.02)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def client(runs):
    with serving({"als": runs / "als", "ease": runs / "ease"}) as found:
        yield found


@pytest.fixture
def copied(runs, tmp_path):
    """A run that a test may change."""
    return Path(shutil.copytree(runs / "ease", tmp_path / "ease"))
