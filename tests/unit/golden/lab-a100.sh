# node 0: gpu01 (8 ranks: 0-7)
bash <<'RANKDECK'
cd /data/exp &&
source /opt/venv/bin/activate &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
export NCCL_SOCKET_IFNAME=eno1 &&
export GLOO_SOCKET_IFNAME=eno1 &&
export NCCL_DEBUG=WARN &&
exec torchrun \
  --nnodes=2 --node_rank=0 --nproc_per_node=8 \
  --master_addr=10.0.0.11 --master_port=29600 \
  --rdzv_id=lab-a100-20261124-040355-x7q2 --max_restarts=0 \
  --redirects=3 --log_dir="${RANKDECK_RUN_DIR:-.}/ranks" \
  train.py --batch 4 --lr 0.0016 --out runs/lab-a100-20261124-040355-x7q2
RANKDECK

# node 1: gpu02 (8 ranks: 8-15)
bash <<'RANKDECK'
cd /data/exp &&
source /opt/venv/bin/activate &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
export NCCL_SOCKET_IFNAME=eno2 &&
export GLOO_SOCKET_IFNAME=eno2 &&
export NCCL_DEBUG=WARN &&
exec torchrun \
  --nnodes=2 --node_rank=1 --nproc_per_node=8 \
  --master_addr=10.0.0.11 --master_port=29600 \
  --rdzv_id=lab-a100-20261124-040355-x7q2 --max_restarts=0 \
  --redirects=3 --log_dir="${RANKDECK_RUN_DIR:-.}/ranks" \
  train.py --batch 4 --lr 0.0016 --out runs/lab-a100-20261124-040355-x7q2
RANKDECK
