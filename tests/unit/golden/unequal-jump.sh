# node 0: dgx (8 ranks: 0-7)
bash <<'RANKDECK'
cd /raid/exp &&
source /raid/venv/bin/activate &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
export NCCL_SOCKET_IFNAME=bond0 &&
export GLOO_SOCKET_IFNAME=bond0 &&
export NCCL_IB_DISABLE=1 &&
exec torchrun \
  --nnodes=2 --node_rank=0 --nproc_per_node=8 \
  --master_addr=192.168.7.1 --master_port=29512 \
  --rdzv_id=lab-a100-20261124-040355-x7q2 --max_restarts=0 \
  --redirects=3 --log_dir="${RANKDECK_RUN_DIR:-.}/ranks" \
  -m mypkg.train --config conf/base.toml --world 10
RANKDECK

# node 1: station (2 ranks: 8-9)
bash <<'RANKDECK'
cd /home/ml/exp &&
source ~/miniconda3/bin/activate train &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
export NCCL_SOCKET_IFNAME=enp5s0 &&
export GLOO_SOCKET_IFNAME=enp5s0 &&
export CUDA_VISIBLE_DEVICES=2,3 &&
export NCCL_IB_DISABLE=1 &&
exec torchrun \
  --nnodes=2 --node_rank=1 --nproc_per_node=2 \
  --master_addr=192.168.7.1 --master_port=29512 \
  --rdzv_id=lab-a100-20261124-040355-x7q2 --max_restarts=0 \
  --redirects=3 --log_dir="${RANKDECK_RUN_DIR:-.}/ranks" \
  -m mypkg.train --config conf/base.toml --world 10
RANKDECK
