"""Any vision or text model of `transformers`, as an encoder: whole, frozen, or with adapters.

It comes from a local folder or from a configuration; nothing is downloaded, no pickle is read and
no code of a folder is run.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from ssl_scale.encoders.encoder import Encoder
from ssl_scale.encoders.text import replaced_words
from ssl_scale.encoders.transformer import hidden_by
from ssl_scale.errors import SslScaleError
from ssl_scale.part import Count, Given, Part, Probability, RoleName, Spec
from ssl_scale.sharding import build_whole
from ssl_scale.types import Attend, Features, Layout, Mask, View

HFPool: TypeAlias = Literal["mean", "first", "last", "model"]


class LoRA(Part):
    """Low-rank adapters beside a model's linear layers; only they are trained.

    Paper: LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685, equation 3. Needs
    the package `peft`.

    Args:
        rank: of the update (r).
        alpha: the update is scaled by this over the rank.
        targets: ends of the names of the layers that get one; all linear ones unless told.
        dropout: probability of zeroing an input of an adapter.
    """

    def __init__(
        self,
        rank: Count = 8,
        alpha: Count = 16,
        targets: tuple[str, ...] = (),
        dropout: Probability = 0.0,
    ) -> None:
        self.rank, self.alpha, self.targets, self.dropout = rank, alpha, targets, dropout

    def put_into(self, model: nn.Module) -> None:
        """Add the adapters and freeze the rest.

        Raises:
            SslScaleError: `peft` is not installed.
        """
        try:
            import peft
        except ImportError as error:
            raise SslScaleError(
                "LoRA needs the package peft; install it with `pip install 'ssl-scale[peft]'`"
            ) from error
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=list(self.targets) or "all-linear",
            lora_dropout=self.dropout,
        )
        peft.inject_adapter_in_model(config, model)


class HFEncoder(Encoder):
    """A model of `transformers`, from a folder with its weights or fresh from a configuration.

    Differs: dropout and drop path draw from torch's generator and not from the sample, so they
    change with the number of ranks; a mask of mode ``drop`` is refused, and pictures know ``input``
    only.

    Args:
        folder: what `save_pretrained` wrote, by role or path: ``config.json`` and safetensors.
        config: a configuration with its ``model_type``; the rest has the model's defaults.
        frozen: whether it is never trained; it is then always in evaluation mode.
        adapters: low-rank updates, in whose place the rest is frozen.
        pool: what the one vector is: ``mean`` of the valid tokens; ``first`` token of all (a
            [CLS]); ``last`` valid one; ``model``: the model's own.
        stride: side of the square of pixels that a token stands for; told by the configuration of
            most models.
        vocab_size: number of token ids of the data.
        mask_token: id that stands for a hidden token.

    Raises:
        ValueError: arguments that exclude each other, or a model that cannot be trained here.
    """

    def __init__(
        self,
        folder: RoleName | None = None,
        config: Mapping[str, Any] | None = None,
        frozen: bool = False,
        adapters: LoRA | None = None,
        pool: HFPool = "mean",
        stride: Count | None = None,
        *,
        vocab_size: Given[int | None] = None,
        mask_token: Given[int | None] = None,
    ) -> None:
        super().__init__()
        if (folder is None) == (config is None):
            what = "neither is" if folder is None else "both are"
            raise ValueError(f"either folder or config must be given, but {what}")
        if frozen and adapters is not None:
            raise ValueError("frozen must be false where there are adapters, but is true")
        self.frozen, self.pool = frozen, pool
        self.vocab_size, self.mask_token = vocab_size, mask_token
        settings = read_config(folder, config)
        self.model = build_whole(lambda: _make(folder, settings, adapters, pool))
        if frozen:
            self.model.requires_grad_(False)
            self.model.train(False)
        self.reads_text = self.model.main_input_name == "input_ids"
        self.width = _width(settings)
        self.stride = 1 if self.reads_text else stride or _stride(settings)
        self._check_model(settings)

    def _check_model(self, settings: PretrainedConfig) -> None:
        if self.model.main_input_name not in ("input_ids", "pixel_values"):
            raise ValueError(
                f"the model must read input_ids or pixel_values, but {settings.model_type} reads "
                f"{self.model.main_input_name}"
            )
        if settings.sub_configs:
            raise ValueError(
                f"the model must have one tower, but {settings.model_type} has "
                f"{sorted(settings.sub_configs)}; save the one that is wanted by itself"
            )
        if not self.frozen and any(isinstance(m, _BatchNorm) for m in self.model.modules()):
            raise ValueError(
                f"{settings.model_type} must be frozen, for its batch norms know neither other "
                "ranks nor absent samples; for a trained one take ResNet"
            )
        known = getattr(settings, "vocab_size", None)
        if self.reads_text and self.vocab_size and known and self.vocab_size > known:
            raise ValueError(
                f"vocab_size of the model must be at least the tokenizer's, {self.vocab_size}, but "
                f"is {known}"
            )

    def train(self, mode: bool = True) -> "HFEncoder":
        """A frozen model stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def portable(self, spec: Spec[Encoder]) -> Spec[Encoder]:
        """The same with its configuration spelled out in place of a folder."""
        config = json.loads(self.model.config.to_json_string(use_diff=True))
        return Spec(spec.part, {**spec.arguments, "folder": None, "config": config}, spec.path)

    def layout(self, view: View) -> Layout:
        """One token a word, or a square of pixels, row by row."""
        if self.reads_text:
            return Layout((view.values.shape[-1],), view.valid)
        height, width = view.values.shape[-2:]
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        return Layout((rows, columns), view.present[..., None].expand(-1, -1, rows * columns))

    def forward(
        self,
        view: View,
        mask: Mask | None = None,
        attend: Attend = "full",
        keep: Sequence[str] = (),
    ) -> Features:
        """Encode token ids or pictures; `keep` names ``stem`` and ``layer.N``.

        Raises:
            ValueError: the values do not fit, or the question is one that the model cannot answer.
        """
        if attend != "full":
            raise ValueError(f"attend must be 'full' for HFEncoder, but is {attend!r}")
        layout = self.layout(view)
        inputs = self._words(view, mask) if self.reads_text else self._pixels(view, mask, layout)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out = self.model(**inputs, return_dict=True, output_hidden_states=bool(keep))
        valid = layout.valid.flatten(0, 1)
        last = _cells(out.last_hidden_state)
        num_prefix = last.shape[1] - valid.shape[1]
        if num_prefix < 0 or (self.reads_text and num_prefix):
            raise ValueError(
                f"stride must be the pixels of a token's side, but is {self.stride}, which makes "
                f"{valid.shape[1]} tokens where the model makes {last.shape[1]}"
            )
        present = view.present.flatten()
        prefix = torch.where(present[:, None, None], last[:, :num_prefix], 0)
        tokens = torch.where(valid[..., None], last[:, num_prefix:], 0)
        pooled = self._pooled(out, prefix, tokens, valid)
        shape = tuple(view.valid.shape[:2])
        places = torch.arange(tokens.shape[1], device=tokens.device).expand(*shape, -1)
        kept = {name: _state(out.hidden_states, name)[:, num_prefix:] for name in keep}
        return Features(
            tokens=tokens.view(*shape, *tokens.shape[1:]),
            valid=layout.valid,
            pooled=torch.where(present[:, None], pooled, 0).view(*shape, -1),
            prefix=prefix.view(*shape, *prefix.shape[1:]),
            origin=places,
            kept={
                name: torch.where(present[:, None, None], x, 0).view(*shape, *x.shape[1:])
                for name, x in kept.items()
            },
        )

    def _words(self, view: View, mask: Mask | None) -> dict[str, Tensor]:
        if view.values.dim() != 3 or view.values.is_floating_point():
            raise ValueError(
                "values must be whole numbers [batch, crops, tokens], "
                f"but are {view.values.dtype} {list(view.values.shape)}"
            )
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest is not None and view.values.shape[-1] > longest:
            raise ValueError(
                f"length must be at most {longest} tokens, but is {view.values.shape[-1]}"
            )
        valid = view.valid.flatten(0, 1)
        ids = view.values.flatten(0, 1).masked_fill(~valid, 0)
        hidden = hidden_by(mask, "replace")
        if mask is not None and hidden is None:
            raise ValueError(
                f"the mode of a mask over words must be 'replace', but is {mask.mode!r}"
            )
        if mask is not None and hidden is not None:
            vocab_size = self.vocab_size or self.model.config.vocab_size
            ids = replaced_words(ids, hidden & valid, mask, view, self.mask_token, vocab_size)
        # A text without words would see nothing, and a softmax of nothing is NaN.
        seen = valid.clone()
        seen[:, 0] |= ~valid.any(1)
        inputs = {"input_ids": ids, "attention_mask": seen.long()}
        if "segment" in view.side:
            segment = view.side["segment"].flatten(0, 1)
            inputs["token_type_ids"] = segment.masked_fill(~valid, 0)
        return inputs

    def _pixels(self, view: View, mask: Mask | None, layout: Layout) -> dict[str, Tensor]:
        if view.values.dim() != 5:
            raise ValueError(
                "values must be [batch, crops, channels, height, width], but are "
                f"{list(view.values.shape)}"
            )
        images = view.values.flatten(0, 1)
        # Whatever an absent picture holds, not even its NaN may reach a gradient.
        images = torch.where(view.present.flatten()[:, None, None, None], images, 0)
        hidden = hidden_by(mask, "input")
        if mask is not None and hidden is None:
            raise ValueError(
                f"the mode of a mask over pictures must be 'input', but is {mask.mode!r}"
            )
        if hidden is not None:
            whole = hidden.view(-1, 1, *layout.grid)
            whole = whole.repeat_interleave(self.stride, 2).repeat_interleave(self.stride, 3)
            images = images.masked_fill(whole[..., : images.shape[-2], : images.shape[-1]], 0)
        return {"pixel_values": images}

    def _pooled(
        self,
        out: Any,
        prefix: Float[Tensor, "crops prefix width"],
        tokens: Float[Tensor, "crops tokens width"],
        valid: Bool[Tensor, "crops tokens"],
    ) -> Float[Tensor, "crops width"]:
        if self.pool == "model":
            if getattr(out, "pooler_output", None) is None:
                raise ValueError("pool must be mean, first or last, for the model pools nothing")
            pooled: Tensor = out.pooler_output.flatten(1)
            return pooled
        if self.pool == "mean":
            return tokens.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        if self.pool == "first":
            return torch.cat([prefix, tokens], dim=1)[:, 0]
        places = torch.arange(valid.shape[1], device=valid.device)
        last = torch.where(valid, places, 0).amax(1)
        return tokens[torch.arange(len(last), device=last.device), last]


