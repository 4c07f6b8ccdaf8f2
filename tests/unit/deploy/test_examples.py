# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anomalib_ncd.cli.parser import parse
from anomalib_ncd.deploy import AnomalyClassifier
from anomalib_ncd.regions.reading.listing import list_images

EXAMPLES = Path(__file__).parents[3] / "examples"
NUM_CLIENTS = 8


def multipart(content):
    """Body and headers of a form with one file."""
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=x"}


def post(port, content):
    body, headers = multipart(content)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.load(answer)


@pytest.fixture
def service(artefact, tmp_path):
    pytest.importorskip("litserve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "rest_service.py"), "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | {"ARTEFACT": str(artefact)}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        while True:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                    if answer.status == 200:
                        break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # LitServe's workers outlive a server that is only terminated
        server.wait()


@pytest.mark.slow
def test_eight_clients_get_what_the_classifier_says(service, artefact, tiny_run):
    paths = [image.path for image in list_images(tiny_run.images)]
    expected = [json.loads(result.to_json()) for result in AnomalyClassifier.load(artefact).stream(paths)]
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        found = list(clients.map(lambda path: post(service, path.read_bytes()), paths))
    for one, other in zip(found, expected, strict=True):
        assert one["class"] == other["class"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-4)
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(service, b"no image")
    assert refused.value.code == 400
    assert "one image file" in io.TextIOWrapper(refused.value).read()


def test_flags_of_unit_and_container_exist():
    unit = (EXAMPLES / "anomalib-ncd-watch.service").read_text().replace("\\\n", " ")
    [line] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    parse(shlex.split(line)[1:])
    container = (EXAMPLES / "Dockerfile").read_text()
    [command] = [line for line in container.splitlines() if line.startswith("CMD ")]
    parse(["classify", *json.loads(command[4:])])
