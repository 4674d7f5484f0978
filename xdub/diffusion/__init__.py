"""Flow matching (paper B.1, Eq. 2, 5) as pure functions."""

from xdub.diffusion.border import Border
from xdub.diffusion.flow_matching import rounded_time, sample_timesteps, shift_timesteps, velocity
from xdub.diffusion.guidance import BRANCHES, guidance_weights, guided_velocity
from xdub.diffusion.sampler import euler_timesteps, evaluation_times, evaluations, sample

__all__ = [
    "BRANCHES",
    "Border",
    "euler_timesteps",
    "evaluation_times",
    "evaluations",
    "guidance_weights",
    "guided_velocity",
    "rounded_time",
    "sample",
    "sample_timesteps",
    "shift_timesteps",
    "velocity",
]
