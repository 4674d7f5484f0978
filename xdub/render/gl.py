"""The rasteriser: moderngl on a surfaceless EGL context (Mesa's llvmpipe where there is no GPU), 4x multisampling."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xdub.errors import UserError
from xdub.render import shaders

if TYPE_CHECKING:
    import moderngl


@dataclass(frozen=True)
class Mesh:
    """The static geometry of one clip: V vertices and the triangles [.,3] of each material."""

    cut: np.ndarray  # [V] distance from the cut edge; not drawn where negative
    uv: np.ndarray  # [V,2]
    tint: np.ndarray  # [V,4] linear rgb, ambient visibility (-1: occluder)
    mark: np.ndarray  # [V,4] skin, skull weight, gloss, mouth cavity
    surface: np.ndarray  # nearest first, so hidden fragments are never shaded
    cloth: np.ndarray  # surface that ends at its cut
    eyes: np.ndarray
    hair: np.ndarray


def open_context() -> moderngl.Context:
    """Open a standalone EGL context.

    Raises:
        UserError: offscreen OpenGL is missing; the message names the system packages.
    """
    import moderngl

    # moderngl annotates its backend's settings as dicts, so plain values are passed as `Any`.
    settings: dict[str, Any] = {"standalone": True, "backend": "egl", "require": 330}
    try:
        return moderngl.create_context(**settings)
    except Exception as error:
        raise UserError(f"no offscreen OpenGL ({error}): apt-get install libegl1 libgl1-mesa-dri") from error


_thread = threading.local()


def shared_context() -> moderngl.Context:
    """Return this thread's only context. Two contexts would both draw with the one last made current."""
    if not hasattr(_thread, "context"):
        _thread.context = open_context()
    return _thread.context


def camera_matrix(centre: np.ndarray, distance: float, extent: float) -> np.ndarray:
    """Compute the matrix [4,4] from world to clip space of a square perspective camera on +z.

    The camera shows `extent` units in the plane of `centre`.
    """
    focal = 2.0 * distance / extent
    near, far = distance - 5.0, distance + 5.0
    view = np.eye(4)
    view[:3, 3] = -np.asarray(centre, float) - [0, 0, distance]
    projection = np.zeros((4, 4))
    projection[0, 0] = projection[1, 1] = focal
    projection[2, 2], projection[2, 3] = (far + near) / (near - far), 2 * far * near / (near - far)
    projection[3, 2] = -1.0
    return projection @ view


def project(points: np.ndarray, camera: np.ndarray, size: int) -> np.ndarray:
    """Project world points [...,3] to picture px [...,2]: x right, y down, the picture's corner is (0, 0)."""
    clip = points @ camera[:, :3].T + camera[:, 3]
    ndc = clip[..., :2] / clip[..., 3:]
    return np.stack([(1 + ndc[..., 0]) * size / 2, (1 - ndc[..., 1]) * size / 2], -1)


