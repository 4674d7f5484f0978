"""Flow matching (paper B.1, Eq. 2, 5) as pure functions."""

from xdub.diffusion.flow_matching import sample_timesteps, shift_timesteps, velocity
from xdub.diffusion.sampler import euler_timesteps, evaluation_times, evaluations, sample

__all__ = [
    "euler_timesteps",
    "evaluation_times",
    "evaluations",
    "sample",
    "sample_timesteps",
    "shift_timesteps",
    "velocity",
]
