"""How the screens of ``jq top`` look: the terminal's own colours, no frames, one line for each line."""

CSS = """
Screen { background: ansi_default; color: ansi_default; }
Static { width: 100%; height: auto; background: ansi_default; color: ansi_default; }
ListPane { height: 1fr; background: ansi_default; }
#keys, #message, #question { height: auto; }
#keys { text-style: dim; }
#question { text-style: bold; }
#rows { height: 1fr; max-height: 100%; border: none; padding: 0; background: ansi_default; color: ansi_default; }
#rows, #printed { scrollbar-size-vertical: 1; }
#rows:focus { border: none; background-tint: ansi_default 0%; }
#rows > .option-list--option { padding: 0; }
#rows > .option-list--option-hover { background: ansi_default; }
#rows > .option-list--option-highlighted, #rows:focus > .option-list--option-highlighted {
    background: ansi_default; color: ansi_default; text-style: reverse;
}
#printed { height: 1fr; background: ansi_default; }
Input { height: 1; border: none; padding: 0; background: ansi_default; color: ansi_default; }
Input:focus { border: none; background-tint: ansi_default 0%; }
Input > .input--cursor { text-style: reverse; }
Input > .input--placeholder { text-style: dim; }
#filter { display: none; }
"""
