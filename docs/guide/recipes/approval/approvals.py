from feishu_feed_card import Client


class Approvals:
    """Pins the bot's chat for everyone who has something to approve."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.pending: dict[str, set[str]] = {}

    def requested(self, approval_id: str, approver: str) -> None:
        """Pins the bot's chat for the approver."""
        self.pending.setdefault(approver, set()).add(approval_id)
        self.client.set_bot_time_sensitive([approver], True).raise_for_failed()

    def decided(self, approval_id: str, approver: str) -> None:
        """Unpins it when nothing is left to approve."""
        waiting = self.pending.get(approver, set())
        waiting.discard(approval_id)
        if not waiting:
            # A timeout above 5 s, because an unpin may wait that long for a pin that was lost.
            self.client.set_bot_time_sensitive([approver], False, timeout=30).raise_for_failed()
            self.pending.pop(approver, None)
