"""A toy training in a process of its own, to be killed or to share its batches with another."""

import argparse
import os
import signal
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from p2f_lib.training import TrainingConfig, train
from p2f_lib.unet import NetworkConfig
from tests.test_training import toy_set
from tests.toy import toy_model

# Instance normalisation: that of a batch depends on how it is shared out.
NETWORK = NetworkConfig(input_size=16, width=4, depth=3, norm="instance")
RECIPE = TrainingConfig(epochs=3, batch_size=8, warmup=3, cooldown=0.3, average=0.9)


class Kill(Callback):
    """Ends the process at a step, as the system does when memory or power fails."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill", type=int)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = toy_model(600)
    hardware = {"accelerator": "cpu", "devices": arguments.processes}
    if arguments.processes > 1:
        hardware["strategy"] = "ddp"
    unet = train(
        model,
        toy_set(model),
        NETWORK,
        RECIPE,
        folder=arguments.folder,
        callbacks=[] if arguments.kill is None else [Kill(arguments.kill)],
        progress=False,
        save_every=2,
        hardware=hardware,
    )
    if int(os.environ.get("RANK", 0)) == 0:
        torch.save(unet.state_dict(), arguments.folder / "weights.pt")


if __name__ == "__main__":
    main()
