"""One self-contained page about a finished run, or about several side by side: `mer4d report`.

    record.py    what the files of a run say
    clips.py     pictures of single clips, where the corpus is at hand
    render.py    both, through page.html and page.css, to one file
    paper.py     the page's figures once more, for papers

The page has no script and asks for nothing: pictures lie in it, and its content security policy forbids all else.
"""

from mer4d.page.render import write_page

__all__ = ["write_page"]
