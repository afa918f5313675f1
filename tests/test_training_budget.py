import numpy as np
import pytest
import torch
from training_utils import logged, make_trainer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from slam_hf.training.arguments import PretrainArguments
from slam_hf.training.budget import HORIZON, TimeBudget, TokenBudget, set_budget


class StepClock(TrainerCallback):
    """A clock that every step moves by as many seconds as `seconds` gives for its number."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.now += self.seconds(state.global_step + 1)


class StopAt(TrainerCallback):
    """Ends a run as a kill would, right after it has saved."""

    def __init__(self, step: int):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_training_stop = True


def timed_run(output_dir, seconds, step_seconds, callbacks=(), **training_args):
    clock = StepClock(step_seconds)
    budget = TimeBudget(seconds, clock=clock)
    trainer = make_trainer(output_dir, [clock, budget, *callbacks], max_steps=HORIZON, **training_args)
    trainer.train(resume_from_checkpoint=training_args.get("resume_from_checkpoint"))
    return trainer, budget


def test_steps_need_no_callback():
    training_args = TrainingArguments(max_steps=10, warmup_steps=4)
    assert set_budget(PretrainArguments(), training_args) == []
    assert training_args.max_steps == 10


def test_epochs_need_no_callback_but_a_stream_has_no_epochs():
    assert set_budget(PretrainArguments(), TrainingArguments()) == []
    with pytest.raises(ValueError, match="give one of max_steps, max_train_tokens, max_train_hours"):
        set_budget(PretrainArguments(streaming=True), TrainingArguments())


def test_tokens_and_hours_become_callbacks():
    training_args = TrainingArguments()
    (budget,) = set_budget(PretrainArguments(max_train_tokens=5), training_args)
    assert (type(budget), budget.tokens, training_args.max_steps) == (TokenBudget, 5, HORIZON)
    (budget,) = set_budget(PretrainArguments(max_train_hours=0.5), TrainingArguments())
    assert (type(budget), budget.seconds) == (TimeBudget, 1800.0)


def test_a_budget_can_be_taken_back():
    taken_back = PretrainArguments(max_train_tokens=-1, max_train_hours=0)
    assert set_budget(taken_back, TrainingArguments(max_steps=3)) == []
    (budget,) = set_budget(PretrainArguments(max_train_tokens=-1, max_train_hours=0.5), TrainingArguments())
    assert type(budget) is TimeBudget


@pytest.mark.parametrize(
    ("budget", "training_args", "message"),
    [
        ({"max_train_tokens": 9}, {"max_steps": 3}, "Give only one budget, got max_steps and max_train_tokens"),
        (
            {"max_train_tokens": 9, "max_train_hours": 1},
            {},
            "Give only one budget, got max_train_tokens and max_train_hours",
        ),
        (
            {"max_train_hours": 1},
            {"warmup_steps": 100},
            "give `warmup_steps` as a share of the budget, below 1, got 100",
        ),
        ({"max_train_tokens": 9}, {"save_steps": 0.1}, "give `save_steps` in steps, got 0.1"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(budget, training_args, message):
    with pytest.raises(ValueError, match=message):
        set_budget(PretrainArguments(**budget), TrainingArguments(**training_args))


def test_training_ends_with_the_step_that_uses_up_the_tokens(tmp_path):
    trainer = make_trainer(tmp_path, [TokenBudget(1000)], max_steps=HORIZON)
    trainer.train()
    seen = logged(trainer, "num_input_tokens_seen")
    assert seen[-2] < 1000 <= seen[-1]
    assert trainer.state.global_step == len(seen)


def test_the_schedule_follows_the_tokens(tmp_path):
    trainer = make_trainer(tmp_path, [TokenBudget(1000)], max_steps=HORIZON)
    trainer.train()
    used = np.array([0, *logged(trainer, "num_input_tokens_seen")[:-1]]) / 1000
    cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (used - 0.1) / 0.9))
    np.testing.assert_allclose(
        logged(trainer, "learning_rate"), 1e-2 * np.where(used < 0.1, used / 0.1, cosine), rtol=1e-4
    )
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(1e-4)


def test_with_even_steps_time_is_a_number_of_steps(tmp_path):
    timed, _ = timed_run(tmp_path, 50.0, lambda step: 1.25)
    stock = make_trainer(tmp_path, max_steps=40)
    stock.train()
    assert timed.state.global_step == 40  # of 1.25 s in 99 % of 50 s
    np.testing.assert_allclose(logged(timed, "learning_rate"), logged(stock, "learning_rate"), rtol=1e-5)
    torch.testing.assert_close(timed.model.state_dict(), stock.model.state_dict())


def simulate(budget: TimeBudget, clock: StepClock, first_step: int = 0) -> list[float]:
    """The shares of a schedule that a run has gone through after each of its steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda position: position / HORIZON)
    state, control = TrainerState(stateful_callbacks=[budget], global_step=first_step), TrainerControl()
    budget.on_train_begin(None, state, control)
    shares = []
    while not control.should_training_stop:
        clock.on_pre_optimizer_step(None, state, control)
        budget.on_optimizer_step(None, state, control, lr_scheduler=scheduler)
        optimizer.step()
        scheduler.step()
        shares += scheduler.get_last_lr()
        state.global_step += 1
        budget.on_step_end(TrainingArguments(), state, control)
    return shares


