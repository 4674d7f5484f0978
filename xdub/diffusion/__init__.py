"""Flow matching (paper B.1, Eq. 2-11) as pure functions."""

from xdub.diffusion.flow_matching import velocity
from xdub.diffusion.sampler import euler_timesteps, evaluations, sample
from xdub.diffusion.timesteps import sample_timesteps, shift_timesteps

__all__ = [
    "euler_timesteps",
    "evaluations",
    "sample",
    "sample_timesteps",
    "shift_timesteps",
    "velocity",
]
