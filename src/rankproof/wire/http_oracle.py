"""A live search service as an oracle."""

from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

from rankproof.oracle import ListOracle, Watch
from rankproof.types import Ids, Images, Pictures, Places
from rankproof.wire.client import Client
from rankproof.wire.ledger import Ledger
from rankproof.wire.picture import png
from rankproof.wire.stops import StoppedError


class HttpOracle:
    """A service that is asked by HTTP: the file that is sent is exactly the picture that is scored.

    What the ledger holds is not asked again, so an attack that was stopped goes on from what was answered.

    Args:
        client: who asks.
        ledger: where answers are kept.
        visible: N, how many results the service shows; longer lists are cut.
    """

    def __init__(self, client: Client, ledger: Ledger, visible: int) -> None:
        self.client, self.ledger = client, ledger
        # The ledger numbers the ids: a search in progress, kept in a file, means the same items next time.
        self._lists = ListOracle(self.search, visible, ledger.numbers)

    @property
    def visible(self) -> int | None:
        """N, how many results are shown."""
        return self._lists.visible

    def top(self, images: Images, count: int, watch: Watch) -> Ids:
        """The first results as numbers; `name` gives the service's own ids back."""
        return self._lists.top(images, count, watch)

    def __call__(self, images: Pictures, watch: Watch) -> Places:
        """Positions of the watched items in each list."""
        return self._lists(images, watch)

    def name(self, number: int) -> Hashable:
        """The service's own id behind a number."""
        return self._lists.name(number)

    def search(self, images: Images) -> list[list[str]]:
        """The service's own lists of ids, nearest first, one for each picture (n, c, h, w) on the 8-bit grid.

        Raises:
            UnfinishedError: the service answers no more today, or not at all, or the cap is reached.
            RankproofError: it refuses a picture or answers no ids.
        """
        return answered(self.client, self.ledger, [png(image) for image in images])


def answered(client: Client, ledger: Ledger, files: list[bytes]) -> list[list[str]]:
    """The ids of each PNG, from the ledger or else from the service.

    Whatever ends this early, calls under way are waited for: they are paid for, and their answers are kept.
    """
    fresh = [file for file in dict.fromkeys(files) if file not in ledger]
    stop = Event()

    def ask(file: bytes) -> None:
        try:
            ledger.keep(file, client.ask(file, ledger.call, stop))
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(client.pace.concurrency) as pool:
        jobs = [pool.submit(ask, file) for file in fresh]
        try:
            wait(jobs)
        except BaseException:  # Ctrl-C
            stop.set()
            raise
    errors = [error for job in jobs if (error := job.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):
        raise error
    return [ledger[file] for file in files]
