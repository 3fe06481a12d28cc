"""An order attack on a live service with one picture after the other."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rankproof.attack import attack
from rankproof.errors import RankproofError
from rankproof.goals import Reorder
from rankproof.methods import BlackBox
from rankproof.methods.search import SearchInterruptedError
from rankproof.methods.space import Space
from rankproof.result import AttackResult
from rankproof.threat import Threat
from rankproof.wire.adapter import KEY, OWN, Adapter
from rankproof.wire.client import Client
from rankproof.wire.guard import allowed
from rankproof.wire.http_oracle import HttpOracle, answered
from rankproof.wire.ledger import Ledger
from rankproof.wire.pace import Pace, Sleep
from rankproof.wire.picture import find_pictures, png, read_picture
from rankproof.wire.report import Visited, report
from rankproof.wire.stops import QuotaExhaustedError, UnfinishedError

if TYPE_CHECKING:
    import httpx

PLACE, LEDGER = Path("runs", "wire"), "answers.sqlite"
BUDGET = 100  # queries of the published attack on a live service
SPARE = 20  # calls beyond the budgets and a tenth of them that the cap leaves for repetitions

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """An attack on a live service, as it is asked for.

    Args:
        url: where the service is; None is the adapter's own address.
        adapter: the file that says how it is called; None is as `rankproof serve`.
        key: what the service knows the user by, or None.
        environment: what the adapter's ${NAME}s stand for.
        places: pictures to attack, and folders of some.
        goal, method, space, seed: of `rankproof.attack`.
        budget: Q, queries for each picture.
        eps: largest change of a pixel, in [0, 1].
        visible: N, how many results the service shows; None: as many as in its first answer.
        pace: how fast it is asked.
        cap: most calls in all, repetitions included; None is the budgets, a tenth of them and 20.
        authorised: who allowed the test and why; needed outside the user's own network.
        journal: folder for all that is needed to go on; None is one below `runs/wire`, by what is asked for.
    """

    url: str | None
    adapter: Path | None = None
    key: str | None = None
    environment: Mapping[str, str]
    places: list[Path]
    goal: Reorder
    method: BlackBox
    space: Space | None = None
    seed: int = 0
    budget: int = BUDGET
    eps: float
    visible: int | None = None
    pace: Pace
    cap: int | None = None
    authorised: str | None = None
    journal: Path | None = None

    def client(self, transport: "httpx.BaseTransport | None", sleep: Sleep | None) -> Client:
        """Who asks, once it is clear that this may be asked."""
        adapter = OWN if self.adapter is None else Adapter.load(self.adapter)
        if (url := self.url or adapter.url) is None:
            raise RankproofError(f"{self.adapter}: has no url; name the service by --target URL")
        secrets = {name: value for name, value in self.environment.items() if name != KEY}
        return Client(
            allowed(url, self.authorised),
            adapter,
            secrets=secrets if self.key is None else {**secrets, KEY: self.key},
            pace=self.pace,
            seed=self.seed,
            transport=transport,
            sleep=sleep,
        )

    def folder(self, client: Client, pictures: list[Tensor]) -> Path:
        """Where the search is kept: equal for equal questions, whatever the pace and the cap."""
        if self.journal is not None:
            return self.journal
        settings = (self.goal, self.eps, self.method, self.space, self.budget, self.seed, self.visible)
        digest = hashlib.sha256(f"{client.service}/{settings!r}".encode())
        for picture in pictures:
            digest.update(hashlib.sha256(png(picture)).digest())
        host = "".join(
            letter if letter.isalnum() or letter in ".-" else "-" for letter in client.destination.host
        )
        return PLACE / f"{host}-{digest.hexdigest()[:12]}"


def visit(
    plan: Visit,
    say: Callable[[str], None],
    progress: Progress,
    *,
    transport: "httpx.BaseTransport | None" = None,
    sleep: Sleep | None = None,
) -> Visited:
    """Attack every picture, or go on where the same call stopped.

    Args:
        plan: what is asked for.
        say: takes a line for the user.
        progress: called with queries done, and how many there are in all.
        transport, sleep: of `Client`.
    Raises:
        UnfinishedError: the service does not answer, or no more today; the same call goes on later.
        RankproofError: something does not fit.
    """
    queries = find_pictures(plan.places)
    pictures = [read_picture(path) for path in queries]
    total = plan.budget * len(pictures)
    cap = total + total // 10 + SPARE if plan.cap is None else plan.cap
    with closing(plan.client(transport, sleep)) as client:
        folder, where = plan.folder(client, pictures), client.destination
        with closing(Ledger(folder / LEDGER, client.service, cap)) as ledger, _kept(folder):
            _check_whole(folder, ledger)
            say(f"asking {where.url} at {where.address}: {total} queries, at most {cap} calls")
            say(f"answers are kept in {folder}; {ledger.calls} calls are counted there")
            shown = plan.visible or _count(answered(client, ledger, [png(pictures[0])])[0])
            oracle = HttpOracle(client, ledger, shown)
            # One after the other: a used-up quota leaves some finished instead of all begun.
            results = [
                _attack(plan, oracle, picture, number, folder, _later(progress, number * plan.budget, total))
                for number, picture in enumerate(pictures)
            ]
            return report(queries, results, oracle)


def _attack(
    plan: Visit, oracle: HttpOracle, picture: Tensor, number: int, folder: Path, progress: Progress
) -> AttackResult:
    """The attack on one picture (c, h, w)."""
    return attack(
        oracle,
        picture[None],
        plan.goal,
        Threat(plan.eps, grid=True),
        method=plan.method,
        budget=plan.budget,
        space=plan.space,
        seed=plan.seed,
        index=torch.tensor([number]),  # names the attack, for its random numbers
        journal=folder / f"{number:04d}",
        progress=progress,
    )


def _later(progress: Progress, before: int, total: int) -> Progress:
    """The progress of one attack, told as a part of the whole."""
    return lambda done, _: progress(before + done, total)


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Whatever the service does, the user is told that nothing is lost."""
    try:
        yield
    except (SearchInterruptedError, UnfinishedError) as error:
        cause = error.__cause__ if isinstance(error, SearchInterruptedError) else error
        when = "tomorrow" if isinstance(cause, QuotaExhaustedError) else "from there"
        kind = type(cause) if isinstance(cause, RankproofError) else RankproofError
        raise kind(f"{cause}; the search is kept in {folder}, the same command goes on {when}") from error


def _check_whole(folder: Path, ledger: Ledger) -> None:
    """Raise where searches are left without the answers that say what their numbers mean."""
    if ledger.calls == 0 and any(folder.glob("*/search-*.npz")):
        raise RankproofError(f"{folder}: holds a search whose {LEDGER} is gone; delete the folder")


def _count(ids: list[str]) -> int:
    """How many results the service shows."""
    if not ids:
        raise RankproofError("the service found nothing for the first picture: there is no order to change")
    return len(set(ids))
