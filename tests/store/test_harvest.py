"""What a harvest writes is what a read gives: the right rows, exactly as many, with the right words for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode.errors import BadFile, BadInput, MissingFile, NotFinite, NotSupported, UnknownSite


def alone(model: op.Model, text: Any, site: str, **options: Any) -> torch.Tensor:
    """Activations of one text by itself."""
    return op.read(model, [text], site, **options).rows(site)


def test_rows_are_those_of_reading_each_text_alone(llama: op.Model, texts: list[str], tmp_path: Path) -> None:
    store = op.harvest(llama, texts, ["layers.*.out", "layers.1.attn.heads"], to=tmp_path / "s", tokens_per_forward=1)
    for site in ("layers.2.out", "layers.1.attn.heads"):
        expected = torch.cat([op.read(llama, [text], site, template="raw")[site][0] for text in texts])
        assert torch.equal(store[site][:], expected)
    assert store.site("layers.1.attn.heads").axes == ("head", "feature")
    assert store.complete and store.unit == "token"
    assert store.recipe["start_token"] == {"raw": "raw: none", "chat": "chat: <|im_start|>"}


def test_padded_forwards_give_the_same_to_rounding(stored: op.Store, llama: op.Model, texts: list[str]) -> None:
    expected = torch.cat([alone(llama, text, "layers.2.out", template="raw") for text in texts])[:700]
    torch.testing.assert_close(stored["layers.2.out"][:], expected, rtol=1e-4, atol=1e-4)
    assert len(stored.shards) > 3


@pytest.mark.parametrize("tokens", [1, 149, 150, 151, 700])
def test_exactly_the_tokens_that_were_asked_for(
    make_store: Callable[..., op.Store], tokens: int, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "s", tokens=tokens)
    assert len(store) == tokens == len(store["layers.0.out"][:]) == len(store.metadata())
    assert store.complete


def test_too_few_tokens_in_the_data_are_said(llama: op.Model, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="the data has 2 rows, fewer than the 9"):
        assert len(op.harvest(llama, ["The cat"], to=tmp_path / "s", tokens=9)) == 2


def test_what_the_rows_are(stored: op.Store, texts: list[str]) -> None:
    frame = stored.metadata()
    assert list(frame.columns) == [
        "document", "example", "position", "token_id", "token", "text", "role", "special", "mask",
    ]  # fmt: skip
    for number in range(3):
        rows = frame[frame.document == number]
        assert "".join(rows.text) == texts[number]
        assert list(rows.position) == list(range(len(rows)))
    assert set(frame.role) == {"text"}
    # The first token's activation is no sink in a random network, and no token is special.
    assert not frame.special.any()
    documents = stored.documents()
    assert list(documents.text[:5]) == texts[:5]
    assert int(documents.rows.sum()) == len(stored)
    assert list(documents.row) == list(documents.rows.cumsum() - documents.rows)


def test_the_mask_leaves_out_sinks(make_store: Callable[..., op.Store], make_model: Any, tmp_path: Path) -> None:
    model = make_model("llama", seed=5)
    with torch.no_grad():
        # One token gets a huge stream.
        token = model.encode(["The cat"], template="raw").ids[0, 0]
        model.module.model.embed_tokens.weight[token] *= 1000
    store = make_store(tmp_path / "s", model=model, data=["The cat sat on the mat. The dog"], tokens=None)
    frame = store.metadata()
    assert not frame["mask"][frame.token_id == int(token)].any()
    assert frame["mask"][frame.token_id != int(token)].all()


def test_long_texts_are_cut_into_pieces(llama: op.Model, texts: list[str], tmp_path: Path) -> None:
    store = op.harvest(llama, texts[:5], "layers.2.out", to=tmp_path / "s", context=16, tokens_per_forward=1)
    frame, documents = store.metadata(), store.documents()
    assert frame.position.max() == 15
    assert list(documents[documents.document == 4].piece) == list(range(sum(documents.document == 4)))
    assert "".join(documents[documents.document == 4].text) == texts[4]
    assert "".join(frame[frame.document == 4].text) == texts[4]
    ids = torch.tensor(frame[frame.example == 0].token_id.to_numpy())
    own = op.read(llama, {"input_ids": ids[None].long()}, "layers.2.out")["layers.2.out"][0]
    assert torch.equal(store["layers.2.out"][: len(ids)], own)


def test_pieces_of_an_encoder_have_their_own_start_and_end(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4, "b": 5}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    config = BertConfig(
        vocab_size=6, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16,
    )  # fmt: skip
    model = op.load(BertModel(config).eval(), tokenizer=tokenizer)
    store = op.harvest(model, ["a b a b a", "b"], "layers.0.out", to=tmp_path / "s", context=5)
    frame = store.metadata()
    assert list(frame[frame.document == 0].token_id) == [1, 4, 5, 4, 2, 1, 5, 4, 2]
    assert list(frame[frame.document == 1].token_id) == [1, 5, 2]
    assert list(frame["mask"]) == [token in (4, 5) for token in frame.token_id]
    pooled = op.harvest(model, ["a b a b a", "b"], "pooled", to=tmp_path / "pooled")
    assert pooled.unit == "example" and pooled["pooled"].shape == (2, 8)
    expected = op.read(model, ["a b a b a", "b"], "pooled")["pooled"]
    torch.testing.assert_close(pooled["pooled"][:], expected)


def test_conversations_go_through_the_template_and_positions_select(llama: op.Model, tmp_path: Path) -> None:
    talks = [
        [{"role": "user", "content": "The cat"}, {"role": "assistant", "content": "sat on the mat."}],
        [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "Where?"}],
    ]
    store = op.harvest(llama, talks, "layers.2.out", to=tmp_path / "s", positions="user", tokens_per_forward=1)
    acts = [op.read(llama, [talk], "layers.2.out", positions="user") for talk in talks]
    assert torch.equal(store["layers.2.out"][:], torch.cat([part["layers.2.out"].flatten(0, -2) for part in acts]))
    assert set(store.metadata().role) == {"user"}
    assert "".join(store.metadata().text) == "The catWhere?"
    last = op.harvest(llama, talks, "layers.2.out", to=tmp_path / "last", positions="last_prompt")
    assert len(last) == 2


def test_scattered_positions_land_in_their_rows(llama: op.Model, texts: list[str], tmp_path: Path) -> None:
    chosen = "index:0,2,4,6,8,10,12,14,-1"
    store = op.harvest(llama, texts, "layers.1.out", to=tmp_path / "s", positions=chosen)
    expected = op.read(llama, texts, "layers.1.out", positions=chosen, template="raw")
    torch.testing.assert_close(store["layers.1.out"][:], expected["layers.1.out"], rtol=1e-4, atol=1e-4)
    assert store.verify() == []


def test_token_ids_need_no_tokenizer(llama: op.Model, tmp_path: Path) -> None:
    bare = op.load(llama.module, tokenizer=None)
    store = op.harvest(bare, [[5, 6, 7], [8, 9]], "layers.2.out", to=tmp_path / "s")
    assert list(store.metadata().token_id) == [5, 6, 7, 8, 9]
    with pytest.raises(NotSupported, match="no tokenizer"):
        op.harvest(bare, ["text"], to=tmp_path / "t")
    with pytest.raises(BadInput, match="token ids outside"):
        op.harvest(bare, [[5, 10**6]], to=tmp_path / "u")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, "float16", "float16_scaled", "float32"])
def test_every_dtype_reads_back_as_it_was_rounded(
    make_store: Callable[..., op.Store], whole: torch.Tensor, dtype: Any, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "s", dtype=dtype)
    values, errors = store["layers.2.out"][:], store.rounding().loc[(slice(None), "layers.2.out"), :]
    assert values.dtype == (
        torch.bfloat16 if dtype is torch.bfloat16 else torch.float16 if dtype == "float16" else torch.float32
    )
    error = (values.double() - whole.double()).abs().max()
    assert float(errors.max_abs.max()) == pytest.approx(float(error), rel=1e-3)
    if dtype == "float16_scaled":
        assert torch.all((values - whole).abs() <= whole.abs() * 2.0**-11 + 1e-7)
    assert store.verify() == []


def test_float16_that_would_overflow_is_refused_and_leaves_nothing_half_written(
    make_model: Any, texts: list[str], tmp_path: Path
) -> None:
    model = make_model("llama", seed=2)
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight *= 1e6
    with pytest.raises(NotFinite, match=r"layers.1.out reaches .* float16 cannot hold"):
        op.harvest(model, texts, "layers.*.out", to=tmp_path / "s", dtype="float16")
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["store.json", "writer.lock"]
    store = op.harvest(model, texts, "layers.*.out", to=tmp_path / "t", dtype="float16_scaled")
    assert bool(torch.isfinite(store["layers.1.out"][:]).all())


# Data ---------------------------------------------------------------------------------------------------------------


def write(folder: Path, kind: str, texts: list[str]) -> Path:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "txt":
        (folder / "d.txt").write_text("\n\n".join(texts) + "\n")
    elif kind == "jsonl":
        (folder / "d.jsonl").write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts))
    elif kind == "parquet":
        pq.write_table(pa.table({"n": range(len(texts)), "text": texts}), folder / "d.parquet")
    else:
        # As `datasets.save_to_disk` writes: Arrow streams, and their order in state.json.
        names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
        for name, part in zip(names, (texts[:10], texts[10:]), strict=True):
            table = pa.table({"text": part})
            with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
                out.write_table(table)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        return folder
    return folder / f"d.{kind}"


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet", "datasets"])
def test_every_kind_of_text_file_gives_the_same_rows(
    make_store: Callable[..., op.Store], texts: list[str], kind: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    data = [text.strip() for text in texts]
    store = make_store(tmp_path / "s", data=write(tmp_path / "data", kind, data), tokens=650)
    listed = make_store(tmp_path / "l", data=data, tokens=650)
    assert torch.equal(store["layers.2.out"][:], listed["layers.2.out"][:])
    assert store.documents().source.iloc[3].startswith(("d.", "data-0"))


def test_wrong_data_is_told_apart(llama: op.Model, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"txt": "a"}\n')
    (tmp_path / "bad.txt").write_bytes(b"fine\n\xff\xfe\n")
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    cases: list[tuple[Any, Any, str]] = [
        (tmp_path / "absent.txt", MissingFile, "there is no data at"),
        (tmp_path / "d.jsonl", BadInput, "has none of the columns text, prompt.*column="),
        (tmp_path / "split", BadInput, "several splits .*train"),
        ([], BadInput, "empty list"),
        (["fine", 3], BadInput, "item 1 is int"),
        (["fine", " "], BadInput, "item 1 is empty"),
        (iter(["a"]), BadInput, "can be gone through again"),
    ]
    for data, kind, says in cases:
        with pytest.raises(kind, match=says):
            op.harvest(llama, data, to=tmp_path / "s")
    with pytest.raises(BadFile, match=r"bad.txt line 2 is not UTF-8"):
        op.harvest(llama, tmp_path / "bad.txt", to=tmp_path / "s2")
    with pytest.raises(UnknownSite, match="did you mean layers"):
        op.harvest(llama, ["a"], "layers.0.otu", to=tmp_path / "s3")
    with pytest.raises(BadInput, match="did you mean txt"):
        op.harvest(llama, tmp_path / "d.jsonl", to=tmp_path / "s4", column="text_")


def test_what_cannot_be_rows_is_refused(llama: op.Model, texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match=r"layers.1.attn.pattern has an axis of keys"):
        op.harvest(llama, texts, "layers.1.attn.pattern", to=tmp_path / "s")
    with llama.edited(op.edits.add("layers.1.out", torch.ones(32))):
        op.read(llama, texts, "layers.1.out")
        with pytest.raises(NotSupported, match="edit that is active"):
            op.harvest(llama, texts, to=tmp_path / "s")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds other files \(notes.txt\)"):
        op.harvest(llama, texts, to=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


# Pictures -----------------------------------------------------------------------------------------------------------


class Halves:
    """An image processor: the picture as numbers from 0 to 1."""

    def __call__(self, images: Any, return_tensors: str = "pt") -> dict[str, torch.Tensor]:
        import numpy as np

        arrays = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255 for image in images]
        return {"pixel_values": torch.stack(arrays)}


def test_pictures_give_a_row_for_each_patch_or_each_picture(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4,
        num_labels=3,
    )  # fmt: skip
    model = op.load(ViTForImageClassification(config).eval(), processor=Halves())
    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(5):
        array = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "pictures" / "cats" / f"{number}.png")
    store = op.harvest(model, tmp_path / "pictures", "layers.*.out", to=tmp_path / "s", tokens_per_forward=10)
    assert store.unit == "patch" and store["layers.1.out"].shape == (25, 16)
    pixels = Halves()([Image.open(tmp_path / "pictures" / "cats" / f"{number}.png") for number in range(5)])
    acts = op.read(model, pixels["pixel_values"], "layers.1.out")["layers.1.out"].flatten(0, 1)
    torch.testing.assert_close(store["layers.1.out"][:], acts)
    assert list(store.metadata(slice(3, 7)).position) == [3, 4, 0, 1]
    assert list(store.documents().source)[:2] == ["cats/0.png", "cats/1.png"]
    whole = op.harvest(model, tmp_path / "pictures", ["layers.1.out", "logits"], to=tmp_path / "w", tokens=3)
    assert whole.unit == "example" and whole["layers.1.out"].shape == (3, 5, 16) and whole["logits"].shape == (3, 3)
    assert whole.verify() == store.verify() == []
