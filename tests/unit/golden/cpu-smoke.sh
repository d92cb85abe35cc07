# node 0: localhost (2 ranks: 0-1)
bash <<'RANKDECK'
cd ~ &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
export OMP_NUM_THREADS=1 &&
exec torchrun \
  --nnodes=2 --node_rank=0 --nproc_per_node=2 \
  --master_addr=127.0.0.1 --master_port=29511 \
  --rdzv_id=lab-a100-20261124-040355-x7q2 --max_restarts=0 \
  --redirects=3 --log_dir="${RANKDECK_RUN_DIR:-.}/ranks" \
  --no_python python3 -c 'import torch, torch.distributed as d; d.init_process_group("gloo"); x = torch.ones(1); d.all_reduce(x); print("rank", d.get_rank(), "of", d.get_world_size(), "sum", int(x), flush=True); d.destroy_process_group()'
RANKDECK

# node 1: localhost (2 ranks: 2-3)
bash <<'RANKDECK'
cd ~ &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
export OMP_NUM_THREADS=1 &&
exec torchrun \
  --nnodes=2 --node_rank=1 --nproc_per_node=2 \
  --master_addr=127.0.0.1 --master_port=29511 \
  --rdzv_id=lab-a100-20261124-040355-x7q2 --max_restarts=0 \
  --redirects=3 --log_dir="${RANKDECK_RUN_DIR:-.}/ranks" \
  --no_python python3 -c 'import torch, torch.distributed as d; d.init_process_group("gloo"); x = torch.ones(1); d.all_reduce(x); print("rank", d.get_rank(), "of", d.get_world_size(), "sum", int(x), flush=True); d.destroy_process_group()'
RANKDECK
