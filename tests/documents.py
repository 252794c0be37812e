"""The code in the documents, so that tests can run what people will copy."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    """Returns the blocks of a language in a document, in order."""
    found = _BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def write_files(document: str, folder: Path) -> list[Path]:
    """Writes each block that begins with `# name.suffix` to the file it names; a test of README's must not miss one."""
    written = []
    for language in ("python", "yaml"):
        for text in blocks(document, language):
            if match := re.match(r"# (\S+\.\w+)\n", text):
                file = folder / match[1]
                file.write_text(text, encoding="utf-8")
                written.append(file)
    return written
