"""Why something can't be compiled, in a sentence."""

from __future__ import annotations

import re

from oncue.torch_private import cause_of, traced_lines


def reason_of(error: BaseException) -> str:
    r"""Return what an error of torch's compiler says, with the line of the user's code that it is about.

    Args:
        error: What was raised while a graph was made.

    Example:
        >>> reason_of(RuntimeError("Unsupported call\n  Explanation: none.\n"))
        'Unsupported call'
    """
    error = cause_of(error)
    text = str(error).strip() or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    context = re.search(r"Developer debug context: (.+)", text)
    places = re.findall(r'File "([^"]+)", line (\d+), in \S+\n\s+(.+)', text) or traced_lines(error)
    reason = lines[0].rstrip(".")
    if context is not None and context.group(1).strip() not in ("", reason):
        reason += f" ({context.group(1).strip()[:200]})"
    if places:
        file, line, code = places[-1]
        reason += f", at `{code.strip()}` ({file.rsplit('/', 1)[-1]}, line {line})"
    return reason
