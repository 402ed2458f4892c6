"""Recognises handwritten digits: a real, small training with checkpoints, metrics and resuming.

python examples/digits/train.py --epochs 5 [--resume checkpoints/epoch-0003.joblib]
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def main() -> int:
    options = parse()
    checkpoints = Path(os.environ.get("RUNCTL_CHECKPOINT_DIR", "checkpoints"))
    checkpoints.mkdir(parents=True, exist_ok=True)
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x / 16.0, y, test_size=0.25, random_state=options.seed, stratify=y
    )

    resume = options.resume or os.environ.get("RUNCTL_RESUME_FROM")
    if resume:
        state = joblib.load(resume)
        model, first, rows = state["model"], state["epoch"] + 1, state["metrics"]
        print(f"resuming from {resume}: epoch {first}", flush=True)
    else:
        model = MLPClassifier((64,), learning_rate_init=options.learning_rate, random_state=options.seed)
        first, rows = 1, []

    for epoch in range(first, options.epochs + 1):
        # The order of the samples depends on the epoch alone, so a resumed run takes the same steps.
        order = np.random.default_rng([options.seed, epoch]).permutation(len(x_train))
        for batch in np.array_split(order, max(1, len(order) // 64)):
            model.partial_fit(x_train[batch], y_train[batch], classes=np.arange(10))
        row = {
            "epoch": epoch,
            "loss": round(float(model.loss_), 6),
            "accuracy": round(float(model.score(x_test, y_test)), 6),
        }
        rows = [*rows, row]
        print(f"epoch {epoch}/{options.epochs}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}", flush=True)
        save({"model": model, "epoch": epoch, "metrics": rows}, checkpoints / f"epoch-{epoch:04d}.joblib")
        Path("metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        time.sleep(options.pause)
    return 0


def save(state: dict, path: Path) -> None:
    """Written beside and renamed: a checkpoint is whole or not there."""
    partial = path.with_suffix(".tmp")
    joblib.dump(state, partial)
    partial.replace(path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", help="a checkpoint to go on from (default: $RUNCTL_RESUME_FROM)")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to wait after each epoch, for drills")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
