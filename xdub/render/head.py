"""One person's mesh: skin, eyes, teeth and tongue with colours per vertex, and the pieces worn on them."""

from __future__ import annotations

import numpy as np

from xdub.render.avatar import PART, Avatar
from xdub.render.gl import Mesh
from xdub.render.person import Identity
from xdub.render.skin import WHITE, skin_uv
from xdub.render.surfaces import Piece, step

TEETH = np.array([0.62, 0.56, 0.47])
TONGUE = np.array([0.20, 0.042, 0.042])
LASH = np.array([0.012, 0.010, 0.010])


def build_mesh(avatar: Avatar, person: Identity, open_: np.ndarray, pieces: list[Piece]) -> Mesh:
    """Static arrays of skin and organs followed by the pieces, in order."""
    part, rest = avatar.part, avatar.base
    n = len(rest)
    tint = np.ones((n, 4))
    tint[:, :3] = person.skin
    tint[:, 3] = open_
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
        of = part == PART[name]
        depth = step(back, front, rest[of, 2])  # the mouth's depth is dark
        tint[of, :3] = colour * (0.06 + 0.94 * depth[:, None])
        tint[of, 3] = 0.04 + (0.55 if name != "tongue" else 0.25) * depth
        mark[of] = [0.3, 1.0, gloss, 0.0]
        uv[of] = WHITE
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
