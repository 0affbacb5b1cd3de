"""`StoreURL`: the URL of a store, and its parameters."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit


class StoreURL(str):
    """The URL that was given to `open_store`, a str, which can also be read in parts."""

    __slots__ = ()

    @property
    def query(self) -> dict[str, str]:
        """The parameters after the question mark, decoded, in their order; empty without any.

        Raises:
            ValueError: One line: a parameter has no value, or is there twice.
        """
        text = urlsplit(self).query
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True) if text else []
        except ValueError:
            raise ValueError("the parameters of the store have the form ?name=value&name=value") from None
        query = dict(pairs)
        if len(query) != len(pairs):
            raise ValueError("a parameter of the store is there twice")
        return query
