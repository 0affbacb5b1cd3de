"""`Reader`: parses documents into records, and reports those that do not parse."""

from __future__ import annotations

import logging

from stormcellar.stores.mongo import documents
from stormcellar.stores.mongo.documents import Document
from stormcellar.stores.records import Record

MAX_REPORTS = 1000

logger = logging.getLogger(__name__)


class Reader:
    """Parses documents. Each that does not parse is reported once, `MAX_REPORTS` at most."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def record(self, document: Document) -> Record | None:
        """Return the record in *document*, or None with a warning if it does not parse."""
        record = documents.to_record(document)
        handle = document["_id"]
        if record is None and handle not in self._reported and len(self._reported) < MAX_REPORTS:
            self._reported.add(handle)
            logger.warning("the document of session %r does not parse; the session counts as ended", handle)
        return record
