"""Text encoders: an instruction to the vector that language-conditioned weights were trained with.

CLIP's text tower takes any instruction. A table holds those of the data that weights were trained on, and needs nothing else.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from uva_agents.checkpoints.schema import Range, Schema, shown
from uva_agents.errors import InputError, WeightsError
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


TABLE_DIM = 32
"""Numbers in the vector of a table's instruction, where the table chooses them."""
_MOST_INSTRUCTIONS = 1 << 16


class InstructionTable(nn.Module):
    """The instructions of a dataset, each with its own vector; any other is refused.

    Vectors are drawn from the text itself, so that an instruction has the same one in every dataset and on every machine, unless
    they are given.

    Args:
        instructions: different from each other, none of them empty.
        vectors: (N, D) of an encoder, say; drawn when absent.

    Raises:
        InputError: an instruction comes twice or is empty; other numbers of vectors.
    """

    vectors: Tensor

    def __init__(self, instructions: Sequence[str], vectors: Tensor | None = None, *, dim: int = TABLE_DIM) -> None:
        super().__init__()
        self.instructions = tuple(instructions)
        plain = [_plain(text) for text in self.instructions]
        if not plain or not all(plain) or len(set(plain)) != len(plain):
            raise InputError(f"instructions must differ and none may be empty, got {list(self.instructions)!r:.300}")
        if vectors is None:
            vectors = torch.stack([_drawn(text, dim) for text in plain])
        if vectors.ndim != 2 or len(vectors) != len(plain):
            raise InputError(f"{len(plain)} instructions need as many vectors, got {tuple(vectors.shape)}")
        self.register_buffer("vectors", vectors.to(torch.float32))
        self._rows = {text: row for row, text in enumerate(plain)}

    @property
    def config(self) -> dict[str, Any]:
        """What rebuilds the table, but for the vectors."""
        return {"instructions": list(self.instructions), "dim": self.vectors.shape[1]}

    def embed(self, text: str) -> Tensor:
        """(D,) vector of an instruction; case and spaces around words do not matter.

        Raises:
            InputError: it is not in the table, with those that are.
        """
        row = self._rows.get(_plain(text))
        if row is None:
            close = difflib.get_close_matches(_plain(text), self._rows, n=3, cutoff=0.5) or list(self._rows)[:5]
            known = "; ".join(repr(self.instructions[self._rows[one]]) for one in close)
            raise InputError(
                f"these weights know {len(self.instructions)} instruction{'s' if len(self.instructions) > 1 else ''}, and "
                f"{text!r:.200} is none of them; for example {known}"
            )
        return self.vectors[row]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _drawn(text: str, dim: int) -> Tensor:
    """Numbers of variance 1 that belong to a text; rounded to what float16 holds, as weights are stored."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed)).half().float()


def read_table(values: Any, where: str) -> InstructionTable:
    """A table from what its ``config`` was stored as, before its vectors are filled in.

    Raises:
        WeightsError: it is no such table.
    """
    known = isinstance(values, Mapping) and set(values) == {"instructions", "dim"}
    texts, dim = (values["instructions"], values["dim"]) if known else (None, None)
    if (
        not isinstance(texts, list)
        or not 0 < len(texts) <= _MOST_INSTRUCTIONS
        or not all(isinstance(text, str) for text in texts)
        or type(dim) is not int
        or not 0 < dim <= 16_384
    ):
        raise WeightsError(f"{where} is {shown(values)}, no table of instructions")
    try:
        return InstructionTable(texts, torch.zeros(len(texts), dim))
    except InputError as error:
        raise WeightsError(f"{where}: {error}") from error


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


def load_clip(name: str | Path) -> TextEncoder:
    """CLIP's text tower with its weights and tokenizer, from a local folder or a hub name.

    Raises:
        InputError: it is not there, or is no CLIP.
    """
    transformers = _transformers()
    try:
        tower = transformers.CLIPTextModelWithProjection.from_pretrained(str(name))
    except Exception as error:
        raise InputError(f"no CLIP text tower at {str(name)!r}: {str(error).splitlines()[0][:200]}") from error
    known = {key: getattr(tower.config, key) for key in Tower.__dataclass_fields__}
    encoder = TextEncoder(known, name)
    encoder.tower.load_state_dict(tower.state_dict())
    return encoder.eval().requires_grad_(False)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "these weights read instructions: install their encoder with `pip install uva-agents[text]`"
        ) from error
    return transformers
