"""What a session on a Dask cluster is told."""

from dataclasses import dataclass

from flowtilla_executors.dask.plan import Plan


@dataclass(frozen=True, slots=True)
class Options:
    """The executor's settings, checked.

    Args:
        address: the scheduler's; None starts a local cluster.
        plan: of a local cluster.
        tls: the certificate files, by the name of their setting.
        env_vars: of the stages.
        py_modules: paths of what to ship to the workers.
        grows: whether the cluster makes workers when there is work, and may do without.
    """

    address: str | None
    plan: Plan
    tls: dict[str, str]
    env_vars: dict[str, str]
    py_modules: tuple[str, ...]
    grows: bool

    @property
    def bounded(self) -> bool:
        """Whether it is known what the cluster could have at most: what that cannot run need not wait."""
        return self.address is None or not self.grows
