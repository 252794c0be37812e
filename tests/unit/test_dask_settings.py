"""The settings of the Dask executor."""

import subprocess
import sys

import pytest

from flowtilla.errors import ConfigurationError
from flowtilla.settings import ExecutorSettings
from flowtilla_executors.registry import create


def dask(**options):
    return create(ExecutorSettings.model_validate({"target": "dask", **options}))


def test_the_reference_configuration_is_taken():
    """With Dask in the place of Ray."""
    executor = dask(
        target="flowdapt.compute.executor.dask.DaskExecutor",
        log_to_driver=True,
        env_vars={"OMP_NUM_THREADS": 1},
        gpus=1,
        cpus=2,
        memory="8GB",
        resources={"hamster_wheels": 6},
    )

    assert executor.kind == "dask"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cluster_address": "tcp://a:1", "cpus": 2, "memory": "1GB"}, "cannot set `cpus`, `memory` of a cluster"),
        (
            {"cluster_address": "tcp://a:1", "require_gpus": False, "dashboard_host": "::", "dashboard_port": 1},
            "cannot set `require_gpus`, `dashboard_host`, `dashboard_port` of a cluster",
        ),
        ({"cluster_address": "tls://a:1", "tls_cert": "/nowhere"}, "`tls_ca_file`, `tls_key` too"),
        ({"cluster_address": "tcp://a:1", "tls_cert": "/nowhere"}, "begins with tls://"),
        (
            {"cluster_address": "tls://a:1", "tls_cert": "/nowhere", "tls_key": "/n", "tls_ca_file": "/n"},
            "no such file",
        ),
        ({"cpus": 0}, "positive"),
        ({"threads": 0}, "positive"),
        ({"gpus": -1}, "positive"),
        ({"resources": {"wheels": -1}}, "positive"),
        ({"adaptive": {"min": 3, "max": 2}}, "adaptive"),
        ({"adaptive": {"least": 3}}, "adaptive"),
        ({"adaptive": {"min": 0, "max": 2}, "cpus": 2}, "both `cpus: 2`.* and `adaptive`"),
        ({"adaptive": {"min": 0, "max": 2}, "gpus": 3}, "3 devices in 2 worker processes: lower `gpus`"),
        ({"memory": "8 elephants"}, "memory"),
        ({"tasks_per_worker": 3}, "tasks_per_worker"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, said):
    """With what is wrong."""
    with pytest.raises(ConfigurationError, match=said):
        dask(**options)


def test_making_an_executor_does_not_import_dask():
    """It takes a second, in which the worker is up already."""
    code = (
        "import sys; from flowtilla_executors.dask import DaskExecutor; DaskExecutor(cpus=1); "
        "assert not {'dask', 'distributed'} & set(sys.modules), 'imported'"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
