"""Parts of every report page: charts as specs, the chart library, and a policy that runs our own scripts only."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from optrode.report.result import as_json

TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, view: dict[str, Any], charts: dict[str, Any], result: dict[str, Any]) -> str:
    """A template of ours with plain strings, which it escapes, and charts; `result` goes along as JSON."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    specs = {name: spec for name, chart in charts.items() if (spec := _spec(chart))}
    scripts = [_chart_library(), (TEMPLATES / "report.js").read_text(encoding="utf-8")] if specs else []
    return environment.get_template(template).render(
        **view,
        charts={name: Markup(spec) for name, spec in specs.items()},
        policy=_policy(scripts),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        result_json=Markup(_script_safe(as_json(result))),
    )


def _spec(chart: Any) -> str | None:
    # Checking a chart against the schema takes longer than all the rest; the tests do it, on the same charts.
    return None if chart is None else _script_safe(as_json(chart.to_dict(validate=False)))


def _script_safe(text: str) -> str:
    """JSON that cannot end or comment out the script block it stands in; it parses to the same value."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


@lru_cache(maxsize=1)
def _chart_library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, of the version that Altair writes for (0.9 MB, about a second)."""
    import altair
    import vl_convert

    major_minor = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=major_minor)
    # The hash in the policy is taken over the text as a browser reads it, which has no carriage returns.
    return bundle.replace("\r\n", "\n").replace("\r", "\n")


def _policy(scripts: list[str]) -> str:
    """No network at all, and only the scripts written here, by hash.

    Vega's expression interpreter stands in for generated code, so `unsafe-eval` is not needed; its SVG needs inline
    styles.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii") for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
