"""The order attack on a running service: one image after the other, resumable, with one report for all."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from rankproof.attacks import AttackBatch, AttackResult, AttackSummary, SearchOptions, attack_batch
from rankproof.attacks.cost import peak_mb
from rankproof.attacks.result import SUMMARY
from rankproof.data.image_formats import IMAGE_SUFFIXES
from rankproof.data.images import MAX_BYTES, decode, opened, peek
from rankproof.errors import RankproofError
from rankproof.goals import Reorder
from rankproof.io import JsonObject, write_atomically, write_json
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.black_box.search import SearchInterruptedError
from rankproof.methods.black_box.subspace import Subspace
from rankproof.threat import LEVELS, Threat
from rankproof.types import ProgressCallback
from rankproof.wire.adapter import KEY, RANKPROOF_SERVICE, Adapter
from rankproof.wire.client import USER_AGENT, Client
from rankproof.wire.destination import check_destination
from rankproof.wire.errors import QuotaExhaustedError, UnfinishedError
from rankproof.wire.http_oracle import HttpOracle, cached_search, exact_png
from rankproof.wire.rate_limit import RateLimit, Sleep
from rankproof.wire.response_cache import ResponseCache

if TYPE_CHECKING:
    import httpx

JOURNALS, CACHE, STRIPS = Path("runs", "wire"), "answers.sqlite", "strips.json"
BUDGET = 100  # queries of the published attack on a service
CHECKS = 2  # calls that ask an image again: the clean one and the best one
SPARE_CALLS = 20  # that the default cap adds to all of these and a tenth of the budgets, for retries
UNCHECKED = (
    "no image was asked again: whether the service answers the same image the same way is not known; "
    f"--cap leaves no room for {CHECKS} calls an image beside the budgets"
)


@dataclass(frozen=True, kw_only=True)
class ServiceAttack:
    """The order attack on a running service and its settings.

    Args:
        url: address of the service; None takes the adapter's.
        adapter: a file that describes how the service is called; None is `rankproof serve`.
        key: the user's key for the service, or None.
        environment: values of the adapter's ${NAME} placeholders.
        queries: images to attack, and folders of images.
        goal, method, subspace, seed: as in `rankproof.attack`.
        budget: Q, queries for each image.
        eps: perturbation budget, in [0, 1].
        visible: N, the number of results that count; None is the length of the first answer.
        rate_limit: request rate and retries.
        cap: largest number of calls in all, retries included; None is the budgets, two calls for each image
            that ask the clean and the best image again, a tenth of the budgets and 20. Where it leaves no
            room for these two, nothing is asked again.
        authorised: who allowed the test and why; required outside loopback and private networks.
        journal: folder for everything needed to resume; None is one below `runs/wire`, named by the settings.
    """

    url: str | None
    adapter: Path | None = None
    key: str | None = None
    environment: Mapping[str, str]
    queries: list[Path]
    goal: Reorder
    method: BlackBoxMethod
    subspace: Subspace | None = None
    seed: int = 0
    budget: int = BUDGET
    eps: float
    visible: int | None = None
    rate_limit: RateLimit
    cap: int | None = None
    authorised: str | None = None
    journal: Path | None = None

    def client(self, transport: "httpx.BaseTransport | None", sleep: Sleep | None) -> Client:
        """A client of the service, once its address is known to be allowed."""
        adapter = RANKPROOF_SERVICE if self.adapter is None else Adapter.load(self.adapter)
        if (url := self.url or adapter.url) is None:
            where = "" if self.adapter is None else f"{self.adapter}: has no url; "
            raise RankproofError(f"{where}name the service by --target URL")
        secrets = {name: value for name, value in self.environment.items() if name != KEY}
        return Client(
            check_destination(url, self.authorised),
            adapter,
            secrets=secrets if self.key is None else {**secrets, KEY: self.key},
            rate_limit=self.rate_limit,
            seed=self.seed,
            transport=transport,
            sleep=sleep,
        )

    def folder(self, client: Client, images: list[Tensor]) -> Path:
        """The journal; equal for equal settings and images, whatever the rate limit and the cap."""
        if self.journal is not None:
            return self.journal
        settings = (self.goal, self.eps, self.method, self.subspace, self.budget, self.seed, self.visible)
        digest = hashlib.sha256(f"{client.service}/{settings!r}".encode())
        for image in images:
            digest.update(hashlib.sha256(exact_png(image)).digest())
        host = "".join(
            letter if letter.isalnum() or letter in ".-" else "-" for letter in client.destination.host
        )
        return JOURNALS / f"{host}-{digest.hexdigest()[:12]}"


@dataclass(frozen=True, kw_only=True)
class ServiceResult:
    """The outcome of an attack on a service.

    Args:
        result: all attacks together; images of different sizes are padded with black.
        summary: its means; None for what a service does not show.
        service: the service, the authorisation, and the number of calls.
        images: adversarial PNGs by file name.
        strips: for each attack, in the service's own ids: the wanted order, the results before and after.
    """

    result: AttackResult
    summary: AttackSummary
    service: dict[str, str | int | None]
    images: dict[str, bytes]
    strips: list[dict[str, object]]

    def to_json(self) -> JsonObject:
        """The object that `rankproof attack-service --json` prints."""
        return self.summary.to_json() | {"service": self.service, "attacks": self.strips}

    def save(self, folder: Path) -> None:
        """Write the images, `strips.json`, `attack.npz` and `result.json`."""
        for name, png in self.images.items():
            write_atomically(folder / name, png)
        self.result.save(folder)
        for name, value in ((STRIPS, self.strips), (SUMMARY, self.to_json())):
            write_json(folder / name, value, indent=2, allow_nan=False)


def attack_service(
    request: ServiceAttack,
    say: Callable[[str], None],
    progress: ProgressCallback,
    *,
    transport: "httpx.BaseTransport | None" = None,
    sleep: Sleep | None = None,
) -> ServiceResult:
    """Attack every image, or resume where the same call stopped.

    Args:
        request: the attack and its settings.
        say: log callback, takes one line.
        progress: progress callback, called with (queries done, queries in all).
        transport, sleep: as in `Client`.
    Raises:
        UnfinishedError: the service does not answer, or its quota is used up; the same call resumes later.
        RankproofError: a setting is wrong, or the service refuses a request.
    """
    queries = find_images(request.queries)
    images = [read_image(path) for path in queries]
    total, checks = request.budget * len(images), CHECKS * len(images)
    cap = total + checks + total // 10 + SPARE_CALLS if request.cap is None else request.cap
    # A cap that is just enough for the budgets is not spent on anything else.
    repeat = cap >= total + checks
    with closing(request.client(transport, sleep)) as client:
        folder, destination = request.folder(client, images), client.destination
        with closing(ResponseCache(folder / CACHE, client.service, cap)) as cache, _resumable(folder):
            _check_complete(folder, cache)
            say(f"asking {destination.url} at {destination.address}: {total} queries, at most {cap} calls")
            say(f"answers are kept in {folder}; {cache.calls} calls are counted there")
            visible = request.visible or _visible_results(client, cache, images[0])
            oracle = HttpOracle(client, cache, visible)
            # One after the other: when the quota runs out, some attacks are finished instead of all begun.
            results = [
                _attack_one(
                    request,
                    oracle,
                    image,
                    SearchOptions(
                        budget=request.budget,
                        subspace=request.subspace,
                        folder=folder / f"{number:04d}",
                        repeat=repeat,
                    ),
                    number,
                    _offset(progress, number * request.budget, total),
                )
                for number, image in enumerate(images)
            ]
            return _report(queries, results, oracle)


def _attack_one(
    request: ServiceAttack,
    oracle: HttpOracle,
    image: Tensor,
    search: SearchOptions,
    number: int,
    progress: ProgressCallback,
) -> AttackResult:
    """The attack on one image (c, h, w)."""
    return attack_batch(
        oracle,
        AttackBatch(images=image[None], rng_keys=torch.tensor([number])),
        request.goal,
        Threat(request.eps, grid=True),
        method=request.method,
        search=search,
        seed=request.seed,
        progress=progress,
    )


def _offset(progress: ProgressCallback, before: int, total: int) -> ProgressCallback:
    """The progress of one attack as part of the whole."""
    return lambda done, _: progress(before + done, total)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Adds to the errors of the service where the search is kept and when to resume it."""
    try:
        yield
    except (SearchInterruptedError, UnfinishedError) as error:
        cause = error.__cause__ if isinstance(error, SearchInterruptedError) else error
        when = "tomorrow" if isinstance(cause, QuotaExhaustedError) else "from there"
        kind = type(cause) if isinstance(cause, RankproofError) else RankproofError
        raise kind(f"{cause}; the search is kept in {folder}, the same command goes on {when}") from error


