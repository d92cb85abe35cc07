# node 0: gpu01 (8 ranks: 0-7)
bash <<'RANKDECK'
cd ~/sft &&
source ~/miniconda3/bin/activate xtuner &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
export HF_HOME=/data/hf &&
export TOKENIZERS_PARALLELISM=false &&
export NNODES=2 &&
export NODE_RANK=0 &&
export NPROC_PER_NODE=8 &&
export ADDR=gpu01 &&
export PORT=29600 &&
export PET_RDZV_ID=lab-a100-20261124-040355-x7q2 &&
export PET_MAX_RESTARTS=0 &&
export PET_REDIRECTS=3 &&
export PET_LOG_DIR="${RANKDECK_RUN_DIR:-.}/ranks" &&
exec ${RANKDECK_PROGRAM:+python3 -I -S "$RANKDECK_PROGRAM"} xtuner train configs/internlm2_7b_qlora_oasst1.py --deepspeed deepspeed_zero2 --work-dir work_dirs/lab-a100-20261124-040355-x7q2
RANKDECK

# node 1: gpu02 (8 ranks: 8-15)
bash <<'RANKDECK'
cd ~/sft &&
source ~/miniconda3/bin/activate xtuner &&
export PYTHONUNBUFFERED=1 &&
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 &&
export HF_HOME=/data/hf &&
export TOKENIZERS_PARALLELISM=false &&
export NNODES=2 &&
export NODE_RANK=1 &&
export NPROC_PER_NODE=8 &&
export ADDR=gpu01 &&
export PORT=29600 &&
export PET_RDZV_ID=lab-a100-20261124-040355-x7q2 &&
export PET_MAX_RESTARTS=0 &&
export PET_REDIRECTS=3 &&
export PET_LOG_DIR="${RANKDECK_RUN_DIR:-.}/ranks" &&
exec ${RANKDECK_PROGRAM:+python3 -I -S "$RANKDECK_PROGRAM"} xtuner train configs/internlm2_7b_qlora_oasst1.py --deepspeed deepspeed_zero2 --work-dir work_dirs/lab-a100-20261124-040355-x7q2
RANKDECK