@pytest.mark.parametrize(
    "step_seconds",
    [
        lambda step: 40.0 if step == 1 else 1.0,
        lambda step: 1.0 if step < 200 else 2.0,
        lambda step: 3.0 if step < 20 else 1.0,
        lambda step: 1.0 if step < 400 else 1.1,
        lambda step: 6.0 if step % 20 == 0 else 1.0,
    ],
    ids=["slow first step", "slower", "faster", "a little slower at the end", "evaluation now and then"],
)
def test_the_schedule_ends_in_time_when_the_speed_changes(step_seconds):
    clock = StepClock(step_seconds)
    budget = TimeBudget(600.0, clock=clock)
    shares = simulate(budget, clock)
    assert 0.97 * 600 <= budget.elapsed <= 600
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert max(np.diff(shares)) < 0.1


def test_the_schedule_ends_in_time_on_fewer_processes():
    clock = StepClock(lambda step: 6.0)
    budget = TimeBudget(600.0, clock=clock)
    budget.last_step, budget.measured_step, budget.measured_at, budget.seconds_before = 594, 128, 128.0, 130.0
    budget.num_processes = 6
    shares = simulate(budget, clock, first_step=130)
    assert 0.97 * 600 <= budget.elapsed <= 600
    assert [shares[0], shares[-1]] == [pytest.approx(131 / 594), 1.0]
    assert max(np.diff(shares)) < 0.1


def test_a_budget_shorter_than_a_step_ends_with_it():
    clock = StepClock(lambda step: 5.0)
    assert simulate(TimeBudget(1.0, clock=clock), clock) == [1.0]


def test_a_time_budget_continues_where_it_stopped(tmp_path):
    def step_seconds(step):
        return 1.0 if step < 20 else 1.5

    whole, whole_budget = timed_run(tmp_path / "whole", 60.0, step_seconds)
    timed_run(tmp_path / "cut", 60.0, step_seconds, [StopAt(17)], save_strategy="steps", save_steps=17)
    resumed, budget = timed_run(
        tmp_path / "cut", 60.0, step_seconds, resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-17")
    )
    assert resumed.state.global_step == whole.state.global_step
    assert budget.elapsed == pytest.approx(whole_budget.elapsed)
    assert logged(resumed, "learning_rate") == logged(whole, "learning_rate")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_a_token_budget_continues_where_it_stopped(tmp_path):
    whole = make_trainer(tmp_path / "whole", [TokenBudget(1500)], max_steps=HORIZON)
    whole.train()
    arguments = {"max_steps": HORIZON, "save_strategy": "steps", "save_steps": 13}
    make_trainer(tmp_path / "cut", [TokenBudget(1500), StopAt(13)], **arguments).train()
    resumed = make_trainer(tmp_path / "cut", [TokenBudget(1500)], **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-13"))
    assert resumed.state.num_input_tokens_seen == whole.state.num_input_tokens_seen
    assert logged(resumed, "learning_rate") == logged(whole, "learning_rate")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
