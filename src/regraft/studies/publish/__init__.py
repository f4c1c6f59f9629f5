"""What a study found, as a page: published against measured, figures, and how it was made."""

from regraft.studies.publish.index import index
from regraft.studies.publish.markdown import markdown
from regraft.studies.publish.page import page
from regraft.studies.publish.published import Published, published

__all__ = ["Published", "index", "markdown", "page", "published"]
