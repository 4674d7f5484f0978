"""GLSL: one vertex shader and small fragment shaders (surface, surface with a cut edge, eyeball, hair).

Everything static is painted once per person (see skin.py), because with many small triangles the fragment shader is the
bottleneck of a software rasteriser.
"""

from __future__ import annotations

VERTEX = """
#version 330
uniform mat4 camera;
uniform mat3 turn; uniform vec3 pivot; uniform vec3 shift;
in vec3 position; in vec3 normal;       // this frame, before head motion
in float cut; in vec2 uv;               // cloth and hair end where cut is negative; position in the texture
in vec4 tint; in vec4 mark;             // rgb, ambient visibility (-1: occluder); skin, skull weight, gloss, cavity
out vec3 v_normal; out float v_cut; out vec2 v_uv; out vec4 v_tint; out vec4 v_mark;
out vec3 v_local; flat out float v_clear;   // flat: a sample of a sliver may lie far outside the triangle
void main() {
    vec3 moved = turn * (position - pivot) + pivot + shift;
    v_normal = mix(normal, turn * normal, mark.y);
    v_local = normal; v_cut = cut; v_uv = uv; v_tint = tint; v_mark = mark;
    v_clear = tint.a < -0.5 ? 0.0 : 1.0;
    gl_Position = camera * vec4(mix(position, moved, mark.y), 1.0);
}
"""

_COMMON = """
#version 330
uniform vec3 half_dir;            // between the key light and the camera, which is far away on +z
uniform vec3 key_dir; uniform vec3 key_color; uniform vec3 rim_dir; uniform vec3 rim_color;
uniform vec3 sky; uniform vec3 ground; uniform float exposure;
in vec3 v_normal; in float v_cut; in vec2 v_uv; in vec4 v_tint; in vec4 v_mark; in vec3 v_local;
flat in float v_clear;
out vec4 color;
vec3 light(vec3 n, vec3 albedo, float open, vec3 wrap) {    // wrap 0: hard terminator, 1: lit all around
    float k = dot(n, key_dir), r = dot(n, rim_dir);
    vec3 key = max(k + wrap * (1.0 - k), 0.0), rim = max(r + wrap * (1.0 - r), 0.0);
    vec3 ambient = mix(ground, sky, 0.5 + 0.5 * n.y) * open;
    return albedo * (ambient + (key * key_color + rim * rim_color) * (0.25 + 0.75 * open));
}
vec4 expose(vec3 linear, float alpha) {                     // film-like shoulder and display gamma in one
    vec3 x = linear * exposure + 1e-5;
    return vec4(1.235 * x * inversesqrt(x * x + 0.6 * x), alpha);
}
"""

_SURFACE = (
    _COMMON
    + """
uniform sampler2D paint;
void main() {
    CUT
    vec3 n = normalize(v_normal);
    vec4 texel = texture(paint, v_uv) * 2.0;
    float open = clamp(abs(v_tint.a), 0.0, 1.0), cavity = v_mark.w;
    vec3 albedo = mix(v_tint.rgb * texel.rgb, vec3(0.10, 0.016, 0.018), cavity);
    open *= 1.0 - 0.92 * cavity;
    vec3 result = light(n, albedo, open, v_mark.x * vec3(0.27, 0.17, 0.145) + 0.03);
    float s = max(dot(n, half_dir), 0.0); s *= s; s *= s;
    float broad = s * s; float tight = broad * broad; tight *= tight;
    float f = 1.0 - max(n.z, 0.0); f *= f; f *= f;
    float gloss = texel.a * v_mark.z * open * (1.0 - cavity);
    result += gloss * (key_color * (0.045 * broad + 0.16 * tight) + sky * (0.03 + 0.22 * f));
    result *= 1.0 - 0.65 * cavity;
    color = expose(result, v_clear);
}
"""
)
# A program that may discard cannot test depth early, so only surfaces with a cut edge use that program.
SURFACE = _SURFACE.replace("CUT", "")
CUT_SURFACE = _SURFACE.replace("CUT", "if (v_cut < 0.0) discard;")

EYE = (
    _COMMON
    + """
uniform vec3 iris_color; uniform vec3 gaze; uniform mat3 turn;
void main() {
    vec3 n = normalize(v_normal), d = normalize(v_local);
    float radius = acos(clamp(dot(d, gaze), -1.0, 1.0));
    vec2 around = d.xy - gaze.xy;
    float angle = atan(around.y, around.x);
    float fibre = 0.85 + 0.2 * sin(angle * 17.0 + 5.0 * radius) * sin(angle * 29.0);
    vec3 white = vec3(0.74, 0.70, 0.68) * mix(vec3(1.0), vec3(0.95, 0.70, 0.66), smoothstep(0.55, 1.2, radius));
    vec3 iris = iris_color * fibre * mix(1.35, 0.30, smoothstep(0.26, 0.43, radius)) * (1.0 - 0.5 * (around.y + 0.2));
    vec3 albedo = mix(white, iris, smoothstep(0.46, 0.41, radius));
    albedo = mix(albedo, vec3(0.010), smoothstep(0.20, 0.16, radius));
    float under_lid = 0.35 + 0.65 * smoothstep(0.40, 0.0, d.y - 0.5 * gaze.y);
    vec3 result = light(n, albedo, 0.75 * under_lid, vec3(0.26)) * under_lid;
    vec3 cornea = normalize(n + 0.5 * turn * gaze);
    float s = max(dot(cornea, normalize(half_dir + vec3(0.0, 0.12, 0.25))), 0.0);
    s *= s; s *= s; s *= s; s *= s; s *= s; s *= s;
    result += key_color * 1.1 * s * s + 0.03 * sky;
    color = expose(result, v_clear);
}
"""
)

HAIR = (
    _COMMON
    + """
uniform sampler2D strands; uniform mat3 turn; uniform vec3 hair_color; uniform vec2 hair_flow;
void main() {
    vec2 s = texture(strands, v_uv * hair_flow).rg;
    if (v_cut + 0.07 * (s.r - 0.5) < 0.0) discard;
    vec3 n = normalize(v_normal);
    n = n.z < 0.0 ? -n : n;
    vec3 albedo = hair_color * v_tint.rgb * (0.35 + 1.1 * s.r);
    vec3 result = light(n, albedo, v_tint.a * (0.55 + 0.45 * s.g), vec3(0.11));
    vec3 tangent = normalize(turn * (vec3(0.0, -1.0, 0.0) + n * n.y + 0.25 * vec3(s.g - 0.5, 0.0, s.r - 0.5)));
    float th = dot(tangent, half_dir);
    float band = max(1.0 - th * th, 0.0); band *= band; band *= band; band *= band; band *= band;
    result += (hair_color * 1.6 + 0.03) * key_color * band * 0.40 * s.r * v_tint.a;
    color = expose(result, v_clear);
}
"""
)

BACKDROP_VERTEX = """
#version 330
in vec2 corner; out vec2 uv;
void main() { uv = corner * 0.5 + 0.5; gl_Position = vec4(corner, 0.99999, 1.0); }
"""

BACKDROP = """
#version 330
uniform sampler2D picture; in vec2 uv; out vec4 color;
void main() { color = vec4(texture(picture, uv).rgb, 1.0); }
"""
