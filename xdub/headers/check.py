"""Check of all networks that a recipe names, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.config import PACKAGED, Recipe, base_path, in_model, network_path, prompt_path, tunes_open_weights
from xdub.config.weight_files import (
    DUB,
    HUB_NAME,
    IMPORT,
    PAIRS,
    PREPARE,
    SPEAKERS,
    STAGES,
    NetworkUse,
    Role,
    denoises,
    idle_networks,
    network_kind,
    network_settings,
    used_networks,
)
from xdub.errors import UserError, error_reason
from xdub.headers.files import Fault
from xdub.headers.kinds import INSPECTORS, packaged, prompt, umt5
from xdub.headers.speech import wrong_width
from xdub.headers.wan import check_open_weights

REGISTERED = {
    "dlib": "identity_dlib",
    "mobilefacenet": "identity_mobilefacenet",
    "tiny.en": "whisper_tiny_en",
}
"""Kind or name of a network -> its role in the registry."""
TINY_EN = 384
"""Width of Whisper tiny.en."""
FETCHED = (
    ("face", "mediapipe", "face_landmarker", (PREPARE, IMPORT, PAIRS, DUB)),
    ("voice_activity", "silero", "voice_activity", (PREPARE,)),
    ("voice", "resemblyzer", "voice", (SPEAKERS,)),
)
"""Networks that every recipe uses: role, kind, role in the registry, and the stages that run it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of the check of one network."""

    role: str
    kind: str
    path: str | None
    words: str
    """The network that was found, in words; "" for a fault."""
    problem: str | None = None
    fix: str = ""
    message: str = ""
    """Problem and fix in one sentence."""
    stage: str = ""
    """First stage that loads the network; "" where all do."""

    @property
    def line(self) -> str:
        """The fault as one line."""
        return f"{self.stage}: {self.message}" if self.stage else self.message


def check_networks(recipe: Recipe, stages: Sequence[str], *, on_this_machine: bool = True) -> None:
    """Raise UserError with the first network that a stage (a phase, or one of `STAGES`) needs and cannot use.

    Only headers are read, so the check takes seconds. With ``on_this_machine=False`` a file that does not exist passes,
    because a machine of the cluster may have it.
    """
    findings = inspect_networks(recipe, stages, on_this_machine=on_this_machine)
    faults = [finding for finding in findings if finding.problem is not None]
    if not faults:
        return
    others = len(faults) - 1
    more = f" ({others} more: `xdub doctor --recipe ... --quick` lists all)" if others else ""
    raise UserError(faults[0].line + more)


def inspect_networks(recipe: Recipe, stages: Sequence[str], *, on_this_machine: bool = True) -> list[Finding]:
    """Return a finding for every network that the stages load, and for every other one that the recipe locates."""
    uses = [*used_networks(recipe, stages), *idle_networks(recipe, stages)]
    findings = [_inspect(recipe, use, on_this_machine) for use in uses]
    wan = _prompt(recipe, stages, on_this_machine) + _base(recipe, stages, on_this_machine)
    return findings + _text_encoder(recipe) + wan + _fetched(recipe, stages)


def _inspect(recipe: Recipe, use: NetworkUse, on_this_machine: bool) -> Finding:
    role, section, path = use.role, use.section, None
    kind = network_kind(section, role)
    try:
        # A folder of weights may exist on the cluster only.
        if on_this_machine or section.weights is None or Path(section.weights).is_dir():
            path = network_path(section, role)
            words = _words(recipe, role, kind, path, on_this_machine)
        else:
            words = f"{kind}: in {section.weights}, not on this machine"
        return Finding(role=role, kind=kind, path=path, words=words, stage=use.stage)
    except UserError as error:
        return _fault(role, kind, path, error, use.stage)


def _words(recipe: Recipe, role: Role, kind: str, path: str | None, on_this_machine: bool) -> str:
    """Return words for a network. Raise UserError for a file that is missing or of another network."""
    if path is None:
        if (file := packaged(role)) is not None and kind in ("linear", "tiny"):
            return INSPECTORS[role, kind](recipe, file) + ", in the package"
        if kind in REGISTERED:
            return _registered_words(kind, REGISTERED[kind])
        return f"{kind}: in the package, without weights"
    if path in PACKAGED.get(role, ()):
        if recipe.audio.dim != TINY_EN:
            raise wrong_width(recipe, f"Whisper {path}", TINY_EN)
        return _registered_words(f"{kind} {path}", REGISTERED[path])
    if Path(path).exists():
        return _inspected(recipe, role, kind, Path(path))
    if HUB_NAME.fullmatch(path):
        return f"{kind}: {path}, a name on the hub, which only loading can check"
    if not on_this_machine:
        return f"{kind}: {path}, not on this machine"
    key = next(key for key, value in network_settings(recipe).items() if value == path)
    raise Fault(f"{key}={path}: there is no such file or folder", f"correct the path, or --set {key}=null")


def _inspected(recipe: Recipe, role: Role, kind: str, path: Path) -> str:
    """Return words for a file or folder. Raise UserError for a network of another kind or a damaged one."""
    inspect = INSPECTORS.get((role, kind))
    if inspect is None:
        return f"{kind}: {path}"
    try:
        return inspect(recipe, path)
    except UserError:
        raise
    # Values of any type may stand in a header or a configuration.
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise Fault(
            f"{path}: its header or configuration has a value of the wrong kind ({error_reason(error)})",
            "copy or download the network again",
        ) from error


def _text_encoder(recipe: Recipe) -> list[Finding]:
    """Return a finding for the text encoder in the recipe's folder, unless the recipe names an embedded prompt."""
    path = Path(recipe.weights or "") / "umt5"
    unused = recipe.model.text_dim is None or recipe.model.prompt is not None
    if unused or recipe.weights is None or not path.exists():
        return []
    try:
        return [Finding(role="text", kind="umt5", path=str(path), words=umt5(recipe, path))]
    except UserError as error:
        return [_fault("text", "umt5", str(path), error)]


