"""Folds trained together: their networks are one computation, everything else of a fold is its own.

    fold S1   flow (B, V, P, C, H, W) -+                                                    +- gradient - Adam of S1
    fold S2   flow (B, V, P, C, H, W) -+- networks as one, parameters (F, ...), losses (F,) -+- gradient - Adam of S2
    ...                                                                                      ...

A fold has the batches, the augmentation, the dropout, the optimizer, the early stopping and the best epoch that it has
alone, from the same random numbers, so it comes to the same within the rounding of floating-point numbers. Lightning's
loop would call a trainer per fold and step, which takes longer than the computation; so it is done here, and a
trainer that is set to do more than this loop does is refused.
"""

import copy
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytorch_lightning
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from rich.progress import Progress
from torch import Tensor, nn, optim
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader, Dataset

from mer4d.cache import write_atomically
from mer4d.callbacks import FocalClassWeights, LOSOFold, SubjectEarlyStopping
from mer4d.data import ClipDataset
from mer4d.data.augment import Variation
from mer4d.errors import RunError
from mer4d.logs import BEST, StreamWeights
from mer4d.loso.fold import FoldBuilder, Part, Training, staging
from mer4d.models.microattnet import FusionAttention
from mer4d.task import MicroExpressionTask

UNDERSTOOD = (FocalClassWeights, SubjectEarlyStopping, ModelCheckpoint, LOSOFold, StreamWeights)
"""Callbacks whose part this loop plays."""

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Layers that multiply by random numbers which do not depend on what they multiply."""

OPTIMIZERS = (optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax, optim.Adagrad, optim.Adadelta, optim.SGD,
              optim.RMSprop, optim.ASGD, optim.Rprop)  # fmt: skip
"""Optimizers that do to a number of a parameter what depends on that number and its gradients alone."""

PLAIN = {
    "accumulate_grad_batches": (1,),
    "gradient_clip_val": (None, 0),
    "check_val_every_n_epoch": (1,),
    "val_check_interval": (1.0,),
    "num_sanity_val_steps": (0,),
    "limit_train_batches": (1.0,),
    "limit_val_batches": (1.0,),
    "max_steps": (-1,),
    "min_epochs": (None, 0, 1),
    "min_steps": (None, 0),
    "overfit_batches": (0,),
    "fast_dev_run": (False,),
    "precision": ("32-true",),
    "reload_dataloaders_every_n_epochs": (0,),
    "num_devices": (1,),
}
"""Setting of a trainer to the values with which it trains as this loop does."""


def obstacle(trainer: Trainer, module: MicroExpressionTask) -> str | None:
    """What keeps folds with such a trainer and module from being trained together; None if nothing does.

    Example:
        >>> obstacle(Trainer(logger=False, accumulate_grad_batches=2), MicroExpressionTask())
        'trainer.accumulate_grad_batches 2'
    """
    for name, values in PLAIN.items():
        if (value := getattr(trainer, name)) not in values:
            return f"trainer.{name} {value}"
    for callback in trainer.callbacks:
        if type(callback) not in UNDERSTOOD:
            return f"callback {type(callback).__name__}"
        if isinstance(callback, ModelCheckpoint) and (callback.save_top_k != 1 or callback.save_last):
            return "a ModelCheckpoint that keeps more than the best epoch"
        if (monitor := getattr(callback, "monitor", None)) and monitor.removeprefix("val/") not in BEST:
            return f"monitor {monitor} of {type(callback).__name__}"
    for layer in module.network.modules():
        if isinstance(layer, _BatchNorm) or (isinstance(layer, _DropoutNd) and type(layer) not in DROPOUTS):
            return f"layer {type(layer).__name__} of {type(module.network).__name__}"
    optimizer = type(module.configure_optimizers())
    return None if optimizer in OPTIMIZERS else f"optimizer {optimizer.__name__}"


def run_batched(
    parts: Sequence[Part], build: FoldBuilder, refit: bool, together: int, progress: Progress
) -> Iterator[Part]:
    """Runs folds together, and yields each that is complete, those that stop first first.

    Args:
        parts: The folds.
        build: Makes what a fold needs.
        refit: Whether each trains once more on its validation subjects as well.
        together: How many at a time.
        progress: Shows the epochs.

    Raises:
        RunError: They cannot be trained together, or a fold did not train.
    """
    for first in range(0, len(parts), together):
        with ExitStack() as opened:
            staged = {}
            for part in parts[first : first + together]:
                hidden = ExitStack()  # one each, so that a fold gets its name when it is complete
                opened.push(hidden)
                staged[part] = hidden, replace(part, directory=hidden.enter_context(staging(part.directory)))
            folds = {_Fold(Training(each, build, len(staged))): part for part, (_, each) in staged.items()}
            trained = []
            for fold in _train(list(folds), progress, "Epochs"):
                fold.keep_best()
                if refit:
                    trained.append(fold)
                else:
                    fold.conclude()
                    staged[folds[fold]][0].close()
                    yield folds[fold]
            if not trained:
                continue
            again = {
                _Fold(Training(replace(fold.part, refit=True), build, len(staged)), fold): fold for fold in trained
            }
            for fold in _train(list(again), progress, "Epochs, refit"):
                original = again[fold]
                original.conclude(fold)
                staged[folds[original]][0].close()
                yield folds[original]


class _Positions(Dataset):
    """Gives back what it is asked for: a loader that says which clips, to whoever has their flow elsewhere."""

    def __getitem__(self, positions: list[int]) -> list[int]:
        return positions


class _Fold:
    """A fold among those that train together.

    Args:
        training: What the fold is made of.
        first: The fold's first training, of which this is the refit.
    """

    def __init__(self, training: Training, first: "_Fold | None" = None) -> None:
        self.training, self.part = training, training.part
        self.trainer, self.module, self.data = training.trainer, training.module, training.data
        if found := obstacle(self.trainer, self.module):
            raise RunError(
                "loso.strategy batched", "a trainer and a network that can train all folds together", found,
                "leave that out, or set loso.strategy to processes or sequential",
            )  # fmt: skip
        self.device = self.trainer.strategy.root_device
        self.random = self._random_state()
        callbacks = self.trainer.callbacks
        self.guards = [each for each in callbacks if isinstance(each, LOSOFold)]
        self.stopping = [each for each in callbacks if isinstance(each, SubjectEarlyStopping)]
        limit = self.trainer.max_epochs
        self.limit = math.inf if limit == -1 else limit
        if first is not None:
            self.data.join_validation()
            self.stopping, self.limit = [], first.best_epoch
        self.validates = first is None
        self.epochs = self.steps = 0
        self.best_epoch: int | None = None
        self.best: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Sets up everything but the network, as a trainer does before the first epoch."""
        self.trainer.datamodule = self.data
        self.data.prepare_data()
        self.data.setup("fit")
        for callback in self.trainer.callbacks:
            if isinstance(callback, FocalClassWeights):
                callback.on_fit_start(self.trainer, self.module)
            elif isinstance(callback, LOSOFold):
                callback.setup(self.trainer, self.module, "fit")
        self.module.network.to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(self.data.seed)
        self.loader = self.data.train_dataloader()
        self.training_clips: ClipDataset = self.loader.dataset
        self.validation_loader = self.data.val_dataloader() if self.validates else None

    def own(self, values: dict[str, Tensor]) -> None:
        """Gives the network parameters of which it is no longer the owner."""
        for name, parameter in self.module.network.named_parameters():
            parameter.data = values[name]

    def admit(self, chosen: list[int]) -> Tensor:
        """Labels (B, K) of a training batch, if no clip of it is the held-out subject's."""
        batch = self.training_clips.without_flow(chosen)
        for guard in self.guards:
            guard.on_train_batch_start(self.trainer, self.module, batch, 0)
        return batch["label"]

    def batches(self, loader: DataLoader) -> Iterator[list[int]]:
        """Positions of the clips of each batch of an epoch; takes from the random numbers what a loader takes."""
        with self.random_numbers():
            return iter(DataLoader(_Positions(), sampler=loader.sampler, batch_size=None))

    @contextmanager
    def random_numbers(self) -> Iterator[None]:
        """Random numbers inside are those that come next where the fold trains alone."""
        torch.set_rng_state(self.random[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self.random[1], self.device)
        yield
        self.random = self._random_state()

    def _random_state(self) -> tuple[Tensor, Tensor | None]:
        on_device = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return torch.get_rng_state(), on_device

    def end_epoch(self, weights: Tensor | None) -> bool:
        """Scores an epoch, keeps what it was if it was the best, logs it, and says whether it was the last.

        Args:
            weights: (N, S) of the streams on the validation clips, or None.
        """
        self.epochs += 1
        scores = {}
        if self.validates:
            scores = self.module.score_epoch("val", self.epochs, fitting=True)
            if weights is not None:
                mean = dict(zip(self.module.network.streams, weights.mean(0).tolist(), strict=True))
                self.training.streams.epochs[self.epochs] = mean
                scores |= {f"val/attention/{name}": weight for name, weight in mean.items()}
            self._log(scores)
        self._log(self.module.score_epoch("train", self.epochs, fitting=True))
        ends = [each.stops(scores[each.monitor]) for each in self.stopping]
        if not self.validates:
            return self.epochs >= self.limit
        worst = -math.inf if self.training.checkpoint.mode == "max" else math.inf
        score = torch.as_tensor(scores[self.training.checkpoint.monitor]).nan_to_num(worst)
        if self.best_epoch is None or self._better(score):
            self.best_epoch, self.best_steps, self.best_score = self.epochs, self.steps, score
            self.best = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        return any(ends) or self.epochs >= self.limit

    def _better(self, score: Tensor) -> bool:
        return bool(score > self.best_score if self.training.checkpoint.mode == "max" else score < self.best_score)

    def _log(self, scores: dict[str, Tensor]) -> None:
        row = {name: float(value) for name, value in scores.items()} | {"epoch": self.epochs - 1}
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=self.steps - 1)
            logger.save()

    def keep_best(self) -> None:
        """Writes the checkpoint of the best epoch, with what Lightning writes of weights alone."""
        self.own({name: parameter.data.clone() for name, parameter in self.module.network.named_parameters()})
        checkpoint = self.training.checkpoint
        if self.best_epoch is not None:
            file = self.part.directory / f"{checkpoint.filename}{checkpoint.FILE_EXTENSION}"
            self._write(file, self.best_epoch - 1, self.best_steps)
            checkpoint.best_model_path, checkpoint.best_model_score = str(file), self.best_score

    def _write(self, file: Path, epoch: int, steps: int) -> None:
        content = {
            "epoch": epoch,
            "global_step": steps,
            "pytorch-lightning_version": pytorch_lightning.__version__,
            "state_dict": self.best,
        }
        self.module.on_save_checkpoint(content)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(file, buffer.getvalue())

    def _take_weights(self, refit: "_Fold") -> None:
        """Puts the weights of a second training into the checkpoint; thresholds stay."""
        weights = {name: value.detach().cpu() for name, value in refit.module.state_dict().items()}
        self.best = weights | {"thresholds": self.best["thresholds"]}
        self._write(Path(self.training.checkpoint.best_model_path), refit.epochs, refit.steps)

    def conclude(self, refit: "_Fold | None" = None) -> None:
        """Predicts the held-out subject, with the weights of a second training if there was one."""
        loop = self.trainer.fit_loop  # where a trainer that is about to log looks up how far it is
        loop.epoch_progress.current.completed, loop.epoch_loop._batches_that_stepped = self.epochs, self.steps
        self.training.conclude(self.epochs, self.steps, refit and (lambda epochs: self._take_weights(refit)))


