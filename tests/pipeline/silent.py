"""An observer for runs whose progress nobody watches."""

from pipeline.nodes import NodeRun


class Silent:
    """Says nothing; implements `pipeline.nodes.Observer`."""

    def started(self, node_id: str) -> None:
        pass

    def finished(self, node: NodeRun) -> None:
        pass
