"""Control vectors in llama.cpp: its own GGUF reader opens a file that optrode wrote, and its network is steered by it.

The network is a tiny Llama in float32, so that both programs compute the same numbers. What llama.cpp's command line
does between reader and network (direction K goes to place K - 1 of a buffer that begins with layer 1) is done here by
hand, after its source (`common_control_vector_load_one`), since that part is in no library.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .oracle import Measured, Oracle
from .tiny import CONFIG, kept, network

ORACLE = Oracle(
    fixture="tests/edits/oracles/llama_cpp.safetensors",
    # It comes as source: a compiler builds it, for some minutes.
    bare=("llama-cpp-python==0.3.36",),
    requires=("diskcache==5.6.3",),
)
IDS = [5, 17, 40, 3, 88, 61, 9]
LAYERS = 4
# Layers whose directions are in the file; the last block is one of them.
STEERED = (1, 3)


def measured() -> Measured:
    import optrode as op

    module = network(num_hidden_layers=LAYERS)
    tensors, about = kept(module, num_hidden_layers=LAYERS)
    width = CONFIG["hidden_size"]
    random = torch.Generator().manual_seed(1)
    vectors = {layer: 2 * torch.randn(width, generator=random) for layer in STEERED}
    with tempfile.TemporaryDirectory() as folder:
        model, steering = Path(folder) / "model.gguf", Path(folder) / "vector.gguf"
        _write_model(module, model)
        first, *others = (op.edits.add(f"layers.{layer}.out", vector) for layer, vector in vectors.items())
        edit = first
        for other in others:
            edit = edit + other
        (edit * 1.5).export(steering)
        buffer = _loaded(steering, width)
        tensors["gguf"] = torch.frombuffer(bytearray(steering.read_bytes()), dtype=torch.uint8)
        tensors["logits.plain"], tensors["logits.steered"] = _run(model, buffer, width)
        for layer in STEERED:
            alone = np.zeros_like(buffer)
            alone[layer - 1] = buffer[layer - 1]
            tensors[f"logits.{layer}"] = _run(model, alone, width)[1]
    tensors |= {f"vector.{layer}": vector for layer, vector in vectors.items()}
    tensors["ids"] = torch.tensor([IDS])
    return tensors, {**about, "steered": json.dumps(STEERED), "strength": "1.5"}


def _write_model(module: nn.Module, path: Path) -> None:
    """The network as llama.cpp wants it: its names, and rotated halves interleaved."""
    from gguf import GGUFWriter

    heads, keys = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
    config: Any = module.config
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    inner = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, value in module.state_dict().items():
        stem = name.removesuffix(".weight")
        if stem in outer:
            theirs = outer[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            theirs = f"blk.{layer}.{inner[part]}"
            if inner[part] in ("attn_q", "attn_k"):
                value = _interleaved(value, heads if inner[part] == "attn_q" else keys)
        writer.add_tensor(f"{theirs}.weight", value.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def _loaded(path: Path, width: int) -> np.ndarray:
    """What llama.cpp's own reader finds in the file, [layer - 1, width]."""
    import llama_cpp

    class Settings(ctypes.Structure):
        _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]

    (shared,) = Path(llama_cpp.__file__).parent.glob("lib/libggml-base.so")
    library = ctypes.CDLL(str(shared))
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, Settings]
    library.gguf_get_n_tensors.restype = ctypes.c_int64
    library.gguf_get_tensor_name.restype = ctypes.c_char_p
    library.gguf_get_data_offset.restype = library.gguf_get_tensor_offset.restype = ctypes.c_size_t
    library.gguf_get_tensor_size.restype = ctypes.c_size_t
    for name in ("n_tensors", "data_offset"):
        getattr(library, f"gguf_get_{name}").argtypes = [ctypes.c_void_p]
    for name in ("name", "offset", "size", "type"):
        getattr(library, f"gguf_get_tensor_{name}").argtypes = [ctypes.c_void_p, ctypes.c_int64]
    opened = library.gguf_init_from_file(str(path).encode(), Settings(True, None))
    assert opened, "llama.cpp cannot read the file"
    data, base = path.read_bytes(), library.gguf_get_data_offset(opened)
    found: dict[int, np.ndarray] = {}
    for number in range(library.gguf_get_n_tensors(opened)):
        stem, _, layer = library.gguf_get_tensor_name(opened, number).decode().partition(".")
        start, size = (
            base + library.gguf_get_tensor_offset(opened, number),
            library.gguf_get_tensor_size(opened, number),
        )
        assert stem == "direction" and int(layer) > 0 and library.gguf_get_tensor_type(opened, number) == 0
        found[int(layer)] = np.frombuffer(data[start : start + size], np.float32)
    buffer = np.zeros((max(found), width), np.float32)
    for layer, vector in found.items():
        buffer[layer - 1] = vector
    return buffer


def _run(path: Path, buffer: np.ndarray, width: int) -> tuple[Tensor, Tensor]:
    """Logits [token, vocabulary], plain and with a control vector."""
    import llama_cpp as lib

    lib.llama_backend_init()
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(str(path).encode(), settings)
    assert model, "llama.cpp cannot load the network"
    options = lib.llama_context_default_params()
    options.n_ctx, options.n_threads, options.n_threads_batch = 64, 1, 1
    # Keys and values in float32, and attention as written.
    options.type_k, options.type_v, options.flash_attn_type = 0, 0, 0
    found = []
    for steered in (False, True):
        context = lib.llama_init_from_model(model, options)
        assert context, "llama.cpp cannot make a context"
        if steered:
            flat = np.ascontiguousarray(buffer).ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            assert lib.llama_set_adapter_cvec(context, flat, buffer.size, width, 1, LAYERS) == 0
        batch = lib.llama_batch_init(len(IDS), 0, 1)
        batch.n_tokens = len(IDS)
        for place, token in enumerate(IDS):
            batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
            batch.seq_id[place][0], batch.logits[place] = 0, 1
        assert lib.llama_decode(context, batch) == 0
        size = len(IDS) * CONFIG["vocab_size"]
        logits = np.ctypeslib.as_array(lib.llama_get_logits(context), (size,)).copy()
        found.append(torch.from_numpy(logits).reshape(len(IDS), CONFIG["vocab_size"]))
        lib.llama_free(context)
    lib.llama_model_free(model)
    return found[0], found[1]