def _check_complete(folder: Path, cache: ResponseCache) -> None:
    """Raise where saved searches are left without the answers that their item numbers refer to."""
    if cache.calls == 0 and any(folder.glob("*/search-*.npz")):
        raise RankproofError(f"{folder}: holds a search whose {CACHE} is gone; delete the folder")


def _visible_results(client: Client, cache: ResponseCache, image: Tensor) -> int:
    """The number of results in the answer to an image."""
    (ids,) = cached_search(client, cache, [exact_png(image)])
    if not ids:
        raise RankproofError("the service found nothing for the first image: there is no order to change")
    return len(set(ids))


# -- images


def find_images(paths: list[Path]) -> list[Path]:
    """The named files, and the images in the named folders in the order of their names.

    Raises:
        RankproofError: a path does not exist, or a folder has no images.
    """
    files: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES)
        if not inside or not inside[0].is_file():
            raise RankproofError(f"{path}: no image there; name a file, or a folder with images")
        files += inside
    if not files:
        raise RankproofError("--query: name the image to attack, or a folder with images")
    return files


def read_image(path: Path) -> Float[Tensor, "c h w"]:
    """An image file as (c, h, w) in [0, 1], upright, in its own size; a grey image has one channel.

    Raises:
        RankproofError: the file is not an image, is too large, or is transparent in places.
    """
    if path.stat().st_size > MAX_BYTES:
        raise RankproofError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; shrink it")
    raw, file = path.read_bytes(), str(path)
    with opened(raw, file) as image:
        if image.has_transparency_data:
            raise RankproofError(f"{file}: is transparent in places; save it without an alpha channel")
    return torch.from_numpy(decode(raw, file, peek(raw, file))).float() / LEVELS


