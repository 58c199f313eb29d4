"""CLIP's text tower: an instruction to the vector that language-conditioned weights were trained with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from uva_agents.checkpoints.schema import Range, Schema
from uva_agents.model.defaults import in_float32

TOKENS = 30
"""Instructions are padded to this many tokens, as in the released training data."""
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch32"


@dataclass(frozen=True)
class Tower:
    """Sizes of the tower, as ``CLIPTextConfig`` calls them; CLIP ViT-B/32 by default."""

    vocab_size: int = 49_408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: Literal["quick_gelu", "gelu", "gelu_new", "relu", "silu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None


_SCHEMA = Schema(
    {
        Tower: {
            "vocab_size": Range(1, 1 << 20),
            "hidden_size": Range(1, 16_384),
            "intermediate_size": Range(1, 65_536),
            "projection_dim": Range(1, 65_536),
            "num_hidden_layers": Range(1, 256),
            "num_attention_heads": Range(1, 1024),
            "max_position_embeddings": Range(TOKENS, 65_536),
            "layer_norm_eps": Range(0, 1, above=True),
            "bos_token_id": Range(0, 1 << 20),
            "eos_token_id": Range(0, 1 << 20),
            "pad_token_id": Range(-1, 1 << 20),
        }
    }
)


def read_tower(values: Any, where: str) -> dict[str, Any]:
    """The tower's configuration, checked; what is not given is left to transformers.

    Raises:
        WeightsError: a field is unknown, of another type or out of its range.
    """
    tower = _SCHEMA.read(Tower, values, where)
    return {name: getattr(tower, name) for name in values}


class TextEncoder(nn.Module):
    """``CLIPTextModelWithProjection`` of transformers; the projected vector is not normalised, as released.

    Args:
        config: of the tower, as ``CLIPTextConfig.to_dict``; CLIP ViT-B/32 by default.
        tokenizer: a local folder, or a hub name; the environment variable ``UVA_CLIP_TOKENIZER`` overrides it. Weight files
            hold no vocabulary.
    """

    @in_float32
    def __init__(self, config: Mapping[str, Any] | None = None, tokenizer: str | Path = DEFAULT_TOKENIZER) -> None:
        super().__init__()
        transformers = _transformers()
        values = dict(projection_dim=512) if config is None else dict(config)
        self.tower = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**values))
        self.tokenizer_name = str(tokenizer)
        self._tokenizer: Any = None

    @property
    def config(self) -> dict[str, Any]:
        """What rebuilds the tower."""
        return {name: getattr(self.tower.config, name) for name in Tower.__dataclass_fields__}

    @torch.no_grad()
    def embed(self, text: str) -> Tensor:
        """(D,) vector of an instruction.

        Raises:
            ValueError: the tokenizer is not on this machine.
        """
        if self._tokenizer is None:
            self._tokenizer = self._load_tokenizer()
        tokens = self._tokenizer([text], padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        return self.embed_tokens(tokens["input_ids"], tokens["attention_mask"])[0]

    @torch.no_grad()
    def embed_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token numbers and attention mask (B, L) -> vectors (B, D)."""
        device = self.tower.device
        out = self.tower(input_ids=ids.to(device), attention_mask=mask.to(device))
        return cast(Tensor, out.text_embeds)

    def _load_tokenizer(self) -> Any:
        name = os.environ.get("UVA_CLIP_TOKENIZER", self.tokenizer_name)
        try:
            return _transformers().CLIPTokenizer.from_pretrained(name)
        except Exception as error:
            raise ValueError(
                f"CLIP's tokenizer {name!r} is not on this machine and could not be fetched: point UVA_CLIP_TOKENIZER at a folder "
                "with vocab.json and merges.txt, or give obs['task_embedding'], a vector (512,), instead of obs['task']"
            ) from error


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "these weights read instructions: install their encoder with `pip install uva-agents[text]`"
        ) from error
    return transformers