class Rasteriser:
    """A program that draws one mesh over one backdrop, in the thread that created it."""

    def __init__(self, size: int, samples: int = 4) -> None:
        import moderngl

        self.size = size
        self.ctx = shared_context()
        self.ctx.enable(moderngl.DEPTH_TEST)
        self._cull = moderngl.CULL_FACE
        sources = {
            "hair": shaders.HAIR,
            "cloth": shaders.CUT_SURFACE,
            "surface": shaders.SURFACE,
            "eyes": shaders.EYE,
        }
        self.programs = {
            name: self.ctx.program(vertex_shader=shaders.VERTEX, fragment_shader=source)
            for name, source in sources.items()
        }
        screen = self.ctx.program(vertex_shader=shaders.BACKDROP_VERTEX, fragment_shader=shaders.BACKDROP)
        corners = self.ctx.buffer(np.asarray([[-1, -1], [3, -1], [-1, 3]], "f4").tobytes())
        self.screen = self.ctx.vertex_array(screen, [(corners, "2f", "corner")])
        self.multi = self.ctx.framebuffer(
            [self.ctx.renderbuffer((size, size), 4, samples=samples)],
            self.ctx.depth_renderbuffer((size, size), samples=samples),
        )
        self.single = self.ctx.framebuffer([self.ctx.renderbuffer((size, size), 4)])
        self.picture = self.ctx.texture((size, size), 3)
        self.textures: dict[str, moderngl.Texture] = {}
        self.arrays: dict[str, moderngl.VertexArray] = {}
        self.owned: list[moderngl.Buffer] = []

    def load(self, mesh: Mesh, picture: np.ndarray, **textures: np.ndarray) -> None:
        """Load a clip's mesh, backdrop [size,size,3] uint8 and uint8 textures `paint` (RGBA) and `strands` (RG)."""
        for resource in [*self.arrays.values(), *self.owned]:
            resource.release()
        static = np.concatenate([mesh.cut[:, None], mesh.uv, mesh.tint, mesh.mark], 1).astype("f4")
        fixed = self.ctx.buffer(static.tobytes())
        self.moving = self.ctx.buffer(reserve=len(static) * 24, dynamic=True)
        self.owned = [fixed, self.moving]
        self.arrays = {}
        for name, program in self.programs.items():
            triangles = getattr(mesh, name)
            if len(triangles):
                index = self.ctx.buffer(triangles.astype("i4").tobytes())
                layout = [_layout(program, self.moving, [("position", 3), ("normal", 3)]),
                          _layout(program, fixed, [("cut", 1), ("uv", 2), ("tint", 4), ("mark", 4)])]  # fmt: skip
                self.arrays[name] = self.ctx.vertex_array(program, layout, index)
                self.owned.append(index)
        self.picture.write(np.ascontiguousarray(picture[::-1]).tobytes())
        for name, image in textures.items():
            if name not in self.textures:
                self.textures[name] = self.ctx.texture(image.shape[1::-1], image.shape[2])
            self.textures[name].write(np.ascontiguousarray(image).tobytes())

    def uniforms(self, **values: np.ndarray | float) -> None:
        """Set values in every program that has a uniform of the name; matrices are row-major."""
        import moderngl

        for name, value in values.items():
            array = np.asarray(value, "f4")
            data = (array.T if array.ndim == 2 else array).tobytes()
            for program in self.programs.values():
                uniform = program.get(name, None)
                if isinstance(uniform, moderngl.Uniform):
                    uniform.write(data)

    def draw(self, moving: np.ndarray, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Draw one frame [size,size,4] uint8 of `moving` [V,6] float32 (position, normal); alpha is 0 on occluders.

        With `box` (x0, y0, x1, y1) only that part is drawn and returned, with the same pixels in less time.
        """
        x0, y0, x1, y1 = box or (0, 0, self.size, self.size)
        # OpenGL counts rows from below.
        corner = (x0, self.size - y1, x1 - x0, y1 - y0)
        self.multi.scissor = self.single.scissor = corner
        self.moving.write(np.ascontiguousarray(moving, "f4"))
        self.multi.use()
        self.multi.clear(0, 0, 0, 1)
        self.ctx.disable(self._cull)
        self.picture.use(0)
        self.screen.render(vertices=3)
        for name, array in self.arrays.items():
            texture = {"surface": "paint", "cloth": "paint", "hair": "strands"}.get(name)
            if texture:
                self.textures[texture].use(0)
            (self.ctx.disable if name == "hair" else self.ctx.enable)(self._cull)
            array.render()
        self.ctx.copy_framebuffer(self.single, self.multi)
        pixels = np.frombuffer(self.single.read(viewport=corner, components=4), np.uint8)
        return pixels.reshape(y1 - y0, x1 - x0, 4)[::-1]


def _layout(
    program: moderngl.Program, buffer: moderngl.Buffer, fields: list[tuple[str, int]]
) -> tuple[Any, ...]:
    """Describe a buffer for `vertex_array`; attributes that the compiler optimised away become padding."""
    formats = [f"{n}f" if name in program else f"{4 * n}x" for name, n in fields]
    return (buffer, " ".join(formats), *(name for name, _ in fields if name in program))
