"""diagnose: which step of a port is wrong, and what is wrong in it.

Every step that was dumped is replayed from what was dumped before it. Where it is wrong,
each of the known causes is tried, in turn, at each step that may be to blame. A cause is
named if it gives what they have, within rounding, and the next best cause is at least ten
times as far off. Otherwise the cause is unknown, and the numbers say how near any came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..checkpoints.names import PREFIX
from ..model.pretrained import PreTrainedModel
from .align import Aligned, align
from .golden import Golden, that_count
from .precision import TOLERANCES, precision_of
from .replay import Arrays, Reference, Replay, local_name
from .report import report
from .variants import Variant, shown, variants_at

MARGIN = 10  # how many times as far off the next best cause must be
SLACK = 8  # times what rounding alone does in a pass of ours
HARMLESS = 1e-9  # a change of the result that nobody will miss
SAME, DIFFERS, NOT_COMPARABLE = "same", "differs", "not comparable"


@dataclass(frozen=True)
class Candidate:
    """A cause, the steps where it would be, and how far it is from theirs."""

    cause: str
    steps: tuple[str, ...]
    error: float
    detail: str
    advice: str
    cases: str
    solved: bool = False  # a number in it was solved for


@dataclass(frozen=True)
class Finding:
    """A step that is wrong.

    Attributes:
        step: the wrong step; where the cause is unknown and steps before `seen_at` were
            not dumped, one from `between` to it.
        seen_at: the dumped step that shows it.
        between: the steps that may be to blame, in order.
        error: theirs against ours on theirs, of the largest value.
        cause: the name in tracing/variants.py, or None: unknown.
        candidates: the nearest causes, the best first, one entry a cause.
        reason: why the cause is unknown.
    """

    step: str
    seen_at: str
    between: tuple[str, ...]
    error: float
    cause: str | None
    candidates: tuple[Candidate, ...]
    reason: str = ""

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


@dataclass(frozen=True)
class StepError:
    """How far a dumped step is from ours, of the largest value.

    Attributes:
        own: theirs against our op on theirs: what this step adds.
        inherited: theirs against ours from the beginning.
        tolerance: how far `own` may be.
    """

    name: str
    own: float
    inherited: float
    tolerance: float

    @property
    def wrong(self) -> bool:
        return not self.own <= self.tolerance


@dataclass
class Diagnosis:
    """What became of the comparison of a port with the reference.

    Attributes:
        status: "same", "differs" or "not comparable".
        steps: the errors of each dumped step, in order of computation.
        findings: the wrong steps, in order.
        precision: in which theirs was computed, as the values show.
        unseen: causes that may hide in the rounding of a step that seems right.
        notes: what else a reader should know, of names and layouts.
    """

    status: str
    steps: list[StepError] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    precision: str = ""
    unseen: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return report(self)

    @property
    def causes(self) -> list[str]:
        """The distinct causes in order; "unknown" for those that have no name."""
        return list(dict.fromkeys(f.cause or "unknown" for f in self.findings))

    @property
    def first_wrong(self) -> str | None:
        """The first wrong step, None if there is none."""
        return self.findings[0].step if self.findings else None


def diagnose(
    reference: PreTrainedModel | Golden,
    theirs: Mapping[str, Any],
    *,
    model: PreTrainedModel | None = None,
    names: Mapping[str, str] | None = None,
    rtol: float | None = None,
    **inputs: Any,
) -> Diagnosis:
    """Compare what a port dumped with ours, step by step, and say what is wrong.

    >>> diagnose(model, {"h.0": ..., "h.1": ..., "lm_head": ...}, input_ids=ids).causes
    ['exact GELU']

    Args:
        reference: the model, whose parameters the port has too; or a golden, which has
            the inputs with it.
        model: the golden's model. Without it the first step that differs is found, but
            not what is wrong in it.
        theirs: {name: array} of what the port computed: any of the steps, by
            Hugging Face's names, TransformerLens's or llm.c's.
        names: {their name: our name}, for others.
        rtol: what an error may be of the largest value; by default what the precision
            excuses that theirs was computed in.
        inputs: arguments of the model's forward, where no golden has them: what both
            read.
    """
    if isinstance(reference, Golden):
        if model is None:
            return compare(reference, theirs, names, rtol)
        inputs, reference = {**arguments_of(reference.inputs), **inputs}, model
    replayed = Reference(reference, **inputs)
    ours = Replay(replayed)
    aligned = align(theirs, ours.predicted, replayed.config.n_layer, names)
    reason = incomparable(aligned, replayed.input_ids, replayed.config.bos_token_id)
    if reason:
        return Diagnosis(NOT_COMPARABLE, notes=[reason, *aligned.notes])
    return _diagnosed(replayed, ours, aligned, rtol)


def arguments_of(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return a golden's inputs as arguments of forward: a past is two arrays a layer."""
    past = [
        (inputs[name], inputs[f"past.{layer}.value"])
        for layer in range(len(inputs))
        if (name := f"past.{layer}.key") in inputs
    ]
    # (llm.c's targets are no argument of ours: their loss has one label more.)
    rest = {
        name: array
        for name, array in inputs.items()
        if name != "targets" and not name.startswith("past.")
    }
    return {**rest, "past": past} if past else rest