# -- report


def _report(queries: list[Path], results: list[AttackResult], oracle: HttpOracle) -> ServiceResult:
    """The attacks on some files as one value; what a service does not show is null in it."""
    originals = pad_and_stack([result.original[0] for result in results])
    adversarial = pad_and_stack([result.adversarial[0] for result in results])
    padded = [
        replace(result, original=original[None], adversarial=changed[None])
        for result, original, changed in zip(results, originals, adversarial, strict=True)
    ]
    result, service = AttackResult.concat(padded), _service_facts(oracle)
    notes = [f"{service['calls']} calls to {service['url']}, {service['calls_today']} of them today"]
    if service["authorised"] is not None:
        notes.append(f"authorised: {service['authorised']}")
    if result.log is not None and result.log.repeats is None:
        notes.append(UNCHECKED)
    result = replace(result, notes=(*result.notes, *notes))
    images, strips = {}, []
    for name, query, attacked in zip(_unique_names(queries), queries, results, strict=True):
        file = f"{name}-adversarial.png"
        images[file] = exact_png(attacked.adversarial[0])
        strips.append({"query": str(query), "adversarial": file, **_strip(attacked, oracle)})
    summary = replace(result.summary, data=", ".join(map(str, queries)), peak_mb=peak_mb())
    return ServiceResult(result=result, summary=summary, service=service, images=images, strips=strips)


def pad_and_stack(images: list[Tensor]) -> Tensor:
    """Images (c, h, w) of any sizes as (b, c, h, w), padded with black at the ends of each axis."""
    sizes = [max(image.shape[axis] for image in images) for axis in range(3)]

    def padded(image: Tensor) -> Tensor:
        channels, height, width = (size - side for size, side in zip(sizes, image.shape, strict=True))
        return functional.pad(image, (0, width, 0, height, 0, channels))

    return torch.stack([padded(image) for image in images])


def _service_facts(oracle: HttpOracle) -> dict[str, str | int | None]:
    """The service, the authorisation, and the number of calls, as they stand in the report."""
    destination, cache = oracle.client.destination, oracle.cache
    return {
        "url": destination.url,
        "address": destination.address,
        "authorised": destination.authorised,
        "user_agent": USER_AGENT,
        "calls": cache.calls,
        "calls_today": cache.calls_today,
    }


def _strip(result: AttackResult, oracle: HttpOracle) -> dict[str, object]:
    """One attack in the service's own ids."""
    repeats = None if result.log is None else result.log.repeats
    return {
        "wanted": [oracle.name(number) for number in result.targets[0].tolist()],
        "before": oracle.cache[exact_png(result.original[0])],
        "after": oracle.cache[exact_png(result.adversarial[0])],
        "tau_before": float(result.tau_before[0]),
        "tau": float(result.tau[0]),
        "tau_again": None if repeats is None else float(repeats.after[0]),
    }


def _unique_names(queries: list[Path]) -> list[str]:
    """A file name for each image; equal names are numbered."""
    stems = [path.stem for path in queries]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{number}" for number, stem in enumerate(stems, start=1)
    ]