def _prompt(recipe: Recipe, stages: Sequence[str], on_this_machine: bool) -> list[Finding]:
    """Return a finding for the embedded prompt that the backbone of kind ``wan`` reads."""
    if recipe.model.kind != "wan" or not any(map(denoises, stages)):
        return []
    path = None
    try:
        # A folder of weights may exist on the cluster only.
        elsewhere = not on_this_machine and not Path(recipe.model.prompt or recipe.weights or "").exists()
        if elsewhere and (recipe.model.prompt or recipe.weights):
            words = f"prompt: in {recipe.model.prompt or recipe.weights}, not on this machine"
        else:
            path = prompt_path(recipe)
            words = prompt(recipe, Path(path))
        return [Finding(role="prompt", kind="embedded", path=path, words=words)]
    except UserError as error:
        return [_fault("prompt", "embedded", path, error)]


def _base(recipe: Recipe, stages: Sequence[str], on_this_machine: bool) -> list[Finding]:
    """Return a finding for the open weights of a backbone of kind ``wan``, if the recipe or a phase needs any."""
    phases = [stage for stage in stages if stage not in STAGES and in_model(stage)]
    if recipe.model.kind != "wan" or not any(map(denoises, stages)):
        return []
    path = base_path(recipe)
    tuned = [name for name in phases if tunes_open_weights(recipe, name)]
    # A folder of weights may exist on the cluster only.
    elsewhere = not on_this_machine and recipe.weights is not None and not Path(recipe.weights).is_dir()
    if path is None and (elsewhere or not tuned):
        return []
    try:
        if path is None:
            raise Fault(
                f"phases.{tuned[0]}.tune=adapter trains an adapter on open weights, and the recipe names none",
                "--generator NAME:DIR of `xdub bootstrap` and `doctor` or --init-from NAME:DIR of `xdub train` names "
                "those of a published editor, e.g. tbdub-teacher:DIR"
                if recipe.model.speech == "published"
                else "--set model.base=DIR, e.g. for the folder of `xdub weights fetch wan2.2-ti2v-5b`",
            )
        words = f"wan: {path}"
        if not Path(path).exists() and on_this_machine:
            raise Fault(f"model.base={path}: there is no such file or folder", "correct the path")
        if not Path(path).exists():
            words += ", not on this machine"
        else:
            check_open_weights(recipe, Path(path))
        return [Finding(role="base", kind="wan", path=path, words=words)]
    except UserError as error:
        return [_fault("base", "wan", path, error)]


def _fetched(recipe: Recipe, stages: Sequence[str]) -> list[Finding]:
    """Return a finding for every network of the registry that no recipe names, for the first stage that runs it."""
    findings = []
    for role, kind, entry, users in FETCHED:
        stage = next((stage for stage in stages if stage in users), None)
        if stage is None or (role == "voice_activity" and recipe.screen.speech is None):
            continue
        try:
            words = _registered_words(kind, entry)
            findings.append(Finding(role=role, kind=kind, path=None, words=words, stage=stage))
        except UserError as error:
            findings.append(_fault(role, kind, None, error, stage))
    return findings


def _fault(role: str, kind: str, path: str | None, error: UserError, stage: str = "") -> Finding:
    problem, fix = split_message(error)
    return Finding(
        role=role, kind=kind, path=path, words="", problem=problem, fix=fix, message=str(error), stage=stage
    )


def split_message(error: UserError) -> tuple[str, str]:
    """Return what is wrong and the fix of an error; messages end with the fix after a semicolon."""
    if isinstance(error, Fault):
        return error.problem, error.fix
    text = str(error)
    separator = "; " if "; " in text else ": --set "
    problem, _, fix = text.partition(separator)
    return problem, fix if separator == "; " or not fix else f"--set {fix}"


def _registered_words(kind: str, role: str) -> str:
    """Return words for a network of the registry. Raise Fault for a damaged file."""
    from xdub.perception.registry import status_of, weight_of

    status = status_of(weight_of(role))
    if status.state == "damaged":
        raise Fault(
            f"{status.path}: is damaged (its sha256 is not the pinned one)",
            f"delete it, then `xdub weights fetch {role}`",
        )
    if status.state == "absent":
        return f"{kind}: not on this machine, fetched when it is first needed (`xdub weights fetch {role}`)"
    return f"{kind}: {status.path}"