def compare(
    golden: Golden,
    theirs: Mapping[str, Any],
    names: Mapping[str, str] | None,
    rtol: float | None,
) -> Diagnosis:
    """Compare with a golden alone: what each step inherits, but not its own error."""
    ours = {
        name.removeprefix(PREFIX): np.asarray(array, np.float64)
        for name, array in golden.steps.items()
    }
    blocks = [int(name.split(".")[1]) for name in ours if name.startswith("h.")]
    said = golden.about.get("config", {}).get("n_layer")
    layers = said or 1 + max(blocks, default=0)
    aligned = align(theirs, ours, layers, names)
    ids = golden.inputs.get("input_ids")
    reason = incomparable(aligned, ids, None)
    if reason:
        return Diagnosis(NOT_COMPARABLE, notes=[reason, *aligned.notes])
    precision = precision_of(aligned.arrays)
    # (From step to step rounding grows; how much, a golden of float32 has measured.)
    grown = {
        name.removeprefix(PREFIX): SLACK * most
        for name, most in golden.tolerance.items()
    }
    steps = []
    for name, array in ours.items():
        if name not in aligned.arrays:
            continue
        off = error_of(name, aligned.arrays[name], array, golden.key_mask)
        largest = np.abs(array[np.isfinite(array)]).max(initial=0.0) or 1.0
        allowed = max(SLACK * TOLERANCES[precision], grown.get(name, 0.0) / largest)
        steps.append(StepError(name, off, off, allowed if rtol is None else rtol))
    reason = "without the model, no step can be told from what it inherits"
    findings = [
        Finding(s.name, s.name, (s.name,), s.own, None, (), reason)
        for s in steps
        if s.wrong
    ]
    return Diagnosis(
        DIFFERS if findings else SAME, steps, findings[:1], precision, [], aligned.notes
    )


def incomparable(
    aligned: Aligned, ours: np.ndarray | None, bos_token_id: int | None
) -> str:
    """Say why theirs cannot be compared at all; "" if it can."""
    ids = aligned.ids
    if ids is not None and ours is not None:
        ids, ours = (np.atleast_2d(a).reshape(-1, a.shape[-1]) for a in (ids, ours))
        if ids.shape != ours.shape or (ids != ours).any():
            said = f"they read other ids: {shown(ids)}; ours are {shown(ours)}"
            if (ids[:, 0] == bos_token_id).all() and (ours[:, 0] != bos_token_id).any():
                said += " (theirs begin with a BOS)"
            return said
    if not aligned.arrays:
        return "nothing of theirs is a step of this pass"
    return ""


def _diagnosed(
    reference: Reference, ours: Replay, aligned: Aligned, rtol: float | None
) -> Diagnosis:
    search = Search(reference, aligned.arrays, rtol)
    steps = [
        StepError(
            name,
            search.error(name, search.full.predicted[name], search.full),
            search.error(name, ours.predicted[name], search.full),
            search.tolerance[name],
        )
        for name in search.names
    ]
    findings = search.findings([step.name for step in steps if step.wrong])
    return Diagnosis(
        DIFFERS if findings else SAME,
        steps,
        findings,
        search.precision,
        search.unseen({step.name for step in steps if step.wrong}),
        aligned.notes,
    )


