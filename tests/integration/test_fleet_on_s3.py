"""A fleet whose storage is S3: artifacts, a large result, a checkpoint and the log all go through it."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fleet import Fleet
from flowtilla_worker.dev.embedded import EmbeddedValkey


@pytest.fixture
def s3() -> Iterator[dict[str, Any]]:
    """Settings of a storage in a bucket of a real server over HTTP."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        keys = {"key": "test", "secret": "test"}
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=keys["key"],
            aws_secret_access_key=keys["secret"],
        )
        client.create_bucket(Bucket="fleet")
        yield {
            "protocol": "s3",
            "base_path": "fleet",
            "parameters": keys | {"client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"}},
        }
    finally:
        server.stop()


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_everything_a_run_leaves_is_in_the_bucket(
    server: EmbeddedValkey, redis: object, tmp_path: Any, s3: dict[str, Any], mode: str
) -> None:
    """What is written by stages and workers is read back by the client."""
    with Fleet(server.url, tmp_path, s3) as fleet:
        fleet.start("w", mode=mode)
        run = fleet.submit(
            {"name": "stores"},
            {"name": "large", "depends_on": ["stores"], "checkpoint": True},
            {"name": "double", "type": "parameterized", "depends_on": ["large"]},
            input={"x": 7},
            namespace="research",
        )
        assert run.result(timeout=60) == [2 * number for number in range(100_000)]
        assert run.artifacts["number"].read() == {"x": 7}
        assert run.artifacts["number"].path.startswith("s3://fleet/artifacts/research/number/")
        fleet.client._redis.delete(f"flowtilla:run:{run.id}:log")
        assert [line.message for line in run.logs()] == ["storing 7"]
        assert "test" not in repr(fleet.settings.storage)
