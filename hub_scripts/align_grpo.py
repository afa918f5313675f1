r"""Align a speech language model online, by GRPO: its continuations are transcribed and judged during the training.

```
python hub_scripts/align_grpo.py --config hub_scripts/recipes/quickstart-grpo.yaml
accelerate launch --config_file hub_scripts/accelerate_configs/ddp.yaml \
    hub_scripts/align_grpo.py --model_name_or_path slprl/slam --dataset_name corpora/librispeech \
    --judge_model meta-llama/Llama-3.2-1B --output_dir outputs/slam-grpo
```

The second command trains on several GPUs. The judges are those of make_preferences.py. Arguments replace those of the
recipe: add `--max_steps 20`, for example.
"""

from pathlib import Path

from trl import GRPOConfig, GRPOTrainer, get_peft_config

from slam_hf.command_line import parse_arguments, run
from slam_hf.hub.model_card import save_model_card
from slam_hf.hub.publisher import Publisher
from slam_hf.hub.samples import save_training_samples
from slam_hf.judging.arguments import load_judge
from slam_hf.judging.transcription import load_recogniser
from slam_hf.training.arguments import CorpusConfig, ModelArguments
from slam_hf.training.data import check_codecs
from slam_hf.training.final_steps import train_and_save, trained_model
from slam_hf.training.output_folder import claim_output_dir
from slam_hf.training.preferences import load_model, load_processor, load_rows
from slam_hf.training.process_setup import prepare_process, uses_fsdp
from slam_hf.training.rewards import OnlineAlignArguments, SpokenReward, make_prompts
from slam_hf.training.run_recorder import RunRecorder, energy_callbacks, save_records


def align(args: OnlineAlignArguments, training_args: GRPOConfig, model_args: ModelArguments) -> Publisher:
    output_dir = Path(training_args.output_dir)
    processor = load_processor(model_args, args.prompt)
    if processor.audio_tokenizer is None:
        raise ValueError(f"'{model_args.model_name_or_path}' names no codec, which makes speech of its units.")
    processor.audio_tokenizer.to(training_args.device)
    corpus = CorpusConfig(args.dataset_name, args.dataset_config, split=args.dataset_train_split)
    check_codecs([corpus], processor)
    with training_args.main_process_first(desc="preparing prompts"):
        train, test = load_rows(args, lambda rows: make_prompts(rows, args, processor))
    judge = load_judge(args, training_args.device)
    reward = SpokenReward(processor, load_recogniser(args.asr_model, training_args.device), judge, args.max_auto_bleu)

    recipe = {name: getattr(training_args, name) for name in ("beta", "num_generations", "max_completion_length")}
    recipe |= {"max_auto_bleu": args.max_auto_bleu, "judge": judge.description["judge"]}
    recorder = RunRecorder.begin("online alignment", training_args, model_args, [(corpus, train)], recipe)
    trainer = GRPOTrainer(
        model=load_model(model_args),
        reward_funcs=reward,
        args=training_args,
        train_dataset=train,
        eval_dataset=test,
        processing_class=processor.tokenizer,
        peft_config=get_peft_config(model_args),
        callbacks=[recorder, *energy_callbacks(training_args)],
    )
    publisher = train_and_save(trainer, processor, recorder)
    if trainer.is_world_process_zero():
        save_records(recorder, trainer, {"held-out reward": "eval_reward"})
        if args.prompt is not None:
            model = trained_model(trainer, model_args)
            save_training_samples(output_dir, model, processor, args.prompt, training_args.seed)
        save_model_card(trainer)
        print(f"Model, tokenizer, processor and card: {output_dir}")
    trainer.end()
    return publisher


def main(args: OnlineAlignArguments, training_args: GRPOConfig, model_args: ModelArguments) -> None:
    if uses_fsdp(training_args):
        raise ValueError(
            "Online alignment is not possible with FSDP, where TRL does not add up the gradients of the head over the "
            "processes: use `hub_scripts/accelerate_configs/ddp.yaml`."
        )
    prepare_process(training_args)
    with claim_output_dir(args, training_args, model_args):
        publisher = align(args, training_args, model_args)
    publisher.publish(Path(training_args.output_dir), training_args, "End of training")


if __name__ == "__main__":
    run(
        lambda: main(*parse_arguments(__doc__, (OnlineAlignArguments,), (GRPOConfig, ModelArguments))),
        hint="Start the same command with --resume_from_checkpoint latest to continue from its last checkpoint.",
    )