class Search:
    """The search for causes in what one port dumped."""

    def __init__(self, reference: Reference, theirs: Arrays, rtol: float | None):
        self.reference = reference
        self.full = Replay(reference, theirs)
        # Hundreds of causes are tried, each with as many logits as there are ids: a few
        # will do. (The errors of steps are those of all.)
        thin = reference.thinned()
        fewer = {name: array for name, array in theirs.items() if name != "loss"}
        if "lm_head" in fewer:
            fewer["lm_head"] = fewer["lm_head"][..., thin.columns]
        self.thin = Replay(thin, fewer)
        self.names = [s.name for s in reference.steps if s.name in theirs]
        self.precision = precision_of(theirs)
        self.wrong: set[str] = set()
        if rtol is not None:
            self.tolerance = dict.fromkeys(self.names, rtol)
        else:
            self.tolerance = {
                name: max(TOLERANCES[self.precision], SLACK * error)
                for name, error in self._rounding().items()
            }

    def _rounding(self) -> dict[str, float]:
        """Return what rounding alone does to each dumped step.

        That of a pass of ours, each step rounded, replayed from the same names.
        """
        if self.precision == "float64":
            return dict.fromkeys(self.names, 0.0)
        rounding = Replay(self.reference, rounding=self.precision)
        rough = {name: rounding.predicted[name] for name in self.names}
        again = Replay(self.reference, rough)
        return {
            name: self.between(name, rough[name], again.predicted[name])
            for name in self.names
        }

    def replay_of(self, name: str) -> Replay:
        """Return the replay in which to try causes for a step."""
        return self.full if name == "loss" else self.thin

    def error(self, name: str, ours: np.ndarray, replay: Replay) -> float:
        """Return how far theirs is from ours."""
        return self.between(name, replay.theirs[name], ours)

    def between(self, name: str, theirs: np.ndarray, ours: np.ndarray) -> float:
        return error_of(name, theirs, ours, self.reference.key_mask)

    def findings(self, wrong: list[str]) -> list[Finding]:
        """Return what is wrong in the steps that are, once for each place."""
        self.wrong = set(wrong)
        found: dict[tuple, Finding] = {}
        for name in wrong:
            finding = self.finding(name)
            key = (finding.cause, finding.step) if finding.cause else (name,)
            found.setdefault(key, finding)
        sure = {f.cause for f in found.values() if f.cause}
        return [self.settled(finding, sure) for finding in found.values()]

    def settled(self, finding: Finding, sure: set[str]) -> Finding:
        """Where several causes fit one step, take the one that is sure at another."""
        fitting = [
            c
            for c in finding.candidates
            if c.cause in sure and c.error <= self.tolerance[finding.seen_at]
        ]
        if finding.cause or len(fitting) != 1:
            return finding
        best = fitting[0]
        others = [c for c in finding.candidates if c is not best]
        return replace(
            finding,
            step=best.steps[0],
            cause=best.cause,
            candidates=(best, *others),
            reason="as at another step",
        )

    def finding(self, name: str) -> Finding:
        """Try every known cause for a wrong step."""
        replay = self.replay_of(name)
        between = replay.segment(name)
        tolerance = self.tolerance[name]
        error = self.error(name, replay.predicted[name], replay)
        candidates: list[Candidate] = []
        for scopes in (broad, single):
            candidates += self._tried(scopes, between, name)
            candidates = nearest(candidates, tolerance)
            if candidates and candidates[0].error <= tolerance:
                break
        best = candidates[0] if candidates else None
        cause, reason = None, ""
        others = [c.error for c in candidates[1:]] + [error]
        if best is None:
            reason = "no known cause is of this step"
        elif not best.error <= tolerance:
            reason = f"the nearest cause, {best.cause}, is {best.error:.1e} off"
        elif min(others) < MARGIN * best.error:
            near = [c.cause for c in candidates if c.error < MARGIN * best.error]
            reason = f"it may be {' or '.join(near)}"
            if len(near) == 1:
                reason = f"{near[0]} is near, but no nearer than rounding"
        else:
            cause = best.cause
        return Finding(
            step=best.steps[0] if cause and best else name,
            seen_at=name,
            between=tuple(between),
            error=error,
            cause=cause,
            candidates=tuple(candidates[:4]),
            reason=reason,
        )

    def _tried(
        self, scopes: Any, between: list[str], target: str
    ) -> Iterator[Candidate]:
        replay = self.replay_of(target)
        for variant, steps in scopes(between):
            fresh, detail = replay.varied(dict.fromkeys(steps, variant.op))
            if target not in fresh:
                continue  # it does not apply here
            # What else was dumped, and is right, must be so with it too.
            error = max(
                self.error(n, fresh[n], replay)
                for n in fresh
                if n == target or (n in self.tolerance and n not in self.wrong)
            )
            if not np.isnan(error):
                yield Candidate(
                    variant.cause,
                    steps,
                    error,
                    detail,
                    variant.advice,
                    variant.cases,
                    variant.solved,
                )

    def unseen(self, wrong: set[str]) -> list[str]:
        """Return the causes that may hide in the rounding of steps that seem right."""
        hidden: dict[str, None] = {}
        for name in self.names:
            if name in wrong:
                continue
            replay = self.replay_of(name)
            for variant, steps in broad(replay.segment(name)):
                if variant.cause in hidden or variant.solved:
                    continue
                fresh, _ = replay.varied(dict.fromkeys(steps, variant.op))
                if name not in fresh:
                    continue
                if self.error(name, fresh[name], replay) > self.tolerance[name]:
                    continue
                ours = replay.predicted[name]
                if self.between(name, fresh[name], ours) > HARMLESS:
                    hidden[variant.cause] = None
        return list(hidden)


