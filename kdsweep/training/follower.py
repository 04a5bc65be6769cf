"""Run one of the other processes of a trial over several devices; the worker that leads the trial starts it."""

import argparse
import dataclasses
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kdsweep.config.trial_file import read_trial_config
from kdsweep.errors import TrialFailed
from kdsweep.records.writing import TrialFolder
from kdsweep.system.process import for_good, stop_with_parent


def follow(folder: TrialFolder, *, rank: int, port: int) -> None:
    """Train the trial in `folder` as process `rank`, from the checkpoint that its leader continues from, and record nothing."""
    with for_good():
        from kdsweep.training.checkpoints import NO_CHECKPOINTING
        from kdsweep.training.fast.team import joined
        from kdsweep.training.loop import distill
        from kdsweep.training.objective import objective_of
        from kdsweep.training.shared import Materials
    config = read_trial_config(folder.path / "config.yaml")
    checkpoints = NO_CHECKPOINTING.of(folder.checkpoints, folder.config_text())
    with joined(config, rank=rank, port=port) as team:
        mine = dataclasses.replace(config, device=config.device if config.device == "cpu" else f"cuda:{rank}")
        materials = Materials()
        train, validation = materials.rows(mine)
        objective = objective_of(mine)
        distill(
            materials.student(mine),
            train,
            validation,
            mine,
            on_steps=lambda _: None,
            on_epoch=lambda _: False,
            objective=objective,
            teacher=materials.online_teacher(mine) if objective.teacher_outputs else None,
            checkpoints=checkpoints,
            team=team,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return exit code 0, also for a trial that fails by itself, which its leader records."""
    parser = argparse.ArgumentParser(prog="python -m kdsweep.training.follower", description=__doc__)
    parser.add_argument("folder", type=Path, help="the trial's, with its config.yaml")
    parser.add_argument("rank", type=int, help="which of the trial's processes this is; the leader is 0")
    parser.add_argument("port", type=int, help="where the leader waits")
    options = parser.parse_args(arguments)
    threading.Thread(target=stop_with_parent, daemon=True).start()
    with suppress(TrialFailed):
        follow(TrialFolder(options.folder), rank=options.rank, port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
