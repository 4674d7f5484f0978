"""One person's mesh: skin, eyes, teeth and tongue with colours per vertex, and the pieces on top."""

from __future__ import annotations

import numpy as np

from xdub.render.avatar import PART, Avatar
from xdub.render.gl import Mesh
from xdub.render.person import Person
from xdub.render.skin import WHITE, skin_uv
from xdub.render.surfaces import Piece, smooth_step

# Colours are linear RGB.
TEETH = np.array([0.62, 0.56, 0.47])
TONGUE = np.array([0.20, 0.042, 0.042])
LASH = np.array([0.012, 0.010, 0.010])


def build_mesh(avatar: Avatar, person: Person, visibility: np.ndarray, pieces: list[Piece]) -> Mesh:
    """Build the static arrays of skin and organs, followed by the pieces in order.

    `visibility` [V] is how open the surface is around each vertex, as `surfaces.ambient` computes it.
    """
    part, rest = avatar.part, avatar.base
    n = len(rest)
    tint = np.ones((n, 4))
    tint[:, :3] = person.skin
    tint[:, 3] = visibility
    mark = np.zeros((n, 4))
    mark[:, 0], mark[:, 1], mark[:, 2] = 1.0, avatar.head_weight, 1.0
    mark[:, 3] = avatar.inside
    uv = skin_uv(rest)
    organs = (
        ("teeth", TEETH, 0.5, 1.22, 1.5),
        ("tongue", TONGUE, 0.2, 1.0, 1.48),
        ("lashes", LASH, 0.0, 0.0, 0.1),
    )
    for name, colour, gloss, back, front in organs:
        organ = part == PART[name]
        # The depth of the mouth is dark.
        depth = smooth_step(back, front, rest[organ, 2])
        tint[organ, :3] = colour * (0.06 + 0.94 * depth[:, None])
        tint[organ, 3] = 0.04 + (0.55 if name != "tongue" else 0.25) * depth
        mark[organ] = [0.3, 1.0, gloss, 0.0]
        uv[organ] = WHITE
    shift = np.cumsum([n] + [len(p.position) for p in pieces])
    hidden = np.zeros(n, bool)
    for piece in pieces:
        if piece.hides is not None:
            hidden |= piece.hides
    skin = avatar.solid[~hidden[avatar.solid].all(1)]
    skin = skin[np.argsort(-rest[skin, 2].max(1), kind="stable")]
    cloth = [p.triangles + s for p, s in zip(pieces, shift, strict=False) if not p.hair]
    hair = [p.triangles + s for p, s in zip(pieces, shift, strict=False) if p.hair]
    return Mesh(
        cut=np.concatenate([np.ones(n), *(p.cut for p in pieces)]),
        uv=np.concatenate([uv, *(p.uv for p in pieces)]),
        tint=np.concatenate([tint, *(p.tint for p in pieces)]),
        mark=np.concatenate([mark, *(p.mark for p in pieces)]),
        surface=skin,
        cloth=np.concatenate(cloth) if cloth else np.zeros((0, 3), np.int32),
        eyes=avatar.eyeballs,
        hair=np.concatenate(hair) if hair else np.zeros((0, 3), np.int32),
    )
