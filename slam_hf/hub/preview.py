"""Shows a card before it is published: one page that plays the samples, and needs no network."""

import base64
import html
import mimetypes
import re
from pathlib import Path

from huggingface_hub import RepoCard
from markdown_it import MarkdownIt


# No script runs, and nothing is fetched: cards repeat what is in the files of others.
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:; \
style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }}
pre {{ overflow-x: auto; padding: 0.75rem; background: #8882; }}
table {{ display: block; overflow-x: auto; border-collapse: collapse; }}
th, td {{ border: 1px solid #8888; padding: 0.25rem 0.5rem; text-align: left; }}
</style>
<details><summary>Metadata</summary><pre>{metadata}</pre></details>
{content}
</html>
"""


def render_page(folder: Path, repo_url: str) -> str:
    r"""
    Render the card of a folder that is about to be published.

    Args:
        folder (`Path`):
            The folder, with its README.md.
        repo_url (`str`):
            Address of the files in the repository, such as `"https://huggingface.co/user/model/resolve/main/"`. Those
            that are in the folder become part of the page.

    Returns:
        `str`: the page, in HTML.
    """
    card = RepoCard.load(folder / "README.md")
    content = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)

    def embed(source: re.Match) -> str:
        path = folder / html.unescape(source[1]).removeprefix(repo_url)
        if not (path.resolve().is_relative_to(folder.resolve()) and path.is_file()):
            return source[0]
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return f'src="data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"'

    content = re.sub(r'src="([^"]*)"', embed, content)
    return PAGE.format(title=html.escape(folder.name), metadata=html.escape(card.data.to_yaml()), content=content)
