"""`optrode read MODEL PROMPT...`: activations at sites, summed up or saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common

if TYPE_CHECKING:
    from ..activations import Activations

ENDINGS = (".npz", ".safetensors", ".csv")


def register(app: typer.Typer) -> None:
    @app.command("read")
    def read(
        model: str = typer.Argument(..., help=common.MODEL_HELP),
        prompts: list[str] | None = typer.Argument(
            None, help="Prompts, with a chat model each one user message; or pictures, for a model that sees."
        ),
        sites: list[str] = typer.Option(
            ["layers.*.out"], "--sites", "-s", help="Site pattern; may be given several times."
        ),
        positions: str | None = typer.Option(None, help="Which tokens, such as last_prompt, user or content."),
        file: Path | None = typer.Option(None, help="Prompts from a text file (one a line) or JSONL."),
        out: Path | None = typer.Option(None, "--out", "-o", help="Save to .npz, .safetensors or .csv (one site)."),
        reduce: str | None = typer.Option(
            None, help="Keep one vector a prompt: mean, max, min, norm or last; or one number a token: norm@feature."
        ),
        budget: str | None = typer.Option(
            None, help="Memory to take at most, such as 2GB: smaller forwards, results on disk, or a refusal."
        ),
        plan: bool = typer.Option(False, "--plan", help="Print what would be read, its bytes and time, and stop."),
        system: str | None = common.System,
        raw: bool = common.Raw,
        to: str | None = typer.Option(
            None, help="Harvest into this store, a folder or an fsspec URL; PROMPTS is then a file or folder of data."
        ),
        tokens: int | None = typer.Option(None, help="With --to: exactly so many rows; all by default."),
        dtype: str | None = typer.Option(
            None, help="With --to: keep as float32, bfloat16, float16 or float16_scaled; by default nothing is rounded."
        ),
        context: int | None = typer.Option(None, help="With --to: the most tokens of a piece of text, 1024 or fewer."),
        column: str | None = typer.Option(None, help="With --to: the column of the data that holds the text."),
        shard_rows: int | None = typer.Option(None, help="With --to: rows of a shard; by default 256 MiB of them."),
        as_json: bool = common.Json,
    ) -> None:
        """Read activations. The forward stops after the last site that was asked for.

        With --to they go to disk, in any amount; the same command goes on where it was stopped.

        Example: [bold]optrode read smollm2-135m "The film was" --sites layers.15.out --positions last_prompt[/]
        """
        if to is not None:
            if budget is not None or reduce is not None:
                raise BadInput("--budget and --reduce are for reads into memory: leave them out with --to")
            from .harvesting import harvest, planned

            (planned if plan else harvest)(
                model, prompts, file, to, sites, as_json, dtype=dtype, tokens=tokens, positions=positions,
                context=context, template=common.template(raw), system=system, column=column, shard_rows=shard_rows,
            )  # fmt: skip
            return
        if out is not None and out.suffix not in ENDINGS:
            raise BadInput(f"'{out.name}' ends with no known format: use {', '.join(ENDINGS)}")
        host = common.load_model(model)
        asked = common.gather_inputs(host, prompts, file)
        options = {"positions": positions, "reduce": reduce, "budget": budget}
        if plan:
            found = host.plan(asked, sites, **options, template=common.template(raw), system=system)
            common.print_json(found.as_dict()) if as_json else common.console().print(found)
            return
        acts = host.read(asked, sites, **options, template=common.template(raw), system=system)
        if out is not None:
            save(acts, out)
        if as_json:
            common.print_json({**summary(acts), "saved": str(out) if out else None})
            return
        common.console().print(table(acts))
        common.note(
            f"{acts.layers_run} layers run, {acts.layers_skipped} skipped" + (f"; saved to {out}" if out else "")
        )


def summary(acts: Activations) -> dict[str, Any]:
    """Shape and size of every site, plain values."""
    found = {}
    for site, value in acts.items():
        norms = acts.rows(site).float().norm(dim=-1)
        found[site] = {
            "axes": list(acts.axes[site]),
            "shape": list(value.shape),
            "dtype": str(value.dtype).removeprefix("torch."),
            "median_norm": float(norms.median()),
            "largest": float(value.float().abs().max()),
        }
    return {"sites": found, "layers_run": acts.layers_run, "layers_skipped": acts.layers_skipped, "bytes": acts.nbytes}


def table(acts: Activations) -> Any:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    shown.add_column("site")
    for title in ("shape", "median norm", "largest value"):
        shown.add_column(title, justify="right")
    for site, row in summary(acts)["sites"].items():
        shape = ", ".join(f"{name} {size}" for name, size in zip(row["axes"], row["shape"], strict=False))
        shown.add_row(site, shape, f"{row['median_norm']:.4g}", f"{row['largest']:.4g}")
    return shown


def save(acts: Activations, out: Path) -> None:
    """Write activations in the format that the file's ending names; the file is whole or absent."""
    from ..home import written_whole

    if out.suffix == ".csv" and len(acts) != 1:
        raise BadInput(f"a CSV file holds one site, but {len(acts)} were read: choose one, or save to .npz")
    with written_whole(out) as aside:
        if out.suffix == ".csv":
            acts.to_pandas(next(iter(acts))).to_csv(aside)
        elif out.suffix == ".npz":
            import numpy as np

            with open(aside, "wb") as handle:
                np.savez(handle, **acts.numpy(), **_token_arrays(acts))  # type: ignore[arg-type]
        else:
            from safetensors.torch import save_file

            save_file({site: value.contiguous() for site, value in acts.items()}, aside)


def _token_arrays(acts: Activations) -> dict[str, Any]:
    if acts.batch is None:
        return {}
    return {"token_ids": acts.batch.ids.cpu().numpy(), "mask": acts.batch.mask.cpu().numpy()}
