"""Qwen3-8B by QLoRA with TRL, on one GPU of 24 GB: the run of qwen3-8b-qlora.yaml.

Hardware: one GPU of 24 GB. Memory: estimate 14 GB. Expected: not known; compare the evaluators'
figures at step 0 with those at the end. Not run here at this size.
"""

from peft import LoraConfig
from transformers import AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults

MODEL = "Qwen/Qwen3-8B"
config = AgentTuningConfig(  # the section of a YAML recipe, which from_yaml(path) reads
    eta=0.2, agent="zai-org/AgentInstruct", general="anon8231489123/ShareGPT_Vicuna_unfiltered",
    chat_template_kwargs={"enable_thinking": False},  # the data has no reasoning
    evaluators=[{"type": "agent_task", "every": 100}, {"type": "general_loss", "every": 100}],
)  # fmt: skip
args = SFTConfig(
    output_dir="outputs/trl-qwen3-8b", max_steps=500, seed=42, learning_rate=2e-4,
    per_device_train_batch_size=1, gradient_accumulation_steps=32,  # 1 x 32 x 1 GPU = 32 rows
    lr_scheduler_type="cosine", warmup_steps=0.02, optim="paged_adamw_32bit",
    **sft_defaults(packing=True),
)  # fmt: skip
tokenizer = AutoTokenizer.from_pretrained(MODEL)
run = TrainingRun(config, tokenizer, args, max_length=4096, packing=True)
trainer = SFTTrainer(
    MODEL, args, train_dataset=run.train_dataset, data_collator=run.data_collator,
    processing_class=tokenizer, quantization_config=BitsAndBytesConfig(load_in_4bit=True,
    bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"),
    peft_config=LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear"),
)  # fmt: skip
run.attach(trainer)  # evaluators, manifest, report; refuses a trainer or model that mixes rows
trainer.train()
trainer.save_model()
