"""Ends training when a budget of tokens or of time is used up, and the learning-rate schedule with it.

A budget of steps is `TrainingArguments.max_steps`. For the other budgets, the Trainer is told to run for `HORIZON`
steps, many more than it will. The step count of its schedule is set to the used share of the budget, times `HORIZON`.
So every schedule of transformers ends when training does.
"""

import time
from collections.abc import Callable
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from .arguments import PretrainArguments


HORIZON = 10**8


def set_budget(args: PretrainArguments, training_args: TrainingArguments) -> list[TrainerCallback]:
    r"""
    Set `max_steps` of the trainer's arguments for a budget of tokens or of time, and return the callback that the
    budget needs.

    Raises:
        ValueError: there is more than one budget, a stream has none, or an argument is relative to the number of
            steps, which is not known.
    """
    budgets = {
        "max_steps": training_args.max_steps if training_args.max_steps > 0 else None,
        "max_train_tokens": args.max_train_tokens,
        "max_train_hours": args.max_train_hours,
    }
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"Give only one budget, got {' and '.join(given)}.")
    if not given and args.is_endless:
        kind = "A stream" if args.streaming else "Training on interleaved corpora"
        raise ValueError(f"{kind} has no epochs: give one of {', '.join(budgets)}.")
    if not given or given == ["max_steps"]:
        return []

    unknown = f"With `{given[0]}`, the number of steps is not known: give"
    if training_args.warmup_steps >= 1:
        warmup = training_args.warmup_steps
        raise ValueError(f"{unknown} `warmup_steps` as a share of the budget, below 1, got {warmup:g}.")
    for name in ("logging_steps", "eval_steps", "save_steps"):
        steps = getattr(training_args, name)
        if steps is not None and steps < 1:
            raise ValueError(f"{unknown} `{name}` in steps, got {steps:g}.")
    training_args.max_steps = HORIZON
    if args.max_train_tokens is not None:
        return [TokenBudget(args.max_train_tokens)]
    return [TimeBudget(args.max_train_hours * 3600)]


class BudgetCallback(TrainerCallback):
    """A budget. Subclasses say in `used` which share of it is used after `step` steps."""

    def used(self, state: TrainerState, step: int) -> float:
        raise NotImplementedError

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        # The number of steps is not known. The progress bar, which is made now, only counts them.
        state.max_steps = 0

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        state.max_steps = HORIZON

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, lr_scheduler: LambdaLR, **kwargs
    ) -> None:
        # The Trainer steps the schedule next, which adds 1 to its clock.
        used = self.used(state, state.global_step + 1)
        lr_scheduler.last_epoch = min(round(used * HORIZON), HORIZON) - 1

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self.used(state, state.global_step) >= 1:
            control.should_training_stop = True
            control.should_save = args.save_strategy == SaveStrategy.STEPS


class TokenBudget(BudgetCallback):
    """Ends training with the step that uses up the tokens, which the trainer must count without padding
    (`include_num_input_tokens_seen="non_padding"`)."""

    def __init__(self, tokens: int):
        self.tokens = tokens

    def used(self, state: TrainerState, step: int) -> float:
        return state.num_input_tokens_seen / self.tokens


class TimeBudget(BudgetCallback, ExportableState):
    r"""
    Ends training when its time is used up. The time between the parts of an interrupted run does not count.

    The number of steps that fit into the time is planned from the time per step. The schedule follows this plan and
    not the clock, so an interrupted run continues exactly as it would have. The plan is checked whenever the number of
    steps, or of remaining steps, is a power of two. It is changed if it would miss the end by more than 1 % of the
    budget. It aims at 99 % of the budget. On another number of processes, the steps are counted anew for this.

    Args:
        seconds (`float`):
            The time, including evaluation and saving.
        clock (`Callable`, *optional*, defaults to `time.monotonic`):
            Returns the time, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.seconds = seconds
        self.clock = clock
        self.started, self.seconds_before = None, 0.0
        # The plan: `planned_used` of the budget is used at `planned_step`, and all of it at `last_step`.
        self.planned_step, self.planned_used, self.last_step = 0, 0.0, 0
        # The last check of the plan: the time per step is measured from here.
        self.measured_step, self.measured_at = 0, 0.0
        # Where the present number of processes began.
        self.first_step, self.num_processes = 0, None

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self.seconds_before + self.clock() - self.started

    def used(self, state: TrainerState, step: int) -> float:
        if step >= self.last_step:
            return 1.0
        share = (step - self.planned_step) / (self.last_step - self.planned_step)
        return self.planned_used + share * (1 - self.planned_used)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        vars(self).update(state.stateful_callbacks[type(self).__name__]["attributes"])
        self.started = self.clock()
        processes = PartialState().num_processes
        if self.num_processes not in (None, processes):
            self.first_step = self.measured_step = state.global_step
            self.measured_at = self.seconds_before
        self.num_processes = processes

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        step = state.global_step + 1
        if _is_power_of_two(step - self.first_step) or _is_power_of_two(self.last_step - step):
            self._plan(state, step)
        super().on_optimizer_step(args, state, control, **kwargs)

    def _plan(self, state: TrainerState, step: int) -> None:
        elapsed = self.elapsed
        seconds_per_step = (elapsed - self.measured_at) / (step - self.measured_step)
        self.measured_step, self.measured_at = step, elapsed
        remaining = 0.99 * self.seconds - elapsed
        plan = [self.planned_step, self.planned_used, self.last_step]
        if abs(remaining - (self.last_step - step) * seconds_per_step) > 0.01 * self.seconds:
            last_step = step + max(0, round(remaining / seconds_per_step))
            plan = [step, self.used(state, step), last_step] if self.last_step > 0 else [0, 0.0, last_step]
        # The clock of the main process decides, so that all processes stop at the same step.
        self.planned_step, self.planned_used, self.last_step = broadcast_object_list(plan)

    def state(self) -> dict[str, Any]:
        names = ("planned_step", "planned_used", "last_step", "measured_step", "measured_at")
        names += ("first_step", "num_processes")
        attributes = {name: getattr(self, name) for name in names}
        attributes["seconds_before"] = self.seconds_before if self.started is None else self.elapsed
        return {"args": {"seconds": self.seconds}, "attributes": attributes}


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
