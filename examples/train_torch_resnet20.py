"""Train pytorchcv's ResNet-20 on digits in PyTorch and write the checkpoint.

This made the bundled `resnet20_digits`: run it to make it again.

    python examples/train_torch_resnet20.py --output my_checkpoints

Needs `pip install '.[torch]' pytorchcv==0.0.67`, in the clone.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from pytorchcv.model_provider import get_model
from safetensors.numpy import save_file

from keras_spectral import data
from keras_spectral.files import output_folder, replacing, write_json

NAME = "resnet20_digits"


def accuracy(model, x, y):
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in x.split(256)])
    return (predicted == y).float().mean().item()


def train(model, x, y, epochs, batch_size=64):
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    steps = epochs * -(-len(x) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(x):.4f}", flush=True)
    model.eval()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("."))
    options = parser.parse_args(arguments)
    output = output_folder(options.output)

    torch.manual_seed(options.seed)
    digits = data.load("digits", image_size=32, channels=3)
    splits = digits.train, digits.test
    x_train, x_test = (
        torch.tensor(split.inputs().transpose(0, 3, 1, 2).copy()) for split in splits
    )
    y_train, y_test = (torch.tensor(split.labels) for split in splits)
    model = get_model("resnet20_cifar10")
    train(model, x_train, y_train, options.epochs)

    with torch.no_grad():
        reference_logits = model(x_test[:8]).tolist()
    correct = round(accuracy(model, x_test, y_test) * len(y_test))
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    path = output / f"{NAME}.safetensors"
    with replacing(path) as temporary:
        save_file(state, temporary)
    split = hashlib.sha256(
        digits.test.inputs().tobytes() + digits.test.labels.tobytes()
    )
    write_json(
        output / f"{NAME}.json",
        {
            "name": NAME,
            "architecture": "pytorchcv 0.0.67 resnet20_cifar10",
            "parameters": int(sum(p.numel() for p in model.parameters())),
            "data": "scikit-learn's bundled digits (UCI optical recognition of "
            "handwritten digits), pixels repeated to 32x32, three equal channels, "
            "values in [-1, 1]: keras_spectral.data.load('digits', 32, 3)",
            "split": {
                "train": len(y_train),
                "test": len(y_test),
                "random_state": 0,
                "test_sha256": split.hexdigest(),
            },
            "train_accuracy": accuracy(model, x_train, y_train),
            "test_accuracy": correct / len(y_test),
            "seed": options.seed,
            "epochs": options.epochs,
            "optimizer": "AdamW, weight decay 0.01, one-cycle learning rate to 0.004, "
            "batch 64",
            "command": "python examples/train_torch_resnet20.py "
            f"--epochs {options.epochs} --seed {options.seed}",
            "torch": torch.__version__,
            "numpy": np.__version__,
            "licence": "Apache-2.0",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "reference_logits": reference_logits,
        },
    )
    print(f"test accuracy {correct / len(y_test):.4f}, written to {path}")


if __name__ == "__main__":
    main()
