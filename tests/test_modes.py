import pytest
import torch

from rankproof.modes import ordinary_modes


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_modes_are_ordinary_inside_and_as_they_were_outside(mode):
    def state():
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    @ordinary_modes()
    def inside():
        return state()

    with mode():
        outside = state()
        assert inside() == (True, False, False)
        assert state() == outside
