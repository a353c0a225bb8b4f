"""Pages of the documentation from its notebooks, made when the site is built (a hook of mkdocs; needs no Jupyter)."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any


def on_files(files: Any, config: Any) -> Any:
    """For each notebook a page of the same name; the notebook itself stays beside it, to be taken along."""
    from mkdocs.structure.files import File

    for path in sorted((Path(config.docs_dir) / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page(path)))
    return files


def page(path: Path) -> str:
    """Markdown of a notebook: code in fences, outputs as the HTML or the text that was shown."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            if len(parts) == 1:
                parts.append(f"[Take this page as a notebook]({path.name}).")
        else:
            parts.append(f"```python\n{source}\n```")
            parts += [_output(output) for output in cell["outputs"]]
    return "\n\n".join(part for part in parts if part) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        # A blank line would end the block of HTML.
        shown = "\n".join(line for line in "".join(data["text/html"]).splitlines() if line.strip())
        return f'<div class="notebook-output">{shown}</div>'
    text = "".join(output.get("text") or data.get("text/plain") or "").rstrip("\n")
    lines = "\n".join(line or "&#8203;" for line in html.escape(text, quote=False).splitlines())
    return f'<div class="notebook-output"><pre>{lines}</pre></div>' if text else ""
