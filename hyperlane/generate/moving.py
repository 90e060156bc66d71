"""A chain whose workers may be others after a while: one wired epoch at a time, behind the face of a single chain."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from hyperlane.artifacts import Deployment, LinkReport
from hyperlane.errors import HyperlaneError, TablesError, one_line
from hyperlane.generate.chain import Chain, LinkOptions, open_chain
from hyperlane.generate.engine import Rows
from hyperlane.generate.step import Following, Step
from hyperlane.generate.wiring import LinkCodecs
from hyperlane.timeline.timeline import Timeline

log = logging.getLogger(__name__)

LinksOf = Callable[[Deployment], Sequence[LinkCodecs]]


@dataclass(slots=True)
class MovingChain:
    """`chain` is the one that steps go through now; `links_of` says what a deployment's links carry."""

    chain: Chain
    links_of: LinksOf
    options: LinkOptions
    _open: ExitStack
    _carried: list[LinkReport] = field(default_factory=list)  # by the chains before

    @property
    def deployment(self) -> Deployment:
        return self.chain.deployment

    def send(self, step: Step, *, whole_rows: bool) -> None:
        self.chain.send(step, whole_rows=whole_rows)

    def receive(self, step: Step, timeout_s: float, following: Following | None) -> Rows:
        return self.chain.receive(step, timeout_s, following)

    def rewire(self, mismatch: TablesError) -> None:
        self.chain.rewire(mismatch)

    def leave(self, *, asking: bool = True) -> None:
        """Close the chain's links; the workers keep what they hold. `enter` comes next.

        `asking`: for what the links carried, where the workers answer.
        """
        try:
            self._carried += self.chain.reports() if asking else ()
        except HyperlaneError as error:
            log.warning("what the links carried until now is not known: %s", one_line(error))
        self._open.close()

    def enter(self, deployment: Deployment) -> None:
        """Wire the workers of `deployment` in a new epoch, and send steps there from now on."""
        self.chain = self._open.enter_context(open_chain(deployment, self.links_of(deployment), self.options))

    def reports(self) -> tuple[LinkReport, ...]:
        """What each link carried, of the earlier chains too, in the order in which they were wired."""
        return (*self._carried, *self.chain.reports())

    def timeline(self) -> Timeline:
        """When each step was where, since the chain is what it is; for when none is under way."""
        return self.chain.timeline()


@contextmanager
def open_moving_chain(deployment: Deployment, links_of: LinksOf, options: LinkOptions) -> Iterator[MovingChain]:
    """The chain of `deployment`, wired; its links are closed in the end."""
    with ExitStack() as exits:
        chain = exits.enter_context(open_chain(deployment, links_of(deployment), options))
        yield MovingChain(chain, links_of, options, exits)
