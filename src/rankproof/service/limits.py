"""What the service allows; the defaults are those of the platform that was attacked in ICCV 2021."""

from dataclasses import dataclass

from rankproof.errors import RankproofError

MOST_VISIBLE = 50
PIXELS = 16_000_000  # of one upload: what a decoder needs for them is a few hundred megabytes
SCANS = 100  # of a progressive JPEG, which usually has ten; each is a pass over all pixels


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The settings a platform has.

    Args:
        visible: N, how many results an answer holds at most; 1 to 50.
        max_bytes: of one picture file.
        min_side: of the shorter side of a picture, in pixels; 0 allows all.
        enlarge: whether smaller pictures are enlarged; else they are refused.
        max_pixels: height times width.
        per_day: calls of one key on one day (UTC).
        per_second: calls of one key in one second.
        upload_seconds: how long sending a picture may take.
        window: seconds for which a batch waits for more requests, where they are to be expected.
        batch: pictures embedded together at most.
    """

    visible: int = MOST_VISIBLE
    max_bytes: int = 3_750_000
    min_side: int = 128
    enlarge: bool = True
    max_pixels: int = PIXELS
    per_day: int = 500
    per_second: int = 10
    upload_seconds: float = 30.0
    window: float = 0.01
    batch: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.visible <= MOST_VISIBLE:
            raise RankproofError(f"--visible must be between 1 and {MOST_VISIBLE}, got {self.visible}")
        for option in ("max_bytes", "max_pixels", "per_day", "per_second", "batch"):
            if (value := getattr(self, option)) < 1:
                raise RankproofError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
        if self.min_side < 0:
            raise RankproofError(f"--min-side must be at least 0, got {self.min_side}")
        if not 0 <= self.window <= 1:
            raise RankproofError(f"--window must be between 0 and 1 second, got {self.window}")
