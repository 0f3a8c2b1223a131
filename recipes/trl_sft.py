"""AgentLM-7B by QLoRA with TRL: the mix, masks and evaluators of agentlm-7b-qlora.yaml.

    pip install 'agenttuning-plugin[trl]'
    python trl_sft.py

Hardware: one GPU of 24 GB. Memory: estimate 14 GB. Not run here at this size.
Expected: not known, as the paper has no LoRA result; compare step 0 with the end.
Other than the YAML recipe, a row is one conversation: 64 of them a step, not 64 packed rows.
"""

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig, set_seed
from trl import SFTConfig, SFTTrainer

from agenttuning_plugin import AgentTaskEvaluator, EvaluatorCallback, GeneralLossEvaluator, Schedule
from agenttuning_plugin.evaluation.model_loading import load_tokenizer
from agenttuning_plugin.training_data.loss_normalization import LossNormalization
from agenttuning_plugin.training_data.run_files import MixRun, record_run
from dataset_builders.mixing.mixes import mix
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import Encoding, prepare

MODEL = "meta-llama/Llama-2-7b-chat-hf"  # gated: log in to the hub
AGENT = "zai-org/AgentInstruct"
GENERAL = "anon8231489123/ShareGPT_Vicuna_unfiltered"
SEED = 42
STEPS, BATCH = 2000, 64  # the paper's; BATCH in conversations
PLAN = Plan(eta=0.2, block=BATCH)  # the paper's share, held in each batch
EVERY, NUM_TASKS = 250, 32  # steps between evaluations, tasks played in each
ENCODING = Encoding(max_length=4096, holdout=64)  # tokens (paper); conversations held out

QUANTIZED = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype="bfloat16" if torch.cuda.is_available() else "float32",
)
SETTINGS = {
    "seed": SEED,
    "output_dir": "outputs/trl-agentlm-7b-qlora",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 32,  # 2 x 32 x 1 GPU = BATCH
    "learning_rate": 2e-4,  # QLoRA's for 7B (arXiv 2305.14314), as are the adapter's values
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.02,  # share of the steps (paper)
    "optim": "paged_adamw_32bit",
    "bf16": torch.cuda.is_available(),  # TRL's default is true, on a CPU too
    "train_sampling_strategy": "sequential",  # or the mix would be shuffled
    "max_length": None,  # or TRL before 1.8 would truncate rows at 1,024 tokens
    "dataset_kwargs": {"skip_prepare_dataset": True},  # rows are ids and labels already
}


def make_trainer() -> SFTTrainer:
    """Data, model and evaluators, put together."""
    tokenizer = load_tokenizer(MODEL, chat_template="llama-2")
    tokenizer.pad_token = "<unk>"  # Llama 2 has none; this one is in its vocabulary
    data = prepare(AGENT, GENERAL, plan=PLAN, tokenizer=tokenizer, encoding=ENCODING)
    rows, planned = mix(data, PLAN, seed=SEED, num_examples=STEPS * BATCH)
    set_seed(SEED)  # TRL before 1.15 does so only after it has drawn the adapter's first weights.
    trainer = SFTTrainer(
        MODEL,
        SFTConfig(max_steps=STEPS, **SETTINGS),
        train_dataset=rows,
        processing_class=tokenizer,
        quantization_config=QUANTIZED,
        peft_config=LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear"),
    )
    LossNormalization.install(trainer, "tokens")  # as with Axolotl: docs/concepts/mixing.md
    # What `agenttuning explain` and a reader of the report need, beside the model.
    record_run(trainer, MixRun(data, planned, PLAN, AGENT, GENERAL, tokenizer, ENCODING))
    evaluators = AgentTaskEvaluator(num_tasks=NUM_TASKS), GeneralLossEvaluator(data.holdout)
    EvaluatorCallback.install(trainer, [Schedule(e, every=EVERY) for e in evaluators])
    return trainer


if __name__ == "__main__":
    trainer = make_trainer()
    trainer.train()
    trainer.save_model()
