"""The options of ``regraft train``, in groups."""

from __future__ import annotations

from pathlib import Path

import click

from regraft.allocate import ALLOCATIONS
from regraft.cli.declare import count, group, number, text
from regraft.evolve import INITS as GROW_INITS
from regraft.losses import LOSSES
from regraft.models import ACTIVATIONS, INITS
from regraft.schedules import RATES
from regraft.search import METRICS, SEARCHES
from regraft.train import OPTIMIZERS, SCHEDULES
from regraft.train.evolving import EVOLUTIONS
from regraft.train.recipe import Recipe

_FOLDER = click.Path(file_okay=False, path_type=Path)
_default = Recipe()


model_options = group(
    text("--model", _default.model,
         "mlp:SIZES with the sizes from input to output joined by '-' ('in' and 'classes' stand for the "
         "data's), lenet-300-100, lenet-5, resnet-N (N layers, as in resnet-20), wrn-N-K (K times wider), "
         "gpt:LAYERS-WIDTH-HEADS for texts or vit:LAYERS-WIDTH-HEADS-PATCH for images."),
    number("--dropout", _default.dropout, "Share of hidden units dropped in training, in [0, 1)."),
    text("--activation", _default.activation, "Between the layers: {names}.", names=ACTIVATIONS),
    text("--init", _default.init, "Initial values: {names}.", names=INITS),
)  # fmt: skip

sparsity_options = group(
    number("--epsilon", None,
           "Erdos-Renyi's epsilon: a layer gets epsilon * (inputs + outputs) connections.  [default: 20]"),
    number("--density", None, "Instead: share of all connections, in (0, 1]."),
    click.option("--dense", is_flag=True, help="Instead: an ordinary dense network."),
    text("--allocate", _default.allocate, "How --density is spread over layers: {names}.",
         names=ALLOCATIONS),
    click.option("--include", multiple=True, metavar="PATTERN",
                 help="Only layers whose name fits this shell pattern are sparse; may be repeated."),
    click.option("--exclude", multiple=True, metavar="PATTERN",
                 help="Layers whose name fits this shell pattern stay dense; may be repeated."),
    text("--sparse-init", _default.sparse_init,
         "rescale: scale the initial values to the dense network's activations; keep: as drawn."),
    text("--evolve", None,
         "How the topology changes: {names}.  [default: set, none with --dense]", names=EVOLUTIONS),
    text("--rate", None,
         "Evolution rate over time: {names}; with options as in osv:k=2.  [default: the method's]",
         "NAME[:KEY=VALUE,...]", names=RATES),
    number("--zeta --fraction zeta", None,
           "Evolution rate at the start, in [0, 1]: the fraction replaced.  [default: the method's own]"),
    text("--evolve-every --every evolve_every", None,
         "Time between updates: epoch, a number of epochs (50epochs), or of steps (100).  "
         "[default: the method's own]", "TIME"),
    text("--grow-init", _default.grow_init, "Initial values of grown connections: {names}.",
         names=GROW_INITS),
    text("--search", _default.search,
         "Of --evolve search: what finds the largest inner products: {names}.", names=SEARCHES),
    number("--k-similar", None,
           "Of --search faiss, hnswlib, nmslib and lsh: neighbours asked for, as a fraction of the units "
           "in (0, 1].  [default: 0.15]"),
    text("--metric", _default.metric, "Of --evolve search: {names}.", names=METRICS),
    count("--grow-batches", _default.grow_batches,
          "Of --evolve search and rigl: minibatches before an update that growth looks at."),
    count("--grow-samples", _default.grow_samples,
          "Of --evolve search: of a convolution, at most so many positions of a minibatch are looked at."),
    number("--alpha", _default.alpha, "Of --evolve dst: weight of the penalty; the larger, the sparser."),
    click.option("--explore", is_flag=True, help="Note the share of positions that were ever active."),
    click.option("--normalise-rows", is_flag=True,
                 help="Scale each unit's incoming weights to length 1 after each step."),
)  # fmt: skip

training_options = group(
    count("--epochs", _default.epochs, "Passes over the training samples."),
    text("--batch-size", str(_default.batch_size), "Samples per step, or full for all at once.", "N"),
    text("--optimizer", _default.optimizer, "{names}.", names=OPTIMIZERS),
    number("--lr", None, "Learning rate.  [default: 0.01 for sgd, 0.001 for the others]"),
    number("--momentum", None, "Of sgd and rmsprop, in [0, 1).  [default: 0.9 for sgd]"),
    number("--weight-decay", _default.weight_decay, "L2 penalty on all parameters, 0 or more."),
    text("--lr-schedule", _default.lr_schedule,
         "Learning rate over epochs: {names}, or a class of torch.optim.lr_scheduler, as in "
         "step:step_size=10,gamma=0.5.", "NAME[:KEY=VALUE,...]", names=SCHEDULES),
    text("--loss", _default.loss, "{names}.", names=[name for name in LOSSES if name != "nll"]),
    number("--label-smoothing", _default.label_smoothing, "Of the cross-entropy, in [0, 1)."),
    click.option("--early-stop-patience", "patience", type=int, default=None, metavar="N",
                 help="Stop after so many epochs without a lower test loss.  [default: never]"),
    click.option("--restore-best", is_flag=True, help="With patience: keep the best epoch's network."),
    click.option("--early-stop-accuracy", "stop_accuracy", type=float, default=None, metavar="X",
                 help="Stop some epochs after the test accuracy passes this, in [0, 1].  [default: never]"),
    click.option("--early-stop-extra", "stop_extra", type=int, default=_default.stop_extra, metavar="N",
                 help="So many epochs after it."),
    count("--seed", _default.seed, "Of initial values, topology, order of samples, dropout and evolution."),
)  # fmt: skip

run_options = group(
    click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
                 help="Where the trained network goes (safetensors)."),
    click.option("--checkpoint", "checkpoint_dir", type=_FOLDER, default=None, metavar="DIR",
                 help="Keep the whole state of the training here after each epoch."),
    click.option("--checkpoint-steps", type=click.IntRange(min=1), default=None, metavar="N",
                 help="Also after every so many steps."),
    click.option("--resume", is_flag=True,
                 help="Go on from the checkpoint in DIR, to the same bits as without the interruption; start "
                      "anew if there is none yet."),
    click.option("--tensorboard", type=_FOLDER, default=None, metavar="DIR",
                 help="Write the curves for TensorBoard here."),
    text("--device", "cpu", "cpu, cuda, or cuda:N."),
    click.option("--threads", type=int, default=None, metavar="N",
                 help="CPU threads.  [default: OMP_NUM_THREADS, else all cores]"),
)  # fmt: skip
