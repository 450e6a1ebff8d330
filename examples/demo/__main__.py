"""`make demo`: plays the story and leaves the gateway up until Ctrl-C; DEMO_EXIT=1 ends it by itself, SALES is the sales agent."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from time import monotonic

from examples.demo.programs import Programs
from examples.demo.sales import SALES
from examples.demo.screen import Screen, StepFailed
from examples.demo.story import Story


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it behind itself, which has it ignored
    screen, sales = Screen(), os.environ.get("SALES", "")
    if sales not in SALES:
        print(f"demo: SALES={sales} is unknown; there is {', '.join(filter(None, SALES))}, or none of these", file=sys.stderr)
        return 2
    home = Path(tempfile.mkdtemp(prefix="interlock-demo-"))
    programs = Programs(home)
    try:
        return tell(screen, Story(screen, programs, home, SALES[sales]))
    except KeyboardInterrupt:
        return 130
    finally:
        screen.console.print()
        screen.say("Ending all programs.", "dim")
        programs.stop()
        shutil.rmtree(home, ignore_errors=True)


def tell(screen: Screen, story: Story) -> int:
    """The exit code: 0 only when every step went as it should."""
    began = monotonic()
    screen.title("Interlock", "Agents of different vendors hand work to each other,\nwith the rights of the person who asked and no more.")
    try:
        story.play()
    except StepFailed as failed:
        screen.failure(str(failed))
        for program in story.programs.started:
            if words := program.last_words():
                screen.say(f"--- the end of {program.log.name}\n{words}", "dim")
        return 1
    screen.console.print()
    screen.say(f"Every step went as it should, in {monotonic() - began:.0f} s.", "bold green")
    if os.environ.get("DEMO_EXIT") != "1":
        tell_how_to_go_on(screen, story)
        show_console(screen, story)
        wait_for_interrupt(screen)
    else:
        show_console(screen, story)
    return 0


def show_console(screen: Screen, story: Story) -> None:
    """Prints a one-time link to the console, and what to look at there."""
    screen.say("The console in a browser, as alice; the link is good once, for five minutes:")
    _, printed = story.interlock.output("console", token=story.alice_token)
    print(f"   {printed.strip().splitlines()[0]}")  # in one line, so that terminals make it a link
    screen.say("Look there at", "dim")
    screen.commands(
        [
            "/console                    what ran, what it cost, what needs a person",
            "/console/tasks              her order: its waterfall, and each why",
            "/console/agents/support/try the same by a form, with the raw messages",
            "/console/runs               the workflow, drawn with the states of its steps",
        ]
    )


def tell_how_to_go_on(screen: Screen, story: Story) -> None:
    """Says what can be done while the gateway stays up."""
    screen.step(f"Go on yourself: the gateway stays up on {story.url}")
    screen.say("In a second terminal, in this folder:")
    screen.commands(
        [
            ". .venv/bin/activate",
            f"export INTERLOCK_HOME={story.interlock_home} INTERLOCK_URL={story.url}",
            "export INTERLOCK_TOKEN=$(interlock token --user alice)",
            "interlock agent list",
            'interlock send support "3 of SKU-7, please"',
            "interlock task list",
            f"INTERLOCK_TOKEN=$(interlock token --user bob) interlock why {story.refusal}",
        ]
    )


def wait_for_interrupt(screen: Screen) -> None:
    """Waits for Ctrl-C."""
    screen.say("Ctrl-C ends everything.", "dim")
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    sys.exit(main())
