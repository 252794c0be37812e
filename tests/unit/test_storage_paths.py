"""No path leads out of its place: a million of them tried on the rules, some thousands on a disk full of links."""

import json
import posixpath
import random
import string
import unicodedata
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from flowtilla.errors import FlowtillaError, InvalidName
from flowtilla.names import check_name
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactRecord, ArtifactStore
from flowtilla.storage.checkpoints import load_checkpoint
from flowtilla.storage.layout import Layout
from flowtilla.storage.logs import load_log
from flowtilla.storage.record import check_relative
from flowtilla.storage.results import load_result
from flowtilla.storage.staged import Staged

#: What paths that lead astray are made of: dots and slashes, plain, escaped once, twice and badly, and as look-alikes.
PIECES = [
    *(
        "..",
        ".",
        "/",
        "//",
        "\\",
        "~",
        "~root",
        "\0",
        "\n",
        "\r",
        "\x7f",
        " ",
        "",
        "...",
        "....//",
        ".;/",
        "|",
        "*",
        "?",
    ),
    *("%2e", "%2E%2e", "%2f", "%5c", "%00", "%252e", "%252f", "%255c", "%25252e", "%c0%ae", "%c0%af", "%u002e", "%"),
    *(
        "C:",
        "c:/",
        "file:",
        "file://",
        "s3://",
        "::",
        "?versionId=1",
        "#",
        "\\\\host\\share",
        "/etc/passwd",
        "/proc/self",
    ),
    *("\u2024", "\u2025", "\u2026", "\uff0e", "\ufe52", "\uff0f", "\u2044", "\u2215", "\u29f8", "\u2216", "\uff3c"),
    *("\ufe68", "\uff05", "\uff12\uff45", "\u202e", "\u200b", "\ufeff", "\u3002", "\u0338", "\ud800", "\U000e002e"),
    *("a", "b.txt", "-", "_", "x" * 40, "café", "current.json", "1700000000000000-0123abcd"),
]

CASES = 1_000_000
NAME = set(string.ascii_letters + string.digits + "_-")


def paths(count: int, seed: int, longest: int = 6) -> Iterator[str]:
    """Yields every pair of pieces, then as many made of more as were asked for."""
    yield from map("".join, product(PIECES, repeat=2))
    draw = random.Random(seed)
    for _ in range(count):
        yield "".join(draw.choices(PIECES, k=draw.randint(1, longest)))


