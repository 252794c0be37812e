"""Random workflows, for laws that hold for all of them."""

from hypothesis import strategies as st


@st.composite
def dags(draw: st.DrawFn, most: int = 12) -> dict[str, list[str]]:
    """Acyclic graphs as `{name: parents}`, declared in any order."""
    names = [f"s{number}" for number in range(draw(st.integers(1, most)))]
    nodes = {name: draw(st.lists(st.sampled_from(names[:i]), max_size=4)) if i else [] for i, name in enumerate(names)}
    return {name: nodes[name] for name in draw(st.permutations(names))}
