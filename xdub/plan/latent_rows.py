"""Rows of the table that compares a cache of latents with encoding in every step."""

from __future__ import annotations

from collections.abc import Sequence

from xdub.plan.phase_plan import PhasePlan


def latent_rows(plans: Sequence[PhasePlan]) -> dict[str, list[str]]:
    """Return a row for every figure. A cache is charged to the first phase of the table that reads it."""
    return {
        "this plan has them": ["in a cache" if p.latents.cached else "in every step" for p in plans],
        "step with / without, s": [f"{_live_seconds(p):.2f} / {_cached_seconds(p):.2f}" for p in plans],
        "in all steps, GPU hours": [f"{p.latents.live_gpu_hours:,.0f}" for p in plans],
        "once into a cache, GPU hours": [
            f"as {owner}" if (owner := _owner(p, plans)) != p.phase else f"{p.latents.encode_gpu_hours:,.0f}"
            for p in plans
        ],
        "phase without a cache, GPU hours": [
            f"{p.steps * _live_seconds(p) * p.gpus / 3600:,.0f}" for p in plans
        ],
        "phase and its cache, GPU hours": [f"{_with_cache(p, plans):,.0f}" for p in plans],
        "grid of the cache, frames": [str(p.latents.stride) for p in plans],
        "windows of the cache, thousands": [f"{p.latents.windows / 1e3:,.0f}" for p in plans],
        "visits of a window": [f"{p.latents.visits:.2f}" for p in plans],
        "cache, TB": [f"{p.latents.cache_bytes / 1e12:.2f}" for p in plans],
        "its storage, $": [f"{p.latents.storage_cost:,.0f}" for p in plans],
        "cheaper": [_verdict(p, plans) for p in plans],
    }


def _live_seconds(plan: PhasePlan) -> float:
    """Return the seconds of a step that runs the encoders."""
    return plan.step_seconds + (plan.encoder_seconds if plan.latents.cached else 0.0)


def _cached_seconds(plan: PhasePlan) -> float:
    """Return the seconds of a step that reads a cache."""
    return plan.step_seconds - (0.0 if plan.latents.cached else plan.encoder_seconds)


def _owner(plan: PhasePlan, plans: Sequence[PhasePlan]) -> str:
    """Return the first phase of the table that shares the cache of ``plan``."""
    return next(other.phase for other in plans if other.phase in plan.latents.shared_by)


def _with_cache(plan: PhasePlan, plans: Sequence[PhasePlan]) -> float:
    """Return the GPU hours of a phase that reads a cache, with those of the cache in the first phase."""
    own = plan.latents.encode_gpu_hours if _owner(plan, plans) == plan.phase else 0.0
    return plan.steps * _cached_seconds(plan) * plan.gpus / 3600 + own


def _verdict(plan: PhasePlan, plans: Sequence[PhasePlan]) -> str:
    """Return the cheaper way, with its dollars in the column of the first phase that shares the cache."""
    if _owner(plan, plans) != plan.phase:
        return plan.latents.cheaper
    return f"{plan.latents.cheaper}, {abs(plan.latents.saving):,.0f} $"
