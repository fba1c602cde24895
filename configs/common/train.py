"""What dnl_d2.engine reads of a LazyConfig's ``train``."""

train = dict(
    output_dir="output",
    init_checkpoint="",
    max_iter=40000,
    seed=-1,  # negative: another one each run
    amp=dict(enabled=False),  # fp16 with loss scaling on CUDA, bfloat16 on a CPU
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=4000, max_to_keep=3),
    eval_period=4000,
    log_period=20,
    check_labels=2000,  # labels per split to read and check before training; 0 for none
    device="cuda",
)
