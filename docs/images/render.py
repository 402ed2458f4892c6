"""Draws the README's pictures of comments: golden file → GitHub's cmark → Chromium → PNG.

python docs/images/render.py        # needs `chromium` and, once, the tests: they install Mermaid
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import cmarkgfm
from cmarkgfm.cmark import Options

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "unit" / "report" / "golden"
MERMAID = ROOT / "tests" / "contract" / "mermaid" / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"
# Golden file, height in CSS pixels, and whether folded parts are shown open.
PICTURES = [("spot-fallback", 2160, False), ("exit-1-with-traceback", 1330, True)]

STYLE = """
body { margin: 0; padding: 16px; background: #fff; color: #1f2328; width: 868px; line-height: 1.5; font-size: 14px;
  font-family: "Segoe UI", "Noto Sans", "Liberation Sans", Helvetica, Arial, sans-serif, "Noto Color Emoji"; }
.comment { border: 1px solid #d1d9e0; border-radius: 6px; }
.by { background: #f6f8fa; border-bottom: 1px solid #d1d9e0; border-radius: 6px 6px 0 0; padding: 8px 16px; }
.by i { border: 1px solid #d1d9e0; border-radius: 2em; padding: 0 7px; font: 12px sans-serif; }
.body { padding: 16px; }
.body > :first-child { margin-top: 0; }
.body > :last-child { margin-bottom: 0; }
p, ul, table, pre, blockquote, details, .alert { margin: 0 0 16px; }
a { color: #0969da; text-decoration: none; }
h3 { font-size: 1.25em; margin: 0 0 16px; }
h4 { font-size: 1em; margin: 24px 0 16px; }
table { border-collapse: collapse; display: block; width: max-content; max-width: 100%; overflow: auto; }
td, th { border: 1px solid #d1d9e0; padding: 6px 13px; }
tr:nth-child(2n) td { background: #f6f8fa; }
code { background: #818b981f; border-radius: 6px; padding: .2em .4em; white-space: break-spaces; }
code { font: 85% "Liberation Mono", monospace; }
pre { background: #f6f8fa; border-radius: 6px; padding: 16px; overflow: auto; line-height: 1.45; }
pre code { background: none; padding: 0; white-space: pre; }
ul { padding-left: 2em; }
sub { font-size: 75%; }
.alert { border-left: .25em solid #9a6700; padding: 0 1em; }
.alert p { margin: 0; }
.alert .kind { color: #9a6700; font-weight: 500; margin-bottom: 4px; }
.NOTE { border-color: #0969da; }
.NOTE .kind { color: #0969da; }
.mermaid { background: none; padding: 0; text-align: center; }
"""


def main() -> None:
    for name, height, is_open in PICTURES:
        with tempfile.TemporaryDirectory() as directory:
            page = Path(directory) / "page.html"
            page.write_text(
                html((GOLDEN / f"{name}.md").read_text(encoding="utf-8"), is_open=is_open), encoding="utf-8"
            )
            picture = Path(__file__).parent / f"comment-{name}.png"
            subprocess.run(
                [
                    "chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size=900,{height}",
                    "--virtual-time-budget=10000", f"--user-data-dir={directory}/profile", f"--screenshot={picture}",
                    page.as_uri(),
                ],
                check=True,
                capture_output=True,
            )  # fmt: skip
            print(picture, picture.stat().st_size)


def html(shown: str, *, is_open: bool) -> str:
    """A page with the comment as GitHub shows it: its alerts and charts are made after cmark."""
    options = Options.CMARK_OPT_UNSAFE | Options.CMARK_OPT_GITHUB_PRE_LANG
    body = cmarkgfm.github_flavored_markdown_to_html(shown, options)
    body = re.sub(
        r'<pre lang="mermaid"><code>(.*?)</code></pre>', r'<pre class="mermaid">\1</pre>', body, flags=re.DOTALL
    )
    body = re.sub(
        r"<blockquote>\s*<p>\[!(\w+)\]\n?(.*?)</blockquote>",
        lambda found: f'<div class="alert {found[1]}"><p class="kind">{found[1].title()}</p><p>{found[2]}</div>',
        body,
        flags=re.DOTALL,
    )
    body = body.replace("<details>", "<details open>", 1) if is_open else body
    by = '<div class="by"><b>github-actions</b> <i>bot</i> commented now</div>'
    page = f'<div class="comment">{by}<div class="body">{body}</div></div>'
    drawing = f'<script src="{MERMAID.as_uri()}"></script><script>mermaid.initialize({{startOnLoad: true}})</script>'
    return f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style>{page}{drawing}'


if __name__ == "__main__":
    main()
