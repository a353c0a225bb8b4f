"""GGUF files: from their first byte to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .kinds import kind


def _read_gguf(folder: Path) -> None:
    import optrode as op

    op.load(folder / "input.gguf")


_IMPORTS = ("transformers.", "torch.", "tokenizers.", "google.", "sentencepiece", "tiktoken")


@kind(share=3, read=_read_gguf, imports=_IMPORTS)
def gguf(box: Path) -> None:
    """Networks of two architectures, in float32 and quantised, with and without a tokenizer."""
    import gguf as library
    import numpy as np

    made = {"llama": True, "bare": False, "quantised": False, "qwen2": False}
    for name, spoken in made.items():
        (box / name).mkdir(parents=True)
        architecture = "qwen2" if name == "qwen2" else "llama"
        writer = library.GGUFWriter(box / name / "input.gguf", architecture)
        width = 32
        words = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(97, 110)), "ab"]
        writer.add_name("tiny")
        writer.add_block_count(1)
        writer.add_context_length(64)
        writer.add_embedding_length(width)
        writer.add_feed_forward_length(width)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_rope_dimension_count(8)
        writer.add_vocab_size(len(words))
        if spoken:
            _tokenizer(writer, words)
        random = np.random.default_rng(0)
        for tensor, shape in _shapes(len(words), width, architecture).items():
            values = random.normal(size=shape).astype(np.float32)
            if name == "quantised" and len(shape) == 2:
                kind_of = library.GGMLQuantizationType.Q8_0
                writer.add_tensor(tensor, library.quantize(values, kind_of), raw_dtype=kind_of)
            else:
                writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _tokenizer(writer: Any, words: list[str]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")


def _shapes(words: int, width: int, architecture: str) -> dict[str, tuple[int, ...]]:
    block = {
        "attn_norm": (width,), "ffn_norm": (width,), "attn_q": (width, width), "attn_k": (width // 2, width),
        "attn_v": (width // 2, width), "attn_output": (width, width), "ffn_gate": (width, width),
        "ffn_up": (width, width), "ffn_down": (width, width),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (words, width), "output_norm.weight": (width,)}
    shapes |= {f"blk.0.{name}.weight": shape for name, shape in block.items()}
    if architecture == "qwen2":
        shapes |= {"blk.0.attn_q.bias": (width,)}
        shapes |= {f"blk.0.attn_{part}.bias": (width // 2,) for part in "kv"}
    return shapes
