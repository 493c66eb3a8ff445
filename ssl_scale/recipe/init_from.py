"""Where an encoder's first weights come from."""

from dataclasses import dataclass

from ssl_scale.part import RoleName


@dataclass(frozen=True)
class InitFrom:
    """A folder of weights, by role or path (anything with a slash).

    Exactly one of `hf` and `exported` is written.

    Args:
        hf: what `transformers` saved: ``config.json`` and safetensors, of ViT, DINOv2, CLIP or
            BERT.
        exported: what ``ssl-scale export`` wrote.
        encoder: which of an export's encoders; named alike unless told.
        partial: whether parameters that the weights lack may keep their fresh values, and blocks of
            theirs be left out.
    """

    hf: RoleName | None = None
    exported: RoleName | None = None
    encoder: str | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("hf", "exported") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"must have either hf or exported, but {'both are' if given else 'neither is'} "
                "given"
            )
        if self.encoder is not None and self.exported is None:
            raise ValueError("encoder must be left out where the weights are no export")
