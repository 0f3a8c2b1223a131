"""AgentLM-7B by QLoRA with TRL: the mix, masks and evaluators of agentlm-7b-qlora.yaml.

Hardware: one GPU of 24 GB. Memory: estimate 16 GB. Not run here at this size. Expected: not known,
as the paper has no LoRA result. A step has 64 conversations, that of the YAML 64 packed rows.
"""

from peft import LoraConfig
from transformers import AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults

MODEL = "meta-llama/Llama-2-7b-chat-hf"  # gated: log in to the hub
config = AgentTuningConfig(  # the section of a YAML recipe, which from_yaml(path) reads
    eta=0.2, agent="zai-org/AgentInstruct", general="anon8231489123/ShareGPT_Vicuna_unfiltered",
    chat_template="llama-2", holdout=64,  # conversations that training does not see
    evaluators=[{"type": "agent_task", "every": 250}, {"type": "general_loss", "every": 250}],
)  # fmt: skip
args = SFTConfig(
    output_dir="outputs/trl-agentlm-7b-qlora", max_steps=2000, seed=42, learning_rate=2e-4,
    per_device_train_batch_size=2, gradient_accumulation_steps=32,  # 2 x 32 x 1 GPU = 64
    lr_scheduler_type="cosine", warmup_steps=0.02, optim="paged_adamw_32bit", **sft_defaults(),
)  # fmt: skip
tokenizer = AutoTokenizer.from_pretrained(MODEL, pad_token="<unk>")  # Llama 2 has none
run = TrainingRun(config, tokenizer, args, max_length=4096)
trainer = SFTTrainer(
    MODEL, args, train_dataset=run.train_dataset, data_collator=run.data_collator,
    processing_class=tokenizer, quantization_config=BitsAndBytesConfig(load_in_4bit=True,
    bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"),
    peft_config=LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear"),
)  # fmt: skip
run.attach(trainer)  # evaluators, manifest and report; refuses a trainer that changes the rows
trainer.train()
trainer.save_model()
