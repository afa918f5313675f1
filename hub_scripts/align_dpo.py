r"""Align a speech language model with preferences, by DPO.

```
python hub_scripts/align_dpo.py --config hub_scripts/recipes/slam-dpo.yaml
accelerate launch --config_file hub_scripts/accelerate_configs/ddp.yaml \
    hub_scripts/align_dpo.py --config hub_scripts/recipes/slam-dpo.yaml
```

The second command trains on several GPUs. Arguments replace those of the recipe: add `--max_steps 20`, for example.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from trl import DPOConfig, DPOTrainer, get_peft_config

from slam_hf.command_line import parse_arguments, run
from slam_hf.hub.model_card import save_model_card
from slam_hf.hub.publisher import Publisher
from slam_hf.hub.samples import save_training_samples
from slam_hf.training.arguments import CorpusConfig, ModelArguments
from slam_hf.training.batches import StepSampler
from slam_hf.training.data import check_codecs, check_same_rows
from slam_hf.training.final_steps import train_and_save, trained_model
from slam_hf.training.output_folder import claim_output_dir
from slam_hf.training.plan import batch_size
from slam_hf.training.preferences import AlignArguments, load_model, load_pairs, load_processor
from slam_hf.training.process_setup import prepare_process, uses_fsdp
from slam_hf.training.run_recorder import RunRecorder, energy_callbacks, save_records


class PairTrainer(DPOTrainer):
    """A `DPOTrainer` whose last batch of an epoch repeats the first pairs on any number of processes: the `DPOTrainer`
    does on several, and has a smaller batch on one."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> StepSampler:
        num_pairs = batch_size(self.args)
        return StepSampler(self, len(self.train_dataset), num_pairs, num_pairs)

    def compute_loss(self, model: PreTrainedModel, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        # TRL multiplies with the weights of the head itself. From FSDP's shards, it gathers them in a way that does
        # not add up their gradients over the processes. Gathered by FSDP, they have the right gradients.
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        if isinstance(head, FSDPModule):
            head.unshard()
        return super().compute_loss(model, inputs, *args, **kwargs)


def align(args: AlignArguments, training_args: DPOConfig, model_args: ModelArguments) -> Publisher:
    training_args.include_num_input_tokens_seen = "non_padding"
    output_dir = Path(training_args.output_dir)
    processor = load_processor(model_args, args.prompt)
    corpus = CorpusConfig(args.dataset_name, args.dataset_config, split=args.dataset_train_split)
    check_codecs([corpus], processor)
    with training_args.main_process_first(desc="preparing pairs"):
        train, test = load_pairs(args, processor.tokenizer.num_units)

    check_same_rows(train)
    # Else the model itself is the reference, before it is trained or without its adapters. With FSDP, TRL takes a
    # second one for what it computes before the training, when the model is not sharded yet.
    is_own_reference = training_args.precompute_ref_log_probs and not uses_fsdp(training_args)
    needs_reference = not (is_own_reference or model_args.use_peft)
    recipe = {"beta": training_args.beta, "max_auto_bleu": args.max_auto_bleu}
    recorder = RunRecorder.begin("preference alignment", training_args, model_args, [(corpus, train)], recipe)
    trainer = PairTrainer(
        model=load_model(model_args),
        ref_model=load_model(model_args) if needs_reference else None,
        args=training_args,
        train_dataset=train,
        eval_dataset=test,
        processing_class=processor.tokenizer,
        peft_config=get_peft_config(model_args),
        callbacks=[recorder, *energy_callbacks(training_args)],
    )
    publisher = train_and_save(trainer, processor, recorder)
    if trainer.is_world_process_zero():
        validation = {
            "held-out reward accuracy (%)": "eval_rewards/accuracies",
            "held-out reward margin": "eval_rewards/margins",
        }
        save_records(recorder, trainer, validation)
        if args.prompt is not None:
            model = trained_model(trainer, model_args)
            save_training_samples(output_dir, model, processor, args.prompt, training_args.seed)
        save_model_card(trainer)
        print(f"Model, tokenizer, processor and card: {output_dir}")
    trainer.end()
    return publisher


def main(args: AlignArguments, training_args: DPOConfig, model_args: ModelArguments) -> None:
    prepare_process(training_args)
    with claim_output_dir(args, training_args, model_args):
        publisher = align(args, training_args, model_args)
    publisher.publish(Path(training_args.output_dir), training_args, "End of training")


if __name__ == "__main__":
    run(
        lambda: main(*parse_arguments(__doc__, (AlignArguments,), (DPOConfig, ModelArguments))),
        hint="Start the same command with --resume_from_checkpoint latest to continue from its last checkpoint.",
    )
