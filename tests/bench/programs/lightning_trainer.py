# mypy: ignore-errors
"""A Lightning module as anybody writes one, with the progress bar of text; it says at its end how fast it was."""

import sys
import time

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy

STEPS, READ = int(sys.argv[1]), float(sys.argv[2])


class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 4 * STEPS

    def __getitem__(self, number):
        time.sleep(READ)
        x = torch.sin(torch.arange(16.0) * (number + 1))
        return x, x.sum(0, keepdim=True)


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 1)

    def training_step(self, batch, _):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(x), y)
        self.log("train_loss", loss, prog_bar=True)
        self.last = float(loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def on_train_start(self):
        self.began = time.perf_counter()

    def on_train_end(self):
        if self.global_rank == 0:
            took = time.perf_counter() - self.began
            print(f"trained at {self.global_step / took:.4f} steps per second; the last loss was {self.last:.6g}")


trainer = Trainer(
    max_epochs=1, accelerator="cpu", devices="auto", num_nodes=int(sys.argv[4]), logger=False,
    strategy=DDPStrategy(process_group_backend="gloo"), enable_checkpointing=False, callbacks=[TQDMProgressBar()],
)  # fmt: skip
trainer.fit(Line(), torch.utils.data.DataLoader(Points(), batch_size=2))
