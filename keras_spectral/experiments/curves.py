"""Learning curves of a cell, while it is trained: JSON lines and TensorBoard."""

import json
import time

import keras

from keras_spectral.files import output_folder, replacing, write_text


def write_curves(folder, key, history):
    """Write what the epochs have told so far.

    `curves/KEY.jsonl` has a line an epoch. `tensorboard/KEY` has, under TensorFlow, a
    file of events an epoch: who trains an epoch once more writes the same file, so no
    event is there twice, and TensorBoard goes on to new ones while it runs.

    Args:
        folder: `pathlib.Path` of the run.
        key: String, the cell's.
        history: List of dicts: `epoch` and numbers.
    """
    lines = "".join(json.dumps(epoch) + "\n" for epoch in history)
    write_text(output_folder(folder / "curves") / f"{key}.jsonl", lines)
    if keras.backend.backend() == "tensorflow":
        _write_events(output_folder(folder / "tensorboard" / key), history)


def _write_events(folder, history):
    import tensorflow as tf

    *earlier, last = history
    if not earlier:  # A training that began anew.
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
    event, summary = tf.compat.v1.Event, tf.compat.v1.Summary
    values = [
        summary.Value(tag=name, simple_value=value)
        for name, value in last.items()
        if name != "epoch"
    ]
    now = time.time()
    events = [
        event(wall_time=now, file_version="brain.Event:2"),
        event(wall_time=now, step=last["epoch"], summary=summary(value=values)),
    ]
    # In the order in which TensorBoard reads them.
    path = folder / f"events.out.tfevents.{last['epoch']:06d}"
    with (
        replacing(path, tells=(tf.errors.OpError,)) as temporary,
        tf.io.TFRecordWriter(str(temporary)) as file,
    ):
        for each in events:
            file.write(each.SerializeToString())
