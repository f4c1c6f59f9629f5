"""A directive that shows a subcommand's usage and options as the command itself declares them."""

import importlib.util

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from regraft.cli.app import COMMANDS, cli


def exists(name):
    """Whether the module of a subcommand is there."""
    return importlib.util.find_spec(COMMANDS[name]) is not None


class Command(SphinxDirective):
    """``{command} NAME`` or ``{command} GROUP NAME``: usage, then a definition list of options."""

    required_arguments = 1
    optional_arguments = 1

    def run(self):
        name = " ".join(self.arguments)
        if not exists(self.arguments[0]):
            return [nodes.paragraph(text="This command is not there yet.")]
        command = cli
        for part in self.arguments:
            command = command.get_command(None, part)
        context = click.Context(command, info_name=f"regraft {name}")
        context.show_default = True
        usage = " ".join([f"regraft {name}", *command.collect_usage_pieces(context)])
        items = nodes.definition_list(classes=["options"])
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is None:
                continue
            term, text = record
            explained = nodes.paragraph(text=text)
            explained["support_smartquotes"] = False  # an option's two hyphens are not a dash
            term_node = nodes.term("", "", nodes.literal(text=term))
            items += nodes.definition_list_item("", term_node, nodes.definition("", explained))
        block = nodes.literal_block(usage, usage)
        block["language"] = "text"
        return [block, items]


def setup(app):
    """Called by Sphinx."""
    app.add_directive("command", Command)
    return {"parallel_read_safe": True}
