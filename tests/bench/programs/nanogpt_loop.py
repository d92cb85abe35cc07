# mypy: ignore-errors
"""A loop that prints as nanoGPT's train.py does, with its own words; it says itself at the end how fast it was."""

import os
import sys
import time

import torch
from torch.nn.parallel import DistributedDataParallel

STEPS, READ = int(sys.argv[1]), float(sys.argv[2])
BATCH, BLOCK, LOG_INTERVAL = 2, 32, 10

torch.distributed.init_process_group("gloo")
master_process = int(os.environ["RANK"]) == 0
tokens_per_iter = int(os.environ["WORLD_SIZE"]) * BATCH * BLOCK
if master_process:
    print(f"tokens per iteration will be: {tokens_per_iter:,}")
model = torch.nn.Sequential(torch.nn.Embedding(64, 32), torch.nn.Linear(32, 64))
model = DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
t0 = began = time.time()
for iter_num in range(STEPS + 1):
    time.sleep(BATCH * READ)
    x = (torch.arange(BLOCK) * 7 + torch.randint(64, (BATCH, 1))) % 64
    loss = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    t1 = time.time()
    dt = t1 - t0
    t0 = t1
    if iter_num % LOG_INTERVAL == 0 and master_process:
        print(f"iter {iter_num}: loss {loss.item():.4f}, time {dt * 1000:.2f}ms, mfu {-100:.2f}%")
    if iter_num == 0:
        began = t1  # what the first one takes is start-up
if master_process:
    took = time.time() - began
    print(f"trained at {STEPS / took:.4f} steps per second; the last loss was {loss.item():.6g}")
torch.distributed.destroy_process_group()
