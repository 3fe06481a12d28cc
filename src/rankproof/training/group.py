"""Data-parallel training by several processes, started by torch's launcher:

torchrun --nproc-per-node 2 -m rankproof train ...
"""

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Group:
    """The processes that train one encoder together.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which measures R@1, prints and writes files."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over the processes."""
        if self.size > 1:
            value = value.detach().clone()
            distributed.all_reduce(value)
            value /= self.size
        return value

    def all(self, condition: bool) -> bool:
        """Whether it is true in every process."""
        return float(self.mean(torch.tensor(float(condition)))) == 1

    def broadcast(self, *tensors: Tensor) -> None:
        """Overwrite tensors with their values in the first process."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


ALONE = Group()


def join(device: str) -> tuple[Group, str]:
    """The group that torch's launcher started, or this process alone, and the device of this process.

    Args:
        device: "cpu" or "cuda".
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, device
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
        atexit.register(distributed.destroy_process_group)
    return Group(distributed.get_rank(), distributed.get_world_size()), device
