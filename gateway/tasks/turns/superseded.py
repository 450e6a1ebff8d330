"""Costs of turns whose task was moved otherwise before their ending was written, for example by a cancellation."""

from sqlalchemy import select

from gateway.storage.batch import Batch
from gateway.storage.tables import costs
from gateway.tasks.events.entries import TaskRow
from gateway.tasks.turns.costs import WriteCost
from gateway.tasks.turns.journal import TurnState
from gateway.tasks.turns.stores import TaskStores


class SupersededCosts:
    """Stores costs that no ending of a turn stores."""

    def __init__(self, stores: TaskStores) -> None:
        self._stores = stores

    def post_of(self, superseding: TurnState, write_cost: WriteCost | None) -> TurnState:
        """Stores the cost of the turn that `superseding` has replaced, and returns that."""
        self.post(superseding.row, write_cost)
        return superseding

    def post(self, row: TaskRow, write_cost: WriteCost | None) -> None:
        """Stores a cost without waiting, unless another process goes on with the turn, or the turn has a cost.

        `row` is the task as it was moved, or as the turn began; the cost has the number of its last event.
        """
        if write_cost is None or not (row.has_ended or row.runner == self._stores.tasks.runner):
            return

        def work(batch: Batch) -> None:
            same_turn = (costs.c.tenant == row.tenant) & (costs.c.id == row.id) & (costs.c.seq >= row.last_seq)
            if batch.connection.execute(select(costs.c.seq).where(same_turn).limit(1)).first() is None:
                write_cost(batch, row.id, row.last_seq)

        self._stores.database.post(work)
