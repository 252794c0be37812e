"""What an attempt leaves in Redis for those after it, signed: none of them uses what somebody else wrote there."""

from collections.abc import Mapping

from flowtilla.settings import SigningSettings
from flowtilla.signing import fault, sign


class Seal:
    """Signs what one run keeps in Redis; without keys it changes nothing, and accepts everything.

    Args:
        settings: the keys.
        of: whose it is: the run's id, its namespace, and its signature, which stands for its message.
    """

    def __init__(self, settings: SigningSettings, *of: str) -> None:
        self._settings = settings
        self._of = of

    def put(self, kind: str, name: str, text: str) -> str:
        """Returns a line of text with its signature in a line before it.

        Args:
            kind: what it is of the stage: its record, or its value.
            name: the stage.
            text: the line.
        """
        signature = sign(self._settings, text.encode(), kind, *self._of, name)
        return f"{signature}\n{text}" if signature else text

    def genuine(self, kind: str, texts: Mapping[str, bytes]) -> dict[str, bytes]:
        """Returns those of the texts, by stage, that an attempt of this run wrote, without their signatures."""
        found = {}
        for name, sealed in texts.items():
            signature, _, text = sealed.rpartition(b"\n")
            if fault(self._settings, signature.decode(errors="replace"), text, kind, *self._of, name) is None:
                found[name] = text
        return found