def read_config(folder: str | None, config: Mapping[str, Any] | None) -> PretrainedConfig:
    """The configuration that an `HFEncoder` is given, or that of its folder.

    Raises:
        ValueError: the folder has none, or it names no model type.
    """
    if folder is not None:
        if not (Path(folder) / "config.json").is_file():
            raise ValueError(
                "folder must be one that transformers' `save_pretrained` wrote, but "
                f"{folder} has no config.json"
            )
        found: PretrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return found
    values = dict(config or {})
    kind = values.pop("model_type", None)
    if not isinstance(kind, str):
        raise ValueError(f"config must name its model_type, but has only {sorted(values)}")
    return AutoConfig.for_model(kind, **values)


def _make(
    folder: str | None, settings: PretrainedConfig, adapters: LoRA | None, pool: HFPool
) -> PreTrainedModel:
    model: PreTrainedModel
    if folder is None:
        make: Any = AutoModel.from_config
        model = make(settings, trust_remote_code=False, dtype=torch.float32)
    else:
        model = AutoModel.from_pretrained(
            folder,
            config=settings,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
        )
    if adapters is not None:
        adapters.put_into(model)
    pooler = getattr(model, "pooler", None)
    if pool != "model" and isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)  # nobody reads what it makes
    return model


def _width(settings: PretrainedConfig) -> int:
    sizes = getattr(settings, "hidden_sizes", None)
    return int(sizes[-1] if sizes else settings.hidden_size)


def _stride(settings: PretrainedConfig) -> int:
    depths, patch = getattr(settings, "depths", None), getattr(settings, "patch_size", None)
    if depths is None and not isinstance(patch, int):
        raise ValueError(
            f"stride must be given, for the configuration of {settings.model_type} tells none"
        )
    # Every stage after the first halves the picture.
    stages: int = len(depths) if depths else 1
    return int(patch or 4) << (stages - 1)


def _cells(state: Tensor) -> Float[Tensor, "crops tokens width"]:
    return state.flatten(2).transpose(1, 2) if state.dim() == 4 else state


def _state(states: Sequence[Tensor] | None, name: str) -> Float[Tensor, "crops tokens width"]:
    names = ["stem", *(f"layer.{number}" for number in range(len(states or ()) - 1))]
    if states is None or name not in names:
        raise ValueError(f"kept intermediates must be among {names}, but one is {name!r}")
    return _cells(states[names.index(name)])
