"""Account names in canonical form."""

from __future__ import annotations

import re
import unicodedata

MAX_TYPED = 256
"""The most characters that a name may have as it is typed."""

_NAME = re.compile(r"[a-z0-9._@+-]{1,64}")


def canonical_name(name: str) -> str | None:
    """Return *name* in the form that keys accounts; None if it is not a valid name.

    The form is NFKC, casefolded, without white space around the name: telephones add a space after a word.
    """
    if len(name) > MAX_TYPED:
        return None
    canonical = folded(name).strip()
    return canonical if _NAME.fullmatch(canonical) else None


def folded(text: str) -> str:
    """Return *text* in one spelling: neither case nor compatibility forms make a difference."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