class _Networks:
    """Networks of the same kind as one computation.

    Args:
        folds: Whose networks; each keeps its own, whose parameters become views of those here.
    """

    def __init__(self, folds: Sequence[_Fold]) -> None:
        self.folds = list(folds)
        networks = [fold.module.network for fold in folds]
        self.parameters, self.buffers = stack_module_state(networks)
        for position, fold in enumerate(folds):
            fold.own({name: value.data[position] for name, value in self.parameters.items()})
        self._own = [dict(network.named_parameters()) for network in networks]
        self.loss = folds[0].module.loss
        self.weights = torch.stack([fold.module.loss.class_weights for fold in folds]).to(folds[0].device)
        self.skeleton = copy.deepcopy(networks[0])
        self._noise: Iterator[Tensor] = iter(())
        self._heard: list[Tensor] = []
        self._shapes: dict[int, list[tuple[nn.Module, torch.Size]]] = {}
        for layer in self.skeleton.modules():
            if type(layer) in DROPOUTS:
                layer.forward = self._drop
            elif isinstance(layer, FusionAttention):
                layer.register_forward_hook(lambda *call: self._heard.append(call[-1][1]))

    def _drop(self, values: Tensor) -> Tensor:
        return values * next(self._noise) if self.skeleton.training else values

    def noise(self, fold: _Fold, flow: Tensor) -> list[Tensor]:
        """What the dropout layers of a fold's network multiply by for a batch (B, V, P, C, H, W), in their order."""
        network = fold.module.network
        if len(flow) not in self._shapes:
            calls: list[tuple[nn.Module, torch.Size]] = []
            layers = [layer for layer in network.modules() if type(layer) in DROPOUTS]
            hooks = [
                layer.register_forward_hook(lambda *call: calls.append((call[0], call[1][0].shape))) for layer in layers
            ]
            with torch.no_grad():
                network(flow)
            for hook in hooks:
                hook.remove()
            self._shapes[len(flow)] = [(copy.deepcopy(layer), shape) for layer, shape in calls]
        with fold.random_numbers():
            return [layer(torch.ones(shape, device=flow.device)) for layer, shape in self._shapes[len(flow)]]

    def train(self, flow: Tensor, labels: Tensor, positions: list[int], noise: list[Tensor]) -> tuple[Tensor, Tensor]:
        """A forward and a backward pass, whose gradients add up in `parameters`.

        Args:
            flow: (F, B, V, P, C, H, W), a batch of each of F folds.
            labels: (F, B, K).
            positions: Which folds they are.
            noise: (F, ...) each, what the dropout layers multiply by.

        Returns:
            Losses (F,) and logits (F, B, K).
        """
        every = positions == [*range(len(self.folds))]
        parameters = {name: value if every else value[positions] for name, value in self.parameters.items()}
        buffers = {name: value if every else value[positions] for name, value in self.buffers.items()}
        self.skeleton.train()

        def step(parameters, buffers, flow, labels, weights, noise):
            self._noise = iter(noise)
            logits = functional_call(self.skeleton, (parameters, buffers), (flow,))
            self._heard.clear()
            return self.loss.unchecked(logits, labels, weights), logits

        losses, logits = vmap(step)(parameters, buffers, flow, labels, self.weights[positions], noise)
        losses.sum().backward()
        return losses.detach(), logits.detach()

    def give_gradients(self, positions: list[int]) -> None:
        """Lets networks have their share of the gradients; the others keep none, which an optimizer leaves alone."""
        for name, stacked in self.parameters.items():
            for position in positions:
                self._own[position][name].grad = stacked.grad[position]

    @torch.no_grad()
    def look(self, flow: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (F, B, K) of flow (F, B, V, P, C, H, W), a batch of every fold, and weights of streams (F, B, S)."""
        self.skeleton.eval()

        def look(parameters, buffers, flow):
            self._heard.clear()
            return functional_call(self.skeleton, (parameters, buffers), (flow,)), *self._heard

        logits, *weights = vmap(look)(self.parameters, self.buffers, flow)
        self._heard.clear()
        return logits, weights[0] if weights else None


def _train(folds: list[_Fold], progress: Progress, title: str) -> Iterator[_Fold]:
    """Trains folds together, and yields each when it has ended; the others go on after that."""
    if folds[0].limit < 1:
        yield from folds
        return
    for fold in folds:
        fold.begin()
    networks, flow = _Networks(folds), _Flow(folds)
    # Of all folds in one call: what it does to a parameter depends on that parameter alone.
    optimizer = folds[0].module.optimizer([each for fold in folds for each in fold.module.network.parameters()])
    bar = progress.add_task(f"  {title}", total=None)
    while folds:
        _train_epoch(networks, optimizer, flow)
        weights = _validate(networks, flow) if folds[0].validates else [None] * len(folds)
        ended = [fold for fold, weight in zip(folds, weights, strict=True) if fold.end_epoch(weight)]
        if ended:
            folds = [fold for fold in folds if fold not in ended]
            if folds:
                networks = _Networks(folds)
            yield from ended
        progress.update(bar, advance=1, description=f"  {title}: {len(folds)} folds go on")
    progress.remove_task(bar)


class _Flow:
    """Flow of a corpus on a device, all of it, once.

    Args:
        folds: Folds of one corpus that they share, which are set up.
    """

    def __init__(self, folds: Sequence[_Fold]) -> None:
        flow = folds[0].training_clips.flow
        if any(fold.training_clips.flow is not flow for fold in folds):
            raise ValueError("folds train together within `MER4DDataModule.shared` alone")
        self.device, self._there = folds[0].device, flow.to(folds[0].device)

    def of(self, rows: Sequence[Tensor]) -> Tensor:
        """Flow (N, V, P, C, H, W) float32 of rows of the corpus, one after the other."""
        return self._there[torch.cat([*rows]).to(self.device)]


def _train_epoch(networks: _Networks, optimizer: optim.Optimizer, flow: _Flow) -> None:
    folds, augmentation = networks.folds, networks.folds[0].data.augmentation
    running = {position: fold.batches(fold.loader) for position, fold in enumerate(folds)}
    seen: list[tuple[list[int], Tensor, Tensor, Tensor]] = []
    while True:
        by_size: dict[int, dict[int, list[int]]] = defaultdict(dict)
        for position, batches in running.items():
            if chosen := next(batches, None):
                by_size[len(chosen)][position] = chosen
        if not by_size:
            break
        optimizer.zero_grad()
        for parameter in networks.parameters.values():
            parameter.grad = None
        for size, batch in by_size.items():
            chosen = [(folds[position], clips) for position, clips in batch.items()]
            labels = torch.stack([fold.admit(clips) for fold, clips in chosen]).to(flow.device)
            values = flow.of([fold.training_clips.rows[clips] for fold, clips in chosen])
            if augmentation is not None:
                drawn = [augmentation.draw(each, fold.generator)
                         for each, (fold, _) in zip(values.split(size), chosen, strict=True)]  # fmt: skip
                values = augmentation.apply(values, Variation.joined(drawn))
            values = values.unflatten(0, (len(batch), size))
            noise = [networks.noise(fold, each) for each, (fold, _) in zip(values, chosen, strict=True)]
            noise = [torch.stack(each) for each in zip(*noise, strict=True)]
            seen.append(([*batch], *networks.train(values, labels, [*batch], noise), labels))
            networks.give_gradients([*batch])
            for fold, _ in chosen:
                fold.steps += 1
        optimizer.step()
    for positions, losses, logits, labels in seen:
        for position, *found in zip(positions, losses.cpu(), logits.cpu(), labels.cpu(), strict=True):
            folds[position].module.observe("train", *found)


def _validate(networks: _Networks, flow: _Flow) -> list[Tensor | None]:
    """Observes the validation clips of every fold; returns the weights (N, S) of its streams, or None."""
    clips = [fold.validation_loader.dataset for fold in networks.folds]
    chosen = []
    for fold, known in zip(networks.folds, clips, strict=True):
        positions = []
        for batch in fold.batches(fold.validation_loader):
            if not fold.data.leaky:
                for guard in fold.guards:
                    guard.on_validation_batch_start(fold.trainer, fold.module, known.without_flow(batch), 0)
            positions += batch
        chosen.append(positions)
    longest = max(map(len, chosen))
    logits, weights = [], []
    for first in range(0, longest, size := networks.folds[0].data.batch_size):
        # A fold with fewer clips repeats one, which nobody looks at: a prediction depends on its own clip alone.
        end = min(first + size, longest)
        part = [(each + each[:1] * (longest - len(each)))[first:end] for each in chosen]
        values = flow.of([known.rows[positions] for known, positions in zip(clips, part, strict=True)])
        found, heard = networks.look(values.unflatten(0, (len(clips), end - first)))
        logits.append(found.cpu())
        weights.append(None if heard is None else heard.cpu())
    logits = torch.cat(logits, 1)
    for fold, known, positions, each in zip(networks.folds, clips, chosen, logits, strict=True):
        labels, each = known.labels[positions], each[: len(positions)]
        fold.module.observe("val", fold.module.loss(each, labels), each, labels)
    if weights[0] is None:
        return [None] * len(clips)
    return [each[: len(positions)] for each, positions in zip(torch.cat(weights, 1), chosen, strict=True)]
