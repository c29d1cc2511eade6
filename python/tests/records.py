"""The package's logger, and a handler that keeps its records."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("feishu_feed_card")


class Kept(logging.Handler):
    """A handler that keeps its records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the record."""
        self.records.append(record)

    def found(self, message: str, count: int = 1) -> list[logging.LogRecord]:
        """Returns the records with this message, and checks their number. No wait is needed: records are
        handled before their call returns."""
        found = [record for record in self.records if record.getMessage().startswith(message)]
        assert len(found) == count, [record.getMessage() for record in self.records]
        return found
