"""Account names in canonical form."""

from __future__ import annotations

import re
import unicodedata

_NAME = re.compile(r"[a-z0-9._@+-]{1,64}")


def canonical_name(name: str) -> str | None:
    """Return *name* in the form that keys accounts (NFKC, casefolded); None if it is not a valid name."""
    if len(name) > 256:
        return None
    canonical = folded(name)
    return canonical if _NAME.fullmatch(canonical) else None


def folded(text: str) -> str:
    """Return *text* in one spelling: neither case nor compatibility forms make a difference."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
