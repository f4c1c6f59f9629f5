"""``server_app``: a Flower ``ServerApp`` that runs a ``FlowerStrategy``."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from regraft.federated.flower.strategy import FlowerStrategy


def server_app(strategy_of: Callable[[Context], FlowerStrategy]) -> ServerApp:
    """A Flower ``ServerApp`` that runs the strategy to its last round.

    Args:
        strategy_of: the strategy; called when the run starts.

    >>> type(server_app(lambda context: None)).__name__
    'ServerApp'
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy_of(context).start(grid)

    return app
