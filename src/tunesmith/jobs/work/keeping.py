"""What is kept while training goes on, and when: held-out losses, states, checkpoints, previews."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.events import StepDone
from tunesmith.jobs.work.checkpoints import keep_best, register_step
from tunesmith.jobs.work.live import Live
from tunesmith.jobs.work.previews import draw_previews
from tunesmith.jobs.work.run import Run
from tunesmith.recipe.load import recipe_hash
from tunesmith.training.components import validate_every_steps
from tunesmith.training.snapshot import retain, save_state
from tunesmith.weights.atomic import reserve


@dataclass
class Keeper:
    """Called after every step, in an order that makes a kill harmless: what a state of step S follows from (its
    held-out loss, its checkpoint) is written before the state of S is."""

    run: Run
    live: Live
    _saved_seconds: float = 0.0
    _saved_step: int = -1

    def begin(self) -> None:
        """Measure the start of a fresh run; a resumed one has that already."""
        self._retain()  # what a kill between saving and this kept an earlier attempt from doing
        self._saved_seconds = self.run.clock()
        if self.live.fresh:
            self._validate()
        else:
            self._saved_step = self.live.state.step

    def after_step(self, event: StepDone) -> None:
        """Everything that is due at this step."""
        output, step, last = self.live.opened.recipe.output, event.step, event.step == self.live.steps
        requests = {request.action for request in self.run.stops.pending()}
        if last or step % self._validate_every == 0:
            self._validate()
        if output.preview_every_steps is not None and step % output.preview_every_steps == 0:
            requests.add("sample")
        if "sample" in requests:
            draw_previews(self.run, self.live)
        if output.save_every_steps is not None and step % output.save_every_steps == 0 and not last:
            register_step(self.run, self.live)
        if last or "save" in requests or self._state_due(step):
            self.save_state()

    def save_state(self) -> None:
        """Write the state and drop those no longer needed; nothing where this step's is there already."""
        if self._saved_step == self.live.state.step:
            return
        opened, states = self.live.opened, self.run.folder.states
        # Lines first: no state may know of a step that the journal does not.
        self.run.journal.sync()
        reserve(states, max((sum(f.stat().st_size for f in s.iterdir()) for s in states.glob("step-*")), default=0))
        saved = save_state(
            self.live.state,
            states,
            environment=self.live.environment,
            recipe_hash=recipe_hash(opened.recipe),
        )
        self.run.emit(saved)
        self._retain()
        self._saved_step, self._saved_seconds = saved.step, self.run.clock()

    def _retain(self) -> None:
        best = self.run.status.best
        retain(self.run.folder.states, newest=2, best=best.step if best is not None else None)

    def save_if_good(self) -> None:
        """After a NaN: keep the state rolled back to, unless it is bad as well and older files are all there is."""
        if self.live.state.first_bad() is None:
            self.save_state()

    @property
    def _validate_every(self) -> int:
        return validate_every_steps(self.live.opened.recipe, self.live.steps)

    def _validate(self) -> None:
        if self.live.holdout is None:
            return
        best = self.run.status.best
        measured = self.live.holdout.measure(self.live.state)
        self.run.emit(measured)
        if best is not None and 0 < measured.step < self.live.steps and measured.loss < best.loss:
            keep_best(self.run, self.live, measured.loss)

    def _state_due(self, step: int) -> bool:
        output = self.live.opened.recipe.output
        if output.state_every_steps is not None and step % output.state_every_steps == 0:
            return True
        return self.run.clock() - self._saved_seconds >= 60 * output.state_every_minutes
