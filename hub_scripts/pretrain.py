r"""Train a speech language model on corpora of units, of text, or of both interleaved.

```
python hub_scripts/pretrain.py --config hub_scripts/recipes/quickstart.yaml
accelerate launch --config_file hub_scripts/accelerate_configs/ddp.yaml \
    hub_scripts/pretrain.py --config hub_scripts/recipes/quickstart.yaml
```

The second command trains on several GPUs. Arguments replace those of the recipe: add `--max_steps 20`, for example.
"""

from pathlib import Path

from transformers import TrainingArguments

from slam_hf.command_line import parse_arguments, run
from slam_hf.evaluation.arguments import EvaluationArguments
from slam_hf.evaluation.pairs import evaluate_pairs
from slam_hf.evaluation.report import describe_results, save_evaluation
from slam_hf.hub.model_card import save_model_card
from slam_hf.hub.publisher import Publisher
from slam_hf.hub.samples import save_training_samples
from slam_hf.run_record import count_training_tokens
from slam_hf.training.arguments import ModelArguments, PretrainArguments
from slam_hf.training.budget import set_budget
from slam_hf.training.continuation_samples import ContinuationSamples, check_samples, choose_prompt
from slam_hf.training.corpus_losses import CorpusLossTrainer, name_losses, number_corpora
from slam_hf.training.data import (
    check_codecs,
    check_same_rows,
    load_corpora,
    make_interleaving,
    mix_corpora,
    pack_corpus,
)
from slam_hf.training.energy import EnergyCallback
from slam_hf.training.final_steps import check_final_steps, describe_continuation, train_and_save, trained_model
from slam_hf.training.initialization import initial_model, make_processor
from slam_hf.training.output_folder import claim_output_dir
from slam_hf.training.packing import PackingCollator
from slam_hf.training.plan import describe_plan, tokens_per_step
from slam_hf.training.process_setup import prepare_process
from slam_hf.training.run_recorder import RunRecorder, energy_callbacks, save_records, save_training_curve
from slam_hf.training.throughput import ThroughputCallback


def pretrain(args: PretrainArguments, training_args: TrainingArguments, model_args: ModelArguments) -> Publisher:
    # The collator reads a column that the model does not take; budget and throughput count tokens. In a vocabulary of
    # text, the padding id may also be a rare token, which is trained on but not counted.
    training_args.remove_unused_columns = False
    training_args.include_num_input_tokens_seen = "non_padding"
    budget = set_budget(args, training_args)
    output_dir = Path(training_args.output_dir)
    processor = make_processor(args, model_args)
    tokenizer = processor.tokenizer
    check_codecs(args.datasets, processor)
    if training_args.process_index == 0:
        check_final_steps(args, processor.feature_extractor.sampling_rate)
        check_samples(args, processor)
    model = initial_model(args, model_args, training_args.seed)

    with training_args.main_process_first(desc="packing"):
        interleaving = make_interleaving(args, processor, training_args.seed)
        corpora, validation = load_corpora(args, tokenizer, interleaving)
        packed = [
            pack_corpus(documents, args, tokenizer, corpus.modality, interleaving)
            for corpus, documents in zip(args.datasets, corpora, strict=True)
        ]
        weights = [corpus.weight for corpus in args.datasets]
        numbered = number_corpora(packed)
        # Without packing, weights are shares of documents.
        sequences = mix_corpora(numbered, weights, training_args.seed, args.cut_documents or not args.packing)
        held_out = {
            modality: pack_corpus(documents, args, tokenizer, modality, interleaving, held_out=True)
            for modality, documents in validation.items()
        }
        # The loss of each modality has a name of its own where there are several.
        losses = {f"validation loss of {modality}": f"eval_{modality}_loss" for modality in held_out}
        if len(held_out) == 1:
            (held_out,), losses = held_out.values(), {"validation loss (nats per unit)": "eval_loss"}

    check_same_rows(sequences)
    names = ["batch_size", "context_length", "packing", "cut_documents", "rope_theta", "max_train_hours"]
    if interleaving is not None:
        names += ["interleaving", "interleaving_span", "interleaving_share"]
    recipe = {name: getattr(args, name) for name in names}
    trained_on = list(zip(args.datasets, corpora, strict=True))
    recorder = RunRecorder.begin("pretraining", training_args, model_args, trained_on, recipe)
    energy = EnergyCallback()
    trainer = CorpusLossTrainer(
        name_losses(args.datasets),
        num_sequences=args.batch_size,
        model=model,
        args=training_args,
        data_collator=PackingCollator(args.context_length, tokenizer.pad_token_id, args.packing),
        train_dataset=sequences,
        eval_dataset=held_out,
        processing_class=tokenizer,
        callbacks=[*budget, recorder, energy, *energy_callbacks(training_args)],
    )
    tokens = tokens_per_step(args, training_args)
    throughput = ThroughputCallback(model.num_parameters(), tokens, price_per_hour=args.price_per_hour)
    spoken = validation.get("speech", validation.get("interleaved"))
    if args.sample_steps is not None:
        prompt = choose_prompt(spoken)
        trainer.add_callback(ContinuationSamples(trainer, processor, prompt, args.sample_steps, throughput.pause))
    trainer.accelerator.print(describe_plan(args, training_args, model, sequences))
    publisher = train_and_save(trainer, processor, recorder, throughput, energy)

    if trainer.is_world_process_zero():
        save_records(recorder, trainer, losses)
        save_training_curve(trainer.state, output_dir / "training_curve.png")

    trainer.accelerator.wait_for_everyone()
    model = trained_model(trainer, model_args)
    summaries = []
    for task, data in args.benchmarks.items():
        evaluation = evaluate_pairs(EvaluationArguments(str(output_dir), task, data), model, processor)
        if trainer.is_world_process_zero():
            tokens = count_training_tokens(recorder.records)
            summaries.append(save_evaluation(evaluation, output_dir / "evaluation", model.num_parameters(), tokens))
            print(describe_results(evaluation))

    if trainer.is_world_process_zero():
        if args.prompt is not None:
            save_training_samples(output_dir, model, processor, args.prompt, training_args.seed)
        save_model_card(trainer, summaries, model)
        print(f"Model, tokenizer, processor and card: {output_dir}")
        audio = output_dir / "continuation.wav"
        print(describe_continuation(args, model, processor, spoken, training_args.seed, audio))
    trainer.end()
    return publisher


def main(args: PretrainArguments, training_args: TrainingArguments, model_args: ModelArguments) -> None:
    prepare_process(training_args)
    with claim_output_dir(args, training_args, model_args):
        publisher = pretrain(args, training_args, model_args)
    publisher.publish(Path(training_args.output_dir), training_args, "End of training")


if __name__ == "__main__":
    run(
        lambda: main(*parse_arguments(__doc__, (PretrainArguments,), (TrainingArguments, ModelArguments))),
        hint="Start the same command with --resume_from_checkpoint latest to continue from its last checkpoint.",
    )