def readings(path: str) -> Iterator[str]:
    """Yields what a path may come to mean to somebody: decoded, decoded again, normalised, with other slashes."""
    forms = {path} if path.isascii() else {unicodedata.normalize(form, path) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    for text in forms:
        yield text.replace("\\", "/")
        while text != (text := unquote(text)):
            yield text.replace("\\", "/")


def stays_inside(path: str) -> bool:
    """Returns whether a path stays in its folder, as POSIX has it; another way to ask than the one that is tested."""
    return posixpath.normpath(posixpath.join("/root/a", path)).startswith("/root/a/")


def test_no_path_of_a_million_leads_out() -> None:
    """Whatever is accepted stays in its artifact however it is read; of what is harmless, enough is accepted."""
    accepted = 0
    for path in paths(CASES, seed=1):
        try:
            check_relative(path)
        except ValueError:
            continue
        accepted += 1
        assert all(map(stays_inside, readings(path))), path
        assert not any(part[1:2] == ":" and part[0] in string.ascii_letters for part in path.split("/")), path
        assert path.isprintable() or not {"\0", "\n", "\r", "\x7f", "\\"} & set(path), path
    assert accepted > CASES / 50


def test_no_name_is_more_than_a_name(tmp_path: Path) -> None:
    """What is accepted as a namespace or a name is one part of a path, of the characters that the rule names."""
    layout, accepted = Layout(StorageSettings(base_path=str(tmp_path)), "artifacts"), 0
    for name in paths(CASES // 5, seed=2, longest=3):
        try:
            check_name(name)
        except InvalidName:
            continue
        accepted += 1
        assert name and NAME.issuperset(name), name
        assert layout.folder(name, name) == f"{tmp_path}/artifacts/{name}/{name}"
    assert accepted > CASES / 2000


@pytest.mark.parametrize(
    "fine", ["a.txt", "a b/ü.csv", "100% sure", "it...", "Ａ／Ｂ.txt", "½", "1∕2", "wait…", "..a", "a..", "日本/東京"]
)
def test_harmless_paths_are_accepted(fine: str) -> None:
    """Letters of all languages, and look-alikes that lead nowhere else."""
    assert check_relative(fine) == fine


@pytest.mark.parametrize(
    "evil", ["．．/x", "․․/x", "‥/x", "a／．．／．．", "％２ｅ", "a＼b", "Ｃ：x", "a%252e", "／etc"]
)
def test_what_normalisation_makes_treacherous_is_refused(evil: str) -> None:
    """A dot, a slash or an escape is one in its compatible forms too."""
    with pytest.raises(ValueError, match="plain relative path"):
        check_relative(evil)


SECRET = b"do not read me"


@pytest.fixture
def maze(tmp_path: Path) -> Path:
    """A store with honest artifacts and with links of every kind, beside things that are nobody's business."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    (outside / "secret.json").write_bytes(json.dumps(SECRET.decode()).encode())
    root = tmp_path / "root"
    for area in ("artifacts", "results", "logs", "checkpoints", "objects"):
        store = ArtifactStore(StorageSettings(base_path=str(root)), area)
        for namespace, name in (("ns", "a"), ("ns", "b"), ("other", "a")):
            store.put(namespace, name, f"{namespace}/{name}", run_id=name)
        folder = root / area
        links = {
            "linked": outside,
            "self": folder / "self",
            "gone": outside / "gone",
            "ns/up": Path("../.."),
            "ns/out": outside,
            "ns/theirs": folder / "other" / "a",
            "ns/a/current.json.tmp": outside / "secret.json",
            "ns/b/1700000000000000-0123abcd": outside,
            "ns/b/1700000000000000-0123abcd.json": outside / "secret.json",
        }
        for link, target in links.items():
            (folder / link).symlink_to(target)
        Path(store.get("ns", "b").path).unlink()
        Path(store.get("ns", "b").path).symlink_to(outside / "secret")
    notes = root / "staged" / "ns"
    (notes / "b").mkdir(parents=True)
    (notes / "a").symlink_to(outside)
    for note in ("ns.a.current", "ns.linked.1700000000000000-0123abcd", "...secret", "ns.b.1700000000000000-0123abcd"):
        (notes / "b" / note).touch()
    return tmp_path


def test_thousands_of_uses_of_a_store_full_of_links_stay_inside(maze: Path) -> None:
    """Each use of each verb, with any names, versions and records, gives an honest value or an error of ours."""
    settings = StorageSettings(base_path=str(maze / "root"))
    outside = snapshot(maze / "outside")
    draw = random.Random(3)
    names = ["ns", "a", "b", "other", "linked", "self", "gone", "up", "out", "theirs", "a.b", ".", "..", "current"]
    honest = json.loads(next(Path(maze, "root", "artifacts", "ns", "a").glob("current.json")).read_bytes())
    worked = 0
    for _ in range(5000):
        namespace, name = (draw.choice(names) if draw.random() < 0.8 else draw.choice(PIECES) for _ in range(2))
        record = honest | {
            "namespace": namespace,
            "name": name,
            "run_id": name,
            "version": draw.choice([honest["version"], "1700000000000000-0123abcd", *PIECES[:8]]),
            "files": {draw.choice(["a.txt", "secret", "secret.json", "../secret", *PIECES]): 14},
            "format": draw.choice(["text", "bytes", "file", "folder", "pickle", "partitioned"]),
        }
        area = draw.choice(["artifacts", "results", "logs", "checkpoints", "objects"])
        uses = _uses(ArtifactStore(settings, area), settings, namespace, name, record, maze / "copy")
        try:
            found = draw.choice(uses)()
        except FlowtillaError:
            continue
        worked += 1
        assert SECRET not in (found if isinstance(found, bytes) else repr(found).encode())
    assert worked > 100
    assert snapshot(maze / "outside") == outside
    assert sorted(path.name for path in maze.iterdir() if path.name != "copy") == ["outside", "root"]


def _uses(
    store: ArtifactStore, settings: StorageSettings, namespace: str, name: str, record: dict[str, Any], copy: Path
) -> list[Callable[[], object]]:
    data = settings.model_dump(mode="json")

    def recorded() -> ArtifactRecord:
        try:
            return ArtifactRecord.model_validate(record)
        except ValueError as error:
            raise FlowtillaError("no record") from error

    return [
        lambda: store.put(namespace, name, "x"),
        lambda: store.stage(namespace, name, "x"),
        lambda: store.get(namespace, name).read(),
        lambda: store.get(namespace, name).download(copy).read_bytes(),
        lambda: store.get(namespace, name, record["version"]).read(),
        lambda: store.exists(namespace, name),
        lambda: [one.read() for one in store.list(namespace)],
        lambda: store.delete(namespace, name),
        lambda: store.purge(namespace, name),
        lambda: store.namespaces(),
        lambda: store.publish(recorded()),
        lambda: store.discard(namespace, name, record["version"]),
        lambda: Staged(settings, namespace, name).note("ns", "a", "1700000000000000-0123abcd"),
        lambda: Staged(settings, namespace, name).purge(),
        lambda: store.artifact(recorded()).read(allow_pickle=True),
        lambda: store.artifact(recorded()).open().read(),
        lambda: load_result(settings, namespace, name, {"record": record}),
        lambda: load_log(settings, namespace, name, record),
        lambda: load_checkpoint(data, namespace, name, record),
    ]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
