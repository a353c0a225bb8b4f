"""The style of all cards. Its names begin with `ot-` and hold within `.optrode` alone.

The class stands twice in each selector to outweigh the tables of Jupyter and of documentation themes. Ink is
`currentColor` throughout; the two hues of ours keep a contrast of 4 on white and on near-black.
"""

from __future__ import annotations

import re

ACCENT = "#4a70e6"
WARN = "#c2660c"

_RULES = f"""
O {{ --ot-line: rgba(128,134,144,.28); --ot-quiet: .68; --ot-accent: {ACCENT}; --ot-warn: {WARN};
  font: 13px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: inherit; padding: 2px 0 4px; max-width: 100%; text-align: left; }}
O .ot-head {{ margin: 0 0 6px; line-height: 1.6; overflow-wrap: anywhere; }}
O .ot-head b {{ font-weight: 600; }}
O .ot-kind {{ border: 1px solid var(--ot-line); border-radius: 4px; padding: 1px 6px; font-size: 11.5px;
  margin-right: 4px;
  white-space: nowrap; }}
O .ot-about {{ opacity: var(--ot-quiet); }}
O .ot-about::before {{ content: "·"; margin: 0 5px 0 1px; }}
O .ot-quiet {{ opacity: var(--ot-quiet); }}
O .ot-warn {{ color: var(--ot-warn); }}
O .ot-says {{ margin: 4px 0 6px; max-width: 76ch; }}
O .ot-note {{ margin: 6px 0 0; padding: 0 0 0 10px; border-left: 3px solid var(--ot-warn); max-width: 90ch;
  overflow-wrap: anywhere; }}
O .ot-scroll {{ overflow-x: auto; max-width: 100%; }}
O table {{ border-collapse: collapse; border: 0; border-radius: 0; margin: 2px 0 4px; width: auto;
  font-size: 12.5px; line-height: 1.45;
  color: inherit; background: none; box-shadow: none; display: table; }}
O th, O td {{ border: 0; border-bottom: 1px solid var(--ot-line); padding: 3px 18px 3px 0; text-align: left;
  vertical-align: baseline; background: none; font-weight: 400; max-width: 60em; min-width: 0; white-space: normal;
  color: inherit; }}
O tr, O tbody tr:nth-child(n), O tbody tr:hover {{ background: none; box-shadow: none; border: 0; }}
O thead th {{ font-size: 11.5px; vertical-align: bottom; white-space: nowrap; }}
O thead th, O .ot-facts th {{ color: inherit; opacity: var(--ot-quiet); }}
O tbody tr:last-child td, O tbody tr:last-child th {{ border-bottom: 0; }}
O .ot-table td, O .ot-table th {{ white-space: nowrap; }}
O .ot-table td.ot-text {{ white-space: normal; min-width: 16em; }}
O .ot-table code {{ white-space: nowrap; }}
O .ot-facts th, O .ot-facts td {{ border: 0; padding-top: 1px; padding-bottom: 1px; }}
O .ot-facts th {{ white-space: nowrap; min-width: 5em; }}
O .ot-n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
O code, O pre {{ box-shadow: none; outline: 0; }}
O code {{ font: 12px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; color: inherit;
  background: none; border: 0; padding: 0; white-space: pre-wrap; overflow-wrap: anywhere; }}
O pre {{ font: 12px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; margin: 0;
  color: inherit;
  background: none; border: 0; padding: 0; white-space: pre-wrap; }}
O details {{ margin: 2px 0; padding: 0; border: 0; background: none; box-shadow: none; border-radius: 0;
  font-size: inherit;
  color: inherit; overflow: visible; }}
O summary {{ cursor: pointer; padding: 2px 0; margin: 0; border: 0; background: none; font-weight: 400;
  list-style: none;
  display: block; min-height: 0; color: inherit; }}
O summary::-webkit-details-marker {{ display: none; }}
O summary::marker {{ content: none; }}
O summary::after {{ content: none; }}
O summary::before {{ content: "+"; display: inline-block; position: static; width: 14px; height: auto; margin: 0;
  background: none;
  opacity: var(--ot-quiet); -webkit-mask-image: none; mask-image: none; transform: none;
  font-variant-numeric: tabular-nums; }}
O details[open] > summary::before {{ content: "\\2212"; }}
O summary:focus-visible {{ outline: 2px solid var(--ot-accent); outline-offset: 2px; border-radius: 2px; }}
O .ot-in {{ padding: 0 0 6px 14px; }}
O svg {{ display: block; max-width: none; color: inherit; overflow: visible; }}
O td svg {{ display: inline-block; vertical-align: middle; }}
O svg text {{ font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  fill: currentColor;
  fill-opacity: .75; }}
O .ot-panels {{ display: flex; flex-wrap: wrap; gap: 0 28px; align-items: flex-start; }}
O figure {{ margin: 4px 0 6px; padding: 0; max-width: 100%; overflow-x: auto; text-align: left; display: block;
  width: auto; }}
O figcaption {{ font-size: 12px; margin: 0 0 2px; font-weight: 400; text-align: left; max-width: none;
  font-style: normal; }}
O progress {{ width: 160px; height: 8px; vertical-align: middle; accent-color: var(--ot-accent); margin: 0 8px; }}
"""

STYLE = re.sub(r"\s+", " ", re.sub(r"\bO(?= )", "div.optrode.optrode", _RULES)).strip()
