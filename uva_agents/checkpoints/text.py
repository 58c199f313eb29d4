"""CLIP's text tower: an instruction to the vector that language-conditioned weights were trained with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from uva_agents.model.defaults import in_float32

TOKENS = 30
"""Instructions are padded to this many tokens, as in the released training data."""
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch32"

_CONFIG = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


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
        return {name: getattr(self.tower.config, name) for name in _CONFIG}

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
