"""What a YAML recipe and its LazyConfig twin have in common, whatever the task."""

from detectron2.config import instantiate

from dnl_d2.engine import Trainer


def check_twins(ours, twin, model):
    """Asserts that two configs train alike, but for the schedule and what is done to images.

    Returns:
        The YAML config's optimizer of ``model``.
    """
    twin.optimizer.params.model = model
    optimizers = Trainer.build_optimizer(ours, model), instantiate(twin.optimizer)
    for mine, other in zip(*(o.param_groups for o in optimizers), strict=True):
        assert len(mine["params"]) == len(other["params"])
        for key in ("lr", "momentum", "weight_decay", "nesterov"):
            assert mine[key] == other[key], key
    solver, train, loaders = ours.SOLVER, twin.train, twin.dataloader
    assert train.max_iter == solver.MAX_ITER
    assert train.seed == ours.SEED
    assert train.amp == {"enabled": solver.AMP.ENABLED, "dtype": solver.AMP.DTYPE}
    assert train.accumulate == solver.ACCUMULATE
    assert train.reference_batch_size == solver.REFERENCE_BATCH_SIZE
    assert train.init_checkpoint == ours.MODEL.WEIGHTS
    assert train.eval_period == ours.TEST.EVAL_PERIOD
    assert train.checkpointer.period == solver.CHECKPOINT_PERIOD
    assert train.output_dir == ours.OUTPUT_DIR
    assert loaders.train.total_batch_size == solver.IMS_PER_BATCH
    assert loaders.train.num_workers == ours.DATALOADER.NUM_WORKERS
    assert loaders.train.get("aspect_ratio_grouping", True) == ours.DATALOADER.ASPECT_RATIO_GROUPING
    assert [loaders.train.dataset.names] == list(ours.DATASETS.TRAIN)
    assert [loaders.test.dataset.names] == list(ours.DATASETS.TEST)
    return optimizers[0]
