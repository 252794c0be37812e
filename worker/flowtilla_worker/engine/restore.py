"""Which stages of an earlier attempt need not run again."""

from collections.abc import Collection, Mapping

from flowtilla.record import StageRecord
from flowtilla.states import StageState
from flowtilla_worker.plan.plan import Plan


def done_before(plan: Plan, records: Mapping[str, StageRecord], kept: Collection[str]) -> set[str]:
    """Returns the stages that need not run again.

    A stage that finished stays finished, unless its value was not kept and a stage that must run still needs it.

    Args:
        plan: the workflow.
        records: what earlier attempts recorded.
        kept: the stages whose values were kept.
    """
    again: set[str] = set()
    for name in reversed(list(plan.stages)):
        record = records.get(name)
        finished = record is not None and record.state is StageState.FINISHED
        needed = name in plan.finals or not again.isdisjoint(plan.stages[name].children)
        if not finished or (name not in kept and needed):
            again.add(name)
    return set(plan.stages) - again
