# node 0: node01 (4 ranks: 0-3)
bash <<'RANKDECK'
cd /shared/pretrain &&
{ module load cuda/12.4
  source /shared/venv/bin/activate
} &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
exec torchrun \
  --nnodes=16 --nproc_per_node=4 \
  --rdzv_backend=c10d --rdzv_endpoint=10.1.0.1:29700 --rdzv_conf=is_host=1 \
  --rdzv_id=lab-a100-20261124-040355-x7q2 --max_restarts=2 \
  --redirects=3 --log_dir="${RANKDECK_RUN_DIR:-.}/ranks" \
  pretrain.py --micro-batch 8 --lr 0.0004242640687
RANKDECK

# node 1: node02 (4 ranks: 4-7)
bash <<'RANKDECK'
cd /shared/pretrain &&
{ module load cuda/12.4
  source /shared/venv/bin/activate
} &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
exec torchrun \
  --nnodes=16 --nproc_per_node=4 \
  --rdzv_backend=c10d --rdzv_endpoint=10.1.0.1:29700 --rdzv_conf=is_host=0 \
  --rdzv_id=lab-a100-20261124-040355-x7q2 --max_restarts=2 \
  --redirects=3 --log_dir="${RANKDECK_RUN_DIR:-.}/ranks" \
  pretrain.py --micro-batch 8 --lr 0.0004242640687
RANKDECK
