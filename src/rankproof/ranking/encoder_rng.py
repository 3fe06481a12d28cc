"""The random numbers of an encoder that draws some: from a seed, and without a trace outside."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class EncoderRng:
    """torch's global generators as an encoder sees them: a stream of its own that starts from a seed.

    Encoders draw from torch's global generators and cannot be given another. Theirs are put in place for the
    time of a pass, and what stood there is put back. Numbers from numpy or Python are not reached.

    Args:
        device: where the encoder is; its generator is used beside that of the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        self._seed = 0
        self._states: list[Tensor] | None = None  # None: the stream begins with the next pass

    def begin(self, seed: int) -> None:
        """Start from a seed."""
        self._seed, self._states = seed, None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Draw from this stream inside of the block; torch's own generators are as before after it."""
        with torch.random.fork_rng(self._devices):
            if self._states is None:
                self._put_seed()
            else:
                torch.set_rng_state(self._states[0])
                for device, state in zip(self._devices, self._states[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
            try:
                yield
            finally:
                self._states = self._present()

    def _put_seed(self) -> None:
        torch.default_generator.manual_seed(self._seed)
        for device in self._devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(self._seed)

    def _present(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]

    @property
    def drawn(self) -> bool:
        """Whether numbers were drawn since the stream began."""
        if self._states is None:
            return False
        with torch.random.fork_rng(self._devices):
            self._put_seed()
            begun = self._present()
        return not all(torch.equal(a, b) for a, b in zip(begun, self._states, strict=True))
