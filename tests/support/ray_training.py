"""Train a recipe with Axolotl's function for Ray workers, on CPUs: `python ray_training.py RECIPE`.

Axolotl's own command asks Ray for GPUs (`use_gpu=True`); nothing else differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from axolotl.cli.config import load_cfg
from axolotl.cli.train import TrainerCliArgs, ray_train_func
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def main(recipe: str) -> None:
    """Train as `axolotl.cli.train.do_cli` does for `use_ray: true`."""
    cfg = load_cfg(recipe)
    assert cfg.use_ray
    ray.init(num_cpus=cfg.ray_num_workers + 1, include_dashboard=False)
    TorchTrainer(
        ray_train_func,
        train_loop_config={"cfg": cfg.to_dict(), "cli_args": TrainerCliArgs()},
        scaling_config=ScalingConfig(num_workers=cfg.ray_num_workers, use_gpu=False),
        run_config=RunConfig(storage_path=Path(cfg.output_dir).absolute().as_posix()),
    ).fit()


if __name__ == "__main__":
    main(sys.argv[1])
