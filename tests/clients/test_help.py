import click
import pytest

from recd.clients.recctl.cli import COMMANDS, recctl


def commands(group=recctl, path=()):
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_and_option_says_what_it_does_and_takes_json(path):
    command = ALL[path]
    assert (command.help or "").strip()
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []
    if not isinstance(command, click.Group):
        assert any("--json" in option.opts for option in options)


def test_the_help_lists_every_command_and_every_exit_code(recctl):
    told = recctl("--help").out
    for name in COMMANDS:
        assert f"\n  {name} " in told
    for code in (0, 1, 2, 3, 4, 130):
        assert f"\n    {code} " in told


def test_the_list_of_subcommands_cuts_no_sentence(recctl):
    groups = [path for path, command in ALL.items() if isinstance(command, click.Group)]
    assert ("config",) in groups
    for path in groups:
        listed = recctl(*path, "--help").out.partition("\nCommands:\n")[2]
        assert listed
        assert "..." not in listed


def test_what_is_asked_with_json_is_a_document_also_where_people_get_a_script(recctl):
    told = recctl("completion", "bash", "--json").json
    assert told["shell"] == "bash"
    assert told["script"] in recctl("completion", "bash").out
