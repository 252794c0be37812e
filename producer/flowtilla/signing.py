"""Signatures: whoever wrote something into Redis held one of the fleet's keys.

A signature is `key id:HMAC-SHA256`, over what was written and over what it is of, so that neither can be exchanged.
"""

import hmac
import json

from flowtilla.errors import NotGenuine
from flowtilla.settings import SigningSettings


def sign(settings: SigningSettings, data: bytes, *of: str) -> str:
    """Returns the signature of data, made with the active key; nothing when there are no keys.

    Args:
        settings: the keys.
        data: what is written.
        of: what it is: its kind, then whose it is.
    """
    return "" if settings.active is None else f"{settings.active}:{_digest(settings, settings.active, data, of)}"


def fault(settings: SigningSettings, signature: str, data: bytes, *of: str) -> str | None:
    """Returns what is wrong with a signature; None when nothing is, or when it need not be there.

    Args:
        settings: the keys that are known.
        signature: what `sign` returned, or what somebody put in its place.
        data, of: as `sign` has them.
    """
    if not settings.keys:
        return None
    if not signature:
        return "it has no signature" if settings.required else None
    key_id, _, digest = signature.partition(":")
    if key_id not in settings.keys:
        return f"it is signed with key {key_id!r:.80}, and the keys known here are {', '.join(settings.keys)}"
    if not hmac.compare_digest(digest.encode(), _digest(settings, key_id, data, of).encode()):
        return f"its signature with key {key_id!r} is another one: something was changed, or the secret differs here"
    return None


def sign_run(settings: SigningSettings, run_id: str, namespace: str, queue: str, body: bytes) -> str:
    """Returns the signature of a run.

    Args:
        settings: the keys.
        run_id, namespace, queue: what it is, whose, and where it waits.
        body: its message, not compressed: RQ compresses anew what it requeues.
    """
    return sign(settings, body, "run", run_id, namespace, queue)


def check_run(settings: SigningSettings, signature: str, run_id: str, namespace: str, queue: str, body: bytes) -> None:
    """Makes sure that a run is what a holder of a key submitted; the arguments are those of `sign_run`.

    Raises:
        NotGenuine: it is not, or nobody can tell.
    """
    if (why := fault(settings, signature, body, "run", run_id, namespace, queue)) is not None:
        raise NotGenuine(
            f"run {run_id} in namespace {namespace!r:.150} on queue {queue!r} was refused, and nothing of it ran: "
            f"{why}. If it is yours: give producers and workers the same `signing` settings, and submit it again"
        )


def _digest(settings: SigningSettings, key_id: str, data: bytes, of: tuple[str, ...]) -> str:
    # JSON parts the words, and no word of it has a newline.
    covered = json.dumps(of).encode() + b"\n" + data
    return hmac.digest(settings.keys[key_id].get_secret_value().encode(), covered, "sha256").hex()
