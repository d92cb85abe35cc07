# mypy: ignore-errors
"""A transformers Trainer as anybody writes one: a tiny GPT-2 on made-up tokens, each sample of which takes a while."""

import sys
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

STEPS, READ = int(sys.argv[1]), float(sys.argv[2])


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 100_000

    def __getitem__(self, number):
        time.sleep(READ)
        tokens = (torch.arange(32) * 7 + number) % 64
        return {"input_ids": tokens, "labels": tokens}


config = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=1, n_head=2)
arguments = TrainingArguments(
    output_dir=sys.argv[3], max_steps=STEPS, per_device_train_batch_size=2, logging_steps=10, learning_rate=1e-3,
    use_cpu=True, ddp_backend="gloo", report_to=[], save_strategy="no",
)  # fmt: skip
Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=Tokens()).train()