Scope = tuple[Variant, tuple[str, ...]]


def broad(between: Iterable[str]) -> Iterator[Scope]:
    """Yield each variant with all steps that it fits, and with those of each name."""
    names = list(between)
    local = {name: local_name(name) for name in names}
    for variant in dict.fromkeys(v for n in names for v in variants_at(local[n])):
        fitting = tuple(name for name in names if local[name] in variant.at)
        groups = {fitting: None}
        for kind in dict.fromkeys(local[name] for name in fitting):
            groups[tuple(name for name in fitting if local[name] == kind)] = None
        for group in groups:
            yield variant, group


def single(between: Iterable[str]) -> Iterator[Scope]:
    """Yield each variant with each step that it fits, alone."""
    names = list(between)
    for name in names:
        for variant in variants_at(local_name(name)):
            yield variant, (name,)


def nearest(candidates: Iterable[Candidate], tolerance: float) -> list[Candidate]:
    """Return the best candidate of each cause, the nearest first.

    What is solved for is preferred only where no common value gives what they have. If
    several of these do, the detail names them all.
    """
    best: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        best.setdefault(candidate.cause, []).append(candidate)
    result = []
    for group in best.values():
        group.sort(key=lambda c: c.error)
        exact = [c for c in group if c.error <= tolerance and not c.solved]
        if not exact:
            result.append(group[0])
            continue
        alike = [c.detail for c in exact if c.error <= MARGIN * exact[0].error]
        details = " or ".join(dict.fromkeys(filter(None, alike)))
        result.append(replace(exact[0], detail=details))
    return sorted(result, key=lambda c: c.error)


def error_of(
    name: str,
    theirs: np.ndarray,
    ours: np.ndarray,
    key_mask: np.ndarray | None = None,
) -> float:
    """Return max |theirs - ours| of the largest of ours; inf if only one is finite.

    Args:
        key_mask: which columns are no padding [B, S]; what is does not count.
    """
    if local_name(name) == "attn.masked":
        theirs, ours = effective(theirs), effective(ours)
    if key_mask is not None:
        counts = that_count(name, ours.shape, key_mask)
        theirs, ours = np.where(counts, theirs, 0.0), np.where(counts, ours, 0.0)
    with np.errstate(all="ignore"):
        alike = (theirs == ours) | (np.isnan(theirs) & np.isnan(ours))
        difference = np.where(alike, 0.0, np.abs(theirs - ours))
    if not np.isfinite(difference).all():
        return float("inf")
    size = np.abs(ours[np.isfinite(ours)]).max(initial=0.0)
    worst = difference.max(initial=0.0)
    return float(worst / size) if size else float(worst)


LEAST = 28.0  # exp(-28) is 1e-12


def effective(masked: np.ndarray) -> np.ndarray:
    """Return masked scores as the softmax sees them: from each row's largest on.

    So -1e9 is as good as -inf, unless the scores are so large that it is not. Rows that
    see no key are all alike.
    """
    with np.errstate(all="ignore"):
        finite = np.where(np.isnan(masked), -np.inf, masked)
        peak = finite.max(axis=-1, keepdims=True, initial=-np.inf)
        shifted = np.where(np.isneginf(peak), 0.0, masked - peak)
    return np.where(shifted < -LEAST, -np.inf, shifted)
