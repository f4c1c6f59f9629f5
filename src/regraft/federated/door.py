"""``Door``: the updates of one round come in through here, one by one, or are turned away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regraft.errors import InputError
from regraft.federated.trust import Rejected, Trust
from regraft.federated.update import Plan, Update


@dataclass
class Door:
    """Who has answered in a round.

    Attributes:
        plan: the model's architecture.
        round: the round under way.
        trust: what is believed.
        examples: number of samples of each client of the round; None where that is not known.
        accepted: clients whose updates were taken, in order, and their examples.
        rejected: clients that were turned away, the reason by name and the sentence.
    """

    plan: Plan
    round: int
    trust: Trust
    examples: Mapping[str, int] | None = None
    accepted: dict[str, int] = field(default_factory=dict)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)

    def admit(self, update: Update) -> str | None:
        """Note an update as accepted; or the reason, by name, why it is not."""
        try:
            self.trust.check(update, self.plan, round=self.round, seen=self.accepted, examples=self.examples)
        except Rejected as error:
            return self.turn_away(update.client, error)
        self.accepted[update.client] = update.examples
        return None

    def turn_away(self, client: str, error: Rejected) -> str:
        """Note a client as rejected. Returns the reason by name."""
        self.rejected.append((client, error.reason, str(error)))
        return error.reason

    def require(self, min_fit: int) -> None:
        """Raise InputError unless enough updates were accepted."""
        if len(self.accepted) >= min_fit:
            return
        why = "; ".join(f"{client}: {sentence}" for client, _, sentence in self.rejected[:3])
        raise InputError(
            f"round {self.round} has {len(self.accepted)} usable updates, but needs {min_fit}: the model "
            "stays as it was before the round" + (f" (turned away: {why})" if why else "")
        )
